//! Writing files: with the right permissions from the first byte on, whole or not at all, and never over another file
//! by accident.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{PkiError, random};
use crate::x509;

/// The lock of a directory that certificates are written into.
const LOCK_FILE: &str = ".bus-pki.lock";

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    ByAll,
    ByOwner,
}

/// A file that is written, but does not bear its name yet. Dropped, it is removed.
pub(super) struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
}

impl Prepared {
    pub(super) fn new(path: &Path, bytes: &[u8], readable: Readable) -> Result<Self, PkiError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", x509::hex(&random::<8>()?)));
        let prepared = Self { temporary: path.with_file_name(name), path: path.into() };
        let written = to_write(readable).create_new(true).open(&prepared.temporary).and_then(|file| fill(file, bytes));
        written.map_err(failed(path, "written"))?;
        Ok(prepared)
    }

    /// Gives it its name; it is an error if a file of this name is there.
    pub(super) fn create(self) -> Result<(), PkiError> {
        fs::hard_link(&self.temporary, &self.path).map_err(|reason| match reason.kind() {
            io::ErrorKind::AlreadyExists => PkiError::AlreadyExists { path: self.path.clone() },
            _ => failed(&self.path, "written")(reason),
        })?;
        sync_directory(&self.path)
    }

    /// Gives it its name in one step: whoever reads the file sees the old bytes or the new, never a part.
    pub(super) fn replace(self) -> Result<(), PkiError> {
        fs::rename(&self.temporary, &self.path).map_err(failed(&self.path, "replaced"))?;
        sync_directory(&self.path)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // After a rename there is nothing to remove, and what a full disk leaves behind harms nobody.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Makes a directory, and those above it, unless they are there. Those that it makes are their owner's alone.
pub(super) fn make_directory(dir: &Path) -> Result<(), PkiError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir).map_err(failed(dir, "made"))
}

/// Keeps other programs from writing certificates into a directory until the returned file is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, PkiError> {
    let path = dir.join(LOCK_FILE);
    let file = to_write(Readable::ByOwner).create(true).truncate(false).open(&path);
    let file = file.map_err(failed(&path, "opened"))?;
    file.lock().map_err(failed(&path, "locked"))?;
    Ok(file)
}

pub(super) fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> PkiError {
    let path: PathBuf = path.into();
    move |reason| PkiError::Io { path: path.clone(), action, reason }
}

/// How to open a file to write it, with these permissions should it be created.
fn to_write(readable: Readable) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match readable {
            Readable::ByAll => 0o644,
            Readable::ByOwner => 0o600,
        });
    }
    #[cfg(not(unix))]
    let _ = readable;
    options
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a new name outlast a loss of power.
#[cfg(unix)]
fn sync_directory(path: &Path) -> Result<(), PkiError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir, "written"))
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> Result<(), PkiError> {
    Ok(())
}
