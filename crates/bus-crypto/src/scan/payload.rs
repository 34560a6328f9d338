//! What is inside payloads and the trace context: one encoding of each value, as in the envelope around them.

use bus_proto::prost::{DecodeError, Message as _};
use bus_proto::{AnyPayload, MessageType, v1};

use crate::scan::reader::{Field, Reader};
use crate::scan::{PayloadKind, PayloadView, Place, Refusal, ScanError};

impl PayloadKind {
    /// Whether a payload of this kind can be of the type that a subject names. Custom types are told apart by their names
    /// ([`PayloadView::custom`]); what is sealed only the subject tells. A batch is no type: ask for its members.
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
            Self::Sealed => true,
            Self::Batch => false,
        }
    }
}

impl<'a> PayloadView<'a> {
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
}

/// The most recipients of a sealed payload.
const MAX_RECIPIENTS: u16 = 256;

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
        PayloadKind::Sealed | PayloadKind::Batch => return None,
    })
}

/// Checks the encoding of a payload that is neither sealed nor a batch: those have checks of their own.
pub(super) fn plain(payload: &PayloadView<'_>) -> Result<(), Refusal> {
    fields_of(payload.kind).map_or(Ok(()), |fields| message(payload.bytes, fields))
}

/// Checks the encoding of a trace context.
pub(super) fn trace_context(bytes: &[u8]) -> Result<(), Refusal> {
    message(bytes, TRACE_CONTEXT)
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
        Form::U32 => field.varint_up_to(name, u32::MAX, "it must be below 2^32"),
        Form::U64 => field.varint(name).map(drop),
        Form::Enum => field.varint_up_to(name, i32::MAX.unsigned_abs(), "it must be below 2^31"),
        Form::Text => field.text(name, usize::MAX, "").map(drop),
        Form::Bytes => field.bytes(name).map(drop),
    }
}

/// Checks a sealed payload, its recipients included: a decoder allocates for each of them.
pub(super) fn sealed(payload: &PayloadView<'_>) -> Result<(), ScanError> {
    let at = |refusal: Refusal| refusal.at(Place::Payload);
    let (mut epoch_id, mut commitment, mut ciphertext, mut recipients) = (false, false, false, 0);
    let mut reader = Reader::new(payload.bytes, payload.start);
    while let Some(field) = reader.next().map_err(at)? {
        match field.number {
            1 => epoch_id = field.array::<16>("epoch_id", "it must be 16 bytes").map(|_| true).map_err(at)?,
            2 => commitment = field.array::<32>("commitment", "it must be 32 bytes").map(|_| true).map_err(at)?,
            3 => field.varint("counter").map(drop).map_err(at)?,
            4 => ciphertext = field.bytes("ciphertext").map(|_| true).map_err(at)?,
            5 => {
                let bytes = field.element("wrapped_keys").map_err(at)?;
                if recipients == MAX_RECIPIENTS {
                    let rule = "there may be at most 256";
                    return Err(at(Refusal::OutOfBounds { field: "wrapped_keys", rule }));
                }
                wrapped_key(bytes).map_err(|refusal| refusal.at(Place::WrappedKey(recipients)))?;
                recipients += 1;
            }
            _ => field.unknown().map_err(at)?,
        }
    }
    for (there, field) in [(epoch_id, "epoch_id"), (commitment, "commitment"), (ciphertext, "ciphertext")] {
        if !there {
            return Err(at(Refusal::Missing { field }));
        }
    }
    Ok(())
}

fn wrapped_key(bytes: &[u8]) -> Result<(), Refusal> {
    let (mut recipient, mut wrapped) = (None, None);
    let mut reader = Reader::new(bytes, 0);
    while let Some(field) = reader.next()? {
        match field.number {
            1 => recipient = Some(field.text("recipient", 512, "it must be 1 to 512 bytes")?),
            2 => drop(field.varint("key_version")?),
            3 => wrapped = Some(field.bytes_up_to("wrapped", 2_048, "it must be 1 to 2,048 bytes")?),
            _ => field.unknown()?,
        }
    }
    recipient.ok_or(Refusal::Missing { field: "recipient" })?;
    wrapped.ok_or(Refusal::Missing { field: "wrapped" })?;
    Ok(())
}
