//! One sender with fixed keys, so that an input means the same in every run, and its receiver's clock.

use std::convert::Infallible;
use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bus_crypto::bundle::{self, certificate_digest};
use bus_crypto::{Clock, LeafFacts, LeafKey, LeafSigner, Lifetime, MadeBundle, Scheme, SigningKey};
use bus_crypto::{UnverifiedBundle, VerifiedBundle};
use bus_proto::v1::{Envelope, Heartbeat};
use bus_proto::{ComponentId, Principal, TrustDomain};

/// The receiver's time, in Unix milliseconds.
pub(crate) const NOW: i64 = 1_790_000_000_000;
/// How far clocks may differ, in milliseconds.
pub(crate) const SKEW: i64 = 30_000;
/// The subject of what the sender sends.
pub(crate) const SUBJECT: &str = "ransomeye.events.heartbeat.agent.agent-01";

const HOUR: i64 = 3_600_000;
const SEED: [u8; 32] = [7; 32];

/// The key of the sender's certificate.
pub(crate) struct Leaf(Ed25519KeyPair);

impl LeafSigner for Leaf {
    type Error = Infallible;

    fn scheme(&self) -> Scheme {
        Scheme::Ed25519
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Infallible> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

/// The sender, with all that it has.
pub(crate) struct Sender {
    pub(crate) key: SigningKey,
    /// The key once more, for signing what a [`SigningKey`] does not.
    pub(crate) pair: Ed25519KeyPair,
    pub(crate) leaf: Leaf,
    pub(crate) facts: LeafFacts,
    pub(crate) made: MadeBundle,
    pub(crate) bundle: VerifiedBundle,
}

pub(crate) static SENDER: LazyLock<Sender> = LazyLock::new(|| {
    let leaf = Leaf(Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap());
    let chain: [&[u8]; 2] = [b"a certificate", b"an intermediate"];
    let facts = LeafFacts {
        principal: "spiffe://ransomeye.local/agent/agent-01".parse().unwrap(),
        key: LeafKey::from_spki(leaf.0.public_key().as_der().unwrap().as_ref()).unwrap(),
        sha256: certificate_digest(chain[0]),
        chain_not_after_unix_ms: NOW + 72 * HOUR,
    };
    let key = SigningKey::from_seed(&SEED.into()).unwrap();
    let lifetime = Lifetime { not_before: NOW - HOUR, sign_until: NOW + 20 * HOUR, verify_until: NOW + 48 * HOUR };
    let made = bundle::make(&key, lifetime, &chain, &facts, &leaf, &clock()).unwrap();
    let bundle = UnverifiedBundle::read(&made.encoded).unwrap().verify(&facts, &clock()).unwrap();
    Sender { key, pair: Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap(), leaf, facts, made, bundle }
});

pub(crate) fn clock() -> Clock {
    Clock::new(NOW, SKEW)
}

impl Sender {
    pub(crate) fn principal(&self) -> &Principal {
        &self.facts.principal
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.facts.principal.trust_domain
    }

    pub(crate) fn component(&self) -> &ComponentId {
        self.facts.principal.component()
    }

    /// A message that is fine.
    pub(crate) fn heartbeat(&self) -> Envelope {
        let beat = Heartbeat { uptime: 61, version: "0.1.0".into() };
        let mut envelope = Envelope::new(self.component(), beat, NOW, [7; 10]);
        envelope.subject = SUBJECT.into();
        envelope.sequence = 1;
        envelope
    }
}
