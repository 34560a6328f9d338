//! What a message is about, after it was opened.

use alloc::vec::Vec;

use crate::scan::reader::Reader;
use crate::scan::{MAX_PREFIX_LEN, Place, Refusal, ScanError};

/// The most references of a message.
pub const MAX_REFERENCES: usize = 64;

/// One thing that a message is about, borrowed from the bytes that were opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceView<'a> {
    kind: &'a str,
    value: &'a str,
}

impl<'a> ReferenceView<'a> {
    /// What kind of thing it is, 1 to 64 bytes.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.kind
    }

    /// Which one it is, 1 to 1,024 bytes.
    #[must_use]
    pub fn value(&self) -> &'a str {
        self.value
    }

    fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let (mut kind, mut value) = (None, None);
        let mut reader = Reader::new(bytes, 0);
        while let Some(field) = reader.next()? {
            match field.number {
                1 => kind = Some(field.text("kind", 64, "it must be 1 to 64 bytes")?),
                2 => value = Some(field.text("value", 1_024, "it must be 1 to 1,024 bytes")?),
                _ => field.unknown()?,
            }
        }
        let missing = |field| Refusal::Missing { field };
        Ok(Self { kind: kind.ok_or(missing("kind"))?, value: value.ok_or(missing("value"))? })
    }
}

/// Reads what was sealed as references, after it was opened: an encoded `References`, with 1 to [`MAX_REFERENCES`] of them.
///
/// # Errors
///
/// The first thing that is not as it must be, by the rules of [`scan`](crate::scan()).
pub fn scan_references(bytes: &[u8]) -> Result<Vec<ReferenceView<'_>>, ScanError> {
    let in_list = |refusal: Refusal| refusal.at(Place::References);
    if bytes.len() > MAX_PREFIX_LEN {
        return Err(in_list(Refusal::TooLong { len: bytes.len(), max: MAX_PREFIX_LEN }));
    }
    let mut references = Vec::new();
    let mut reader = Reader::new(bytes, 0);
    while let Some(field) = reader.next().map_err(in_list)? {
        if field.number != 1 {
            field.unknown().map_err(in_list)?;
            continue;
        }
        let bytes = field.element("references").map_err(in_list)?;
        if references.len() == MAX_REFERENCES {
            let rule = "there may be at most 64";
            return Err(in_list(Refusal::OutOfBounds { field: "references", rule }));
        }
        let place = Place::Reference(u16::try_from(references.len()).unwrap_or(u16::MAX));
        references.push(ReferenceView::read(bytes).map_err(|refusal| refusal.at(place))?);
    }
    if references.is_empty() {
        return Err(in_list(Refusal::Missing { field: "references" }));
    }
    Ok(references)
}
