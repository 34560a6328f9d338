//! The documents: the requirements' tests, and links.

use std::collections::HashSet;

use crate::tidy::Violation;
use crate::tidy::sources::{Source, Sources};

const REQUIREMENTS: &str = "docs/requirements.md";

/// Every row `| A1 | what | tests |` of the requirements has an id of its own and names tests that exist and are not
/// ignored. A test is named `` `crates/bus-acl/tests/agreement.rs::sender_broker_and_receiver_agree` ``. That it
/// runs follows only together with `cargo xtask test`, whose suites are all the crates and all the files in `tests/suites`.
pub fn requirements(sources: &Sources) -> Vec<Violation> {
    let Some(document) = sources.find(REQUIREMENTS) else {
        return vec![Violation::new(REQUIREMENTS, "is missing")];
    };
    let mut violations = Vec::new();
    let mut seen = HashSet::new();
    let mut rows = 0;
    for (number, cells) in table_rows(document) {
        let mut object = |what: String| violations.push(Violation::at(REQUIREMENTS, number, what));
        let id = cells.first().copied().unwrap_or_default();
        rows += 1;
        if !is_requirement_id(id) {
            object(format!("`{id}` is no requirement id: it is a letter from A to E and a number"));
        } else if !seen.insert(id) {
            object(format!("{id} stands there twice"));
        }
        let tests: Vec<&str> = cells.get(2).map(|cell| test_names(cell).collect()).unwrap_or_default();
        if tests.is_empty() {
            object(format!("{id} names no test"));
        }
        tests.iter().filter_map(|test| trouble_with(sources, test)).for_each(object);
    }
    if rows == 0 {
        violations.push(Violation::new(REQUIREMENTS, "holds no row whose table begins with the column `id`"));
    }
    violations
}

/// Every test that the document names, anywhere, exists and is not ignored. A document that is missing is a violation.
pub fn named_tests(sources: &Sources, path: &str) -> Vec<Violation> {
    let Some(document) = sources.find(path) else {
        return vec![Violation::new(path, "is missing")];
    };
    let mut violations = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        for what in test_names(line).filter_map(|test| trouble_with(sources, test)) {
            violations.push(Violation::at(path, index + 1, what));
        }
    }
    violations
}

/// The rows of the tables whose first column is called `id`, with their line numbers and trimmed cells.
fn table_rows(document: &Source) -> Vec<(usize, Vec<&str>)> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for (index, line) in document.text.lines().enumerate() {
        let Some(inner) = line.trim().strip_prefix('|') else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = inner.trim_end_matches('|').split('|').map(str::trim).collect();
        let separator = cells.iter().all(|cell| cell.chars().all(|character| "-: ".contains(character)));
        if cells.first() == Some(&"id") {
            in_table = true;
        } else if in_table && !separator {
            rows.push((index + 1, cells));
        }
    }
    rows
}

fn is_requirement_id(id: &str) -> bool {
    let mut characters = id.chars();
    let letter = characters.next().is_some_and(|letter| ('A'..='E').contains(&letter));
    letter && id.len() > 1 && characters.all(|character| character.is_ascii_digit())
}

/// The test names between backticks: `path.rs::name`.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|code| code.contains(".rs::"))
}

/// Why a named test does not count, if so.
fn trouble_with(sources: &Sources, test: &str) -> Option<String> {
    let (stem, name) = test.split_once(".rs::")?;
    let path = format!("{stem}.rs");
    let name = name.rsplit("::").next().unwrap_or(name);
    let Some(file) = sources.find(&path) else {
        return Some(format!("`{test}`: there is no file {path}"));
    };
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let is_function = |line: &&str| line.contains(&format!("fn {name}("));
    let Some(position) = lines.iter().position(is_function) else {
        return Some(format!("`{test}`: {path} holds no function {name}"));
    };
    let above = lines[..position].iter().rev();
    let attributes: Vec<&str> =
        above.take_while(|line| line.starts_with("#[") || line.starts_with("//")).copied().collect();
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    if !attributes.iter().any(is_test) {
        return Some(format!("`{test}`: {name} is no test"));
    }
    if attributes.iter().any(|line| line.starts_with("#[ignore")) {
        return Some(format!("`{test}`: {name} is ignored"));
    }
    None
}

/// Relative links of Markdown files lead to something that is in the repository.
pub fn links(sources: &Sources) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in sources.iter().filter(|file| file.path.ends_with(".md")) {
        let mut in_code = false;
        for (index, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            for link in link_targets(line).iter().filter(|_| !in_code) {
                let target = link.split(['#', ' ']).next().unwrap_or_default();
                let elsewhere = target.contains("://") || target.starts_with("mailto:");
                if !elsewhere && !target.is_empty() && !resolves(sources, &file.path, target) {
                    violations.push(Violation::at(
                        &file.path,
                        index + 1,
                        format!("links to {target}, which is not there"),
                    ));
                }
            }
        }
    }
    violations
}

/// What stands between the parentheses of `[text](target)`, outside of inline code.
fn link_targets(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.trim().to_owned()).collect()
}

fn resolves(sources: &Sources, from: &str, target: &str) -> bool {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            name => parts.push(name),
        }
    }
    sources.has_path(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: &str = "#[test]\nfn it_holds() {}\n\n/// Slow.\n#[ignore]\n#[test]\nfn it_is_ignored() {}\n\nfn helper() {}\n\
                         #[tokio::test(flavor = \"multi_thread\")]\n#[cfg(unix)]\nasync fn it_waits() {}\n";

    fn requirement(rows: &str) -> Vec<String> {
        let document = format!("# Requirements\n\n| id | what | tests |\n|---|---|---|\n{rows}\n");
        let sources: Sources =
            [(REQUIREMENTS, document), ("crates/a/tests/t.rs", TESTS.to_owned())].into_iter().collect();
        requirements(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_row_that_names_tests_that_exist_passes() {
        let row = "| A1 | it | `crates/a/tests/t.rs::it_holds`, `crates/a/tests/t.rs::tests::it_waits` |";
        assert_eq!(requirement(row), [""; 0]);
    }

    #[test]
    fn each_bad_row_is_found() {
        for (test, blamed) in [
            ("", "names no test"),
            ("by hand", "names no test"),
            ("`crates/a/tests/u.rs::it_holds`", "no file"),
            ("`crates/a/tests/t.rs::it_is_gone`", "no function"),
            ("`crates/a/tests/t.rs::helper`", "is no test"),
            ("`crates/a/tests/t.rs::it_is_ignored`", "is ignored"),
        ] {
            let found = requirement(&format!("| A1 | it | {test} |"));
            assert!(matches!(found.as_slice(), [one] if one.contains(blamed)), "{test}: {found:?}");
            assert!(found[0].starts_with("docs/requirements.md:5: "), "{found:?}");
        }
    }

    #[test]
    fn ids_are_well_formed_and_stand_once() {
        let good = "it | `crates/a/tests/t.rs::it_holds` |";
        assert!(requirement(&format!("| A1 | {good}\n| A1 | {good}"))[0].contains("twice"));
        for id in ["F1", "A", "1", "A1x", ""] {
            assert!(requirement(&format!("| {id} | {good}"))[0].contains("is no requirement id"), "{id}");
        }
        assert!(requirement("")[0].contains("no row"));
        assert_eq!(requirements(&Sources::default()).len(), 1);
    }

    #[test]
    fn a_test_that_a_document_names_and_that_is_gone_is_found() {
        let text = "It holds (`crates/a/tests/t.rs::it_holds`).\nSo does `crates/a/tests/t.rs::it_is_gone`.\n";
        let sources: Sources = [("SECURITY.md", text), ("crates/a/tests/t.rs", TESTS)].into_iter().collect();
        let found = named_tests(&sources, "SECURITY.md");
        assert!(matches!(found.as_slice(), [one] if one.place == "SECURITY.md:2"), "{found:?}");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](../README.md) [b](other.md#part) [c](#here) [d](https://example.org/x) `[e](nowhere.md)`\n\
                    [f](gone.md \"title\")\n```\n[g](gone.md)\n```\n[h](../../above.md) [i](../docs)\n";
        let sources: Sources = [("docs/a.md", text), ("docs/other.md", ""), ("README.md", "")].into_iter().collect();
        let found: Vec<String> = links(&sources).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/a.md:2: links to gone.md, which is not there",
                "docs/a.md:6: links to ../../above.md, which is not there"
            ]
        );
    }
}
