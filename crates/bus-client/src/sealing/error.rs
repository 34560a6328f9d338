//! What can be wrong with the own sealing keys.

use std::io;
use std::path::PathBuf;

use bus_crypto::sealing::SealingFailed;
use bus_crypto::sealing::locked::LockError;
use bus_proto::Principal;

/// Why there are no sealing keys, or no new ones. The keys that were known before stay in use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealingKeysError {
    /// There is no such file.
    #[error("there is no file `{path}`")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("sealing keys file `{path}` cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: io::Error,
    },
    /// Users other than its owner may read or write the file.
    #[error("sealing keys file `{path}` can be read by others (mode {mode:04o}); run `chmod 600` on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what was written.
    #[error("`{path}` is damaged, or no file of sealing keys: restore it, or import an export of the keys")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this program wrote the file.
    #[error("sealing keys file `{path}` has format {format}, which this version does not know: use a later one")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u8,
    },
    /// The file has the keys of another component.
    #[error("`{path}` has the sealing keys of {found}, not those of {owner}: give each component a file of its own")]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// Whose keys it has.
        found: Box<Principal>,
        /// Whose it should have.
        owner: Box<Principal>,
    },
    /// The file is under a passphrase, and none was given.
    #[error("sealing keys file `{path}` is under a passphrase: give it (RANSOMEYE_SEALING_PASSPHRASE)")]
    PassphraseNeeded {
        /// The file.
        path: PathBuf,
    },
    /// The file is under another passphrase.
    #[error("the passphrase of `{path}` is wrong")]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The program is ending: nothing was done.
    #[error("the program is ending, and nothing was done with the sealing keys")]
    Ending,
    /// The passphrase is empty.
    #[error("the passphrase is empty: give one, or none at all")]
    EmptyPassphrase,
    /// No key can be made of the passphrase as the file demands.
    #[error("`{path}` cannot be opened or sealed under its passphrase: {reason}")]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: LockError,
    },
    /// The file to import is not under a passphrase.
    #[error("`{path}` is no export: exports are under a passphrase; make one with `bus keys export`")]
    NotAnExport {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made or replaced.
    #[error(
        "sealing keys file `{path}` cannot be written: {reason}; it has to be in a folder that this process may write to, so \
         name another with RANSOMEYE_SEALING_KEYS or `BusOptions::sealing_keys`"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: io::Error,
    },
    /// The export cannot be written.
    #[error("the export `{path}` cannot be written: {reason}")]
    Export {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: io::Error,
    },
    /// There is a file of that name.
    #[error("`{path}` is there already and is not overwritten: name another file, or remove it")]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// Another process has been writing all the time.
    #[error("another process has held the lock of `{path}` for {waited_ms} ms: find out which (`lslocks`)")]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long it waited, in milliseconds.
        waited_ms: u128,
    },
    /// Two keys have the same version.
    #[error(
        "version {version} of the sealing key is another key there than here: a file was restored and then rotated; keep one \
         of the two files, and rotate above the versions of both"
    )]
    Conflict {
        /// The version.
        version: u64,
    },
    /// There is no room for another version.
    #[error("{max} versions are kept, and no more can be: rotate less often, old versions go after 60 days")]
    TooMany {
        /// The most that are kept.
        max: usize,
    },
    /// The highest version that there can be is in use.
    #[error("there is no higher version of the sealing key than the one in use")]
    NoVersionLeft,
    /// The system gives no randomness.
    #[error("the operating system gives no random bytes")]
    Randomness,
    /// The cryptographic provider failed.
    #[error(transparent)]
    Provider(SealingFailed),
}
