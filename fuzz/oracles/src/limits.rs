//! Which messages the wire's specification allows, said of what a decoder has read.

use bus_proto::v1::batch_member::Payload as Inner;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{
    Batch, BatchMember, Compressed, Custom, Envelope, Reference, References, Sealed, TelemetryEvent, WrappedKey,
};

/// Whether the values of an envelope are within their bounds.
pub(crate) fn allow(envelope: &Envelope) -> bool {
    let Envelope { message_id, source_component, subject, destination, tags, bundle, .. } = envelope;
    envelope.authentication.is_none()
        && is_uuid_7(message_id)
        && (1..=63).contains(&source_component.len())
        && envelope.timestamp_utc > 0
        && (1..=512).contains(&subject.len())
        && destination.len() <= 512
        && envelope.expires_at >= 0
        && matches!(envelope.correlation_id.len(), 0 | 32)
        && envelope.priority <= 10
        && tags.len() <= 16
        && tags.iter().all(|tag| (1..=64).contains(&tag.len()))
        && bundle.len() <= 16_384
        && envelope.payload.as_ref().is_some_and(payload)
        && envelope.references.as_ref().is_none_or(sealed)
}

/// Whether the values of a payload are within their bounds.
pub(crate) fn payload(payload: &Payload) -> bool {
    match payload {
        Payload::Telemetry(telemetry) => loads(telemetry),
        Payload::Alert(alert) => alert.severity >= 0,
        Payload::Command(command) => command.command_type >= 0,
        Payload::Heartbeat(_) => true,
        Payload::CommandResult(result) => result.status >= 0,
        Payload::Error(error) => error.code >= 0,
        Payload::Custom(Custom { .. }) => true,
        Payload::Sealed(payload) => sealed(payload),
        Payload::Compressed(Compressed { length, frame }) => (1..=8_388_608).contains(length) && !frame.is_empty(),
        Payload::Batch(Batch { members }) => {
            let kind = |member: &BatchMember| member.payload.as_ref().map(std::mem::discriminant);
            (1..=256).contains(&members.len())
                && members.iter().all(member)
                && members.windows(2).all(|pair| kind(&pair[0]) == kind(&pair[1]))
        }
    }
}

fn member(member: &BatchMember) -> bool {
    let payload = match &member.payload {
        None => false,
        Some(Inner::Telemetry(telemetry)) => loads(telemetry),
        Some(Inner::Alert(alert)) => alert.severity >= 0,
        Some(Inner::Command(command)) => command.command_type >= 0,
        Some(Inner::CommandResult(result)) => result.status >= 0,
        Some(Inner::Error(error)) => error.code >= 0,
        Some(Inner::Heartbeat(_) | Inner::Custom(_)) => true,
    };
    payload
        && is_uuid_7(&member.message_id)
        && member.timestamp_utc > 0
        && member.expires_at >= 0
        && matches!(member.correlation_id.len(), 0 | 32)
}

/// A negative zero is a default that an encoder may write.
fn loads(telemetry: &TelemetryEvent) -> bool {
    let TelemetryEvent { cpu_usage, ram_usage } = telemetry;
    [cpu_usage, ram_usage].iter().all(|load| load.to_bits() != (-0.0_f64).to_bits())
}

fn sealed(sealed: &Sealed) -> bool {
    sealed.epoch_id.len() == 16
        && sealed.commitment.len() == 32
        && sealed.counter < 1 << 32
        && sealed.ciphertext.len() >= 17
        && sealed.wrapped_keys.len() <= 256
        && sealed.wrapped_keys.iter().all(wrapped_key)
        && sealed.wrapped_keys.windows(2).all(|pair| pair[0].recipient < pair[1].recipient)
}

fn wrapped_key(key: &WrappedKey) -> bool {
    (1..=512).contains(&key.recipient.len()) && key.key_version > 0 && (1..=2_048).contains(&key.wrapped.len())
}

/// Whether references are within their bounds.
pub(crate) fn references(References { references }: &References) -> bool {
    let one = |it: &Reference| (1..=64).contains(&it.kind.len()) && (1..=1_024).contains(&it.value.len());
    (1..=64).contains(&references.len()) && references.iter().all(one)
}

/// RFC 9562, sections 4 and 5.7, in lower case.
fn is_uuid_7(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let digits = |group: &&str| group.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(digits)
        && groups[2].starts_with('7')
        && groups[3].starts_with(['8', '9', 'a', 'b'])
}
