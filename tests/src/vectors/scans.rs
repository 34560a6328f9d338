//! Prefixes of envelopes: what the canonical scan reads, and everything that it refuses.

use std::collections::BTreeMap;

use super::corruptions::{Subject, ignored};
use super::file::{Bytes, File, Outcome, Reading, ScanVector};
use super::form::{bytes, double, field, number, refused, varint};
use super::forms::{self, sealed_fields, sealed_reading};
use super::identities::NOW;

pub(crate) const ID: &str = "01a0f1a2-0000-7000-8000-000000000001";
const SUBJECT: &str = "ransomeye.events.heartbeat.agent.agent-01";

/// The largest prefix, in bytes.
const MAX_PREFIX: usize = 8 * 1024 * 1024;

/// The mandatory fields before the payload.
fn head() -> Vec<Vec<u8>> {
    vec![bytes(1, ID.as_bytes()), bytes(2, b"agent-01"), number(3, NOW.unsigned_abs()), bytes(4, SUBJECT.as_bytes())]
}

/// A prefix with this payload and nothing optional.
pub(crate) fn with_payload(field_number: u64, payload: &[u8]) -> Vec<u8> {
    [head().concat(), bytes(field_number, payload)].concat()
}

pub(crate) fn heartbeat() -> Vec<Vec<u8>> {
    vec![number(1, 86_400), bytes(2, b"0.1.0")]
}

pub(crate) fn member(payload_number: u64, payload: &[u8]) -> Vec<u8> {
    [bytes(1, ID.as_bytes()), number(3, NOW.unsigned_abs()), bytes(payload_number, payload)].concat()
}

/// The fields of an envelope, all of them.
fn envelope_fields() -> Vec<Vec<u8>> {
    let mut fields = head();
    fields.extend([
        bytes(5, b"spiffe://ransomeye.test/core/core-01"),
        number(6, NOW.unsigned_abs() + 60_000),
        bytes(7, &[7; 32]),
        number(8, 300),
        number(9, 10),
        bytes(13, &heartbeat().concat()),
        bytes(20, b"one"),
        bytes(20, b"two"),
        bytes(21, &trace_context().concat()),
        bytes(22, b"a bundle, as yet unread"),
        bytes(23, &sealed_fields().concat()),
    ]);
    fields
}

fn trace_context() -> Vec<Vec<u8>> {
    vec![bytes(1, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), bytes(2, b"vendor=value")]
}

/// The number and the fields of a payload of each plain kind.
pub(crate) fn payloads() -> Vec<(u8, &'static str, Vec<Vec<u8>>)> {
    vec![
        (10, "telemetry", vec![double(1, 12.5), double(2, 50.0)]),
        (11, "alert", vec![bytes(1, b"ransomware.mass-rename"), number(2, 5), bytes(3, b"4,096 files in a minute")]),
        (12, "command", vec![number(1, 1), number(2, 4242)]),
        (13, "heartbeat", heartbeat()),
        (14, "command_result", vec![number(1, 1), bytes(2, b"killed")]),
        (15, "error", vec![number(1, 1), bytes(2, b"no such process")]),
        (16, "custom", vec![bytes(1, b"acme.v1.Inventory"), bytes(2, &[0xff, 0x80, 0x00])]),
    ]
}

/// The vectors so far.
pub(crate) struct Vectors(Vec<ScanVector>);

impl Vectors {
    pub(crate) fn accept(&mut self, name: &str, comment: &str, prefix: Vec<u8>, reading: Reading) {
        self.add(name, comment, prefix, Outcome::Accepted(reading));
    }

    pub(crate) fn refuse(&mut self, name: &str, comment: &str, prefix: Vec<u8>, reason: &str, place: &str) {
        self.add(name, comment, prefix, refused(&format!("Scan.{reason}"), Some(place)));
    }

    pub(crate) fn add(&mut self, name: &str, comment: &str, prefix: Vec<u8>, outcome: Outcome<Reading>) {
        self.0.push(ScanVector { name: name.into(), comment: comment.into(), prefix: Bytes(prefix), outcome });
    }

    /// Everything that can be wrong with a message within a prefix.
    pub(crate) fn corrupt(&mut self, subject: &Subject, wrap: impl Fn(&[u8]) -> Vec<u8>) {
        for corruption in subject.corruptions() {
            let (prefix, outcome) = (wrap(&corruption.message), refused(&corruption.reason, Some(subject.place)));
            self.add(&corruption.name, &corruption.comment, prefix, outcome);
        }
    }
}

/// What a prefix with the mandatory fields reads as; its payload begins at `start` and ends with the prefix.
pub(crate) fn reading(payload_number: usize, start: usize, end: usize) -> Reading {
    Reading {
        message_id: ID.into(),
        source_component: "agent-01".into(),
        timestamp_utc: NOW.to_string(),
        subject: SUBJECT.into(),
        destination: None,
        expires_at: None,
        correlation_id: None,
        sequence: None,
        priority: None,
        payload: [payload_number, start, end],
        bundle_length: None,
        members: 0,
        sealed: None,
        references: None,
        compressed: None,
    }
}

pub(crate) fn file() -> File<ScanVector> {
    let mut vectors = Vectors(Vec::new());
    accepted(&mut vectors);
    accepted_batches(&mut vectors);
    envelope(&mut vectors);
    plain_payloads(&mut vectors);
    forms::add(&mut vectors);
    batches(&mut vectors);
    trace_contexts(&mut vectors);
    File {
        about: "The canonical scan of a prefix: an envelope without its trailer. `payload` is the field number of the \
                payload, and where its bytes begin and end."
            .into(),
        bundles: BTreeMap::default(),
        vectors: vectors.0,
    }
}

fn accepted(vectors: &mut Vectors) {
    for (payload_number, name, fields) in payloads() {
        let (field_number, payload) = (u64::from(payload_number), fields.concat());
        let prefix = with_payload(field_number, &payload);
        let read = reading(payload_number.into(), prefix.len() - payload.len(), prefix.len());
        vectors.accept(name, "a payload with all of its fields", prefix, read);
        let prefix = with_payload(field_number, &[]);
        let read = reading(payload_number.into(), prefix.len(), prefix.len());
        vectors.accept(&format!("{name}, empty"), "every field has its default, so none is encoded", prefix, read);
    }
    let fields = envelope_fields();
    let end = fields[..10].concat().len();
    let full = Reading {
        destination: Some("spiffe://ransomeye.test/core/core-01".into()),
        expires_at: Some((NOW + 60_000).to_string()),
        correlation_id: Some(Bytes(vec![7; 32])),
        sequence: Some("300".into()),
        priority: Some(10),
        bundle_length: Some(23),
        references: Some(sealed_reading()),
        ..reading(13, end - heartbeat().concat().len(), end)
    };
    vectors.accept("every field", "an envelope with all that it may have", fields.concat(), full.clone());
    let comment = "numbers from 1,000 on are ignored, of every wire type, once or more often";
    vectors.accept("unknown fields", comment, [fields.concat(), ignored()].concat(), full);

    let mut fields = head();
    fields[1] = bytes(2, &[b'a'; 63]);
    fields[2] = number(3, i64::MAX.unsigned_abs());
    fields[3] = bytes(4, &[b's'; 512]);
    fields.extend([bytes(5, &[b'd'; 512]), number(6, i64::MAX.unsigned_abs()), number(8, u64::MAX), bytes(13, &[])]);
    let end = fields.concat().len();
    fields.extend(std::iter::repeat_n(bytes(20, &[b't'; 64]), 16));
    fields.extend([bytes(21, &[]), bytes(22, &[b'b'; 16_384])]);
    let read = Reading {
        source_component: "a".repeat(63),
        timestamp_utc: i64::MAX.to_string(),
        subject: "s".repeat(512),
        destination: Some("d".repeat(512)),
        expires_at: Some(i64::MAX.to_string()),
        sequence: Some(u64::MAX.to_string()),
        bundle_length: Some(16_384),
        ..reading(13, end, end)
    };
    vectors.accept("every bound", "each field is as long or as large as it may be", fields.concat(), read);

    let negative = [double(1, -0.5), double(2, f64::NAN)].concat();
    let prefix = with_payload(10, &negative);
    let read = reading(10, prefix.len() - negative.len(), prefix.len());
    vectors.accept("numbers that make no sense", "whether a value makes sense is said after decoding", prefix, read);

    let filled = |count| with_payload(16, &bytes(2, &vec![0; count]));
    let nearly = MAX_PREFIX - 200;
    let prefix = filled(nearly + MAX_PREFIX - filled(nearly).len());
    let read = reading(16, with_payload(13, &[]).len() + 4, prefix.len());
    vectors.accept("as long as it may be", "8,388,608 bytes", prefix, read);
}

fn accepted_batches(vectors: &mut Vectors) {
    for count in [1, 2, 256] {
        let members = bytes(1, &member(13, &heartbeat().concat())).repeat(count);
        let prefix = with_payload(18, &members);
        let read = Reading { members: count, ..reading(18, prefix.len() - members.len(), prefix.len()) };
        vectors.accept(&format!("batch of {count}"), "members of one kind", prefix, read);
    }
    let full = [
        bytes(1, ID.as_bytes()),
        number(3, 1),
        number(6, NOW.unsigned_abs() - 1),
        bytes(7, &[7; 32]),
        bytes(13, &[]),
        ignored(),
    ];
    let batch = [bytes(1, &full.concat()), ignored()].concat();
    let prefix = with_payload(18, &batch);
    let read = Reading { members: 1, ..reading(18, prefix.len() - batch.len(), prefix.len()) };
    let comment = "a member that has expired is as canonical as any: it is refused alone, later";
    vectors.accept("batch with every field", comment, prefix, read);
}

fn envelope(vectors: &mut Vectors) {
    let id = |text: &str| bytes(1, text.as_bytes());
    let subject = Subject {
        place: "envelope",
        title: "envelope",
        fields: envelope_fields(),
        once: Some(3),
        closed: false,
        replacements: vec![
            ("message_id in capitals", "lower-case digits only", 0, id(&ID.to_uppercase()), "MessageId"),
            ("message_id of version 4", "version 7 only", 0, id("01a0f1a2-0000-4000-8000-000000000001"), "MessageId"),
            (
                "message_id of variant 0",
                "the variant of RFC 9562 only",
                0,
                id("01a0f1a2-0000-7000-7000-000000000001"),
                "MessageId",
            ),
            ("message_id without hyphens", "36 bytes", 0, id("01a0f1a200007000800000000000000001"), "MessageId"),
            ("message_id in braces", "one form only", 0, id(&format!("{{{ID}}}")), "MessageId"),
            ("message_id empty", "an empty text is not encoded", 0, bytes(1, b""), "ExplicitDefault"),
            ("message_id as a number", "wire type 2", 0, number(1, 1), "WrongWireType"),
            ("source_component too long", "64 bytes", 1, bytes(2, &[b'a'; 64]), "OutOfBounds"),
            ("source_component not UTF-8", "a lone continuation byte", 1, bytes(2, &[0x80]), "NotUtf8"),
            ("timestamp_utc 0", "a number that is 0 is not encoded", 2, number(3, 0), "ExplicitDefault"),
            ("timestamp_utc negative", "-1 as protobuf writes it", 2, number(3, u64::MAX), "OutOfBounds"),
            ("timestamp_utc 2^63", "one above the highest", 2, number(3, 1 << 63), "OutOfBounds"),
            ("timestamp_utc as bytes", "wire type 0", 2, bytes(3, b"1"), "WrongWireType"),
            ("subject empty", "an empty text is not encoded", 3, bytes(4, b""), "ExplicitDefault"),
            ("subject too long", "513 bytes", 3, bytes(4, &[b's'; 513]), "OutOfBounds"),
            ("subject not UTF-8", "a surrogate half", 3, bytes(4, &[0xed, 0xa0, 0x80]), "NotUtf8"),
            ("destination too long", "513 bytes", 4, bytes(5, &[b'd'; 513]), "OutOfBounds"),
            ("destination empty", "absent, or not empty", 4, bytes(5, b""), "ExplicitDefault"),
            ("expires_at 0", "never is written by leaving it out", 5, number(6, 0), "ExplicitDefault"),
            ("expires_at negative", "-1 as protobuf writes it", 5, number(6, u64::MAX), "OutOfBounds"),
            ("correlation_id short", "31 bytes", 6, bytes(7, &[7; 31]), "OutOfBounds"),
            ("correlation_id long", "33 bytes", 6, bytes(7, &[7; 33]), "OutOfBounds"),
            ("correlation_id empty", "absent, or 32 bytes", 6, bytes(7, b""), "ExplicitDefault"),
            ("sequence 0", "absent, or from 1", 7, number(8, 0), "ExplicitDefault"),
            ("sequence as a fixed number", "wire type 0", 7, field(8, 1, &[1; 8]), "WrongWireType"),
            ("priority 11", "1 to 10", 8, number(9, 11), "OutOfBounds"),
            ("priority 2^32 + 5", "a decoder would cut it off to 5", 8, number(9, (1 << 32) + 5), "OutOfBounds"),
            ("priority 0", "absent, or from 1", 8, number(9, 0), "ExplicitDefault"),
            ("payload as a number", "wire type 2", 9, number(13, 1), "WrongWireType"),
            ("payload twice", "of the same kind", 9, bytes(13, &[]).repeat(2), "SeveralPayloads"),
            ("two payloads", "of different kinds", 9, [bytes(10, &[]), bytes(13, &[])].concat(), "SeveralPayloads"),
            ("no payload", "exactly one", 9, Vec::new(), "NoPayload"),
            ("a payload and an unknown field", "number 24 has no meaning yet", 14, bytes(24, &[]), "UnknownField"),
            ("tag empty", "1 to 64 bytes", 10, bytes(20, b""), "OutOfBounds"),
            ("tag too long", "65 bytes", 10, bytes(20, &[b't'; 65]), "OutOfBounds"),
            ("tag not UTF-8", "an overlong form", 10, bytes(20, &[0xc0, 0x80]), "NotUtf8"),
            ("tag as a number", "wire type 2", 10, number(20, 1), "WrongWireType"),
            ("seventeen tags", "at most 16", 10, bytes(20, b"one").repeat(16), "OutOfBounds"),
            ("trace_context as a number", "wire type 2", 12, number(21, 1), "WrongWireType"),
            ("trace_context twice", "a decoder would merge them", 12, bytes(21, &[]).repeat(2), "Repeated"),
            ("bundle empty", "absent, or not empty", 13, bytes(22, b""), "ExplicitDefault"),
            ("bundle too long", "16,385 bytes", 13, bytes(22, &[b'b'; 16_385]), "OutOfBounds"),
            ("references as a number", "wire type 2", 14, number(23, 1), "WrongWireType"),
            ("references twice", "a decoder would merge them", 14, bytes(23, &[]).repeat(2), "Repeated"),
        ],
        mandatory: vec![(0, "message_id"), (1, "source_component"), (2, "timestamp_utc"), (3, "subject")],
    };
    vectors.corrupt(&subject, <[u8]>::to_vec);
    vectors.refuse("envelope: no bytes", "the payload is asked for first", Vec::new(), "NoPayload", "envelope");
    let swapped = [&head()[1..], &head()[..1], &[bytes(13, &[])]].concat().concat();
    vectors.refuse("envelope: two fields change places", "2 before 1", swapped, "OutOfOrder", "envelope");
    let tags = [head().concat(), bytes(13, &[]), bytes(20, b"a"), bytes(21, &[]), bytes(20, b"b")].concat();
    vectors.refuse("envelope: tags apart", "repeated fields stand together", tags, "OutOfOrder", "envelope");
    let long = with_payload(16, &bytes(2, &vec![0; MAX_PREFIX]));
    vectors.refuse("envelope: too long", "more than 8,388,608 bytes", long, "TooLong", "envelope");
    let length = [head().concat(), varint(13 << 3 | 2), varint(u64::MAX)].concat();
    vectors.refuse("envelope: a payload of 2^64 - 1 bytes", "a length near overflow", length, "Truncated", "envelope");
    let first = [bytes(3, b"1"), vec![0x80]].concat();
    vectors.refuse("envelope: the first violation counts", "two are there", first, "WrongWireType", "envelope");
    let both = [head().concat(), bytes(13, &[0x80]), number(24, 1)].concat();
    let comment = "the payload is wrong as well, and comes later";
    vectors.refuse("envelope: the envelope comes first", comment, both, "UnknownField", "envelope");
}

pub(crate) type Replacements = Vec<(&'static str, &'static str, usize, Vec<u8>, &'static str)>;

/// What can be wrong with the values of a payload.
pub(crate) fn replacements(payload: &str) -> Replacements {
    let not_utf8 = |name, index, field_number| (name, "not UTF-8", index, bytes(field_number, &[0xff]), "NotUtf8");
    let empty = |name, index, field_number| {
        (name, "an empty text is not encoded", index, bytes(field_number, b""), "ExplicitDefault")
    };
    let zero =
        |name, index, field_number| (name, "0 is not encoded", index, number(field_number, 0), "ExplicitDefault");
    let large = |name, index, field_number, value| {
        (name, "a decoder would cut off the higher bits", index, number(field_number, value), "OutOfBounds")
    };
    let wrong =
        |name, index, replacement| (name, "another wire type than the schema's", index, replacement, "WrongWireType");
    match payload {
        "telemetry" => vec![
            ("0.0", "0 is not encoded", 0, double(1, 0.0), "ExplicitDefault"),
            ("-0.0", "nor is 0 with a sign, though encoders may write it", 1, double(2, -0.0), "ExplicitDefault"),
            wrong("a double as a number", 0, number(1, 12)),
            wrong("a double in four bytes", 1, field(2, 5, &[0, 0, 0x48, 0x42])),
        ],
        "alert" => vec![
            not_utf8("threat_type", 0, 1),
            empty("description", 2, 3),
            zero("severity 0", 1, 2),
            large("severity 2^31", 1, 2, 1 << 31),
            wrong("severity as a text", 1, bytes(2, b"5")),
        ],
        "command" => vec![
            zero("target_pid 0", 1, 2),
            large("target_pid 2^32 + 1", 1, 2, (1 << 32) + 1),
            large("command_type -1", 0, 1, u64::MAX),
            wrong("target_pid in four bytes", 1, field(2, 5, &[1, 0, 0, 0])),
        ],
        "heartbeat" => vec![zero("uptime 0", 0, 1), empty("version", 1, 2), not_utf8("version not UTF-8", 1, 2)],
        "command_result" => vec![zero("status 0", 0, 1), large("status 2^31", 0, 1, 1 << 31), not_utf8("detail", 1, 2)],
        "error" => vec![zero("code 0", 0, 1), large("code 2^31", 0, 1, 1 << 31), not_utf8("message", 1, 2)],
        "custom" => {
            vec![not_utf8("type_name", 0, 1), empty("value", 1, 2), wrong("value as a number", 1, number(2, 1))]
        }
        _ => Vec::new(),
    }
}

fn plain_payloads(vectors: &mut Vectors) {
    for (payload_number, name, fields) in payloads() {
        let title = name;
        let (place, once, closed, mandatory) = ("payload", Some(0), false, Vec::new());
        let subject = Subject { place, title, fields, once, closed, replacements: replacements(name), mandatory };
        vectors.corrupt(&subject, |message| with_payload(payload_number.into(), message));
    }
}

fn batches(vectors: &mut Vectors) {
    let good = member(13, &heartbeat().concat());
    let subject = Subject {
        place: "batch",
        title: "batch",
        fields: vec![bytes(1, &good)],
        once: None,
        closed: false,
        replacements: vec![
            ("a member as a number", "wire type 2", 0, number(1, 1), "WrongWireType"),
            ("257 members", "at most 256", 0, bytes(1, &good).repeat(257), "TooManyMembers"),
            ("no members", "at least one", 0, Vec::new(), "EmptyBatch"),
        ],
        mandatory: Vec::new(),
    };
    vectors.corrupt(&subject, |message| with_payload(18, message));
    for (place, title, before) in [("member 0", "first member", 0), ("member 2", "third member", 2)] {
        let subject = Subject {
            place,
            title,
            fields: vec![
                bytes(1, ID.as_bytes()),
                number(3, NOW.unsigned_abs()),
                number(6, NOW.unsigned_abs() + 1),
                bytes(7, &[7; 32]),
                bytes(13, &heartbeat().concat()),
            ],
            once: Some(1),
            closed: false,
            replacements: vec![
                (
                    "message_id of version 4",
                    "version 7 only",
                    0,
                    bytes(1, b"01a0f1a2-0000-4000-8000-000000000001"),
                    "MessageId",
                ),
                ("timestamp_utc negative", "-1 as protobuf writes it", 1, number(3, u64::MAX), "OutOfBounds"),
                ("expires_at 0", "0 is not encoded", 2, number(6, 0), "ExplicitDefault"),
                ("correlation_id short", "31 bytes", 3, bytes(7, &[7; 31]), "OutOfBounds"),
                ("two payloads", "exactly one", 4, [bytes(10, &[]), bytes(13, &[])].concat(), "SeveralPayloads"),
                ("no payload", "exactly one", 4, Vec::new(), "NoPayload"),
                ("a payload as a number", "wire type 2", 4, number(13, 1), "WrongWireType"),
                ("a sealed payload", "a form, which only an envelope may have", 4, bytes(17, &[]), "NestedForm"),
                ("a batch", "a form, which only an envelope may have", 4, bytes(18, &[]), "NestedForm"),
                ("a compressed payload", "a form, which only an envelope may have", 4, bytes(19, &[]), "NestedForm"),
                ("tags", "what a member lacks, it shares with its envelope", 4, bytes(20, &[]), "UnknownField"),
                (
                    "version not UTF-8",
                    "the payload of a member is part of it",
                    4,
                    bytes(13, &bytes(2, &[0xff])),
                    "NotUtf8",
                ),
            ],
            mandatory: vec![(0, "message_id"), (1, "timestamp_utc")],
        };
        vectors.corrupt(&subject, |message| {
            with_payload(18, &[bytes(1, &good).repeat(before), bytes(1, message)].concat())
        });
    }
    let mixed = [bytes(1, &good), bytes(1, &good), bytes(1, &member(10, &[]))].concat();
    vectors.refuse(
        "batch of two kinds",
        "all members are of one kind",
        with_payload(18, &mixed),
        "MixedBatch",
        "member 2",
    );
}

fn trace_contexts(vectors: &mut Vectors) {
    let subject = Subject {
        place: "trace context",
        title: "trace context",
        fields: trace_context(),
        once: Some(0),
        closed: false,
        replacements: vec![
            ("traceparent not UTF-8", "not UTF-8", 0, bytes(1, &[0xff]), "NotUtf8"),
            ("traceparent empty", "an empty text is not encoded", 0, bytes(1, b""), "ExplicitDefault"),
            ("tracestate as a number", "wire type 2", 1, number(2, 1), "WrongWireType"),
        ],
        mandatory: Vec::new(),
    };
    vectors.corrupt(&subject, |message| [with_payload(13, &[]), bytes(21, message)].concat());
    let both = [head().concat(), bytes(13, &[0x80]), bytes(21, &[0x80])].concat();
    let comment = "both are truncated, and the payload comes first";
    vectors.refuse("the payload before the trace context", comment, both, "Truncated", "payload");
}
