//! What the scan accepts of what is sealed or compressed, and of what is found inside.

use aws_lc_rs::digest::{SHA256, digest};
use bus_crypto::{
    MAX_MEMBERS, MAX_RECIPIENTS, MAX_REFERENCES, PayloadKind, Place, ReferenceView, Refusal, ScanError, WrappedKeyView,
};
use bus_crypto::{scan, scan_content, scan_decompressed, scan_references};
use bus_proto::prost::Message;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{self, Envelope};
use proptest::prelude::*;

use crate::support::{Component, NOW, batch, field, sealed, text, varint};

/// The prefix of an envelope with this payload, and with this after its other fields.
fn prefix(payload: &[u8], after: &[u8]) -> Vec<u8> {
    let before = Envelope {
        message_id: "0199f1a2-0000-7000-8000-000000000000".into(),
        source_component: "agent-01".into(),
        timestamp_utc: NOW,
        subject: "ransomeye.events.telemetry.agent.agent-01".into(),
        ..Envelope::default()
    };
    [&before.encode_to_vec(), payload, after].concat()
}

/// What the scan says of a sealed payload, and of references with the same bytes.
fn both(body: &[u8]) -> [Result<(), ScanError>; 2] {
    [prefix(&text(17, body), b""), prefix(&text(13, b""), &text(23, body))].map(|prefix| scan(&prefix).map(drop))
}

/// The one reason for which something sealed is refused, in a wrapped key or around them, as a payload and as references.
fn refused(body: &[u8], key: Option<u16>) -> Refusal {
    let [as_payload, as_references] = both(body).map(Result::unwrap_err);
    assert_eq!(as_payload.place, key.map_or(Place::Payload, Place::WrappedKey));
    assert_eq!(as_references, ScanError { place: Place::References, ..as_payload });
    as_payload.refusal
}

fn out_of_bounds(field: &'static str, rule: &'static str) -> Refusal {
    Refusal::OutOfBounds { field, rule }
}

/// Something sealed to two recipients, with a change.
fn changed(change: fn(&mut v1::Sealed)) -> Vec<u8> {
    let mut sealed = sealed(1, vec![7; 17], 2);
    change(&mut sealed);
    sealed.encode_to_vec()
}

#[test]
fn what_is_sealed_names_its_epoch_and_recipients() {
    let prefix = prefix(&text(17, &sealed(u64::from(u32::MAX), vec![7; 17], 3).encode_to_vec()), b"");
    let scan = scan(&prefix).unwrap();
    let sealed = scan.sealed().unwrap();
    assert_eq!((sealed.epoch_id(), sealed.commitment()), (&[1; 16], &[2; 32]));
    assert_eq!((sealed.counter(), sealed.ciphertext()), (4_294_967_295, &[7; 17][..]));
    for (place, key) in sealed.wrapped_keys().iter().enumerate() {
        assert_eq!(key.recipient(), format!("spiffe://ransomeye.local/core/core-{place:03}"));
        assert_eq!((key.key_version(), key.wrapped()), (place as u64 + 1, &[9; 80][..]));
        assert_eq!(sealed.wrapped_for(key.recipient()), Some(key));
    }
    assert_eq!(sealed.wrapped_for("spiffe://ransomeye.local/core/core-003"), None);
    assert_eq!(sealed.wrapped_for(""), None);
    assert_eq!(scan.references(), None);
}

#[test]
fn the_digest_of_the_recipients_is_over_their_names_and_key_versions() {
    let digest_of = |recipients| {
        let prefix = prefix(&text(17, &sealed(0, vec![7; 17], recipients).encode_to_vec()), b"");
        scan(&prefix).unwrap().sealed().unwrap().recipients_digest()
    };
    let mut expected = Vec::new();
    for place in 0..2_u8 {
        expected.extend([0, 38]);
        expected.extend(format!("spiffe://ransomeye.local/core/core-00{place}").bytes());
        expected.extend([0, 0, 0, 0, 0, 0, 0, place + 1]);
    }
    assert_eq!(digest_of(2).unwrap(), digest(&SHA256, &expected).as_ref());
    assert_eq!(digest_of(0), None);
}

#[test]
fn what_is_sealed_is_within_its_bounds() {
    let most = |recipients| sealed(0, vec![7; 17], recipients).encode_to_vec();
    assert_eq!(both(&most(0)), [Ok(()), Ok(())]);
    assert_eq!(both(&most(MAX_RECIPIENTS)), [Ok(()), Ok(())]);
    assert_eq!(refused(&most(257), None), out_of_bounds("wrapped_keys", "there may be at most 256"));
    type Change = fn(&mut v1::Sealed);
    let cases: [(Change, Refusal); 7] = [
        (|it| it.epoch_id.truncate(15), out_of_bounds("epoch_id", "it must be 16 bytes")),
        (|it| it.commitment.truncate(31), out_of_bounds("commitment", "it must be 32 bytes")),
        (|it| it.counter = 1 << 32, out_of_bounds("counter", "it must be below 2^32")),
        (|it| it.ciphertext.truncate(16), out_of_bounds("ciphertext", "it must be from 17 bytes")),
        (|it| it.epoch_id.clear(), Refusal::Missing { field: "epoch_id" }),
        (|it| it.commitment.clear(), Refusal::Missing { field: "commitment" }),
        (|it| it.ciphertext.clear(), Refusal::Missing { field: "ciphertext" }),
    ];
    for (change, expected) in cases {
        assert_eq!(refused(&changed(change), None), expected);
    }
}

#[test]
fn a_wrapped_key_is_complete_and_within_its_bounds() {
    let long = "it must be 1 to 2,048 bytes";
    type Change = fn(&mut v1::WrappedKey);
    let cases: [(Change, Refusal); 5] = [
        (|it| it.wrapped = vec![0; 2_049].into(), out_of_bounds("wrapped", long)),
        (|it| it.recipient = "t".repeat(513), out_of_bounds("recipient", "it must be 1 to 512 bytes")),
        (|it| it.recipient.clear(), Refusal::Missing { field: "recipient" }),
        (|it| it.key_version = 0, Refusal::Missing { field: "key_version" }),
        (|it| it.wrapped.clear(), Refusal::Missing { field: "wrapped" }),
    ];
    for (change, expected) in cases {
        let mut sealed = sealed(1, vec![7; 17], 2);
        change(&mut sealed.wrapped_keys[1]);
        assert_eq!(refused(&sealed.encode_to_vec(), Some(1)), expected);
    }
    let zero = [text(1, b"a"), field(2, 0, &[0]), text(3, b"b")].concat();
    let zero = [sealed(0, vec![7; 17], 0).encode_to_vec(), text(5, &zero)].concat();
    assert_eq!(refused(&zero, Some(0)), Refusal::ExplicitDefault { field: "key_version" });
}

#[test]
fn the_recipients_of_wrapped_keys_ascend() {
    let twice = changed(|it| it.wrapped_keys[1].recipient = it.wrapped_keys[0].recipient.clone());
    assert_eq!(refused(&twice, Some(1)), Refusal::UnorderedRecipients);
    let back = changed(|it| it.wrapped_keys.reverse());
    assert_eq!(refused(&back, Some(1)), Refusal::UnorderedRecipients);
    // The order is the one of the bytes, in which a name comes before those that it is the beginning of.
    let longer = changed(|it| it.wrapped_keys[1].recipient = format!("{}0", it.wrapped_keys[0].recipient));
    assert_eq!(both(&longer), [Ok(()), Ok(())]);
}

#[test]
fn two_million_bytes_of_empty_wrapped_keys_are_refused_at_the_first() {
    // Two bytes for each, of which a decoder makes a struct: two megabytes would become sixty.
    let empty = [sealed(0, vec![7; 17], 0).encode_to_vec(), text(5, b"").repeat(1_000_000)].concat();
    assert_eq!(refused(&empty, Some(0)), Refusal::Missing { field: "recipient" });
}

#[test]
fn what_is_sealed_is_in_its_one_encoding() {
    let good = sealed(1, vec![7; 17], 1).encode_to_vec();
    assert_eq!(refused(&[&good[..18], &good].concat(), None), Refusal::Repeated { field: "epoch_id" });
    let unordered = [&good[18..], &good[..18]].concat();
    assert_eq!(refused(&unordered, None), Refusal::OutOfOrder { number: 1, after: 5 });
    assert_eq!(refused(&[&good[..], &text(6, b"")].concat(), None), Refusal::UnknownField { number: 6 });
    assert_eq!(refused(&[&good[..], &[0x82]].concat(), None), Refusal::Truncated);
    assert_eq!(both(&[&good[..], &text(1_000, b"")].concat()), [Ok(()), Ok(())]);
}

#[test]
fn the_payload_is_read_before_the_trace_context_and_that_before_the_references() {
    let place = |payload: &[u8], trace: &[u8]| {
        let prefix = prefix(payload, &[text(21, trace), text(23, b"")].concat());
        scan(&prefix).unwrap_err().place
    };
    assert_eq!(place(&text(17, b""), &[0xff]), Place::Payload);
    assert_eq!(place(&text(13, b""), &[0xff]), Place::TraceContext);
    assert_eq!(place(&text(13, b""), b""), Place::References);
}

#[test]
fn a_compressed_payload_states_its_length_and_has_a_frame() {
    let of = |body: &[u8]| {
        let prefix = prefix(&text(19, body), b"");
        scan(&prefix).map(|scan| {
            assert_eq!(scan.payload().kind(), PayloadKind::Compressed);
            let (length, frame) = scan.payload().compressed().unwrap();
            (length, frame.to_vec())
        })
    };
    let refused = |body: &[u8]| {
        let error = of(body).unwrap_err();
        assert_eq!(error.place, Place::Payload);
        error.refusal
    };
    let length = |length| field(1, 0, &varint(length));
    let frame = text(2, b"a frame");
    assert_eq!(of(&[&length(1)[..], &frame].concat()), Ok((1, b"a frame".to_vec())));
    assert_eq!(of(&[&length(8_388_608)[..], &frame, &text(1_000, b"")].concat()), Ok((8_388_608, b"a frame".to_vec())));
    let bounds = out_of_bounds("length", "it must be 1 to 8,388,608");
    assert_eq!(refused(&[&length(8_388_609)[..], &frame].concat()), bounds);
    assert_eq!(refused(&[&length(u64::MAX)[..], &frame].concat()), bounds);
    assert_eq!(refused(&[&length(0)[..], &frame].concat()), Refusal::ExplicitDefault { field: "length" });
    assert_eq!(refused(&frame), Refusal::Missing { field: "length" });
    assert_eq!(refused(&length(1)), Refusal::Missing { field: "frame" });
    assert_eq!(refused(&[&length(1)[..], &text(2, b"")].concat()), Refusal::ExplicitDefault { field: "frame" });
    assert_eq!(refused(&[&length(1)[..], &frame.repeat(2)].concat()), Refusal::Repeated { field: "frame" });
    assert_eq!(refused(&[&length(1)[..], &frame, &text(3, b"")].concat()), Refusal::UnknownField { number: 3 });
    let telemetry = prefix(&text(10, b""), b"");
    assert_eq!(scan(&telemetry).unwrap().payload().compressed(), None);
}

#[test]
fn a_form_holds_only_the_forms_inside_it() {
    let compressed = text(19, &[field(1, 0, &[1]), text(2, b"a frame")].concat());
    let sealed = text(17, &sealed(0, vec![7; 17], 1).encode_to_vec());
    let batch = content(batch(2));
    let nested = Err(ScanError { place: Place::Content, refusal: Refusal::NestedForm });
    assert_eq!(scan_content(&sealed).map(drop), nested);
    assert_eq!(scan_decompressed(&sealed).map(drop), nested);
    assert_eq!(scan_decompressed(&compressed).map(drop), nested);
    let inside = scan_content(&compressed).unwrap();
    assert_eq!(inside.payload().compressed(), Some((1, &b"a frame"[..])));
    for inside in [scan_content(&batch).unwrap(), scan_decompressed(&batch).unwrap()] {
        assert_eq!((inside.payload().kind(), inside.members().len()), (PayloadKind::Batch, 2));
    }
}

#[test]
fn content_is_one_field_and_nothing_beside_it() {
    for read in [scan_content, scan_decompressed] {
        let refused = |bytes: &[u8]| {
            let error = read(bytes).unwrap_err();
            assert_eq!(error.place, Place::Content);
            error.refusal
        };
        let one = text(13, &[8, 1]);
        let inside = read(&one).unwrap();
        assert_eq!((inside.payload().bytes(), inside.payload().range()), (&[8, 1][..], 2..4));
        assert!(inside.members().is_empty());
        assert_eq!(refused(b""), Refusal::NoPayload);
        assert_eq!(refused(&one.repeat(2)), Refusal::SeveralPayloads);
        assert_eq!(refused(&[&one[..], &text(18, b"")].concat()), Refusal::SeveralPayloads);
        assert_eq!(refused(&[&text(9, b""), &one[..]].concat()), Refusal::UnknownField { number: 9 });
        assert_eq!(refused(&[&one[..], &text(1_000, b"")].concat()), Refusal::UnknownField { number: 1_000 });
        assert_eq!(refused(&one[..3]), Refusal::Truncated);
        assert_eq!(refused(&field(13, 0, &[1])), Refusal::WrongWireType { field: "payload" });
        assert_eq!(refused(&[0x6a, 0x80, 0x00]), Refusal::OverlongVarint);
        let long = 8_388_609;
        assert_eq!(refused(&vec![0; long]), Refusal::TooLong { len: long, max: long - 1 });
    }
}

#[test]
fn what_is_inside_a_contents_payload_is_checked_as_in_an_envelope() {
    let error = |bytes: &[u8]| {
        let error = scan_content(bytes).unwrap_err();
        assert_eq!(scan_decompressed(bytes).unwrap_err(), error);
        error
    };
    let default = Refusal::ExplicitDefault { field: "uptime" };
    assert_eq!(error(&text(13, &[8, 0])), ScanError { place: Place::Payload, refusal: default });
    assert_eq!(error(&text(18, b"")), ScanError { place: Place::Batch, refusal: Refusal::EmptyBatch });
    let member = content(batch(1));
    let many = text(18, &member[3..].repeat(MAX_MEMBERS + 1));
    assert_eq!(error(&many).place, Place::Batch);
    let id = Refusal::Missing { field: "message_id" };
    let nameless = text(18, &text(1, &[field(3, 0, &[1]), text(13, b"")].concat()));
    assert_eq!(error(&nameless), ScanError { place: Place::Member(0), refusal: id });
}

#[test]
fn references_are_1_to_64_complete_pairs() {
    let one = [text(1, b"case"), text(2, b"urn:case:7")].concat();
    let list = |count: usize| text(1, &one).repeat(count);
    let most = list(MAX_REFERENCES);
    let read = scan_references(&most).unwrap();
    assert_eq!(read.len(), 64);
    assert_eq!(read.first().map(|it| (it.kind(), it.value())), Some(("case", "urn:case:7")));
    let refused = |bytes: &[u8], place| {
        let error = scan_references(bytes).map(|read: Vec<ReferenceView<'_>>| read.len()).unwrap_err();
        assert_eq!(error.place, place);
        error.refusal
    };
    let whole = Place::References;
    assert_eq!(refused(b"", whole), Refusal::Missing { field: "references" });
    assert_eq!(refused(&text(1_000, b""), whole), Refusal::Missing { field: "references" });
    assert_eq!(refused(&list(65), whole), out_of_bounds("references", "there may be at most 64"));
    assert_eq!(refused(&[list(1), text(2, b"")].concat(), whole), Refusal::UnknownField { number: 2 });
    assert_eq!(refused(&field(1, 0, &[1]), whole), Refusal::WrongWireType { field: "references" });
    let second = |body: &[u8]| refused(&[list(1), text(1, body)].concat(), Place::Reference(1));
    let (kind, value) = (text(1, b"case"), text(2, b"7"));
    assert_eq!(second(&kind), Refusal::Missing { field: "value" });
    assert_eq!(second(&value), Refusal::Missing { field: "kind" });
    let [long_kind, long_value] = [text(1, &[b'a'; 65]), text(2, &[b'a'; 1_025])];
    assert_eq!(second(&[&long_kind[..], &value].concat()), out_of_bounds("kind", "it must be 1 to 64 bytes"));
    assert_eq!(second(&[&kind[..], &long_value].concat()), out_of_bounds("value", "it must be 1 to 1,024 bytes"));
    assert_eq!(second(&[&text(1, b"")[..], &value].concat()), Refusal::ExplicitDefault { field: "kind" });
    assert_eq!(second(&[&kind[..], &text(2, b"\xff")].concat()), Refusal::NotUtf8 { field: "value" });
    assert_eq!(second(&[&value[..], &kind].concat()), Refusal::OutOfOrder { number: 1, after: 2 });
}

/// The encoding of a payload as it stands in an envelope.
fn content(payload: Payload) -> Vec<u8> {
    Envelope { payload: Some(payload), ..Envelope::default() }.encode_to_vec()
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (scan_content(&bytes), scan_decompressed(&bytes), scan_references(&bytes), both(&bytes));
    }

    #[test]
    fn whatever_content_is_accepted_is_the_one_encoding_of_an_envelopes_payload(
        members in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..3),
    ) {
        let heartbeat = || v1::Heartbeat { uptime: 7, version: "0.1.0".into() }.into();
        let mut bytes = content(if members == 0 { heartbeat() } else { batch(members) });
        for (at, byte, edit) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let Ok(read) = scan_content(&bytes) else { return Ok(()) };
        let decoded = Envelope::decode(&bytes[..]).unwrap();
        prop_assert_eq!(Some(read.payload().decode().unwrap()), decoded.payload.clone());
        let encoded = decoded.encode_to_vec();
        prop_assert!(encoded == bytes || encoded.len() < bytes.len(), "only unknown fields inside the payload go");
    }

    #[test]
    fn a_recipients_key_is_found_among_any(names in prop::collection::btree_set("[a-c]{1,4}", 1..40), other in "[a-d]{1,4}") {
        let wrapped_keys = names.iter().map(|name| v1::WrappedKey {
            recipient: name.clone(),
            key_version: 1,
            wrapped: name.clone().into_bytes().into(),
        });
        let sealed = v1::Sealed { wrapped_keys: wrapped_keys.collect(), ..sealed(0, vec![7; 17], 0) };
        let prefix = Component::agent().envelope(Payload::Sealed(sealed)).encode_to_vec();
        let scan = scan(&prefix).unwrap();
        let found = |name: &str| scan.sealed().unwrap().wrapped_for(name).map(WrappedKeyView::wrapped);
        for name in &names {
            prop_assert_eq!(found(name), Some(name.as_bytes()));
        }
        prop_assert_eq!(found(&other).is_some(), names.contains(&other));
    }
}
