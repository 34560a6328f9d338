//! Sealing what goes out: to whom, under which keys, in which epoch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus_crypto::KeyId;
use bus_crypto::sealing::{About, Epoch, Recipient, SealError, SealingFailed};
use bus_proto::{Endpoint, Principal};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::connection::Inner;
use crate::error::PublishError;
use crate::sealing::NoSealingKey;
use crate::time::millis;

/// For how long the keys of recipients are taken as they were found, in milliseconds. The directory remembers them for
/// longer.
const FRESH_MS: i64 = 10_000;

/// How long the wrapped keys of an epoch do not come along again after they did.
const KEYS_INTERVAL: Duration = Duration::from_secs(10);

/// How many recipients' keys are looked up at a time.
const MAX_LOOK_UPS: usize = 16;

/// How many epochs for references, each with recipients of its own, are kept of one subject.
const MAX_REFERENCE_EPOCHS: usize = 4;

/// How long the field of a `Sealed` message is besides what is sealed and its wrapped keys, at most: its own tag and length,
/// identifier, commitment, counter, tag and length of the ciphertext, the authentication tag.
const SEALED_REST: usize = 7 + 18 + 34 + 6 + 6 + 16;

/// How long a wrapped key is besides its recipient's name, at most: tags and lengths, the version, the wrapped secret.
const WRAPPED_REST: usize = 4 + 3 + 11 + 82;

/// The keys of everyone whom something is sealed to, as they were found.
#[derive(Debug)]
pub(crate) struct Keys {
    recipients: Vec<Recipient>,
    /// Whose ends first, and when, in Unix milliseconds.
    first_to_end: Endpoint,
    until: i64,
}

impl Keys {
    /// What waited until one of them had ended cannot be sealed any more.
    pub(super) fn check(&self, now_unix_ms: i64) -> Result<(), PublishError> {
        if now_unix_ms <= self.until {
            return Ok(());
        }
        Err(NoSealingKey::Expired { component: self.first_to_end.clone() }.into())
    }
}

/// Whom a subject is sealed to.
#[derive(Debug)]
pub(crate) struct Recipients {
    endpoints: Vec<Endpoint>,
    /// Until when the keys are taken as they are, in milliseconds since `began`: whatever happens to the wall clock.
    fresh_until: AtomicU64,
    began: Instant,
    keys: Mutex<Option<Arc<Keys>>>,
    /// Held by the one who looks them up.
    looking: tokio::sync::Mutex<()>,
}

impl Recipients {
    pub(crate) fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            fresh_until: AtomicU64::new(0),
            began: Instant::now(),
            keys: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// How much longer sealing to them makes a message, at most.
    pub(crate) fn overhead(&self, own: &Principal) -> usize {
        overhead(&self.endpoints, own)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Keys>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys, if they were found and none has ended.
    pub(crate) fn keys(&self, now_unix_ms: i64) -> Result<Arc<Keys>, PublishError> {
        match self.lock().clone() {
            Some(keys) => keys.check(now_unix_ms).map(|()| Arc::clone(&keys)),
            None => Err(SealError::NoRecipients.into()),
        }
    }

    fn are_fresh(&self) -> bool {
        self.elapsed_ms() < self.fresh_until.load(Ordering::Acquire)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn found(&self, found: Keys, refresh: Duration, now_unix_ms: i64) {
        // What is published must not be accepted and then found too late to be sealed.
        let fresh_ms = found.until.saturating_sub(now_unix_ms).clamp(0, FRESH_MS.min(millis(refresh))).unsigned_abs();
        let mut keys = self.lock();
        // The same keys stay the same value: so does the epoch that is sealed to them.
        if keys.as_ref().is_none_or(|known| known.recipients != found.recipients || known.until != found.until) {
            *keys = Some(Arc::new(found));
        }
        drop(keys);
        self.fresh_until.store(self.elapsed_ms().saturating_add(fresh_ms), Ordering::Release);
    }
}

/// How much longer sealing to these components makes what is sealed, at most.
pub(crate) fn overhead(recipients: &[Endpoint], own: &Principal) -> usize {
    const NAME: &str = "spiffe:///";
    let domain = NAME.len() + own.trust_domain.as_str().len() + 1;
    let name = |to: &Endpoint| domain + to.role.as_str().len() + to.component.as_str().len();
    SEALED_REST + recipients.iter().map(|to| name(to) + WRAPPED_REST).sum::<usize>()
}

impl Inner {
    /// Sees to it that the keys of those whom a subject is sealed to are known, and looks them up if that was a while ago.
    pub(crate) async fn find_recipients(
        self: &Arc<Self>,
        recipients: &Recipients,
        now_unix_ms: i64,
    ) -> Result<(), PublishError> {
        if recipients.are_fresh() {
            return Ok(());
        }
        let looking = match recipients.looking.try_lock() {
            Ok(looking) => looking,
            // Somebody looks them up: until he is done, what is known is good enough.
            Err(_) if recipients.keys(now_unix_ms).is_ok() => return Ok(()),
            Err(_) => recipients.looking.lock().await,
        };
        if recipients.are_fresh() {
            return Ok(());
        }
        // What is known stays good while nobody answers: the directory sees to that.
        recipients.found(self.keys_of(&recipients.endpoints).await?, self.directory.refresh(), now_unix_ms);
        drop(looking);
        Ok(())
    }

    /// The keys of these components, of which there is at least one.
    pub(crate) async fn keys_of(self: &Arc<Self>, endpoints: &[Endpoint]) -> Result<Keys, PublishError> {
        let mut recipients = Vec::with_capacity(endpoints.len());
        let mut first_to_end: Option<(i64, Endpoint)> = None;
        // Several at a time: one after the other, many of them could take longer than a message may be on its way.
        let look_up = |endpoint: Endpoint| {
            let inner = Arc::clone(self);
            async move {
                let record = inner.sealing_key_of(&endpoint).await?;
                Ok::<_, NoSealingKey>((endpoint, record))
            }
        };
        let look_ups: Vec<_> = endpoints.iter().cloned().map(look_up).collect();
        let mut looked_up = std::pin::pin!(stream::iter(look_ups).buffered(MAX_LOOK_UPS));
        while let Some((endpoint, record)) = looked_up.try_next().await? {
            let end = (record.lifetime().not_after, endpoint);
            first_to_end = Some(match first_to_end {
                Some(first) => first.min(end),
                None => end,
            });
            let (principal, version, key) = (record.principal().clone(), record.version(), record.key().clone());
            recipients.push(Recipient { principal, version, key });
        }
        let (until, first_to_end) = first_to_end.ok_or(SealError::NoRecipients)?;
        Ok(Keys { recipients, first_to_end, until })
    }
}

/// An epoch in use, and when its wrapped keys went along last.
#[derive(Debug)]
struct Sealer {
    epoch: Epoch,
    keys: Arc<Keys>,
    /// With which connection they did, and when.
    keys_sent: Option<(u64, Instant)>,
}

impl Sealer {
    fn new(key_id: KeyId, keys: Arc<Keys>, now_unix_ms: i64) -> Result<Self, SealError> {
        let fill = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).map_err(|_| SealingFailed);
        let epoch = Epoch::new(key_id, &keys.recipients, now_unix_ms, fill)?;
        Ok(Self { epoch, keys, keys_sent: None })
    }

    fn serves(&self, keys: &Arc<Keys>, now_unix_ms: i64) -> bool {
        let same = Arc::ptr_eq(&self.keys, keys) || self.keys.recipients == keys.recipients;
        same && !self.epoch.is_over(now_unix_ms)
    }

    fn are_keys_due(&self, connection: u64) -> bool {
        self.keys_sent.is_none_or(|(sent_with, sent)| sent_with != connection || sent.elapsed() >= KEYS_INTERVAL)
    }
}

/// How an envelope goes out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) now_unix_ms: i64,
    /// The connection that it is handed to.
    pub(crate) connection: u64,
    /// Whether nobody may be unable to open it for want of what came before.
    pub(crate) always_with_keys: bool,
}

/// The epochs of one subject, under one signing key.
#[derive(Debug, Default)]
pub(crate) struct Sealers {
    payload: Option<Sealer>,
    references: Vec<Sealer>,
}

impl Sealers {
    /// Seals a payload, and says whether the wrapped keys came along.
    pub(crate) fn payload(
        &mut self,
        key_id: KeyId,
        keys: &Arc<Keys>,
        about: &About<'_>,
        content: &[u8],
        sending: &Sending,
    ) -> Result<(Vec<u8>, bool), SealError> {
        if self.payload.as_ref().is_some_and(|sealer| !sealer.serves(keys, sending.now_unix_ms)) {
            self.payload = None;
        }
        let sealer = match &mut self.payload {
            Some(sealer) => sealer,
            none => none.insert(Sealer::new(key_id, Arc::clone(keys), sending.now_unix_ms)?),
        };
        let with_keys = sending.always_with_keys || sealer.are_keys_due(sending.connection);
        let mut sealed = Vec::with_capacity(sealer.epoch.sealed_len(content.len(), with_keys));
        sealer.epoch.seal(about, content, with_keys, &mut sealed)?;
        Ok((sealed, with_keys))
    }

    /// The wrapped keys were handed over.
    pub(crate) fn keys_sent(&mut self, connection: u64) {
        if let Some(sealer) = &mut self.payload {
            sealer.keys_sent = Some((connection, Instant::now()));
        }
    }

    /// Seals references. Their wrapped keys always come along.
    pub(crate) fn references(
        &mut self,
        key_id: KeyId,
        keys: &Arc<Keys>,
        about: &About<'_>,
        content: &[u8],
        now_unix_ms: i64,
    ) -> Result<Vec<u8>, SealError> {
        let place = match self.references.iter().position(|sealer| sealer.serves(keys, now_unix_ms)) {
            Some(place) => place,
            None => {
                let sealer = Sealer::new(key_id, Arc::clone(keys), now_unix_ms)?;
                if self.references.len() >= MAX_REFERENCE_EPOCHS {
                    self.references.remove(0);
                }
                self.references.push(sealer);
                self.references.len() - 1
            }
        };
        let mut sealed = Vec::new();
        if let Some(sealer) = self.references.get_mut(place) {
            sealed.reserve(sealer.epoch.sealed_len(content.len(), true));
            sealer.epoch.seal(about, content, true, &mut sealed)?;
        }
        Ok(sealed)
    }
}
