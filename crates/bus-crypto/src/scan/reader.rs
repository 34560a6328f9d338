//! Protobuf's wire format, read one field at a time, in the one form that this protocol allows.

use crate::scan::Refusal;

/// The number of the trailer's field, the highest that protobuf allows.
const TRAILER_FIELD: u32 = 536_870_911;

/// Unknown fields are ignored from this number on, and refused below it.
const FIRST_FREE_FIELD: u32 = 1_000;

/// One field as it stands in the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    /// Whether the field before it has the same number.
    again: bool,
    value: Value<'a>,
    /// Where a length-delimited value begins, counted from the beginning of what is scanned.
    pub(crate) start: usize,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Eight bytes, a number in little-endian form.
    Fixed64(u64),
    /// Four bytes: no known field has this form, and nobody reads an unknown one.
    Fixed32,
}

/// Takes a message apart in one pass. Fields come in ascending order, or the reading ends with an error.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
    previous: u32,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which begin at `at` in what is scanned.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { rest: bytes, at, previous: 0 }
    }

    /// The next field, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, Refusal> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| Refusal::FieldNumber)?;
        let number = key >> 3;
        if number == 0 {
            return Err(Refusal::FieldNumber);
        }
        if number == TRAILER_FIELD {
            return Err(Refusal::SecondTrailer);
        }
        if number < self.previous {
            return Err(Refusal::OutOfOrder { number, after: self.previous });
        }
        let again = number == self.previous;
        self.previous = number;
        let (value, start) = self.value(key & 7)?;
        Ok(Some(Field { number, again, value, start }))
    }

    fn value(&mut self, wire_type: u32) -> Result<(Value<'a>, usize), Refusal> {
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => {
                let (bytes, _) = self.rest.split_first_chunk().ok_or(Refusal::Truncated)?;
                self.take(bytes.len())?;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Refusal::Truncated)?;
                let start = self.at;
                return Ok((Value::Bytes(self.take(length)?), start));
            }
            3 | 4 => return Err(Refusal::Group),
            5 => self.take(4).map(|_| Value::Fixed32)?,
            _ => return Err(Refusal::WireType),
        };
        Ok((value, self.at))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Refusal::Truncated)?;
        self.rest = rest;
        self.at += length;
        Ok(taken)
    }

    /// A varint in its shortest form.
    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if index == 9 && *byte > 1 {
                return Err(Refusal::VarintTooLarge);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                if index > 0 && bits == 0 {
                    return Err(Refusal::OverlongVarint);
                }
                self.take(index + 1)?;
                return Ok(value);
            }
        }
        Err(Refusal::Truncated)
    }
}

impl<'a> Field<'a> {
    /// The value of a varint field that stands once and is not 0, which is never encoded.
    pub(crate) fn varint(&self, field: &'static str) -> Result<u64, Refusal> {
        let Value::Varint(value) = self.value else {
            return Err(Refusal::WrongWireType { field });
        };
        self.once(field)?;
        if value == 0 {
            return Err(Refusal::ExplicitDefault { field });
        }
        Ok(value)
    }

    /// As [`Field::varint`], at most `max`. A decoder would cut off the higher bits.
    pub(crate) fn varint_up_to(&self, field: &'static str, max: u32, rule: &'static str) -> Result<u32, Refusal> {
        let value = self.varint(field)?;
        u32::try_from(value).ok().filter(|value| *value <= max).ok_or(Refusal::OutOfBounds { field, rule })
    }

    /// Checks a floating-point number that stands once and is not 0, of either sign, which is never encoded.
    pub(crate) fn double(&self, field: &'static str) -> Result<(), Refusal> {
        let Value::Fixed64(bits) = self.value else {
            return Err(Refusal::WrongWireType { field });
        };
        self.once(field)?;
        if bits << 1 == 0 { Err(Refusal::ExplicitDefault { field }) } else { Ok(()) }
    }

    /// A moment in Unix milliseconds, greater than 0.
    pub(crate) fn moment(&self, field: &'static str) -> Result<i64, Refusal> {
        let value = self.varint(field)?;
        i64::try_from(value)
            .map_err(|_| Refusal::OutOfBounds { field, rule: "it must be greater than 0, in Unix milliseconds" })
    }

    /// The bytes of a field that stands once and is not empty, which is never encoded.
    pub(crate) fn bytes(&self, field: &'static str) -> Result<&'a [u8], Refusal> {
        let bytes = self.message(field)?;
        if bytes.is_empty() { Err(Refusal::ExplicitDefault { field }) } else { Ok(bytes) }
    }

    /// As [`Field::bytes`], of a fixed length.
    pub(crate) fn array<const N: usize>(
        &self,
        field: &'static str,
        rule: &'static str,
    ) -> Result<&'a [u8; N], Refusal> {
        self.bytes(field)?.try_into().map_err(|_| Refusal::OutOfBounds { field, rule })
    }

    /// As [`Field::bytes`], at least `min` bytes.
    pub(crate) fn bytes_from(&self, field: &'static str, min: usize, rule: &'static str) -> Result<&'a [u8], Refusal> {
        let bytes = self.bytes(field)?;
        if bytes.len() < min { Err(Refusal::OutOfBounds { field, rule }) } else { Ok(bytes) }
    }

    /// As [`Field::bytes`], at most `max` bytes.
    pub(crate) fn bytes_up_to(&self, field: &'static str, max: usize, rule: &'static str) -> Result<&'a [u8], Refusal> {
        let bytes = self.bytes(field)?;
        if bytes.len() > max { Err(Refusal::OutOfBounds { field, rule }) } else { Ok(bytes) }
    }

    /// As [`Field::bytes_up_to`], UTF-8.
    pub(crate) fn text(&self, field: &'static str, max: usize, rule: &'static str) -> Result<&'a str, Refusal> {
        let bytes = self.bytes_up_to(field, max, rule)?;
        core::str::from_utf8(bytes).map_err(|_| Refusal::NotUtf8 { field })
    }

    /// The encoding of a submessage that stands once. It may be empty: that a message is there says something.
    pub(crate) fn message(&self, field: &'static str) -> Result<&'a [u8], Refusal> {
        self.once(field)?;
        self.element(field)
    }

    /// One element of a repeated field.
    pub(crate) fn element(&self, field: &'static str) -> Result<&'a [u8], Refusal> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32 => Err(Refusal::WrongWireType { field }),
        }
    }

    fn once(&self, field: &'static str) -> Result<(), Refusal> {
        if self.again { Err(Refusal::Repeated { field }) } else { Ok(()) }
    }

    /// What a field comes to that this version does not know.
    pub(crate) fn unknown(&self) -> Result<(), Refusal> {
        if self.number < FIRST_FREE_FIELD { Err(Refusal::UnknownField { number: self.number }) } else { Ok(()) }
    }
}
