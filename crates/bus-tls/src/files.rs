//! Reading credential files, and noticing cheaply that one has changed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::error::TlsError;
use crate::place::FileKind;

/// The largest credential file that is read, in bytes.
pub(crate) const MAX_FILE_LEN: u64 = 1 << 20;

/// A file's bytes, wiped when they are dropped.
pub(crate) struct Contents {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// The permission bits; `None` where the operating system has none.
    pub(crate) mode: Option<u32>,
}

/// Reads a whole file of at most [`MAX_FILE_LEN`] bytes.
pub(crate) fn read(path: &Path, kind: FileKind) -> Result<Contents, TlsError> {
    let failed = |reason: io::Error| match reason.kind() {
        io::ErrorKind::NotFound => TlsError::Missing { path: path.into(), kind },
        _ => TlsError::Unreadable { path: path.into(), kind, reason },
    };
    // Asked before opening, because opening a pipe would wait for a writer.
    check_regular(path, kind, &fs::metadata(path).map_err(failed)?)?;
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let capacity = usize::try_from(metadata.len().min(MAX_FILE_LEN)).unwrap_or_default();
    // Room for the whole file from the start, so that no reallocation leaves a copy of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
    file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Err(TlsError::TooLarge { path: path.into(), kind, max: MAX_FILE_LEN });
    }
    Ok(Contents { bytes, mode: mode(&metadata) })
}

fn check_regular(path: &Path, kind: FileKind, metadata: &Metadata) -> Result<(), TlsError> {
    if metadata.is_dir() {
        return Err(TlsError::IsDirectory { path: path.into(), kind });
    }
    if !metadata.is_file() {
        let reason = io::Error::other("it is not a regular file");
        return Err(TlsError::Unreadable { path: path.into(), kind, reason });
    }
    Ok(())
}

/// Whatever tells one state of a file from another without reading it.
///
/// Symbolic links are followed, so that the swap of a directory link, as Kubernetes rotates its mounts, is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: Inode,
}

impl Stamp {
    /// The state of the file now; `None` when there is no file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), len: metadata.len(), inode: Inode::of(&metadata) })
    }
}

#[cfg(unix)]
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
    changed: (i64, i64),
}

#[cfg(unix)]
impl Inode {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: metadata.dev(), number: metadata.ino(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(metadata.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inode;

#[cfg(not(unix))]
impl Inode {
    fn of(_: &Metadata) -> Self {
        Self
    }
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> Option<u32> {
    None
}
