//! The scan and the protobuf decoder, asked about the same bytes.

use bus_crypto::{PayloadKind, PayloadView, Scan, SealedView};
use bus_proto::EnvelopeError;
use bus_proto::prost::Message;
use bus_proto::v1::batch_member::Payload as Inner;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Batch, Envelope, Sealed};

use crate::known::{self, FLAT, Schema};
use crate::limits;

/// Scans a prefix, and compares what comes of it with what the decoder says.
///
/// * What is accepted is, without the fields that this version does not know, exactly what an encoder writes for what a
///   decoder reads in it; it is within its bounds; and every value is the decoder's.
/// * What an encoder writes for values within their bounds is accepted.
pub(crate) fn compare(prefix: &[u8]) -> Option<Scan<'_>> {
    let decoded = Envelope::decode(prefix);
    match (bus_crypto::scan(prefix), decoded) {
        (Ok(scan), decoded) => {
            let decoded = decoded.expect("what the scan accepts is a message");
            let encoded = decoded.encode_to_vec();
            assert_eq!(known::without_unknown(prefix, &known::ENVELOPE), encoded, "there is one encoding");
            assert!(limits::allow(&decoded), "the scan knows the bounds: {decoded:?}");
            let form = decoded.check_form();
            assert!(!matches!(form, Err(EnvelopeError::MessageId { .. })), "there is one form of a UUID: {form:?}");
            same(prefix, &scan, &decoded);
            Some(scan)
        }
        (Err(error), Ok(decoded)) => {
            let fine = decoded.encode_to_vec() == prefix && limits::allow(&decoded);
            assert!(!fine, "refused without a reason ({error}): {decoded:?}");
            None
        }
        (Err(_), Err(_)) => None,
    }
}

fn same(prefix: &[u8], scan: &Scan<'_>, decoded: &Envelope) {
    assert_eq!(scan.message_id(), decoded.message_id);
    assert_eq!(scan.source_component(), decoded.source_component);
    assert_eq!(scan.timestamp(), decoded.timestamp_utc);
    assert_eq!(scan.subject(), decoded.subject);
    assert_eq!(scan.destination().unwrap_or_default(), decoded.destination);
    assert_eq!(scan.expires_at().unwrap_or_default(), decoded.expires_at);
    assert_eq!(scan.correlation_id().map_or(&[][..], |id| id), &decoded.correlation_id[..]);
    assert_eq!(scan.sequence().unwrap_or_default(), decoded.sequence);
    assert_eq!(u32::from(scan.priority().unwrap_or_default()), decoded.priority);
    assert_eq!(scan.tags(), decoded.tags);
    let trace_context = decoded.trace_context.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    assert_eq!(known::without_unknown(scan.trace_context(), &FLAT), trace_context);
    assert_eq!(scan.bundle().unwrap_or_default(), &decoded.bundle[..]);
    let payload = decoded.payload.as_ref().unwrap();
    same_payload(prefix, scan.payload(), of_envelope(payload));
    let sealed = match payload {
        Payload::Sealed(sealed) => Some(sealed),
        _ => None,
    };
    same_sealed(scan.sealed(), sealed);
    same_sealed(scan.references(), decoded.references.as_ref());
    let compressed = match payload {
        Payload::Compressed(it) => Some((it.length, &it.frame[..])),
        _ => None,
    };
    assert_eq!(scan.payload().compressed(), compressed);
    let members = match payload {
        Payload::Batch(Batch { members }) => members.as_slice(),
        _ => &[],
    };
    assert_eq!(scan.members().len(), members.len());
    for (seen, member) in scan.members().iter().zip(members) {
        assert_eq!(seen.message_id(), member.message_id);
        assert_eq!(seen.timestamp(), member.timestamp_utc);
        assert_eq!(seen.expires_at().unwrap_or_default(), member.expires_at);
        assert_eq!(seen.correlation_id().map_or(&[][..], |id| id), &member.correlation_id[..]);
        same_payload(prefix, seen.payload(), of_member(member.payload.as_ref().unwrap()));
    }
}

fn same_sealed(seen: Option<&SealedView<'_>>, decoded: Option<&Sealed>) {
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

pub(crate) fn same_payload(
    prefix: &[u8],
    seen: &PayloadView<'_>,
    (kind, number, encoded): (PayloadKind, u64, Vec<u8>),
) {
    assert_eq!(seen.kind(), kind);
    assert_eq!(&prefix[seen.range()], seen.bytes());
    assert_eq!(known::without_unknown(seen.bytes(), Schema::payload(number)), encoded);
}

pub(crate) fn of_envelope(payload: &Payload) -> (PayloadKind, u64, Vec<u8>) {
    match payload {
        Payload::Telemetry(it) => (PayloadKind::Telemetry, 10, it.encode_to_vec()),
        Payload::Alert(it) => (PayloadKind::Alert, 11, it.encode_to_vec()),
        Payload::Command(it) => (PayloadKind::Command, 12, it.encode_to_vec()),
        Payload::Heartbeat(it) => (PayloadKind::Heartbeat, 13, it.encode_to_vec()),
        Payload::CommandResult(it) => (PayloadKind::CommandResult, 14, it.encode_to_vec()),
        Payload::Error(it) => (PayloadKind::Error, 15, it.encode_to_vec()),
        Payload::Custom(it) => (PayloadKind::Custom, 16, it.encode_to_vec()),
        Payload::Sealed(it) => (PayloadKind::Sealed, 17, it.encode_to_vec()),
        Payload::Batch(it) => (PayloadKind::Batch, 18, it.encode_to_vec()),
        Payload::Compressed(it) => (PayloadKind::Compressed, 19, it.encode_to_vec()),
    }
}

fn of_member(payload: &Inner) -> (PayloadKind, u64, Vec<u8>) {
    match payload {
        Inner::Telemetry(it) => (PayloadKind::Telemetry, 10, it.encode_to_vec()),
        Inner::Alert(it) => (PayloadKind::Alert, 11, it.encode_to_vec()),
        Inner::Command(it) => (PayloadKind::Command, 12, it.encode_to_vec()),
        Inner::Heartbeat(it) => (PayloadKind::Heartbeat, 13, it.encode_to_vec()),
        Inner::CommandResult(it) => (PayloadKind::CommandResult, 14, it.encode_to_vec()),
        Inner::Error(it) => (PayloadKind::Error, 15, it.encode_to_vec()),
        Inner::Custom(it) => (PayloadKind::Custom, 16, it.encode_to_vec()),
    }
}
