//! Whether the certificates still hold under which something was verified.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bus_tls::{TlsIdentity, TrustState};

/// What was found about certificates holds for this long at least, in milliseconds: that they are good while a revocation
/// list is out of date that does not concern them, or that they are not.
const STANDING_MS: i64 = 1_000;

/// What is known of a chain of certificates that was good. `E` says why it is not any more.
#[derive(Debug)]
pub(crate) struct Standing<E> {
    /// Under which state of our trust roots and revocation lists the chain was verified last, and until when that holds.
    generation: AtomicU64,
    good_until: AtomicI64,
    /// Why the chain was refused last, and how long that is not looked at again.
    refused: Mutex<Option<Box<BadStanding<E>>>>,
}

/// A chain that is good no more.
#[derive(Debug)]
struct BadStanding<E> {
    generation: u64,
    until: i64,
    why: E,
}

impl<E: Clone> Standing<E> {
    /// The chain was verified just now. `trust` is of before that.
    pub(crate) fn new(trust: TrustState) -> Self {
        Self {
            generation: AtomicU64::new(trust.generation),
            good_until: AtomicI64::new(trust.good_until_unix_ms),
            refused: Mutex::new(None),
        }
    }

    /// Whether the chain is good now. It is `verified` anew when our trust roots or revocation lists have changed since, or a
    /// list is out of date.
    pub(crate) fn check(
        &self,
        identity: &TlsIdentity,
        now_unix_ms: i64,
        verified: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let trust = identity.trust_state();
        if self.generation.load(Ordering::Acquire) == trust.generation
            && now_unix_ms <= self.good_until.load(Ordering::Acquire)
        {
            return Ok(());
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refused) = refused.as_ref()
            && refused.generation == trust.generation
            && now_unix_ms < refused.until
        {
            return Err(refused.why.clone());
        }
        if let Err(why) = verified() {
            let (generation, until) = (trust.generation, now_unix_ms.saturating_add(STANDING_MS));
            *refused = Some(Box::new(BadStanding { generation, until, why: why.clone() }));
            return Err(why);
        }
        let listed = trust.good_until_unix_ms;
        let good_until = if listed >= now_unix_ms { listed } else { now_unix_ms.saturating_add(STANDING_MS) };
        self.good_until.store(good_until, Ordering::Release);
        self.generation.store(trust.generation, Ordering::Release);
        Ok(())
    }
}
