//! What is inside payloads and the trace context: one encoding of each value, as in the envelope around them.

use core::ops::Range;

use bus_proto::prost::{DecodeError, Message as _};
use bus_proto::{AnyPayload, MessageType, v1};

use crate::scan::reader::{Field, Reader};
use crate::scan::{Place, Refusal, ScanError};

/// What kind of payload an envelope or a batch member carries, by its field in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadKind {
    /// Field 10, `TelemetryEvent`.
    Telemetry,
    /// Field 11, `AlertEvent`.
    Alert,
    /// Field 12, `CommandRequest`.
    Command,
    /// Field 13, `Heartbeat`.
    Heartbeat,
    /// Field 14, `CommandResult`.
    CommandResult,
    /// Field 15, `Error`.
    Error,
    /// Field 16, `Custom`.
    Custom,
    /// Field 17, `Sealed`: a form, whose type only the subject names.
    Sealed,
    /// Field 18, `Batch`: a form; its members have the type.
    Batch,
    /// Field 19, `Compressed`: a form; what it holds has the type.
    Compressed,
}

impl PayloadKind {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            10 => Self::Telemetry,
            11 => Self::Alert,
            12 => Self::Command,
            13 => Self::Heartbeat,
            14 => Self::CommandResult,
            15 => Self::Error,
            16 => Self::Custom,
            17 => Self::Sealed,
            18 => Self::Batch,
            19 => Self::Compressed,
            _ => return None,
        })
    }

    /// Whether a payload of this kind can be of the type that a subject names. Custom types are told apart by their names
    /// ([`PayloadView::custom`]); of what is sealed or compressed only the subject tells. A batch is no type: ask for its members.
    #[must_use]
    pub fn may_be(self, message_type: &MessageType) -> bool {
        match self {
            Self::Telemetry => *message_type == MessageType::Telemetry,
            Self::Alert => *message_type == MessageType::Alert,
            Self::Command => *message_type == MessageType::Command,
            Self::Heartbeat => *message_type == MessageType::Heartbeat,
            Self::CommandResult => *message_type == MessageType::CommandResult,
            Self::Error => *message_type == MessageType::Error,
            Self::Custom => matches!(message_type, MessageType::Custom(_)),
            Self::Sealed | Self::Compressed => true,
            Self::Batch => false,
        }
    }
}

/// Where a payload stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadView<'a> {
    pub(super) kind: PayloadKind,
    pub(super) bytes: &'a [u8],
    pub(super) start: usize,
}

impl<'a> PayloadView<'a> {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        self.kind
    }

    /// The encoded message of that kind. It may be empty.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The place of these bytes in what was scanned, for taking them out of a shared buffer without a copy.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes.len()
    }

    /// Decodes it. Whether its values make sense is not checked: that is [`bus_proto::envelope::check_payload`].
    ///
    /// # Errors
    ///
    /// None that is known: the scan has read these bytes as a decoder does.
    pub fn decode(&self) -> Result<AnyPayload, DecodeError> {
        let bytes = self.bytes;
        match self.kind {
            PayloadKind::Telemetry => v1::TelemetryEvent::decode(bytes).map(AnyPayload::Telemetry),
            PayloadKind::Alert => v1::AlertEvent::decode(bytes).map(AnyPayload::Alert),
            PayloadKind::Command => v1::CommandRequest::decode(bytes).map(AnyPayload::Command),
            PayloadKind::Heartbeat => v1::Heartbeat::decode(bytes).map(AnyPayload::Heartbeat),
            PayloadKind::CommandResult => v1::CommandResult::decode(bytes).map(AnyPayload::CommandResult),
            PayloadKind::Error => v1::Error::decode(bytes).map(AnyPayload::Error),
            PayloadKind::Custom => v1::Custom::decode(bytes).map(AnyPayload::Custom),
            PayloadKind::Sealed => v1::Sealed::decode(bytes).map(AnyPayload::Sealed),
            PayloadKind::Batch => v1::Batch::decode(bytes).map(AnyPayload::Batch),
            PayloadKind::Compressed => v1::Compressed::decode(bytes).map(AnyPayload::Compressed),
        }
    }

    /// The protobuf name of a custom payload's type, and its encoded value, without a copy of either. An absent field is
    /// empty. `None` if it is of another kind.
    #[must_use]
    pub fn custom(&self) -> Option<(&'a str, &'a [u8])> {
        if self.kind != PayloadKind::Custom {
            return None;
        }
        let (mut type_name, mut value) = ("", &[][..]);
        let mut reader = Reader::new(self.bytes, self.start);
        while let Some(field) = reader.next().ok()? {
            match field.number {
                1 => type_name = field.text("type_name", usize::MAX, "").ok()?,
                2 => value = field.bytes("value").ok()?,
                _ => {}
            }
        }
        Some((type_name, value))
    }

    /// How long a compressed payload is decompressed, 1 to 8,388,608 bytes according to its sender, and its frame, which is not
    /// empty and as yet unread. `None` if it is of another kind.
    #[must_use]
    pub fn compressed(&self) -> Option<(u32, &'a [u8])> {
        if self.kind == PayloadKind::Compressed { compressed(self).ok() } else { None }
    }
}

/// Takes the one payload of an envelope or a member out of its fields.
pub(super) fn take<'a>(
    slot: &mut Option<PayloadView<'a>>,
    kind: PayloadKind,
    field: &Field<'a>,
) -> Result<(), Refusal> {
    let bytes = field.element("payload")?;
    match slot.replace(PayloadView { kind, bytes, start: field.start }) {
        None => Ok(()),
        Some(_) => Err(Refusal::SeveralPayloads),
    }
}

/// The most bytes that a compressed payload may hold: those of the longest prefix.
const MAX_DECOMPRESSED_LEN: u32 = 8 * 1024 * 1024;

/// The form of a field, by its type in the schema.
enum Form {
    Double,
    U32,
    U64,
    Enum,
    Text,
    Bytes,
}

/// The fields of a message: number, name and form.
type Fields = &'static [(u32, &'static str, Form)];

const TELEMETRY: Fields = &[(1, "cpu_usage", Form::Double), (2, "ram_usage", Form::Double)];
const ALERT: Fields = &[(1, "threat_type", Form::Text), (2, "severity", Form::Enum), (3, "description", Form::Text)];
const COMMAND: Fields = &[(1, "command_type", Form::Enum), (2, "target_pid", Form::U32)];
const HEARTBEAT: Fields = &[(1, "uptime", Form::U64), (2, "version", Form::Text)];
const COMMAND_RESULT: Fields = &[(1, "status", Form::Enum), (2, "detail", Form::Text)];
const ERROR: Fields = &[(1, "code", Form::Enum), (2, "message", Form::Text)];
const CUSTOM: Fields = &[(1, "type_name", Form::Text), (2, "value", Form::Bytes)];
const TRACE_CONTEXT: Fields = &[(1, "traceparent", Form::Text), (2, "tracestate", Form::Text)];

/// The fields of a payload that is no form of its own.
fn fields_of(kind: PayloadKind) -> Option<Fields> {
    Some(match kind {
        PayloadKind::Telemetry => TELEMETRY,
        PayloadKind::Alert => ALERT,
        PayloadKind::Command => COMMAND,
        PayloadKind::Heartbeat => HEARTBEAT,
        PayloadKind::CommandResult => COMMAND_RESULT,
        PayloadKind::Error => ERROR,
        PayloadKind::Custom => CUSTOM,
        PayloadKind::Sealed | PayloadKind::Batch | PayloadKind::Compressed => return None,
    })
}

/// Checks the encoding of a payload that is no form: those have checks of their own.
pub(super) fn plain(payload: &PayloadView<'_>) -> Result<(), Refusal> {
    fields_of(payload.kind).map_or(Ok(()), |fields| message(payload.bytes, fields))
}

/// Checks the encoding of a trace context, and returns it.
pub(super) fn trace_context(bytes: &[u8]) -> Result<&[u8], ScanError> {
    message(bytes, TRACE_CONTEXT).map(|()| bytes).map_err(|refusal| refusal.at(Place::TraceContext))
}

fn message(bytes: &[u8], fields: Fields) -> Result<(), Refusal> {
    let mut reader = Reader::new(bytes, 0);
    while let Some(field) = reader.next()? {
        match fields.iter().find(|(number, ..)| *number == field.number) {
            Some((_, name, form)) => value(&field, name, form)?,
            None => field.unknown()?,
        }
    }
    Ok(())
}

fn value(field: &Field<'_>, name: &'static str, form: &Form) -> Result<(), Refusal> {
    match form {
        Form::Double => field.double(name),
        Form::U32 => field.varint_up_to(name, u32::MAX, "it must be below 2^32").map(drop),
        Form::U64 => field.varint(name).map(drop),
        Form::Enum => field.varint_up_to(name, i32::MAX.unsigned_abs(), "it must be below 2^31").map(drop),
        Form::Text => field.text(name, usize::MAX, "").map(drop),
        Form::Bytes => field.bytes(name).map(drop),
    }
}

/// Reads a compressed payload: how long it is decompressed, and its frame.
pub(super) fn compressed<'a>(payload: &PayloadView<'a>) -> Result<(u32, &'a [u8]), Refusal> {
    let (mut length, mut frame) = (None, None);
    let mut reader = Reader::new(payload.bytes, payload.start);
    while let Some(field) = reader.next()? {
        match field.number {
            1 => length = Some(field.varint_up_to("length", MAX_DECOMPRESSED_LEN, "it must be 1 to 8,388,608")?),
            2 => frame = Some(field.bytes("frame")?),
            _ => field.unknown()?,
        }
    }
    let missing = |field| Refusal::Missing { field };
    Ok((length.ok_or(missing("length"))?, frame.ok_or(missing("frame"))?))
}
