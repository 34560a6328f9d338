//! Following the files while the program runs.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bus_proto::Principal;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;

use crate::credentials::{Credentials, Renewal, Seen, Setup};
use crate::error::TlsError;
use crate::leaf::VerifiedLeaf;

/// What a check for changed files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refresh {
    /// The files are those that are in use.
    Unchanged,
    /// The files had changed, were good, and are in use from the next handshake on.
    Rotated,
}

/// How long a verified certificate of a peer stays verified, as [`TlsIdentity::trust_state`](crate::TlsIdentity::trust_state)
/// tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustState {
    /// Which credentials are in use: it grows by one whenever new trust roots, revocation lists or a new certificate of our
    /// own are taken into use.
    pub generation: u64,
    /// The last moment at which no revocation list in use is out of date, in Unix milliseconds; [`i64::MAX`] without lists.
    pub good_until_unix_ms: i64,
}

/// How long handshakes do not read files again that were just refused: whoever can connect, with or without a
/// certificate, begins handshakes.
const RETRY: Duration = Duration::from_secs(1);

/// What the configurations and all clones of an identity share.
pub(crate) struct Shared {
    setup: Setup,
    principal: Principal,
    current: ArcSwap<Credentials>,
    /// Held while credentials are renewed, so that this happens once.
    refused: Mutex<Option<Refused>>,
}

/// Files that were refused, so that each state of them is reported once.
struct Refused {
    seen: Seen,
    at: Instant,
}

impl Shared {
    pub(crate) fn load(setup: Setup) -> Result<Arc<Self>, TlsError> {
        let credentials = Credentials::load(&setup, UnixTime::now())?;
        let principal = credentials.own.leaf.principal().clone();
        let current = ArcSwap::from_pointee(credentials);
        Ok(Arc::new(Self { setup, principal, current, refused: Mutex::new(None) }))
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.setup.provider
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(crate) fn key_path(&self) -> &Path {
        self.setup.options.key_path()
    }

    pub(crate) fn leaf(&self) -> VerifiedLeaf {
        self.current.load().own.leaf.clone()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.current.load().generation
    }

    pub(crate) fn trust_state(&self) -> TrustState {
        let current = self.current.load();
        TrustState { generation: current.generation, good_until_unix_ms: current.good_until_unix_ms }
    }

    /// The credentials for a handshake that begins now: the newest good ones.
    ///
    /// It never waits. While another thread reads new files, those in use are still good.
    pub(crate) fn newest(&self) -> Arc<Credentials> {
        let (seen, now) = (Seen::of(&self.setup.options), UnixTime::now());
        if self.current.load().are_outdated_by(&seen, now) {
            let refused = match self.refused.try_lock() {
                Ok(refused) => Some(refused),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(mut refused) = refused
                && !refused.as_ref().is_some_and(|refused| refused.seen.equals(&seen) && refused.at.elapsed() < RETRY)
            {
                // A refusal has been reported.
                let _reported = self.renew(&mut refused);
            }
        }
        self.current.load_full()
    }

    /// The credentials in use, without a look at the files.
    pub(crate) fn current(&self) -> Arc<Credentials> {
        self.current.load_full()
    }

    /// Reads what has changed, also if it was refused before.
    pub(crate) fn refresh(&self) -> Result<Refresh, TlsError> {
        if !self.current.load().are_outdated_by(&Seen::of(&self.setup.options), UnixTime::now()) {
            return Ok(Refresh::Unchanged);
        }
        self.renew(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn renew(&self, refused: &mut Option<Refused>) -> Result<Refresh, TlsError> {
        let (seen, now) = (Seen::of(&self.setup.options), UnixTime::now());
        let current = self.current.load_full();
        if !current.are_outdated_by(&seen, now) {
            return Ok(Refresh::Unchanged);
        }
        let renewal = current.renewed(&self.setup, seen.clone(), now)?;
        let rotated = renewal.credentials.generation != current.generation;
        let known = refused.as_ref().is_some_and(|refused| refused.seen.equals(&seen));
        self.report(&renewal, rotated, known);
        self.current.store(Arc::new(renewal.credentials));
        match renewal.refused.into_iter().next() {
            Some(error) => {
                *refused = Some(Refused { seen, at: Instant::now() });
                Err(error)
            }
            None => {
                *refused = None;
                Ok(if rotated { Refresh::Rotated } else { Refresh::Unchanged })
            }
        }
    }

    fn report(&self, renewal: &Renewal, rotated: bool, known: bool) {
        let principal = &self.principal;
        if rotated {
            let leaf = &renewal.credentials.own.leaf;
            let (serial, not_after) = (leaf.serial(), leaf.not_after());
            tracing::info!(target: "bus::security", %principal, serial, not_after, "credentials rotated");
        }
        for error in renewal.refused.iter().filter(|_| !known) {
            tracing::warn!(target: "bus::security", %principal, %error, "a new file was refused; what is in use stays");
        }
        if let Some(error) = &renewal.condemned {
            tracing::warn!(target: "bus::security", %principal, %error, "others may refuse our own certificate");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup: Setup { options, usage, provider: _ }, principal, current, refused: _ } = self;
        let current = current.load();
        f.debug_struct("TlsIdentity")
            .field("principal", principal)
            .field("usage", usage)
            .field("options", options)
            .field("leaf", &current.own.leaf)
            .field("generation", &current.generation)
            .finish()
    }
}
