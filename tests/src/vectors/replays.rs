//! Sequences at a replay guard.

use std::collections::BTreeMap;

use super::file::{File, New, Outcome, ReplayVector, Step};
use super::form::refused;

const SUBJECT: &str = "ransomeye.events.telemetry.agent.agent-01";

/// A message on the one subject.
fn step(sequence: u64, outcome: Outcome<New>) -> Step {
    Step { key: "own".into(), subject: SUBJECT.into(), sequence: Some(sequence.to_string()), commit: true, outcome }
}

fn new(sequence: u64) -> Step {
    step(sequence, Outcome::Accepted(New { gap: None }))
}

fn after_gap(sequence: u64, first: u64, last: u64) -> Step {
    step(sequence, Outcome::Accepted(New { gap: Some([first.to_string(), last.to_string()]) }))
}

fn repeated(sequence: u64) -> Step {
    step(sequence, refused("Replay.Repeated", None))
}

fn too_old(sequence: u64) -> Step {
    step(sequence, refused("Replay.TooOld", None))
}

pub(crate) fn file() -> File<ReplayVector> {
    let vector = |name: &str, comment: &str, steps: Vec<Step>| ReplayVector {
        name: name.into(),
        comment: comment.into(),
        steps,
    };
    let unread = |sequence| Step { commit: false, ..new(sequence) };
    let on = |subject: &str, step: Step| Step { subject: subject.into(), ..step };
    let uncounted = Step { sequence: None, ..step(1, refused("Replay.NotCounted", None)) };
    let foreign = Step { key: "other".into(), ..step(2, refused("Replay.OtherKey", None)) };
    let many = |index: usize| format!("ransomeye.events.x-{index}.agent.agent-01");
    let mut subjects: Vec<Step> = (0..64).map(|index| on(&many(index), new(1))).collect();
    subjects.extend([
        on(&many(64), step(1, refused("Replay.TooManySubjects", None))),
        on(&many(0), new(2)),
        on(&many(63), repeated(1)),
        on(&many(64), step(2, refused("Replay.TooManySubjects", None))),
    ]);
    let mut forward: Vec<Step> = (1..=600).map(new).collect();
    forward.extend([too_old(152), repeated(153), repeated(600), new(601), too_old(153)]);
    let mut backward = vec![new(448)];
    backward.extend((1..448).rev().map(new));
    backward.extend([repeated(1), repeated(448), new(449), too_old(1), repeated(2)]);
    let vectors = vec![
        vector(
            "in order",
            "each once, then none again",
            vec![new(1), new(2), new(3), repeated(1), repeated(2), repeated(3)],
        ),
        vector(
            "a gap",
            "what is left out may yet arrive",
            vec![new(1), after_gap(5, 2, 4), new(3), new(2), new(4), repeated(3)],
        ),
        vector("the first message", "whoever subscribes late has missed nothing", vec![new(7), new(8)]),
        vector(
            "before the first message",
            "what came late is new, and no gap",
            vec![new(7), new(6), new(1), repeated(6)],
        ),
        vector(
            "the edge of the window",
            "448 behind the highest is too old",
            vec![new(1), after_gap(449, 2, 448), too_old(1), new(2)],
        ),
        vector(
            "a long way ahead",
            "everything behind is too old",
            vec![new(1), after_gap(100_000, 2, 99_999), too_old(1), too_old(99_552), new(99_553)],
        ),
        vector(
            "the largest numbers",
            "nothing overflows",
            vec![
                new(1),
                after_gap(u64::MAX, 2, u64::MAX - 1),
                repeated(u64::MAX),
                new(u64::MAX - 447),
                too_old(u64::MAX - 448),
            ],
        ),
        vector("not counted", "without a sequence it could be repeated at will", vec![uncounted, new(1)]),
        vector(
            "unreadable",
            "what cannot be decoded uses up no number",
            vec![unread(1), unread(1), new(1), unread(5), after_gap(3, 2, 2), repeated(1)],
        ),
        vector(
            "subjects apart",
            "each is counted by itself",
            vec![new(1), on("ransomeye.events.alert.agent.agent-01", new(1)), repeated(1), new(2)],
        ),
        vector("another key", "a guard is of one key", vec![new(1), foreign, new(2)]),
        vector("too many subjects", "64 at most, and none is evicted", subjects),
        vector("600 in order", "the window moves", forward),
        vector("backwards", "the window is as wide as it may be", backward),
    ];
    File {
        about: "Messages of verified origin at one replay guard, one after the other. `commit` says whether the message could \
                be decoded; a gap is the first and last number that a committed one leaves out."
            .into(),
        bundles: BTreeMap::default(),
        vectors,
    }
}
