//! Finding repeated messages: a sliding window per subject, for the messages of one key (RFC 6479).
//!
//! A guard belongs to one key and takes verified messages only: neither a forgery nor another sender's message uses up a number.
//! A message is checked when its signature was verified, and committed when it was opened and decoded: what turns out to be
//! unreadable must not use up a number. Both take the same time wherever the number lies.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::envelope::VerifiedPrefix;
use crate::keys::KeyId;

const BLOCK_BITS: u64 = 64;
const BLOCKS: usize = 8;

/// A sequence that lies this far behind the highest that was committed, or farther, is too old: 448. One block of 64 is always
/// being reused.
pub const WINDOW: u64 = (BLOCKS as u64 - 1) * BLOCK_BITS;

/// The most subjects of one key that are kept apart.
pub const MAX_SUBJECTS: usize = 64;

/// Why a message is not new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The message, or what was checked, is of another key than the guard.
    #[error("the message is signed with the key {stated}, but the window is of {guarded}: keep one for each key")]
    OtherKey {
        /// The key of the message.
        stated: KeyId,
        /// The key of the guard.
        guarded: KeyId,
    },
    /// It has no sequence, so that it could be repeated at will.
    #[error("the message is not counted: a live message needs a sequence from 1 on")]
    NotCounted,
    /// A message with this number was committed before.
    #[error("the message with sequence {sequence} was received before")]
    Repeated {
        /// Its number.
        sequence: u64,
    },
    /// It lies so far back that nobody remembers whether it came before.
    #[error("sequence {sequence} lies {WINDOW} or more behind {highest}")]
    TooOld {
        /// Its number.
        sequence: u64,
        /// The highest number that was committed.
        highest: u64,
    },
    /// The key has used more subjects than are kept apart.
    #[error("the key has sent on {MAX_SUBJECTS} other subjects, more than are tracked for one key")]
    TooManySubjects,
}

/// A message that was new when it was checked. [`ReplayGuard::commit`] takes it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a message that is not committed can be received again"]
pub struct Fresh<'a> {
    key_id: KeyId,
    subject: &'a str,
    sequence: u64,
}

/// Numbers that a subject's messages have left out so far. They may yet arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The first number.
    pub first: u64,
    /// The last number, not below the first.
    pub last: u64,
}

impl Gap {
    /// How many numbers they are: up to 2⁶⁴ − 3, as the sender chooses. Never do anything once for each of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// What is known about the messages of one key: at most [`MAX_SUBJECTS`] windows of 72 bytes with the names of their
/// subjects. Made once the signature of a message under the key has held, and dropped when the key has expired.
#[derive(Debug, Clone)]
pub struct ReplayGuard {
    key_id: KeyId,
    /// Sorted by subject. A map of this size would take a kilobyte for its first entry.
    windows: Vec<(Box<str>, Window)>,
}

impl ReplayGuard {
    /// The guard of this key, to which nothing was committed yet.
    #[must_use]
    pub fn new(key_id: KeyId) -> Self {
        Self { key_id, windows: Vec::new() }
    }

    /// The key whose messages it takes.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Says whether a message is new. Nothing changes: an unreadable message may be checked any number of times.
    ///
    /// ```
    /// use bus_crypto::{ReplayError, ReplayGuard, VerifiedPrefix};
    ///
    /// fn receive(guard: &mut ReplayGuard, message: &VerifiedPrefix<'_>) -> Result<u64, ReplayError> {
    ///     let fresh = guard.check(message)?;
    ///     // Here the message is decoded. If that fails, its number stays unused.
    ///     let gap = guard.commit(fresh)?;
    ///     Ok(gap.map_or(0, |gap| gap.count()))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When it is not new, that cannot be told, or another key signed it.
    pub fn check<'a>(&self, message: &VerifiedPrefix<'a>) -> Result<Fresh<'a>, ReplayError> {
        let (key_id, scan) = (message.key_id(), message.scan());
        self.check_number(key_id, scan.subject(), scan.sequence())
    }

    fn check_number<'a>(
        &self,
        key_id: KeyId,
        subject: &'a str,
        sequence: Option<u64>,
    ) -> Result<Fresh<'a>, ReplayError> {
        self.check_key(key_id)?;
        let sequence = sequence.filter(|sequence| *sequence > 0).ok_or(ReplayError::NotCounted)?;
        match self.find(subject) {
            Ok(place) => self.windows[place].1.check(sequence)?,
            Err(_) if self.windows.len() == MAX_SUBJECTS => return Err(ReplayError::TooManySubjects),
            Err(_) => {}
        }
        Ok(Fresh { key_id, subject, sequence })
    }

    /// Remembers a message, once it was opened and decoded. Returns the numbers that it leaves out: those between the highest
    /// so far and its own, if there are any. The sender chooses how many they are: see [`Gap::count`].
    ///
    /// # Errors
    ///
    /// As [`ReplayGuard::check`], if another message was committed meanwhile, or if another key's guard had checked it.
    #[expect(clippy::needless_pass_by_value, reason = "a message is committed once")]
    pub fn commit(&mut self, fresh: Fresh<'_>) -> Result<Option<Gap>, ReplayError> {
        let Fresh { key_id, subject, sequence } = fresh;
        self.check_key(key_id)?;
        match self.find(subject) {
            Ok(place) => {
                let (_, window) = &mut self.windows[place];
                window.check(sequence)?;
                Ok(window.commit(sequence))
            }
            Err(_) if self.windows.len() == MAX_SUBJECTS => Err(ReplayError::TooManySubjects),
            Err(place) => {
                let mut window = Window::default();
                window.commit(sequence);
                self.windows.reserve_exact(1);
                self.windows.insert(place, (subject.into(), window));
                Ok(None)
            }
        }
    }

    fn check_key(&self, stated: KeyId) -> Result<(), ReplayError> {
        if stated == self.key_id { Ok(()) } else { Err(ReplayError::OtherKey { stated, guarded: self.key_id }) }
    }

    /// Where the window of a subject stands, or where it belongs.
    fn find(&self, subject: &str) -> Result<usize, usize> {
        self.windows.binary_search_by(|(known, _)| (**known).cmp(subject))
    }
}

/// The window of one subject. Bit `n % 64` of block `(n / 64) % 8` says whether `n` was seen.
#[derive(Debug, Clone, Default)]
struct Window {
    highest: u64,
    seen: [u64; BLOCKS],
}

impl Window {
    fn check(&self, sequence: u64) -> Result<(), ReplayError> {
        if sequence > self.highest {
            return Ok(());
        }
        if self.highest - sequence >= WINDOW {
            return Err(ReplayError::TooOld { sequence, highest: self.highest });
        }
        let (block, bit) = place(sequence);
        if self.seen[block] & bit == 0 { Ok(()) } else { Err(ReplayError::Repeated { sequence }) }
    }

    fn commit(&mut self, sequence: u64) -> Option<Gap> {
        let previous = self.highest;
        if sequence > previous {
            let entered = (sequence / BLOCK_BITS - previous / BLOCK_BITS).min(BLOCKS as u64);
            for step in 0..entered {
                let (block, _) = place((sequence / BLOCK_BITS - step) * BLOCK_BITS);
                self.seen[block] = 0;
            }
            self.highest = sequence;
        }
        let (block, bit) = place(sequence);
        self.seen[block] |= bit;
        (sequence.saturating_sub(previous) > 1).then(|| Gap { first: previous + 1, last: sequence - 1 })
    }
}

/// The block of a number, and its bit there.
fn place(sequence: u64) -> (usize, u64) {
    ((sequence / BLOCK_BITS % BLOCKS as u64) as usize, 1 << (sequence % BLOCK_BITS))
}

#[cfg(test)]
mod tests;
