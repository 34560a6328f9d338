//! `cargo xtask tidy`: what the design promises and no compiler checks.

mod documents;
mod doors;
mod graph;
mod manifests;
mod metadata;
mod sources;

use std::fmt;

use anyhow::Result;

use crate::tidy::metadata::Metadata;
use crate::tidy::sources::Sources;
use crate::workspace::Workspace;

const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const SECURITY: &str = "SECURITY.md";

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    place: String,
    what: String,
}

impl Violation {
    /// A violation by a whole file or package.
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    /// A violation at a line, counted from 1.
    fn at(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{file}:{line}"), what)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Runs every check and prints what does not hold. Says whether all holds.
pub fn run(workspace: &Workspace) -> Result<bool> {
    let metadata = Metadata::read(workspace)?;
    let sources = Sources::read(workspace)?;
    let checks: [(&str, Vec<Violation>); 13] = [
        ("the arrows of the design point down", graph::arrows(&metadata)),
        (
            "the pure crates stay pure",
            [graph::purity(workspace)?, doors::purity(&sources), doors::randomness(&sources)].concat(),
        ),
        (
            "each door is the only one",
            [graph::doors(&metadata), doors::tls_configurations(&sources), doors::algorithms(&sources)].concat(),
        ),
        ("the operating system's trust store is out of reach", graph::trust_store_stub(&metadata)),
        ("the broker client is the one in third-party", graph::broker_client(&metadata)),
        ("banned crates are not built", graph::banned(workspace)?),
        ("every package inherits from the workspace", manifests::check(&sources)),
        ("every requirement names a test that exists and is not ignored", documents::requirements(&sources)),
        (
            "so does every test that the documents on architecture and security name",
            [ARCHITECTURE, SECURITY].map(|path| documents::named_tests(&sources, path)).concat(),
        ),
        ("links between documents lead somewhere", documents::links(&sources)),
        ("no file names this machine or a registry's host, or leaves work open", sources::forbidden_words(&sources)),
        ("product files are short enough to read", sources::long_files(&sources)),
        ("every integration suite is run", manifests::suites(&sources)),
    ];
    for (promise, violations) in &checks {
        println!("{} {promise}", if violations.is_empty() { "ok    " } else { "FAILED" });
        for violation in violations {
            println!("       {violation}");
        }
    }
    Ok(checks.iter().all(|(_, violations)| violations.is_empty()))
}
