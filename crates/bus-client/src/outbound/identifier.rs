//! Identifiers of messages: unique, and nothing that anybody has to keep secret.

use std::cell::RefCell;

use bus_proto::envelope::new_message_id;

use crate::error::PublishError;

/// The random bytes of one identifier.
const RANDOM_LEN: usize = 10;

/// For how many identifiers random bytes are drawn at a time: each draw costs more than all the rest of a message.
const AT_A_TIME: usize = 100;

/// Random bytes, of which some are used up.
struct Pool {
    bytes: [u8; AT_A_TIME * RANDOM_LEN],
    left: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; AT_A_TIME * RANDOM_LEN], left: 0 }) };
}

/// A new identifier, a UUIDv7.
pub(super) fn fresh_id(now_unix_ms: i64) -> Result<[u8; 36], PublishError> {
    let random = POOL.with_borrow_mut(Pool::take).ok_or(PublishError::Randomness)?;
    Ok(new_message_id(now_unix_ms, random))
}

impl Pool {
    fn take(&mut self) -> Option<[u8; RANDOM_LEN]> {
        if self.left == 0 {
            aws_lc_rs::rand::fill(&mut self.bytes).ok()?;
            self.left = AT_A_TIME;
        }
        self.left -= 1;
        self.bytes.as_chunks().0.get(self.left).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identifier_comes_twice() {
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| fresh_id(1_790_000_000_000).unwrap()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
