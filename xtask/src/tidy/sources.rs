//! The text files of the checkout, and checks on any of them.

use std::fs;

use anyhow::Result;

use crate::tidy::Violation;
use crate::workspace::{Workspace, stdout_of};

/// The longest that a file of product code may be, in lines, its tests not counted.
const LONGEST: usize = 600;

/// Others' code. Its directories are kept as they came, as far as possible; the files beside them are ours.
const VENDORED: &str = "third-party/";

/// The text files that are in the repository or would be added to it.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

/// One text file.
#[derive(Debug)]
pub struct Source {
    /// Relative to the workspace's root, with `/`.
    pub path: String,
    pub text: String,
}

impl Sources {
    /// Reads what git tracks, and what it would track. Binary files are left out.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let mut git = std::process::Command::new("git");
        git.current_dir(workspace.root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let list = stdout_of(&mut git)?;
        let read = |path: &str| fs::read_to_string(workspace.root().join(path)).ok();
        let paths = list.split('\0').filter(|path| !path.is_empty());
        Ok(paths.filter_map(|path| Some((path, read(path)?))).collect())
    }

    /// The file of that path.
    pub fn find(&self, path: &str) -> Option<&Source> {
        self.files.iter().find(|file| file.path == path)
    }

    /// All files.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.files.iter()
    }

    /// All files but others' code.
    pub fn ours(&self) -> impl Iterator<Item = &Source> {
        self.iter().filter(|file| !file.path.strip_prefix(VENDORED).is_some_and(|path| path.contains('/')))
    }

    /// Whether there is such a file, or a directory that holds one.
    pub fn has_path(&self, path: &str) -> bool {
        let directory = format!("{path}/");
        path.is_empty() || self.files.iter().any(|file| file.path == path || file.path.starts_with(&directory))
    }

    /// The product's own code: the crates and the tools, without tests, benchmarks and generated code.
    pub fn product(&self) -> impl Iterator<Item = &Source> {
        self.iter().filter(|file| {
            let ours = file.path.starts_with("crates/") || file.path.starts_with("xtask/");
            let code = file.path.contains("/src/") && file.path.ends_with(".rs");
            ours && code && !file.path.contains("/generated/") && !self.is_tests(&file.path)
        })
    }

    /// Whether a file is the module `tests` of one that builds it for tests alone.
    fn is_tests(&self, path: &str) -> bool {
        let Some(folder) = path.strip_suffix("/tests.rs") else {
            return false;
        };
        let parents = ["/mod.rs", "/lib.rs", "/main.rs", ".rs"].map(|end| format!("{folder}{end}"));
        let found = parents.iter().filter_map(|parent| self.find(parent));
        found.into_iter().any(|parent| parent.text.contains("#[cfg(test)]\nmod tests;"))
    }
}

impl<P: Into<String>, T: Into<String>> FromIterator<(P, T)> for Sources {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(files: I) -> Self {
        let files = files.into_iter().map(|(path, text)| Source { path: path.into(), text: text.into() });
        Self { files: files.collect() }
    }
}

impl Source {
    /// The lines outside of the module `tests`, counted from 1. What else is built for tests alone is read with the rest:
    /// it hides nothing that follows it.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_tests = false;
        let mut before = "";
        self.text.lines().zip(1..).filter_map(move |(line, number)| {
            in_tests |= before == "#[cfg(test)]" && line == "mod tests {";
            // As rustfmt writes it, only the module's own brace stands at the beginning of a line.
            in_tests &= before != "}";
            before = line;
            (!in_tests).then_some((number, line))
        })
    }
}

/// Files of product code that are too long to be read at once.
pub fn long_files(sources: &Sources) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in sources.product() {
        let length = file.product_lines().count();
        if length > LONGEST {
            violations.push(Violation::new(&file.path, format!("has {length} lines of product code: split it")));
        }
    }
    violations
}

/// Paths of one machine, hosts of package registries, and notes of work left open.
pub fn forbidden_words(sources: &Sources) -> Vec<Violation> {
    let anywhere = needles();
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let mut violations = Vec::new();
    for file in sources.ours() {
        for (index, line) in file.text.lines().enumerate() {
            let found = anywhere.iter().find(|needle| line.contains(needle.as_str()));
            let found = found.or_else(|| words.iter().find(|word| has_word(line, word)));
            if let Some(needle) = found {
                violations.push(Violation::at(&file.path, index + 1, format!("says `{needle}`")));
            }
        }
    }
    violations
}

/// Built from parts, so that this file does not hold them.
fn needles() -> Vec<String> {
    let parts = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["to", "do!("],
        ["py", "pi.org"],
        ["static.", "crates.io"],
        ["index.", "crates.io"],
        ["registry.", "npmjs.org"],
        ["deb.", "debian.org"],
    ];
    parts.iter().map(|parts| parts.concat()).collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forbidden_word_is_found_with_its_line() {
        for needle in needles() {
            let sources: Sources = [("a.md", format!("fine\nsee {needle}x\n"))].into_iter().collect();
            let found = forbidden_words(&sources);
            assert_eq!(found, [Violation::at("a.md", 2, format!("says `{needle}`"))]);
        }
        let open_work = ["FIX", "ME: later"].concat();
        let sources: Sources = [("a.rs", open_work)].into_iter().collect();
        assert_eq!(forbidden_words(&sources).len(), 1);
    }

    #[test]
    fn others_code_may_leave_work_open_and_what_lies_beside_it_may_not() {
        let open_work = || ["TO", "DO: later"].concat();
        let others: Sources = [("third-party/a/src/lib.rs", open_work())].into_iter().collect();
        assert_eq!(forbidden_words(&others), []);
        let ours: Sources = [("third-party/README.md", open_work())].into_iter().collect();
        assert_eq!(forbidden_words(&ours).len(), 1);
    }

    #[test]
    fn a_word_within_another_is_no_word() {
        let sources: Sources = [("a.rs", ["mktemp -p . ", "XX", "XXXX"].concat())].into_iter().collect();
        assert_eq!(forbidden_words(&sources), []);
    }

    #[test]
    fn a_long_product_file_is_found_and_its_tests_do_not_count() {
        let code = "fn f() {}\n".repeat(LONGEST);
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{code}}}\n", &code[10..]);
        let generated = ("crates/a/src/generated/b.rs", format!("{code}{code}"));
        let fine: Sources = [("crates/a/src/lib.rs", tested), generated].into_iter().collect();
        assert_eq!(long_files(&fine), []);
        let long: Sources = [("crates/a/src/lib.rs", format!("{code}\n"))].into_iter().collect();
        assert_eq!(long_files(&long).len(), 1);
    }

    #[test]
    fn what_follows_a_test_module_or_an_item_for_tests_is_product_code() {
        let text =
            "#[cfg(test)]\nuse a::B;\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn t() {\n    }\n}\nfn g() {}\n";
        let source = Source { path: "crates/a/src/lib.rs".to_owned(), text: text.to_owned() };
        let numbers: Vec<usize> = source.product_lines().map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 10]);
    }

    #[test]
    fn a_file_of_tests_is_no_product_code_only_if_it_is_built_for_tests_alone() {
        let product = |parent: &str| {
            let files = [("crates/a/src/b/mod.rs", parent), ("crates/a/src/b/tests.rs", "")];
            files.into_iter().collect::<Sources>().product().count()
        };
        assert_eq!(product("#[cfg(test)]\nmod tests;\n"), 1);
        assert_eq!(product("mod tests;\n"), 2);
    }
}
