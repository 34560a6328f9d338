//! What was sealed or compressed: exactly one payload, as it stands in an envelope.

use crate::scan::reader::Reader;
use crate::scan::{Form, MAX_PREFIX_LEN, Member, PayloadKind, PayloadView, Place, Refusal, ScanError, payload};

/// The payload in what was sealed or compressed, borrowed from its bytes. Only [`scan_content`] and [`scan_decompressed`] make
/// one, so all that it shows is within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content<'a> {
    payload: PayloadView<'a>,
    form: Form<'a>,
}

impl<'a> Content<'a> {
    /// The one payload; its range counts from the beginning of the content.
    #[must_use]
    pub fn payload(&self) -> &PayloadView<'a> {
        &self.payload
    }

    /// As [`crate::Scan::members`].
    #[must_use]
    pub fn members(&self) -> &[Member<'a>] {
        self.form.members()
    }

    fn read(bytes: &'a [u8], may_hold: fn(PayloadKind) -> bool) -> Result<Self, ScanError> {
        let payload = one_payload(bytes, may_hold).map_err(|refusal| refusal.at(Place::Content))?;
        Ok(Self { form: Form::read(&payload)?, payload })
    }
}

/// Reads what was sealed as a payload, after it was opened: a payload of the fields 10 to 16, a batch, or a compressed payload,
/// with tag and length.
///
/// It is held to the same rules as an envelope's payload ([`scan`](crate::scan())), and nothing may stand beside it, not even a
/// field that this version does not know.
///
/// ```
/// use bus_crypto::{PayloadKind, scan_content};
/// use bus_proto::{prost::Message, v1::{Envelope, Heartbeat}};
///
/// // An envelope of nothing but its payload has the encoding of the content.
/// let content = Envelope { payload: Some(Heartbeat::default().into()), ..Envelope::default() }.encode_to_vec();
/// assert_eq!(scan_content(&content)?.payload().kind(), PayloadKind::Heartbeat);
/// assert!(scan_content(&content.repeat(2)).is_err());
/// # Ok::<(), bus_crypto::ScanError>(())
/// ```
///
/// # Errors
///
/// The first thing that is not as it must be.
pub fn scan_content(bytes: &[u8]) -> Result<Content<'_>, ScanError> {
    Content::read(bytes, |kind| kind != PayloadKind::Sealed)
}

/// Reads what was compressed, after it was decompressed: a payload of the fields 10 to 16, or a batch. Otherwise as
/// [`scan_content`].
///
/// # Errors
///
/// The first thing that is not as it must be.
pub fn scan_decompressed(bytes: &[u8]) -> Result<Content<'_>, ScanError> {
    Content::read(bytes, |kind| !matches!(kind, PayloadKind::Sealed | PayloadKind::Compressed))
}

fn one_payload(bytes: &[u8], may_hold: fn(PayloadKind) -> bool) -> Result<PayloadView<'_>, Refusal> {
    if bytes.len() > MAX_PREFIX_LEN {
        return Err(Refusal::TooLong { len: bytes.len(), max: MAX_PREFIX_LEN });
    }
    let mut payload = None;
    let mut reader = Reader::new(bytes, 0);
    while let Some(field) = reader.next()? {
        match PayloadKind::from_number(field.number) {
            Some(kind) if may_hold(kind) => payload::take(&mut payload, kind, &field)?,
            Some(_) => return Err(Refusal::NestedForm),
            None => return Err(Refusal::UnknownField { number: field.number }),
        }
    }
    payload.ok_or(Refusal::NoPayload)
}
