//! Signed messages.

use std::collections::BTreeMap;

use anyhow::Result;
use bus_proto::prost::Message as _;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{
    AlertEvent, Batch, BatchMember, CommandRequest, CommandResult, Custom, Envelope, Error, Heartbeat, KeyStatement,
    Sealed, TelemetryEvent, TraceContext, WrappedKey, batch_member,
};

use super::file::{Bytes, EnvelopeVector, File, HeldBundle, Outcome, Proof, Time};
use super::form::{number, refused};
use super::identities::{Component, ENVELOPE_CONTEXT, HOUR, NOW, SKEW, TRUST_DOMAIN, World, at, with_trailer};
use super::scalar;
use super::sha256;
use super::signer::Signer;

const TRAILER: usize = 106;

struct Vectors<'a> {
    world: &'a World<'a>,
    bundles: BTreeMap<String, HeldBundle>,
    all: Vec<EnvelopeVector>,
}

/// A component with its bundle, as the vectors name it.
struct Sender<'a> {
    name: &'static str,
    component: Component<'a>,
    bundle: Vec<u8>,
    key_id: [u8; 32],
}

impl<'a> Vectors<'a> {
    fn sender(&mut self, name: &'static str, component: Component<'a>) -> Result<Sender<'a>> {
        self.sender_with(name, component, |_| ())
    }

    fn sender_with(
        &mut self,
        name: &'static str,
        component: Component<'a>,
        change: impl FnOnce(&mut KeyStatement),
    ) -> Result<Sender<'a>> {
        let bundle = component.bundle_with(change)?;
        let roots = self.world.roots();
        let held = HeldBundle { bundle: Bytes(bundle.clone()), roots, trust_domain: TRUST_DOMAIN.into() };
        self.bundles.insert(name.into(), held);
        let key_id = sha256(&bundle);
        Ok(Sender { name, component, bundle, key_id })
    }

    fn add(&mut self, name: &str, comment: &str, message: Vec<u8>, bundle: &str, clock: Time, outcome: Outcome<Proof>) {
        self.all.push(EnvelopeVector {
            name: name.into(),
            comment: comment.into(),
            message: Bytes(message),
            bundle: bundle.into(),
            trust_domain: TRUST_DOMAIN.into(),
            clock,
            outcome,
        });
    }

    fn accept(&mut self, name: &str, comment: &str, sender: &Sender<'_>, envelope: &Envelope) -> Result<()> {
        self.accept_at(name, comment, sender, envelope, at(NOW))
    }

    fn accept_at(
        &mut self,
        name: &str,
        comment: &str,
        sender: &Sender<'_>,
        envelope: &Envelope,
        clock: Time,
    ) -> Result<()> {
        let prefix = envelope.encode_to_vec();
        let proof = Proof {
            principal: sender.component.principal.clone(),
            key_id: Bytes(sender.key_id.to_vec()),
            digest: Bytes(sha256(&prefix).to_vec()),
            subject: envelope.subject.clone(),
        };
        let message = sender.component.sign(&prefix, &sender.key_id)?;
        self.add(name, comment, message, sender.name, clock, Outcome::Accepted(proof));
        Ok(())
    }

    fn refuse(&mut self, name: &str, comment: &str, sender: &Sender<'_>, message: Vec<u8>, reason: &str) {
        self.add(name, comment, message, sender.name, at(NOW), refused(reason, None));
    }
}

impl Sender<'_> {
    fn envelope(&self, token: &str, payload: impl Into<Payload>) -> Envelope {
        let (_, endpoint) = self.component.principal.split_once("ransomeye.test/").unwrap_or_default();
        let (role, component) = endpoint.split_once('/').unwrap_or(("agent", "agent-01"));
        Envelope {
            message_id: "01a0f1a2-0000-7000-8000-000000000001".into(),
            source_component: component.into(),
            timestamp_utc: NOW,
            subject: format!("ransomeye.events.{token}.{role}.{component}"),
            sequence: 1,
            payload: Some(payload.into()),
            ..Envelope::default()
        }
    }

    fn telemetry(&self) -> Envelope {
        self.envelope("telemetry", TelemetryEvent { cpu_usage: 12.5, ram_usage: 50.0 })
    }

    fn sign(&self, envelope: &Envelope) -> Result<Vec<u8>> {
        self.component.sign(&envelope.encode_to_vec(), &self.key_id)
    }
}

pub(crate) fn file(world: &World<'_>) -> Result<File<EnvelopeVector>> {
    let mut vectors = Vectors { world, bundles: BTreeMap::default(), all: Vec::new() };
    let agent = vectors.sender("agent-01", world.agent()?)?;
    let core = world.component("spiffe://ransomeye.test/core/core-01", 9, Signer::ed25519([0x2e; 32]))?;
    let core = vectors.sender("core-01", core)?;
    payloads(&mut vectors, &agent)?;
    directed(&mut vectors, &agent, &core)?;
    fields(&mut vectors, &agent)?;
    batches(&mut vectors, &agent)?;
    schemes(&mut vectors)?;
    forms(&mut vectors, &agent)?;
    alterations(&mut vectors, &agent)?;
    domains(&mut vectors, &agent)?;
    strictness(&mut vectors, &agent)?;
    keys(&mut vectors, &agent)?;
    senders(&mut vectors, &agent)?;
    times(&mut vectors, &agent)?;
    orders(&mut vectors, &agent)?;
    Ok(File {
        about:
            "Signed messages. `bundle` names the one that the receiver holds, verified at its `not_before`; freshness, \
                policy and replay are not part of these."
                .into(),
        bundles: vectors.bundles,
        vectors: vectors.all,
    })
}

fn heartbeat(uptime: u64) -> Heartbeat {
    Heartbeat { uptime, version: "0.1.0".into() }
}

fn payloads(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    vectors.accept("telemetry", "a single payload", agent, &agent.telemetry())?;
    let alert = AlertEvent {
        threat_type: "ransomware.mass-rename".into(),
        severity: 5,
        description: "4,096 files in a minute – \u{1f512}".into(),
    };
    vectors.accept("alert", "a single payload", agent, &agent.envelope("alert", Payload::Alert(alert)))?;
    let heartbeat = Payload::Heartbeat(heartbeat(86_400));
    vectors.accept("heartbeat", "a single payload", agent, &agent.envelope("heartbeat", heartbeat))?;
    let empty = Payload::Heartbeat(Heartbeat::default());
    vectors.accept(
        "empty heartbeat",
        "no field of the payload is encoded",
        agent,
        &agent.envelope("heartbeat", empty),
    )?;
    let custom = Custom { type_name: "acme.v1.Inventory".into(), value: vec![0xff, 0x80, 0].into() };
    let comment = "what a registered type holds is opaque to the scan";
    vectors.accept("custom", comment, agent, &agent.envelope("x-inventory", Payload::Custom(custom)))?;
    let wrapped = WrappedKey {
        recipient: "spiffe://ransomeye.test/core/core-01".into(),
        key_version: 3,
        wrapped: vec![0x77; 80].into(),
    };
    let sealed = Sealed {
        epoch_id: vec![1; 16].into(),
        commitment: vec![2; 32].into(),
        counter: 0,
        ciphertext: b"ciphertext and its tag".to_vec().into(),
        wrapped_keys: vec![wrapped],
    };
    let comment = "the signature is over what is sealed; opening it is another matter";
    vectors.accept("sealed", comment, agent, &agent.envelope("telemetry", Payload::Sealed(sealed)))
}

fn directed(vectors: &mut Vectors<'_>, agent: &Sender<'_>, core: &Sender<'_>) -> Result<()> {
    let to = |sender: &Sender<'_>, subject: &str, destination: &str, payload: Payload| Envelope {
        subject: subject.into(),
        destination: format!("spiffe://ransomeye.test/{destination}"),
        expires_at: NOW + 10_000,
        ..sender.envelope("", payload)
    };
    let kill = Payload::Command(CommandRequest { command_type: 1, target_pid: 4242 });
    let request = to(core, "ransomeye.inbox.agent.agent-01.command.core.core-01", "agent/agent-01", kill);
    vectors.accept("command", "directed, with its destination", core, &request)?;
    let digest = sha256(&request.encode_to_vec()).to_vec();
    let subject = |token: &str| format!("ransomeye.inbox.core.core-01.{token}.agent.agent-01");
    let result = Payload::CommandResult(CommandResult { status: 1, detail: "killed".into() });
    let mut reply = to(agent, &subject("result"), "core/core-01", result);
    reply.correlation_id = digest.clone().into();
    let comment = "answers the vector `command`: correlation_id is the SHA-256 of its prefix";
    vectors.accept("command_result", comment, agent, &reply)?;
    let error = Payload::Error(Error { code: 1, message: "no such process".into() });
    let mut reply = to(agent, &subject("error"), "core/core-01", error);
    reply.correlation_id = digest.into();
    vectors.accept("error", "answers the vector `command`", agent, &reply)
}

fn fields(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    let full = Envelope {
        expires_at: NOW + 60_000,
        sequence: u64::MAX,
        priority: 10,
        tags: vec!["site:north".into(), "canary".into()],
        trace_context: Some(TraceContext {
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            tracestate: "vendor=value".into(),
        }),
        ..agent.telemetry()
    };
    vectors.accept("every routing field", "expiry, priority, tags, trace context", agent, &full)?;
    let inline = Envelope { bundle: agent.bundle.clone().into(), ..agent.telemetry() };
    vectors.accept("inline bundle", "it is the one that the key id names", agent, &inline)?;
    let full = Envelope { bundle: agent.bundle.clone().into(), ..full };
    vectors.accept("every field and the bundle", "the most that an event carries", agent, &full)?;
    let root = Envelope { subject: "acme.prod.events.telemetry.agent.agent-01".into(), ..agent.telemetry() };
    vectors.accept("another root", "verification reads the last two tokens alone", agent, &root)?;
    let expired = Envelope { expires_at: NOW - HOUR, ..agent.telemetry() };
    let comment = "expiry is no matter of the signature: a receiver refuses it afterwards";
    vectors.accept("an expired message", comment, agent, &expired)?;
    let unknown = [agent.telemetry().encode_to_vec(), number(1_000, 7)].concat();
    let proof = Proof {
        principal: agent.component.principal.clone(),
        key_id: Bytes(agent.key_id.to_vec()),
        digest: Bytes(sha256(&unknown).to_vec()),
        subject: agent.telemetry().subject,
    };
    let message = agent.component.sign(&unknown, &agent.key_id)?;
    vectors.add(
        "a later version's field",
        "signed and ignored",
        message,
        agent.name,
        at(NOW),
        Outcome::Accepted(proof),
    );
    Ok(())
}

/// A batch of heartbeats. Times and expiries are the members' own.
fn batch(count: usize) -> Payload {
    let member = |index: usize| BatchMember {
        message_id: format!("01a0f1a2-0000-7000-8000-{index:012x}"),
        timestamp_utc: NOW - 1_000 + index as i64,
        expires_at: if index.is_multiple_of(2) { 0 } else { NOW + 60_000 },
        payload: Some(batch_member::Payload::Heartbeat(heartbeat(index as u64))),
        ..BatchMember::default()
    };
    Payload::Batch(Batch { members: (0..count).map(member).collect() })
}

fn batches(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    for count in [1, 2, 256] {
        let comment = "one signature for all members";
        vectors.accept(&format!("batch of {count}"), comment, agent, &agent.envelope("heartbeat", batch(count)))?;
    }
    let mut inline = agent.envelope("heartbeat", batch(3));
    inline.bundle = agent.bundle.clone().into();
    vectors.accept("batch with a bundle", "the bundle stands behind the members", agent, &inline)?;
    let mut old = agent.envelope("heartbeat", batch(2));
    if let Some(Payload::Batch(batch)) = &mut old.payload {
        batch.members[0].timestamp_utc = 1;
        batch.members[1].expires_at = NOW - 1;
    }
    let comment = "a member's times are not compared with the key's: a receiver refuses it alone, later";
    vectors.accept("batch with stale members", comment, agent, &old)?;

    let three = agent.sign(&agent.envelope("heartbeat", batch(3)))?;
    let trailer = &three[three.len() - TRAILER..];
    let two = [&agent.envelope("heartbeat", batch(2)).encode_to_vec(), trailer].concat();
    let comment = "the last member was taken away";
    vectors.refuse("a truncated batch", comment, agent, two, "Signature.Mismatch");
    let mut swapped = agent.envelope("heartbeat", batch(3));
    if let Some(Payload::Batch(batch)) = &mut swapped.payload {
        batch.members.swap(0, 1);
    }
    let swapped = [&swapped.encode_to_vec(), trailer].concat();
    vectors.refuse("members in another order", "two changed places", agent, swapped, "Signature.Mismatch");
    Ok(())
}

fn schemes(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    for (name, leaf) in [("p256-01", Signer::p256()), ("p384-01", Signer::p384()), ("rsa-01", Signer::rsa())] {
        let component = world.component(&format!("spiffe://ransomeye.test/agent/{name}"), 7, leaf)?;
        let sender = vectors.sender(name, component)?;
        let envelope = Envelope { bundle: sender.bundle.clone().into(), ..sender.telemetry() };
        vectors.accept(&format!("signed by {name}"), "with a certificate of that kind", &sender, &envelope)?;
    }
    Ok(())
}

fn forms(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    let good = agent.sign(&agent.telemetry())?;
    let prefix = &good[..good.len() - TRAILER];
    vectors.refuse("unsigned", "the prefix alone", agent, prefix.to_vec(), "Trailer");
    vectors.refuse("no bytes", "there is no message", agent, Vec::new(), "Trailer");
    let twice = [&good[..], &good[good.len() - TRAILER..]].concat();
    let name = "two trailers";
    let outcome = refused("Scan.SecondTrailer", Some("envelope"));
    vectors.add(name, "the second is part of the prefix", twice, agent.name, at(NOW), outcome);
    let bad = [prefix, &prefix[..38]].concat();
    let message = agent.component.sign(&bad, &agent.key_id)?;
    let outcome = refused("Scan.OutOfOrder", Some("envelope"));
    let comment = "a decoder would take the second message_id, a checker perhaps the first";
    vectors.add("signed and not canonical", comment, message, agent.name, at(NOW), outcome);
    Ok(())
}

fn alterations(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    let good = agent.sign(&agent.telemetry())?;
    let trailer = good[good.len() - TRAILER..].to_vec();
    let telemetry = agent.telemetry();
    let changed: [(&str, Envelope); 9] = [
        ("message_id", Envelope { message_id: "01a0f1a2-0000-7000-8000-000000000002".into(), ..telemetry.clone() }),
        ("timestamp_utc", Envelope { timestamp_utc: NOW + 1, ..telemetry.clone() }),
        ("subject", Envelope { subject: "ransomeye.events.alert.agent.agent-01".into(), ..telemetry.clone() }),
        ("destination", Envelope { destination: "spiffe://ransomeye.test/core/core-01".into(), ..telemetry.clone() }),
        ("expires_at", Envelope { expires_at: NOW + 1, ..telemetry.clone() }),
        ("correlation_id", Envelope { correlation_id: vec![7; 32].into(), ..telemetry.clone() }),
        ("sequence", Envelope { sequence: 2, ..telemetry.clone() }),
        ("tags", Envelope { tags: vec!["added".into()], ..telemetry.clone() }),
        ("payload", Envelope { payload: Some(TelemetryEvent::default().into()), ..telemetry.clone() }),
    ];
    for (name, envelope) in changed {
        let message = [envelope.encode_to_vec(), trailer.clone()].concat();
        let comment = "the prefix was changed after it was signed";
        vectors.refuse(&format!("altered {name}"), comment, agent, message, "Signature.Mismatch");
    }
    let added = [&good[..good.len() - TRAILER], &number(1_000, 7), &trailer].concat();
    vectors.refuse(
        "a field added",
        "it would be ignored, and is signed all the same",
        agent,
        added,
        "Signature.Mismatch",
    );
    let bundled = Envelope { bundle: agent.bundle.clone().into(), ..telemetry.clone() };
    let bundled = [bundled.encode_to_vec(), trailer].concat();
    vectors.refuse("a bundle added", "even the right one", agent, bundled, "Signature.Mismatch");
    let other = agent.sign(&Envelope { sequence: 2, ..telemetry })?;
    let spliced = [&good[..good.len() - TRAILER], &other[other.len() - TRAILER..]].concat();
    vectors.refuse("a swapped trailer", "of another message under the same key", agent, spliced, "Signature.Mismatch");
    for (name, place) in [("R", good.len() - 64), ("S", good.len() - 32)] {
        let mut altered = good.clone();
        altered[place] ^= 1;
        vectors.refuse(&format!("altered {name}"), "one bit", agent, altered, "Signature.Mismatch");
    }
    Ok(())
}

fn domains(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    let prefix = agent.telemetry().encode_to_vec();
    let (key_id, digest) = (agent.key_id, sha256(&prefix));
    for (name, signed) in [
        ("no zero byte", [b"ransomeye.v1 envelope", &key_id[..], &digest].concat()),
        ("another version", [b"ransomeye.v2 envelope\0", &key_id[..], &digest].concat()),
        ("the context of possession", [b"ransomeye.v1 key possession\0", &key_id[..], &digest].concat()),
        ("no context", [&key_id[..], &digest].concat()),
        ("no key id", [ENVELOPE_CONTEXT, &digest].concat()),
        ("another key id", [ENVELOPE_CONTEXT, &[0; 32], &digest].concat()),
        ("the prefix undigested", [ENVELOPE_CONTEXT, &key_id, &prefix].concat()),
        ("digest and key id swapped", [ENVELOPE_CONTEXT, &digest, &key_id].concat()),
        ("the prefix alone", prefix.clone()),
    ] {
        let message = agent.component.sign_over(&prefix, &key_id, &signed)?;
        let name = format!("signed over {name}");
        vectors.refuse(&name, "the wrong domain separation", agent, message, "Signature.Mismatch");
    }
    Ok(())
}

fn strictness(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    let prefix = agent.telemetry().encode_to_vec();
    let signed = [ENVELOPE_CONTEXT, &agent.key_id, &sha256(&prefix)].concat();
    let public_key = agent.component.session.ed25519_public();
    let low = scalar::signature_with_neutral_r([7; 32], &public_key, &signed);
    let comment = "R is the neutral point, and the equation holds: a lenient verifier accepts it";
    let message = with_trailer(&prefix, &agent.key_id, &low);
    vectors.refuse("R of small order", comment, agent, message, "Signature.SmallOrder");
    let good = agent.component.session.sign(&signed, vectors.world.recorder)?;
    let message = with_trailer(&prefix, &agent.key_id, &scalar::with_larger_s(&good));
    let comment = "S plus the order of the base point: RFC 8032, section 5.1.7, refuses it";
    vectors.refuse("S that is not reduced", comment, agent, message, "Signature.Mismatch");
    for (name, byte) in [("R that is not canonical", 0xff), ("R of p", 0xed)] {
        let mut signature = good.clone();
        signature[..32].fill(0xff);
        (signature[0], signature[31]) = (byte, 0x7f);
        let reason = if byte == 0xed { "Signature.SmallOrder" } else { "Signature.Mismatch" };
        let message = with_trailer(&prefix, &agent.key_id, &signature);
        vectors.refuse(name, "an encoding of R that no signer writes", agent, message, reason);
    }
    let message = with_trailer(&prefix, &agent.key_id, &[0; 64]);
    vectors.refuse("zeros", "R has y = 0, which is of order 4", agent, message, "Signature.SmallOrder");
    Ok(())
}

fn keys<'a>(vectors: &mut Vectors<'a>, agent: &Sender<'_>) -> Result<()> {
    let world = vectors.world;
    let other = world.component("spiffe://ransomeye.test/agent/agent-02", 8, Signer::ed25519([0x3e; 32]))?;
    let other = vectors.sender("agent-02", other)?;
    let again = vectors.sender_with("agent-01 again", world.agent()?, |it| it.verify_until += 1)?;
    let good = agent.sign(&agent.telemetry())?;
    vectors.refuse("another key id", "the receiver holds the bundle of another key", &other, good.clone(), "OtherKey");
    let prefix = agent.telemetry().encode_to_vec();
    let claimed = other.component.sign(&prefix, &agent.key_id)?;
    let comment = "another component signs under the agent's key id";
    vectors.refuse("somebody else's signature", comment, agent, claimed, "Signature.Mismatch");
    let moved = with_trailer(&prefix, &again.key_id, &good[good.len() - 64..]);
    let comment = "the same key in a second bundle: a signature holds under one of them";
    vectors.refuse("moved to another bundle", comment, &again, moved, "Signature.Mismatch");
    vectors.accept("signed under the second bundle", "the same key, the other key id", &again, &again.telemetry())?;
    for (name, bundle) in [("another's bundle", other.bundle.clone()), ("no bundle at all", vec![1])] {
        let envelope = Envelope { bundle: bundle.into(), ..agent.telemetry() };
        let comment = "what comes along is not what the key id names";
        vectors.refuse(name, comment, agent, agent.sign(&envelope)?, "ForeignBundle");
    }
    let message = agent.sign(&agent.telemetry())?;
    let comment = "role and component are the subject's, the trust domain is not the receiver's";
    vectors.refuse("another trust domain", comment, agent, message, "ForeignTrustDomain");
    if let Some(last) = vectors.all.last_mut() {
        last.trust_domain = "elsewhere.test".into();
    }
    Ok(())
}

fn senders(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    for (name, subject) in [
        ("another component", "ransomeye.events.telemetry.agent.agent-02"),
        ("another role", "ransomeye.events.telemetry.core.agent-01"),
        ("a token more", "ransomeye.events.telemetry.agent.agent-01.x"),
        ("a dot more", "ransomeye.events.telemetry.agent.agent-01."),
        ("one token", "agent-01"),
        ("a role that ends alike", "ransomeye.events.telemetry.xagent.agent-01"),
        ("capitals", "ransomeye.events.telemetry.agent.Agent-01"),
    ] {
        let message = agent.sign(&Envelope { subject: subject.into(), ..agent.telemetry() })?;
        let name = format!("subject with {name}");
        vectors.refuse(&name, "the last two tokens are not the signer's", agent, message, "SubjectSender");
    }
    for (name, source) in
        [("another", "agent-02"), ("a role and a", "agent/agent-01"), ("a capital in the", "Agent-01")]
    {
        let message = agent.sign(&Envelope { source_component: source.into(), ..agent.telemetry() })?;
        let name = format!("{name} source_component");
        vectors.refuse(&name, "it is the signer's component, exactly", agent, message, "SourceComponent");
    }
    Ok(())
}

fn times(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    let (not_before, sign_until, verify_until) = (NOW, NOW + 24 * HOUR, NOW + 48 * HOUR);
    let made_at = |timestamp_utc| Envelope { timestamp_utc, ..agent.telemetry() };
    let offline = Time { now: None, skew: SKEW.to_string() };
    let first = made_at(not_before - SKEW);
    vectors.accept("as early as it may be made", "not_before less the skew", agent, &first)?;
    let last = made_at(sign_until + SKEW);
    vectors.accept_at("as late as it may be made", "sign_until and the skew", agent, &last, at(sign_until))?;
    let comment = "verify_until itself, without a skew";
    vectors.accept_at("as late as it may be verified", comment, agent, &agent.telemetry(), at(verify_until))?;
    let comment = "not_before less the skew";
    vectors.accept_at("as early as it may be verified", comment, agent, &first, at(not_before - SKEW))?;
    vectors.accept_at("evidence", "years later, there is no now", agent, &agent.telemetry(), offline.clone())?;
    let narrow = Time { now: Some(NOW.to_string()), skew: "0".into() };
    vectors.accept_at("no skew at all", "the clocks agree", agent, &agent.telemetry(), narrow.clone())?;
    for (name, timestamp, clock, reason) in [
        ("made too early", not_before - SKEW - 1, at(NOW), "OlderThanKey"),
        ("made too early without skew", not_before - 1, narrow, "OlderThanKey"),
        ("made in 1970", 1, at(NOW), "OlderThanKey"),
        ("made too late", sign_until + SKEW + 1, at(sign_until), "SignedTooLate"),
        ("made at the end of time", i64::MAX, at(NOW), "SignedTooLate"),
        ("evidence made too late", sign_until + SKEW + 1, offline, "SignedTooLate"),
        ("verified too late", NOW, at(verify_until + 1), "KeyExpired"),
        ("verified too early", NOW, at(not_before - SKEW - 1), "KeyNotYetValid"),
        ("verified in 1970", NOW, at(0), "KeyNotYetValid"),
    ] {
        let message = agent.sign(&made_at(timestamp))?;
        vectors.add(name, "outside of the key's time", message, agent.name, clock, refused(reason, None));
    }
    Ok(())
}

/// Where two things are wrong, the first in the order of checks is the reason.
fn orders(vectors: &mut Vectors<'_>, agent: &Sender<'_>) -> Result<()> {
    let comment = "the first check that fails gives the reason";
    let mut late = Envelope { timestamp_utc: 1, bundle: vec![1].into(), ..agent.telemetry() };
    let mut message = agent.sign(&late)?;
    vectors.refuse("foreign bundle and bad time", comment, agent, message.clone(), "ForeignBundle");
    message.truncate(message.len() - TRAILER);
    vectors.refuse("no trailer and more", comment, agent, message, "Trailer");
    late.bundle = Vec::new().into();
    let mut message = agent.sign(&late)?;
    *message.last_mut().expect("bytes") ^= 1;
    vectors.refuse("bad time and bad signature", comment, agent, message, "OlderThanKey");
    let elsewhere = Envelope { subject: "ransomeye.events.telemetry.agent.agent-02".into(), ..agent.telemetry() };
    let mut message = agent.sign(&elsewhere)?;
    *message.last_mut().expect("bytes") ^= 1;
    vectors.refuse("bad signature and wrong subject", comment, agent, message, "Signature.Mismatch");
    let both = Envelope { source_component: "agent-02".into(), ..elsewhere };
    vectors.refuse("wrong subject and source", comment, agent, agent.sign(&both)?, "SubjectSender");
    Ok(())
}
