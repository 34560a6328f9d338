//! How messages travel: sealed or not, and to whom; compressed or not.

use std::collections::{BTreeMap, BTreeSet};

use bus_acl::{Policy, Sealing};
use bus_crypto::KeyId;
use bus_crypto::compression::compress;
use bus_crypto::sealing::{About, Part};
use bus_proto::{Destination, Endpoint, MessageType};

use super::encode::{self, Attached, Frame, Stated};
use super::outlet::Outlet;
use super::run::Run;
use super::seal::{Sealers, Sending};
use crate::connection::Inner;
use crate::error::PublishError;

/// The level of compression: the fastest of Zstandard's ordinary ones.
const LEVEL: i32 = 1;

/// What is shorter than this, in bytes, is not worth compressing.
const WORTHWHILE: usize = 128;

/// What this client's options say about forms, besides the policy.
#[derive(Debug, Clone)]
pub(crate) struct Forms {
    /// Whether directed messages are sealed where the policy leaves it open.
    pub(crate) seal_directed: bool,
    /// Whom events of a type are sealed to, besides those whom the policy names.
    pub(crate) readers: BTreeMap<MessageType, BTreeSet<Endpoint>>,
}

/// The form of the messages of one subject.
#[derive(Debug)]
pub(crate) struct Form {
    /// Everyone whom they are sealed to, if they are.
    pub(crate) sealed_to: Option<Vec<Endpoint>>,
    pub(crate) compress: bool,
}

impl Forms {
    /// The form of what is published there.
    pub(crate) fn of(
        &self,
        policy: &Policy,
        message_type: &MessageType,
        destination: &Destination,
    ) -> Result<Form, PublishError> {
        let form = policy.form(message_type, destination);
        let mut recipients: BTreeSet<Endpoint> = form.recipients().cloned().collect();
        let seals = match destination {
            Destination::Events => {
                let readers = self.readers.get(message_type);
                recipients.extend(readers.into_iter().flatten().cloned());
                form.sealing() > Sealing::Off || readers.is_some()
            }
            Destination::Inbox(to) => {
                recipients.insert(to.clone());
                // What a rule has sealed is sealed. Only where none says anything do the options decide.
                let has_a_rule = form.matching().any(|(_, rule)| rule.sealing() > Some(Sealing::Off));
                form.sealing() > Sealing::Off && (has_a_rule || self.seal_directed)
            }
        };
        if seals && recipients.is_empty() {
            return Err(PublishError::NoRecipients { message_type: message_type.clone() });
        }
        let compress = form.compress().unwrap_or(false);
        Ok(Form { sealed_to: seals.then(|| recipients.into_iter().collect()), compress })
    }
}

/// A run in the form in which it goes out.
#[derive(Debug, Default)]
pub(super) struct Formed {
    /// The encoded field of the payload, if it is not the run's own as it is.
    pub(super) payload: Option<Vec<u8>>,
    /// The sealed references, or nothing.
    pub(super) references: Vec<u8>,
    /// Whether the wrapped keys of the payload's epoch are in it.
    pub(super) with_keys: bool,
}

impl Inner {
    /// Compresses and seals a run, as its subject demands.
    #[expect(clippy::too_many_arguments, reason = "each is another one's")]
    pub(super) fn form_run(
        &self,
        outlet: &Outlet,
        sealers: &mut Sealers,
        run: &Run,
        frame: &Frame<'_>,
        stated: &Stated,
        key_id: KeyId,
        sending: Sending,
    ) -> Result<Formed, PublishError> {
        let mut formed = Formed::default();
        if outlet.compress {
            let content = encode::content(run);
            let compressed = if content.len() < WORTHWHILE { None } else { compress(&content, LEVEL)? };
            formed.payload = compressed.map(|frame| encode::compressed(content.len(), &frame));
        }
        let references = run.common().references.as_ref();
        if outlet.sealed_to.is_none() && references.is_none() {
            return Ok(formed);
        }
        let about = About {
            part: Part::Payload,
            sender: &self.own_id,
            subject: frame.subject,
            message_type: outlet.message_type.token(),
            sequence: frame.sequence,
            // It consists of hyphens and hexadecimal digits.
            message_id: std::str::from_utf8(&stated.message_id).unwrap_or_default(),
            expires_at: stated.expires_at,
        };
        if let Some(recipients) = &outlet.sealed_to {
            let now = sending.now_unix_ms;
            let keys = recipients.keys(now)?;
            let content = formed.payload.take().unwrap_or_else(|| encode::content(run));
            let (sealed, with_keys) = sealers.payload(key_id, &keys, &about, &content, &sending)?;
            formed.payload = Some(encode::sealed(&sealed));
            formed.with_keys = with_keys;
        }
        if let Some(Attached(its)) = references {
            its.keys.check(sending.now_unix_ms)?;
            let about = About { part: Part::References, ..about };
            formed.references = sealers.references(key_id, &its.keys, &about, &its.encoded, sending.now_unix_ms)?;
        }
        Ok(formed)
    }
}
