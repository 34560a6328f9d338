//! A component that signs by hand: what it says is up to the attack.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bus_crypto::zeroize::Zeroizing;
use bus_crypto::{Clock, KeyId, LeafFacts, LeafKey, LeafSigner, Lifetime, Scheme, SigningKey, bundle, envelope};
use bus_proto::prost::Message as _;
use bus_proto::v1::{Batch, BatchMember, Envelope, KeyBundle, KeyStatement, TelemetryEvent, batch_member};
use bus_proto::{AnyPayload, Destination, Endpoint, Principal, SubjectRoot, TypeRegistry};
use bus_tls::pki::{Authority, Issued, Profile};
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::broker::Message;
use super::raw::{self, unix_ms};
use crate::deployment::Deployment;

const HOUR_MS: i64 = 3_600_000;

/// How far the clocks of this test may differ, in milliseconds.
pub(crate) const SKEW_MS: i64 = 30_000;

/// A key that signs for an hour, and is accepted for two.
pub(crate) fn an_hour() -> Lifetime {
    from(unix_ms() - 1_000)
}

/// As [`an_hour`], which is over since five minutes.
pub(crate) fn an_hour_long_ago() -> Lifetime {
    from(unix_ms() - 2 * HOUR_MS - 300_000)
}

/// As [`an_hour`], of which the hour for signing is over since ten minutes, and the one for verifying is not.
pub(crate) fn an_hour_that_is_over() -> Lifetime {
    from(unix_ms() - HOUR_MS - 600_000)
}

fn from(not_before: i64) -> Lifetime {
    Lifetime { not_before, sign_until: not_before + HOUR_MS, verify_until: not_before + 2 * HOUR_MS }
}

/// A certificate with its private key.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) principal: Principal,
    pub(crate) serial: String,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: Arc<dyn rustls::sign::SigningKey>,
    pub(crate) not_after_ms: i64,
}

impl Leaf {
    /// A certificate for `role/component`.
    pub(crate) fn issue(authority: &Authority, name: &str) -> Result<Self> {
        let endpoint: Endpoint = name.parse()?;
        Self::of(&authority.issue(&Profile::component(endpoint.role, endpoint.component)?.despite_revocation())?)
    }

    pub(crate) fn of(issued: &Issued) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(issued.certificate_pem().as_bytes());
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem().as_bytes())?;
        Ok(Self {
            principal: issued.principal().clone(),
            serial: issued.serial().to_owned(),
            chain: chain.map(|der| der.map(|der| der.to_vec())).collect::<Result<_, _>>()?,
            key: rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?,
            not_after_ms: issued.not_after() * 1_000,
        })
    }

    /// What someone who validated it would know.
    pub(crate) fn facts(&self) -> Result<LeafFacts> {
        let spki = self.key.public_key().context("a key without its public half")?;
        Ok(LeafFacts {
            principal: self.principal.clone(),
            key: LeafKey::from_spki(spki.as_ref())?,
            sha256: bundle::certificate_digest(&self.chain[0]),
            chain_not_after_unix_ms: self.not_after_ms,
        })
    }
}

impl LeafSigner for Leaf {
    type Error = rustls::Error;

    fn scheme(&self) -> Scheme {
        Scheme::EcdsaP256Sha256
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        sign_with(&*self.key, SignatureScheme::ECDSA_NISTP256_SHA256, message)
    }
}

fn sign_with(
    key: &dyn rustls::sign::SigningKey,
    scheme: SignatureScheme,
    message: &[u8],
) -> Result<Vec<u8>, rustls::Error> {
    let signer = key.choose_scheme(&[scheme]);
    signer.ok_or_else(|| rustls::Error::General(format!("the key cannot sign with {scheme:?}")))?.sign(message)
}

/// The seed of an Ed25519 key.
pub(crate) type Seed = Zeroizing<[u8; 32]>;

/// Random bytes.
pub(crate) fn random_seed() -> Result<Seed> {
    let mut seed = Zeroizing::new([0; 32]);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(seed.as_mut_slice()).ok().context("no randomness")?;
    Ok(seed)
}

/// One process of a component: its certificate, its signing key with a bundle, and how many messages it has sent.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) leaf: Leaf,
    pub(crate) bundle: Vec<u8>,
    pub(crate) key_id: KeyId,
    key: SigningKey,
    seed: Seed,
    sent: Mutex<HashMap<String, u64>>,
}

impl Sender {
    /// A process of `role/component` with a certificate of its own.
    pub(crate) fn of(authority: &Authority, name: &str) -> Result<Self> {
        Self::with(Leaf::issue(authority, name)?, an_hour())
    }

    /// A process of `agent/<component>` with a certificate of its own.
    pub(crate) fn agent(deployment: &Deployment, component: &str) -> Result<Self> {
        Self::of(&deployment.authority, &format!("agent/{component}"))
    }

    /// A process with this certificate, whose key may be used in these times. It makes its bundle as it should.
    pub(crate) fn with(leaf: Leaf, lifetime: Lifetime) -> Result<Self> {
        let mut sender = Self::without_bundle(leaf)?;
        // Made when the key began, when it was good.
        let clock = Clock::new(lifetime.not_before, SKEW_MS);
        let leaf = &sender.leaf;
        let made = bundle::make(&sender.key, lifetime, &leaf.chain, &leaf.facts()?, leaf, &clock)?;
        (sender.bundle, sender.key_id) = (made.encoded, made.key_id);
        Ok(sender)
    }

    /// A process with this certificate whose bundle says that it belongs to that principal, whatever the certificate says.
    pub(crate) fn claiming(leaf: Leaf, principal: &Principal) -> Result<Self> {
        let sender = Self::without_bundle(leaf)?;
        let mut statement = sender.statement(&sender)?;
        statement.principal = principal.spiffe_id();
        sender.with_forged(&statement)
    }

    /// A process that states that the key of another is its own, and signs with it, as if it had it. Only the proof of
    /// possession is its own key's.
    pub(crate) fn with_key_of(leaf: Leaf, victim: &Self) -> Result<Self> {
        let mut sender = Self::without_bundle(leaf)?;
        let statement = sender.statement(victim)?;
        sender = sender.with_forged(&statement)?;
        sender.key = SigningKey::from_seed(&victim.seed)?;
        Ok(sender)
    }

    fn without_bundle(leaf: Leaf) -> Result<Self> {
        let seed = random_seed()?;
        let key = SigningKey::from_seed(&seed)?;
        Ok(Self { leaf, bundle: Vec::new(), key_id: KeyId::from_bytes([0; 32]), key, seed, sent: Mutex::default() })
    }

    /// A statement in the name of this sender about the key of that one.
    fn statement(&self, keeper: &Self) -> Result<KeyStatement> {
        let Lifetime { not_before, sign_until, verify_until } = an_hour();
        Ok(KeyStatement {
            principal: self.leaf.principal.spiffe_id(),
            public_key: keeper.key.public_key()?.to_vec().into(),
            not_before,
            sign_until,
            verify_until,
            chain: self.leaf.chain.iter().map(|der| der.clone().into()).collect(),
        })
    }

    /// Both signatures over a statement, without a look at what it says.
    fn with_forged(mut self, statement: &KeyStatement) -> Result<Self> {
        let statement = statement.encode_to_vec();
        let scheme = self.leaf.scheme().code();
        let digest = bundle::certificate_digest(&self.leaf.chain[0]);
        let of_possession = [b"ransomeye.v1 key possession\0", &statement[..]].concat();
        let of_leaf =
            [&[0x20; 64], &b"ransomeye.v1 key bundle\0"[..], &digest, &scheme.to_be_bytes(), &statement].concat();
        self.bundle = KeyBundle {
            statement: statement.into(),
            possession_signature: self.sign_freely(&of_possession)?.into(),
            scheme: scheme.into(),
            leaf_signature: self.leaf.sign(&of_leaf)?.into(),
        }
        .encode_to_vec();
        self.key_id = KeyId::of_bundle(&self.bundle);
        Ok(self)
    }

    /// An Ed25519 signature of anything, which the crate for signatures makes for no one.
    fn sign_freely(&self, message: &[u8]) -> Result<Vec<u8>> {
        // PKCS#8 (RFC 8410, section 7).
        let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let pkcs8 = PrivatePkcs8KeyDer::from([&head[..], self.seed.as_slice()].concat());
        let key = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&pkcs8)?;
        Ok(sign_with(&*key, SignatureScheme::ED25519, message)?)
    }

    /// Another process of the same component, with the same certificate.
    pub(crate) fn restarted(&self) -> Result<Self> {
        Self::with(self.leaf.clone(), an_hour())
    }

    /// An event of this sender, counted, with its bundle.
    pub(crate) fn event(&self, payload: impl Into<AnyPayload>) -> Envelope {
        self.envelope(&Destination::Events, payload.into())
    }

    /// A telemetry event.
    pub(crate) fn telemetry(&self) -> Envelope {
        self.event(TelemetryEvent { cpu_usage: 12.5, ram_usage: 50.0 })
    }

    /// A message to `role/component`, counted, with its bundle.
    pub(crate) fn directed(&self, to: &str, payload: impl Into<AnyPayload>) -> Envelope {
        let to: Endpoint = to.parse().expect("a role and a component");
        let mut envelope = self.envelope(&Destination::Inbox(to.clone()), payload.into());
        envelope.destination =
            Principal { trust_domain: self.leaf.principal.trust_domain.clone(), endpoint: to }.spiffe_id();
        envelope
    }

    /// A batch of so many telemetry events.
    pub(crate) fn batch(&self, members: usize) -> Envelope {
        let mut envelope = self.telemetry();
        let member = |_| {
            let single = raw::telemetry(self.leaf.principal.component().as_str());
            BatchMember {
                message_id: single.message_id,
                timestamp_utc: single.timestamp_utc,
                payload: Some(batch_member::Payload::Telemetry(TelemetryEvent { cpu_usage: 1.5, ram_usage: 2.5 })),
                ..BatchMember::default()
            }
        };
        envelope.payload = Some(AnyPayload::Batch(Batch { members: (0..members).map(member).collect() }));
        envelope
    }

    fn envelope(&self, destination: &Destination, payload: AnyPayload) -> Envelope {
        let principal = &self.leaf.principal;
        let message_type = TypeRegistry::default().message_type(&payload).expect("a built-in type");
        let subject = SubjectRoot::default().subject(destination, &message_type, principal);
        let mut envelope = raw::envelope(principal.component().as_str(), &subject, payload);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let number = sent.entry(subject).or_default();
        *number += 1;
        envelope.sequence = *number;
        envelope.bundle = self.bundle.clone().into();
        envelope
    }

    /// Signs an envelope.
    pub(crate) fn sign(&self, envelope: &Envelope) -> Message {
        self.sign_prefix(&envelope.subject, envelope.encode_to_vec())
    }

    /// Signs any bytes as if they were a prefix.
    pub(crate) fn sign_prefix(&self, subject: &str, prefix: Vec<u8>) -> Message {
        let signed = envelope::sign(prefix, &self.key, &self.key_id).expect("a provider that signs");
        Message::new(subject, signed.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_crypto::{BundleError, SignatureError, UnverifiedBundle};
    use bus_proto::TrustDomain;
    use bus_tls::pki::CaOptions;
    use tempfile::TempDir;

    fn authority() -> (TempDir, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new(crate::deployment::TRUST_DOMAIN).unwrap();
        let authority = Authority::create(folder.path().join("pki"), domain, &CaOptions::default()).unwrap();
        (folder, authority)
    }

    fn verify(sender: &Sender) -> Result<(), BundleError> {
        let clock = Clock::new(unix_ms(), SKEW_MS);
        UnverifiedBundle::read(&sender.bundle)?.verify(&sender.leaf.facts().unwrap(), &clock).map(drop)
    }

    #[test]
    fn a_bundle_that_is_put_together_by_hand_holds_unless_it_lies() {
        let (_folder, authority) = authority();
        let leaf = Leaf::issue(&authority, "agent/agent-02").unwrap();
        let victim = Sender::of(&authority, "agent/agent-01").unwrap();
        let honest = Sender::claiming(leaf.clone(), &leaf.principal).unwrap();
        assert_eq!(verify(&honest), Ok(()));
        let thief = Sender::with_key_of(leaf.clone(), &victim).unwrap();
        assert_eq!(verify(&thief), Err(BundleError::Possession(SignatureError::Mismatch)));
        let liar = Sender::claiming(leaf, &victim.leaf.principal).unwrap();
        assert_eq!(verify(&liar), Err(BundleError::OtherPrincipal));
    }

    #[test]
    fn an_hour_long_ago_is_over() {
        let (_folder, authority) = authority();
        let leaf = Leaf::issue(&authority, "agent/agent-01").unwrap();
        let late = Sender::with(leaf, an_hour_long_ago()).unwrap();
        assert!(matches!(verify(&late), Err(BundleError::Expired { .. })));
    }

    #[test]
    fn a_broker_signs_no_bundles() {
        let (_folder, authority) = authority();
        let profile = Profile::broker("nats-1".parse().unwrap(), ["localhost"]).unwrap();
        let leaf = Leaf::of(&authority.issue(&profile).unwrap()).unwrap();
        let broker = Sender::claiming(leaf.clone(), &leaf.principal).unwrap();
        assert!(matches!(verify(&broker), Err(BundleError::ReservedRole { .. })));
    }
}
