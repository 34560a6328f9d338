//! Files that prove messages to others: envelopes as they arrived, and the bundles of the keys that signed them.
//!
//! Every file is named after the SHA-256 of what is in it, so nobody can have one message's evidence replace another's.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bus_client::Evidence;
use bus_crypto::{KeyId, sha256};
use bus_proto::prost::bytes::Bytes;

use crate::exit::Failure;

const MIB: u64 = 1024 * 1024;

/// The name of the file that a bundle is kept in.
pub(crate) fn bundle_name(key_id: &KeyId) -> String {
    format!("{key_id}.bundle")
}

/// A directory of evidence, which is given so much and no more.
#[derive(Debug)]
pub(crate) struct Capture {
    dir: PathBuf,
    limit_mib: u64,
    /// In bytes.
    left: u64,
    /// The envelope that was kept last, and the name of its file: the messages of a batch share theirs.
    last: Option<(Bytes, String)>,
}

impl Capture {
    /// Makes the directory unless there is one.
    pub(crate) fn new(dir: &Path, limit_mib: u64) -> anyhow::Result<Self> {
        create_dir(dir)?;
        Ok(Self { dir: dir.into(), limit_mib, left: limit_mib.saturating_mul(MIB), last: None })
    }

    /// Keeps what proves a message, unless it is kept already, and returns the name of the envelope's file.
    pub(crate) fn keep(&mut self, evidence: &Evidence, key_id: &KeyId) -> anyhow::Result<String> {
        let Evidence { envelope, bundle, .. } = evidence;
        match &self.last {
            // While it is held, no other bytes can be where it is.
            Some((last, name)) if last.as_ptr() == envelope.as_ptr() => return Ok(name.clone()),
            _ => {}
        }
        let digest: String = sha256(envelope).iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{digest}.envelope");
        // The bundle first, so that no envelope is without its own.
        self.write(&bundle_name(key_id), bundle)?;
        self.write(&name, envelope)?;
        self.last = Some((envelope.clone(), name.clone()));
        Ok(name)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (dir, size) = (self.dir.display(), bytes.len() as u64);
        if size > self.left {
            let limit = self.limit_mib;
            return Err(Failure::failed(format!(
                "{limit} MiB were written to `{dir}`, and no more may be: move them elsewhere, or raise --capture-limit"
            )));
        }
        if write_new(&self.dir, name, bytes).with_context(|| format!("evidence cannot be written to `{dir}`"))? {
            self.left -= size;
        }
        Ok(())
    }
}

/// Makes a directory for its owner alone, unless there is one.
pub(crate) fn create_dir(dir: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).with_context(|| format!("`{}` cannot be made", dir.display()))
}

/// Writes a file for its owner alone, which has its name only once it is whole. Whether it is new: what bears the name
/// already stays as it is.
pub(crate) fn write_new(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<bool> {
    let path = dir.join(name);
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let partial = dir.join(format!(".{name}.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&partial).and_then(|mut file| file.write_all(bytes));
    let named = written.and_then(|()| std::fs::rename(&partial, &path));
    if named.is_err() {
        // What cannot be removed either is told by the error that led here.
        let _ = std::fs::remove_file(&partial);
    }
    named.map(|()| true)
}
