//! The members of a batch.

use alloc::vec::Vec;

use crate::scan::reader::Reader;
use crate::scan::{PayloadKind, PayloadView, Place, Refusal, ScanError, correlation_id, message_id, payload};

/// The most members of a batch.
pub const MAX_MEMBERS: usize = 256;

/// One message of a batch, borrowed from the bytes of its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    message_id: &'a str,
    timestamp: i64,
    expires_at: Option<i64>,
    correlation_id: Option<&'a [u8; 32]>,
    payload: PayloadView<'a>,
}

impl<'a> Member<'a> {
    /// As [`crate::Scan::message_id`].
    #[must_use]
    pub fn message_id(&self) -> &'a str {
        self.message_id
    }

    /// As [`crate::Scan::timestamp`].
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// As [`crate::Scan::expires_at`].
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    /// As [`crate::Scan::correlation_id`].
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a [u8; 32]> {
        self.correlation_id
    }

    /// The one payload; its range counts from the beginning of what was scanned.
    #[must_use]
    pub fn payload(&self) -> &PayloadView<'a> {
        &self.payload
    }

    fn read(bytes: &'a [u8], start: usize) -> Result<Self, Refusal> {
        let (mut id, mut timestamp, mut expires_at, mut correlation, mut payload) = (None, None, None, None, None);
        let mut reader = Reader::new(bytes, start);
        while let Some(field) = reader.next()? {
            match field.number {
                1 => id = Some(message_id(&field)?),
                3 => timestamp = Some(field.moment("timestamp_utc")?),
                6 => expires_at = Some(field.moment("expires_at")?),
                7 => correlation = Some(correlation_id(&field)?),
                number => match PayloadKind::from_number(number) {
                    Some(PayloadKind::Sealed | PayloadKind::Batch | PayloadKind::Compressed) => {
                        return Err(Refusal::NestedForm);
                    }
                    Some(kind) => payload::take(&mut payload, kind, &field)?,
                    None => field.unknown()?,
                },
            }
        }
        let payload = payload.ok_or(Refusal::NoPayload)?;
        payload::plain(&payload)?;
        Ok(Self {
            message_id: id.ok_or(Refusal::Missing { field: "message_id" })?,
            timestamp: timestamp.ok_or(Refusal::Missing { field: "timestamp_utc" })?,
            expires_at,
            correlation_id: correlation,
            payload,
        })
    }
}

/// The members of the batch in `payload`.
pub(super) fn members<'a>(payload: &PayloadView<'a>) -> Result<Vec<Member<'a>>, ScanError> {
    let in_batch = |refusal: Refusal| refusal.at(Place::Batch);
    let mut members: Vec<Member<'a>> = Vec::new();
    let mut reader = Reader::new(payload.bytes, payload.start);
    while let Some(field) = reader.next().map_err(in_batch)? {
        if field.number != 1 {
            field.unknown().map_err(in_batch)?;
            continue;
        }
        let bytes = field.element("members").map_err(in_batch)?;
        if members.len() == MAX_MEMBERS {
            return Err(in_batch(Refusal::TooManyMembers));
        }
        let place = Place::Member(u16::try_from(members.len()).unwrap_or(u16::MAX));
        let member = Member::read(bytes, field.start).map_err(|refusal| refusal.at(place))?;
        if members.first().is_some_and(|first| first.payload.kind != member.payload.kind) {
            return Err(Refusal::MixedBatch.at(place));
        }
        members.push(member);
    }
    if members.is_empty() { Err(in_batch(Refusal::EmptyBatch)) } else { Ok(members) }
}
