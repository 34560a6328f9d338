//! What is known about the subjects that verified messages arrived on: who sends there, with which keys, and which
//! messages came already.
//!
//! A subject, and a key within it, get here only once a message under that key was verified. So the state is bounded by
//! the number of verified senders: each has as many subjects as the policy gives it types, and at most
//! [`MAX_SESSIONS`] keys on each.

use std::collections::HashMap;
use std::sync::Arc;

use bus_crypto::sealing::{OpenEpoch, Part};
use bus_crypto::{KeyId, ReplayGuard, VerifiedPrefix, replay};
use bus_proto::{MessageType, Principal};

use super::keyring::KnownKey;
use super::rejected::Rejected;

/// The most keys that are kept apart on one subject. One sending process uses one at a time.
const MAX_SESSIONS: usize = 16;

/// The most epochs of one key that are kept on one subject, for payloads and for references each. A sender uses one for
/// payloads, another one when a recipient's key has changed, and one for each set of readers of references.
const MAX_EPOCHS: usize = 8;

/// How many subjects are kept before those are looked for that nothing arrives on any more.
const FIRST_SWEEP: usize = 4_096;

/// How long a subject on which nothing arrives is kept at least, in milliseconds.
const IDLE_MS: i64 = 600_000;

/// One subject.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) sender: Principal,
    pub(super) message_type: MessageType,
    pub(super) directed: bool,
    /// Whether the policy demands that what arrives here is sealed.
    pub(super) must_be_sealed: bool,
    sessions: Vec<Session>,
}

/// The messages of one key on one subject.
#[derive(Debug)]
struct Session {
    key: Arc<KnownKey>,
    guard: ReplayGuard,
    /// The latest time that one of them states, in Unix milliseconds.
    newest: i64,
    /// The keys of what was sealed, if anything was.
    epochs: Option<Box<Epochs>>,
}

/// The epochs of one key on one subject, the one that was met first in front.
#[derive(Debug, Default)]
struct Epochs {
    of_payloads: Vec<OpenEpoch>,
    /// There may be any number of them, each message brings its own along, and none of them pushes out one of a payload, which
    /// does not come along with each.
    of_references: Vec<OpenEpoch>,
}

impl Session {
    fn new(key: Arc<KnownKey>) -> Self {
        let guard = ReplayGuard::new(key.key_id());
        Self { key, guard, newest: 0, epochs: None }
    }
}

impl Route {
    pub(super) fn new(sender: Principal, message_type: MessageType, directed: bool, must_be_sealed: bool) -> Self {
        Self { sender, message_type, directed, must_be_sealed, sessions: Vec::new() }
    }

    /// The epoch of this identifier that was opened with this key's messages.
    pub(super) fn epoch(&self, key_id: &KeyId, epoch_id: &[u8; 16]) -> Option<&OpenEpoch> {
        let session = self.sessions.iter().find(|session| session.key.key_id() == *key_id)?;
        let Epochs { of_payloads, of_references } = session.epochs.as_deref()?;
        of_payloads.iter().chain(of_references).find(|epoch| epoch.id() == epoch_id)
    }

    /// Keeps the epochs of a message that was accepted.
    pub(super) fn keep_epochs(&mut self, key_id: &KeyId, epochs: Vec<(Part, OpenEpoch)>) {
        let Some(session) = self.sessions.iter_mut().find(|session| session.key.key_id() == *key_id) else { return };
        let Epochs { of_payloads, of_references } = &mut **session.epochs.get_or_insert_default();
        for (part, epoch) in epochs {
            let kept = if part == Part::Payload { &mut *of_payloads } else { &mut *of_references };
            if kept.len() >= MAX_EPOCHS {
                kept.remove(0);
            }
            kept.push(epoch);
        }
    }

    pub(super) fn key(&self, key_id: &KeyId) -> Option<&Arc<KnownKey>> {
        self.sessions.iter().map(|session| &session.key).find(|key| key.key_id() == *key_id)
    }

    /// Says whether a message is new. Nothing changes.
    pub(super) fn check(&self, message: &VerifiedPrefix<'_>) -> Result<(), Rejected> {
        let key_id = message.key_id();
        match self.sessions.iter().find(|session| session.key.key_id() == key_id) {
            Some(session) => session.guard.check(message).map(drop)?,
            None => ReplayGuard::new(key_id).check(message).map(drop)?,
        }
        Ok(())
    }

    /// Remembers a message, and returns the numbers that were left out before it.
    pub(super) fn commit(
        &mut self,
        message: &VerifiedPrefix<'_>,
        key: &Arc<KnownKey>,
        now_unix_ms: i64,
        skew_ms: i64,
    ) -> Result<Option<replay::Gap>, Rejected> {
        let place = self.sessions.iter().position(|session| session.key.key_id() == key.key_id());
        let place = match place {
            Some(place) => place,
            None => {
                self.make_room(now_unix_ms, skew_ms)?;
                self.sessions.reserve_exact(1);
                self.sessions.push(Session::new(Arc::clone(key)));
                self.sessions.len() - 1
            }
        };
        let Some(session) = self.sessions.get_mut(place) else { return Ok(None) };
        let gap = session.guard.check(message).and_then(|fresh| session.guard.commit(fresh))?;
        session.newest = session.newest.max(message.scan().timestamp());
        Ok(gap)
    }

    /// Forgets a key of which every message that was received would be refused as stale if it came again.
    fn make_room(&mut self, now_unix_ms: i64, skew_ms: i64) -> Result<(), Rejected> {
        if self.sessions.len() < MAX_SESSIONS {
            return Ok(());
        }
        let oldest = self.sessions.iter().enumerate().min_by_key(|(_, session)| session.newest);
        match oldest {
            Some((place, session)) if now_unix_ms > session.newest.saturating_add(skew_ms) => {
                self.sessions.remove(place);
                Ok(())
            }
            _ => Err(Rejected::TooManySessions { sender: self.sender.clone() }),
        }
    }

    fn is_idle(&self, now_unix_ms: i64, skew_ms: i64) -> bool {
        let newest = self.sessions.iter().map(|session| session.newest).max().unwrap_or(0);
        now_unix_ms > newest.saturating_add(skew_ms.max(IDLE_MS))
    }
}

/// Every subject that a verified message arrived on.
#[derive(Debug)]
pub(super) struct Routes {
    by_subject: HashMap<Arc<str>, Route>,
    sweep_at: usize,
}

impl Default for Routes {
    fn default() -> Self {
        Self { by_subject: HashMap::new(), sweep_at: FIRST_SWEEP }
    }
}

impl Routes {
    pub(super) fn find(&mut self, subject: &str) -> Option<(Arc<str>, &mut Route)> {
        let subject = Arc::clone(self.by_subject.get_key_value(subject)?.0);
        self.by_subject.get_mut(&subject).map(|route| (subject, route))
    }

    /// Keeps a subject on which a first message was verified.
    pub(super) fn keep(&mut self, subject: Arc<str>, route: Route, now_unix_ms: i64, skew_ms: i64) {
        if self.by_subject.len() >= self.sweep_at {
            self.by_subject.retain(|_, route| !route.is_idle(now_unix_ms, skew_ms));
            self.sweep_at = FIRST_SWEEP.max(2 * self.by_subject.len());
        }
        self.by_subject.insert(subject, route);
    }
}
