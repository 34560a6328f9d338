//! Protobuf written by hand, so that a vector can be wrong in one place only.

use super::file::{Outcome, Refused};

/// A number in protobuf's variable length.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

/// A field with any wire type and these bytes as its value.
pub(crate) fn field(number: u64, wire_type: u64, value: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | wire_type), value].concat()
}

/// A field that holds a number.
pub(crate) fn number(field_number: u64, value: u64) -> Vec<u8> {
    field(field_number, 0, &varint(value))
}

/// A field that holds text, bytes or a message.
pub(crate) fn bytes(field_number: u64, value: &[u8]) -> Vec<u8> {
    field(field_number, 2, &[&varint(value.len() as u64), value].concat())
}

/// A field that holds a floating-point number.
pub(crate) fn double(field_number: u64, value: f64) -> Vec<u8> {
    field(field_number, 1, &value.to_le_bytes())
}

/// A refusal, with the place where the canonical scan refuses.
pub(crate) fn refused<T>(reason: &str, place: Option<&str>) -> Outcome<T> {
    Outcome::Refused(Refused { reason: reason.into(), place: place.map(str::to_owned) })
}
