//! Frames of Zstandard, written by hand.

use std::collections::BTreeMap;

use super::file::{Bytes, File, FrameVector, Outcome, unhex};
use super::form::refused;

/// The most that a receiver takes unless a vector says otherwise.
const MAX: usize = 8 * 1024 * 1024;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The descriptor of a frame that states how much it holds in one byte, and of one that says nothing of it.
const STATED: u8 = 0x20;
const UNSTATED: u8 = 0;

/// A window of 2 MiB.
const WINDOW: u8 = 0x58;

/// The name of a recipient a hundred times, as the reference implementation compresses it at level 19, with a checksum.
const COMPRESSED: &str = "28b52ffd64d80d65010014027370696666653a2f2f72616e736f6d6579652e746573742f636f72652d30312c200200af4eca6b2014272fb64759";

fn frame(header: &[u8], blocks: &[Vec<u8>]) -> Vec<u8> {
    [&MAGIC, header, &blocks.concat()].concat()
}

/// The three bytes before a block: 0 is raw, 1 is one byte many times, 2 is compressed.
fn block(kind: u32, size: u32, last: bool, content: &[u8]) -> Vec<u8> {
    let header = size << 3 | kind << 1 | u32::from(last);
    [&header.to_le_bytes()[..3], content].concat()
}

fn repeated(size: u32, last: bool) -> Vec<u8> {
    block(1, size, last, b"a")
}

/// Blocks of 128 KiB that hold 8 MiB, in 256 bytes.
fn bomb() -> Vec<Vec<u8>> {
    (1..=64).map(|number| repeated(1 << 17, number == 64)).collect()
}

struct Vectors(Vec<FrameVector>);

impl Vectors {
    fn add(&mut self, name: &str, comment: &str, length: u32, frame: Vec<u8>, outcome: Outcome<Bytes>) {
        let (name, comment, frame) = (name.into(), comment.into(), Bytes(frame));
        self.0.push(FrameVector { name, comment, length, max: MAX, frame, outcome });
    }

    fn accept(&mut self, name: &str, comment: &str, frame: Vec<u8>, content: Vec<u8>) {
        let length = u32::try_from(content.len()).expect("a short content");
        self.add(name, comment, length, frame, Outcome::Accepted(Bytes(content)));
    }

    fn refuse(&mut self, name: &str, comment: &str, length: u32, frame: Vec<u8>, reason: &str) {
        self.add(name, comment, length, frame, refused(&format!("Compression.{reason}"), None));
    }
}

pub(crate) fn file() -> File<FrameVector> {
    let mut vectors = Vectors(Vec::new());
    accepted(&mut vectors);
    lengths(&mut vectors);
    not_one_frame(&mut vectors);
    damaged(&mut vectors);
    File {
        about: "Frames of Zstandard, with the length that is stated beside each, and the most that the receiver takes."
            .into(),
        bundles: BTreeMap::default(),
        vectors: vectors.0,
    }
}

fn accepted(vectors: &mut Vectors) {
    let ten = || vec![b'a'; 10];
    vectors.accept("a run", "one byte ten times", frame(&[STATED, 10], &[repeated(10, true)]), ten());
    vectors.accept("raw", "not compressed", frame(&[STATED, 3], &[block(0, 3, true, b"raw")]), b"raw".to_vec());
    let two = [block(0, 3, false, b"raw"), repeated(10, true)];
    vectors.accept("two blocks", "of two kinds", frame(&[STATED, 13], &two), [b"raw".to_vec(), ten()].concat());
    let silent = frame(&[UNSTATED, WINDOW], &[repeated(10, true)]);
    vectors.accept("a frame that does not say how much it holds", "the length beside it does", silent, ten());
    let wide = frame(&[UNSTATED, 20 << 3], &[repeated(10, true)]);
    vectors.accept("a window of 1 GiB", "no more is needed than what stands beside the frame", wide, ten());
    let named = frame(&[STATED | 1, 0, 10], &[repeated(10, true)]);
    vectors.accept("the dictionary 0", "0 stands for none", named, ten());
    let empty = [repeated(10, false), block(0, 0, true, b"")];
    vectors.accept("an empty last block", "it ends the frame", frame(&[STATED, 10], &empty), ten());
    let compressed = unhex(COMPRESSED).expect("hexadecimal");
    let content = b"spiffe://ransomeye.test/core/core-01, ".repeat(100);
    vectors.accept("compressed", "with a checksum", compressed, content);
    let comment = "8 MiB in 262 bytes: what compresses this well is not forbidden, and bounded all the same";
    vectors.accept("as much as there may be", comment, frame(&[UNSTATED, WINDOW], &bomb()), vec![b'a'; MAX]);
}

fn lengths(vectors: &mut Vectors) {
    let ten = || frame(&[STATED, 10], &[repeated(10, true)]);
    for length in [1, 9, 11, 8_388_608] {
        let name = format!("{length} beside 10");
        vectors.refuse(&name, "the frame states another length than what stands beside it", length, ten(), "Length");
    }
    let silent = |size| frame(&[UNSTATED, WINDOW], &[repeated(size, true)]);
    let comment = "the frame says nothing, and holds too few";
    vectors.refuse("10 beside a silent 9", comment, 10, silent(9), "Length");
    let outcome = refused("Compression.TooLong", None);
    vectors.add("one more than the receiver takes", "the length beside it counts", 10, ten(), outcome);
    if let Some(last) = vectors.0.last_mut() {
        last.max = 9;
    }
    vectors.refuse("more than there may be", "before the frame is looked at", 8_388_609, vec![0], "TooLong");
    vectors.refuse("2^32 - 1", "before the frame is looked at", u32::MAX, ten(), "TooLong");
}

fn not_one_frame(vectors: &mut Vectors) {
    let one = frame(&[STATED, 10], &[repeated(10, true)]);
    let comment = "exactly one frame";
    vectors.refuse("twice", comment, 10, one.repeat(2), "NotOneFrame");
    vectors.refuse("two frames that hold as much together", comment, 20, one.repeat(2), "NotOneFrame");
    vectors.refuse("a byte behind it", comment, 10, [&one[..], &[0]].concat(), "NotOneFrame");
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
    let comment = "a skippable frame holds nothing, and hides something";
    vectors.refuse("a skippable frame", comment, 1, skippable.to_vec(), "NotOneFrame");
    vectors.refuse("a skippable frame before it", comment, 10, [&skippable, &one[..]].concat(), "NotOneFrame");
    vectors.refuse("a skippable frame behind it", comment, 10, [&one[..], &skippable].concat(), "NotOneFrame");
    for length in [1, 3, 4, 5, 6, 8, 9] {
        vectors.refuse(&format!("{length} bytes of 10"), "cut off", 10, one[..length].to_vec(), "NotOneFrame");
    }
    let unfinished = frame(&[STATED, 10], &[repeated(10, false)]);
    vectors.refuse("no last block", "cut off", 10, unfinished, "NotOneFrame");
    let compressed = unhex(COMPRESSED).expect("hexadecimal");
    let without_checksum = compressed[..compressed.len() - 4].to_vec();
    vectors.refuse("a checksum that is not there", "the header announces it", 3_800, without_checksum, "NotOneFrame");
    let old = [&[0x27], &one[1..]].concat();
    vectors.refuse("a format from before RFC 8878", "other first bytes", 10, old, "NotOneFrame");
    vectors.refuse("no frame", "other first bytes", 10, b"ten bytes.".to_vec(), "NotOneFrame");
    let reserved = frame(&[STATED | 8, 10], &[repeated(10, true)]);
    vectors.refuse("a reserved bit in the header", "RFC 8878, section 3.1.1.1.1.4", 10, reserved, "NotOneFrame");
    let wide = frame(&[UNSTATED, 22 << 3], &[repeated(10, true)]);
    vectors.refuse("a window of 4 GiB", "more than any decoder has", 10, wide, "NotOneFrame");
    let kind = frame(&[STATED, 10], &[block(3, 10, true, b"a")]);
    vectors.refuse("a reserved kind of block", "RFC 8878, section 3.1.1.2.2", 10, kind, "NotOneFrame");
    let comment = "nobody has it";
    let named = frame(&[STATED | 1, 7, 10], &[repeated(10, true)]);
    vectors.refuse("a dictionary", comment, 10, named, "Dictionary");
    let named = frame(&[STATED | 3, 1, 2, 3, 4, 11], &[repeated(10, true)]);
    vectors.refuse("a dictionary and another length", "the dictionary comes first", 10, named, "Dictionary");
}

fn damaged(vectors: &mut Vectors) {
    let comment = "no more is written than is stated";
    let lies = |length| frame(&[STATED, length], &bomb());
    vectors.refuse("a bomb that says 10", comment, 10, lies(10), "Damaged");
    let silent = || frame(&[UNSTATED, WINDOW], &bomb());
    vectors.refuse("a bomb that says nothing", comment, 10, silent(), "Damaged");
    vectors.refuse("a bomb of one more", comment, 8_388_607, silent(), "Damaged");
    let one_more = frame(&[STATED, 10], &[repeated(10, false), repeated(1, true)]);
    vectors.refuse("one more than it says", comment, 10, one_more, "Damaged");
    let fewer = frame(&[STATED, 10], &[repeated(9, true)]);
    vectors.refuse("one less than it says", "the header and the blocks differ", 10, fewer, "Damaged");
    let fewer = frame(&[STATED, 10], &[repeated(9, false), block(0, 0, true, b"")]);
    vectors.refuse("one less than it says, and an empty block", "some decoders overlook it", 10, fewer, "Damaged");
    let nothing = frame(&[STATED, 10], &[repeated(10, false), block(2, 0, true, b"")]);
    vectors.refuse("an empty compressed block", "some decoders overlook it", 10, nothing, "Damaged");
    let mut compressed = unhex(COMPRESSED).expect("hexadecimal");
    *compressed.last_mut().expect("a checksum") ^= 1;
    vectors.refuse("another checksum", "one bit", 3_800, compressed, "Damaged");
    let broken = frame(&[STATED, 10], &[block(2, 4, true, &[0xff; 4])]);
    vectors.refuse("a compressed block that is none", "its bytes make no sense", 10, broken, "Damaged");
}
