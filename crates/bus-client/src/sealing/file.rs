//! A file of sealing keys, which the processes of one component share.
//!
//! It is replaced as a whole, under a lock that all of them take, so a reader needs no lock: it sees the former file or the
//! next one, also when a writer is killed or the power fails.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bus_crypto::zeroize::Zeroizing;
use bus_proto::Principal;

use super::SealingKeysError;
use super::format::{self, Content, MAX_LEN};
use super::keys::Ring;
use super::passphrase::Passphrase;

/// How long to wait for another process to have written. It takes milliseconds.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often the lock is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A file, and what is known of it.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    owner: Principal,
    passphrase: Option<Passphrase>,
    /// The state of the file when it was last read, or read in vain.
    seen: Option<Stamp>,
    /// Whether it was read in vain.
    failed: bool,
}

impl KeyFile {
    pub(super) fn new(path: PathBuf, owner: Principal, passphrase: Option<Passphrase>) -> Self {
        Self { path, owner, passphrase, seen: None, failed: false }
    }

    /// Whether it has changed since it was last read, in vain or not.
    pub(super) fn has_changed(&self) -> bool {
        Stamp::of(&self.path) != self.seen
    }

    /// Whether reading it would tell anything that is not known.
    pub(super) fn is_outdated(&self) -> bool {
        self.failed || self.has_changed()
    }

    /// Whether what was read is as it is to be: under a passphrase, if one was given.
    pub(super) fn is_as_wanted(&self, content: &Content) -> bool {
        content.locked || self.passphrase.is_none()
    }

    pub(super) fn read(&mut self) -> Result<Content, SealingKeysError> {
        self.failed = true;
        // Also known if it cannot be opened.
        self.seen = Stamp::of(&self.path);
        let (mut opened, metadata) = open(&self.path)?;
        // Of the file that is read, should it be replaced meanwhile.
        self.seen = Some(Stamp::new(&metadata));
        check_private(&self.path, &metadata)?;
        let bytes = read_all(&self.path, &mut opened)?;
        let content = format::decode(&self.path, &self.owner, &bytes, self.passphrase.as_mut())?;
        self.failed = false;
        Ok(content)
    }

    /// Replaces the file, or makes it. The caller has the lock.
    pub(super) fn write(&mut self, ring: &Ring) -> Result<(), SealingKeysError> {
        let bytes = format::encode(&self.path, &self.owner, ring, self.passphrase.as_mut())?;
        let target = target(&self.path);
        let temporary = beside(&target, ".new");
        // What a writer left behind that was killed.
        let _ = fs::remove_file(&temporary);
        let written = create(&temporary, &bytes).and_then(|()| fs::rename(&temporary, &target));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| sync_directory(&target)).map_err(cannot_write(&self.path))?;
        self.seen = Stamp::of(&self.path);
        self.failed = false;
        Ok(())
    }
}

/// The right to write a file, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for it, at most so long.
    pub(super) fn take(path: &Path, wait: Duration) -> Result<Self, SealingKeysError> {
        let lock = beside(&target(path), ".lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = for_its_owner(&mut options).open(lock).map_err(cannot_write(path))?;
        let deadline = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(reason)) => return Err(cannot_write(path)(reason)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(SealingKeysError::Busy { path: path.into(), waited_ms: wait.as_millis() });
                }
            }
        }
    }
}

/// Writes an export where no file is yet.
pub(super) fn write_export(
    to: &Path,
    owner: &Principal,
    ring: &Ring,
    passphrase: &mut Passphrase,
) -> Result<(), SealingKeysError> {
    let bytes = format::encode(to, owner, ring, Some(passphrase))?;
    let written = create(to, &bytes).and_then(|()| sync_directory(to));
    written.map_err(|reason| match reason.kind() {
        io::ErrorKind::AlreadyExists => SealingKeysError::AlreadyExists { path: to.into() },
        _ => SealingKeysError::Export { path: to.into(), reason },
    })
}

/// Reads an export. Who else can read it does not matter, but that it is under a passphrase does.
pub(super) fn read_export(
    from: &Path,
    owner: &Principal,
    passphrase: &mut Passphrase,
) -> Result<Ring, SealingKeysError> {
    let (mut opened, _) = open(from)?;
    let bytes = read_all(from, &mut opened)?;
    let content = format::decode(from, owner, &bytes, Some(passphrase))?;
    if !content.locked {
        return Err(SealingKeysError::NotAnExport { path: from.into() });
    }
    Ok(content.ring)
}

fn cannot_write(path: &Path) -> impl Fn(io::Error) -> SealingKeysError {
    move |reason| SealingKeysError::Write { path: path.into(), reason }
}

/// The file that the path leads to. A link stays, and what it points to is replaced.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// The file of the same name and this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn open(path: &Path) -> Result<(File, Metadata), SealingKeysError> {
    let failed = |reason: io::Error| match reason.kind() {
        io::ErrorKind::NotFound => SealingKeysError::Missing { path: path.into() },
        _ => SealingKeysError::Unreadable { path: path.into(), reason },
    };
    // Looked at before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    Ok((file, metadata))
}

fn read_all(path: &Path, file: &mut File) -> Result<Zeroizing<Vec<u8>>, SealingKeysError> {
    let failed = |reason| SealingKeysError::Unreadable { path: path.into(), reason };
    // Room for the longest file from the start, so that no reallocation leaves a copy of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_LEN {
        return Err(failed(io::Error::other("it is longer than any file of sealing keys")));
    }
    Ok(bytes)
}

/// Makes a file that nobody else can read, and waits until the disk has it.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = for_its_owner(options.write(true).create_new(true)).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of it is of no use. What cannot be removed either is told by the error that led here.
        let _ = fs::remove_file(path);
    }
    written
}

/// With permissions for its owner alone, should the file be made.
fn for_its_owner(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn check_private(path: &Path, metadata: &Metadata) -> Result<(), SealingKeysError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(SealingKeysError::Exposed { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn check_private(_: &Path, _: &Metadata) -> Result<(), SealingKeysError> {
    Ok(())
}

/// Makes a new name outlast a loss of power.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whatever tells one state of a file from another without reading it. Each state is another file, made while the former
/// one is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    /// Device and number, and when it was last changed or renamed, in seconds and nanoseconds.
    inode: Option<(u64, u64, i64, i64)>,
}

impl Stamp {
    /// The state of the file now; `None` when there is no file.
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::new)
    }

    fn new(metadata: &Metadata) -> Self {
        Self { modified: metadata.modified().ok(), len: metadata.len(), inode: inode(metadata) }
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there are none")]
fn inode(metadata: &Metadata) -> Option<(u64, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<(u64, u64, i64, i64)> {
    None
}
