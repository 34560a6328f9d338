//! How many messages a subscription missed, counted from the senders' sequences.

use std::collections::HashMap;

use bus_proto::prost::bytes::Bytes;

/// The most subjects that one subscription keeps count of. Beyond, it starts afresh and counts from there.
const MAX_SUBJECTS: usize = 65_536;

/// The most sessions of one subject that are told apart.
const MAX_SESSIONS: usize = 8;

/// A gap that no honest sender can leave: the message is taken for a new start.
const ABSURD: u64 = 1 << 32;

/// The last sequence seen, per subject and sending session.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    last: HashMap<String, Vec<(Bytes, u64)>>,
}

impl Gaps {
    /// Takes note of a message, and returns how many were missed just before it. The first message of a session only
    /// sets the starting point; one that comes late or twice counts as nothing.
    pub(crate) fn note(&mut self, subject: &str, session: &Bytes, sequence: u64) -> u64 {
        if sequence == 0 {
            return 0;
        }
        if !self.last.contains_key(subject) {
            if self.last.len() >= MAX_SUBJECTS {
                self.last.clear();
            }
            self.last.insert(subject.to_owned(), Vec::with_capacity(1));
        }
        let Some(sessions) = self.last.get_mut(subject) else { return 0 };
        if let Some((_, last)) = sessions.iter_mut().find(|(known, _)| known == session) {
            let missed = sequence.saturating_sub(last.saturating_add(1));
            *last = sequence.max(*last);
            return if missed < ABSURD { missed } else { 0 };
        }
        if sessions.len() >= MAX_SESSIONS {
            sessions.remove(0);
        }
        // A copy of its own: the session's bytes would otherwise keep the whole first message alive.
        sessions.push((Bytes::copy_from_slice(session), sequence));
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Bytes = Bytes::from_static(b"a");
    const B: Bytes = Bytes::from_static(b"b");

    #[test]
    fn a_gap_is_counted_exactly() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.note("s", &A, 5), 0);
        assert_eq!(gaps.note("s", &A, 6), 0);
        assert_eq!(gaps.note("s", &A, 10), 3);
        assert_eq!(gaps.note("s", &A, 10), 0);
        assert_eq!(gaps.note("s", &A, 9), 0);
        assert_eq!(gaps.note("s", &A, 11), 0);
    }

    #[test]
    fn sessions_and_subjects_are_told_apart() {
        let mut gaps = Gaps::default();
        for sequence in 1..100 {
            assert_eq!(gaps.note("s", &A, sequence), 0);
            assert_eq!(gaps.note("s", &B, sequence + 50), 0);
            assert_eq!(gaps.note("t", &A, sequence + 9), 0);
        }
    }

    #[test]
    fn a_peer_cannot_spoil_the_count_with_an_absurd_gap() {
        let mut gaps = Gaps::default();
        gaps.note("s", &A, 1);
        assert_eq!(gaps.note("s", &A, u64::MAX), 0);
        assert_eq!(gaps.note("t", &A, 1), 0);
        assert_eq!(gaps.note("t", &A, 3), 1);
    }

    #[test]
    fn state_is_bounded_whatever_a_peer_sends() {
        let mut gaps = Gaps::default();
        for session in 0..1_000_u32 {
            gaps.note("s", &Bytes::copy_from_slice(&session.to_be_bytes()), u64::MAX);
        }
        assert_eq!(gaps.last["s"].len(), MAX_SESSIONS);
    }
}
