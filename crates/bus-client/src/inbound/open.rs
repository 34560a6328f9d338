//! Opening what is sealed.

use bus_crypto::sealing::{About, OpenEpoch, Part};
use bus_crypto::{SealedView, VerifiedPrefix, scan_references};
use bus_proto::v1::Reference;

use super::gate::Gate;
use super::rejected::Rejected;
use super::routes::Route;
use crate::sealing::SealingKeys;

/// How many versions of the own keys an error names.
const MAX_NAMED: usize = 8;

/// Opens what one envelope has sealed.
pub(super) struct Opener<'a> {
    pub(super) gate: &'a Gate,
    pub(super) route: &'a Route,
    pub(super) proven: &'a VerifiedPrefix<'a>,
    /// The epochs that were met with this envelope. They are kept only when all of it is accepted.
    pub(super) fresh: Vec<(Part, OpenEpoch)>,
}

/// What a message is about.
#[derive(Debug, Default)]
pub(super) struct Disclosed {
    pub(super) references: Vec<Reference>,
    /// There are some, for others.
    pub(super) withheld: bool,
}

impl Opener<'_> {
    /// What was sealed as a payload: still in its encoding.
    pub(super) fn payload(&mut self, sealed: &SealedView<'_>) -> Result<Vec<u8>, Rejected> {
        self.open(sealed, Part::Payload)
    }

    /// The references, if there are any. That they are for others is no reason to refuse a message.
    pub(super) fn references(&mut self) -> Result<Disclosed, Rejected> {
        let Some(sealed) = self.proven.scan().references() else { return Ok(Disclosed::default()) };
        // They always say whom they are for: without a key for this component they are not, even if their epoch is known.
        if sealed.wrapped_for(&self.gate.own_id).is_none() {
            return Ok(Disclosed { withheld: true, ..Disclosed::default() });
        }
        let opened = self.open(sealed, Part::References)?;
        let owned = |reference: &bus_crypto::ReferenceView<'_>| Reference {
            kind: reference.kind().to_owned(),
            value: reference.value().to_owned(),
        };
        let references = scan_references(&opened).map_err(Rejected::Content)?.iter().map(owned).collect();
        Ok(Disclosed { references, withheld: false })
    }

    fn open(&mut self, sealed: &SealedView<'_>, part: Part) -> Result<Vec<u8>, Rejected> {
        // Whom it is sealed to comes first, whether its epoch is known or not.
        if !sealed.wrapped_keys().is_empty() && sealed.wrapped_for(&self.gate.own_id).is_none() {
            return Err(Rejected::NotARecipient { recipients: sealed.wrapped_keys().len() });
        }
        let (scan, key_id) = (self.proven.scan(), self.proven.key_id());
        let sender = self.route.sender.spiffe_id();
        let about = About {
            part,
            sender: &sender,
            subject: scan.subject(),
            message_type: self.route.message_type.token(),
            sequence: scan.sequence().unwrap_or(0),
            message_id: scan.message_id(),
            expires_at: scan.expires_at().unwrap_or(0),
        };
        let known = self.route.epoch(&key_id, sealed.epoch_id());
        let fresh = || self.fresh.iter().map(|(_, epoch)| epoch).find(|epoch| epoch.id() == sealed.epoch_id());
        if let Some(epoch) = known.or_else(fresh) {
            return Ok(epoch.open(sealed, &about)?);
        }
        let epoch = self.unwrap(sealed)?;
        let opened = epoch.open(sealed, &about)?;
        self.fresh.push((part, epoch));
        Ok(opened)
    }

    fn unwrap(&self, sealed: &SealedView<'_>) -> Result<OpenEpoch, Rejected> {
        let own_id = &self.gate.own_id;
        let Some(wrapped) = sealed.wrapped_for(own_id) else {
            return Err(Rejected::UnknownEpoch { sender: self.route.sender.clone() });
        };
        let version = wrapped.key_version();
        let own_keys = self.gate.own_keys.get();
        let Some(own) = own_keys.and_then(|keys| keys.find(version)) else {
            return Err(Rejected::UnknownSealingKey {
                version,
                component: self.gate.receiver.component().clone(),
                own: own_keys.map(newest_versions).unwrap_or_default(),
            });
        };
        Ok(OpenEpoch::unwrap(sealed, &self.proven.key_id(), wrapped, own.key())?)
    }
}

/// The newest versions that this process has, ascending, for an error.
fn newest_versions(keys: &SealingKeys) -> Vec<u64> {
    let mut versions = keys.versions();
    versions.split_off(versions.len().saturating_sub(MAX_NAMED))
}
