//! Sealing by hand: whom something is sealed to, what it is bound to and what is inside is up to the attack.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bus_crypto::compression::compress;
use bus_crypto::sealing::{About, Epoch, Part, Recipient, SealingFailed, SealingKey, SealingPublicKey};
use bus_proto::prost::Message as _;
use bus_proto::prost::encoding::{WireType, encode_key, encode_varint};
use bus_proto::v1::{Compressed, Envelope, Sealed};
use bus_proto::{AnyPayload, SubjectRoot};

use super::raw::unix_ms;
use super::sender::{Sender, random_seed};
use crate::deployment::principal;

/// What an epoch takes from the source of randomness, but for the ephemeral keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seeds {
    pub(crate) id: [u8; 16],
    pub(crate) secret: [u8; 32],
}

impl Seeds {
    /// As they should be.
    pub(crate) fn fresh() -> Result<Self> {
        let (id, secret) = (random_seed()?, random_seed()?);
        let id = id.first_chunk().context("a seed of 32 bytes")?;
        Ok(Self { id: *id, secret: *secret })
    }

    /// The same identifier with another secret.
    pub(crate) fn another_secret(self) -> Result<Self> {
        Ok(Self { id: self.id, ..Self::fresh()? })
    }

    /// An epoch of this sender's signing key, whose clock says what it should.
    pub(crate) fn epoch(&self, sender: &Sender, to: &[Recipient]) -> Result<Epoch> {
        let asked = AtomicU64::new(0);
        let fill = |bytes: &mut [u8]| {
            let seed = match asked.fetch_add(1, Ordering::Relaxed) {
                0 => self.id.to_vec(),
                1 => self.secret.to_vec(),
                _ => random_seed().map_err(|_| SealingFailed)?.to_vec(),
            };
            bytes.copy_from_slice(&seed);
            Ok(())
        };
        Ok(Epoch::new(sender.key_id, to, unix_ms(), fill)?)
    }
}

/// An epoch as it should be.
pub(crate) fn epoch(sender: &Sender, to: &[Recipient]) -> Result<Epoch> {
    Seeds::fresh()?.epoch(sender, to)
}

/// A sealing key of nobody's yet.
pub(crate) fn any_key() -> Result<SealingKey> {
    Ok(SealingKey::from_seed(&random_seed()?)?)
}

/// `role/component` with this key.
pub(crate) fn recipient(name: &str, version: u64, key: &SealingPublicKey) -> Recipient {
    Recipient { principal: principal(name), version, key: key.clone() }
}

/// What a content is bound to.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) part: Part,
    pub(crate) sender: String,
    pub(crate) subject: String,
    pub(crate) message_type: String,
    pub(crate) sequence: u64,
    pub(crate) message_id: String,
    pub(crate) expires_at: i64,
}

impl Bound {
    /// What the payload of this envelope should be bound to.
    pub(crate) fn to(sender: &Sender, envelope: &Envelope) -> Result<Self> {
        Ok(Self {
            part: Part::Payload,
            sender: sender.leaf.principal.spiffe_id(),
            subject: envelope.subject.clone(),
            message_type: SubjectRoot::default().parse(&envelope.subject)?.message_type.token().to_owned(),
            sequence: envelope.sequence,
            message_id: envelope.message_id.clone(),
            expires_at: envelope.expires_at,
        })
    }

    /// What is sealed, with the wrapped keys.
    pub(crate) fn seal(&self, epoch: &mut Epoch, content: &[u8]) -> Result<Sealed> {
        let Self { part, sender, subject, message_type, sequence, message_id, expires_at } = self;
        let (part, sequence, expires_at) = (*part, *sequence, *expires_at);
        let about = About { part, sender, subject, message_type, sequence, message_id, expires_at };
        let mut sealed = Vec::new();
        epoch.seal(&about, content, true, &mut sealed)?;
        Ok(Sealed::decode(sealed.as_slice())?)
    }
}

/// The payload of an envelope in its encoding, which is what is sealed and compressed.
pub(crate) fn content(payload: AnyPayload) -> Vec<u8> {
    Envelope { payload: Some(payload), ..Envelope::default() }.encode_to_vec()
}

/// The same envelope with its payload sealed as it should be.
pub(crate) fn sealed(sender: &Sender, epoch: &mut Epoch, envelope: &Envelope) -> Result<Envelope> {
    let inside = content(envelope.payload.clone().context("an envelope without a payload")?);
    sealed_content(sender, epoch, envelope, &inside)
}

/// The same envelope with these bytes sealed in place of its payload.
pub(crate) fn sealed_content(
    sender: &Sender,
    epoch: &mut Epoch,
    envelope: &Envelope,
    content: &[u8],
) -> Result<Envelope> {
    Ok(carrying(envelope, Bound::to(sender, envelope)?.seal(epoch, content)?))
}

/// The same envelope with this as its payload, sealed already.
pub(crate) fn carrying(envelope: &Envelope, sealed: Sealed) -> Envelope {
    holding(envelope, AnyPayload::Sealed(sealed))
}

/// The same envelope with this in place of its payload.
pub(crate) fn holding(envelope: &Envelope, payload: impl Into<AnyPayload>) -> Envelope {
    Envelope { payload: Some(payload.into()), ..envelope.clone() }
}

/// A payload that is compressed as it should be.
pub(crate) fn compressed(content: &[u8]) -> Result<AnyPayload> {
    let frame = compress(content, 1)?.context("it does not become shorter")?;
    Ok(AnyPayload::Compressed(Compressed { length: u32::try_from(content.len())?, frame: frame.into() }))
}

/// A field of bytes, as an encoder writes it.
pub(crate) fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut encoded);
    encode_varint(bytes.len() as u64, &mut encoded);
    encoded.extend_from_slice(bytes);
    encoded
}
