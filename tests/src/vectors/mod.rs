//! The test vectors of the wire: `tests/vectors/*.json`, for whoever implements `docs/wire.md`.
//!
//! They are made from fixed seeds, keys and times, so making them again gives the same files. Those keys are published here, and
//! are for tests alone. What is expected of each vector is stated beside it by hand; [`agree`] then compares bus-crypto with
//! the files as they are committed, and `tests/interop` does the same in Python.
//!
//! * [`file`](mod@file): what the files hold.
//! * [`generate`], [`run`]: making, writing and checking them.
//! * [`Disagreement`], [`agree`]: whether bus-crypto, and bus-tls for chains, say the same.

pub mod file;

mod agreement;
mod bundles;
mod chains;
mod contents;
mod corruptions;
mod envelopes;
mod epochs;
mod form;
mod forms;
mod frames;
mod hpke;
mod identities;
mod opening;
mod records;
mod replays;
mod scalar;
mod scans;
mod sealed;
mod signer;
mod trailers;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

pub use agreement::{Disagreement, Report, agree};
pub use signer::Recorder;

use file::File;
use identities::World;

/// Where the files are.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// Every file: its name and its text.
///
/// # Errors
///
/// When a signature is not recorded, or a certificate cannot be made.
pub fn generate(recorder: &Recorder) -> Result<Vec<(&'static str, String)>> {
    let world = World::new(recorder)?;
    Ok(vec![
        ("trailers.json", text(&trailers::file())?),
        ("scans.json", text(&scans::file())?),
        ("chains.json", text(&chains::file(&world)?)?),
        ("bundles.json", text(&bundles::file(&world)?)?),
        ("envelopes.json", text(&envelopes::file(&world)?)?),
        ("replays.json", text(&replays::file())?),
        ("records.json", text(&records::file(&world)?)?),
        ("contents.json", text(&contents::file())?),
        ("hpke.json", text(&hpke::file())?),
        ("sealed.json", text(&sealed::file(&world)?)?),
        ("compressed.json", text(&frames::file())?),
    ])
}

/// Writes the files, or with `check` fails when one of them is not what would be written.
///
/// # Errors
///
/// As [`generate`]; when a file cannot be written, or has drifted: then it is named.
pub fn run(directory: &Path, check: bool, recorder: &Recorder) -> Result<()> {
    let files = generate(recorder)?;
    if !check {
        std::fs::create_dir_all(directory)?;
    }
    for (name, text) in &files {
        let path = directory.join(name);
        if !check {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        } else if std::fs::read(&path).unwrap_or_default() != text.as_bytes() {
            bail!("{} is out of date: run `cargo xtask vectors`, look at what changed, and commit it", path.display());
        }
    }
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !files.iter().any(|(known, _)| name == *known) {
            bail!("{} is no file of vectors: remove it", directory.join(name).display());
        }
    }
    Ok(())
}

fn text<V: Serialize>(file: &File<V>) -> Result<String> {
    Ok(serde_json::to_string_pretty(file)? + "\n")
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
