//! What was sealed or compressed, after it was opened or decompressed.

use bus_crypto::compression::{compress, decompress};
use bus_crypto::{Content, PayloadKind, scan_content, scan_decompressed, scan_references};
use bus_proto::prost::Message;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Envelope, References};
use zstd::stream::read::Decoder;

use crate::fixture::SENDER;
use crate::known::{self, ENVELOPE, REFERENCES};
use crate::{limits, reading};

/// The most that a frame may hold here, in bytes.
const MAX: usize = 256 * 1024;

/// What was opened or decompressed. It is accepted exactly if it is what an encoder writes for one payload within its bounds,
/// unknown fields within the payload aside; and it is read as in an envelope.
pub fn content(data: &[u8]) {
    let (sealed, compressed) = (scan_content(data), scan_decompressed(data));
    let decoded = Envelope::decode(data).ok();
    let fine = decoded.as_ref().is_some_and(|decoded| is_fine(decoded, data));
    match (&sealed, &decoded) {
        (Ok(content), Some(decoded)) => same(data, content, decoded),
        (Ok(_), None) => panic!("what the scan accepts is a message"),
        (Err(error), _) => assert!(!fine, "refused without a reason ({error}): {decoded:?}"),
    }
    match sealed {
        Ok(content) if content.payload().kind() == PayloadKind::Compressed => {
            assert!(compressed.is_err(), "compressed once only");
        }
        other => assert_eq!(other.is_ok(), compressed.is_ok()),
    }
}

/// Whether it is the one encoding of a payload within its bounds, and of nothing beside it.
fn is_fine(decoded: &Envelope, data: &[u8]) -> bool {
    let alone = Envelope { payload: decoded.payload.clone(), ..Envelope::default() };
    let may_be_inside = |payload: &Payload| !matches!(payload, Payload::Sealed(_)) && limits::payload(payload);
    alone.encode_to_vec() == data && decoded.payload.as_ref().is_some_and(may_be_inside)
}

/// What is accepted has one reading: the decoder's, and that of a scan of the envelope around it.
fn same(data: &[u8], content: &Content<'_>, decoded: &Envelope) {
    let alone = Envelope { payload: decoded.payload.clone(), ..Envelope::default() };
    assert_eq!(known::without_unknown(data, &ENVELOPE), alone.encode_to_vec(), "there is one encoding");
    assert!(is_fine(decoded, &alone.encode_to_vec()), "the scan knows the bounds: {decoded:?}");
    let payload = decoded.payload.as_ref().unwrap();
    reading::same_payload(data, content.payload(), reading::of_envelope(payload));
    assert_eq!(content.payload().range().end, data.len(), "nothing stands beside it");
    let mut prefix = Envelope { payload: None, sequence: 0, ..SENDER.heartbeat() }.encode_to_vec();
    let start = prefix.len();
    prefix.extend(data);
    let Some(scan) = reading::compare(&prefix) else { panic!("a content is a payload of an envelope: {decoded:?}") };
    assert_eq!(scan.payload().range(), start + content.payload().range().start..prefix.len());
    assert_eq!(scan.payload().bytes(), content.payload().bytes());
    assert_eq!(scan.members().len(), content.members().len());
}

/// References after they were opened: accepted exactly if they are what an encoder writes, within their bounds.
pub fn references(data: &[u8]) {
    let decoded = References::decode(data);
    match (scan_references(data), decoded) {
        (Ok(views), Ok(decoded)) => {
            assert_eq!(known::without_unknown(data, &REFERENCES), decoded.encode_to_vec(), "there is one encoding");
            assert!(limits::references(&decoded), "the scan knows the bounds: {decoded:?}");
            let read = views.iter().map(|view| (view.kind(), view.value()));
            assert!(read.eq(decoded.references.iter().map(|it| (it.kind.as_str(), it.value.as_str()))));
        }
        (Ok(_), Err(error)) => panic!("what the scan accepts is a message: {error}"),
        (Err(error), Ok(decoded)) => {
            let fine = decoded.encode_to_vec() == data && limits::references(&decoded);
            assert!(!fine, "refused without a reason ({error}): {decoded:?}");
        }
        (Err(_), Err(_)) => {}
    }
}

/// A frame behind the length that is stated beside it, in four bytes: what is accepted has so many bytes, and is what another
/// decoder finds in it, which reads piece by piece. And what is compressed, is decompressed to the same.
pub fn compressed(data: &[u8]) {
    let Some((length, frame)) = data.split_first_chunk() else { return };
    let length = u32::from_le_bytes(*length);
    let found = decompress(length, frame, MAX);
    let size = usize::try_from(length).unwrap();
    if let Ok(content) = found {
        assert_eq!(content.len(), size);
        // Raw blocks and runs may be longer than RFC 8878 says, which reading piece by piece refuses.
        assert!(read_in_pieces(frame, size).is_none_or(|other| other == content), "there is one reading");
    }
    if let Some(frame) = compress(frame, 1).unwrap() {
        let (content, length) = (&data[4..], data.len() - 4);
        assert!(frame.len() < length);
        assert_eq!(decompress(u32::try_from(length).unwrap(), &frame, length).as_deref(), Ok(content));
        assert!(decompress(u32::try_from(length + 1).unwrap(), &frame, MAX).is_err());
    }
}

/// What is in one frame without anything behind it, if it is `length` bytes.
fn read_in_pieces(frame: &[u8], length: usize) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut rest = frame;
    let mut content = Vec::new();
    let mut decoder = Decoder::with_buffer(&mut rest).ok()?.single_frame();
    decoder.by_ref().take(u64::try_from(length).unwrap() + 1).read_to_end(&mut content).ok()?;
    drop(decoder);
    (content.len() == length && rest.is_empty()).then_some(content)
}
