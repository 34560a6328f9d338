//! The key that the spool is sealed under.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use bus_crypto::storage::KEY_LEN;
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::file;

/// The 32 bytes that a spool is sealed under. They are wiped when this is dropped, and can be neither copied nor printed.
///
/// ```
/// use bus_store::SpoolKey;
///
/// let home = tempfile::tempdir()?;
/// let path = home.path().join("agent-01.spoolkey"); // beside the certificate's key
/// let made = SpoolKey::load_or_create(&path)?;
/// let loaded = SpoolKey::load_or_create(&path)?;
/// assert_eq!(format!("{loaded:?}"), "SpoolKey(..)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SpoolKey(Zeroizing<[u8; KEY_LEN]>);

impl SpoolKey {
    /// A key from elsewhere, which has to come from a cryptographic source of random bytes.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(bytes)
    }

    /// The key in a file. When there is no such file, it is made, with a new key and for its owner alone (mode 0600); it is on
    /// the disk when this returns. Several processes may do so at once: all get the same key.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, holds no key, or is accessible by others.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(StoreError::io(path, error)),
        }
    }

    fn read(path: &Path, file: File) -> Result<Self, StoreError> {
        file::check(path, &file)?;
        // One byte more than a key, to notice a longer file; and the room for it at once, so that nothing is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
        file.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes).map_err(|error| StoreError::io(path, error))?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        if bytes.len() != KEY_LEN {
            return Err(StoreError::NotAKey { path: path.into(), expected: KEY_LEN });
        }
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    /// The key gets its name when it is whole, and only if the name is still free.
    fn create(path: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::io(path, error);
        let key = Self(random()?);
        let draft = draft_of(path)?;
        let mut file = file::create_new(&draft).map_err(failed)?;
        let named = file.write_all(key.0.as_slice()).and_then(|()| file.sync_all());
        let named = named.and_then(|()| fs::hard_link(&draft, path));
        let removed = fs::remove_file(&draft);
        match named {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return File::open(path).map_err(failed).and_then(|file| Self::read(path, file));
            }
            named => named.and(removed).and_then(|()| file::sync_directory_of(path)).map_err(failed)?,
        }
        Ok(key)
    }

    pub(crate) fn bytes(&self) -> &Zeroizing<[u8; KEY_LEN]> {
        &self.0
    }
}

impl fmt::Debug for SpoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("SpoolKey(..)")
    }
}

/// New random bytes.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, StoreError> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| StoreError::Provider)?;
    Ok(bytes)
}

/// A name beside `path` that nobody else uses.
fn draft_of(path: &Path) -> Result<PathBuf, StoreError> {
    let number = u64::from_be_bytes(*random::<8>()?);
    Ok(file::beside(path, &format!(".{number:016x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_ask_at_once_get_one_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        let keys: Vec<SpoolKey> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| SpoolKey::load_or_create(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key.bytes() == keys[0].bytes()));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn a_file_of_another_length_is_no_key() {
        let home = tempfile::tempdir().unwrap();
        for len in [0, 31, 33, 1000] {
            let path = home.path().join(len.to_string());
            file::create_new(&path).unwrap().write_all(&vec![7; len]).unwrap();
            assert!(matches!(SpoolKey::load_or_create(&path), Err(StoreError::NotAKey { .. })), "{len}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        SpoolKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = SpoolKey::load_or_create(&path).unwrap_err();
        assert!(matches!(refused, StoreError::Exposed { mode: 0o640, .. }), "{refused}");
    }
}
