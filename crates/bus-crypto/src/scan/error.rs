//! Why bytes are not the one encoding of a message.

use core::fmt;

/// Why a scan refuses, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {refusal}")]
pub struct ScanError {
    /// Which message the offending bytes are part of.
    pub place: Place,
    /// What is wrong with them.
    pub refusal: Refusal,
}

/// Which message some bytes are part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The envelope itself.
    Envelope,
    /// Its batch payload, between the members.
    Batch,
    /// Its payload, if that is no batch.
    Payload,
    /// One recipient's key in its sealed payload, counted from 0.
    WrappedKey(u16),
    /// One member of its batch with what is in it, counted from 0.
    Member(u16),
    /// Its trace context.
    TraceContext,
    /// A key bundle.
    Bundle,
    /// The statement inside a key bundle.
    Statement,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Envelope => f.write_str("envelope"),
            Self::Batch => f.write_str("batch"),
            Self::Payload => f.write_str("payload"),
            Self::WrappedKey(index) => write!(f, "wrapped key {index}"),
            Self::TraceContext => f.write_str("trace context"),
            Self::Member(index) => write!(f, "batch member {index}"),
            Self::Bundle => f.write_str("key bundle"),
            Self::Statement => f.write_str("key statement"),
        }
    }
}

/// What is wrong with an encoding. Each reason stands alone: a receiver counts them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are more than any message may have.
    #[error("it has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// How many they are.
        len: usize,
        /// How many they may be.
        max: usize,
    },
    /// The bytes end within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A varint is longer than its value needs.
    #[error("a varint is not in its shortest form")]
    OverlongVarint,
    /// A varint does not fit into 64 bits.
    #[error("a varint does not fit into 64 bits")]
    VarintTooLarge,
    /// A field number is 0 or above 536,870,911.
    #[error("a field number is out of protobuf's range")]
    FieldNumber,
    /// Wire type 3 or 4.
    #[error("groups are not allowed")]
    Group,
    /// Wire type 6 or 7.
    #[error("a field has a wire type that protobuf does not have")]
    WireType,
    /// The field of the trailer stands where none may.
    #[error("a second trailer stands before the end")]
    SecondTrailer,
    /// A field follows one with a higher number.
    #[error("field {number} follows field {after}: fields stand in ascending order")]
    OutOfOrder {
        /// The field that came too late.
        number: u32,
        /// The field before it.
        after: u32,
    },
    /// A field that may stand once stands twice.
    #[error("{field} stands more than once")]
    Repeated {
        /// The field.
        field: &'static str,
    },
    /// A field that this version does not know, below 1,000 or outside of a key bundle's statement.
    #[error("field {number} is unknown: such fields are ignored from 1000 on only, and never in a key bundle itself")]
    UnknownField {
        /// The field's number.
        number: u32,
    },
    /// A known field has another wire type than the schema says.
    #[error("{field} has the wrong wire type")]
    WrongWireType {
        /// The field.
        field: &'static str,
    },
    /// A field is encoded although it holds its default, which canonical encoders leave out.
    #[error("{field} is encoded although it holds its default")]
    ExplicitDefault {
        /// The field.
        field: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A value is out of its bounds.
    #[error("{field} is out of bounds: {rule}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its bounds.
        rule: &'static str,
    },
    /// A mandatory field is absent.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// `message_id` is not a UUID of version 7 in hyphenated lower-case form.
    #[error("message_id is not a UUIDv7 in hyphenated lower-case form")]
    MessageId,
    /// There is no payload.
    #[error("there is no payload")]
    NoPayload,
    /// There is more than one payload.
    #[error("there is more than one payload")]
    SeveralPayloads,
    /// A batch has no members.
    #[error("the batch is empty")]
    EmptyBatch,
    /// A batch has more than 256 members.
    #[error("the batch has more than 256 members")]
    TooManyMembers,
    /// A member carries `sealed` or `batch`, which only an envelope may.
    #[error("a batch member may carry neither a batch nor a sealed payload")]
    NestedForm,
    /// A member's payload is of another kind than the first member's.
    #[error("the members of the batch are not all of one kind")]
    MixedBatch,
}

impl Refusal {
    pub(crate) fn at(self, place: Place) -> ScanError {
        ScanError { place, refusal: self }
    }
}
