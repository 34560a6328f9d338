use super::*;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;

const KEY: KeyId = KeyId::from_bytes([7; 32]);

const SUBJECT: &str = "ransomeye.events.alert.agent.a";

fn receive(guard: &mut ReplayGuard, sequence: u64) -> Result<Option<Gap>, ReplayError> {
    let fresh = guard.check_number(KEY, SUBJECT, Some(sequence))?;
    guard.commit(fresh)
}

/// What a window is to do, with all numbers ever seen in a set.
#[derive(Default)]
struct Naive {
    highest: u64,
    seen: BTreeSet<u64>,
}

impl Naive {
    fn receive(&mut self, sequence: u64) -> Result<(), ReplayError> {
        if sequence == 0 {
            return Err(ReplayError::NotCounted);
        }
        if sequence <= self.highest && self.highest - sequence >= WINDOW {
            return Err(ReplayError::TooOld { sequence, highest: self.highest });
        }
        if !self.seen.insert(sequence) {
            return Err(ReplayError::Repeated { sequence });
        }
        self.highest = self.highest.max(sequence);
        Ok(())
    }
}

/// Numbers near each other, with jumps of all sizes, up to the largest there is.
fn sequences() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![
        8 => -500_i64..500,
        2 => -70_i64..70,
        1 => -5_000_i64..5_000,
        1 => any::<i64>(),
    ];
    let start = prop_oneof![0_u64..1_000, Just(u64::MAX - 600), any::<u64>()];
    (start, prop::collection::vec(step, 1..600)).prop_map(|(mut at, steps)| {
        steps
            .into_iter()
            .map(|step| {
                at = at.saturating_add_signed(step);
                at
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_window_agrees_with_a_set_of_all_numbers(sequences in sequences()) {
        let (mut guard, mut naive) = (ReplayGuard::new(KEY), Naive::default());
        for sequence in sequences {
            prop_assert_eq!(receive(&mut guard, sequence).map(drop), naive.receive(sequence), "{}", sequence);
        }
    }
}

#[test]
fn a_message_in_order_is_received_once() {
    let mut guard = ReplayGuard::new(KEY);
    for sequence in 1..=2_000 {
        assert_eq!(receive(&mut guard, sequence), Ok(None));
        assert_eq!(receive(&mut guard, sequence), Err(ReplayError::Repeated { sequence }));
    }
}

#[test]
fn the_last_number_of_the_window_is_told_apart_and_the_next_is_too_old() {
    let mut guard = ReplayGuard::new(KEY);
    let highest = 10_000;
    receive(&mut guard, highest).unwrap();
    let last = highest - WINDOW + 1;
    assert_eq!(receive(&mut guard, last), Ok(None));
    assert_eq!(receive(&mut guard, last), Err(ReplayError::Repeated { sequence: last }));
    let too_old = ReplayError::TooOld { sequence: last - 1, highest };
    assert_eq!(receive(&mut guard, last - 1), Err(too_old));
}

#[test]
fn the_highest_number_of_all_is_received_once() {
    let mut guard = ReplayGuard::new(KEY);
    receive(&mut guard, 1).unwrap();
    assert_eq!(receive(&mut guard, u64::MAX), Ok(Some(Gap { first: 2, last: u64::MAX - 1 })));
    assert_eq!(receive(&mut guard, u64::MAX), Err(ReplayError::Repeated { sequence: u64::MAX }));
    assert_eq!(receive(&mut guard, u64::MAX - 1), Ok(None));
}

#[test]
fn a_jump_forgets_every_block_that_it_passes() {
    for blocks in 1..=20 {
        let mut guard = ReplayGuard::new(KEY);
        for sequence in 1..=2 * WINDOW {
            receive(&mut guard, sequence).unwrap();
        }
        let highest = 2 * WINDOW + blocks * BLOCK_BITS;
        receive(&mut guard, highest).unwrap();
        for sequence in highest - WINDOW + 1..highest {
            let new = sequence > 2 * WINDOW;
            assert_eq!(receive(&mut guard, sequence).is_ok(), new, "{blocks} blocks, {sequence}");
        }
    }
}

#[test]
fn checking_changes_nothing() {
    let guard = ReplayGuard::new(KEY);
    let first = guard.check_number(KEY, SUBJECT, Some(5));
    assert!(first.is_ok());
    assert_eq!(guard.check_number(KEY, SUBJECT, Some(5)), first);
}

#[test]
fn of_two_that_were_checked_together_one_is_committed() {
    let mut guard = ReplayGuard::new(KEY);
    let (one, other) =
        (guard.check_number(KEY, SUBJECT, Some(5)).unwrap(), guard.check_number(KEY, SUBJECT, Some(5)).unwrap());
    assert_eq!(guard.commit(one), Ok(None));
    assert_eq!(guard.commit(other), Err(ReplayError::Repeated { sequence: 5 }));
}

#[test]
fn subjects_are_counted_apart() {
    let mut guard = ReplayGuard::new(KEY);
    receive(&mut guard, 5).unwrap();
    let other = guard.check_number(KEY, "ransomeye.events.telemetry.agent.a", Some(5)).unwrap();
    assert_eq!(guard.commit(other), Ok(None));
}

#[test]
fn what_is_not_counted_is_refused() {
    let guard = ReplayGuard::new(KEY);
    assert_eq!(guard.check_number(KEY, SUBJECT, None), Err(ReplayError::NotCounted));
    assert_eq!(guard.check_number(KEY, SUBJECT, Some(0)), Err(ReplayError::NotCounted));
}

#[test]
fn the_subjects_of_a_key_are_bounded_and_those_known_go_on() {
    let mut guard = ReplayGuard::new(KEY);
    for number in 0..MAX_SUBJECTS {
        let subject = format!("subject.{number}");
        let fresh = guard.check_number(KEY, &subject, Some(1)).unwrap();
        guard.commit(fresh).unwrap();
    }
    assert_eq!(guard.check_number(KEY, SUBJECT, Some(1)), Err(ReplayError::TooManySubjects));
    assert!(guard.check_number(KEY, "subject.0", Some(2)).is_ok());
}

#[test]
fn numbers_left_out_are_named_once() {
    let mut guard = ReplayGuard::new(KEY);
    assert_eq!(receive(&mut guard, 3), Ok(None), "what came before the first is not known to be missing");
    assert_eq!(receive(&mut guard, 7), Ok(Some(Gap { first: 4, last: 6 })));
    assert_eq!(receive(&mut guard, 5), Ok(None));
    assert_eq!(receive(&mut guard, 8), Ok(None));
}

#[test]
fn a_gap_is_counted_without_being_walked() {
    assert_eq!(Gap { first: 4, last: 4 }.count(), 1);
    assert_eq!(Gap { first: 4, last: 6 }.count(), 3);
    assert_eq!(Gap { first: 2, last: u64::MAX - 1 }.count(), u64::MAX - 2);
    assert_eq!(Gap { first: 0, last: u64::MAX }.count(), u64::MAX);
}

#[test]
fn what_is_too_old_is_said_exactly() {
    let error = ReplayError::TooOld { sequence: 52, highest: 500 };
    assert_eq!(error.to_string(), "sequence 52 lies 448 or more behind 500");
    let mut guard = ReplayGuard::new(KEY);
    receive(&mut guard, 500).unwrap();
    assert_eq!(receive(&mut guard, 52), Err(error));
    assert_eq!(receive(&mut guard, 53), Ok(None));
}
