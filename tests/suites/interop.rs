//! Others can speak the wire: the test vectors, and an implementation in another language, by itself and on a live bus.
//!
//! The messages of the live test are signed with bus-crypto and published with async-nats, so that every byte is chosen here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use bus_client::leaf_facts;
use bus_crypto::bundle::{self, Scheme};
use bus_crypto::zeroize::Zeroizing;
use bus_crypto::{Clock, LeafSigner, Lifetime, MadeBundle, SigningKey, envelope};
use bus_proto::prost::Message as _;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Batch, BatchMember, Envelope, Heartbeat, TelemetryEvent, batch_member};
use bus_proto::{AnyPayload, Endpoint};
use bus_tests::deployment::{Deployment, TRUST_DOMAIN};
use bus_tests::vectors::file::{File, HpkeVector, Outcome, SealedVector};
use bus_tests::{python, vectors};
use bus_tls::{OwnCredentials, TlsError};
use hpke::Deserializable as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn our_own_code_agrees_with_every_vector() {
    let report = vectors::agree(&vectors::directory()).unwrap();
    assert!(report.disagreements.is_empty(), "{:#?}", report.disagreements);
    assert!(report.counts.values().all(|count| *count > 10), "{:?}", report.counts);
}

/// Every reason of the pure part, but for those that no bytes can cause: `OtherLeaf`, as here the leaf that is validated is the
/// bundle's, a key that the provider refuses, and memory that runs out. And `NotSealed` is the policy's.
const REASONS: &str = "Trailer \
    Scan.TooLong Scan.Truncated Scan.OverlongVarint Scan.VarintTooLarge Scan.FieldNumber Scan.SecondTrailer Scan.OutOfOrder \
    Scan.Repeated Scan.Group Scan.WireType Scan.WrongWireType Scan.UnknownField Scan.ExplicitDefault Scan.NotUtf8 \
    Scan.NoPayload Scan.SeveralPayloads Scan.Missing Scan.OutOfBounds Scan.MessageId Scan.EmptyBatch Scan.TooManyMembers \
    Scan.NestedForm Scan.MixedBatch Scan.UnorderedRecipients \
    Principal ReservedRole Lifetime OutlivesChain OtherPrincipal Expired NotYetValid SigningKey.SmallOrder \
    SigningKey.NotCanonical Possession.SmallOrder Possession.Mismatch UnsupportedLeafKey LeafKey.SmallOrder \
    LeafKey.NotCanonical SchemeMismatch LeafSignature \
    OtherKey ForeignTrustDomain ForeignBundle KeyExpired KeyNotYetValid OlderThanKey SignedTooLate Signature.SmallOrder \
    Signature.Mismatch SubjectSender SourceComponent \
    Replay.NotCounted Replay.TooOld Replay.Repeated Replay.OtherKey Replay.TooManySubjects \
    Suite SealingKey.SmallOrder SealingKey.NotCanonical \
    NotARecipient UnknownEpoch UnknownSealingKey Opening.WrappedKey Opening.Commitment Opening.OtherEpoch \
    Opening.Ciphertext TypeMismatch \
    Compression.TooLong Compression.NotOneFrame Compression.Dictionary Compression.Length Compression.Damaged";

#[test]
fn every_reason_has_a_vector_and_stands_in_the_document() {
    let files = std::fs::read_dir(vectors::directory()).unwrap();
    let text: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let used: BTreeSet<&str> = text.split("\"reason\": \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let without_chains: BTreeSet<&str> = used.iter().copied().filter(|reason| !reason.starts_with("Chain.")).collect();
    assert_eq!(without_chains, REASONS.split_whitespace().collect());
    let document = include_str!("../../docs/wire.md");
    for reason in used {
        for part in reason.split('.') {
            assert!(document.contains(&format!("`{part}`")), "{part} of {reason} is not in docs/wire.md");
        }
    }
}

#[test]
fn an_implementation_in_another_language_agrees_with_every_vector() {
    let output = python::program("verify.py").arg(vectors::directory()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    // It has looked at as many as our own code has.
    for (file, count) in vectors::agree(&vectors::directory()).unwrap().counts {
        assert!(stdout.contains(&format!("{file}: {count} vectors\n")), "{stdout}");
    }
}

#[test]
fn a_vector_that_expects_something_else_is_noticed_in_both_languages() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(vectors::directory()).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        std::fs::write(folder.path().join(entry.file_name()), text.replace("SmallOrder", "BigOrder")).unwrap();
    }
    let disagreements = vectors::agree(folder.path()).unwrap().disagreements;
    assert!(disagreements.len() > 10, "{disagreements:?}");
    let output = python::program("verify.py").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.lines().count(), disagreements.len(), "{stderr}");
}

/// An epoch's secret, as an implementation of HPKE opens it that is not ours.
fn unwrapped_elsewhere(private_key: &[u8], info: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    type Kem = hpke::kem::X25519HkdfSha256;
    let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(private_key).ok()?;
    let (enc, ciphertext) = wrapped.split_at_checked(32)?;
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(enc).ok()?;
    let open = hpke::single_shot_open::<hpke::aead::AesGcm256, hpke::kdf::HkdfSha256, Kem>;
    open(&hpke::OpModeR::Base, &private, &enc, info, ciphertext, b"").ok()
}

#[test]
fn an_independent_hpke_opens_what_we_open_and_is_no_stricter_than_we_are() {
    let text = std::fs::read_to_string(vectors::directory().join("hpke.json")).unwrap();
    let file: File<HpkeVector> = serde_json::from_str(&text).unwrap();
    // RFC 9180 leaves the highest bit of an encapsulated key alone, and knows nothing of what is wrapped.
    let lenient =
        ["the encapsulated key's highest bit", "a secret of 0 bytes", "a secret of 31 bytes", "a secret of 33 bytes"];
    for HpkeVector { name, private_key, info, wrapped, outcome, .. } in file.vectors {
        let opened = unwrapped_elsewhere(&private_key.0, &info.0, &wrapped.0);
        match outcome {
            Outcome::Accepted(secret) => assert_eq!(opened, Some(secret.secret.0), "{name}"),
            Outcome::Refused(_) => assert_eq!(opened.is_some(), lenient.contains(&name.as_str()), "{name}"),
        }
    }
}

#[test]
fn an_independent_hpke_opens_the_secret_of_every_sealed_message_that_we_open() {
    let text = std::fs::read_to_string(vectors::directory().join("sealed.json")).unwrap();
    let file: File<SealedVector> = serde_json::from_str(&text).unwrap();
    let mut opened = 0;
    for SealedVector { name, receiver, keys, steps, .. } in &file.vectors {
        for step in
            steps.iter().filter(|step| matches!(&step.outcome, Outcome::Accepted(said) if said.content.is_some()))
        {
            let split = bus_crypto::trailer::split(&step.message.0).unwrap();
            let scan = bus_crypto::scan(split.prefix).unwrap();
            let sealed = scan.sealed().unwrap();
            let Some(wrapped) = sealed.wrapped_for(receiver) else { continue };
            let version = wrapped.key_version();
            let key = keys.iter().find(|key| key.version == version.to_string()).unwrap();
            let info = [
                &b"ransomeye.v1 epoch secret\0\0\x01"[..],
                split.key_id.as_bytes(),
                sealed.epoch_id(),
                &version.to_be_bytes(),
                receiver.as_bytes(),
            ]
            .concat();
            let secret = unwrapped_elsewhere(&key.private_key.0, &info, wrapped.wrapped());
            assert_eq!(secret.map(|secret| secret.len()), Some(32), "{name}");
            opened += 1;
        }
    }
    assert!(opened > 20, "{opened}");
}

#[test]
fn the_vectors_are_what_their_generator_makes() {
    vectors::run(&vectors::directory(), true, &vectors::Recorder::new(false)).unwrap();
}

/// The key of a component's certificate.
struct Leaf(OwnCredentials);

impl LeafSigner for Leaf {
    type Error = TlsError;

    fn scheme(&self) -> Scheme {
        Scheme::EcdsaP256Sha256
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        self.0.sign(self.scheme().code(), message)
    }
}

/// A component that signs, and publishes with async-nats.
struct Sender {
    endpoint: Endpoint,
    nats: Client,
    key: SigningKey,
    made: MadeBundle,
}

impl Sender {
    async fn connect(deployment: &Deployment, name: &str) -> Self {
        let identity = deployment.identity(name);
        let options =
            ConnectOptions::new().tls_client_config((*identity.client_config()).clone()).require_tls(true).tls_first();
        let nats = options.connect(deployment.server.url()).await.unwrap();
        let own = identity.credentials();
        let leaf = leaf_facts(own.leaf()).unwrap();
        let chain: Vec<Vec<u8>> = own.chain().iter().map(|der| der.to_vec()).collect();
        // The key proves something to this test alone.
        let key = SigningKey::from_seed(&Zeroizing::new([0x71; 32])).unwrap();
        let now = unix_ms();
        let lifetime = Lifetime { not_before: now, sign_until: now + 3_600_000, verify_until: now + 7_200_000 };
        let made = bundle::make(&key, lifetime, &chain, &leaf, &Leaf(own), &Clock::new(now, 30_000)).unwrap();
        Self { endpoint: name.parse().unwrap(), nats, key, made }
    }

    fn envelope(&self, token: &str, sequence: u64, payload: impl Into<AnyPayload>) -> Envelope {
        let mut unique = [0; 10];
        unique[2..].copy_from_slice(&sequence.to_be_bytes());
        let mut envelope = Envelope::new(&self.endpoint.component, payload, unix_ms(), unique);
        let Endpoint { role, component } = &self.endpoint;
        envelope.subject = format!("ransomeye.events.{token}.{role}.{component}");
        envelope.sequence = sequence;
        envelope
    }

    fn heartbeat(&self, sequence: u64) -> Envelope {
        self.envelope(
            "heartbeat",
            sequence,
            Payload::Heartbeat(Heartbeat { uptime: sequence, version: "0.1.0".into() }),
        )
    }

    fn with_bundle(&self, envelope: Envelope) -> Envelope {
        Envelope { bundle: self.made.encoded.clone().into(), ..envelope }
    }

    fn sign(&self, envelope: &Envelope) -> Vec<u8> {
        envelope::sign(envelope.encode_to_vec(), &self.key, &self.made.key_id).unwrap().bytes
    }

    async fn publish(&self, subject: &str, bytes: Vec<u8>) {
        self.nats.publish(subject.to_owned(), bytes.into()).await.unwrap();
    }
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// A member of a batch of heartbeats.
fn member(uptime: u64, expires_at: i64) -> BatchMember {
    BatchMember {
        message_id: format!("01a0f1a2-0000-7000-8000-{uptime:012x}"),
        timestamp_utc: unix_ms(),
        expires_at,
        payload: Some(batch_member::Payload::Heartbeat(Heartbeat { uptime, version: "0.1.0".into() })),
        ..BatchMember::default()
    }
}

/// The other implementation, subscribed.
struct Subscriber {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Subscriber {
    async fn start(deployment: &Deployment, name: &str, filter: &str, count: usize) -> Self {
        let files = deployment.issue(name);
        let mut command = tokio::process::Command::from(python::program("live.py"));
        command.arg(deployment.server.url()).arg(deployment.authority.ca_path()).arg(files.certificate).arg(files.key);
        command.args([TRUST_DOMAIN, filter, &count.to_string()]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut subscriber = Self { lines, child };
        assert_eq!(subscriber.next().await, json!({ "subscribed": filter }));
        subscriber
    }

    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").unwrap();
        serde_json::from_str(&line.expect("it ended before that")).unwrap()
    }

    /// What one delivery came to: for each message `sequence`, or `!` and the reason of its refusal, and the gap before it.
    async fn delivery(&mut self) -> Vec<String> {
        let delivery = self.next().await;
        let shown = |item: &Value| match item["refused"].as_str() {
            Some(reason) => format!("!{reason}"),
            None if item["gap"].is_null() => item["sequence"].to_string(),
            None => format!("{} after {}", item["sequence"], item["gap"]),
        };
        delivery["delivery"].as_array().unwrap().iter().map(shown).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_language_verifies_what_arrives_from_a_live_bus_and_refuses_what_is_wrong() {
    let deployment = Deployment::start(&["agent/agent-01", "core/python-01"]);
    let sender = Sender::connect(&deployment, "agent/agent-01").await;
    let early = sender.sign(&sender.with_bundle(sender.heartbeat(1)));
    let mut subscriber = Subscriber::start(&deployment, "core/python-01", "ransomeye.events.>", 15).await;

    // What is made from here on is made after the subscription began.
    let now = unix_ms();
    let (beats, load) = ("ransomeye.events.heartbeat.agent.agent-01", "ransomeye.events.telemetry.agent.agent-01");
    let telemetry = |token, sequence| {
        let payload = Payload::Telemetry(TelemetryEvent { cpu_usage: 12.5, ram_usage: 50.0 });
        sender.sign(&sender.with_bundle(sender.envelope(token, sequence, payload)))
    };
    let first = sender.sign(&sender.with_bundle(sender.heartbeat(2)));
    let members = vec![member(1, 0), member(2, now - 1), member(3, now + 600_000)];
    let batch = sender.sign(&sender.envelope("heartbeat", 3, Payload::Batch(Batch { members })));
    let mut altered = sender.sign(&sender.heartbeat(4));
    // The last byte of the payload.
    let last = altered.len() - bus_crypto::trailer::TRAILER_LEN - 1;
    altered[last] ^= 1;
    let with = |change: fn(&mut Envelope)| {
        let mut envelope = sender.heartbeat(5);
        change(&mut envelope);
        sender.sign(&envelope)
    };
    let plan: [(&str, Vec<u8>, &[&str]); 15] = [
        (beats, early, &["!PredatesSubscription"]),
        (beats, sender.sign(&sender.heartbeat(1)), &["!UnknownKey"]),
        (beats, first, &["2"]),
        (load, telemetry("telemetry", 1), &["1"]),
        (beats, batch.clone(), &["3", "!Expired", "3"]),
        (beats, batch, &["!Replay.Repeated"]),
        (beats, altered, &["!Signature.Mismatch"]),
        (beats, sender.heartbeat(5).encode_to_vec(), &["!Trailer"]),
        (beats, with(|it| it.timestamp_utc -= 60_000), &["!ClockSkew"]),
        (beats, with(|it| it.expires_at = 1), &["!Expired"]),
        (beats, with(|it| it.destination = "spiffe://ransomeye.test/core/core-02".into()), &["!DestinationMismatch"]),
        (beats, with(|it| it.source_component = "agent-02".into()), &["!SourceComponent"]),
        (load, sender.sign(&sender.heartbeat(5)), &["!SubjectMismatch"]),
        (beats, telemetry("heartbeat", 5), &["!TypeMismatch"]),
        (beats, sender.sign(&sender.heartbeat(9)), &["9 after [4,8]"]),
    ];
    for (subject, bytes, _) in &plan {
        sender.publish(subject, bytes.clone()).await;
    }
    sender.nats.flush().await.unwrap();
    for (index, (_, _, expected)) in plan.iter().enumerate() {
        assert_eq!(subscriber.delivery().await, *expected, "message {index}");
    }
    assert!(timeout(PATIENCE, subscriber.child.wait()).await.expect("an end in time").unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_language_verifies_every_message_that_our_client_sends() {
    const MESSAGES: u64 = 500;
    let deployment = Deployment::start(&["agent/agent-01", "core/python-01"]);
    let agent = deployment.connect("agent/agent-01").await;
    let most = usize::try_from(MESSAGES).unwrap();
    let mut subscriber = Subscriber::start(&deployment, "core/python-01", "ransomeye.events.heartbeat.>", most).await;
    for uptime in 1..=MESSAGES {
        agent.publish(Heartbeat { uptime, version: "0.1.0".into() }).await.unwrap();
    }
    let (mut received, mut sequence) = (0, 0);
    while received < MESSAGES {
        let delivery = subscriber.next().await;
        for item in delivery["delivery"].as_array().unwrap() {
            assert_eq!(item["sender"], "spiffe://ransomeye.test/agent/agent-01", "{item}");
            assert!(item["gap"].is_null(), "{item}");
            received += 1;
            // In the order in which they were published, however many came in one envelope.
            assert_eq!(item["uptime"], received.to_string(), "{item}");
        }
        sequence += 1;
        assert_eq!(delivery["delivery"][0]["sequence"], sequence, "{delivery}");
    }
}
