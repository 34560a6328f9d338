//! What only its recipients can read: sealing a message's content, and opening it.
//!
//! A sending process begins an [`Epoch`] for each subject: a fresh secret, wrapped to every recipient's [`SealingPublicKey`]
//! with HPKE (RFC 9180). The epoch's keys derive from the secret, and each content is sealed with AES-256-GCM-SIV
//! (RFC 8452) under its counter, bound to all that [`About`] says of its message. A receiver unwraps the secret once, as an
//! [`OpenEpoch`], and opens with it whatever else the epoch sealed.
//!
//! ```
//! use bus_crypto::sealing::{About, Epoch, OpenEpoch, Part, Recipient, SealingFailed, SealingKey};
//! use bus_crypto::{KeyId, scan, zeroize::Zeroizing};
//! # use bus_proto::prost::{Message, bytes::Bytes};
//! # use bus_proto::v1::{Sealed, envelope::Payload};
//! # use bus_proto::{ComponentId, v1::Envelope};
//!
//! # let mut next = 0;
//! # let mut fill = |bytes: &mut [u8]| { next += 1; bytes.fill(next); Ok::<_, SealingFailed>(()) };
//! // The recipient's key: made once, kept, and published as a record.
//! let mut seed = Zeroizing::new([0; 32]);
//! fill(seed.as_mut_slice())?; // from the operating system's random source
//! let key = SealingKey::from_seed(&seed)?;
//! let core = "spiffe://ransomeye.local/core/core-01";
//!
//! // The sender: once per epoch, and then once per message.
//! let (key_id, now) = (KeyId::of_bundle(b"the sender's bundle"), 1_790_000_000_000);
//! let recipient = Recipient { principal: core.parse()?, version: 1, key: key.public_key().clone() };
//! let mut epoch = Epoch::new(key_id, &[recipient], now, fill)?;
//! let about = About {
//!     part: Part::Payload,
//!     sender: "spiffe://ransomeye.local/agent/agent-01",
//!     subject: "ransomeye.inbox.core.core-01.alert.agent.agent-01",
//!     message_type: "alert",
//!     sequence: 1,
//!     message_id: "0199f1a2-0000-7000-8000-000000000000",
//!     expires_at: 0,
//! };
//! let mut sealed = Vec::new(); // the encoding of a `Sealed`, which becomes field 17 of an envelope
//! epoch.seal(&about, b"an encoded payload field", true, &mut sealed)?;
//! # let payload = Payload::Sealed(Sealed::decode(sealed.as_slice())?);
//! # let mut message = Envelope::new(&ComponentId::new("agent-01")?, payload, now, [7; 10]);
//! # message.subject = about.subject.into();
//! # let prefix = message.encode_to_vec();
//!
//! // The recipient, once the message is verified: what `about` says comes from the scan and the verified sender.
//! let scanned = scan(&prefix)?;
//! let sealed = scanned.sealed().ok_or("not sealed")?;
//! let wrapped = sealed.wrapped_for(core).ok_or("not for us")?;
//! let epoch = OpenEpoch::unwrap(sealed, &key_id, wrapped, &key)?;
//! assert_eq!(epoch.open(sealed, &about)?, b"an encoded payload field");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # What it promises, and what it does not
//!
//! * AES-256-GCM-SIV alone would let a sender find two keys that open one ciphertext. So an epoch commits to its keys, its
//!   sender's signing key and its recipients, and a receiver compares the commitment before it opens anything: whoever
//!   opens a message reads what every other recipient reads.
//! * Two epochs of one secret, which the restored snapshot of a virtual machine has, count alike. What they seal under the
//!   same counter tells a reader only whether it is the same content of the same message.
//! * Whoever learns a recipient's private key reads what was sealed to it. A [`SealingKey`] is therefore replaced regularly.
//! * Sealing does not prove who sealed: the signature over the whole envelope does, and it is verified first.

mod epoch;
mod hpke;
mod keys;
#[cfg(feature = "passphrase")]
pub mod locked;
mod open;
pub mod record;
mod schedule;

pub use epoch::{Epoch, MAX_AGE_MS, MAX_MESSAGES, Recipient, SealError};
pub use keys::{SealingFailed, SealingKey, SealingKeyError, SealingPublicKey};
pub use open::{OpenEpoch, OpenError};
pub use record::{
    MAX_RECORD_LEN, MAX_SEALING_MS, MakeRecordError, RecordError, SealingLifetime, UnverifiedRecord, VerifiedRecord,
};
pub use schedule::{About, Part};
