//! The last bytes of a message.

use bus_crypto::trailer as trailers;
use bus_proto::prost::Message;
use bus_proto::v1::{Authentication, Envelope};

/// A message that may end with a trailer.
pub fn trailer(data: &[u8]) {
    let expected = written(data);
    let Ok(split) = trailers::split(data) else {
        assert!(!expected.is_some_and(|expected| data.ends_with(&expected)), "this is a trailer");
        return;
    };
    assert!(expected.is_some_and(|expected| data.ends_with(&expected)), "a protobuf encoder writes it so");
    let mut appended = split.prefix.to_vec();
    trailers::append(&mut appended, &split.key_id, &split.signature);
    assert_eq!(appended, data);
}

/// The trailer that a protobuf encoder writes with the key id and the signature that would stand in this message.
fn written(data: &[u8]) -> Option<Vec<u8>> {
    let (_, trailer) = data.split_at_checked(data.len().checked_sub(trailers::TRAILER_LEN)?)?;
    let (key_id, signature) = (trailer[8..40].to_vec().into(), trailer[42..].to_vec().into());
    let authentication = Some(Authentication { key_id, signature });
    Some(Envelope { authentication, ..Envelope::default() }.encode_to_vec())
}
