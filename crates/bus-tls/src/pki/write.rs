//! Writing files: with the right permissions from the first byte on, and never over another file by accident.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::PkiError;

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    ByAll,
    ByOwner,
}

/// Writes a new file; it is an error if one is there.
pub(super) fn create(path: &Path, bytes: &[u8], readable: Readable) -> Result<(), PkiError> {
    let result = open_new(path, readable).and_then(|file| fill(file, bytes));
    result.map_err(|reason| match reason.kind() {
        io::ErrorKind::AlreadyExists => PkiError::AlreadyExists { path: path.into() },
        _ => failed(path, "written")(reason),
    })
}

/// Writes a file in one step: whoever reads it sees the old bytes or the new, never a part.
pub(super) fn replace(path: &Path, bytes: &[u8], readable: Readable) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(reason) if reason.kind() != io::ErrorKind::NotFound => return Err(failed(&temporary, "removed")(reason)),
        _ => {}
    }
    create(&temporary, bytes, readable)?;
    fs::rename(&temporary, path).map_err(failed(path, "replaced"))
}

pub(super) fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> PkiError {
    let path: PathBuf = path.into();
    move |reason| PkiError::Io { path: path.clone(), action, reason }
}

fn open_new(path: &Path, readable: Readable) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
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
    options.open(path)
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}
