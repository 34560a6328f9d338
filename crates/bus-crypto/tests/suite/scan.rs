//! What the canonical scan accepts, and that it reads what a protobuf decoder reads.

use bus_crypto::{MAX_MEMBERS, MAX_PREFIX_LEN, PayloadKind, Place, Refusal, Scan, ScanError, SealedView, scan};
use bus_proto::prost::Message;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{self, Envelope};
use proptest::prelude::*;

use crate::support::{Component, NOW, batch, field, sealed, text, varint};

const ID: &str = "0199f1a2-0000-7000-8000-000000000000";

fn refusal(prefix: &[u8]) -> Refusal {
    let error = scan(prefix).unwrap_err();
    assert_eq!(error.place, Place::Envelope, "{error}");
    error.refusal
}

/// An envelope's fields one by one, so that a test can replace or move them.
fn fields() -> Vec<Vec<u8>> {
    vec![
        text(1, ID.as_bytes()),
        text(2, b"agent-01"),
        field(3, 0, &varint(NOW as u64)),
        text(4, b"ransomeye.events.telemetry.agent.agent-01"),
        text(5, b"spiffe://ransomeye.local/core/core-01"),
        field(6, 0, &varint(NOW as u64 + 1)),
        text(7, &[7; 32]),
        field(8, 0, &varint(300)),
        field(9, 0, &[10]),
        text(10, &[]),
        text(20, b"one"),
        text(20, b"two"),
        text(21, &[]),
        text(22, b"a bundle"),
        text(23, &sealed(0, vec![7; 17], 1).encode_to_vec()),
        text(1_000, b"from the future"),
        field(1_001, 0, &[0]),
        field(1_002, 1, &[0; 8]),
        field(536_870_910, 5, &[0; 4]),
    ]
}

/// The envelope with one field replaced.
fn with(index: usize, replacement: Vec<u8>) -> Vec<u8> {
    let mut fields = fields();
    fields[index] = replacement;
    fields.concat()
}

#[test]
fn every_field_is_read() {
    let prefix = fields().concat();
    let scan = scan(&prefix).unwrap();
    assert_eq!(scan.message_id(), ID);
    assert_eq!(scan.source_component(), "agent-01");
    assert_eq!(scan.timestamp(), NOW);
    assert_eq!(scan.subject(), "ransomeye.events.telemetry.agent.agent-01");
    assert_eq!(scan.destination(), Some("spiffe://ransomeye.local/core/core-01"));
    assert_eq!(scan.expires_at(), Some(NOW + 1));
    assert_eq!(scan.correlation_id(), Some(&[7; 32]));
    assert_eq!(scan.sequence(), Some(300));
    assert_eq!(scan.priority(), Some(10));
    assert_eq!(scan.payload().kind(), PayloadKind::Telemetry);
    assert_eq!(scan.payload().bytes(), b"");
    assert_eq!(scan.bundle(), Some(&b"a bundle"[..]));
    assert!(scan.members().is_empty());
    assert_eq!(scan.sealed(), None);
    assert_eq!(scan.references().map(SealedView::epoch_id), Some(&[1; 16]));
}

#[test]
fn what_is_optional_may_be_absent_and_what_is_mandatory_may_not() {
    let all = fields();
    let mandatory = [(0, "message_id"), (1, "source_component"), (2, "timestamp_utc"), (3, "subject")];
    for index in 0..all.len() {
        let mut some = all.clone();
        some.remove(index);
        let result = scan(&some.concat()).map(drop).map_err(|error| error.refusal);
        let expected = match mandatory.iter().find(|(place, _)| *place == index) {
            Some((_, field)) => Err(Refusal::Missing { field }),
            None if index == 9 => Err(Refusal::NoPayload),
            None => Ok(()),
        };
        assert_eq!(result, expected, "without field {index}");
    }
    assert_eq!(refusal(b""), Refusal::NoPayload);
}

#[test]
fn fields_in_another_order_are_refused() {
    let all = fields();
    for (first, second) in (0..all.len()).flat_map(|a| (0..a).map(move |b| (b, a))) {
        // The two tags may change places.
        if (first, second) == (10, 11) {
            continue;
        }
        let mut swapped = all.clone();
        swapped.swap(first, second);
        assert!(matches!(refusal(&swapped.concat()), Refusal::OutOfOrder { .. }), "{first} and {second}");
    }
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    for (index, name) in [
        (0, "message_id"),
        (1, "source_component"),
        (2, "timestamp_utc"),
        (3, "subject"),
        (4, "destination"),
        (5, "expires_at"),
        (6, "correlation_id"),
        (7, "sequence"),
        (8, "priority"),
        (12, "trace_context"),
        (13, "bundle"),
        (14, "references"),
    ] {
        let twice = fields()[index].repeat(2);
        assert_eq!(refusal(&with(index, twice)), Refusal::Repeated { field: name });
    }
}

#[test]
fn two_payloads_are_refused_whether_they_are_alike_or_not() {
    assert_eq!(refusal(&with(9, text(10, &[]).repeat(2))), Refusal::SeveralPayloads);
    assert_eq!(refusal(&with(9, [text(10, &[]), text(13, &[])].concat())), Refusal::SeveralPayloads);
    assert_eq!(refusal(&with(9, [text(10, &[]), text(18, &[])].concat())), Refusal::SeveralPayloads);
    assert_eq!(refusal(&with(9, [text(10, &[]), text(19, &[])].concat())), Refusal::SeveralPayloads);
}

#[test]
fn padded_numbers_are_refused() {
    let overlong: [(usize, Vec<u8>); 5] = [
        (0, [&[0x8a, 0x00, 36][..], ID.as_bytes()].concat()),
        (0, [&[0x0a, 0xa4, 0x00][..], ID.as_bytes()].concat()),
        (7, field(8, 0, &[0x85, 0x00])),
        (7, field(8, 0, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00])),
        (16, field(1_001, 0, &[0x80, 0x00])),
    ];
    for (index, padded) in overlong {
        assert_eq!(refusal(&with(index, padded)), Refusal::OverlongVarint);
    }
    let ten = |last| field(8, 0, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, last]);
    assert_eq!(refusal(&with(7, ten(2))), Refusal::VarintTooLarge);
    assert_eq!(refusal(&with(7, ten(0x81))), Refusal::VarintTooLarge);
    assert_eq!(scan(&with(7, ten(1))).unwrap().sequence(), Some(u64::MAX));
}

#[test]
fn what_protobuf_does_not_have_or_this_protocol_does_not_want_is_refused() {
    assert_eq!(refusal(&with(0, field(0, 2, &[0]))), Refusal::FieldNumber);
    assert_eq!(refusal(&with(18, field(536_870_912, 0, &[1]))), Refusal::FieldNumber);
    assert_eq!(refusal(&with(18, field(536_870_911, 2, &[0]))), Refusal::SecondTrailer);
    assert_eq!(refusal(&with(15, field(1_000, 3, &[]))), Refusal::Group);
    assert_eq!(refusal(&with(15, field(1_000, 4, &[]))), Refusal::Group);
    assert_eq!(refusal(&with(15, field(1_000, 6, &[]))), Refusal::WireType);
    assert_eq!(refusal(&with(15, field(1_000, 7, &[]))), Refusal::WireType);
    assert_eq!(refusal(&with(14, text(24, b"b"))), Refusal::UnknownField { number: 24 });
    assert_eq!(refusal(&with(15, text(999, b"b"))), Refusal::UnknownField { number: 999 });
}

#[test]
fn a_known_field_has_the_wire_type_of_the_schema() {
    let varints = [(2, 3), (5, 6), (7, 8), (8, 9)];
    let texts = [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (9, 10), (10, 20), (12, 21), (13, 22), (14, 23)];
    let in_place = |(index, number), wire_type, value: &[u8]| {
        let found = refusal(&with(index, field(number, wire_type, value)));
        assert!(matches!(found, Refusal::WrongWireType { .. }), "field {number} as {wire_type}: {found}");
    };
    for place in varints {
        in_place(place, 2, &[1, 1]);
    }
    for place in texts {
        in_place(place, 0, &[1]);
    }
    for place in varints.into_iter().chain(texts) {
        in_place(place, 1, &[0; 8]);
        in_place(place, 5, &[0; 4]);
    }
}

#[test]
fn a_default_that_is_written_out_is_refused() {
    for (index, number, name) in [
        (1, 2, "source_component"),
        (3, 4, "subject"),
        (4, 5, "destination"),
        (6, 7, "correlation_id"),
        (13, 22, "bundle"),
    ] {
        assert_eq!(refusal(&with(index, text(number, b""))), Refusal::ExplicitDefault { field: name });
    }
    for (index, number, name) in [(2, 3, "timestamp_utc"), (5, 6, "expires_at"), (7, 8, "sequence"), (8, 9, "priority")]
    {
        assert_eq!(refusal(&with(index, field(number, 0, &[0]))), Refusal::ExplicitDefault { field: name });
    }
}

#[test]
fn values_out_of_bounds_are_refused() {
    let out_of_bounds = |index, replacement, name: &str| {
        let found = refusal(&with(index, replacement));
        assert!(matches!(found, Refusal::OutOfBounds { field, .. } if field == name), "{found}");
    };
    out_of_bounds(1, text(2, &[b'a'; 64]), "source_component");
    out_of_bounds(2, field(3, 0, &varint(u64::MAX)), "timestamp_utc");
    out_of_bounds(3, text(4, &[b'a'; 513]), "subject");
    out_of_bounds(4, text(5, &[b'a'; 513]), "destination");
    out_of_bounds(5, field(6, 0, &varint(1 << 63)), "expires_at");
    out_of_bounds(6, text(7, &[7; 31]), "correlation_id");
    out_of_bounds(8, field(9, 0, &[11]), "priority");
    out_of_bounds(8, field(9, 0, &varint(256 + 5)), "priority");
    out_of_bounds(11, text(20, b""), "tags");
    out_of_bounds(11, text(20, &[b'a'; 65]), "tags");
    out_of_bounds(11, text(20, b"a").repeat(16), "tags");
    out_of_bounds(13, text(22, &[0; 16_385]), "bundle");
    assert!(scan(&with(11, text(20, b"a").repeat(15))).is_ok());
    assert!(scan(&with(13, text(22, &[0; 16_384]))).is_ok());
    let long = MAX_PREFIX_LEN + 1;
    assert_eq!(refusal(&vec![0; long]), Refusal::TooLong { len: long, max: MAX_PREFIX_LEN });
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    for (index, number, name) in
        [(1, 2, "source_component"), (3, 4, "subject"), (4, 5, "destination"), (11, 20, "tags")]
    {
        assert_eq!(refusal(&with(index, text(number, b"\xff"))), Refusal::NotUtf8 { field: name });
    }
}

#[test]
fn a_message_id_is_a_uuid_of_version_7_in_one_form() {
    for id in [
        "0199f1a2-0000-4000-8000-000000000000",
        "0199f1a2-0000-7000-c000-000000000000",
        "0199F1A2-0000-7000-8000-000000000000",
        "0199f1a200007000800000000000000000000",
        "0199f1a2-0000-7000-8000-00000000000",
        "0199f1a2-0000-7000-8000-0000000000000",
        "{199f1a2-0000-7000-8000-000000000000",
        "\u{e9}199f1a-0000-7000-8000-00000000000",
    ] {
        assert_eq!(refusal(&with(0, text(1, id.as_bytes()))), Refusal::MessageId, "{id}");
    }
}

#[test]
fn every_truncation_is_refused_or_lacks_only_what_is_optional() {
    let prefix = fields().concat();
    let ends: Vec<usize> = fields()
        .iter()
        .scan(0, |end, field| {
            *end += field.len();
            Some(*end)
        })
        .collect();
    for length in 0..prefix.len() {
        let result = scan(&prefix[..length]);
        if length == 0 || ends.contains(&length) {
            assert_eq!(result.is_ok(), ends.iter().position(|end| *end == length).is_some_and(|index| index >= 9));
        } else {
            assert_eq!(result.unwrap_err().refusal, Refusal::Truncated, "{length}");
        }
    }
}

fn batch_of(members: &[Vec<u8>]) -> Vec<u8> {
    let members: Vec<u8> = members.iter().flat_map(|member| text(1, member)).collect();
    with(9, text(18, &members))
}

fn member() -> Vec<Vec<u8>> {
    vec![text(1, ID.as_bytes()), field(3, 0, &varint(NOW as u64)), text(13, &[8, 1])]
}

#[test]
fn the_members_of_a_batch_obey_the_same_rules() {
    let at = |member: Vec<Vec<u8>>| {
        let error = scan(&batch_of(&[self::member().concat(), member.concat()])).map(drop).err()?;
        assert_eq!(error.place, Place::Member(1), "{error}");
        Some(error.refusal)
    };
    let with = |index: usize, replacement: Vec<u8>| {
        let mut member = member();
        member[index] = replacement;
        at(member)
    };
    assert_eq!(at(member()), None);
    assert_eq!(with(0, vec![]), Some(Refusal::Missing { field: "message_id" }));
    assert_eq!(with(1, vec![]), Some(Refusal::Missing { field: "timestamp_utc" }));
    assert_eq!(with(2, vec![]), Some(Refusal::NoPayload));
    assert_eq!(with(2, text(13, &[]).repeat(2)), Some(Refusal::SeveralPayloads));
    assert_eq!(with(2, text(17, &[])), Some(Refusal::NestedForm));
    assert_eq!(with(2, text(18, &[])), Some(Refusal::NestedForm));
    assert_eq!(with(2, text(19, &[])), Some(Refusal::NestedForm));
    assert_eq!(with(2, text(10, &[])), Some(Refusal::MixedBatch));
    assert_eq!(with(1, field(3, 0, &[0])), Some(Refusal::ExplicitDefault { field: "timestamp_utc" }));
    assert_eq!(with(1, field(3, 0, &[0x81, 0])), Some(Refusal::OverlongVarint));
    assert_eq!(with(0, text(1, ID.as_bytes()).repeat(2)), Some(Refusal::Repeated { field: "message_id" }));
    assert_eq!(with(1, text(4, b"a.subject")), Some(Refusal::UnknownField { number: 4 }));
    assert_eq!(
        with(1, [member()[1].clone(), member()[0].clone()].concat()),
        Some(Refusal::OutOfOrder { number: 1, after: 3 })
    );
    assert_eq!(with(2, [member()[2].clone(), text(536_870_911, b"")].concat()), Some(Refusal::SecondTrailer));
    assert_eq!(with(2, [member()[2].clone(), text(1_000, b"")].concat()), None);
}

/// A payload or trace context that is refused for one reason: its field in the envelope, its bytes, and the reason.
fn bad_bodies() -> Vec<(u64, Vec<u8>, Refusal)> {
    let out_of_bounds = |field, rule| Refusal::OutOfBounds { field, rule };
    let below_32 = |field| out_of_bounds(field, "it must be below 2^32");
    let below_31 = |field| out_of_bounds(field, "it must be below 2^31");
    let default = |field| Refusal::ExplicitDefault { field };
    let one = 1.0_f64.to_le_bytes();
    vec![
        (10, field(1, 1, &0.0_f64.to_le_bytes()), default("cpu_usage")),
        (10, field(2, 1, &(-0.0_f64).to_le_bytes()), default("ram_usage")),
        (10, field(1, 1, &one).repeat(2), Refusal::Repeated { field: "cpu_usage" }),
        (10, field(1, 0, &[1]), Refusal::WrongWireType { field: "cpu_usage" }),
        (10, field(1, 1, &one[..7]), Refusal::Truncated),
        (10, [field(2, 1, &one), field(1, 1, &one)].concat(), Refusal::OutOfOrder { number: 1, after: 2 }),
        (10, field(3, 1, &one), Refusal::UnknownField { number: 3 }),
        (11, text(1, b""), default("threat_type")),
        (11, text(1, b"\xff"), Refusal::NotUtf8 { field: "threat_type" }),
        (11, field(2, 0, &varint(1 << 31)), below_31("severity")),
        (11, text(3, b"a").repeat(2), Refusal::Repeated { field: "description" }),
        (12, vec![8, 1, 16, 5, 8, 2, 16, 6], Refusal::OutOfOrder { number: 1, after: 2 }),
        (12, vec![8, 1, 8, 2, 16, 6], Refusal::Repeated { field: "command_type" }),
        (12, vec![8, 0, 16, 5], default("command_type")),
        (12, vec![8, 0x81, 0, 16, 5], Refusal::OverlongVarint),
        (12, [vec![8, 1], field(2, 0, &varint((1 << 32) + 5))].concat(), below_32("target_pid")),
        (12, field(1, 0, &varint((1 << 32) + 1)), below_31("command_type")),
        (12, field(1, 0, &varint(u64::MAX)), below_31("command_type")),
        (12, vec![10, 1, 1], Refusal::WrongWireType { field: "command_type" }),
        (13, vec![8, 0], default("uptime")),
        (13, text(2, b"\xc0\x80"), Refusal::NotUtf8 { field: "version" }),
        (13, vec![8, 1, 0x0b], Refusal::Group),
        (14, vec![8, 0], default("status")),
        (14, text(4, b"a"), Refusal::UnknownField { number: 4 }),
        (15, text(2, b""), default("message")),
        (15, [text(2, b"a"), vec![8, 1]].concat(), Refusal::OutOfOrder { number: 1, after: 2 }),
        (16, text(2, b""), default("value")),
        (16, text(1, b"a").repeat(2), Refusal::Repeated { field: "type_name" }),
        (16, text(536_870_911, b""), Refusal::SecondTrailer),
    ]
}

#[test]
fn what_a_payload_holds_is_in_its_one_encoding() {
    for (number, body, expected) in bad_bodies() {
        let error = scan(&with(9, text(number, &body))).unwrap_err();
        assert_eq!(error, ScanError { place: Place::Payload, refusal: expected }, "{body:x?}");
    }
    for (number, body) in [
        (10, field(1, 1, &1.0_f64.to_le_bytes())),
        (12, [vec![8, 1], field(2, 0, &varint(u64::from(u32::MAX)))].concat()),
        (13, field(1, 0, &varint(u64::MAX))),
        (15, [vec![8, 1], text(1_000, b"from the future")].concat()),
        (16, [text(1, b"a.B"), text(2, &[0xff; 9])].concat()),
    ] {
        assert!(scan(&with(9, text(number, &body))).is_ok(), "{body:x?}");
    }
}

#[test]
fn what_a_members_payload_holds_is_in_its_one_encoding() {
    for (number, body, expected) in bad_bodies() {
        let parts = member();
        let bad = [&parts[0], &parts[1], &text(number, &body)].map(Vec::as_slice).concat();
        let error = scan(&batch_of(&[bad])).unwrap_err();
        assert_eq!(error, ScanError { place: Place::Member(0), refusal: expected }, "{body:x?}");
    }
}

#[test]
fn a_trace_context_is_in_its_one_encoding() {
    let refused = |body: &[u8]| {
        let error = scan(&with(12, text(21, body))).unwrap_err();
        assert_eq!(error.place, Place::TraceContext, "{error}");
        error.refusal
    };
    assert_eq!(refused(&[0xff]), Refusal::Truncated);
    assert_eq!(refused(&[0x08, 0x01]), Refusal::WrongWireType { field: "traceparent" });
    assert_eq!(refused(&text(1, b"")), Refusal::ExplicitDefault { field: "traceparent" });
    assert_eq!(refused(&text(1, b"a").repeat(2)), Refusal::Repeated { field: "traceparent" });
    assert_eq!(refused(&[text(2, b"a"), text(1, b"a")].concat()), Refusal::OutOfOrder { number: 1, after: 2 });
    assert_eq!(refused(&text(2, b"\xff")), Refusal::NotUtf8 { field: "tracestate" });
    assert_eq!(refused(&text(3, b"a")), Refusal::UnknownField { number: 3 });
    assert!(scan(&with(12, text(21, &[text(1, b"00"), text(2, b"a")].concat()))).is_ok());
}

#[test]
fn a_batch_has_1_to_256_members_and_nothing_else() {
    let at_batch = |prefix: &[u8]| {
        let ScanError { place, refusal } = scan(prefix).unwrap_err();
        assert_eq!(place, Place::Batch);
        refusal
    };
    let one = member().concat();
    assert_eq!(at_batch(&batch_of(&[])), Refusal::EmptyBatch);
    assert_eq!(at_batch(&batch_of(&vec![one.clone(); MAX_MEMBERS + 1])), Refusal::TooManyMembers);
    assert_eq!(scan(&batch_of(&vec![one.clone(); MAX_MEMBERS])).unwrap().members().len(), MAX_MEMBERS);
    let stray = text(18, &[text(1, &one), text(2, b"")].concat());
    assert_eq!(at_batch(&with(9, stray)), Refusal::UnknownField { number: 2 });
    let not_a_member = text(18, &field(1, 0, &[1]));
    assert_eq!(at_batch(&with(9, not_a_member)), Refusal::WrongWireType { field: "members" });
}

/// The scan read of something sealed what the decoder read.
fn assert_same_sealed(seen: Option<&SealedView<'_>>, decoded: Option<&v1::Sealed>) {
    assert_eq!(seen.is_some(), decoded.is_some());
    let Some((seen, decoded)) = seen.zip(decoded) else { return };
    assert_eq!(seen.epoch_id()[..], decoded.epoch_id);
    assert_eq!(seen.commitment()[..], decoded.commitment);
    assert_eq!(seen.counter(), decoded.counter);
    assert_eq!(seen.ciphertext(), decoded.ciphertext);
    assert_eq!(seen.wrapped_keys().len(), decoded.wrapped_keys.len());
    for (seen, decoded) in seen.wrapped_keys().iter().zip(&decoded.wrapped_keys) {
        assert_eq!(seen.recipient(), decoded.recipient);
        assert_eq!(seen.key_version(), decoded.key_version);
        assert_eq!(seen.wrapped(), decoded.wrapped);
    }
}

/// The scan read what the decoder read. Call it with what both accepted.
fn assert_agree(scan: &Scan<'_>, envelope: &Envelope, prefix: &[u8]) {
    assert_eq!(scan.message_id(), envelope.message_id);
    assert_eq!(scan.source_component(), envelope.source_component);
    assert_eq!(scan.timestamp(), envelope.timestamp_utc);
    assert_eq!(scan.subject(), envelope.subject);
    assert_eq!(scan.destination().unwrap_or_default(), envelope.destination);
    assert_eq!(scan.expires_at().unwrap_or_default(), envelope.expires_at);
    assert_eq!(scan.correlation_id().map_or(&[][..], |id| id), envelope.correlation_id);
    assert_eq!(scan.sequence().unwrap_or_default(), envelope.sequence);
    assert_eq!(u32::from(scan.priority().unwrap_or_default()), envelope.priority);
    assert_eq!(scan.bundle().unwrap_or_default(), envelope.bundle);
    assert!(envelope.authentication.is_none());
    assert_eq!(&prefix[scan.payload().range()], scan.payload().bytes());
    // The payload that the scan saw is the one that the decoder took: encoded alone, it decodes to the same.
    let alone = text(payload_number(scan.payload().kind()), scan.payload().bytes());
    assert_eq!(Envelope::decode(alone.as_slice()).unwrap().payload, envelope.payload);
    let sealed = match &envelope.payload {
        Some(Payload::Sealed(sealed)) => Some(sealed),
        _ => None,
    };
    assert_same_sealed(scan.sealed(), sealed);
    assert_same_sealed(scan.references(), envelope.references.as_ref());
    let compressed = match &envelope.payload {
        Some(Payload::Compressed(it)) => Some((it.length, &it.frame[..])),
        _ => None,
    };
    assert_eq!(scan.payload().compressed(), compressed);
    let members = match &envelope.payload {
        Some(Payload::Batch(batch)) => batch.members.as_slice(),
        _ => &[],
    };
    assert_eq!(scan.members().len(), members.len());
    for (seen, decoded) in scan.members().iter().zip(members) {
        assert_eq!(seen.message_id(), decoded.message_id);
        assert_eq!(seen.timestamp(), decoded.timestamp_utc);
        assert_eq!(seen.expires_at().unwrap_or_default(), decoded.expires_at);
        assert_eq!(seen.correlation_id().map_or(&[][..], |id| id), decoded.correlation_id);
        assert_eq!(&prefix[seen.payload().range()], seen.payload().bytes());
        let alone = text(payload_number(seen.payload().kind()), seen.payload().bytes());
        assert_eq!(v1::BatchMember::decode(alone.as_slice()).unwrap().payload, decoded.payload);
    }
}

fn payload_number(kind: PayloadKind) -> u64 {
    use PayloadKind as K;
    let plain = [K::Telemetry, K::Alert, K::Command, K::Heartbeat, K::CommandResult, K::Error, K::Custom];
    let kinds = [&plain[..], &[K::Sealed, K::Batch, K::Compressed]].concat();
    10 + kinds.iter().position(|one| *one == kind).unwrap() as u64
}

fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        (0.0..=100.0, 0.0..=100.0)
            .prop_map(|(cpu_usage, ram_usage)| v1::TelemetryEvent { cpu_usage, ram_usage }.into()),
        (".{0,20}", 0..6, ".{0,200}").prop_map(|(threat_type, severity, description)| {
            v1::AlertEvent { threat_type, severity, description }.into()
        }),
        (0..3, any::<u32>())
            .prop_map(|(command_type, target_pid)| v1::CommandRequest { command_type, target_pid }.into()),
        (".{0,9}", prop::collection::vec(any::<u8>(), 0..99))
            .prop_map(|(type_name, value)| Payload::Custom(v1::Custom { type_name, value: value.into() })),
        sealeds().prop_map(Payload::Sealed),
        (1..=8_388_608_u32, prop::collection::vec(any::<u8>(), 1..99))
            .prop_map(|(length, frame)| Payload::Compressed(v1::Compressed { length, frame: frame.into() })),
        (1..300_usize).prop_map(|members| batch(members.min(MAX_MEMBERS))),
    ]
}

fn sealeds() -> impl Strategy<Value = v1::Sealed> {
    (any::<u32>(), prop::collection::vec(any::<u8>(), 17..99), 0..4_usize)
        .prop_map(|(counter, ciphertext, recipients)| sealed(counter.into(), ciphertext, recipients))
}

prop_compose! {
    fn envelopes()(
        payload in payloads(),
        (subject, destination) in ("[a-z.>*é]{1,60}", "[a-z:/]{0,40}"),
        (timestamp_utc, expires_at) in (1..=i64::MAX, prop_oneof![Just(0), 1..=i64::MAX]),
        correlated in any::<bool>(),
        (sequence, priority) in (any::<u64>(), 0..=10_u32),
        tags in prop::collection::vec("[a-z]{1,9}", 0..4),
        trace in any::<bool>(),
        bundle in prop::collection::vec(any::<u8>(), 0..50),
        references in prop::option::of(sealeds()),
    ) -> Envelope {
        Envelope {
            timestamp_utc, subject, destination, expires_at, sequence, priority, tags, references,
            correlation_id: if correlated { vec![7; 32].into() } else { bus_proto::prost::bytes::Bytes::new() },
            trace_context: trace.then(|| v1::TraceContext { traceparent: "00".into(), tracestate: String::new() }),
            bundle: bundle.into(),
            ..Component::envelope(&AGENT, payload)
        }
    }
}

static AGENT: std::sync::LazyLock<Component> = std::sync::LazyLock::new(Component::agent);

proptest! {
    #[test]
    fn what_our_encoder_writes_is_accepted_and_read_as_the_decoder_reads_it(envelope in envelopes()) {
        let prefix = envelope.encode_to_vec();
        let scan = scan(&prefix).unwrap();
        assert_agree(&scan, &Envelope::decode(prefix.as_slice()).unwrap(), &prefix);
    }

    #[test]
    fn whatever_is_accepted_is_read_as_the_decoder_reads_it(
        envelope in envelopes(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut prefix = envelope.encode_to_vec();
        for (at, byte, edit) in edits {
            let at = at.index(prefix.len());
            match edit {
                0 => prefix[at] = byte,
                1 => prefix.insert(at, byte),
                _ => drop(prefix.remove(at)),
            }
        }
        let Ok(seen) = scan(&prefix) else { return Ok(()) };
        let decoded = Envelope::decode(prefix.as_slice()).unwrap();
        assert_agree(&seen, &decoded, &prefix);
        // A decoder drops unknown fields. Whatever else is accepted is what an encoder writes.
        let encoded = decoded.encode_to_vec();
        prop_assert!(encoded == prefix || encoded.len() < prefix.len() && scan(&encoded).is_ok(), "{prefix:x?}");
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = scan(&bytes);
    }

    #[test]
    fn a_moved_field_is_refused(from in 0..19_usize, to in 0..19_usize) {
        let mut moved = fields();
        let one = moved.remove(from);
        moved.insert(to, one);
        let tags = [10, 11];
        prop_assume!(from != to && !(tags.contains(&from) && tags.contains(&to)));
        let found = refusal(&moved.concat());
        prop_assert!(matches!(found, Refusal::OutOfOrder { .. }), "{found}");
    }

    #[test]
    fn two_messages_one_after_the_other_are_not_merged(one in envelopes(), other in envelopes()) {
        let merged = [one.encode_to_vec(), other.encode_to_vec()].concat();
        prop_assert!(Envelope::decode(merged.as_slice()).is_ok(), "a decoder merges them");
        prop_assert!(scan(&merged).is_err());
    }
}

#[test]
fn a_custom_payload_shows_what_a_decoder_finds_in_it() {
    for (type_name, value) in [("acme.v1.Disk", &b"\x08\x07"[..]), ("acme.v1.Empty", b"")] {
        let custom = v1::Custom { type_name: type_name.into(), value: value.to_vec().into() };
        let mut envelope = Envelope::new(&"agent-01".parse().unwrap(), Payload::Custom(custom.clone()), NOW, [7; 10]);
        envelope.subject = "ransomeye.events.x-disk.agent.agent-01".into();
        let prefix = envelope.encode_to_vec();
        let scan = scan(&prefix).unwrap();
        assert_eq!(scan.payload().custom(), Some((type_name, value)));
        assert_eq!(scan.payload().decode(), Ok(Payload::Custom(custom)));
    }
}
