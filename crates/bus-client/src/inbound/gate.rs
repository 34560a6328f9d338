//! What an arriving message is checked against, whoever receives it in this program.

use std::sync::OnceLock;

use bus_acl::{Action, Policy, Sealing};
use bus_crypto::{Clock, Member, PayloadView, Scan};
use bus_proto::envelope::{check_payload, check_type_name};
use bus_proto::{
    Address, AnyPayload, Destination, MessageType, Payload, PayloadError, Principal, SubjectRoot, TypeRegistry,
};

use super::keyring::KeyRing;
use super::rejected::Rejected;
use crate::sealing::SealingKeys;

/// What a receiver knows of itself.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) receiver: Principal,
    /// Its SPIFFE ID.
    pub(crate) own_id: String,
    /// The keys that others seal to, once they are needed.
    pub(crate) own_keys: OnceLock<SealingKeys>,
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
            Some(stated) => directed && stated == self.own_id,
            None => !directed,
        };
        if !meant_for_us {
            return Err(Rejected::DestinationMismatch);
        }
        check_kind(scan.payload(), scan.members(), message_type)
    }

    /// Whether the policy demands that this is sealed.
    pub(super) fn must_be_sealed(&self, message_type: &MessageType, directed: bool) -> bool {
        let destination =
            if directed { Destination::Inbox(self.receiver.endpoint.clone()) } else { Destination::Events };
        self.policy.form(message_type, &destination).sealing() == Sealing::Required
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
        payload: &PayloadView<'_>,
        message_type: &MessageType,
    ) -> Result<T, Rejected> {
        if let Some((type_name, value)) = payload.custom() {
            check_type_name(type_name)?;
            let token = self.registry.token(type_name)?;
            if !matches!(message_type, MessageType::Custom(named) if named == token) {
                return Err(Rejected::TypeMismatch { subject: message_type.clone() });
            }
            return Ok(T::from_custom(type_name, value)?);
        }
        let decoded = decode(payload)?;
        check_payload(&decoded)?;
        Ok(T::from_payload(decoded)?)
    }
}

fn decode(payload: &PayloadView<'_>) -> Result<AnyPayload, PayloadError> {
    payload.decode().map_err(|error| PayloadError::Undecodable {
        type_name: format!("{:?}", payload.kind()),
        reason: error.to_string(),
    })
}

/// Takes a payload as it is, whatever its form.
pub(super) fn open_any<T: Payload>(payload: &PayloadView<'_>) -> Result<T, Rejected> {
    Ok(T::from_payload(decode(payload)?)?)
}

/// Checks that a payload is of the type that the subject names. What is in a form is looked at when it is out of it.
pub(super) fn check_kind(
    payload: &PayloadView<'_>,
    members: &[Member<'_>],
    message_type: &MessageType,
) -> Result<(), Rejected> {
    let kind = members.first().map_or(payload.kind(), |first| first.payload().kind());
    if kind.may_be(message_type) { Ok(()) } else { Err(Rejected::TypeMismatch { subject: message_type.clone() }) }
}

/// Checks that a message has not expired, which it may do while it waits.
pub(super) fn check_expiry(expires_at: i64, now_unix_ms: i64) -> Result<(), Rejected> {
    if expires_at != 0 && expires_at <= now_unix_ms {
        return Err(Rejected::Expired { late_ms: now_unix_ms.saturating_sub(expires_at) });
    }
    Ok(())
}
