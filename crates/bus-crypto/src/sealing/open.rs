//! The receiver's side: an epoch's secret unwrapped, and what was sealed opened.

use alloc::vec::Vec;
use core::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::hpke;
use super::keys::SealingKey;
use super::schedule::{About, ID_LEN, Keys, Names};
use crate::KeyId;
use crate::scan::{SealedView, WrappedKeyView};

/// Why something does not open. None of these says anything about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The wrapped key was made for another key, sender, epoch or recipient, was changed since, or holds no secret of 32 bytes.
    #[error("the wrapped key does not open with this sealing key")]
    WrappedKey,
    /// The message commits to other keys than those that its wrapped key leads to, or to other recipients than it names: its
    /// sender might show each recipient something else.
    #[error("the commitment is not that of the wrapped key and the recipients")]
    Commitment,
    /// The message belongs to another epoch, whatever its id says.
    #[error("the message belongs to another epoch than the one at hand")]
    OtherEpoch,
    /// The ciphertext was not sealed in this epoch as this part of this message, or was changed since.
    #[error("the ciphertext does not open as this part of this message")]
    Ciphertext,
}

/// A sender's epoch as one recipient knows it: what opens all that was sealed in it.
///
/// It is in memory only. See the [module](super) for an example.
pub struct OpenEpoch {
    keys: Keys,
    names: Names,
}

impl OpenEpoch {
    /// Unwraps the epoch's secret out of the recipient's `wrapped` key, which is one of those in `sealed`, and compares the
    /// commitment. `key_id` is the signing key that the message was verified with; the secret opens for no other.
    ///
    /// The cost is one key agreement, some 30 µs. Whoever keeps the epoch pays it once.
    ///
    /// # Errors
    ///
    /// [`OpenError::WrappedKey`], and [`OpenError::Commitment`] after it.
    pub fn unwrap(
        sealed: &SealedView<'_>,
        key_id: &KeyId,
        wrapped: &WrappedKeyView<'_>,
        key: &SealingKey,
    ) -> Result<Self, OpenError> {
        let recipients = sealed.recipients_digest().ok_or(OpenError::WrappedKey)?;
        let names = Names { key_id: *key_id, epoch_id: *sealed.epoch_id(), recipients };
        let info = names.wrapping_info(wrapped.recipient(), wrapped.key_version());
        let secret = hpke::open(key, &info, wrapped.wrapped()).map_err(|_| OpenError::WrappedKey)?;
        let secret = secret.as_slice().try_into().map_err(|_| OpenError::WrappedKey)?;
        let keys = Keys::derive(secret, &names).ok_or(OpenError::WrappedKey)?;
        let epoch = Self { keys, names };
        epoch.check_commitment(sealed).map_err(|_| OpenError::Commitment)?;
        Ok(epoch)
    }

    /// Its id, 16 bytes.
    #[must_use]
    pub fn id(&self) -> &[u8; ID_LEN] {
        &self.names.epoch_id
    }

    /// Opens what was sealed in this epoch, with wrapped keys beside it or without.
    ///
    /// # Errors
    ///
    /// [`OpenError::OtherEpoch`] if the message has another id, commitment or list of recipients than the one that this epoch
    /// was unwrapped from; [`OpenError::Ciphertext`] after it.
    pub fn open(&self, sealed: &SealedView<'_>, about: &About<'_>) -> Result<Vec<u8>, OpenError> {
        let same_recipients = sealed.recipients_digest().is_none_or(|digest| digest == self.names.recipients);
        if sealed.epoch_id() != self.id() || !same_recipients {
            return Err(OpenError::OtherEpoch);
        }
        self.check_commitment(sealed)?;
        let data = self.names.associated_data(about).ok_or(OpenError::Ciphertext)?;
        let mut text = sealed.ciphertext().to_vec();
        let len = self.keys.open(sealed.counter(), &data, &mut text).ok_or(OpenError::Ciphertext)?;
        text.truncate(len);
        Ok(text)
    }

    fn check_commitment(&self, sealed: &SealedView<'_>) -> Result<(), OpenError> {
        verify_slices_are_equal(self.keys.commitment(), sealed.commitment()).map_err(|_| OpenError::OtherEpoch)
    }
}

impl fmt::Debug for OpenEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys: _, names } = self;
        f.debug_struct("OpenEpoch").field("id", names).finish_non_exhaustive()
    }
}
