//! The keys of others: whose they are, and whether that still holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus_crypto::{BundleError, Clock, KeyId, UnverifiedBundle, VerifiedBundle};
use bus_proto::prost::bytes::Bytes;
use bus_proto::{Endpoint, Principal};
use bus_tls::TlsIdentity;

use super::rejected::Rejected;
use super::standing::Standing;
use crate::signer::leaf_facts;

/// After how many keys those that have expired are looked for. It doubles with what is left.
const FIRST_SWEEP: usize = 1_024;

/// The most keys of one sender that are remembered. One sending process uses one at a time.
const MAX_KEYS: usize = 16;

/// How many bundles of one sender may turn out bad within [`BAD_BUNDLE_PERIOD`] before no more are looked at: each costs as
/// much as many messages.
const MAX_BAD_BUNDLES: u32 = 16;

/// For how long bad bundles are held against their sender.
const BAD_BUNDLE_PERIOD: Duration = Duration::from_secs(10);

/// The most senders whose bad bundles are counted.
const MAX_BAD_SENDERS: usize = 4_096;

/// Somebody's key, of which a bundle and a chain of certificates were verified.
#[derive(Debug)]
pub(crate) struct KnownKey {
    bundle: VerifiedBundle,
    encoded: Bytes,
    standing: Standing<Rejected>,
}

impl KnownKey {
    pub(super) fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    pub(crate) fn key_id(&self) -> KeyId {
        self.bundle.key_id()
    }

    pub(super) fn encoded(&self) -> &Bytes {
        &self.encoded
    }
}

/// Verifies bundles, and remembers the keys with which a message was verified until they expire, a few for each sender.
#[derive(Debug)]
pub(crate) struct KeyRing {
    identity: TlsIdentity,
    keys: Mutex<Keys>,
    bad: Mutex<HashMap<Endpoint, Bad>>,
}

/// Bad bundles of one sender.
#[derive(Debug, Clone, Copy)]
struct Bad {
    since: Instant,
    count: u32,
}

#[derive(Debug, Default)]
struct Keys {
    by_id: HashMap<KeyId, Arc<KnownKey>>,
    /// The keys of each sender, the one that was met first in front.
    by_sender: HashMap<Endpoint, Vec<KeyId>>,
    sweep_at: usize,
}

impl Keys {
    fn insert(&mut self, key: &Arc<KnownKey>) {
        let of_sender = self.by_sender.entry(key.bundle.principal().endpoint.clone()).or_default();
        if self.by_id.insert(key.key_id(), Arc::clone(key)).is_some() {
            return;
        }
        if of_sender.len() >= MAX_KEYS {
            self.by_id.remove(&of_sender.remove(0));
        }
        of_sender.reserve_exact(1);
        of_sender.push(key.key_id());
    }

    fn forget_expired(&mut self, now_unix_ms: i64) {
        self.by_id.retain(|_, key| key.bundle.lifetime().verify_until >= now_unix_ms);
        let by_id = &self.by_id;
        self.by_sender.retain(|_, keys| {
            keys.retain(|key| by_id.contains_key(key));
            !keys.is_empty()
        });
    }
}

impl KeyRing {
    pub(crate) fn new(identity: TlsIdentity) -> Self {
        Self { identity, keys: Mutex::default(), bad: Mutex::default() }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key with which a message was verified.
    pub(super) fn find(&self, key_id: &KeyId) -> Option<Arc<KnownKey>> {
        self.keys().by_id.get(key_id).cloned()
    }

    /// Remembers a key, once a message was verified with it: an ECDSA certificate allows more than one bundle of a key.
    pub(super) fn remember(&self, key: &Arc<KnownKey>, now_unix_ms: i64) {
        let mut keys = self.keys();
        if keys.by_id.len() >= keys.sweep_at {
            keys.forget_expired(now_unix_ms);
            keys.sweep_at = FIRST_SWEEP.max(2 * keys.by_id.len());
        }
        keys.insert(key);
    }

    /// Whether a bundle that came with a message of `sender` may be looked at.
    pub(super) fn has_patience(&self, sender: &Principal) -> bool {
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        bad.get(&sender.endpoint)
            .is_none_or(|bad| bad.count < MAX_BAD_BUNDLES || bad.since.elapsed() >= BAD_BUNDLE_PERIOD)
    }

    /// A bundle that came with a message of `sender` was of no use, for this reason.
    pub(super) fn note_bad_bundle(&self, sender: &Principal, why: &Rejected) {
        if matches!(why, Rejected::StaleRevocationList { .. } | Rejected::KeyTime { .. })
            || matches!(why, Rejected::Bundle(BundleError::NotYetValid { .. }))
        {
            // That may be this side's own fault.
            return;
        }
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if bad.len() >= MAX_BAD_SENDERS {
            bad.retain(|_, bad| bad.since.elapsed() < BAD_BUNDLE_PERIOD);
        }
        if bad.len() >= MAX_BAD_SENDERS && !bad.contains_key(&sender.endpoint) {
            return;
        }
        let fresh = Bad { since: Instant::now(), count: 0 };
        let entry = bad.entry(sender.endpoint.clone()).or_insert(fresh);
        if entry.since.elapsed() >= BAD_BUNDLE_PERIOD {
            *entry = fresh;
        }
        entry.count = entry.count.saturating_add(1);
    }

    /// Verifies a bundle that `sender` is said to have made. Nothing is remembered.
    pub(crate) fn verify(&self, encoded: &[u8], sender: &Principal, clock: &Clock) -> Result<KnownKey, Rejected> {
        let unverified = UnverifiedBundle::read(encoded)?;
        // What is somebody else's is not even looked at: that costs the more the longer the chain is.
        if unverified.principal() != sender {
            return Err(Rejected::SenderMismatch { signer: unverified.principal().clone() });
        }
        let trust = self.identity.trust_state();
        let leaf = self.identity.verify_peer(unverified.chain())?;
        let bundle = unverified.verify(&leaf_facts(&leaf)?, clock)?;
        Ok(KnownKey { bundle, encoded: Bytes::copy_from_slice(encoded), standing: Standing::new(trust) })
    }

    /// Whether the certificate of a key is good now. It is verified anew when our trust roots or revocation lists have
    /// changed since, or a list is out of date.
    pub(super) fn check_standing(&self, key: &KnownKey, now_unix_ms: i64) -> Result<(), Rejected> {
        key.standing.check(&self.identity, now_unix_ms, || {
            Ok(self.identity.verify_peer(UnverifiedBundle::read(&key.encoded)?.chain()).map(drop)?)
        })
    }
}
