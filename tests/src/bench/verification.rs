//! What verification costs beside its Ed25519 step: from the bytes of a message to a decoded payload.
//!
//! Nothing is stubbed, so that nothing in the product could be. Each round times the whole, and then the same Ed25519
//! verification alone (same key, same signature, same bytes); the rest is the difference, round by round. Rounds
//! are short, so that both halves of one see the same machine, and many.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use bus_acl::{Action, Policy};
use bus_crypto::{
    Clock, KeyId, LeafFacts, LeafKey, LeafSigner, Lifetime, MadeBundle, PayloadView, ReplayGuard, Scheme, SigningKey,
    Unverified, UnverifiedBundle, VerifiedBundle, bundle, envelope, trailer,
};
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{self, Batch, BatchMember, Envelope};
use bus_proto::{Payload, Principal, Registered, SubjectRoot};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::{SignatureVerificationAlgorithm, alg_id};
use serde::Serialize;

use super::BATCH;
use super::ours::Telemetry;
use super::stats::Spread;

/// The time of every message here, in Unix milliseconds.
pub(crate) const NOW: i64 = 1_790_000_000_000;

/// The key of a component's certificate.
struct Leaf(KeyPair);

impl LeafSigner for Leaf {
    type Error = rcgen::Error;

    fn scheme(&self) -> Scheme {
        Scheme::Ed25519
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Self::Error> {
        self.0.sign(message)
    }
}

/// A sender with the bundle of its key.
struct Sender {
    leaf: LeafFacts,
    key: SigningKey,
    made: MadeBundle,
}

/// The clock of every receiver here.
fn clock() -> Clock {
    Clock::new(NOW, 30_000)
}

impl Sender {
    /// A sender with a signing key that is known, as it protects nothing.
    fn new() -> Result<Self> {
        let leaf_key = Leaf(KeyPair::generate_for(&PKCS_ED25519)?);
        let chain = [b"a certificate".to_vec()];
        let leaf = LeafFacts {
            principal: "spiffe://ransomeye.test/agent/agent-01".parse()?,
            key: LeafKey::from_spki(&leaf_key.0.subject_public_key_info())?,
            sha256: bundle::certificate_digest(&chain[0]),
            chain_not_after_unix_ms: NOW + 86_400_000,
        };
        let key = SigningKey::from_seed(&[7; 32].into())?;
        let lifetime = Lifetime { not_before: NOW, sign_until: NOW + 1_000, verify_until: NOW + 2_000 };
        let made = bundle::make(&key, lifetime, &chain, &leaf, &leaf_key, &clock())?;
        Ok(Self { leaf, key, made })
    }

    /// What a receiver keeps of the bundle.
    fn verified(&self) -> Result<VerifiedBundle> {
        Ok(UnverifiedBundle::read(&self.made.encoded)?.verify(&self.leaf, &clock())?)
    }

    /// A signed envelope with this payload.
    fn sign(&self, payload: v1::envelope::Payload, sequence: u64) -> Result<Vec<u8>> {
        let principal = &self.leaf.principal;
        let mut envelope = Envelope::new(principal.component(), payload, NOW, [7; 10]);
        envelope.subject = subject(principal);
        envelope.sequence = sequence;
        Ok(envelope::sign(envelope.encode_to_vec(), &self.key, &self.made.key_id)?.bytes)
    }
}

/// What a principal's events of the benchmark are published to.
fn subject(principal: &Principal) -> String {
    format!("ransomeye.events.x-telemetry.{}.{}", principal.role(), principal.component())
}

/// Telemetry as an envelope or a member carries it.
fn custom() -> v1::Custom {
    let v1::envelope::Payload::Custom(custom) = Telemetry::new(&vec![b'.'; super::PAYLOAD].into()).into_payload()
    else {
        unreachable!("a registered type is a custom payload");
    };
    custom
}

/// One message.
pub(crate) fn single() -> v1::envelope::Payload {
    v1::envelope::Payload::Custom(custom())
}

/// A full batch.
fn batch() -> v1::envelope::Payload {
    members(BATCH)
}

/// A batch of so many.
pub(crate) fn members(count: usize) -> v1::envelope::Payload {
    let member = BatchMember {
        message_id: "0199f1a2-0000-7000-8000-000000000000".into(),
        timestamp_utc: NOW,
        payload: Some(v1::batch_member::Payload::Custom(custom())),
        ..BatchMember::default()
    };
    v1::envelope::Payload::Batch(Batch { members: vec![member; count] })
}

/// What verification costs, in microseconds; a batch's figures are of one member.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// `single` or `batch`.
    pub name: &'static str,
    /// The payloads of an envelope.
    pub payloads: usize,
    /// From the bytes to decoded payloads: scan, subject, policy, signature, replay window, decoding.
    pub whole_us: Spread,
    /// The Ed25519 verification alone.
    pub ed25519_us: Spread,
    /// The difference, round by round.
    pub rest_us: Spread,
    /// Making the signature of an envelope that is encoded.
    pub sign_us: Spread,
}

/// What a receiver has at hand.
struct Receiver {
    root: SubjectRoot,
    policy: Policy,
    bundle: VerifiedBundle,
}

impl Receiver {
    /// Verifies one message and hands out its payloads. Returns how many they are.
    fn receive(&self, message: &Bytes, guard: &mut ReplayGuard) -> Result<usize> {
        let unverified = Unverified::read(message)?;
        let address = self.root.parse(unverified.scan().subject())?;
        let claimed =
            Principal { trust_domain: self.bundle.principal().trust_domain.clone(), endpoint: address.sender };
        let decision = self.policy.authorize(&claimed, Action::Publish, &address.message_type, &address.destination);
        let _permit = black_box(decision.map_err(|denied| anyhow!("{denied}"))?);
        let verified = unverified.verify(&self.bundle, &claimed.trust_domain, &clock())?;
        let fresh = guard.check(&verified)?;
        let mut payloads = 0;
        let mut decode = |view: &PayloadView<'_>| {
            let custom = v1::Custom::decode(message.slice(view.range()))?;
            let payload = v1::envelope::Payload::Custom(custom);
            black_box(Registered::<Telemetry>::from_payload(payload)?);
            payloads += 1;
            anyhow::Ok(())
        };
        match verified.scan().members() {
            [] => decode(verified.scan().payload())?,
            members => members.iter().try_for_each(|member| decode(member.payload()))?,
        }
        guard.commit(fresh)?;
        Ok(payloads)
    }
}

/// What the signature of an envelope is made over.
fn to_sign(key_id: &KeyId, prefix_digest: &[u8; 32]) -> Vec<u8> {
    [b"ransomeye.v1 envelope\0", key_id.as_bytes().as_slice(), prefix_digest].concat()
}

/// Ed25519 of the same crypto provider.
fn ed25519() -> Result<&'static dyn SignatureVerificationAlgorithm> {
    let known = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    known.iter().copied().find(|known| known.signature_alg_id() == alg_id::ED25519).context("there is no Ed25519")
}

/// Measures single messages and full batches, in `rounds` rounds each.
pub(crate) fn measure(policy: &Policy, rounds: usize) -> Result<[Cost; 2]> {
    let sender = Sender::new()?;
    let policy = policy.clone().for_domain(sender.leaf.principal.trust_domain.clone());
    let receiver = Receiver { root: SubjectRoot::default(), policy, bundle: sender.verified()? };
    Ok([
        cost("single", &receiver, &sender, &single(), 64, rounds)?,
        cost("batch", &receiver, &sender, &batch(), 4, rounds)?,
    ])
}

fn cost(
    name: &'static str,
    receiver: &Receiver,
    sender: &Sender,
    payload: &v1::envelope::Payload,
    messages: u64,
    rounds: usize,
) -> Result<Cost> {
    let sign = |sequence| sender.sign(payload.clone(), sequence).map(Bytes::from);
    let messages = (1..=messages).map(sign).collect::<Result<Vec<_>>>()?;
    let split = trailer::split(&messages[0])?;
    let (algorithm, key) = (ed25519()?, receiver.bundle.key().as_bytes());
    let trust_domain = &receiver.bundle.principal().trust_domain;
    let verified = envelope::verify(&messages[0], &receiver.bundle, trust_domain, &clock())?;
    let signed = to_sign(&split.key_id, verified.digest());
    let holds =
        |signature: &[u8; 64]| algorithm.verify_signature(key, black_box(&signed), black_box(signature)).is_ok();
    let (good, out_of_range) = (*split.signature.as_bytes(), [0xff; 64]);
    ensure!(holds(&good) && !holds(&out_of_range), "the message that is verified alone is another one");
    let payloads = receiver.receive(&messages[0], &mut ReplayGuard::new(split.key_id))?;
    let (mut whole, mut ed25519, mut rest, mut signing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut guard = ReplayGuard::new(split.key_id);
        let one = each(&messages, payloads, |message| receiver.receive(message, &mut guard).map(drop))?;
        let accepted = each(&messages, payloads, |_| {
            black_box(holds(&good));
            Ok(())
        })?;
        // Refused before anything is computed: what loading the key and the call cost, which the product does not pay here.
        let refused = each(&messages, payloads, |_| {
            black_box(holds(&out_of_range));
            Ok(())
        })?;
        let other = accepted - refused;
        let copies: Vec<_> = messages.iter().map(|_| with_room(split.prefix)).collect();
        let made = each(copies, payloads, |copy| {
            black_box(envelope::sign(copy, &sender.key, &split.key_id)?);
            Ok(())
        })?;
        whole.push(one);
        ed25519.push(other);
        rest.push(one - other);
        signing.push(made);
    }
    Ok(Cost {
        name,
        payloads,
        whole_us: Spread::of(whole),
        ed25519_us: Spread::of(ed25519),
        rest_us: Spread::of(rest),
        sign_us: Spread::of(signing),
    })
}

/// A copy to which a trailer can be appended in place.
fn with_room(prefix: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(prefix.len() + trailer::TRAILER_LEN);
    copy.extend_from_slice(prefix);
    copy
}

/// Does something with each item, and says how long one payload took, in microseconds.
fn each<T>(
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    payloads: usize,
    mut work: impl FnMut(T) -> Result<()>,
) -> Result<f64> {
    let items = items.into_iter();
    let count = u32::try_from(items.len() * payloads)?;
    let started = Instant::now();
    for item in items {
        work(item)?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}
