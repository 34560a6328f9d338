//! Why a message that arrived was refused.

use bus_acl::Denied;
use bus_crypto::compression::CompressionError;
use bus_crypto::sealing::OpenError;
use bus_crypto::{BundleError, EnvelopeError as Unproven, KeyId, ReplayError, ScanError, SignatureError};
use bus_proto::{ComponentId, EnvelopeError, MessageType, PayloadError, Principal, SubjectError};
use bus_tls::TlsError;

/// Why a message that arrived was refused. The subscription goes on.
///
/// A refusal is told to the receiver alone: whoever sent the message does not learn of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// It is larger than the bus carries.
    #[error("the message has {size} bytes, at most {max} are accepted")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The most, in bytes.
        max: usize,
    },
    /// It has headers, which no message of the bus has: somebody has the broker publish what is in a stream, for one.
    #[error("the message has headers, which messages of the bus have not: somebody may have had the broker publish it")]
    Headers,
    /// It arrived on a subject that is none of the bus.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// It does not end with a trailer.
    #[error("the message is not signed: it does not end with a trailer")]
    Unsigned,
    /// Its bytes are not the one encoding of an envelope, or a field is out of its bounds.
    #[error("the bytes are not a canonical envelope: {0}")]
    Encoding(#[from] ScanError),
    /// The `subject` field names another subject than the one delivered on.
    #[error("the envelope says that it was published to another subject than `{delivered}`, where it arrived")]
    SubjectMismatch {
        /// Where it arrived.
        delivered: String,
    },
    /// The message is meant for another receiver, or is an event that names one.
    #[error("the envelope names another receiver than this one")]
    DestinationMismatch,
    /// The payload is of another type than the subject names.
    #[error("the payload is not of the type that the subject names, {subject}")]
    TypeMismatch {
        /// The type in the subject.
        subject: MessageType,
    },
    /// The policy denies its sender this message.
    #[error(transparent)]
    Denied(Box<Denied>),
    /// Its timestamp is too far from this clock.
    #[error(
        "the timestamp is {ahead_ms} ms ahead of this clock, at most {skew_ms} ms either way are accepted: check both \
         clocks, and whether this subscription is read in time"
    )]
    ClockSkew {
        /// How far ahead, in milliseconds; negative when it lies in the past.
        ahead_ms: i64,
        /// How far it may be, in milliseconds.
        skew_ms: i64,
    },
    /// It was made before the subscription, so that nobody knows whether it was received before.
    #[error(
        "the message was made {early_ms} ms before this subscription: it may be a repetition; or check both clocks"
    )]
    PredatesSubscription {
        /// How long before, in milliseconds.
        early_ms: i64,
    },
    /// The message's time to live is over.
    #[error("the message expired {late_ms} ms ago")]
    Expired {
        /// How long ago, in milliseconds.
        late_ms: i64,
    },
    /// Nobody vouches for the key that it names: no bundle came along, and the keys stream has none.
    #[error("the key {key_id} is unknown: no bundle of it came along, and the keys stream has none from {sender}")]
    UnknownKey {
        /// The key.
        key_id: KeyId,
        /// Who sent the message, as its subject says.
        sender: Principal,
    },
    /// Too many messages wait for their key's bundle.
    #[error("too many messages wait for the bundles of their keys; this one, of {sender}, found no room")]
    WaitingFull {
        /// Who sent the message, as its subject says.
        sender: Principal,
    },
    /// Its sender brought so many bad bundles that, for some seconds, no more are looked at.
    #[error("{sender} brought too many bad key bundles: no more are looked at for some seconds")]
    TooManyBadBundles {
        /// Who sent it, as its subject says.
        sender: Principal,
    },
    /// The key bundle does not hold.
    #[error("the key bundle: {0}")]
    Bundle(#[from] BundleError),
    /// The certificate in the key bundle is not one of a component of this deployment.
    #[error("the certificate in the key bundle: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate in the key bundle, or one above it, is revoked.
    #[error("the certificate in the key bundle: {reason}")]
    Revoked {
        /// Which one, and by which list.
        reason: String,
    },
    /// The revocation list here is out of date, so that no certificate can be relied on.
    #[error("{reason}")]
    StaleRevocationList {
        /// Which one.
        reason: String,
    },
    /// The bundle that came along is of another key than the message's.
    #[error("the message carries the bundle of another key than the one that it names")]
    ForeignBundle,
    /// The signer belongs to another trust domain.
    #[error("the message is signed by {signer}, of another trust domain")]
    ForeignTrustDomain {
        /// Whose bundle it is.
        signer: Principal,
    },
    /// The key may not be used now, or could not have signed when the message says it did.
    #[error("{reason}")]
    KeyTime {
        /// What does not fit.
        reason: String,
    },
    /// The signature does not hold: these bytes were not signed with this key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Somebody else signed it than its subject, or its `source_component`, names.
    #[error("the message names another sender than {signer}, whose key it is signed with")]
    SenderMismatch {
        /// Whose key it is.
        signer: Principal,
    },
    /// It was received before, or nobody can tell any more.
    #[error(transparent)]
    Replayed(#[from] ReplayError),
    /// Its sender uses more keys at a time than are kept apart.
    #[error("{sender} signs with more keys at a time than are kept apart")]
    TooManySessions {
        /// Who sent it.
        sender: Principal,
    },
    /// The policy demands that it is sealed, and it is not.
    #[error("the policy demands that {message_type} is sealed here, and it is not")]
    NotSealed {
        /// Its type.
        message_type: MessageType,
    },
    /// It is sealed to others.
    #[error("the message is sealed to {recipients} others, and not to this component")]
    NotARecipient {
        /// To how many.
        recipients: usize,
    },
    /// It is sealed with a key that its sender sent along earlier, and will send again.
    #[error(
        "the message of {sender} is sealed with a key that came before this subscription: it comes again within 10 s"
    )]
    UnknownEpoch {
        /// Who sent it.
        sender: Principal,
    },
    /// It is sealed to a key of this component that this process does not have.
    #[error("sealed for key version {version} of {component}, this process has {}: the processes of a component share one \
             file of sealing keys", listed(.own))]
    UnknownSealingKey {
        /// The version of the key that it is sealed to.
        version: u64,
        /// Whose key that is.
        component: ComponentId,
        /// The newest versions that this process has, at most eight, in ascending order.
        own: Vec<u64>,
    },
    /// What is sealed does not open: it was altered, or was sealed for something else.
    #[error("the message does not open: {0}")]
    Opening(#[from] OpenError),
    /// What was sealed or compressed is not in its one encoding.
    #[error("what the message holds inside is not in its one encoding: {0}")]
    Content(ScanError),
    /// It does not decompress within its bounds.
    #[error("the message does not decompress: {0}")]
    Compression(#[from] CompressionError),
    /// A value of the payload is out of its bounds.
    #[error(transparent)]
    Value(#[from] EnvelopeError),
    /// The payload is not of the type that was subscribed to, or is not registered.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// It answers no request of this client.
    #[error("an answer from {sender} matches no request that waits for it")]
    Unsolicited {
        /// Who sent it.
        sender: Principal,
    },
    /// The broker withdrew the subscription: its permissions changed. Nothing more arrives on it unless they change
    /// back and the client reconnects.
    #[error("the broker withdrew the subscription to `{filter}`")]
    Withdrawn {
        /// What was subscribed to.
        filter: String,
    },
}

/// The versions that there are, for people.
fn listed(versions: &[u64]) -> String {
    let texts: Vec<String> = versions.iter().map(u64::to_string).collect();
    match texts.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

impl Rejected {
    /// Whether this is no fault of the message's: it is sealed, and not for this process, or not yet.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::NotARecipient { .. } | Self::UnknownEpoch { .. })
    }

    /// A short, stable name of the reason, for counting and searching. `docs/wire.md` lists them.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Headers => "headers",
            Self::Subject(_) => "subject",
            Self::Unsigned => "unsigned",
            Self::Encoding(_) => "encoding",
            Self::SubjectMismatch { .. } => "subject_mismatch",
            Self::DestinationMismatch => "destination_mismatch",
            Self::TypeMismatch { .. } => "type_mismatch",
            Self::Denied(_) => "policy",
            Self::ClockSkew { .. } => "clock_skew",
            Self::PredatesSubscription { .. } => "predates_subscription",
            Self::Expired { .. } => "expired",
            Self::UnknownKey { .. } => "unknown_key",
            Self::WaitingFull { .. } => "waiting_full",
            Self::TooManyBadBundles { .. } => "too_many_bad_bundles",
            Self::Bundle(_) => "bundle",
            Self::Certificate { .. } => "certificate",
            Self::Revoked { .. } => "revoked",
            Self::StaleRevocationList { .. } => "stale_revocation_list",
            Self::ForeignBundle => "foreign_bundle",
            Self::ForeignTrustDomain { .. } => "foreign_trust_domain",
            Self::KeyTime { .. } => "key_time",
            Self::Signature(_) => "signature",
            Self::SenderMismatch { .. } => "sender_mismatch",
            Self::Replayed(ReplayError::NotCounted) => "not_counted",
            Self::Replayed(ReplayError::TooOld { .. }) => "too_old",
            Self::Replayed(_) => "replayed",
            Self::TooManySessions { .. } => "too_many_sessions",
            Self::NotSealed { .. } => "not_sealed",
            Self::NotARecipient { .. } => "not_a_recipient",
            Self::UnknownEpoch { .. } => "unknown_epoch",
            Self::UnknownSealingKey { .. } => "unknown_sealing_key",
            Self::Opening(_) => "opening",
            Self::Content(_) => "content",
            Self::Compression(_) => "compression",
            Self::Value(_) => "value",
            Self::Payload(_) => "payload",
            Self::Unsolicited { .. } => "unsolicited",
            Self::Withdrawn { .. } => "withdrawn",
        }
    }
}

impl From<Denied> for Rejected {
    fn from(denied: Denied) -> Self {
        Self::Denied(Box::new(denied))
    }
}

impl From<Unproven> for Rejected {
    fn from(error: Unproven) -> Self {
        match error {
            Unproven::Trailer(_) => Self::Unsigned,
            Unproven::Scan(error) => Self::Encoding(error),
            Unproven::ForeignTrustDomain { signer, .. } => Self::ForeignTrustDomain { signer },
            Unproven::ForeignBundle | Unproven::OtherKey { .. } => Self::ForeignBundle,
            Unproven::Signature(error) => Self::Signature(error),
            Unproven::SubjectSender { signer } | Unproven::SourceComponent { signer } => {
                Self::SenderMismatch { signer }
            }
            // The key's times; what else may be added is about a key that cannot be relied on, too.
            other => Self::KeyTime { reason: other.to_string() },
        }
    }
}

impl From<TlsError> for Rejected {
    fn from(error: TlsError) -> Self {
        let reason = error.to_string();
        match error {
            TlsError::Revoked { .. } => Self::Revoked { reason },
            TlsError::StaleCrl { .. } => Self::StaleRevocationList { reason },
            _ => Self::Certificate { reason },
        }
    }
}
