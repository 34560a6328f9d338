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
    /// What it is about: the sealed references with their wrapped keys, or the list that was sealed.
    References,
    /// One of the references that were sealed, counted from 0.
    Reference(u16),
    /// What was sealed or compressed, around the payload in it.
    Content,
    /// A key bundle.
    Bundle,
    /// The statement inside a key bundle.
    Statement,
    /// A sealing key record.
    SealingRecord,
    /// The statement inside a sealing key record.
    SealingStatement,
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
            Self::References => f.write_str("references"),
            Self::Reference(index) => write!(f, "reference {index}"),
            Self::Content => f.write_str("content"),
            Self::Bundle => f.write_str("key bundle"),
            Self::Statement => f.write_str("key statement"),
            Self::SealingRecord => f.write_str("sealing key record"),
            Self::SealingStatement => f.write_str("sealing key statement"),
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
    /// A field that this version does not know, below 1,000 or where there may be no such field at all: in a key bundle or a
    /// sealing key record outside of its statement, and beside what was sealed or compressed.
    #[error("field {number} is unknown: such fields are ignored from 1000 on only, and not everywhere")]
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
    /// A form stands in another that may not hold it: `sealed`, `batch` or `compressed` in a batch member, `sealed` in what was
    /// sealed, `sealed` or `compressed` in what was compressed.
    #[error("a sealed payload, a batch or a compressed payload is inside of a form that may not hold it")]
    NestedForm,
    /// A member's payload is of another kind than the first member's.
    #[error("the members of the batch are not all of one kind")]
    MixedBatch,
    /// A wrapped key's recipient is the one of the key before it, or comes before that one in the order of bytes.
    #[error("the recipients of the wrapped keys are not in ascending order, each of them once")]
    UnorderedRecipients,
}

impl Refusal {
    pub(crate) fn at(self, place: Place) -> ScanError {
        ScanError { place, refusal: self }
    }
}
