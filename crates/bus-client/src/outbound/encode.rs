//! Writing envelopes: field by field, in the one encoding that receivers accept.
//!
//! The values go from the caller's payload straight into the bytes that are signed: building the protobuf types first
//! would cost several allocations for each message.

use std::fmt;
use std::sync::Arc;

use bus_proto::prost;
use bus_proto::v1::TraceContext;
use bus_proto::v1::envelope::Payload;

use super::run::{Run, Waiting};
use super::seal::Keys;

/// The tags of the envelope's fields: number and wire type.
mod tag {
    pub(super) const MESSAGE_ID: u64 = 1 << 3 | 2;
    pub(super) const SOURCE_COMPONENT: u64 = 2 << 3 | 2;
    pub(super) const TIMESTAMP: u64 = 3 << 3;
    pub(super) const SUBJECT: u64 = 4 << 3 | 2;
    pub(super) const DESTINATION: u64 = 5 << 3 | 2;
    pub(super) const EXPIRES_AT: u64 = 6 << 3;
    pub(super) const CORRELATION_ID: u64 = 7 << 3 | 2;
    pub(super) const SEQUENCE: u64 = 8 << 3;
    pub(super) const PRIORITY: u64 = 9 << 3;
    pub(super) const SEALED: u64 = 17 << 3 | 2;
    pub(super) const BATCH: u64 = 18 << 3 | 2;
    pub(super) const COMPRESSED: u64 = 19 << 3 | 2;
    pub(super) const TAGS: u64 = 20 << 3 | 2;
    pub(super) const BUNDLE: u64 = 22 << 3 | 2;
    pub(super) const REFERENCES: u64 = 23 << 3 | 2;
    /// `members` of a batch.
    pub(super) const MEMBER: u64 = 1 << 3 | 2;
    /// `length` and `frame` of a compressed payload.
    pub(super) const LENGTH: u64 = 1 << 3;
    pub(super) const FRAME: u64 = 2 << 3 | 2;
}

/// The number of the field `trace_context`.
const TRACE_CONTEXT: u32 = 21;

/// The most bytes that a sequence takes, with its tag.
const MAX_SEQUENCE_LEN: usize = 11;

/// What an envelope says about itself, whatever it carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) source: &'a str,
    pub(crate) subject: &'a str,
    /// Empty for an event.
    pub(crate) destination: &'a str,
    pub(crate) sequence: u64,
    /// Empty if it does not come along.
    pub(crate) bundle: &'a [u8],
    /// How much longer its form makes the payload, at most.
    pub(crate) overhead: usize,
}

/// What stands in the place of the payload, and after the bundle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body<'a> {
    /// The encoded field of the payload, if it is not the run's own as it is.
    pub(crate) payload: Option<&'a [u8]>,
    /// The sealed references, or nothing.
    pub(crate) references: &'a [u8],
}

/// The identifier, time and expiry that the envelope of a run states.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stated {
    pub(crate) message_id: [u8; 36],
    pub(crate) timestamp: i64,
    /// 0 for never.
    pub(crate) expires_at: i64,
}

impl Stated {
    /// A batch is made now and needs an identifier of its own.
    pub(crate) fn of(run: &Run, own_id: [u8; 36], now_unix_ms: i64) -> Self {
        match run.messages() {
            [alone] => Self { message_id: alone.message_id, timestamp: alone.timestamp, expires_at: alone.expires_at },
            _ => Self { message_id: own_id, timestamp: now_unix_ms, expires_at: 0 },
        }
    }
}

/// What messages that share an envelope have in common.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Common {
    /// 0 for the default.
    pub(crate) priority: u32,
    pub(crate) tags: Vec<String>,
    pub(crate) trace_context: Option<TraceContext>,
    pub(crate) references: Option<Attached>,
}

/// What a message is about, and the keys of those who may know it. Two messages never have the same.
#[derive(Debug, Clone)]
pub(crate) struct Attached(pub(crate) Arc<References>);

/// See [`Attached`].
pub(crate) struct References {
    /// As they will be sealed.
    pub(crate) encoded: Vec<u8>,
    pub(crate) keys: Arc<Keys>,
    /// How much longer sealing makes them, at most.
    pub(crate) overhead: usize,
}

impl fmt::Debug for References {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what they say: that is for their readers.
        f.debug_struct("References").field("len", &self.encoded.len()).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl PartialEq for Attached {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Common {
    fn len(&self) -> usize {
        let references = self.references.as_ref();
        let references = references.map_or(0, |Attached(its)| 2 + delimited(its.encoded.len() + its.overhead));
        let tags: usize = self.tags.iter().map(|tag| 2 + delimited(tag.len())).sum();
        let trace = self.trace_context.as_ref().map_or(0, |trace| prost::encoding::message::encoded_len(21, trace));
        1 + varint_len(u64::from(self.priority)) + tags + trace + references
    }
}

fn varint_len(value: u64) -> usize {
    prost::encoding::encoded_len_varint(value)
}

/// The length of a value with its length before it.
fn delimited(len: usize) -> usize {
    varint_len(len as u64) + len
}

fn put_varint(out: &mut Vec<u8>, tag: u64, value: u64) {
    prost::encoding::encode_varint(tag, out);
    prost::encoding::encode_varint(value, out);
}

fn put_bytes(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    put_varint(out, tag, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A moment, unless it is 0 and therefore absent.
fn put_moment(out: &mut Vec<u8>, tag: u64, unix_ms: i64) {
    if unix_ms != 0 {
        put_varint(out, tag, unix_ms.cast_unsigned());
    }
}

/// Appends a payload as the field that it is in an envelope and in a member alike.
pub(super) fn put_payload(out: &mut Vec<u8>, payload: &Payload) {
    payload.encode(out);
}

/// How long a message is as a member of a batch, without its tag and length, given the length of its payload's field.
pub(super) fn member_len(message: &Waiting) -> usize {
    let moment = |unix_ms: i64| if unix_ms == 0 { 0 } else { 1 + varint_len(unix_ms.cast_unsigned()) };
    1 + delimited(message.message_id.len())
        + moment(message.timestamp)
        + moment(message.expires_at)
        + message.correlation.map_or(0, |id| 1 + delimited(id.len()))
        + message.payload.len()
}

/// How much a member of this length adds to a batch.
pub(super) fn member_cost(message: &Waiting) -> usize {
    1 + delimited(member_len(message))
}

/// At most how long an envelope is with this message alone, without a bundle and a trailer.
pub(super) fn single_len(frame: &Frame<'_>, common: &Common, message: &Waiting) -> usize {
    frame_len(frame, common) + member_len(message)
}

fn frame_len(frame: &Frame<'_>, common: &Common) -> usize {
    let text = |text: &str| if text.is_empty() { 0 } else { 1 + delimited(text.len()) };
    let bundle = if frame.bundle.is_empty() { 0 } else { 2 + delimited(frame.bundle.len()) };
    let texts = text(frame.source) + text(frame.subject) + text(frame.destination);
    texts + MAX_SEQUENCE_LEN + common.len() + bundle + frame.overhead
}

/// At most how long the envelope of a run is besides its members, without a trailer.
pub(super) fn rest_len(frame: &Frame<'_>, common: &Common) -> usize {
    // The identifier and the time of a batch's own envelope, and the tag and length of its payload.
    const OWN: usize = 38 + 11 + 12;
    frame_len(frame, common) + OWN
}

/// At most how long the envelope of a run is, without a trailer.
pub(super) fn run_len(frame: &Frame<'_>, run: &Run) -> usize {
    rest_len(frame, run.common()) + run.members_len()
}

/// The encoded field of the payload of a run: its one message's, or that of a batch. It is what is compressed and sealed.
pub(super) fn content(run: &Run) -> Vec<u8> {
    let mut out = Vec::with_capacity(run.members_len() + 12);
    put_content(&mut out, run);
    out
}

fn put_content(out: &mut Vec<u8>, run: &Run) {
    match run.messages() {
        [alone] => out.extend_from_slice(run.payload(alone)),
        _ => put_batch(out, run),
    }
}

/// The field of a payload that was compressed, `length` bytes before.
pub(super) fn compressed(length: usize, frame: &[u8]) -> Vec<u8> {
    let inner = 1 + varint_len(length as u64) + 1 + delimited(frame.len());
    let mut out = Vec::with_capacity(2 + delimited(inner));
    put_varint(&mut out, tag::COMPRESSED, inner as u64);
    put_varint(&mut out, tag::LENGTH, length as u64);
    put_bytes(&mut out, tag::FRAME, frame);
    out
}

/// The field of a payload that was sealed.
pub(super) fn sealed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + delimited(message.len()));
    put_bytes(&mut out, tag::SEALED, message);
    out
}

/// The prefix of the envelope of a run. `room` is left for what is appended.
pub(super) fn prefix(frame: &Frame<'_>, run: &Run, stated: &Stated, body: &Body<'_>, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(run_len(frame, run) + room);
    put_bytes(&mut out, tag::MESSAGE_ID, &stated.message_id);
    put_bytes(&mut out, tag::SOURCE_COMPONENT, frame.source.as_bytes());
    put_moment(&mut out, tag::TIMESTAMP, stated.timestamp);
    put_bytes(&mut out, tag::SUBJECT, frame.subject.as_bytes());
    if !frame.destination.is_empty() {
        put_bytes(&mut out, tag::DESTINATION, frame.destination.as_bytes());
    }
    if let [alone] = run.messages() {
        put_expiry_and_correlation(&mut out, alone);
    }
    put_varint(&mut out, tag::SEQUENCE, frame.sequence);
    let Common { priority, tags, trace_context, references: _ } = run.common();
    if *priority != 0 {
        put_varint(&mut out, tag::PRIORITY, u64::from(*priority));
    }
    match body.payload {
        Some(field) => out.extend_from_slice(field),
        None => put_content(&mut out, run),
    }
    for label in tags {
        put_bytes(&mut out, tag::TAGS, label.as_bytes());
    }
    if let Some(trace) = trace_context {
        prost::encoding::message::encode(TRACE_CONTEXT, trace, &mut out);
    }
    if !frame.bundle.is_empty() {
        put_bytes(&mut out, tag::BUNDLE, frame.bundle);
    }
    if !body.references.is_empty() {
        put_bytes(&mut out, tag::REFERENCES, body.references);
    }
    out
}

fn put_expiry_and_correlation(out: &mut Vec<u8>, message: &Waiting) {
    put_moment(out, tag::EXPIRES_AT, message.expires_at);
    if let Some(id) = &message.correlation {
        put_bytes(out, tag::CORRELATION_ID, id);
    }
}

fn put_batch(out: &mut Vec<u8>, run: &Run) {
    put_varint(out, tag::BATCH, run.members_len() as u64);
    for message in run.messages() {
        put_varint(out, tag::MEMBER, member_len(message) as u64);
        put_bytes(out, tag::MESSAGE_ID, &message.message_id);
        put_moment(out, tag::TIMESTAMP, message.timestamp);
        put_expiry_and_correlation(out, message);
        out.extend_from_slice(run.payload(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_proto::prost::Message as _;
    use bus_proto::v1::{Batch, BatchMember, Custom, Envelope, Heartbeat, batch_member};
    use proptest::prelude::*;

    const BUNDLE: &[u8] = &[7; 700];

    fn frame(destination: &'static str, bundle: &'static [u8]) -> Frame<'static> {
        let subject = "ransomeye.events.x-y.agent.agent-01";
        Frame { source: "agent-01", subject, destination, sequence: 300, bundle, overhead: 0 }
    }

    fn waiting(seed: u8, expires_at: i64, correlated: bool) -> Waiting {
        Waiting {
            message_id: [b'a' + seed % 26; 36],
            timestamp: 1_790_000_000_000 + i64::from(seed),
            expires_at,
            correlation: correlated.then_some([seed; 32]),
            payload: 0..0,
        }
    }

    fn payload(value: &[u8]) -> Payload {
        Payload::Custom(Custom { type_name: "a.B".into(), value: value.to_vec().into() })
    }

    /// The same as a protobuf library would write it.
    fn expected(
        frame: &Frame<'_>,
        common: &Common,
        parts: &[(Waiting, Payload)],
        own_id: [u8; 36],
        now: i64,
    ) -> Envelope {
        let text = |id: [u8; 36]| String::from_utf8(id.to_vec()).unwrap();
        let correlation = |waiting: &Waiting| waiting.correlation.map(|id| id.to_vec().into()).unwrap_or_default();
        let mut envelope = Envelope {
            source_component: frame.source.into(),
            subject: frame.subject.into(),
            destination: frame.destination.into(),
            sequence: frame.sequence,
            bundle: frame.bundle.to_vec().into(),
            priority: common.priority,
            tags: common.tags.clone(),
            trace_context: common.trace_context.clone(),
            ..Envelope::default()
        };
        if let [(waiting, payload)] = parts {
            envelope.message_id = text(waiting.message_id);
            envelope.timestamp_utc = waiting.timestamp;
            envelope.expires_at = waiting.expires_at;
            envelope.correlation_id = correlation(waiting);
            envelope.payload = Some(payload.clone());
            return envelope;
        }
        let member = |(waiting, payload): &(Waiting, Payload)| BatchMember {
            message_id: text(waiting.message_id),
            timestamp_utc: waiting.timestamp,
            expires_at: waiting.expires_at,
            correlation_id: correlation(waiting),
            payload: Some(match payload {
                Payload::Custom(custom) => batch_member::Payload::Custom(custom.clone()),
                Payload::Heartbeat(beat) => batch_member::Payload::Heartbeat(beat.clone()),
                _ => unreachable!(),
            }),
        };
        envelope.message_id = text(own_id);
        envelope.timestamp_utc = now;
        envelope.payload = Some(Payload::Batch(Batch { members: parts.iter().map(member).collect() }));
        envelope
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_a_protobuf_library_writes(
            seeds in proptest::collection::vec((any::<u8>(), proptest::bool::ANY, proptest::bool::ANY, 0_usize..400), 1..12),
            directed: bool, with_bundle: bool, priority in 0_u32..=10,
            tags in proptest::collection::vec("[a-z]{1,64}", 0..3), traced: bool,
        ) {
            let frame = frame(if directed { "spiffe://td/core/c" } else { "" }, if with_bundle { BUNDLE } else { &[] });
            let trace = TraceContext { traceparent: "a".repeat(55), tracestate: String::new() };
            let common = Common { priority, tags, trace_context: traced.then_some(trace), references: None };
            let mut run = Run::new(common.clone());
            let mut parts = Vec::new();
            for (seed, expires, correlated, len) in seeds {
                let waiting = waiting(seed, if expires { 1_790_000_100_000 } else { 0 }, correlated);
                let payload = if len % 2 == 0 { payload(&vec![seed; len]) } else { Payload::Heartbeat(Heartbeat { uptime: len as u64, version: String::new() }) };
                run.push(waiting.clone(), &payload);
                parts.push((waiting, payload));
            }
            let (own_id, now) = ([b'z'; 36], 1_790_000_000_999);
            let plain = Body { payload: None, references: &[] };
            let written = prefix(&frame, &run, &Stated::of(&run, own_id, now), &plain, 106);
            prop_assert!(written.len() <= run_len(&frame, &run));
            prop_assert_eq!(Envelope::decode(&written[..]).unwrap(), expected(&frame, &common, &parts, own_id, now));
            prop_assert_eq!(written, expected(&frame, &common, &parts, own_id, now).encode_to_vec());
            let alone = &run.messages()[0];
            let mut single = Run::new(common.clone());
            single.push(parts[0].0.clone(), &parts[0].1);
            let written = prefix(&frame, &single, &Stated::of(&single, own_id, now), &plain, 0);
            prop_assert!(written.len() <= single_len(&frame, &common, alone));
        }
    }
}
