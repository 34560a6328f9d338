//! Compressed payloads: one frame of Zstandard (RFC 8878), read within bounds that are known beforehand.
//!
//! A payload is compressed before it is sealed, and decompressed after it is opened. What is compressed together with a secret
//! tells something of the secret by its length, sealed or not: so whoever lets others choose a part of a payload does not
//! compress it.
//!
//! ```
//! use bus_crypto::compression::{compress, decompress};
//!
//! let content = b"the same, ".repeat(100);
//! let frame = compress(&content, 3)?.ok_or("nothing to gain")?;
//! assert!(frame.len() < 100);
//! assert_eq!(decompress(1_000, &frame, 8_388_608)?, content);
//! assert_eq!(compress(b"too short to gain anything", 3)?, None);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

use alloc::vec::Vec;

use zstd::zstd_safe::{self, CCtx, DCtx};

use crate::scan::MAX_PREFIX_LEN;

/// The first bytes of a frame (RFC 8878, section 3.1.1). A skippable frame begins otherwise.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// The most bytes that a payload field `compressed` has beside its frame: two for its tag, one for each tag inside, and three
/// numbers below 2²⁸.
const AROUND_FRAME: usize = 2 + 1 + 1 + 3 * 4;

/// Why something is not compressed or decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// There are more bytes than a message may have, or than the caller takes.
    #[error("the content has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// How many bytes there are, uncompressed.
        length: usize,
        /// How many there may be.
        max: usize,
    },
    /// The bytes are not one Zstandard frame: they are cut off, something follows, or they are of another form.
    #[error("the compressed bytes are not exactly one Zstandard frame")]
    NotOneFrame,
    /// The frame was compressed with a dictionary.
    #[error("the frame needs a dictionary, and none may be used")]
    Dictionary,
    /// The frame holds another number of bytes than is stated beside it.
    #[error("the frame does not hold the {length} bytes that are stated beside it")]
    Length {
        /// How many bytes are stated.
        length: usize,
    },
    /// The frame is damaged, or there is more in it than in its header.
    #[error("the frame is damaged, or holds more than it says")]
    Damaged,
    /// Zstandard failed, for want of memory.
    #[error("no memory is left for compressing or decompressing")]
    Memory,
}

/// Compresses the content of a payload into one frame. `None` if a message would not be shorter for it: then it goes as it is.
///
/// The `level` is one of Zstandard's: 1 is fast and 19 small, 3 is the usual; 0 stands for 3 and what is out of range for the
/// nearest.
///
/// # Errors
///
/// When the content has more than 8,388,608 bytes, or no memory is left.
pub fn compress(content: &[u8], level: i32) -> Result<Option<Vec<u8>>, CompressionError> {
    check_length(content.len(), MAX_PREFIX_LEN)?;
    let mut context = CCtx::try_create().ok_or(CompressionError::Memory)?;
    let mut frame = with_capacity(zstd_safe::compress_bound(content.len()))?;
    context.compress(&mut frame, content, level).map_err(|_| CompressionError::Memory)?;
    let shorter = frame.len() + AROUND_FRAME < content.len();
    Ok(shorter.then_some(frame))
}

/// Decompresses a frame that holds exactly `length` bytes, as [`PayloadView::compressed`](crate::PayloadView::compressed) shows
/// both.
///
/// Nothing is allocated for more than `max` bytes, nor for a frame whose header contradicts `length`; whatever the frame turns
/// out to hold, no more than `length` bytes of it are written.
///
/// # Errors
///
/// When `length` is more than `max`; when the bytes are not exactly one frame, without a dictionary, of `length` bytes; or when
/// no memory is left.
pub fn decompress(length: u32, frame: &[u8], max: usize) -> Result<Vec<u8>, CompressionError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    check_length(length, max)?;
    let one_frame = frame.starts_with(&MAGIC) && zstd_safe::find_frame_compressed_size(frame) == Ok(frame.len());
    if !one_frame {
        return Err(CompressionError::NotOneFrame);
    }
    if zstd_safe::get_dict_id_from_frame(frame).is_some() {
        return Err(CompressionError::Dictionary);
    }
    // A compressor that did not know the length beforehand leaves it out.
    let stated = zstd_safe::get_frame_content_size(frame).map_err(|_| CompressionError::NotOneFrame)?;
    if stated.is_some_and(|stated| usize::try_from(stated) != Ok(length)) {
        return Err(CompressionError::Length { length });
    }
    let mut context = DCtx::try_create().ok_or(CompressionError::Memory)?;
    let mut content = with_capacity(length)?;
    context.decompress(&mut content, frame).map_err(|_| CompressionError::Damaged)?;
    if content.len() == length { Ok(content) } else { Err(CompressionError::Length { length }) }
}

fn check_length(length: usize, max: usize) -> Result<(), CompressionError> {
    if length > max { Err(CompressionError::TooLong { length, max }) } else { Ok(()) }
}

fn with_capacity(capacity: usize) -> Result<Vec<u8>, CompressionError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(capacity).map_err(|_| CompressionError::Memory)?;
    Ok(bytes)
}
