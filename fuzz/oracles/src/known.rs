//! A message without the fields that this version does not know.

use bus_proto::prost::encoding::{decode_varint, encode_varint};

/// The lowest number of a field that a receiver may ignore.
const FIRST_FREE_FIELD: u64 = 1_000;

/// The fields of a message that are messages.
pub(crate) struct Schema(&'static [(u64, &'static Schema)]);

pub(crate) static FLAT: Schema = Schema(&[]);
static SEALED: Schema = Schema(&[(5, &FLAT)]);
static MEMBER: Schema =
    Schema(&[(10, &FLAT), (11, &FLAT), (12, &FLAT), (13, &FLAT), (14, &FLAT), (15, &FLAT), (16, &FLAT)]);
static BATCH: Schema = Schema(&[(1, &MEMBER)]);
pub(crate) static REFERENCES: Schema = Schema(&[(1, &FLAT)]);
pub(crate) static ENVELOPE: Schema = Schema(&[
    (10, &FLAT),
    (11, &FLAT),
    (12, &FLAT),
    (13, &FLAT),
    (14, &FLAT),
    (15, &FLAT),
    (16, &FLAT),
    (17, &SEALED),
    (18, &BATCH),
    (19, &FLAT),
    (21, &FLAT),
    (23, &SEALED),
]);

impl Schema {
    /// The payload in a field of an envelope or a member.
    pub(crate) fn payload(number: u64) -> &'static Self {
        ENVELOPE.0.iter().find(|(other, _)| *other == number).expect("a payload is a message").1
    }
}

/// Leaves out the fields from 1,000 on, at every depth, of a well-formed message without groups.
pub(crate) fn without_unknown(mut rest: &[u8], schema: &Schema) -> Vec<u8> {
    let mut kept = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let key = decode_varint(&mut rest).unwrap();
        let length = match key & 7 {
            0 => rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1,
            1 => 8,
            2 => usize::try_from(decode_varint(&mut rest).unwrap()).unwrap(),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, after) = rest.split_at(length);
        rest = after;
        let number = key >> 3;
        if number >= FIRST_FREE_FIELD {
            continue;
        }
        encode_varint(key, &mut kept);
        let inner = schema.0.iter().find(|(other, _)| *other == number);
        let value = inner.map_or_else(|| value.to_vec(), |(_, schema)| without_unknown(value, schema));
        if key & 7 == 2 {
            encode_varint(value.len() as u64, &mut kept);
        }
        kept.extend(value);
    }
    kept
}
