//! Building an envelope, and checking one that arrived. Pure: the time and random bytes come in as arguments.

use alloc::string::{String, ToString};

use crate::identity::{ComponentId, IdentityError, printable};
use crate::payload::{AnyPayload, AttachedReferences, PayloadError};
use crate::v1;
use crate::v1::Envelope;
use crate::v1::envelope::Payload as Variant;

/// How far a live message's timestamp may be from the receiver's clock, in milliseconds, unless configured.
pub const DEFAULT_SKEW_MS: i64 = 30_000;

/// The longest text field of a payload, in bytes.
pub const MAX_TEXT_LEN: usize = 4_096;

/// The most tags of an envelope.
pub const MAX_TAGS: usize = 16;

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// `message_id` is not a UUID of version 7 in its usual form.
    #[error("message_id `{text}` is not a UUIDv7 in hyphenated lower-case form")]
    MessageId {
        /// The text, shortened and escaped.
        text: String,
    },
    /// `source_component` is no component name.
    #[error("source_component: {0}")]
    Source(IdentityError),
    /// There is no payload.
    #[error("the envelope has no payload")]
    NoPayload,
    /// A field is out of its bounds.
    #[error("{field} is out of bounds: {rule}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its bounds.
        rule: &'static str,
    },
    /// The payload is of a form or custom type that this receiver does not know.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The message's time to live is over.
    #[error("the message expired {late_ms} ms ago")]
    Expired {
        /// How long ago, in milliseconds.
        late_ms: i64,
    },
}

/// Makes a `message_id` from the time and ten random bytes: a UUIDv7 (RFC 9562, section 5.7) in its hyphenated
/// lower-case form, which is ASCII.
#[must_use]
pub fn new_message_id(now_unix_ms: i64, random: [u8; 10]) -> [u8; 36] {
    let millis = u64::try_from(now_unix_ms).unwrap_or(0);
    let mut text = [0; 36];
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().hyphenated().encode_lower(&mut text);
    text
}

impl Envelope {
    /// Wraps a payload, with a fresh `message_id` made from the time and ten random bytes (UUIDv7, RFC 9562,
    /// section 5.7).
    ///
    /// ```
    /// use bus_proto::{ComponentId, v1::{Envelope, Heartbeat}};
    ///
    /// let source = ComponentId::new("agent-linux-01")?;
    /// let beat = Heartbeat { uptime: 60, version: "0.1.0".into() };
    /// let envelope = Envelope::new(&source, beat, 1_790_000_000_000, [7; 10]);
    /// assert!(envelope.check_form().is_ok());
    /// # Ok::<(), bus_proto::IdentityError>(())
    /// ```
    #[must_use]
    pub fn new(source: &ComponentId, payload: impl Into<AnyPayload>, now_unix_ms: i64, random: [u8; 10]) -> Self {
        Self {
            message_id: new_message_id(now_unix_ms, random).iter().map(|byte| char::from(*byte)).collect(),
            source_component: source.as_str().into(),
            timestamp_utc: now_unix_ms,
            payload: Some(payload.into()),
            ..Self::default()
        }
    }

    /// The urgency, 1 to 10, with the default of 5 filled in.
    #[must_use]
    pub fn effective_priority(&self) -> u32 {
        if self.priority == 0 { 5 } else { self.priority }
    }

    /// Checks all that can be checked without knowing how the envelope arrived: every field within its bounds.
    ///
    /// # Errors
    ///
    /// The first field that is not.
    pub fn check_form(&self) -> Result<(), EnvelopeError> {
        check_message_id(&self.message_id)?;
        ComponentId::new(&self.source_component).map_err(EnvelopeError::Source)?;
        bound(self.timestamp_utc > 0, "timestamp_utc", "greater than 0, in Unix milliseconds")?;
        bound(self.expires_at >= 0, "expires_at", "0 for never, or Unix milliseconds")?;
        bound(self.priority <= 10, "priority", "1 to 10, or 0 for the default")?;
        bound(self.tags.len() <= MAX_TAGS, "tags", "at most 16")?;
        bound(self.tags.iter().all(|tag| within(tag, 1, 64)), "tags", "1 to 64 bytes each")?;
        bound(matches!(self.correlation_id.len(), 0 | 32), "correlation_id", "32 bytes, or absent")?;
        bound(self.bundle.len() <= 16_384, "bundle", "at most 16,384 bytes")?;
        if let Some(trace) = &self.trace_context {
            bound(trace.traceparent.len() == 55, "trace_context.traceparent", "55 bytes")?;
            bound(trace.tracestate.len() <= 512, "trace_context.tracestate", "at most 512 bytes")?;
        }
        check_payload(self.payload.as_ref().ok_or(EnvelopeError::NoPayload)?)
    }
}

fn check_message_id(text: &str) -> Result<(), EnvelopeError> {
    let well_formed =
        uuid::Uuid::try_parse(text).is_ok_and(|id| id.get_version_num() == 7 && id.hyphenated().to_string() == text);
    if well_formed { Ok(()) } else { Err(EnvelopeError::MessageId { text: printable(text) }) }
}

fn bound(holds: bool, field: &'static str, rule: &'static str) -> Result<(), EnvelopeError> {
    if holds { Ok(()) } else { Err(EnvelopeError::OutOfBounds { field, rule }) }
}

fn within(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len())
}

/// Checks that every value of a payload is within its bounds.
///
/// # Errors
///
/// The first value that is not, or that the payload is of a form that is no type (`sealed`, `batch`, `compressed`).
pub fn check_payload(payload: &AnyPayload) -> Result<(), EnvelopeError> {
    match payload {
        Variant::Telemetry(v1::TelemetryEvent { cpu_usage, ram_usage }) => {
            bound((0.0..=100.0).contains(cpu_usage), "cpu_usage", "0.0 to 100.0 percent")?;
            bound((0.0..=100.0).contains(ram_usage), "ram_usage", "0.0 to 100.0 percent")
        }
        Variant::Alert(alert) => {
            bound(within(&alert.threat_type, 1, 128), "threat_type", "1 to 128 bytes")?;
            bound(known(alert.severity, v1::Severity::is_valid), "severity", "a known severity")?;
            bound(within(&alert.description, 0, MAX_TEXT_LEN), "description", "at most 4,096 bytes")
        }
        Variant::Command(command) => {
            bound(known(command.command_type, v1::CommandType::is_valid), "command_type", "a known command")?;
            bound(command.target_pid > 0, "target_pid", "greater than 0")
        }
        Variant::Heartbeat(beat) => bound(within(&beat.version, 0, 64), "version", "at most 64 bytes"),
        Variant::CommandResult(result) => {
            bound(known(result.status, v1::CommandStatus::is_valid), "status", "a known status")?;
            bound(within(&result.detail, 0, MAX_TEXT_LEN), "detail", "at most 4,096 bytes")
        }
        Variant::Error(error) => {
            bound(known(error.code, v1::ErrorCode::is_valid), "code", "a known error code")?;
            bound(within(&error.message, 0, MAX_TEXT_LEN), "message", "at most 4,096 bytes")
        }
        Variant::Custom(custom) => check_type_name(&custom.type_name),
        Variant::Sealed(_) => Err(PayloadError::UnsupportedForm { form: "sealed" }.into()),
        Variant::Batch(_) => Err(PayloadError::UnsupportedForm { form: "batch" }.into()),
        Variant::Compressed(_) => Err(PayloadError::UnsupportedForm { form: "compressed" }.into()),
    }
}

/// Checks what a message is said to be about.
///
/// # Errors
///
/// When there are none or too many references or readers, or one is out of its bounds.
pub fn check_references(attached: &AttachedReferences) -> Result<(), EnvelopeError> {
    let AttachedReferences { references, readers } = attached;
    bound((1..=64).contains(&references.len()), "references", "1 to 64")?;
    bound((1..=256).contains(&readers.len()), "readers of references", "1 to 256")?;
    for v1::Reference { kind, value } in references {
        bound(within(kind, 1, 64), "references.kind", "1 to 64 bytes")?;
        bound(within(value, 1, 1_024), "references.value", "1 to 1,024 bytes")?;
    }
    Ok(())
}

/// Checks the length of the protobuf name of a custom payload's type.
///
/// # Errors
///
/// When it is out of its bounds.
pub fn check_type_name(type_name: &str) -> Result<(), EnvelopeError> {
    bound(within(type_name, 1, 255), "type_name", "1 to 255 bytes")
}

/// Whether an enumeration's value is one of this version's, and not its "unspecified".
fn known(value: i32, is_valid: fn(i32) -> bool) -> bool {
    value != 0 && is_valid(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{Destination, SubjectRoot};
    use crate::{MessageType, Principal, TrustDomain};
    use proptest::prelude::*;
    use prost::Message;

    const NOW: i64 = 1_790_000_000_000;

    fn principal(text: &str) -> Principal {
        text.parse().unwrap()
    }

    fn agent() -> Principal {
        principal("spiffe://td/agent/agent-01")
    }

    fn heartbeat() -> Envelope {
        let beat = v1::Heartbeat { uptime: 61, version: "0.1.0".into() };
        let mut envelope = Envelope::new(agent().component(), beat, NOW, [9; 10]);
        envelope.subject = "ransomeye.events.heartbeat.agent.agent-01".into();
        envelope
    }

    #[test]
    fn a_heartbeat_envelope_round_trips_byte_exactly() {
        let envelope = heartbeat();
        let bytes = envelope.encode_to_vec();
        let decoded = Envelope::decode(bytes.as_slice()).unwrap();
        assert_eq!(decoded, envelope);
        assert_eq!(decoded.encode_to_vec(), bytes);
    }

    /// The field numbers at the top of an encoded message, in order.
    fn field_numbers(mut bytes: &[u8]) -> Vec<u32> {
        let mut numbers = Vec::new();
        while !bytes.is_empty() {
            let (number, wire_type) = prost::encoding::decode_key(&mut bytes).unwrap();
            let context = prost::encoding::DecodeContext::default();
            prost::encoding::skip_field(wire_type, number, &mut bytes, context).unwrap();
            numbers.push(number);
        }
        numbers
    }

    #[test]
    fn the_founding_fields_keep_their_numbers() {
        let payloads: [(AnyPayload, u32); 4] = [
            (v1::TelemetryEvent::default().into(), 10),
            (v1::AlertEvent::default().into(), 11),
            (v1::CommandRequest::default().into(), 12),
            (v1::Heartbeat::default().into(), 13),
        ];
        for (payload, number) in payloads {
            let envelope = Envelope::new(agent().component(), payload, NOW, [0; 10]);
            assert_eq!(field_numbers(&envelope.encode_to_vec()), [1, 2, 3, number]);
        }
    }

    #[test]
    fn top_level_fields_are_written_in_ascending_order() {
        let mut envelope = heartbeat();
        envelope.destination = "d".into();
        (envelope.expires_at, envelope.sequence, envelope.priority) = (1, 2, 3);
        (envelope.correlation_id, envelope.bundle) = (vec![1].into(), vec![2].into());
        envelope.tags = vec!["a".into(), "b".into()];
        envelope.trace_context = Some(v1::TraceContext::default());
        envelope.authentication = Some(v1::Authentication::default());
        let numbers = field_numbers(&envelope.encode_to_vec());
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(numbers.len(), 15);
    }

    #[test]
    fn the_authentication_trailer_is_the_last_thing_on_the_wire() {
        let mut envelope = heartbeat();
        envelope.tags = vec!["t".into()];
        let prefix = envelope.encode_to_vec();
        envelope.authentication =
            Some(v1::Authentication { key_id: vec![1; 32].into(), signature: vec![2; 64].into() });
        let whole = envelope.encode_to_vec();
        assert!(whole.starts_with(&prefix));
        assert!(whole.ends_with(&[2; 64]));
    }

    #[test]
    fn fields_out_of_bounds_are_refused() {
        let cases: [fn(&mut Envelope); 12] = [
            |e| e.message_id = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".into(),
            |e| e.message_id = e.message_id.to_uppercase(),
            |e| e.message_id = String::new(),
            |e| e.source_component = "a.b".into(),
            |e| e.timestamp_utc = 0,
            |e| e.expires_at = -1,
            |e| e.priority = 11,
            |e| e.tags = vec!["a".into(); 17],
            |e| e.correlation_id = vec![0; 31].into(),
            |e| e.payload = None,
            |e| e.payload = Some(v1::TelemetryEvent { cpu_usage: f64::NAN, ram_usage: 0.0 }.into()),
            |e| e.payload = Some(v1::CommandRequest { command_type: 9, target_pid: 1 }.into()),
        ];
        for (index, spoil) in cases.into_iter().enumerate() {
            let mut envelope = heartbeat();
            spoil(&mut envelope);
            if index == 1 && envelope.message_id == heartbeat().message_id {
                panic!("the case changes nothing");
            }
            assert!(envelope.check_form().is_err(), "case {index}");
        }
    }

    proptest! {
        #[test]
        fn any_envelope_that_is_built_passes_its_own_checks(
            component in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", now in 1_i64..4_000_000_000_000, random: [u8; 10],
            cpu in 0.0..=100.0_f64,
        ) {
            let sender = Principal::new(TrustDomain::new("td").unwrap(), crate::Role::new("agent").unwrap(),
                ComponentId::new(&component).unwrap());
            let event = v1::TelemetryEvent { cpu_usage: cpu, ram_usage: 1.0 };
            let mut envelope = Envelope::new(sender.component(), event, now, random);
            envelope.subject = SubjectRoot::default().subject(&Destination::Events, &MessageType::Telemetry, &sender);
            prop_assert_eq!(envelope.check_form(), Ok(()));
        }

        #[test]
        fn no_bytes_make_decoding_or_checking_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(envelope) = Envelope::decode(bytes.as_slice()) {
                let _ = envelope.check_form();
            }
        }
    }
}
