//! Records of sealing keys: reading and verifying those of a component, and leaving our own in the stream.

use std::sync::Arc;

use bus_crypto::Clock;
use bus_crypto::sealing::SealingPublicKey;
use bus_crypto::sealing::record::{
    self, MakeRecordError, RecordError, SealingLifetime, UnverifiedRecord, VerifiedRecord,
};
use bus_proto::prost::bytes::Bytes;
use bus_proto::{Endpoint, Principal};
use bus_tls::{TlsError, TlsIdentity};

use super::{OwnKey, SealingKeys, SealingKeysError};
use crate::connection::{BusClient, Inner};
use crate::error::KeysError;
use crate::inbound::Standing;
use crate::signer::{Leaf, leaf_facts};
use crate::time::unix_ms;

/// A record of which everything was verified, with the certificates that stand for it.
#[derive(Debug)]
pub(super) struct KnownRecord {
    record: Arc<VerifiedRecord>,
    encoded: Bytes,
    standing: Standing<()>,
}

/// A record as the stream has it, or why it does not hold.
pub(super) type Found = Result<Arc<KnownRecord>, BadRecord>;

/// Why a record does not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadRecord {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("its certificate: {0}")]
    Certificate(TlsError),
    #[error("it is one of {0}")]
    Foreign(Principal),
}

impl From<TlsError> for BadRecord {
    fn from(error: TlsError) -> Self {
        Self::Certificate(error)
    }
}

impl KnownRecord {
    /// Verifies a record that `owner` is said to have made.
    fn verify(encoded: &Bytes, owner: &Principal, identity: &TlsIdentity, clock: &Clock) -> Result<Self, BadRecord> {
        let unverified = UnverifiedRecord::read(encoded)?;
        // What is somebody else's is not even looked at: that costs the more the longer the chain is.
        if unverified.principal() != owner {
            return Err(BadRecord::Foreign(unverified.principal().clone()));
        }
        let trust = identity.trust_state();
        let leaf = identity.verify_peer(unverified.chain())?;
        let leaf = leaf_facts(&leaf).map_err(RecordError::from)?;
        let record = unverified.verify(&leaf, clock)?;
        Ok(Self { record: Arc::new(record), encoded: encoded.clone(), standing: Standing::new(trust) })
    }

    pub(super) fn record(&self) -> Arc<VerifiedRecord> {
        Arc::clone(&self.record)
    }

    pub(super) fn version(&self) -> u64 {
        self.record.version()
    }

    pub(super) fn key(&self) -> &SealingPublicKey {
        self.record.key()
    }

    /// The last moment of sealing to it, in Unix milliseconds.
    pub(super) fn not_after(&self) -> i64 {
        self.record.lifetime().not_after
    }

    fn is_of(&self, own: &OwnKey) -> bool {
        (self.version(), self.key()) == (own.version(), own.key().public_key())
    }

    /// Whether its certificates are good now, under the trust roots and revocation lists of now.
    pub(super) fn is_trusted(&self, identity: &TlsIdentity, now_unix_ms: i64) -> bool {
        let verify = || -> Result<(), BadRecord> {
            Ok(identity.verify_peer(UnverifiedRecord::read(&self.encoded)?.chain()).map(drop)?)
        };
        self.standing.check(identity, now_unix_ms, || verify().map_err(drop)).is_ok()
    }
}

impl BusClient {
    /// Publishes the newest of our sealing keys, unless it is what the stream has of us: from then on, others find it there and
    /// seal to it.
    ///
    /// Where the stream shows that others know a higher version than the newest here, or another key of the same version, a new
    /// key is made, whose version is above that: the file of keys may have been restored from an old copy.
    ///
    /// # Errors
    ///
    /// When there is no stream of sealing keys, the broker does not answer within the operation timeout or does not take the
    /// record, the certificate's key does not sign it, or a new key that is needed cannot be made.
    pub async fn publish_sealing_key(&self, keys: &SealingKeys) -> Result<(), KeysError> {
        self.inner.publish_sealing_key(keys).await
    }
}

impl Inner {
    /// Reads and verifies what a component has left in the stream of sealing keys, the oldest first.
    pub(super) async fn sealing_records(&self, component: &Endpoint) -> Result<Vec<Found>, KeysError> {
        let stream = self.gate.root.sealing_keys();
        if !self.is_up().await {
            return Err(KeysError::TimedOut { stream: stream.name(), timeout_ms: self.operation_timeout.as_millis() });
        }
        let encoded = self.read(stream, component).await?;
        let trust_domain = self.shared.principal.trust_domain.clone();
        let owner = Principal { trust_domain, endpoint: component.clone() };
        let clock = Clock::new(unix_ms(), self.gate.skew_ms);
        let verify = |record: &Bytes| KnownRecord::verify(record, &owner, &self.identity, &clock).map(Arc::new);
        Ok(encoded.iter().map(verify).collect())
    }

    /// Leaves a record of our newest sealing key in the stream, unless the latest one there is of the same key, under our present
    /// certificate. To be called before the first subscription to our own inbox returns; from time to time, as records are
    /// pushed out; and when the key or the certificate was replaced.
    pub(crate) async fn publish_sealing_key(&self, keys: &SealingKeys) -> Result<(), KeysError> {
        let found = self.sealing_records(&self.shared.principal.endpoint).await?;
        let own = self.undisputed_key(keys, &found).await?;
        let credentials = self.identity.credentials();
        let leaf = leaf_facts(credentials.leaf()).map_err(|error| no_record(&error))?;
        let not_after = own.not_after_unix_ms().min(leaf.chain_not_after_unix_ms);
        let lifetime = SealingLifetime { not_before: own.created_unix_ms(), not_after };
        let is_there = |known: &KnownRecord| {
            known.is_of(&own) && known.record.lifetime() == lifetime && *known.record.leaf_sha256() == leaf.sha256
        };
        if found.last().is_some_and(|latest| latest.as_ref().is_ok_and(|latest| is_there(latest))) {
            return Ok(());
        }
        let (signer, clock) = (Leaf(&credentials, leaf.key.scheme()), Clock::new(unix_ms(), self.gate.skew_ms));
        let key = own.key().public_key();
        let made = record::make(key, own.version(), lifetime, credentials.chain(), &leaf, &signer, &clock);
        let made = made.map_err(|error| match error {
            MakeRecordError::Leaf(error) => no_record(&error),
            other => no_record(&other),
        })?;
        self.leave(self.gate.root.sealing_keys(), made.into()).await?;
        tracing::info!(principal = %self.shared.principal, version = own.version(), not_after, "sealing key published");
        Ok(())
    }

    /// Our newest sealing key, than which nobody has seen a later one, nor another one of its version.
    async fn undisputed_key(&self, keys: &SealingKeys, found: &[Found]) -> Result<Arc<OwnKey>, KeysError> {
        let newest = keys.newest();
        let known = found.iter().flatten();
        let is_disputed = |own: &OwnKey| {
            known
                .clone()
                .any(|known| known.version() > own.version() || known.version() == own.version() && !known.is_of(own))
        };
        let Some(highest) = known.clone().map(|known| known.version()).max().filter(|_| is_disputed(&newest)) else {
            return Ok(newest);
        };
        // Another process of this component may have made and published a later key: then it is in the file.
        let refreshed = blocking(keys, |keys| keys.refresh().map(|_| keys.newest())).await?;
        if !is_disputed(&refreshed) {
            return Ok(refreshed);
        }
        let own = blocking(keys, move |keys| keys.rotate_above(highest)).await?;
        tracing::warn!(
            target: "bus::security",
            principal = %self.shared.principal, version = own.version(), published = highest,
            "a new sealing key was made, as others know a later one than was here, or another one of its version"
        );
        Ok(own)
    }
}

fn no_record(why: &dyn std::error::Error) -> KeysError {
    KeysError::Record { reason: why.to_string() }
}

/// Does what waits for files, on a thread where that is fine.
async fn blocking<T: Send + 'static>(
    keys: &SealingKeys,
    work: impl FnOnce(&SealingKeys) -> Result<T, SealingKeysError> + Send + 'static,
) -> Result<T, KeysError> {
    let keys = keys.clone();
    match tokio::task::spawn_blocking(move || work(&keys)).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(no_record(&error)),
    }
}
