//! Sealing keys: our own, private keys to which others seal messages for this component, and those of others.
//!
//! Unlike the keys that sign, they outlive their process: a message may wait for its reader. All processes of a component
//! have the same ones, from one file. A rotation adds a version, and the former ones stay until nothing that was sealed to
//! them can be unexpired.

mod directory;
mod error;
mod file;
mod format;
mod keys;
mod own;
mod passphrase;
mod records;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus_crypto::sealing::locked::Cost;
use bus_proto::Principal;
use secrecy::SecretString;

pub(crate) use directory::Directory;
pub use directory::{NoSealingKey, SealingKeyInfo};
pub use error::SealingKeysError;
use file::{KeyFile, LOCK_WAIT, Lock};
pub use keys::OwnKey;
use keys::Ring;
pub(crate) use own::{KeysFile, OwnSealing, keep_sealing_key_published};
use passphrase::Passphrase;

use crate::time::unix_ms;

/// What an import did with the versions in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Those that are new here, ascending.
    pub added: Vec<u64>,
    /// Those that were here already, ascending.
    pub known: Vec<u64>,
}

/// The sealing keys of one component, in a file that its processes share, or in memory. Clones share what they know.
///
/// Reading and writing the file block the thread: a few milliseconds, under a passphrase some hundred at first. A file that
/// cannot be written can still be read.
///
/// ```
/// use bus_client::SealingKeys;
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("core-01.sealing");
/// let owner = "spiffe://ransomeye.local/core/core-01".parse()?;
/// let keys = SealingKeys::open(&path, &owner)?;
/// assert_eq!(keys.newest().version(), 1);
///
/// // Another process of the same component sees what this one does.
/// let others = SealingKeys::open(&path, &owner)?;
/// keys.rotate()?;
/// assert!(others.find(2).is_some());
/// assert_eq!(others.versions(), [1, 2]);
/// # Ok(())
/// # }
/// # run().unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct SealingKeys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    owner: Principal,
    ring: Mutex<Arc<Ring>>,
    /// `None` in memory.
    store: Option<Store>,
}

/// The file, for whoever holds its lock in this process. Never waited for with `ring` locked.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    file: Mutex<KeyFile>,
}

impl SealingKeys {
    /// The keys in this file. If there is none, it is made, with version 1, for its owner's eyes alone.
    ///
    /// # Errors
    ///
    /// When the file can be read by others, is damaged, under a passphrase, or another component's, or cannot be made.
    pub fn open(path: impl Into<PathBuf>, owner: &Principal) -> Result<Self, SealingKeysError> {
        Self::open_file(path.into(), owner, None)
    }

    /// As [`SealingKeys::open`], with the file under a passphrase. One that is not yet is put under it.
    ///
    /// # Errors
    ///
    /// As there, and when the passphrase is empty or not the one of the file.
    pub fn open_with_passphrase(
        path: impl Into<PathBuf>,
        owner: &Principal,
        passphrase: SecretString,
    ) -> Result<Self, SealingKeysError> {
        Self::open_file(path.into(), owner, Some(Passphrase::new(passphrase, Cost::DEFAULT)?))
    }

    /// The keys in this file as it is: it is neither made nor put under the passphrase, if there is one.
    ///
    /// # Errors
    ///
    /// As for [`SealingKeys::open_with_passphrase`], and [`SealingKeysError::Missing`] when there is no file.
    pub fn open_existing(
        path: impl Into<PathBuf>,
        owner: &Principal,
        passphrase: Option<SecretString>,
    ) -> Result<Self, SealingKeysError> {
        let passphrase = passphrase.map(|secret| Passphrase::new(secret, Cost::DEFAULT)).transpose()?;
        let store = Store::new(path.into(), owner, passphrase);
        let ring = store.file().read()?.ring;
        Ok(Self::new(owner, ring, Some(store)))
    }

    /// Keys that are gone with the process. What was sealed to them before can then never be read.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn in_memory(owner: &Principal) -> Result<Self, SealingKeysError> {
        Ok(Self::new(owner, Ring::generate(unix_ms())?, None))
    }

    /// The keys in the file `into`, together with those in the export `from`. If there is no file, it is made with what the
    /// export has. `passphrase` is that of the export, `own_passphrase` that of the file, if it is to be under one.
    ///
    /// # Errors
    ///
    /// As for [`SealingKeys::open`] and [`SealingKeys::import`].
    pub fn restore(
        from: &Path,
        passphrase: &SecretString,
        into: impl Into<PathBuf>,
        owner: &Principal,
        own_passphrase: Option<SecretString>,
    ) -> Result<(Self, Imported), SealingKeysError> {
        let export = file::read_export(from, owner, &mut Passphrase::new(passphrase.clone(), Cost::DEFAULT)?)?;
        let own = own_passphrase.map(|secret| Passphrase::new(secret, Cost::DEFAULT)).transpose()?;
        let store = Store::new(into.into(), owner, own);
        let (ring, imported) = store.change(None, |known| match known {
            Some(mut ring) => {
                let imported = ring.merge(&export)?;
                Ok((ring, imported))
            }
            None => {
                let added = export.keys().map(|key| key.version()).collect();
                Ok((export, Imported { added, known: Vec::new() }))
            }
        })?;
        Ok((Self::new(owner, ring, Some(store)), imported))
    }

    /// Where the file is unless it is named: beside the TLS client key, with the extension `sealing`.
    #[must_use]
    pub fn default_path(client_key: &Path) -> PathBuf {
        client_key.with_extension("sealing")
    }

    /// The newest key that is known: the one to publish.
    #[must_use]
    pub fn newest(&self) -> Arc<OwnKey> {
        Arc::clone(self.ring().newest())
    }

    /// The key with this version. If it is not known, the file is read again, should it have changed.
    #[must_use]
    pub fn find(&self, version: u64) -> Option<Arc<OwnKey>> {
        if let Some(key) = self.ring().find(version) {
            return Some(Arc::clone(key));
        }
        let store = self.shared.store.as_ref()?;
        // A file that was read in vain is read again when it has changed, not each time.
        let has_changed = store.file().has_changed();
        if has_changed && let Err(error) = self.refresh() {
            tracing::warn!(%error, version, "the sealing keys cannot be read again");
        }
        self.ring().find(version).map(Arc::clone)
    }

    /// The versions that are known, ascending.
    #[must_use]
    pub fn versions(&self) -> Vec<u64> {
        self.ring().keys().map(|key| key.version()).collect()
    }

    /// The keys that are known, by version, ascending.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<OwnKey>> {
        self.ring().keys().map(Arc::clone).collect()
    }

    /// Whose they are.
    #[must_use]
    pub fn owner(&self) -> &Principal {
        &self.shared.owner
    }

    /// The file; `None` in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.shared.store.as_ref().map(|store| store.path.as_path())
    }

    /// Makes another key, one version above the highest, and returns it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, another process keeps its lock for ten seconds, or 4,096 versions are kept.
    pub fn rotate(&self) -> Result<Arc<OwnKey>, SealingKeysError> {
        self.change(|ring, now| ring.rotate(0, now))
    }

    /// Makes another key if the newest has this version or a lower one, with a version above it; returns the newest. For who
    /// learns that others know a higher version than the file has, which was then restored from an old copy.
    ///
    /// # Errors
    ///
    /// As for [`SealingKeys::rotate`].
    pub fn rotate_above(&self, version: u64) -> Result<Arc<OwnKey>, SealingKeysError> {
        self.change(|ring, now| if ring.newest().version() <= version { ring.rotate(version, now) } else { Ok(()) })
    }

    /// Makes another key if the newest is as old as `max_age` or 30 days, or its time lies in the future; of several
    /// processes that ask for it, one makes it. Returns the newest if it is another one than before.
    ///
    /// # Errors
    ///
    /// As for [`SealingKeys::rotate`].
    pub fn renew(&self, max_age: Duration) -> Result<Option<Arc<OwnKey>>, SealingKeysError> {
        let former = self.newest().version();
        if !self.newest().is_due(unix_ms(), max_age) {
            return Ok(None);
        }
        // Where the file cannot be written, another process may have done it. What is wrong with it, writing tells.
        let refreshed = self.refresh();
        if refreshed.is_err() || self.newest().is_due(unix_ms(), max_age) {
            self.change(|ring, now| if ring.newest().is_due(now, max_age) { ring.rotate(0, now) } else { Ok(()) })?;
        }
        Ok(Some(self.newest()).filter(|newest| newest.version() != former))
    }

    /// Reads the file again if it has changed. Whether there is a newer key than before.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has other keys of the versions that are known.
    pub fn refresh(&self) -> Result<bool, SealingKeysError> {
        let Some(store) = &self.shared.store else { return Ok(false) };
        let mut file = store.file();
        if !file.is_outdated() {
            return Ok(false);
        }
        let read = file.read()?.ring;
        self.take_in(&read)
    }

    /// Writes all keys to a new file, under a passphrase, readable by its owner alone.
    ///
    /// # Errors
    ///
    /// When the file exists or cannot be written, or the passphrase is empty.
    pub fn export(&self, to: &Path, passphrase: &SecretString) -> Result<(), SealingKeysError> {
        self.export_at(to, Passphrase::new(passphrase.clone(), Cost::DEFAULT)?)
    }

    /// Takes in the keys of an export of the same component, by version.
    ///
    /// # Errors
    ///
    /// When the export cannot be read, its passphrase is another one, it is another component's, or it has another key of a
    /// version that is here: then nothing of it is taken in.
    pub fn import(&self, from: &Path, passphrase: &SecretString) -> Result<Imported, SealingKeysError> {
        self.import_at(from, Passphrase::new(passphrase.clone(), Cost::DEFAULT)?)
    }

    fn new(owner: &Principal, ring: Ring, store: Option<Store>) -> Self {
        Self { shared: Arc::new(Shared { owner: owner.clone(), ring: Mutex::new(Arc::new(ring)), store }) }
    }

    fn open_file(path: PathBuf, owner: &Principal, passphrase: Option<Passphrase>) -> Result<Self, SealingKeysError> {
        let store = Store::new(path, owner, passphrase);
        let ring = store.open()?;
        Ok(Self::new(owner, ring, Some(store)))
    }

    fn export_at(&self, to: &Path, mut passphrase: Passphrase) -> Result<(), SealingKeysError> {
        self.refresh()?;
        file::write_export(to, &self.shared.owner, &self.ring(), &mut passphrase)
    }

    fn import_at(&self, from: &Path, mut passphrase: Passphrase) -> Result<Imported, SealingKeysError> {
        let export = file::read_export(from, &self.shared.owner, &mut passphrase)?;
        let mut imported = Imported::default();
        self.change(|ring, _| {
            imported = ring.merge(&export)?;
            Ok(())
        })?;
        Ok(imported)
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.lock_ring())
    }

    fn lock_ring(&self) -> MutexGuard<'_, Arc<Ring>> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what is known what was read. Whether there is a newer key than before.
    fn take_in(&self, read: &Ring) -> Result<bool, SealingKeysError> {
        let mut known = self.lock_ring();
        let former = known.newest().version();
        let mut merged = read.clone();
        merged.merge(&known.without_old(unix_ms()))?;
        *known = Arc::new(merged);
        Ok(known.newest().version() > former)
    }

    /// Changes the keys, in the file too if there is one, and returns the newest.
    fn change(
        &self,
        make: impl FnOnce(&mut Ring, i64) -> Result<(), SealingKeysError>,
    ) -> Result<Arc<OwnKey>, SealingKeysError> {
        let Some(store) = &self.shared.store else {
            let mut known = self.lock_ring();
            let mut ring = Ring::clone(&known);
            make(&mut ring, unix_ms())?;
            *known = Arc::new(ring);
            return Ok(Arc::clone(known.newest()));
        };
        let known = self.ring();
        let (ring, ()) = store.change(Some(&known), |ring| {
            let mut ring = ring.unwrap_or_else(|| Ring::clone(&known));
            make(&mut ring, unix_ms())?;
            Ok((ring, ()))
        })?;
        self.take_in(&ring)?;
        Ok(Arc::clone(ring.newest()))
    }
}

impl Store {
    fn new(path: PathBuf, owner: &Principal, passphrase: Option<Passphrase>) -> Self {
        Self { path: path.clone(), file: Mutex::new(KeyFile::new(path, owner.clone(), passphrase)) }
    }

    fn file(&self) -> MutexGuard<'_, KeyFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file has. It is made if there is none, and put under the passphrase if it is not.
    fn open(&self) -> Result<Ring, SealingKeysError> {
        let read = self.file().read();
        match read {
            Ok(content) if self.file().is_as_wanted(&content) => return Ok(content.ring),
            Ok(_) | Err(SealingKeysError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        let (ring, ()) = self.change(None, |ring| match ring {
            Some(ring) => Ok((ring, ())),
            None => Ok((Ring::generate(unix_ms())?, ())),
        })?;
        Ok(ring)
    }

    /// Replaces what the file has, together with what else is known, by what `make` makes of it; `None` when there is no
    /// file. Nobody else writes meanwhile.
    fn change<T>(
        &self,
        known: Option<&Ring>,
        make: impl FnOnce(Option<Ring>) -> Result<(Ring, T), SealingKeysError>,
    ) -> Result<(Ring, T), SealingKeysError> {
        let _lock = Lock::take(&self.path, LOCK_WAIT)?;
        let mut file = self.file();
        let mut written = None;
        let ring = match file.read() {
            Ok(content) => {
                written = file.is_as_wanted(&content).then(|| content.ring.clone());
                let mut ring = content.ring;
                if let Some(known) = known {
                    ring.merge(&known.without_old(unix_ms()))?;
                }
                Some(ring)
            }
            Err(SealingKeysError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        let (ring, told) = make(ring)?;
        let ring = ring.without_old(unix_ms());
        if !written.is_some_and(|written| written.has_the_versions_of(&ring)) {
            file.write(&ring)?;
        }
        Ok((ring, told))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
