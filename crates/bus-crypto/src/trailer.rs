//! The trailer: the last [`TRAILER_LEN`] bytes of every message, which say who vouches for the bytes before them.

use alloc::vec::Vec;

use crate::keys::{KeyId, SIGNATURE_LEN, Signature};

/// The length of the trailer, in bytes.
pub const TRAILER_LEN: usize = HEAD.len() + KeyId::LEN + BETWEEN.len() + SIGNATURE_LEN;

/// The key of field 536,870,911 with wire type 2, its length of 100 bytes, and the key and length of `key_id`.
const HEAD: [u8; 8] = [0xfa, 0xff, 0xff, 0xff, 0x0f, 0x64, 0x0a, 0x20];

/// The key and length of `signature`.
const BETWEEN: [u8; 2] = [0x12, 0x40];

/// A message that does not end with a trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message does not end with a trailer of {TRAILER_LEN} bytes: it is not signed")]
#[non_exhaustive]
pub struct TrailerError;

/// A message, taken apart into what is signed and what signs it. Nothing is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// The message without its trailer.
    pub prefix: &'a [u8],
    /// The key that claims to have signed it.
    pub key_id: KeyId,
    /// The signature.
    pub signature: Signature,
}

/// Takes a message apart.
///
/// # Errors
///
/// When its last bytes are not exactly a trailer.
pub fn split(message: &[u8]) -> Result<Split<'_>, TrailerError> {
    let (rest, signature) = message.split_last_chunk::<SIGNATURE_LEN>().ok_or(TrailerError)?;
    let rest = rest.strip_suffix(&BETWEEN).ok_or(TrailerError)?;
    let (rest, key_id) = rest.split_last_chunk::<{ KeyId::LEN }>().ok_or(TrailerError)?;
    let prefix = rest.strip_suffix(&HEAD).ok_or(TrailerError)?;
    Ok(Split { prefix, key_id: KeyId::from_bytes(*key_id), signature: Signature::from_bytes(*signature) })
}

/// Appends a trailer to a prefix. Room for it is best reserved beforehand: [`TRAILER_LEN`] bytes.
pub fn append(message: &mut Vec<u8>, key_id: &KeyId, signature: &Signature) {
    message.reserve_exact(TRAILER_LEN);
    message.extend_from_slice(&HEAD);
    message.extend_from_slice(key_id.as_bytes());
    message.extend_from_slice(&BETWEEN);
    message.extend_from_slice(signature.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use bus_proto::prost::Message;
    use bus_proto::v1::{Authentication, Envelope};

    #[test]
    fn a_trailer_is_what_a_protobuf_encoder_writes() {
        let (key_id, signature) = (KeyId::from_bytes([7; 32]), Signature::from_bytes([9; 64]));
        let authentication = Authentication { key_id: vec![7; 32].into(), signature: vec![9; 64].into() };
        let mut envelope = Envelope { sequence: 300, ..Envelope::default() };
        let mut message = envelope.encode_to_vec();
        let prefix = message.clone();
        append(&mut message, &key_id, &signature);
        envelope.authentication = Some(authentication);
        assert_eq!(message, envelope.encode_to_vec());
        assert_eq!(message.len(), prefix.len() + TRAILER_LEN);
        assert_eq!(split(&message), Ok(Split { prefix: &prefix, key_id, signature }));
    }

    #[test]
    fn a_trailer_of_another_shape_is_none() {
        let mut message = vec![];
        append(&mut message, &KeyId::from_bytes([7; 32]), &Signature::from_bytes([9; 64]));
        for length in 0..message.len() {
            assert_eq!(split(&message[message.len() - length..]), Err(TrailerError), "{length} bytes");
            assert_eq!(split(&message[..length]), Err(TrailerError), "{length} bytes");
        }
        for position in (0..8).chain(40..42) {
            let mut other = message.clone();
            other[position] ^= 1;
            assert_eq!(split(&other), Err(TrailerError), "byte {position}");
        }
        message.push(0);
        assert_eq!(split(&message), Err(TrailerError));
    }
}
