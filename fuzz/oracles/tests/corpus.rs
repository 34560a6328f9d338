//! The corpus of every fuzz target, tried with this compiler.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bus_fuzz_oracles::{TARGETS, Target};

/// The most inputs of one target, and the longest of them, in bytes: a corpus is small enough to be committed.
const MOST_INPUTS: usize = 100;
const LONGEST_INPUT: u64 = 16 * 1024;

fn entries(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The names in a directory, without their ending.
fn names(directory: &str) -> BTreeSet<String> {
    let paths = entries(directory);
    paths.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}

#[test]
fn every_corpus_is_small() {
    for Target { name, .. } in TARGETS {
        let paths = entries(&format!("corpus/{name}"));
        assert!((1..=MOST_INPUTS).contains(&paths.len()), "{name} has {} inputs", paths.len());
        for path in paths {
            let length = fs::metadata(&path).unwrap().len();
            assert!(length <= LONGEST_INPUT, "{} has {length} bytes", path.display());
        }
    }
}

#[test]
fn what_must_hold_holds_for_every_input() {
    let mut failed = Vec::new();
    for Target { name, run } in TARGETS {
        for path in entries(&format!("corpus/{name}")) {
            let input = fs::read(&path).unwrap();
            if catch_unwind(|| run(&input)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
