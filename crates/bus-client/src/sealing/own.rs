//! Our own sealing keys: opened when they are first needed, published before anybody could seal to them, and renewed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bus_proto::Principal;
use bus_tls::TlsIdentity;
use secrecy::SecretString;

use super::{OwnKey, SealingKeys, SealingKeysError};
use crate::connection::{BusClient, Inner};
use crate::error::KeysError;
use crate::status::BusEvent;

/// How often the record of our sealing key is looked for, and published if it is not there.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(300);

/// How soon after that did not work it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Where our own sealing keys come from, and how far they have come.
#[derive(Debug)]
pub(crate) struct OwnSealing {
    /// The file, and the passphrase that it is under, unless the program brought the keys.
    file: KeysFile,
    max_age: Duration,
    /// Whether they were published. Held while somebody opens and publishes them.
    published: tokio::sync::Mutex<bool>,
    /// Whether publishing failed the last time, and may work soon.
    is_unpublished: AtomicBool,
}

/// A file of sealing keys that is opened when it is needed.
#[derive(Debug, Clone)]
pub(crate) struct KeysFile {
    pub(crate) path: PathBuf,
    pub(crate) passphrase: Option<SecretString>,
}

impl KeysFile {
    fn open(self, owner: &Principal) -> Result<SealingKeys, SealingKeysError> {
        match self.passphrase {
            Some(passphrase) => SealingKeys::open_with_passphrase(self.path, owner, passphrase),
            None => SealingKeys::open(self.path, owner),
        }
    }
}

impl OwnSealing {
    /// Those in `file`, or in the one beside the TLS private key.
    pub(crate) fn new(file: Option<KeysFile>, identity: &TlsIdentity, max_age: Duration) -> Self {
        let beside = || KeysFile { path: SealingKeys::default_path(identity.key_path()), passphrase: None };
        Self {
            file: file.unwrap_or_else(beside),
            max_age,
            published: tokio::sync::Mutex::default(),
            is_unpublished: AtomicBool::new(false),
        }
    }
}

impl BusClient {
    /// Has others seal to a new key from now on. The client does so by itself when the key is old enough
    /// ([`BusOptions::sealing_key_age`](crate::BusOptions::sealing_key_age)). Nothing becomes unreadable by it: the former
    /// keys are kept as long as something that is sealed to them can be on its way.
    ///
    /// Returns the version of the new key.
    ///
    /// # Errors
    ///
    /// When the file of keys cannot be opened or changed; the former key stays in use.
    pub async fn rotate_sealing_key(&self) -> Result<u64, SealingKeysError> {
        let inner = &self.inner;
        let keys = inner.open_sealing_keys().await?;
        let rotated = blocking(move || keys.rotate()).await?;
        inner.announce_sealing_key(&rotated).await;
        Ok(rotated.version())
    }
}

/// Publishes our sealing key again from time to time, once there is one: it could be pushed out.
pub(crate) async fn keep_sealing_key_published(inner: Weak<Inner>) {
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(RETRY_INTERVAL).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.shared.closed().is_some() {
            return;
        }
        if inner.sealing.is_unpublished.load(Ordering::Acquire) || looked.elapsed() >= PUBLISH_INTERVAL {
            inner.renew_sealing_record().await;
            looked = Instant::now();
        }
    }
}

/// Runs what waits for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SealingKeysError> + Send + 'static,
) -> Result<T, SealingKeysError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SealingKeysError::Ending))
}

impl Inner {
    async fn open_sealing_keys(&self) -> Result<SealingKeys, SealingKeysError> {
        if let Some(keys) = self.gate.own_keys.get() {
            return Ok(keys.clone());
        }
        let (file, owner) = (self.sealing.file.clone(), self.shared.principal.clone());
        let opened = blocking(move || file.open(&owner)).await?;
        Ok(self.gate.own_keys.get_or_init(|| opened).clone())
    }

    /// Whoever receives has sealing keys: others seal to them as soon as they know that he does.
    pub(crate) async fn have_sealing_keys(&self) -> Result<(), SealingKeysError> {
        let mut published = self.sealing.published.lock().await;
        if !*published {
            self.open_sealing_keys().await?;
            self.keep_sealing_key_published().await;
            // Whether that worked or not: it is tried again from time to time.
            *published = true;
        }
        Ok(())
    }

    /// Leaves the record of our newest key where others look for it, unless it is there.
    pub(crate) async fn keep_sealing_key_published(&self) {
        let Some(keys) = self.gate.own_keys.get() else { return };
        let published = self.publish_sealing_key(keys).await;
        // That there is no stream does not change by itself.
        let may_work_soon = !matches!(published, Ok(()) | Err(KeysError::NoStream { .. }));
        self.sealing.is_unpublished.store(may_work_soon, Ordering::Release);
        match published {
            Ok(()) => {}
            Err(KeysError::NoStream { .. }) => {
                tracing::warn!(
                    target: "bus::security",
                    principal = %self.shared.principal,
                    "this bus has no stream for sealing keys: nobody can seal anything to this component"
                );
            }
            Err(error) => tracing::warn!(%error, "the sealing key was not published"),
        }
    }

    /// Replaces the sealing key if it is old enough, or takes notice that another process did.
    pub(crate) async fn renew_sealing_key(&self) {
        let Some(keys) = self.gate.own_keys.get().cloned() else { return };
        let (before, max_age) = (keys.newest().version(), self.sealing.max_age);
        let renewing = keys.clone();
        let renewed = blocking(move || {
            // Another process may have made one.
            renewing.refresh()?;
            renewing.renew(max_age)
        });
        if let Err(error) = renewed.await {
            tracing::warn!(target: "bus::security", principal = %self.shared.principal, %error, "no new sealing key");
            self.shared.emit(BusEvent::SealingKeyFailed { reason: error.to_string() });
        }
        let newest = keys.newest();
        if newest.version() != before {
            self.announce_sealing_key(&newest).await;
        }
    }

    /// States the newest key anew, if there are any.
    pub(crate) async fn renew_sealing_record(&self) {
        if self.gate.own_keys.get().is_some() && self.shared.is_connected() {
            self.keep_sealing_key_published().await;
        }
    }

    async fn announce_sealing_key(&self, key: &Arc<OwnKey>) {
        let version = key.version();
        tracing::info!(target: "bus::security", principal = %self.shared.principal, version, "sealing key rotated");
        self.shared.emit(BusEvent::SealingKeyRotated { version });
        if self.shared.is_connected() {
            self.keep_sealing_key_published().await;
        }
    }
}
