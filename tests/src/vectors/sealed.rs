//! Messages that are sealed: what each recipient opens, and everything that it refuses.

mod references;
mod refusals;

use std::collections::BTreeMap;

use anyhow::Result;
use bus_proto::prost::Message as _;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Compressed, Envelope, Sealed, WrappedKey};

use super::epochs::{Bound, Epoch, OwnSealingKey, Recipient};
use super::file::{Bytes, File, HeldBundle, Opened, Outcome, OwnKey, Said, SealedStep, SealedVector};
use super::form::{bytes, double, number, refused};
use super::identities::{Component, NOW, TRUST_DOMAIN, World, at};
use super::scans::{ID, heartbeat, member};
use super::sha256;
use super::signer::Signer;

const CORE: &str = "spiffe://ransomeye.test/core/core-01";
const OTHER: &str = "spiffe://ransomeye.test/core/core-02";
const STRANGER: &str = "spiffe://ransomeye.test/core/core-03";
const EVENTS: &str = "ransomeye.events.telemetry.agent.agent-01";
const INBOX: &str = "ransomeye.inbox.core.core-01.alert.agent.agent-01";

/// The private sealing key of a receiver.
fn key_of(receiver: &str, version: u64) -> OwnSealingKey {
    OwnSealingKey::new(sha256(format!("{receiver} {version}").as_bytes()))
}

fn recipient(spiffe_id: &str, version: u64) -> Recipient {
    Recipient { spiffe_id: spiffe_id.into(), version, key: key_of(spiffe_id, version) }
}

/// A component whose bundle a receiver holds.
struct Sender<'a> {
    name: &'static str,
    component: Component<'a>,
    key_id: [u8; 32],
}

impl Sender<'_> {
    /// An epoch of this sender.
    fn epoch(&self, number: u8, recipients: &[Recipient]) -> Epoch {
        let secret = sha256(&[&self.key_id[..], &[number]].concat());
        Epoch { key_id: self.key_id, epoch_id: [number; 16], secret, recipients: recipients.to_vec() }
    }

    /// Signs an envelope: a step whose outcome is still open.
    fn sign(&self, envelope: &Envelope) -> Result<Signed> {
        let message = self.component.sign(&envelope.encode_to_vec(), &self.key_id)?;
        Ok(Signed { message, bundle: self.name })
    }
}

struct Signed {
    message: Vec<u8>,
    bundle: &'static str,
}

impl Signed {
    fn then(&self, outcome: Outcome<Opened>) -> SealedStep {
        SealedStep { message: Bytes(self.message.clone()), bundle: self.bundle.into(), outcome }
    }

    fn refused(&self, reason: &str) -> SealedStep {
        self.then(refused(reason, None))
    }
}

/// An envelope of `agent-01` without a payload.
fn envelope(subject: &str, sequence: u64) -> Envelope {
    let destination = if subject == INBOX { CORE } else { "" };
    Envelope {
        message_id: ID.into(),
        source_component: "agent-01".into(),
        timestamp_utc: NOW,
        subject: subject.into(),
        destination: destination.into(),
        sequence,
        ..Envelope::default()
    }
}

/// What a content of an envelope is bound to.
fn bound(envelope: &Envelope, epoch: &Epoch, part: u8) -> Bound {
    Bound {
        part,
        key_id: epoch.key_id,
        recipients_digest: epoch.recipients_digest(),
        sequence: envelope.sequence,
        expires_at: envelope.expires_at,
        sender: "spiffe://ransomeye.test/agent/agent-01".into(),
        subject: envelope.subject.clone(),
        message_type: envelope.subject.rsplit('.').nth(2).unwrap_or_default().into(),
        message_id: envelope.message_id.clone(),
    }
}

/// What stands in an envelope of a ciphertext.
fn sealed_with(epoch: &Epoch, counter: u64, with_keys: bool, ciphertext: Vec<u8>) -> Sealed {
    let wrapped_keys = epoch.recipients.iter().enumerate().map(|(place, recipient)| WrappedKey {
        recipient: recipient.spiffe_id.clone(),
        key_version: recipient.version,
        wrapped: epoch.wrap(place).into(),
    });
    Sealed {
        epoch_id: epoch.epoch_id.to_vec().into(),
        commitment: epoch.derive().commitment.into(),
        counter,
        ciphertext: ciphertext.into(),
        wrapped_keys: if with_keys { wrapped_keys.collect() } else { Vec::new() },
    }
}

/// Seals a content for an envelope.
fn seal(epoch: &Epoch, envelope: &Envelope, counter: u64, with_keys: bool, content: &[u8]) -> Sealed {
    let ciphertext = epoch.seal(counter, &bound(envelope, epoch, 1).data(), content);
    sealed_with(epoch, counter, with_keys, ciphertext)
}

fn with_sealed(envelope: Envelope, sealed: Sealed) -> Envelope {
    Envelope { payload: Some(Payload::Sealed(sealed)), ..envelope }
}

/// An envelope whose content is sealed under counter 0, with the wrapped keys.
fn sealed_envelope(epoch: &Epoch, subject: &str, content: &[u8]) -> Envelope {
    let envelope = envelope(subject, 1);
    let sealed = seal(epoch, &envelope, 0, true, content);
    with_sealed(envelope, sealed)
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn telemetry() -> Vec<u8> {
    bytes(10, &[double(1, 12.5), double(2, 50.0)].concat())
}

fn telemetry_said() -> Said {
    Said { field: 10, values: values(&[("cpu_usage", "12.5"), ("ram_usage", "50.0")]) }
}

fn alert() -> Vec<u8> {
    bytes(11, &[bytes(1, b"ransomware.mass-rename"), number(2, 5)].concat())
}

fn alert_said() -> Said {
    let pairs = [("threat_type", "ransomware.mass-rename"), ("severity", "5"), ("description", "")];
    Said { field: 11, values: values(&pairs) }
}

fn opened(content: Option<Vec<u8>>, messages: Vec<Said>) -> Outcome<Opened> {
    let principal = "spiffe://ransomeye.test/agent/agent-01".into();
    Outcome::Accepted(Opened { principal, content: content.map(Bytes), messages, references: None })
}

struct Vectors<'a> {
    agent: Sender<'a>,
    thief: Sender<'a>,
    all: Vec<SealedVector>,
}

impl Vectors<'_> {
    /// What happens at a receiver that has the sealing keys of versions 1 and 2.
    fn add(&mut self, receiver: &str, name: &str, comment: &str, steps: Vec<SealedStep>) {
        let keys = [1, 2].map(|version: u64| OwnKey {
            version: version.to_string(),
            private_key: Bytes(key_of(receiver, version).private.to_vec()),
        });
        self.all.push(SealedVector {
            name: name.into(),
            comment: comment.into(),
            receiver: receiver.into(),
            keys: keys.to_vec(),
            trust_domain: TRUST_DOMAIN.into(),
            clock: at(NOW),
            steps,
        });
    }

    /// One message of the agent at the core.
    fn add_one(&mut self, name: &str, comment: &str, envelope: &Envelope, outcome: Outcome<Opened>) -> Result<()> {
        let step = self.agent.sign(envelope)?.then(outcome);
        self.add(CORE, name, comment, vec![step]);
        Ok(())
    }

    fn refuse(&mut self, name: &str, comment: &str, envelope: &Envelope, reason: &str) -> Result<()> {
        self.add_one(name, comment, envelope, refused(reason, None))
    }

    /// One message whose content is refused at a place, though everything around it is right.
    fn refuse_content(&mut self, name: &str, comment: &str, content: &[u8], reason: &str, place: &str) -> Result<()> {
        let envelope = sealed_envelope(&self.for_core(), EVENTS, content);
        let place = Some(place).filter(|place| !place.is_empty());
        self.add_one(name, comment, &envelope, refused(reason, place))
    }

    fn for_core(&self) -> Epoch {
        self.agent.epoch(1, &[recipient(CORE, 2)])
    }

    fn for_both(&self) -> Epoch {
        self.agent.epoch(2, &[recipient(CORE, 2), recipient(OTHER, 1)])
    }
}

pub(crate) fn file(world: &World<'_>) -> Result<File<SealedVector>> {
    let mut bundles = BTreeMap::new();
    let mut sender = |name: &'static str, component: Component<'_>| -> Result<[u8; 32]> {
        let bundle = component.bundle()?;
        let key_id = sha256(&bundle);
        let (bundle, trust_domain) = (Bytes(bundle), TRUST_DOMAIN.into());
        bundles.insert(name.into(), HeldBundle { bundle, roots: world.roots(), trust_domain });
        Ok(key_id)
    };
    let thief = || world.component("spiffe://ransomeye.test/agent/agent-02", 8, Signer::ed25519([0x3e; 32]));
    let (agent_key, thief_key) = (sender("agent-01", world.agent()?)?, sender("agent-02", thief()?)?);
    let agent = Sender { name: "agent-01", component: world.agent()?, key_id: agent_key };
    let thief = Sender { name: "agent-02", component: thief()?, key_id: thief_key };
    let mut vectors = Vectors { agent, thief, all: Vec::new() };
    accepted(&mut vectors)?;
    contents(&mut vectors)?;
    refusals::recipients(&mut vectors)?;
    refusals::associated_data(&mut vectors)?;
    refusals::altered(&mut vectors)?;
    refusals::replayed(&mut vectors)?;
    sequences(&mut vectors)?;
    references::accepted(&mut vectors)?;
    references::refused(&mut vectors)?;
    Ok(File {
        about: "Messages that one receiver verifies and opens, one after the other. It has private sealing keys of two \
                versions, and has met no epoch yet; freshness, policy and replay are not part of these. `content` is what was \
                sealed."
            .into(),
        bundles,
        vectors: vectors.all,
    })
}

fn accepted(vectors: &mut Vectors<'_>) -> Result<()> {
    let plain = Envelope {
        payload: Some(Payload::Heartbeat(bus_proto::v1::Heartbeat::default())),
        ..envelope("ransomeye.events.heartbeat.agent.agent-01", 1)
    };
    let said = Said { field: 13, values: values(&[("uptime", "0"), ("version", "")]) };
    vectors.add_one("not sealed", "whether it has to be is for the policy to say", &plain, opened(None, vec![said]))?;
    let one = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
    vectors.add_one("one recipient", "an event", &one, opened(Some(telemetry()), vec![telemetry_said()]))?;
    let directed = sealed_envelope(&vectors.for_core(), INBOX, &alert());
    vectors.add_one("directed", "to the one recipient", &directed, opened(Some(alert()), vec![alert_said()]))?;
    let former = vectors.agent.epoch(3, &[recipient(CORE, 1)]);
    let former = sealed_envelope(&former, INBOX, &alert());
    let comment = "the former key opens what was sealed to it";
    vectors.add_one("an earlier version of the key", comment, &former, opened(Some(alert()), vec![alert_said()]))?;
    let both = vectors.agent.sign(&sealed_envelope(&vectors.for_both(), EVENTS, &telemetry()))?;
    for (receiver, name) in [(CORE, "the first of two recipients"), (OTHER, "the second of two recipients")] {
        let step = both.then(opened(Some(telemetry()), vec![telemetry_said()]));
        vectors.add(receiver, name, "the same message", vec![step]);
    }
    let many: Vec<Recipient> = (0..20).map(|index| recipient(&format!("{}-{index:02}", &CORE[..31]), 1)).collect();
    let mut recipients = [&many[..], &[recipient(OTHER, 2)]].concat();
    recipients.sort_by(|one, other| one.spiffe_id.cmp(&other.spiffe_id));
    recipients.dedup_by(|one, other| one.spiffe_id == other.spiffe_id);
    let crowd = vectors.agent.sign(&sealed_envelope(&vectors.agent.epoch(4, &recipients), EVENTS, &telemetry()))?;
    let step = crowd.then(opened(Some(telemetry()), vec![telemetry_said()]));
    vectors.add(OTHER, "one of many recipients", "names are compared byte by byte", vec![step]);
    let epoch = vectors.for_core();
    let full =
        Envelope { expires_at: NOW + 60_000, priority: 9, tags: vec!["urgent".into()], ..envelope(INBOX, u64::MAX) };
    let sealed = seal(&epoch, &full, u64::from(u32::MAX), true, &alert());
    let comment = "the last counter, the last sequence, an expiry; priority and tags are signed, and bound to nothing";
    let full = with_sealed(full, sealed);
    vectors.add_one("every bound", comment, &full, opened(Some(alert()), vec![alert_said()]))
}

/// What may be in a content, and what may not.
fn contents(vectors: &mut Vectors<'_>) -> Result<()> {
    let beats = "ransomeye.events.heartbeat.agent.agent-01";
    let beat = Said { field: 13, values: values(&[("uptime", "86400"), ("version", "0.1.0")]) };
    let batch = bytes(18, &bytes(1, &member(13, &heartbeat().concat())).repeat(3));
    let sealed = sealed_envelope(&vectors.for_core(), beats, &batch);
    let comment = "the members are sealed together";
    vectors.add_one("a batch", comment, &sealed, opened(Some(batch.clone()), vec![beat.clone(); 3]))?;
    // The content as raw blocks of one frame: what compressors do is not part of this.
    let squeezed = |content: &[u8]| {
        let (length, header) = (u32::try_from(content.len()).expect("short"), (content.len() << 3 | 1).to_le_bytes());
        let frame = [&b"\x28\xb5\x2f\xfd\xa0"[..], &length.to_le_bytes(), &header[..3], content].concat();
        Compressed { length, frame: frame.into() }
    };
    let compressed = bytes(19, &squeezed(&batch).encode_to_vec());
    let sealed = sealed_envelope(&vectors.for_core(), beats, &compressed);
    let comment = "gathered, compressed, sealed, signed: in this order";
    vectors.add_one("a compressed batch", comment, &sealed, opened(Some(compressed), vec![beat; 3]))?;
    let compressed = bytes(19, &squeezed(&telemetry()).encode_to_vec());
    let sealed = sealed_envelope(&vectors.for_core(), EVENTS, &compressed);
    let said = opened(Some(compressed), vec![telemetry_said()]);
    vectors.add_one("a compressed payload", "alone", &sealed, said)?;
    let plain = Envelope { payload: Some(Payload::Compressed(squeezed(&telemetry()))), ..envelope(EVENTS, 1) };
    let said = opened(None, vec![telemetry_said()]);
    vectors.add_one("compressed and not sealed", "the same rules hold for what it holds", &plain, said)?;
    let custom = bytes(16, &[bytes(1, b"acme.v1.Inventory"), bytes(2, &[0xff, 0x80, 0])].concat());
    let sealed = sealed_envelope(&vectors.for_core(), "ransomeye.events.x-inventory.agent.agent-01", &custom);
    let said = Said { field: 16, values: values(&[("type_name", "acme.v1.Inventory"), ("value", "ff8000")]) };
    vectors.add_one("a type of one's own", "opaque", &sealed, opened(Some(custom), vec![said]))?;

    let inside = "sealed and signed by one who may do both";
    vectors.refuse_content("an alert inside of telemetry", inside, &alert(), "TypeMismatch", "")?;
    vectors.refuse_content("a batch of heartbeats inside of telemetry", inside, &batch, "TypeMismatch", "")?;
    let compressed = |content: &[u8]| bytes(19, &squeezed(content).encode_to_vec());
    let name = "a compressed alert inside of telemetry";
    vectors.refuse_content(name, inside, &compressed(&alert()), "TypeMismatch", "")?;
    let nested = bytes(17, &[]);
    vectors.refuse_content("sealed twice", inside, &nested, "Scan.NestedForm", "content")?;
    let twice = compressed(&compressed(&telemetry()));
    vectors.refuse_content("compressed twice", inside, &twice, "Scan.NestedForm", "content")?;
    vectors.refuse_content(
        "sealed inside of compressed",
        inside,
        &compressed(&nested),
        "Scan.NestedForm",
        "content",
    )?;
    let two = telemetry().repeat(2);
    vectors.refuse_content("two payloads", inside, &two, "Scan.SeveralPayloads", "content")?;
    let payload = [telemetry(), number(1_000, 1)].concat();
    let comment = "a later version's field, where none may be";
    vectors.refuse_content("an unknown field beside the payload", comment, &payload, "Scan.UnknownField", "content")?;
    let zero = bytes(10, &double(1, 0.0));
    vectors.refuse_content("a default in the payload", inside, &zero, "Scan.ExplicitDefault", "payload")?;
    let mixed = bytes(18, &[bytes(1, &member(10, &[])), bytes(1, &member(13, &[]))].concat());
    vectors.refuse_content("a mixed batch", inside, &mixed, "Scan.MixedBatch", "member 1")?;
    vectors.refuse_content("one byte", "as short as it may be", &[0x80], "Scan.Truncated", "content")?;
    let mut bomb = squeezed(&telemetry());
    bomb.length -= 1;
    let bomb = bytes(19, &bomb.encode_to_vec());
    vectors.refuse_content("another length beside the frame", inside, &bomb, "Compression.Length", "")?;
    let none = bytes(19, &Compressed { length: 7, frame: b"nothing".to_vec().into() }.encode_to_vec());
    vectors.refuse_content("no frame", inside, &none, "Compression.NotOneFrame", "")
}

/// Several messages at one receiver.
fn sequences(vectors: &mut Vectors<'_>) -> Result<()> {
    let epoch = vectors.for_both();
    let nth = |sequence: u64, with_keys: bool| {
        let envelope = envelope(EVENTS, sequence);
        let sealed = seal(&epoch, &envelope, sequence - 1, with_keys, &telemetry());
        with_sealed(envelope, sealed)
    };
    let good = |signed: &Signed| signed.then(opened(Some(telemetry()), vec![telemetry_said()]));
    let sign = |vectors: &Vectors<'_>, envelope: &Envelope| vectors.agent.sign(envelope);
    let with_keys = sign(vectors, &nth(1, true))?;
    let without: Vec<Signed> = [2, 3].iter().map(|it| sign(vectors, &nth(*it, false))).collect::<Result<_>>()?;
    let steps = vec![without[0].refused("UnknownEpoch"), good(&with_keys), good(&without[0]), good(&without[1])];
    let comment =
        "wrapped keys come with the first message, and then from time to time: whoever comes late waits for them";
    vectors.add(CORE, "a late joiner", comment, steps);
    let again = sign(vectors, &nth(4, true))?;
    let steps = vec![good(&with_keys), good(&without[1]), good(&again), good(&without[0])];
    vectors.add(OTHER, "wrapped keys once more", "counters need not ascend: what was lost is not waited for", steps);
    let steps = vec![with_keys.refused("NotARecipient"), without[0].refused("UnknownEpoch")];
    vectors.add(STRANGER, "a stranger", "without wrapped keys, it cannot know that it is no recipient", steps);

    let change = |mut envelope: Envelope, change: fn(&mut Sealed)| {
        if let Some(Payload::Sealed(sealed)) = &mut envelope.payload {
            change(sealed);
        }
        envelope
    };
    for (name, changed, with_keys_of_two) in [
        ("another commitment later", change(nth(2, false), |it| it.commitment = vec![9; 32].into()), false),
        ("fewer recipients later", change(nth(2, true), |it| it.wrapped_keys.truncate(1)), true),
        ("another version later", change(nth(2, true), |it| it.wrapped_keys[1].key_version = 2), true),
    ] {
        let comment = if with_keys_of_two {
            "the recipients of an epoch stay the same: the epoch that is held is compared"
        } else {
            "the commitment of an epoch stays the same"
        };
        let steps = vec![good(&with_keys), sign(vectors, &changed)?.refused("Opening.OtherEpoch"), good(&without[1])];
        vectors.add(CORE, name, comment, steps);
    }
    let mut second = epoch.clone();
    second.secret = [0x67; 32];
    let envelope = envelope(EVENTS, 2);
    let sealed = seal(&second, &envelope, 1, true, &telemetry());
    let other = sign(vectors, &with_sealed(envelope, sealed))?;
    let comment = "one id, two secrets: the first that was opened stays";
    let steps = vec![good(&with_keys), other.refused("Opening.OtherEpoch"), good(&without[1])];
    vectors.add(CORE, "a second epoch of one id", comment, steps);
    let steps = vec![good(&other), with_keys.refused("Opening.OtherEpoch")];
    vectors.add(CORE, "a second epoch of one id, first", "the other way around", steps);
    Ok(())
}
