//! A passphrase, and the key that it made last.

use std::fmt;
use std::path::Path;

use aws_lc_rs::rand;
use bus_crypto::sealing::locked::{Cost, LockError, LockKey, Locked, NONCE_LEN, SALT_LEN};
use bus_crypto::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::SealingKeysError;

/// A passphrase that files are sealed with.
pub(super) struct Passphrase {
    secret: SecretString,
    /// What new files cost whoever tries to guess it.
    cost: Cost,
    /// Making it takes a while, and one file keeps its salt.
    key: Option<LockKey>,
}

impl Passphrase {
    pub(super) fn new(secret: SecretString, cost: Cost) -> Result<Self, SealingKeysError> {
        if secret.expose_secret().is_empty() {
            return Err(SealingKeysError::EmptyPassphrase);
        }
        Ok(Self { secret, cost, key: None })
    }

    /// Appends the content to `out`, sealed, together with all that `out` has already.
    pub(super) fn lock(&mut self, path: &Path, content: &[u8], out: &mut Vec<u8>) -> Result<(), SealingKeysError> {
        let failed = |reason| refusal(path, reason);
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce)?;
        let key = match self.key.take() {
            Some(key) => key,
            None => {
                let mut salt = [0; SALT_LEN];
                fill(&mut salt)?;
                LockKey::derive(self.bytes(), self.cost, &salt).map_err(failed)?
            }
        };
        let context = out.clone();
        let locked = key.lock(&nonce, &context, content, out);
        self.key = Some(key);
        locked.map_err(failed)
    }

    /// Opens what was sealed together with `context`.
    pub(super) fn unlock(
        &mut self,
        path: &Path,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealingKeysError> {
        let failed = |reason| refusal(path, reason);
        let locked = Locked::read(sealed).map_err(failed)?;
        if let Some(key) = self.key.as_ref().filter(|key| key.is_for(&locked)) {
            return key.unlock(&locked, context).map_err(failed);
        }
        let key = LockKey::derive(self.bytes(), locked.cost(), locked.salt()).map_err(failed)?;
        let content = key.unlock(&locked, context).map_err(failed)?;
        self.key = Some(key);
        Ok(content)
    }

    fn bytes(&self) -> &[u8] {
        self.secret.expose_secret().as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret: _, cost, key: _ } = self;
        f.debug_struct("Passphrase").field("cost", cost).finish_non_exhaustive()
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), SealingKeysError> {
    rand::fill(bytes).map_err(|_| SealingKeysError::Randomness)
}

fn refusal(path: &Path, reason: LockError) -> SealingKeysError {
    match reason {
        LockError::Passphrase => SealingKeysError::WrongPassphrase { path: path.into() },
        LockError::CutOff | LockError::Altered => SealingKeysError::Damaged { path: path.into() },
        reason => SealingKeysError::Passphrase { path: path.into(), reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(SecretString::from(text), Cost::new(8, 1, 1).unwrap()).unwrap()
    }

    fn sealed(by: &mut Passphrase) -> Vec<u8> {
        let mut sealed = b"context".to_vec();
        by.lock(Path::new("x"), b"content", &mut sealed).unwrap();
        sealed.split_off(b"context".len())
    }

    #[test]
    fn what_is_sealed_is_opened_by_whoever_knows_the_passphrase() {
        let mut first = passphrase("right");
        let sealed = sealed(&mut first);
        for mut reader in [first, passphrase("right")] {
            assert_eq!(reader.unlock(Path::new("x"), b"context", &sealed).unwrap().as_slice(), b"content");
        }
        let error = passphrase("wrong").unlock(Path::new("x"), b"context", &sealed).unwrap_err();
        assert!(matches!(error, SealingKeysError::WrongPassphrase { .. }), "{error}");
        let error = passphrase("right").unlock(Path::new("x"), b"Context", &sealed).unwrap_err();
        assert!(matches!(error, SealingKeysError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_passphrase_opens_files_of_several_salts_and_seals_none_alike() {
        let (mut own, mut other) = (passphrase("same"), passphrase("same"));
        let [first, second, third] = [sealed(&mut own), sealed(&mut own), sealed(&mut other)];
        assert_eq!(first[..28], second[..28], "one salt");
        assert_ne!(first[28..40], second[28..40], "two nonces");
        assert_ne!(first[12..28], third[12..28], "another salt");
        for sealed in [first, third, second] {
            assert_eq!(own.unlock(Path::new("x"), b"context", &sealed).unwrap().as_slice(), b"content");
        }
    }

    #[test]
    fn a_passphrase_is_not_empty_and_not_printed() {
        let empty = Passphrase::new(SecretString::from(""), Cost::DEFAULT);
        assert!(matches!(empty, Err(SealingKeysError::EmptyPassphrase)));
        let text = format!("{:?}", passphrase("hush"));
        assert_eq!(text, "Passphrase { cost: Cost { memory_kib: 8, passes: 1, lanes: 1 }, .. }");
    }
}
