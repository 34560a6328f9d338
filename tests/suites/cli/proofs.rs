//! Who signed: as it is shown when a message arrives, and as captured files prove it later.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus_client::{BusClient, BusOptions};
use bus_crypto::bundle::certificate_digest;
use bus_crypto::zeroize::Zeroizing;
use bus_crypto::{Clock, LeafFacts, LeafKey, LeafSigner, Lifetime, Scheme, SigningKey, bundle, envelope};
use bus_proto::prost::Message as _;
use bus_proto::v1::{AlertEvent, Envelope, Severity, TelemetryEvent};
use bus_tls::{TlsIdentity, TlsOptions};
use futures_util::future::join_all;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType, SigningKey as _,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::desk::{Desk, mode};

const AGENT: &str = "spiffe://ransomeye.test/agent/agent-01";

/// Something captured: what `bus sub` printed, each with the name of its evidence.
struct Captured {
    desk: Desk,
    printed: Vec<Value>,
}

impl Captured {
    /// Captures what `publish` sends as `agent/agent-01`, which are so many messages.
    fn of(count: usize, publish: impl AsyncFnOnce(BusClient)) -> Self {
        let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
        let (_server, url) = desk.serve();
        let mut sub =
            desk.start(&format!("sub --json --count {count} --capture evidence --as core/core-01 --url {url}"));
        sub.wait_for_log("subscribed");
        publish_as_agent(&desk, &url, publish);
        let printed = (0..count).map(|_| serde_json::from_str(&sub.line().unwrap()).unwrap()).collect();
        sub.ends_with(0);
        Self { desk, printed }
    }

    fn telemetry(count: usize) -> Self {
        Self::of(count, async |bus| {
            for _ in 0..count {
                bus.publish(TelemetryEvent { cpu_usage: 12.5, ram_usage: 40.0 }).await.unwrap();
            }
        })
    }

    /// The envelope of a message, from where the program ran.
    fn envelope(&self, index: usize) -> String {
        format!("evidence/{}", self.printed[index]["evidence"].as_str().unwrap())
    }

    fn bundle(&self) -> String {
        format!("evidence/{}.bundle", self.printed[0]["key_id"].as_str().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.desk.path(name)
    }

    fn files(&self, extension: &str) -> BTreeSet<String> {
        let files = fs::read_dir(self.path("evidence")).unwrap().map(|entry| entry.unwrap().file_name());
        files.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(extension)).collect()
    }
}

fn publish_as_agent(desk: &Desk, url: &str, publish: impl AsyncFnOnce(BusClient)) {
    let [cert, key, ca] =
        ["agent/agent-01.crt", "agent/agent-01.key", "ca.crt"].map(|name| desk.path("pki").join(name));
    let identity = TlsIdentity::load(TlsOptions::new(cert, key, ca)).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bus = BusClient::connect(BusOptions::new(url, identity)).await.unwrap();
        publish(bus.clone()).await;
        bus.drain().await.unwrap();
    });
}

#[test]
fn a_subscriber_shows_who_signed_each_message() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let sub = |form: &str| {
        let sub = desk.start(&format!("sub --count 1 {form} --as core/core-01 --url {url}"));
        sub.wait_for_log("subscribed");
        sub
    };
    let (mut text, mut json) = (sub(""), sub("--json"));
    desk.done(&format!("pub heartbeat --as agent/agent-01 --url {url}"));
    let message: Value = serde_json::from_str(&json.line().unwrap()).unwrap();
    let key_id = message["key_id"].as_str().unwrap();
    assert_eq!(key_id.len(), 64);
    assert_eq!(
        [&message["sequence"], &message["batch_index"], &message["evidence"]],
        [&json!(1), &json!(null), &json!(null)]
    );
    let line = text.line().unwrap();
    assert!(line.contains(&format!("  agent/agent-01  {}  Heartbeat  ", &key_id[..16])), "{line}");
    text.ends_with(0);
    json.ends_with(0);
}

#[test]
fn what_was_captured_proves_who_signed() {
    let captured = Captured::telemetry(1);
    let desk = &captured.desk;
    let verified =
        desk.done(&format!("verify {} --ca pki/ca.crt --crl pki/crl.pem --json", captured.envelope(0))).json();
    let printed = &captured.printed[0];
    for (ours, theirs) in [("signed_by", "sender"), ("key_id", "key_id"), ("subject", "subject"), ("type", "type")] {
        assert_eq!(verified[ours], printed[theirs], "{ours}");
    }
    assert_eq!(verified["messages"][0]["message_id"], printed["message_id"]);
    assert_eq!(verified["messages"][0]["payload"], json!({ "cpu_usage": 12.5, "ram_usage": 40.0 }));
    let issued = desk.done("pki list --json").json();
    assert_eq!(verified["certificate_serial"], issued["issued"][2]["serial"]);
    assert_eq!(
        [&verified["verified"], &verified["revocation_checked"], &verified["revoked"], &verified["destination"]],
        [&json!(true), &json!(true), &json!(null), &json!(null)]
    );

    let text = desk.done(&format!("verify {} --ca pki/ca.crt", captured.envelope(0))).stdout;
    for said in ["verified: evidence/", AGENT, "cpu 12.5 %", "not checked: give --crl", "not proven"] {
        assert!(text.contains(said), "no {said:?} in {text}");
    }
}

#[test]
fn evidence_is_for_its_owner_alone() {
    let captured = Captured::telemetry(1);
    assert_eq!(mode(&captured.path("evidence")), 0o700);
    for file in [captured.envelope(0), captured.bundle()] {
        assert_eq!(mode(&captured.path(&file)), 0o600, "{file}");
    }
}

#[test]
fn a_batch_is_captured_once_and_each_of_its_messages_is_shown() {
    const COUNT: u32 = 500;
    let captured = Captured::of(COUNT as usize, async |bus| {
        let publish = |cpu| bus.publish(TelemetryEvent { cpu_usage: f64::from(cpu) / 10.0, ram_usage: 0.0 });
        // The first one waits for the broker's verdict. From then on they are gathered.
        publish(0).await.unwrap();
        join_all((1..COUNT).map(publish)).await.into_iter().for_each(Result::unwrap);
    });
    let named: BTreeSet<_> =
        captured.printed.iter().map(|message| message["evidence"].as_str().unwrap().to_owned()).collect();
    assert_eq!(captured.files(".envelope"), named);
    assert_eq!(captured.files(".bundle").len(), 1);
    assert!(named.len() < captured.printed.len(), "nothing was sent in a batch");
    let index = captured.printed.iter().position(|message| message["batch_index"] == 1).unwrap();
    let run = format!("verify {} --ca pki/ca.crt", captured.envelope(index));
    let verified = captured.desk.done(&format!("{run} --json")).json();
    assert_eq!(verified["is_batch"], true);
    let same: Vec<_> =
        captured.printed.iter().filter(|message| message["evidence"] == captured.printed[index]["evidence"]).collect();
    let messages = verified["messages"].as_array().unwrap();
    assert_eq!(messages.len(), same.len());
    for (verified, printed) in messages.iter().zip(same) {
        for field in ["message_id", "time", "payload"] {
            assert_eq!(verified[field], printed[field]);
        }
    }
    assert!(captured.desk.done(&run).stdout.contains("[1] "));
}

#[test]
fn a_capture_that_was_tampered_with_proves_nothing() {
    let captured = Captured::telemetry(1);
    let (desk, file) = (&captured.desk, captured.envelope(0));
    let whole = fs::read(captured.path(&file)).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(desk.path("tampered.envelope"), bytes).unwrap();
        let run = desk.run("verify tampered.envelope --ca pki/ca.crt").exits_with(1).says("is not verified: ");
        assert!(run.stdout.is_empty(), "{run:#?}");
        run
    };
    let id = whole.windows(8).position(|window| window == b"agent-01").unwrap();
    let mut other_subject = whole.clone();
    other_subject[id..id + 8].copy_from_slice(b"agent-02");
    refused(&other_subject).says("the signature does not match");
    let last = whole.len() - 1;
    let mut other_signature = whole.clone();
    other_signature[last] ^= 1;
    refused(&other_signature).says("signature");
    refused(&whole[..last]).says("not signed");
    refused(&[]).says("not signed");
    refused(&whole[1..]);
}

#[test]
fn a_message_without_its_bundle_needs_it_from_elsewhere() {
    // The first one on a subject carries the bundle, the second does not.
    let captured = Captured::telemetry(2);
    let desk = &captured.desk;
    fs::copy(captured.path(&captured.envelope(1)), desk.path("alone.envelope")).unwrap();
    let verify = "verify alone.envelope --ca pki/ca.crt";
    let key_id = captured.printed[0]["key_id"].as_str().unwrap();
    desk.run(verify).exits_with(1).says("--bundle").says(key_id).says("bus keys fetch");
    desk.done(&format!("{verify} --bundle {}", captured.bundle()));
    fs::copy(captured.path(&captured.bundle()), desk.path(&format!("{key_id}.bundle"))).unwrap();
    desk.done(verify);
    desk.run(&format!("{verify} --bundle pki/ca.crt")).exits_with(1).says("the key bundle: ");
    let other = Captured::telemetry(1);
    fs::copy(other.path(&other.bundle()), desk.path("other.bundle")).unwrap();
    fs::copy(other.path("pki/ca.crt"), desk.path("other.crt")).unwrap();
    desk.run("verify alone.envelope --ca other.crt --bundle other.bundle").exits_with(1).says("names the key");
}

#[test]
fn another_authority_or_trust_domain_or_root_proves_nothing() {
    let captured = Captured::telemetry(1);
    let (desk, file) = (&captured.desk, captured.envelope(0));
    desk.done("pki init --dir other --trust-domain ransomeye.test");
    desk.run(&format!("verify {file} --ca other/ca.crt")).exits_with(1).says("is not verified");
    desk.run(&format!("verify {file} --ca pki/ca.crt --crl other/crl.pem")).exits_with(1).says("crl.pem");
    desk.run(&format!("verify {file} --ca pki/ca.crt --trust-domain other.test")).exits_with(1).says("other.test");
    desk.run(&format!("verify {file} --ca pki/ca.crt --root acme")).exits_with(1).says("--root");
    desk.run(&format!("verify {file} --ca pki/agent/agent-01.crt")).exits_with(1);
}

#[test]
fn a_verification_without_a_ca_or_a_file_is_wrong_usage_or_a_failure() {
    let captured = Captured::telemetry(1);
    let (desk, file) = (&captured.desk, captured.envelope(0));
    desk.run("verify").exits_with(2);
    desk.run(&format!("verify {file}")).exits_with(2).says("--ca").says("RANSOMEYE_TRUST_ROOT_CA");
    desk.run("verify nothing.envelope --ca pki/ca.crt").exits_with(1).says("cannot be read");
    desk.run(&format!("verify {file} --ca nothing.crt")).exits_with(1).says("nothing.crt");
    desk.run("verify pki/ca.crt --ca pki/ca.crt").exits_with(1).says("not signed");
    let mut command = desk.command(&format!("verify {file}"));
    assert!(command.env("RANSOMEYE_TRUST_ROOT_CA", "pki/ca.crt").output().unwrap().status.success());
    desk.write("bus.toml", "ca = 'pki/ca.crt'\n");
    desk.done(&format!("verify {file}"));
}

#[test]
fn a_revocation_is_told_with_its_time_and_whether_the_message_is_older() {
    let captured = Captured::telemetry(1);
    let (desk, file) = (&captured.desk, captured.envelope(0));
    // A revocation has its time in whole seconds, and its second is to be a later one.
    let id = captured.printed[0]["message_id"].as_str().unwrap().replace('-', "");
    let made = u128::from_str_radix(&id[..12], 16).unwrap();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    while now() / 1000 <= made / 1000 {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    desk.done("pki revoke agent/agent-01");
    let verify = format!("verify {file} --ca pki/ca.crt");
    let told = desk.run(&format!("{verify} --crl pki/crl.pem --json")).exits_with(1).json();
    assert_eq!([&told["verified"], &told["revoked"]["before_stated_time"]], [&json!(false), &json!(false)]);
    let text = desk.run(&format!("{verify} --crl pki/crl.pem")).exits_with(1).stdout;
    assert!(text.starts_with("NOT VERIFIED") && text.contains("after the message says that it was made"), "{text}");
    desk.done(&verify);
}

#[test]
fn what_was_made_after_the_revocation_is_told_apart() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    // The server is not reloaded, and the subscriber has no list: the message passes.
    desk.done("pki revoke agent/agent-01");
    let mut sub = desk.start(&format!("sub --count 1 --json --capture evidence --as core/core-01 --url {url}"));
    sub.wait_for_log("subscribed");
    desk.done(&format!("pub heartbeat --as agent/agent-01 --url {url}"));
    let message: Value = serde_json::from_str(&sub.line().unwrap()).unwrap();
    sub.ends_with(0);
    let file = message["evidence"].as_str().unwrap();
    let told =
        desk.run(&format!("verify evidence/{file} --ca pki/ca.crt --crl pki/crl.pem --json")).exits_with(1).json();
    assert_eq!(told["revoked"]["before_stated_time"], true, "{told}");
}

#[test]
fn a_captured_command_names_its_receiver() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut sub =
        desk.start(&format!("sub command --inbox --count 1 --json --capture evidence --as agent/agent-01 --url {url}"));
    sub.wait_for_log("subscribed");
    desk.run(&format!("command isolate agent/agent-01 77 --timeout 300ms --as core/core-01 --url {url}")).exits_with(5);
    let message: Value = serde_json::from_str(&sub.line().unwrap()).unwrap();
    sub.ends_with(0);
    let file = message["evidence"].as_str().unwrap();
    let verified = desk.done(&format!("verify evidence/{file} --ca pki/ca.crt --json")).json();
    assert_eq!([&verified["destination"], &verified["type"]], [&json!(AGENT), &json!("command")]);
    // Its receiver has read it. Whoever checks the evidence sees to whom it was sealed.
    assert_eq!(message["payload"], json!({ "command_type": "isolate", "target_pid": 77 }));
    assert_eq!(verified["messages"][0]["payload"]["sealed_to"], json!([AGENT]), "{verified}");
}

#[test]
fn what_a_peer_signed_cannot_steer_the_terminal_of_who_verifies() {
    let unseen = "\u{202e}\u{2066}\u{200b}\u{2028}\u{9b}\u{85}\u{7f}";
    let captured = Captured::of(1, async |bus| {
        let alert = AlertEvent { threat_type: "x".into(), severity: Severity::Low.into(), description: unseen.into() };
        bus.publish(alert).await.unwrap();
    });
    let verify = format!("verify {} --ca pki/ca.crt", captured.envelope(0));
    let text = captured.desk.done(&verify).stdout;
    assert!(text.is_ascii() && text.contains("\\u{202e}"), "{text:?}");
    let written = captured.desk.done(&format!("{verify} --json"));
    assert!(written.stdout.is_ascii(), "{written:?}");
    assert_eq!(written.json()["messages"][0]["payload"]["description"], unseen);
}

#[test]
fn a_capture_ends_before_it_grows_past_its_limit() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut sub = desk.start(&format!("sub --json --capture evidence --capture-limit 1 --as core/core-01 --url {url}"));
    sub.wait_for_log("subscribed");
    publish_as_agent(&desk, &url, async |bus| {
        let alert =
            || AlertEvent { threat_type: "x".into(), severity: Severity::Low.into(), description: "x".repeat(4_000) };
        join_all((0..600).map(|_| bus.publish(alert()))).await.into_iter().for_each(Result::unwrap);
    });
    let printed: Vec<Value> =
        std::iter::from_fn(|| sub.line()).map(|line| serde_json::from_str(&line).unwrap()).collect();
    sub.ends_with(1);
    assert!(sub.stderr().contains("--capture-limit"), "{}", sub.stderr());
    let sizes = fs::read_dir(desk.path("evidence")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() <= 1024 * 1024);
    assert!((1..600).contains(&printed.len()), "{}", printed.len());
    for message in printed {
        let file = message["evidence"].as_str().unwrap();
        assert!(desk.path("evidence").join(file).is_file(), "what is not captured is not printed: {file}");
    }
}

#[test]
fn a_capture_that_cannot_be_written_is_a_failure() {
    let desk = Desk::with(&["core/core-01"]);
    let (_server, url) = desk.serve();
    desk.write("evidence", "a file");
    desk.run(&format!("sub --capture evidence --as core/core-01 --url {url}")).exits_with(1).says("evidence");
}

#[test]
fn a_subscriber_that_is_stopped_has_captured_what_it_printed() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut sub = desk.start(&format!("sub --json --capture evidence --as core/core-01 --url {url}"));
    sub.wait_for_log("subscribed");
    desk.done(&format!("pub heartbeat --as agent/agent-01 --url {url}"));
    let message: Value = serde_json::from_str(&sub.line().unwrap()).unwrap();
    sub.signal(Signal::TERM);
    sub.ends_with(0);
    desk.done(&format!("verify evidence/{} --ca pki/ca.crt", message["evidence"].as_str().unwrap()));
}

/// The key of a certificate, in these tests.
struct Leaf(KeyPair);

impl LeafSigner for Leaf {
    type Error = rcgen::Error;

    fn scheme(&self) -> Scheme {
        Scheme::Ed25519
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// The first moment of July 2020, in Unix milliseconds.
const JULY: i64 = 1_593_561_600_000;

/// The PEM of an authority that ended in 2021, and a message that a component of it signed, whose certificate ended after July
/// 2020, at this time.
fn evidence_of_2020(timestamp: i64) -> (String, Vec<u8>) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.subject_alt_names = vec![SanType::URI("spiffe://ransomeye.test".try_into().unwrap())];
    (authority.not_before, authority.not_after) = (rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    let authority_key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();

    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(AGENT.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 6, 1), rcgen::date_time_ymd(2020, 8, 1));
    let leaf = Leaf(KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    let certificate = params.signed_by(&leaf.0, &Issuer::new(authority, authority_key)).unwrap().der().to_vec();
    let facts = LeafFacts {
        principal: AGENT.parse().unwrap(),
        key: LeafKey::from_spki(&leaf.0.subject_public_key_info()).unwrap(),
        sha256: certificate_digest(&certificate),
        chain_not_after_unix_ms: JULY + 31 * 86_400_000,
    };
    let key = SigningKey::from_seed(&Zeroizing::new([7; 32])).unwrap();
    let lifetime = Lifetime { not_before: JULY, sign_until: JULY + 3_600_000, verify_until: JULY + 7_200_000 };
    let made = bundle::make(&key, lifetime, &[certificate], &facts, &leaf, &Clock::new(JULY, 0)).unwrap();
    let telemetry = TelemetryEvent { cpu_usage: 1.0, ram_usage: 2.0 };
    let mut message = Envelope::new(facts.principal.component(), telemetry, timestamp, [7; 10]);
    message.subject = "ransomeye.events.telemetry.agent.agent-01".into();
    message.bundle = made.encoded.into();
    (pem, envelope::sign(message.encode_to_vec(), &key, &made.key_id).unwrap().bytes)
}

#[test]
fn what_was_signed_with_a_certificate_that_has_expired_since_is_proven() {
    let desk = Desk::empty();
    let (ca, message) = evidence_of_2020(JULY + 1_000);
    desk.write("ca.crt", &ca);
    fs::write(desk.path("message.envelope"), message).unwrap();
    let verified = desk.done("verify message.envelope --ca ca.crt --json").json();
    assert_eq!([&verified["signed_by"], &verified["time"]], [&json!(AGENT), &json!("2020-07-01T00:00:01.000Z")]);
    assert_eq!(verified["certificate_not_after"], "2020-08-01T00:00:00Z");
}

#[test]
fn what_states_a_time_at_which_its_key_did_not_sign_is_not_proven() {
    let desk = Desk::empty();
    let refused = |timestamp, reason: &str| {
        let (ca, message) = evidence_of_2020(timestamp);
        desk.write("ca.crt", &ca);
        fs::write(desk.path("message.envelope"), message).unwrap();
        desk.run("verify message.envelope --ca ca.crt").exits_with(1).says(reason);
    };
    refused(JULY + 86_400_000, "after its key had stopped signing");
    refused(JULY - 86_400_000, "older than its key");
    refused(JULY + 62 * 86_400_000, "it expired at");
    refused(JULY + 3650 * 86_400_000, "no certificate authority in `ca.crt` was valid");
}
