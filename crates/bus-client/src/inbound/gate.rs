//! What an arriving message is checked against, whoever receives it in this program.

use bus_acl::{Action, Policy};
use bus_crypto::{Clock, PayloadKind, Scan};
use bus_proto::prost::{self, Message as _};
use bus_proto::{
    Address, AnyPayload, Destination, MessageType, Payload, Principal, SubjectRoot, TypeRegistry, envelope, v1,
};

use super::keyring::KeyRing;
use super::rejected::Rejected;

/// What a receiver knows of itself.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) receiver: Principal,
    pub(crate) root: SubjectRoot,
    pub(crate) policy: Policy,
    pub(crate) registry: TypeRegistry,
    pub(crate) max_payload: usize,
    pub(crate) skew_ms: i64,
    pub(crate) ring: KeyRing,
}

impl Gate {
    pub(super) fn clock(&self, now_unix_ms: i64) -> Clock {
        Clock::new(now_unix_ms, self.skew_ms)
    }

    /// Whose message this would be, as its subject says.
    pub(super) fn claimed(&self, address: &Address) -> Principal {
        Principal { trust_domain: self.receiver.trust_domain.clone(), endpoint: address.sender.clone() }
    }

    /// Checks that a message belongs where it arrived.
    pub(super) fn check_address(
        &self,
        scan: &Scan<'_>,
        delivered: &str,
        message_type: &MessageType,
        directed: bool,
    ) -> Result<(), Rejected> {
        if scan.subject() != delivered {
            return Err(Rejected::SubjectMismatch { delivered: delivered.to_owned() });
        }
        let meant_for_us = match scan.destination() {
            Some(stated) => directed && stated == self.receiver.spiffe_id(),
            None => !directed,
        };
        if !meant_for_us {
            return Err(Rejected::DestinationMismatch);
        }
        let kind = match scan.members() {
            [] => scan.payload().kind(),
            [first, ..] => first.payload().kind(),
        };
        if !fits(kind, message_type) {
            return Err(Rejected::TypeMismatch { subject: message_type.clone() });
        }
        Ok(())
    }

    /// Asks the policy about both ends: whether the sender may say this here, and whether this receiver may hear it.
    pub(super) fn authorize(&self, sender: &Principal, address: &Address) -> Result<(), Rejected> {
        let Address { destination, message_type, .. } = address;
        if let Destination::Inbox(owner) = destination
            && *owner != self.receiver.endpoint
        {
            return Err(Rejected::DestinationMismatch);
        }
        let _may_send = self.policy.authorize(sender, Action::Publish, message_type, destination)?;
        let _may_hear = self.policy.authorize(&self.receiver, Action::Subscribe, message_type, destination)?;
        Ok(())
    }

    /// Checks that a message is neither stale nor expired.
    pub(super) fn check_time(&self, timestamp: i64, expires_at: i64, now_unix_ms: i64) -> Result<(), Rejected> {
        let ahead_ms = timestamp.saturating_sub(now_unix_ms);
        if ahead_ms.saturating_abs() > self.skew_ms {
            return Err(Rejected::ClockSkew { ahead_ms, skew_ms: self.skew_ms });
        }
        check_expiry(expires_at, now_unix_ms)
    }

    /// Decodes a payload of the type that the subject names.
    pub(super) fn open<T: Payload>(
        &self,
        kind: PayloadKind,
        bytes: &[u8],
        message_type: &MessageType,
    ) -> Result<T, Rejected> {
        if kind == PayloadKind::Custom {
            let (type_name, value) = custom(bytes)?;
            let token = self.registry.token(type_name)?;
            if !matches!(message_type, MessageType::Custom(named) if named == token) {
                return Err(Rejected::TypeMismatch { subject: message_type.clone() });
            }
            return Ok(T::from_custom(type_name, value)?);
        }
        let payload = decode(kind, bytes)?;
        envelope::check_payload(&payload)?;
        Ok(T::from_payload(payload)?)
    }
}

/// The two fields of a custom payload, borrowed. The scan has seen that they are in order.
fn custom(mut bytes: &[u8]) -> Result<(&str, &[u8]), Rejected> {
    let undecodable = || bus_proto::PayloadError::Undecodable {
        type_name: "ransomeye.v1.Custom".into(),
        reason: "it is not in its one encoding".into(),
    };
    let (mut type_name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !bytes.is_empty() {
        let (number, wire_type) = prost::encoding::decode_key(&mut bytes).map_err(|_| undecodable())?;
        match number {
            1 | 2 => {
                let len = prost::encoding::decode_varint(&mut bytes).map_err(|_| undecodable())?;
                let len = usize::try_from(len).map_err(|_| undecodable())?;
                let (field, rest) = bytes.split_at_checked(len).ok_or_else(undecodable)?;
                bytes = rest;
                *(if number == 1 { &mut type_name } else { &mut value }) = field;
            }
            _ => {
                let context = prost::encoding::DecodeContext::default();
                prost::encoding::skip_field(wire_type, number, &mut bytes, context).map_err(|_| undecodable())?;
            }
        }
    }
    let type_name = std::str::from_utf8(type_name).map_err(|_| undecodable())?;
    if !(1..=255).contains(&type_name.len()) {
        return Err(bus_proto::EnvelopeError::OutOfBounds { field: "type_name", rule: "1 to 255 bytes" }.into());
    }
    Ok((type_name, value))
}

/// Checks that a message has not expired, which it may do while it waits.
pub(super) fn check_expiry(expires_at: i64, now_unix_ms: i64) -> Result<(), Rejected> {
    if expires_at != 0 && expires_at <= now_unix_ms {
        return Err(Rejected::Expired { late_ms: now_unix_ms.saturating_sub(expires_at) });
    }
    Ok(())
}

/// Whether a payload of this kind may have this type. Custom types are told apart by their names, later.
fn fits(kind: PayloadKind, message_type: &MessageType) -> bool {
    match kind {
        PayloadKind::Telemetry => *message_type == MessageType::Telemetry,
        PayloadKind::Alert => *message_type == MessageType::Alert,
        PayloadKind::Command => *message_type == MessageType::Command,
        PayloadKind::Heartbeat => *message_type == MessageType::Heartbeat,
        PayloadKind::CommandResult => *message_type == MessageType::CommandResult,
        PayloadKind::Error => *message_type == MessageType::Error,
        PayloadKind::Custom => matches!(message_type, MessageType::Custom(_)),
        // A form whose type only the subject names.
        PayloadKind::Sealed => true,
        _ => false,
    }
}

fn decode(kind: PayloadKind, bytes: &[u8]) -> Result<AnyPayload, Rejected> {
    let decoded = match kind {
        PayloadKind::Telemetry => v1::TelemetryEvent::decode(bytes).map(AnyPayload::Telemetry),
        PayloadKind::Alert => v1::AlertEvent::decode(bytes).map(AnyPayload::Alert),
        PayloadKind::Command => v1::CommandRequest::decode(bytes).map(AnyPayload::Command),
        PayloadKind::Heartbeat => v1::Heartbeat::decode(bytes).map(AnyPayload::Heartbeat),
        PayloadKind::CommandResult => v1::CommandResult::decode(bytes).map(AnyPayload::CommandResult),
        PayloadKind::Error => v1::Error::decode(bytes).map(AnyPayload::Error),
        PayloadKind::Sealed => v1::Sealed::decode(bytes).map(AnyPayload::Sealed),
        // A batch is opened by its members, and a custom type by its name.
        _ => v1::Batch::decode(bytes).map(AnyPayload::Batch),
    };
    // The scan has read these bytes as a decoder does.
    decoded.map_err(|error| {
        let reason = error.to_string();
        bus_proto::PayloadError::Undecodable { type_name: format!("{kind:?}"), reason }.into()
    })
}
