//! Whether bus-crypto, and bus-tls for certificate chains, say of every vector what its file expects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bus_client::leaf_facts;
use bus_crypto::sealing::{RecordError, UnverifiedRecord, VerifiedRecord};
use bus_crypto::{
    BundleError, Clock, EnvelopeError, Place, ReplayError, ReplayGuard, Scan, ScanError, SealedView, UnverifiedBundle,
    VerifiedBundle, WrappedKeyView, envelope, scan, trailer,
};
use bus_proto::TrustDomain;
use bus_tls::{OfflineTrust, TlsError, VerifiedLeaf};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::file::{
    BundleVector, Bytes, ChainVector, ContentVector, EnvelopeVector, File, FrameVector, HeldBundle, HpkeVector, Key,
    Leaf, New, Outcome, Parts, Proof, Reading, RecordVector, Refused, ReplayVector, ScanVector, SealedReading,
    SealedVector, SealingKeyProof, Step, Time, TrailerVector,
};
use super::form::{bytes, number};
use super::identities::{NOW, World, at};
use super::opening::{self, Receiver};
use super::signer::Recorder;

/// A vector of which something else was said than its file expects.
#[derive(Debug)]
#[expect(dead_code, reason = "it is printed, which uses every field")]
pub struct Disagreement {
    file: &'static str,
    vector: String,
    expected: String,
    found: String,
}

/// What a comparison came to.
#[derive(Debug, Default)]
pub struct Report {
    /// How many vectors each file holds.
    pub counts: BTreeMap<&'static str, usize>,
    /// Where the two differ.
    pub disagreements: Vec<Disagreement>,
}

/// Compares every file in a directory.
///
/// # Errors
///
/// When a file cannot be read, or two of its vectors have one name.
pub fn agree(directory: &Path) -> Result<Report> {
    let mut report = Report::default();
    let recorder = Recorder::new(false);
    let world = World::new(&recorder)?;
    let judge = ChainJudge::new(&world)?;
    let mut compare = Comparison { directory, report: &mut report };
    compare.file("trailers.json", |it: &TrailerVector, _| (&it.name, same(&it.outcome, &parts(it))))?;
    compare.file("scans.json", |it: &ScanVector, _| (&it.name, same(&it.outcome, &reading(it))))?;
    compare.file("chains.json", |it: &ChainVector, _| (&it.name, same(&it.outcome, &judge.chain(it))))?;
    compare.file("bundles.json", |it: &BundleVector, _| (&it.name, same(&it.outcome, &judge.bundle(it))))?;
    let mut held = BTreeMap::new();
    compare.file("envelopes.json", |it: &EnvelopeVector, bundles| {
        let bundle = held.entry(it.bundle.clone()).or_insert_with(|| judge.held(&bundles[&it.bundle]));
        (&it.name, same(&it.outcome, &proof(it, bundle)))
    })?;
    let own = judge.held(&held_bundle(&world)?);
    compare.file("replays.json", |it: &ReplayVector, _| (&it.name, replay(it, &world, &own)))?;
    compare.file("records.json", |it: &RecordVector, _| (&it.name, same(&it.outcome, &judge.record(it))))?;
    compare.file("contents.json", |it: &ContentVector, _| (&it.name, same(&it.outcome, &opening::content(it))))?;
    compare.file("hpke.json", |it: &HpkeVector, _| (&it.name, same(&it.outcome, &opening::unwrapped(it))))?;
    compare.file("compressed.json", |it: &FrameVector, _| (&it.name, same(&it.outcome, &opening::frame(it))))?;
    let mut held = BTreeMap::new();
    compare.file("sealed.json", |it: &SealedVector, bundles| {
        let mut receiver = Receiver::new(it);
        let difference = it.steps.iter().enumerate().find_map(|(index, step)| {
            let bundle = held.entry(step.bundle.clone()).or_insert_with(|| judge.held(&bundles[&step.bundle]));
            let received = receiver.receive(&step.message.0, bundle, &it.clock);
            let found = received.map_or_else(|refused| refused, Outcome::Accepted);
            let (expected, found) = same(&step.outcome, &found)?;
            Some((format!("step {index}: {expected}"), found))
        });
        (&it.name, difference)
    })?;
    Ok(report)
}

struct Comparison<'a> {
    directory: &'a Path,
    report: &'a mut Report,
}

/// What was expected and what was found, if they differ.
type Difference = Option<(String, String)>;

impl Comparison<'_> {
    fn file<V: DeserializeOwned>(
        &mut self,
        name: &'static str,
        mut look: impl for<'v> FnMut(&'v V, &BTreeMap<String, HeldBundle>) -> (&'v String, Difference),
    ) -> Result<()> {
        let text = std::fs::read_to_string(self.directory.join(name)).with_context(|| format!("cannot read {name}"))?;
        let file: File<V> = serde_json::from_str(&text).with_context(|| format!("{name} is malformed"))?;
        let mut names = BTreeSet::new();
        for vector in &file.vectors {
            let (vector, difference) = look(vector, &file.bundles);
            ensure!(names.insert(vector.clone()), "{name} holds two vectors called `{vector}`");
            if let Some((expected, found)) = difference {
                let vector = vector.clone();
                self.report.disagreements.push(Disagreement { file: name, vector, expected, found });
            }
        }
        self.report.counts.insert(name, file.vectors.len());
        Ok(())
    }
}

fn same<T: Debug + PartialEq>(expected: &Outcome<T>, found: &Outcome<T>) -> Difference {
    (expected != found).then(|| (format!("{expected:?}"), format!("{found:?}")))
}

/// The name of an error's variant, which is its stable name.
pub(crate) fn name(error: &impl Debug) -> String {
    format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

pub(crate) fn refused<T>(reason: String) -> Outcome<T> {
    Outcome::Refused(Refused { reason, place: None })
}

pub(crate) fn of_scan<T>(error: &ScanError) -> Outcome<T> {
    let place = match error.place {
        Place::Envelope => "envelope".into(),
        Place::Payload => "payload".into(),
        Place::WrappedKey(index) => format!("wrapped key {index}"),
        Place::Batch => "batch".into(),
        Place::Member(index) => format!("member {index}"),
        Place::TraceContext => "trace context".into(),
        Place::References => "references".into(),
        Place::Reference(index) => format!("reference {index}"),
        Place::Content => "content".into(),
        Place::Bundle => "bundle".into(),
        Place::Statement => "statement".into(),
        Place::SealingRecord => "sealing record".into(),
        Place::SealingStatement => "sealing statement".into(),
        other => format!("{other:?}"),
    };
    Outcome::Refused(Refused { reason: format!("Scan.{}", name(&error.refusal)), place: Some(place) })
}

pub(crate) fn of_envelope<T>(error: &EnvelopeError) -> Outcome<T> {
    match error {
        EnvelopeError::Scan(error) => of_scan(error),
        EnvelopeError::Signature(error) => refused(format!("Signature.{}", name(error))),
        other => refused(name(other)),
    }
}

fn of_bundle<T>(error: &BundleError) -> Outcome<T> {
    match error {
        BundleError::Scan(error) => of_scan(error),
        BundleError::SigningKey(error) => refused(format!("SigningKey.{}", name(error))),
        BundleError::Possession(error) => refused(format!("Possession.{}", name(error))),
        BundleError::LeafKey(error) => refused(format!("LeafKey.{}", name(error))),
        other => refused(name(other)),
    }
}

fn of_record<T>(error: &RecordError) -> Outcome<T> {
    match error {
        RecordError::Scan(error) => of_scan(error),
        RecordError::Statement(error) => of_bundle(error),
        RecordError::Key(error) => refused(format!("SealingKey.{}", name(error))),
        other => refused(name(other)),
    }
}

fn parts(vector: &TrailerVector) -> Outcome<Parts> {
    match trailer::split(&vector.message.0) {
        Ok(split) => Outcome::Accepted(Parts {
            prefix_length: split.prefix.len(),
            key_id: split.key_id.as_bytes()[..].into(),
            signature: split.signature.as_bytes()[..].into(),
        }),
        Err(_) => refused("Trailer".into()),
    }
}

fn reading(vector: &ScanVector) -> Outcome<Reading> {
    match scan(&vector.prefix.0) {
        Ok(scan) => Outcome::Accepted(read(&scan)),
        Err(error) => of_scan(&error),
    }
}

fn read(scan: &Scan<'_>) -> Reading {
    Reading {
        message_id: scan.message_id().into(),
        source_component: scan.source_component().into(),
        timestamp_utc: scan.timestamp().to_string(),
        subject: scan.subject().into(),
        destination: scan.destination().map(str::to_owned),
        expires_at: scan.expires_at().map(|moment| moment.to_string()),
        correlation_id: scan.correlation_id().map(|id| id[..].into()),
        sequence: scan.sequence().map(|sequence| sequence.to_string()),
        priority: scan.priority(),
        payload: opening::place_of(scan.payload()),
        bundle_length: scan.bundle().map(<[u8]>::len),
        members: scan.members().len(),
        sealed: scan.sealed().map(read_sealed),
        references: scan.references().map(read_sealed),
        compressed: scan
            .payload()
            .compressed()
            .map(|(length, frame)| [usize::try_from(length).expect("32 bits"), frame.len()]),
    }
}

fn read_sealed(sealed: &SealedView<'_>) -> SealedReading {
    let recipient = |key: &WrappedKeyView<'_>| (key.recipient().to_owned(), key.key_version().to_string());
    SealedReading {
        epoch_id: sealed.epoch_id()[..].into(),
        commitment: sealed.commitment()[..].into(),
        counter: sealed.counter().to_string(),
        ciphertext_length: sealed.ciphertext().len(),
        recipients: sealed.wrapped_keys().iter().map(recipient).collect(),
    }
}

fn now(time: &Time) -> Option<i64> {
    time.now.as_ref().map(|now| now.parse().expect("a number"))
}

pub(crate) fn clock(time: &Time) -> Clock {
    let skew = time.skew.parse().expect("a number");
    now(time).map_or_else(|| Clock::dangerous_without_now(skew), |now| Clock::new(now, skew))
}

/// Judges chains with bus-tls, as of the time of a vector.
struct ChainJudge {
    roots: Vec<Bytes>,
    file: PathBuf,
    _folder: TempDir,
}

impl ChainJudge {
    fn new(world: &World<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, pem("CERTIFICATE", &world.root.der))?;
        Ok(Self { roots: world.roots(), file, _folder: folder })
    }

    fn validate<T>(&self, chain: &[&[u8]], at: i64) -> Result<VerifiedLeaf, Outcome<T>> {
        let trust = OfflineTrust::load(&self.file, None, at).expect("the root is valid at the time of every vector");
        trust.verify(chain).map_err(|error| of_chain(&error))
    }

    fn chain(&self, vector: &ChainVector) -> Outcome<Leaf> {
        assert_eq!(vector.roots, self.roots, "{}: the roots of another deployment", vector.name);
        let chain: Vec<&[u8]> = vector.chain.iter().map(|der| der.0.as_slice()).collect();
        match self.validate(&chain, now(&vector.clock).expect("a chain is judged at a time")) {
            Ok(leaf) => Outcome::Accepted(Leaf {
                principal: leaf.principal().spiffe_id(),
                chain_not_after: leaf.chain_not_after_unix_ms().to_string(),
            }),
            Err(outcome) => outcome,
        }
    }

    fn bundle(&self, vector: &BundleVector) -> Outcome<Key> {
        assert_eq!(vector.roots, self.roots, "{}: the roots of another deployment", vector.name);
        match self.verify(&vector.bundle.0, &vector.clock) {
            Ok(bundle) => Outcome::Accepted(Key {
                key_id: bundle.key_id().as_bytes()[..].into(),
                principal: bundle.principal().spiffe_id(),
                public_key: bundle.key().as_bytes()[..].into(),
            }),
            Err(outcome) => outcome,
        }
    }

    fn record(&self, vector: &RecordVector) -> Outcome<SealingKeyProof> {
        assert_eq!(vector.roots, self.roots, "{}: the roots of another deployment", vector.name);
        match self.verify_record(&vector.record.0, &vector.clock) {
            Ok(record) => Outcome::Accepted(SealingKeyProof {
                principal: record.principal().spiffe_id(),
                version: record.version().to_string(),
                public_key: record.key().as_bytes()[..].into(),
                lifetime: [record.lifetime().not_before.to_string(), record.lifetime().not_after.to_string()],
            }),
            Err(outcome) => outcome,
        }
    }

    /// The order of checks of the record of a sealing key.
    fn verify_record<T>(&self, encoded: &[u8], time: &Time) -> Result<VerifiedRecord, Outcome<T>> {
        let unverified = UnverifiedRecord::read(encoded).map_err(|error| of_record(&error))?;
        let leaf = self.validate(unverified.chain(), now(time).expect("a record is judged at a time"))?;
        let facts = leaf_facts(&leaf).map_err(|error| of_bundle(&error))?;
        unverified.verify(&facts, &clock(time)).map_err(|error| of_record(&error))
    }

    /// The order of checks of a bundle. Evidence is judged as of the bundle's beginning.
    fn verify<T>(&self, encoded: &[u8], time: &Time) -> Result<VerifiedBundle, Outcome<T>> {
        let unverified = UnverifiedBundle::read(encoded).map_err(|error| of_bundle(&error))?;
        let leaf = self.validate(unverified.chain(), now(time).unwrap_or(NOW))?;
        let facts = leaf_facts(&leaf).map_err(|error| of_bundle(&error))?;
        unverified.verify(&facts, &clock(time)).map_err(|error| of_bundle(&error))
    }

    /// A bundle that a receiver holds.
    fn held(&self, held: &HeldBundle) -> VerifiedBundle {
        let evidence = Time { now: None, skew: "0".into() };
        self.verify::<()>(&held.bundle.0, &evidence).expect("a bundle that a receiver may hold")
    }
}

fn of_chain<T>(error: &TlsError) -> Outcome<T> {
    let reason = match error {
        TlsError::NotValidThen { bound, .. } if bound.contains("expired") => "Expired".into(),
        TlsError::NotValidThen { .. } => "NotYetValid".into(),
        other => name(other),
    };
    refused(format!("Chain.{reason}"))
}

fn pem(label: &str, der: &[u8]) -> String {
    use std::fmt::Write as _;
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
            let encoded = (0..4).map(|index| char::from(digits[bits >> (18 - 6 * index) & 0x3f]));
            text.extend(encoded.take(group.len() + 1).chain(std::iter::repeat_n('=', 3 - group.len())));
        }
        text.push('\n');
    }
    writeln!(text, "-----END {label}-----").expect("writing to a text");
    text
}

fn proof(vector: &EnvelopeVector, bundle: &VerifiedBundle) -> Outcome<Proof> {
    let domain = TrustDomain::new(&vector.trust_domain).expect("a trust domain");
    match envelope::verify(&vector.message.0, bundle, &domain, &clock(&vector.clock)) {
        Ok(verified) => Outcome::Accepted(Proof {
            principal: verified.principal().spiffe_id(),
            key_id: verified.key_id().as_bytes()[..].into(),
            digest: verified.digest()[..].into(),
            subject: verified.scan().subject().into(),
        }),
        Err(error) => of_envelope(&error),
    }
}

fn held_bundle(world: &World<'_>) -> Result<HeldBundle> {
    let (bundle, roots) = (Bytes(world.agent()?.bundle()?), world.roots());
    Ok(HeldBundle { bundle, roots, trust_domain: "ransomeye.test".into() })
}

/// Signs the messages of a sequence, and shows them to a guard.
fn replay(vector: &ReplayVector, world: &World<'_>, own: &VerifiedBundle) -> Difference {
    let mut guard = ReplayGuard::new(own.key_id());
    let other = ReplayGuard::new(bus_crypto::KeyId::from_bytes([0x42; 32]));
    for (index, step) in vector.steps.iter().enumerate() {
        let message = message_of(step, world, own);
        let domain = TrustDomain::new("ransomeye.test").expect("a trust domain");
        let verified = envelope::verify(&message, own, &domain, &clock(&at(NOW))).expect("a message of ours");
        // A message of another key at this guard is a message of ours at another's.
        let result = if step.key == "own" { guard.check(&verified) } else { other.check(&verified) };
        let result = result.and_then(|fresh| if step.commit { guard.commit(fresh) } else { Ok(None) });
        let found = match result {
            Ok(gap) => Outcome::Accepted(New { gap: gap.map(|gap| [gap.first.to_string(), gap.last.to_string()]) }),
            Err(error) => of_replay(&error),
        };
        if found != step.outcome {
            return Some((format!("step {index}: {:?}", step.outcome), format!("{found:?}")));
        }
    }
    None
}

fn of_replay(error: &ReplayError) -> Outcome<New> {
    refused(format!("Replay.{}", name(error)))
}

fn message_of(step: &Step, world: &World<'_>, own: &VerifiedBundle) -> Vec<u8> {
    let mut prefix = [
        bytes(1, super::scans::ID.as_bytes()),
        bytes(2, b"agent-01"),
        number(3, NOW.unsigned_abs()),
        bytes(4, step.subject.as_bytes()),
    ]
    .concat();
    if let Some(sequence) = &step.sequence {
        prefix.extend(number(8, sequence.parse().expect("a number")));
    }
    prefix.extend(bytes(10, &[]));
    let agent = world.agent().expect("the agent");
    agent.sign(&prefix, own.key_id().as_bytes()).expect("a signature")
}
