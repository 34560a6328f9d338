//! What decompression takes, and that it takes no more memory than it was told to.

use bus_crypto::compression::{CompressionError, compress, decompress};
use bus_crypto::{scan_content, scan_decompressed};
use bus_proto::prost::Message;
use bus_proto::v1::{Compressed, Envelope, envelope::Payload};
use proptest::prelude::*;

use crate::support::batch;

const MAX: usize = 8_388_608;

/// The descriptor of a frame that states how much it holds in one byte, and of one that says nothing of it.
const STATED: u8 = 0x20;
const UNSTATED: u8 = 0;

/// A window of 2 MiB.
const WINDOW: u8 = 0x58;

/// A frame with this after its magic number: the rest of its header, and blocks.
fn frame(header: &[u8], blocks: &[Vec<u8>]) -> Vec<u8> {
    [&[0x28, 0xb5, 0x2f, 0xfd], header, &blocks.concat()].concat()
}

/// A block that holds one byte many times, in four bytes of its own.
fn repeated(size: u32, last: bool) -> Vec<u8> {
    let header = size << 3 | 1 << 1 | u32::from(last);
    [&header.to_le_bytes()[..3], b"a"].concat()
}

/// Blocks of 128 KiB that hold 8 MiB, in 256 bytes.
fn bomb() -> Vec<Vec<u8>> {
    (1..=64).map(|number| repeated(1 << 17, number == 64)).collect()
}

fn damaged() -> Result<Vec<u8>, CompressionError> {
    Err(CompressionError::Damaged)
}

#[test]
fn a_frame_holds_what_was_compressed() {
    let content = Envelope { payload: Some(batch(200)), ..Envelope::default() }.encode_to_vec();
    for level in [-1, 0, 1, 3, 19, 22, i32::MAX] {
        let frame = compress(&content, level).unwrap().expect("a batch is repetitive");
        let length = content.len() as u32;
        assert_eq!(decompress(length, &frame, content.len()).as_ref(), Ok(&content), "level {level}");
        let compressed = Payload::Compressed(Compressed { length, frame: frame.into() });
        let whole = Envelope { payload: Some(compressed), ..Envelope::default() }.encode_to_vec();
        assert!(whole.len() < content.len());
        let (length, frame) = scan_content(&whole).unwrap().payload().compressed().unwrap();
        let opened = decompress(length, frame, MAX).unwrap();
        assert_eq!(scan_decompressed(&opened).unwrap().members().len(), 200);
    }
}

#[test]
fn what_would_not_be_shorter_is_left_as_it_is() {
    let text = b"the fastest level finds nothing that repeats itself, nothing that repeats itself";
    assert_eq!(compress(text, i32::MIN), Ok(None));
    assert_eq!(compress(b"", 3), Ok(None));
    assert_eq!(compress(b"aaaaaaaaaaaaaaaaaaaa", 3), Ok(None));
    let random: Vec<u8> = (0..100_u32).flat_map(|number| bus_crypto::sha256(&number.to_be_bytes())).collect();
    assert_eq!(compress(&random, 19), Ok(None));
}

#[test]
fn more_than_a_message_may_hold_is_not_compressed() {
    let most = vec![7; MAX];
    let frame = compress(&most, 1).unwrap().unwrap();
    assert_eq!(decompress(MAX as u32, &frame, MAX).as_ref(), Ok(&most));
    let more = vec![7; MAX + 1];
    assert_eq!(compress(&more, 1), Err(CompressionError::TooLong { length: MAX + 1, max: MAX }));
}

#[test]
fn more_than_the_caller_takes_is_refused() {
    let frame = compress(&[7; 1_000], 3).unwrap().unwrap();
    let too_long = |length, max| Err(CompressionError::TooLong { length, max });
    assert_eq!(decompress(1_000, &frame, 999), too_long(1_000, 999));
    assert_eq!(decompress(u32::MAX, &frame, MAX), too_long(4_294_967_295, MAX));
    assert!(decompress(1_000, &frame, 1_000).is_ok());
}

#[test]
fn a_frame_that_states_another_length_is_refused() {
    let frame = compress(&[7; 1_000], 3).unwrap().unwrap();
    for length in [0, 1, 999, 1_001, 8_388_608] {
        let expected = CompressionError::Length { length: length as usize };
        assert_eq!(decompress(length, &frame, MAX), Err(expected));
    }
}

#[test]
fn a_frame_that_says_little_and_holds_much_is_refused() {
    let lies = frame(&[STATED, 10], &bomb());
    assert_eq!(decompress(10, &lies, MAX), damaged());
    let one_more = frame(&[STATED, 10], &[repeated(10, false), repeated(1, true)]);
    assert_eq!(decompress(10, &one_more, MAX), damaged());
    let silent = frame(&[UNSTATED, WINDOW], &bomb());
    assert_eq!(decompress(10, &silent, MAX), damaged());
    assert_eq!(decompress(MAX as u32 - 1, &silent, MAX), damaged());
    assert_eq!(decompress(MAX as u32, &silent, MAX).map(|content| content.len()), Ok(MAX), "the control");
}

#[test]
fn a_frame_that_holds_less_than_it_says_is_refused() {
    let exact = frame(&[STATED, 10], &[repeated(10, true)]);
    assert_eq!(decompress(10, &exact, MAX), Ok(vec![b'a'; 10]), "the control");
    let lies = frame(&[STATED, 10], &[repeated(9, true)]);
    assert_eq!(decompress(10, &lies, MAX), damaged());
    let silent = frame(&[UNSTATED, WINDOW], &[repeated(9, true)]);
    assert_eq!(decompress(10, &silent, MAX), Err(CompressionError::Length { length: 10 }));
}

#[test]
fn only_one_whole_frame_is_taken() {
    let one = frame(&[STATED, 10], &[repeated(10, true)]);
    let refused =
        |bytes: &[u8]| assert_eq!(decompress(10, bytes, MAX), Err(CompressionError::NotOneFrame), "{bytes:x?}");
    refused(&one.repeat(2));
    refused(&[&one[..], &[0]].concat());
    for length in 0..one.len() {
        refused(&one[..length]);
    }
    // A skippable frame is not content, before it, after it or alone.
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
    refused(&skippable);
    refused(&[&skippable[..], &one].concat());
    refused(&[&one[..], &skippable].concat());
    let unfinished = frame(&[STATED, 10], &[repeated(10, false)]);
    refused(&unfinished);
    // A format from before RFC 8878, and none.
    refused(&[&[0x27], &one[1..]].concat());
    refused(b"ten bytes.");
}

#[test]
fn a_frame_with_a_dictionary_is_refused() {
    let named = frame(&[STATED | 1, 7, 10], &[repeated(10, true)]);
    assert_eq!(decompress(10, &named, MAX), Err(CompressionError::Dictionary));
    let zero = frame(&[STATED | 1, 0, 10], &[repeated(10, true)]);
    assert_eq!(decompress(10, &zero, MAX), Ok(vec![b'a'; 10]), "0 stands for none");
}

#[test]
fn a_damaged_block_is_refused() {
    let reserved = frame(&[STATED, 10], &[vec![10 << 3 | 3 << 1 | 1, 0, 0, b'a']]);
    assert!(decompress(10, &reserved, MAX).is_err());
    let mut frame = compress(&b"a text that repeats itself, ".repeat(9), 3).unwrap().unwrap();
    let last = frame.len() - 1;
    frame[last] = 0;
    assert_eq!(decompress(252, &frame, MAX), damaged());
}

proptest! {
    #[test]
    fn whatever_is_compressed_is_decompressed_to_the_same(
        pattern in prop::collection::vec(any::<u8>(), 0..40),
        times in 0..200_usize,
        level in -5..=12,
    ) {
        let content = pattern.repeat(times);
        if let Some(frame) = compress(&content, level).unwrap() {
            prop_assert!(frame.len() < content.len());
            prop_assert_eq!(decompress(content.len() as u32, &frame, content.len()).unwrap(), content);
        }
    }

    #[test]
    fn hostile_frames_yield_what_is_stated_or_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        length in 0..70_000_u32,
        whole in any::<bool>(),
    ) {
        let bytes = if whole { [&[0x28, 0xb5, 0x2f, 0xfd], &bytes[..]].concat() } else { bytes };
        if let Ok(content) = decompress(length, &bytes, MAX) {
            prop_assert_eq!(content.len(), length as usize);
        }
    }

    #[test]
    fn damaged_frames_yield_what_is_stated_or_nothing(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let content = Envelope { payload: Some(batch(20)), ..Envelope::default() }.encode_to_vec();
        let mut frame = compress(&content, 3).unwrap().unwrap();
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        if let Ok(found) = decompress(content.len() as u32, &frame, MAX) {
            prop_assert_eq!(found.len(), content.len());
        }
    }
}
