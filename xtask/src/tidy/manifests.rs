//! The packages' manifests, and the suites that they declare.

use toml::Table;

use crate::suites;
use crate::tidy::Violation;
use crate::tidy::sources::{Source, Sources};

const INHERITED: &[&str] = &["version", "edition", "license", "rust-version", "repository"];

/// The stand-in's version must lie above any that its patch replaces.
const OWN_VERSION: &str = "stubs/rustls-native-certs/Cargo.toml";

const SUITES: &str = "tests/suites/";

/// A workspace of its own, as only a nightly compiler builds it: it inherits nothing, and holds one line for each target.
const FUZZ_TARGETS: &str = "fuzz/Cargo.toml";

/// Every package of ours inherits lints and metadata from the workspace, and what can be published describes itself.
pub fn check(sources: &Sources) -> Vec<Violation> {
    let mut violations = Vec::new();
    let inheriting = |file: &&Source| file.path.ends_with("/Cargo.toml") && file.path != FUZZ_TARGETS;
    for file in sources.ours().filter(inheriting) {
        match file.text.parse::<Table>() {
            Ok(manifest) => check_package(file, &manifest, sources, &mut violations),
            Err(error) => violations.push(Violation::new(&file.path, error.message())),
        }
    }
    violations
}

fn check_package(file: &Source, manifest: &Table, sources: &Sources, violations: &mut Vec<Violation>) {
    let mut object = |what: String| violations.push(Violation::new(&file.path, what));
    let Some(package) = manifest.get("package").and_then(toml::Value::as_table) else {
        return object("is no package".to_owned());
    };
    for key in INHERITED {
        let exempt = *key == "version" && file.path == OWN_VERSION;
        if !exempt && !inherits(package.get(*key)) {
            object(format!("does not say `{key}.workspace = true`"));
        }
    }
    if !inherits(manifest.get("lints")) {
        object("does not inherit the workspace's lints".to_owned());
    }
    if package.get("publish").and_then(toml::Value::as_bool) == Some(false) {
        return;
    }
    if package.get("description").is_none() {
        object("can be published and has no description".to_owned());
    }
    let readme = file.path.replace("Cargo.toml", "README.md");
    if sources.find(&readme).is_none() {
        object("can be published and has no README.md beside it".to_owned());
    }
}

fn inherits(value: Option<&toml::Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
}

/// Every file of integration tests is a suite that `cargo xtask test` runs.
pub fn suites(sources: &Sources) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in sources.iter() {
        let name = file.path.strip_prefix(SUITES).and_then(|name| name.strip_suffix(".rs"));
        if let Some(name) = name.filter(|name| !name.contains('/'))
            && suites::find(name).is_none()
        {
            violations.push(Violation::new(&file.path, "is run by no suite: name it in SUITES"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = 'a'\ndescription = 'A.'\nversion.workspace = true\nedition.workspace = true\n\
                        license.workspace = true\nrust-version.workspace = true\nrepository.workspace = true\n\
                        [lints]\nworkspace = true\n";

    fn violations(manifest: &str, readme: &str) -> Vec<String> {
        let sources: Sources = [("crates/a/Cargo.toml", manifest), (readme, "")].into_iter().collect();
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_manifest_passes() {
        assert_eq!(violations(GOOD, "crates/a/README.md"), [""; 0]);
    }

    #[test]
    fn each_missing_part_is_found() {
        for (line, blamed) in [
            ("\nversion.workspace = true", "version"),
            ("edition.workspace = true\n", "edition"),
            ("[lints]\nworkspace = true\n", "lints"),
            ("description = 'A.'\n", "description"),
        ] {
            let found = violations(&GOOD.replace(line, ""), "crates/a/README.md");
            assert!(matches!(found.as_slice(), [one] if one.contains(blamed)), "{line}: {found:?}");
        }
        assert!(violations(GOOD, "README.md")[0].contains("README.md"));
        let private = GOOD.replace("description = 'A.'", "publish = false");
        assert_eq!(violations(&private, "README.md"), [""; 0], "what is not published needs no description");
    }

    #[test]
    fn a_version_of_its_own_is_found() {
        let found = violations(&GOOD.replace("edition.workspace = true", "edition = '2021'"), "crates/a/README.md");
        assert_eq!(found, ["crates/a/Cargo.toml: does not say `edition.workspace = true`"]);
    }

    #[test]
    fn a_suite_that_nobody_runs_is_found() {
        let files =
            [("tests/suites/attacks.rs", ""), ("tests/suites/forgotten.rs", ""), ("tests/suites/help/mod.rs", "")];
        let sources: Sources = files.into_iter().collect();
        assert_eq!(suites(&sources).len(), 1);
    }
}
