//! What can be wrong with any message of the protocol, whatever it says: applied to each place that the scan reads.

use super::form::{bytes, field, number, varint};

/// A message in one place: a good one, and what is particular to it.
pub(crate) struct Subject {
    /// The place, as `docs/wire.md` calls it.
    pub(crate) place: &'static str,
    /// What it is, for the names of the vectors.
    pub(crate) title: &'static str,
    /// The fields of a good one, in order, each with its key.
    pub(crate) fields: Vec<Vec<u8>>,
    /// Which of them may stand once only: one that another follows.
    pub(crate) once: Option<usize>,
    /// Whether its unknown fields are refused whatever their number.
    pub(crate) closed: bool,
    /// Fields put in the place of others: name, what it shows, place in `fields`, the replacement, and the refusal.
    pub(crate) replacements: Vec<(&'static str, &'static str, usize, Vec<u8>, &'static str)>,
    /// Which fields are mandatory.
    pub(crate) mandatory: Vec<(usize, &'static str)>,
}

/// A message that is wrong in one way.
pub(crate) struct Corruption {
    pub(crate) name: String,
    pub(crate) comment: String,
    pub(crate) message: Vec<u8>,
    pub(crate) reason: String,
}

/// The key of a field that is unknown and ignored, with a wire type.
fn unknown(wire_type: u64) -> Vec<u8> {
    varint(1_000 << 3 | wire_type)
}

impl Subject {
    /// The good one.
    pub(crate) fn good(&self) -> Vec<u8> {
        self.fields.concat()
    }

    /// Every way in which it can be wrong.
    pub(crate) fn corruptions(&self) -> Vec<Corruption> {
        let mut all = Vec::new();
        let mut add = |name: &str, comment: &str, message: Vec<u8>, reason: &str| {
            all.push(Corruption {
                name: format!("{}: {name}", self.title),
                comment: comment.into(),
                message,
                reason: format!("Scan.{reason}"),
            });
        };
        let with_end = |end: Vec<u8>| [self.good(), end].concat();
        for (name, comment, end, reason) in endings() {
            // Where no unknown field may be, the first of two is refused for that.
            if !(self.closed && name == DESCENDING) {
                add(name, comment, with_end(end), reason);
            }
        }
        for (field_number, refused) in [(999, true), (1_000, self.closed)] {
            if refused {
                let name = format!("unknown field {field_number}");
                add(
                    &name,
                    "a later version's field, where none may be",
                    with_end(number(field_number, 1)),
                    "UnknownField",
                );
            }
        }
        let first_again = [self.good(), self.fields[0].clone()].concat();
        if self.fields.len() > 1 {
            add("out of order", "the first field once more behind the others", first_again, "OutOfOrder");
        }
        if let Some(index) = self.once {
            let mut fields = self.fields.clone();
            fields[index] = fields[index].repeat(2);
            add("twice", "a field that may stand once, twice", fields.concat(), "Repeated");
        }
        for (name, comment, index, replacement, reason) in &self.replacements {
            let mut fields = self.fields.clone();
            fields[*index].clone_from(replacement);
            add(name, comment, fields.concat(), reason);
        }
        for (index, field_name) in &self.mandatory {
            let mut fields = self.fields.clone();
            fields.remove(*index);
            add(&format!("no {field_name}"), "a mandatory field is absent", fields.concat(), "Missing");
        }
        all
    }
}

const DESCENDING: &str = "descending unknown fields";

/// What stands behind a good message and spoils it.
fn endings() -> Vec<(&'static str, &'static str, Vec<u8>, &'static str)> {
    let end = |parts: &[&[u8]]| parts.concat();
    vec![
        (
            "truncated bytes",
            "five bytes are announced, four follow",
            end(&[&unknown(2), &[5, 0, 0, 0, 0]]),
            "Truncated",
        ),
        ("truncated key", "the bytes end within the key of a field", vec![0xc0], "Truncated"),
        ("truncated number", "a fixed number of eight bytes has seven", end(&[&unknown(1), &[1; 7]]), "Truncated"),
        ("overlong value", "0 in two bytes", end(&[&unknown(0), &[0x80, 0]]), "OverlongVarint"),
        ("overlong key", "a key with a byte more than it needs", vec![0xc0, 0xbe, 0x80, 0x00, 0], "OverlongVarint"),
        (
            "overlong length",
            "a length with a byte more than it needs",
            end(&[&unknown(2), &[0x81, 0, 0]]),
            "OverlongVarint",
        ),
        ("too large a value", "a 65th bit", end(&[&unknown(0), &[0xff; 9], &[2]]), "VarintTooLarge"),
        ("eleven bytes", "a number without an end", end(&[&unknown(0), &[0xff; 10], &[0]]), "VarintTooLarge"),
        ("field number 0", "protobuf has none", vec![0, 0], "FieldNumber"),
        ("field number 2^29", "one above the highest", end(&[&varint(1 << 32), &[0]]), "FieldNumber"),
        (
            "a trailer within",
            "the trailer's field stands at the end of a message alone",
            field(536_870_911, 2, &[0]),
            "SecondTrailer",
        ),
        ("a group begins", "groups are not allowed", unknown(3), "Group"),
        ("a group ends", "groups are not allowed", unknown(4), "Group"),
        ("wire type 6", "protobuf has none", end(&[&unknown(6), &[0]]), "WireType"),
        ("wire type 7", "protobuf has none", end(&[&unknown(7), &[0]]), "WireType"),
        (DESCENDING, "1,001 before 1,000", end(&[&number(1_001, 1), &number(1_000, 1)]), "OutOfOrder"),
    ]
}

/// Unknown fields of every wire type, one of them twice: to be ignored wherever a message is not closed.
pub(crate) fn ignored() -> Vec<u8> {
    [
        bytes(1_000, b"from the future"),
        bytes(1_000, b""),
        number(1_001, 0),
        field(1_002, 1, &[0; 8]),
        field(536_870_910, 5, &[0; 4]),
    ]
    .concat()
}
