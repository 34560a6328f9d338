//! What everybody may read of something sealed: which epoch it belongs to, and whom its secret is wrapped to.

use alloc::vec::Vec;

use aws_lc_rs::digest::{Context, SHA256};

use crate::scan::reader::Reader;
use crate::scan::{PayloadView, Place, Refusal, ScanError};

/// The most recipients of an epoch, and so the most wrapped keys of a sealed payload or of sealed references.
pub const MAX_RECIPIENTS: usize = 256;

/// A sealed payload or sealed references, borrowed from the bytes of the envelope. Only the scan makes one, so all that it
/// shows is within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedView<'a> {
    epoch_id: &'a [u8; 16],
    commitment: &'a [u8; 32],
    counter: u32,
    ciphertext: &'a [u8],
    wrapped_keys: Vec<WrappedKeyView<'a>>,
}

impl<'a> SealedView<'a> {
    /// The sending process's epoch that this was sealed in.
    #[must_use]
    pub fn epoch_id(&self) -> &'a [u8; 16] {
        self.epoch_id
    }

    /// The commitment to the epoch's key and recipients.
    #[must_use]
    pub fn commitment(&self) -> &'a [u8; 32] {
        self.commitment
    }

    /// The number of this in its epoch: from 0, below 2³².
    #[must_use]
    pub fn counter(&self) -> u64 {
        u64::from(self.counter)
    }

    /// The ciphertext and its authentication tag, from 17 bytes.
    #[must_use]
    pub fn ciphertext(&self) -> &'a [u8] {
        self.ciphertext
    }

    /// The epoch's secret for each of its recipients, at most [`MAX_RECIPIENTS`], in strictly ascending order of their names.
    /// Empty: they came with an earlier message of the epoch.
    #[must_use]
    pub fn wrapped_keys(&self) -> &[WrappedKeyView<'a>] {
        &self.wrapped_keys
    }

    /// The epoch's secret for the recipient with this SPIFFE ID.
    #[must_use]
    pub fn wrapped_for(&self, spiffe_id: &str) -> Option<&WrappedKeyView<'a>> {
        let place = self.wrapped_keys.binary_search_by(|key| key.recipient.cmp(spiffe_id)).ok()?;
        self.wrapped_keys.get(place)
    }

    /// The digest of the recipients and the versions of their keys, which is bound to the epoch's key and to everything that is
    /// sealed in it. `None` without wrapped keys: then it is known from an earlier message of the epoch.
    #[must_use]
    pub fn recipients_digest(&self) -> Option<[u8; 32]> {
        let recipients = self.wrapped_keys.iter().map(|key| (key.recipient, key.key_version));
        (!self.wrapped_keys.is_empty()).then(|| recipients_digest(recipients))
    }

    /// Reads a sealed payload.
    pub(super) fn of_payload(payload: &PayloadView<'a>) -> Result<Self, ScanError> {
        Self::read(payload.bytes, Place::Payload, Place::WrappedKey)
    }

    /// Reads sealed references.
    pub(super) fn of_references(bytes: &'a [u8]) -> Result<Self, ScanError> {
        Self::read(bytes, Place::References, |_| Place::References)
    }

    fn read(bytes: &'a [u8], place: Place, place_of_key: impl Fn(u16) -> Place) -> Result<Self, ScanError> {
        let at = |refusal: Refusal| refusal.at(place);
        let (mut epoch_id, mut commitment, mut counter, mut ciphertext) = (None, None, 0, None);
        let mut wrapped_keys: Vec<WrappedKeyView<'a>> = Vec::new();
        let mut reader = Reader::new(bytes, 0);
        while let Some(field) = reader.next().map_err(at)? {
            match field.number {
                1 => epoch_id = Some(field.array("epoch_id", "it must be 16 bytes").map_err(at)?),
                2 => commitment = Some(field.array("commitment", "it must be 32 bytes").map_err(at)?),
                3 => counter = field.varint_up_to("counter", u32::MAX, "it must be below 2^32").map_err(at)?,
                4 => ciphertext = Some(field.bytes_from("ciphertext", 17, "it must be from 17 bytes").map_err(at)?),
                5 => {
                    let bytes = field.element("wrapped_keys").map_err(at)?;
                    if wrapped_keys.len() == MAX_RECIPIENTS {
                        let rule = "there may be at most 256";
                        return Err(at(Refusal::OutOfBounds { field: "wrapped_keys", rule }));
                    }
                    let place = place_of_key(u16::try_from(wrapped_keys.len()).unwrap_or(u16::MAX));
                    let key = WrappedKeyView::read(bytes, wrapped_keys.last()).map_err(|refusal| refusal.at(place))?;
                    wrapped_keys.push(key);
                }
                _ => field.unknown().map_err(at)?,
            }
        }
        let missing = |field| Refusal::Missing { field }.at(place);
        Ok(Self {
            epoch_id: epoch_id.ok_or(missing("epoch_id"))?,
            commitment: commitment.ok_or(missing("commitment"))?,
            counter,
            ciphertext: ciphertext.ok_or(missing("ciphertext"))?,
            wrapped_keys,
        })
    }
}

/// An epoch's secret for one recipient, borrowed from the bytes of the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKeyView<'a> {
    recipient: &'a str,
    key_version: u64,
    wrapped: &'a [u8],
}

impl<'a> WrappedKeyView<'a> {
    /// The recipient's SPIFFE ID, 1 to 512 bytes; its grammar is not checked here.
    #[must_use]
    pub fn recipient(&self) -> &'a str {
        self.recipient
    }

    /// The version of the recipient's sealing key, from 1.
    #[must_use]
    pub fn key_version(&self) -> u64 {
        self.key_version
    }

    /// The encapsulated key and the wrapped secret, 1 to 2,048 bytes.
    #[must_use]
    pub fn wrapped(&self) -> &'a [u8] {
        self.wrapped
    }

    /// Reads a wrapped key that follows `previous`.
    fn read(bytes: &'a [u8], previous: Option<&Self>) -> Result<Self, Refusal> {
        let (mut recipient, mut key_version, mut wrapped) = (None, None, None);
        let mut reader = Reader::new(bytes, 0);
        while let Some(field) = reader.next()? {
            match field.number {
                1 => recipient = Some(field.text("recipient", 512, "it must be 1 to 512 bytes")?),
                2 => key_version = Some(field.varint("key_version")?),
                3 => wrapped = Some(field.bytes_up_to("wrapped", 2_048, "it must be 1 to 2,048 bytes")?),
                _ => field.unknown()?,
            }
        }
        let missing = |field| Refusal::Missing { field };
        let key = Self {
            recipient: recipient.ok_or(missing("recipient"))?,
            key_version: key_version.ok_or(missing("key_version"))?,
            wrapped: wrapped.ok_or(missing("wrapped"))?,
        };
        if previous.is_some_and(|previous| previous.recipient >= key.recipient) {
            return Err(Refusal::UnorderedRecipients);
        }
        Ok(key)
    }
}

/// The digest of recipients, each a SPIFFE ID of at most 512 bytes and the version of a key, in the order in which their wrapped
/// keys stand.
pub(crate) fn recipients_digest<'a>(recipients: impl Iterator<Item = (&'a str, u64)>) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    for (spiffe_id, version) in recipients {
        digest.update(&u16::try_from(spiffe_id.len()).unwrap_or(u16::MAX).to_be_bytes());
        digest.update(spiffe_id.as_bytes());
        digest.update(&version.to_be_bytes());
    }
    let mut output = [0; 32];
    output.copy_from_slice(digest.finish().as_ref());
    output
}
