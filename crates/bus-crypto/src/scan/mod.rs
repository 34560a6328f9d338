//! The canonical scan: one pass over an encoded envelope, with one possible reading as its result.
//!
//! Protobuf lets one message be written in many ways, and lets decoders differ on some of them: fields in any order, a
//! field twice, two payloads of which the last wins, numbers padded with zeros. A signature over such bytes would prove
//! less than it seems to. So [`scan`] accepts one way only, and every check reads its result:
//!
//! * fields stand in ascending order, and only repeated ones more than once;
//! * every varint (keys, lengths, values) is in its shortest form;
//! * no groups, no wire type but the schema's, no field below 1,000 that the schema does not have;
//! * exactly one payload;
//! * a field that holds its default (0 or empty) is absent: no encoder of protobuf 3 writes one, and whether it is *there*
//!   would otherwise be a second reading of bytes whose *value* is the same;
//! * the mandatory fields are there, and every field that a check depends on is within its bounds.
//!
//! The same holds within the payload, whatever its kind, within a batch's members, and within `trace_context` and `references`;
//! and, once it is opened or decompressed, within what was sealed ([`scan_content`], [`scan_references`]) or compressed
//! ([`scan_decompressed`]). Two things are left to whoever uses them: what `Custom.value` holds, and whether a value of a payload
//! makes sense.

mod batch;
mod content;
mod error;
mod payload;
mod reader;
mod references;
mod sealed;

use alloc::vec::Vec;

pub use batch::{MAX_MEMBERS, Member};
pub use content::{Content, scan_content, scan_decompressed};
pub use error::{Place, Refusal, ScanError};
pub use payload::{PayloadKind, PayloadView};
pub(crate) use reader::{Field, Reader};
pub use references::{MAX_REFERENCES, ReferenceView, scan_references};
pub(crate) use sealed::recipients_digest;
pub use sealed::{MAX_RECIPIENTS, SealedView, WrappedKeyView};

/// The longest prefix that is scanned, in bytes: NATS advises against messages of more than 8 MiB.
pub const MAX_PREFIX_LEN: usize = 8 * 1024 * 1024;

/// The longest key bundle, in bytes.
pub const MAX_BUNDLE_LEN: usize = 16_384;

const MAX_TAGS: usize = 16;

/// What an envelope says, borrowed from its bytes. Only [`scan`] makes one, so all that it shows is within its bounds.
///
/// It proves nothing about who wrote it: see [`crate::VerifiedPrefix`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan<'a> {
    message_id: &'a str,
    source_component: &'a str,
    timestamp: i64,
    subject: &'a str,
    destination: Option<&'a str>,
    expires_at: Option<i64>,
    correlation_id: Option<&'a [u8; 32]>,
    sequence: Option<u64>,
    priority: Option<u8>,
    payload: PayloadView<'a>,
    tags: Vec<&'a str>,
    trace_context: &'a [u8],
    bundle: Option<&'a [u8]>,
    references: Option<SealedView<'a>>,
    form: Form<'a>,
}

/// What the scan has read of a payload, apart from where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form<'a> {
    /// A payload that is no form, or a compressed one.
    Plain,
    Sealed(SealedView<'a>),
    Batch(Vec<Member<'a>>),
}

impl<'a> Form<'a> {
    fn read(payload: &PayloadView<'a>) -> Result<Self, ScanError> {
        let in_payload = |refusal: Refusal| refusal.at(Place::Payload);
        match payload.kind {
            PayloadKind::Batch => batch::members(payload).map(Self::Batch),
            PayloadKind::Sealed => SealedView::of_payload(payload).map(Self::Sealed),
            PayloadKind::Compressed => payload::compressed(payload).map(|_| Self::Plain).map_err(in_payload),
            _ => payload::plain(payload).map(|()| Self::Plain).map_err(in_payload),
        }
    }

    fn members(&self) -> &[Member<'a>] {
        match self {
            Self::Batch(members) => members,
            Self::Plain | Self::Sealed(_) => &[],
        }
    }
}

impl<'a> Scan<'a> {
    /// A UUID of version 7 in hyphenated lower-case form, 36 bytes.
    #[must_use]
    pub fn message_id(&self) -> &'a str {
        self.message_id
    }

    /// The component that the sender claims to be, 1 to 63 bytes; its grammar is not checked here, for verification
    /// compares it with the certificate's.
    #[must_use]
    pub fn source_component(&self) -> &'a str {
        self.source_component
    }

    /// When the message was made, in Unix milliseconds, greater than 0.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The subject that the sender published to, 1 to 512 bytes.
    #[must_use]
    pub fn subject(&self) -> &'a str {
        self.subject
    }

    /// The SPIFFE ID of the one receiver of a directed message, 1 to 512 bytes.
    #[must_use]
    pub fn destination(&self) -> Option<&'a str> {
        self.destination
    }

    /// When the message stops being worth delivering, in Unix milliseconds, greater than 0. `None` means never.
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    /// For a reply, the digest of the request that it answers.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a [u8; 32]> {
        self.correlation_id
    }

    /// The number of this envelope among those of its key and subject, from 1. `None` means that it is not counted.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// The urgency, 1 to 10. `None` stands for 5.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        self.priority
    }

    /// The one payload.
    #[must_use]
    pub fn payload(&self) -> &PayloadView<'a> {
        &self.payload
    }

    /// The labels, at most 16 of 1 to 64 bytes each.
    #[must_use]
    pub fn tags(&self) -> &[&'a str] {
        &self.tags
    }

    /// The encoded `TraceContext`, empty where there is none.
    #[must_use]
    pub fn trace_context(&self) -> &'a [u8] {
        self.trace_context
    }

    /// The key bundle that came along, 1 to 16,384 bytes, as yet unread.
    #[must_use]
    pub fn bundle(&self) -> Option<&'a [u8]> {
        self.bundle
    }

    /// The members of a batch, 1 to 256, all of one kind; empty if the payload is no batch.
    #[must_use]
    pub fn members(&self) -> &[Member<'a>] {
        self.form.members()
    }

    /// The sealed payload, as far as everybody may read it; `None` if the payload is of another kind.
    #[must_use]
    pub fn sealed(&self) -> Option<&SealedView<'a>> {
        match &self.form {
            Form::Sealed(sealed) => Some(sealed),
            Form::Plain | Form::Batch(_) => None,
        }
    }

    /// The sealed references, as far as everybody may read them.
    #[must_use]
    pub fn references(&self) -> Option<&SealedView<'a>> {
        self.references.as_ref()
    }
}

/// Reads the prefix of an envelope: the message without its trailer.
///
/// One pass over each message in it, in time proportional to the length. Nothing is allocated, except for the lists of a batch's
/// members, of wrapped keys and of the tags.
///
/// ```
/// use bus_crypto::scan;
/// use bus_proto::{ComponentId, prost::Message, v1::{Envelope, Heartbeat}};
///
/// let source = ComponentId::new("agent-01")?;
/// let mut envelope = Envelope::new(&source, Heartbeat::default(), 1_790_000_000_000, [7; 10]);
/// envelope.subject = "ransomeye.events.heartbeat.agent.agent-01".into();
/// let prefix = envelope.encode_to_vec();
///
/// assert_eq!(scan(&prefix)?.subject(), envelope.subject);
///
/// // The same message with its first field repeated at the end decodes to the same values, and is refused.
/// let twice = [&prefix[..], &prefix[..38]].concat();
/// assert!(scan(&twice).is_err());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # Errors
///
/// The first thing that is not as it must be: first in the envelope itself, then in its payload, then in its trace context,
/// then in its references.
pub fn scan(prefix: &[u8]) -> Result<Scan<'_>, ScanError> {
    let fields = Fields::read(prefix).map_err(|refusal| refusal.at(Place::Envelope))?;
    let missing = |field| Refusal::Missing { field }.at(Place::Envelope);
    let payload = fields.payload.ok_or(Refusal::NoPayload.at(Place::Envelope))?;
    Ok(Scan {
        message_id: fields.message_id.ok_or(missing("message_id"))?,
        source_component: fields.source_component.ok_or(missing("source_component"))?,
        timestamp: fields.timestamp.ok_or(missing("timestamp_utc"))?,
        subject: fields.subject.ok_or(missing("subject"))?,
        destination: fields.destination,
        expires_at: fields.expires_at,
        correlation_id: fields.correlation_id,
        sequence: fields.sequence,
        priority: fields.priority,
        form: Form::read(&payload)?,
        payload,
        tags: fields.tags,
        trace_context: payload::trace_context(fields.trace_context)?,
        bundle: fields.bundle,
        references: fields.references.map(SealedView::of_references).transpose()?,
    })
}

/// The fields of an envelope, as far as they have been met.
#[derive(Default)]
struct Fields<'a> {
    message_id: Option<&'a str>,
    source_component: Option<&'a str>,
    timestamp: Option<i64>,
    subject: Option<&'a str>,
    destination: Option<&'a str>,
    expires_at: Option<i64>,
    correlation_id: Option<&'a [u8; 32]>,
    sequence: Option<u64>,
    priority: Option<u8>,
    payload: Option<PayloadView<'a>>,
    tags: Vec<&'a str>,
    /// Empty if it is absent, which comes to the same here.
    trace_context: &'a [u8],
    bundle: Option<&'a [u8]>,
    references: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(prefix: &'a [u8]) -> Result<Self, Refusal> {
        if prefix.len() > MAX_PREFIX_LEN {
            return Err(Refusal::TooLong { len: prefix.len(), max: MAX_PREFIX_LEN });
        }
        let mut fields = Self::default();
        let mut reader = Reader::new(prefix, 0);
        while let Some(field) = reader.next()? {
            match field.number {
                1 => fields.message_id = Some(message_id(&field)?),
                2 => {
                    fields.source_component = Some(field.text("source_component", 63, "it must be 1 to 63 bytes")?);
                }
                3 => fields.timestamp = Some(field.moment("timestamp_utc")?),
                4 => fields.subject = Some(field.text("subject", 512, "it must be 1 to 512 bytes")?),
                5 => {
                    fields.destination =
                        Some(field.text("destination", 512, "it must be 1 to 512 bytes, or absent")?);
                }
                6 => fields.expires_at = Some(field.moment("expires_at")?),
                7 => fields.correlation_id = Some(correlation_id(&field)?),
                8 => fields.sequence = Some(field.varint("sequence")?),
                9 => fields.priority = Some(priority(&field)?),
                20 => tag(&field, &mut fields.tags)?,
                21 => fields.trace_context = field.message("trace_context")?,
                22 => {
                    let rule = "it must be 1 to 16,384 bytes, or absent";
                    fields.bundle = Some(field.bytes_up_to("bundle", MAX_BUNDLE_LEN, rule)?);
                }
                23 => fields.references = Some(field.message("references")?),
                number => match PayloadKind::from_number(number) {
                    Some(kind) => payload::take(&mut fields.payload, kind, &field)?,
                    None => field.unknown()?,
                },
            }
        }
        Ok(fields)
    }
}

fn correlation_id<'a>(field: &Field<'a>) -> Result<&'a [u8; 32], Refusal> {
    field.array("correlation_id", "it must be 32 bytes, or absent")
}

fn priority(field: &Field<'_>) -> Result<u8, Refusal> {
    let out_of_bounds = Refusal::OutOfBounds { field: "priority", rule: "it must be 1 to 10, or absent" };
    u8::try_from(field.varint("priority")?).ok().filter(|priority| *priority <= 10).ok_or(out_of_bounds)
}

/// Checks one tag and takes it.
fn tag<'a>(field: &Field<'a>, tags: &mut Vec<&'a str>) -> Result<(), Refusal> {
    let tag = field.element("tags")?;
    if tags.len() == MAX_TAGS {
        return Err(Refusal::OutOfBounds { field: "tags", rule: "there may be at most 16" });
    }
    if !(1..=64).contains(&tag.len()) {
        return Err(Refusal::OutOfBounds { field: "tags", rule: "each must be 1 to 64 bytes" });
    }
    tags.push(core::str::from_utf8(tag).map_err(|_| Refusal::NotUtf8 { field: "tags" })?);
    Ok(())
}

/// A UUID of version 7 and the variant of RFC 9562, in its hyphenated form with lower-case digits.
fn message_id<'a>(field: &Field<'a>) -> Result<&'a str, Refusal> {
    let bytes = field.bytes("message_id")?;
    let well_formed = bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            14 => *byte == b'7',
            19 => matches!(byte, b'8' | b'9' | b'a' | b'b'),
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
    if !well_formed {
        return Err(Refusal::MessageId);
    }
    core::str::from_utf8(bytes).map_err(|_| Refusal::MessageId)
}
