//! Our signing key and its bundle, kept fresh while the client lives.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bus_crypto::KeyId;

use crate::connection::{BusClient, Inner};
use crate::error::KeysError;
use crate::signer::{KeyError, Rotation, Session, Signer};
use crate::status::BusEvent;

/// How often the key bundle is stored anew.
const STORE_INTERVAL: Duration = Duration::from_secs(300);

impl BusClient {
    /// Signs with a new key from now on. The client does so by itself when the key is old enough, and when its certificate
    /// was rotated; this is for a program that was told. No message is lost by it: what was signed before stays good.
    ///
    /// # Errors
    ///
    /// When no key can be made; the former one stays in use.
    pub async fn rotate_signing_key(&self) -> Result<KeyId, KeyError> {
        let rotation = self.inner.signer.rotate()?;
        self.inner.announce(&rotation).await;
        Ok(rotation.next.key_id)
    }

    /// The key that this client signs with now.
    #[must_use]
    pub fn signing_key(&self) -> KeyId {
        self.inner.signer.current().key_id
    }
}

impl Inner {
    /// Replaces the signing key if it is time.
    pub(crate) async fn renew_signing_key(&self) {
        match self.signer.renew() {
            Ok(None) => {}
            Ok(Some(rotation)) => self.announce(&rotation).await,
            Err(error) => {
                tracing::warn!(target: "bus::security", principal = %self.shared.principal, %error, "no new signing key");
                self.shared.emit(BusEvent::SigningKeyFailed { reason: error.to_string() });
            }
        }
    }

    /// Tells of a new key, and leaves its bundle in the keys stream.
    async fn announce(&self, rotation: &Rotation) {
        let (former, key_id) = (rotation.former, rotation.next.key_id);
        tracing::info!(target: "bus::security", principal = %self.shared.principal, %former, %key_id, "signing key rotated");
        self.shared.emit(BusEvent::SigningKeyRotated { former, key_id });
        if self.store_bundles && self.shared.is_connected() {
            self.keep_stored(&rotation.next).await;
        }
    }

    /// Leaves a bundle in the keys stream, and compares this clock with the broker's.
    async fn keep_stored(&self, session: &Session) {
        match self.store_bundle(session.bundle.clone()).await {
            Ok(()) => self.compare_clocks().await,
            Err(KeysError::NoStream { .. }) => {
                tracing::debug!("this bus has no keys stream: bundles travel with messages alone");
            }
            Err(error) => tracing::warn!(%error, "the key bundle was not stored in the keys stream"),
        }
    }

    async fn compare_clocks(&self) {
        let Some(ahead_ms) = self.ahead_of_broker().await else { return };
        if ahead_ms.saturating_abs() > self.gate.skew_ms {
            let skew_ms = self.gate.skew_ms;
            tracing::warn!(
                target: "bus::security",
                principal = %self.shared.principal, ahead_ms, skew_ms,
                "this clock differs from the broker's by more than receivers accept: they refuse what is sent"
            );
            self.shared.emit(BusEvent::ClockDiffers { ahead_ms });
        }
    }
}

/// Stores the bundle in the keys stream when the first message is signed, and again from time to time: it could be pushed
/// out.
pub(crate) async fn keep_bundle_stored(inner: Weak<Inner>, signer: Arc<Signer>) {
    signer.signs().await;
    loop {
        let Some(strong) = inner.upgrade() else { return };
        if !strong.store_bundles || strong.shared.closed().is_some() {
            return;
        }
        if strong.is_up().await {
            strong.keep_stored(&strong.signer.current()).await;
        }
        drop(strong);
        tokio::time::sleep(STORE_INTERVAL).await;
    }
}
