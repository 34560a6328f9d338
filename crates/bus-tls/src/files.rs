//! Reading credential files, and noticing cheaply that one has changed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::error::TlsError;
use crate::place::FileKind;

/// The largest credential file that is read, in bytes.
pub(crate) const MAX_FILE_LEN: u64 = 1 << 20;

/// How long a file must have been left alone before its stamp alone tells whether it has changed: file systems keep
/// times with steps of up to two seconds.
const SETTLING: Duration = Duration::from_secs(2);

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
    let file = open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_regular(path, kind, &metadata)?;
    let capacity = usize::try_from(metadata.len().min(MAX_FILE_LEN)).unwrap_or_default();
    // Room for the whole file from the start, so that no reallocation leaves a copy of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
    file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Err(TlsError::TooLarge { path: path.into(), kind, max: MAX_FILE_LEN });
    }
    Ok(Contents { bytes, mode: mode(&metadata) })
}

/// Opens without waiting: if the path leads to a pipe, plain opening would wait for a writer.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

impl Contents {
    /// The permission bits, when they let others than its owner read or write the file.
    pub(crate) fn exposed(&self) -> Option<u32> {
        self.mode.filter(|mode| mode & 0o077 != 0)
    }
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

/// The states of some files at one time. Taken before the files are read, so that a change during reading is noticed
/// next time.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    stamps: Vec<Option<Stamp>>,
    /// Whether none of the files had changed shortly before: a further change could have left the same stamp.
    settled: bool,
}

impl Snapshot {
    pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let now = SystemTime::now();
        let stamps: Vec<_> = paths.into_iter().map(Stamp::of).collect();
        let settled = stamps.iter().flatten().all(|stamp| stamp.is_settled(now));
        Self { stamps, settled }
    }

    /// Whether nothing tells the two states apart.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        self.stamps == other.stamps
    }

    /// Whether the files may have changed since, when `later` is their state now.
    pub(crate) fn is_outdated_by(&self, later: &Self) -> bool {
        !self.equals(later) || !self.settled && later.settled
    }
}

/// Whatever tells one state of a file from another without reading it.
///
/// Symbolic links are followed, so that the swap of a directory link, as Kubernetes rotates its mounts, is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: Inode,
}

impl Stamp {
    /// The state of the file now; `None` when there is no file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), len: metadata.len(), inode: Inode::of(&metadata) })
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        // A time that is not known, or lies in the future, tells nothing.
        let last = self.modified.max(self.inode.changed());
        let age = last.and_then(|last| now.duration_since(last).ok());
        age.is_some_and(|age| age >= SETTLING)
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

    /// When its name, its permissions or its content last changed.
    fn changed(&self) -> Option<SystemTime> {
        let (seconds, nanoseconds) = self.changed;
        let age = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
        SystemTime::UNIX_EPOCH.checked_add(age)
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

    fn changed(&self) -> Option<SystemTime> {
        None
    }
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_changed_just_before_they_were_read_are_read_once_more() {
        let [young, settled] = [false, true].map(|settled| Snapshot { stamps: vec![None], settled });
        assert!(young.is_outdated_by(&settled));
        for (former, later) in [(&young, &young), (&settled, &settled), (&settled, &young)] {
            assert!(!former.is_outdated_by(later));
        }
    }

    #[test]
    fn a_file_is_settled_two_seconds_after_its_last_change() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let stamp = Stamp::of(path.path()).unwrap();
        let changed = stamp.modified.max(stamp.inode.changed()).unwrap();
        assert!(!stamp.is_settled(changed));
        assert!(!stamp.is_settled(changed + SETTLING - Duration::from_nanos(1)));
        assert!(stamp.is_settled(changed + SETTLING));
        assert!(!stamp.is_settled(changed - Duration::from_secs(3600)));
    }
}
