//! What a broker can make of messages without the keys that signed them, and some of it with keys of its own.

use bus_crypto::trailer::{self, TRAILER_LEN};
use bus_crypto::{KeyId, keys};
use bus_proto::AnyPayload;
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::prost::encoding::{WireType, encode_key, encode_varint};
use bus_proto::v1::{Authentication, BatchMember, CommandResult, Envelope, TelemetryEvent, batch_member};

use super::reasons::{
    BUNDLE, DESTINATION_MISMATCH, ENCODING, FOREIGN_BUNDLE, SENDER, SIGNATURE, SUBJECT_MISMATCH, TYPE_MISMATCH,
    UNSIGNED,
};
use super::wire::Message;
use crate::attacks::raw::{envelope, telemetry};
use crate::attacks::scene::kill;
use crate::attacks::sender::Sender;

/// A message that must be refused.
#[derive(Debug)]
pub(super) struct Forgery {
    /// What was done to it.
    pub(super) what: &'static str,
    pub(super) message: Message,
    /// The names of the reasons for which it may be refused. Any is good if there are none.
    pub(super) reasons: &'static [&'static str],
}

/// Forgeries, and the message that they are made from, which must be accepted when all of them were refused.
#[derive(Debug)]
pub(super) struct Forged {
    pub(super) original: Envelope,
    pub(super) signed: Message,
    pub(super) forgeries: Vec<Forgery>,
}

/// How forgeries are made: by someone between `agent`, who is honest, and `other`, who may help.
pub(super) type Make = fn(agent: &Sender, other: &Sender) -> Forged;

/// Collects forgeries of one message.
struct Workshop {
    forged: Forged,
}

impl Workshop {
    fn of(sender: &Sender, original: Envelope) -> Self {
        let signed = sender.sign(&original);
        Self { forged: Forged { original, signed, forgeries: Vec::new() } }
    }

    fn prefix(&self) -> &[u8] {
        let payload = &self.forged.signed.payload;
        &payload[..payload.len() - TRAILER_LEN]
    }

    fn trailer(&self) -> &[u8] {
        let payload = &self.forged.signed.payload;
        &payload[payload.len() - TRAILER_LEN..]
    }

    /// Adds a message with these bytes, on the original's subject.
    fn add(&mut self, what: &'static str, bytes: impl Into<Bytes>, reasons: &'static [&'static str]) {
        let subject = self.forged.signed.subject.clone();
        self.add_message(what, Message::new(subject, bytes), reasons);
    }

    fn add_message(&mut self, what: &'static str, message: Message, reasons: &'static [&'static str]) {
        self.forged.forgeries.push(Forgery { what, message, reasons });
    }

    /// Adds what becomes of the original when it is changed, and delivered on its new subject with its old trailer.
    fn change(&mut self, what: &'static str, reasons: &'static [&'static str], change: impl FnOnce(&mut Envelope)) {
        let mut changed = self.forged.original.clone();
        change(&mut changed);
        let bytes = [&changed.encode_to_vec(), self.trailer()].concat();
        self.add_message(what, Message::new(changed.subject, bytes), reasons);
    }
}

/// One bit of each byte is turned over, but for those of the key id, which is looked up.
pub(super) fn altered(agent: &Sender, _: &Sender) -> Forged {
    let mut original = agent.telemetry();
    original.bundle = Bytes::new();
    let mut workshop = Workshop::of(agent, original);
    let bytes = workshop.forged.signed.payload.to_vec();
    let key_id = bytes.len() - TRAILER_LEN + 8..bytes.len() - TRAILER_LEN + 8 + KeyId::LEN;
    for place in (0..bytes.len()).filter(|place| !key_id.contains(place)) {
        let mut altered = bytes.clone();
        altered[place] ^= 1 << (place % 8);
        workshop.add("a bit is turned over", altered, &[]);
    }
    workshop.change("the payload is another", &[SIGNATURE], |envelope| {
        envelope.payload = Some(TelemetryEvent { cpu_usage: 99.0, ram_usage: 1.0 }.into());
    });
    workshop.change("the time is another", &[SIGNATURE], |envelope| envelope.timestamp_utc += 1);
    workshop.change("the number is another", &[SIGNATURE], |envelope| envelope.sequence += 1);
    workshop.change("the identifier is another's", &[SIGNATURE], |envelope| {
        envelope.message_id = telemetry("agent-01").message_id;
    });
    workshop.forged
}

/// The subject is changed: where it is delivered, and also within.
fn rewritten(agent: &Sender, from: &str, to: &str) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    let subject = workshop.forged.original.subject.replace(from, to);
    let moved = Message { subject: subject.clone(), ..workshop.forged.signed.clone() };
    workshop.add_message("it is delivered elsewhere", moved, &[SUBJECT_MISMATCH]);
    workshop.change("it says that it belongs elsewhere", &[SIGNATURE, SENDER], |envelope| envelope.subject = subject);
    workshop.forged
}

pub(super) fn another_type(agent: &Sender, _: &Sender) -> Forged {
    let mut forged = rewritten(agent, ".telemetry.", ".heartbeat.");
    // Where the type within is compared first, that is as good a reason.
    forged.forgeries[1].reasons = &[TYPE_MISMATCH, SIGNATURE];
    forged
}

pub(super) fn another_sender(agent: &Sender, _: &Sender) -> Forged {
    let mut forged = rewritten(agent, "agent-01", "agent-02");
    forged.forgeries[1].reasons = &[SENDER, SIGNATURE];
    forged
}

/// A message to another core, which is brought to this one.
pub(super) fn another_inbox(agent: &Sender, _: &Sender) -> Forged {
    let answer = || CommandResult::completed("done");
    let mut workshop = Workshop::of(agent, agent.directed("core/core-01", answer()));
    let elsewhere = agent.directed("core/core-02", answer());
    let signed = agent.sign(&elsewhere);
    let trailer = signed.payload.slice(signed.payload.len() - TRAILER_LEN..);
    let here = workshop.forged.original.clone();
    let moved = Message { subject: here.subject.clone(), ..signed };
    workshop.add_message("it is delivered here", moved, &[SUBJECT_MISMATCH]);
    let mut claimed = elsewhere;
    claimed.subject.clone_from(&here.subject);
    let bytes = [&claimed.encode_to_vec()[..], &trailer].concat();
    workshop.add("its subject says that it belongs here", bytes, &[DESTINATION_MISMATCH]);
    claimed.destination.clone_from(&here.destination);
    let bytes = [&claimed.encode_to_vec()[..], &trailer].concat();
    workshop.add("its destination says so as well", bytes, &[SIGNATURE]);
    workshop.forged
}

pub(super) fn spliced_trailers(agent: &Sender, other: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    let before = agent.sign(&agent.telemetry()).payload;
    let others = other.sign(&other.telemetry());
    let tail = |bytes: &Bytes| bytes.slice(bytes.len() - TRAILER_LEN..);
    let head = |bytes: &Bytes| bytes.slice(..bytes.len() - TRAILER_LEN);
    let spliced = [workshop.prefix(), &tail(&before)].concat();
    workshop.add("the trailer of the sender's other message", spliced, &[SIGNATURE]);
    let spliced = [workshop.prefix(), &tail(&others.payload)].concat();
    workshop.add("another sender's trailer", spliced, &[SIGNATURE, FOREIGN_BUNDLE, SENDER]);
    let spliced = [&head(&others.payload), workshop.trailer()].concat();
    let message = Message::new(others.subject, spliced);
    workshop.add_message("the trailer on another sender's message", message, &[SIGNATURE, FOREIGN_BUNDLE, SENDER]);
    let mut mixed = workshop.forged.signed.payload.to_vec();
    let signature = mixed.len() - keys::SIGNATURE_LEN;
    mixed[signature..].copy_from_slice(&before[before.len() - keys::SIGNATURE_LEN..]);
    workshop.add("the signature of the sender's other message", mixed, &[SIGNATURE]);
    workshop.forged
}

pub(super) fn stripped_trailers(agent: &Sender, _: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    let (prefix, trailer) = (workshop.prefix().to_vec(), workshop.trailer().to_vec());
    workshop.add("there is no trailer", prefix.clone(), &[UNSIGNED]);
    let mut attested = workshop.forged.original.clone();
    attested.authentication =
        Some(Authentication { key_id: agent.key_id.as_bytes().to_vec().into(), signature: Bytes::new() });
    workshop.add("there is a key id and no signature", attested.encode_to_vec(), &[UNSIGNED]);
    attested.authentication = Some(Authentication::default());
    workshop.add("the trailer is empty", attested.encode_to_vec(), &[UNSIGNED]);
    workshop.add("the trailer lacks a byte", [&prefix, &trailer[..TRAILER_LEN - 1]].concat(), &[UNSIGNED]);
    workshop.add("a byte follows the trailer", [&prefix, &trailer, &[0][..]].concat(), &[UNSIGNED]);
    let mut zeros = prefix;
    let nothing = keys::Signature::from_bytes([0; keys::SIGNATURE_LEN]);
    trailer::append(&mut zeros, &agent.key_id, &nothing);
    workshop.add("the signature is nothing but zeros", zeros, &[SIGNATURE]);
    workshop.forged
}

/// Another component, whose bundle is good, signs in its own name what the agent said.
pub(super) fn another_signature(agent: &Sender, other: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    let original = workshop.forged.original.clone();
    workshop.add_message("another key signs it as it is", other.sign(&original), &[FOREIGN_BUNDLE]);
    let mut own = original;
    own.bundle = other.bundle.clone().into();
    workshop.add_message("another key signs it with its own bundle", other.sign(&own), &[SENDER]);
    own.source_component = "agent-02".into();
    workshop.add_message("another key signs it with its own bundle and name", other.sign(&own), &[SENDER]);
    workshop.forged
}

/// A protobuf field with wire type 2.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

/// Prefixes that some decoder reads in another way than the original.
fn merged(original: &Envelope) -> Vec<(&'static str, Vec<u8>)> {
    let prefix = original.encode_to_vec();
    let append = |extra: &[u8]| [&prefix, extra].concat();
    let lies = TelemetryEvent { cpu_usage: 99.0, ram_usage: 99.0 }.encode_to_vec();
    let another = envelope(&original.source_component, &original.subject, kill(4_242)).encode_to_vec();
    // `message_id` is the first field, with 36 bytes behind its key and length.
    let (first, rest) = prefix.split_at(38);
    let short = original.timestamp_utc.to_le_bytes();
    let padded = padded_timestamp(original);
    vec![
        ("a second payload of another type", append(&field(12, &kill(4_242).encode_to_vec()))),
        ("a second payload of the same type", append(&field(10, &lies))),
        ("an identifier twice in a row", [first, &prefix].concat()),
        ("an identifier once more at the end", append(first)),
        ("a subject once more at the end", append(&field(4, b"ransomeye.events.alert.agent.agent-01"))),
        ("another envelope behind", append(&another)),
        ("another envelope before", [&another, &prefix[..]].concat()),
        ("the first field last", [rest, first].concat()),
        ("an unknown field with a low number", append(&field(999, b"hidden"))),
        ("an unknown field with a low number and eight bytes", append(&[&[0xa9, 0x1f][..], &short].concat())),
        ("an empty group", append(&[0xbb, 0x3f, 0xbc, 0x3f])),
        ("a group around a payload", append(&[&[0xbb, 0x3f][..], &field(10, &lies), &[0xbc, 0x3f]].concat())),
        ("a time padded with zeros", padded),
        ("a priority that holds its default", append(&[0x48, 0x00])),
        ("a bundle that is empty", append(&field(22, b""))),
        ("a field number 0", append(&[0x02, 0x00])),
        ("a length beyond the end", append(&[0xa2, 0x01, 0x7f])),
    ]
}

/// The same message with the one varint of its time in more bytes than it needs.
fn padded_timestamp(original: &Envelope) -> Vec<u8> {
    let prefix = original.encode_to_vec();
    let mut field = vec![0x18];
    encode_varint(original.timestamp_utc.cast_unsigned(), &mut field);
    let place = prefix.windows(field.len()).position(|window| window == field).expect("the time");
    let mut longer = field.clone();
    *longer.last_mut().expect("a byte") |= 0x80;
    longer.push(0);
    [&prefix[..place], &longer, &prefix[place + field.len()..]].concat()
}

/// Fields that were merged into a signed message by the broker, which has no key for it.
pub(super) fn merged_fields(agent: &Sender, _: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    let (prefix, trailer) = (workshop.prefix().to_vec(), workshop.trailer().to_vec());
    for (what, merged) in merged(&workshop.forged.original) {
        workshop.add(what, [&merged[..], &trailer].concat(), &[ENCODING]);
    }
    let unknown = [&prefix, &field(1_000, b"hidden")[..], &trailer].concat();
    workshop.add("an unknown field with a high number", unknown, &[SIGNATURE]);
    let lies = field(10, &TelemetryEvent { cpu_usage: 99.0, ram_usage: 99.0 }.encode_to_vec());
    workshop.add("a payload behind the trailer", [&prefix, &trailer, &lies[..]].concat(), &[UNSIGNED]);
    let between = [&prefix, &trailer, &lies[..], &trailer].concat();
    workshop.add("a payload between two trailers", between, &[ENCODING]);
    workshop.add("two trailers", [&prefix, &trailer[..], &trailer].concat(), &[ENCODING]);
    let signed = workshop.forged.signed.payload.clone();
    workshop.add("the whole message twice", [&signed[..], &signed].concat(), &[ENCODING]);
    workshop.forged
}

/// The same, signed by the sender itself, so that nothing but their encoding is wrong.
pub(super) fn signed_with_two_readings(agent: &Sender, _: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    for (what, merged) in merged(&workshop.forged.original) {
        let message = agent.sign_prefix(&workshop.forged.original.subject, merged);
        workshop.add_message(what, message, &[ENCODING]);
    }
    workshop.forged
}

fn members(envelope: &mut Envelope) -> &mut Vec<BatchMember> {
    match &mut envelope.payload {
        Some(AnyPayload::Batch(batch)) => &mut batch.members,
        _ => panic!("no batch"),
    }
}

pub(super) fn truncated_batches(agent: &Sender, _: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.batch(4));
    workshop.change("the last member is missing", &[SIGNATURE], |batch| drop(members(batch).pop()));
    workshop.change("the first member is missing", &[SIGNATURE], |batch| drop(members(batch).remove(0)));
    workshop.change("two members are exchanged", &[SIGNATURE], |batch| members(batch).swap(0, 1));
    workshop.change("a member stands twice", &[SIGNATURE], |batch| {
        let again = members(batch)[0].clone();
        members(batch).insert(0, again);
    });
    workshop.change("the first half is a batch of its own", &[SIGNATURE], |batch| members(batch).truncate(2));
    workshop.change("the second half is a batch of its own", &[SIGNATURE], |batch| drop(members(batch).drain(..2)));
    workshop.change("no member is left", &[ENCODING], |batch| members(batch).clear());
    workshop.change("a member is a message of its own", &[SIGNATURE], |batch| {
        let member = members(batch).swap_remove(0);
        let Some(batch_member::Payload::Telemetry(telemetry)) = member.payload else { panic!("no telemetry") };
        (batch.message_id, batch.timestamp_utc) = (member.message_id, member.timestamp_utc);
        batch.payload = Some(telemetry.into());
    });
    workshop.forged
}

/// A single message is made into a batch.
pub(super) fn wrapped_in_a_batch(agent: &Sender, _: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    let batch = agent.batch(2).payload;
    workshop.change("a message is a batch", &[SIGNATURE], |envelope| envelope.payload = batch);
    workshop.forged
}

pub(super) fn swapped_bundles(agent: &Sender, other: &Sender) -> Forged {
    let mut workshop = Workshop::of(agent, agent.telemetry());
    let restarted = agent.restarted().expect("another process");
    for (what, bundle) in [
        ("the bundle of another component comes along", &other.bundle),
        ("the bundle of another process comes along", &restarted.bundle),
    ] {
        let bundle = bundle.clone();
        workshop.change(what, &[FOREIGN_BUNDLE], |envelope| envelope.bundle = bundle.into());
    }
    for (what, stranger) in [
        ("the bundle and the key id are another component's", other),
        ("the bundle and the key id are another process's", &restarted),
    ] {
        let mut envelope = workshop.forged.original.clone();
        envelope.bundle = stranger.bundle.clone().into();
        let mut bytes = [&envelope.encode_to_vec(), workshop.trailer()].concat();
        let key_id = bytes.len() - TRAILER_LEN + 8;
        bytes[key_id..key_id + KeyId::LEN].copy_from_slice(stranger.key_id.as_bytes());
        workshop.add(what, bytes, &[SIGNATURE]);
    }
    workshop.change("the bundle is not there", &[SIGNATURE], |envelope| envelope.bundle = Bytes::new());
    workshop.change("the bundle is none", &[FOREIGN_BUNDLE, BUNDLE], |envelope| {
        envelope.bundle = Bytes::from_static(b"none");
    });
    workshop.forged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attacks::raw::unix_ms;
    use crate::attacks::sender::SKEW_MS;
    use crate::deployment::TRUST_DOMAIN;
    use bus_crypto::{Clock, EnvelopeError, PayloadKind, Unverified, UnverifiedBundle, VerifiedBundle};
    use bus_proto::TrustDomain;
    use bus_tls::pki::{Authority, CaOptions};

    /// A receiver that is nothing but the crate for signatures and the comparisons that it leaves to its caller. It knows
    /// both components' keys and certificates.
    struct Judge {
        known: Vec<VerifiedBundle>,
        trust_domain: TrustDomain,
    }

    impl Judge {
        fn verify(&self, message: &Message) -> Result<(), &'static str> {
            let unverified = Unverified::read(&message.payload).map_err(|error| reason(&error))?;
            let scan = unverified.scan();
            if scan.subject() != message.subject {
                return Err(SUBJECT_MISMATCH);
            }
            let expected = message.subject.contains(".inbox.").then_some("spiffe://ransomeye.test/core/core-01");
            if scan.destination() != expected {
                return Err(DESTINATION_MISMATCH);
            }
            let kind = scan.members().first().map_or(scan.payload(), |member| member.payload()).kind();
            let token = if kind == PayloadKind::CommandResult { ".result." } else { ".telemetry." };
            if !message.subject.contains(token) {
                return Err(TYPE_MISMATCH);
            }
            let clock = Clock::new(unix_ms(), SKEW_MS);
            match self.known.iter().find(|bundle| bundle.key_id() == unverified.key_id()) {
                Some(bundle) => {
                    unverified.verify(bundle, &self.trust_domain, &clock).map(drop).map_err(|error| reason(&error))
                }
                None => Err(FOREIGN_BUNDLE),
            }
        }
    }

    fn reason(error: &EnvelopeError) -> &'static str {
        match error {
            EnvelopeError::Trailer(_) => UNSIGNED,
            EnvelopeError::Scan(_) => ENCODING,
            EnvelopeError::ForeignBundle => FOREIGN_BUNDLE,
            EnvelopeError::Signature(_) => SIGNATURE,
            EnvelopeError::SubjectSender { .. } | EnvelopeError::SourceComponent { .. } => SENDER,
            _ => "key_time",
        }
    }

    fn verified(sender: &Sender) -> VerifiedBundle {
        let facts = sender.leaf.facts().unwrap();
        UnverifiedBundle::read(&sender.bundle).unwrap().verify(&facts, &Clock::new(unix_ms(), SKEW_MS)).unwrap()
    }

    /// Makes forgeries, and checks that each is refused for its reason and that the original is accepted.
    fn every_forgery_is_refused(make: Make) {
        let folder = tempfile::tempdir().unwrap();
        let trust_domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let authority =
            Authority::create(folder.path().join("pki"), trust_domain.clone(), &CaOptions::default()).unwrap();
        let agent = Sender::of(&authority, "agent/agent-01").unwrap();
        let other = Sender::of(&authority, "agent/agent-02").unwrap();
        let judge = Judge { known: vec![verified(&agent), verified(&other)], trust_domain };
        let Forged { original, signed, forgeries } = make(&agent, &other);
        assert_eq!(judge.verify(&signed), Ok(()), "{original:?}");
        assert!(!forgeries.is_empty());
        for Forgery { what, message, reasons } in forgeries {
            let reason = judge.verify(&message).expect_err(what);
            assert!(reasons.is_empty() || reasons.contains(&reason), "{what}: {reason}");
        }
    }

    #[test]
    fn every_forgery_is_refused_by_the_crate_for_signatures() {
        let all: [Make; 12] = [
            altered,
            another_type,
            another_sender,
            another_inbox,
            spliced_trailers,
            stripped_trailers,
            another_signature,
            merged_fields,
            signed_with_two_readings,
            truncated_batches,
            wrapped_in_a_batch,
            known_bundles_swapped,
        ];
        all.into_iter().for_each(every_forgery_is_refused);
    }

    /// Without those of a process that the judge does not know.
    fn known_bundles_swapped(agent: &Sender, other: &Sender) -> Forged {
        let mut forged = swapped_bundles(agent, other);
        forged.forgeries.retain(|forgery| forgery.what != "the bundle and the key id are another process's");
        forged
    }
}
