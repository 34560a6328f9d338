//! The spool beside a `Vec`, under operations in any order.

use bus_store::{
    Class, DeadLetter, Entry, EntryId, Limits, Message, Selection, SignedId, Spool, SpoolError, SpoolKey, Status, Why,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{NOW, message, number_of};

const MAX_MESSAGES: u64 = 12;
const AGE: i64 = 40;

#[derive(Debug, Clone)]
enum Operation {
    Accept { live: bool, lane: u64, expires_in: Option<i64> },
    Peek { lane: Option<u64>, max: usize },
    StoreSigned { members: Vec<Index> },
    Done { members: Vec<Index> },
    DeadLetter { members: Vec<Index> },
    Replay { member: Index },
    RemoveDead { member: Index },
    Expire,
    Forget { max: usize },
    TimePasses { by: i64 },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let members = || vec(any::<Index>(), 0..4);
    prop_oneof![
        8 => (any::<bool>(), 0..3_u64, proptest::option::of(0..60_i64))
            .prop_map(|(live, lane, expires_in)| Operation::Accept { live, lane, expires_in }),
        2 => (proptest::option::of(0..3_u64), 0..15_usize).prop_map(|(lane, max)| Operation::Peek { lane, max }),
        3 => members().prop_map(|members| Operation::StoreSigned { members }),
        2 => members().prop_map(|members| Operation::Done { members }),
        2 => members().prop_map(|members| Operation::DeadLetter { members }),
        2 => any::<Index>().prop_map(|member| Operation::Replay { member }),
        1 => any::<Index>().prop_map(|member| Operation::RemoveDead { member }),
        2 => Just(Operation::Expire),
        1 => (0..4_usize).prop_map(|max| Operation::Forget { max }),
        3 => (0..20_i64).prop_map(|by| Operation::TimePasses { by }),
        1 => Just(Operation::Reopen),
    ]
}

#[derive(Debug, Clone)]
struct Held {
    id: EntryId,
    message: Message,
    deadline: i64,
    signed: Option<SignedId>,
}

/// What a spool is, without a disk.
#[derive(Debug, Default)]
struct Model {
    now: i64,
    held: Vec<Held>,
    dead: Vec<(EntryId, Message)>,
    told: Vec<(u64, Why)>,
    signed: Vec<(SignedId, Vec<u8>)>,
    status: (u64, u64, u64),
    next: u64,
}

fn deadline(message: &Message, from: i64) -> i64 {
    let expiry = if message.expires_at == 0 { i64::MAX } else { message.expires_at };
    expiry.min(from + AGE)
}

impl Model {
    fn accept(&mut self, message: Message) -> Result<(), &'static str> {
        let deadline = deadline(&message, self.now);
        if deadline <= self.now {
            return Err("expired");
        }
        if self.is_full() {
            self.expire();
        }
        let lasting = self.held.iter().filter(|held| held.message.class == Class::Durable).count() + self.dead.len();
        if lasting as u64 >= MAX_MESSAGES {
            return Err("full");
        }
        while self.is_full() {
            let oldest = self.held.iter().position(|held| held.message.class == Class::Live).unwrap();
            self.drop_held(oldest, Why::Displaced);
        }
        self.held.push(Held { id: EntryId::from_number(0), message, deadline, signed: None });
        Ok(())
    }

    fn is_full(&self) -> bool {
        (self.held.len() + self.dead.len()) as u64 >= MAX_MESSAGES
    }

    fn expire(&mut self) {
        while let Some((index, held)) = self
            .held
            .iter()
            .enumerate()
            .filter(|(_, held)| held.deadline <= self.now)
            .min_by_key(|(_, held)| (held.deadline, held.id))
        {
            let expired = held.message.expires_at != 0 && held.message.expires_at <= self.now;
            self.drop_held(index, if expired { Why::Expired } else { Why::TooOld });
        }
    }

    fn drop_held(&mut self, index: usize, why: Why) {
        let held = self.held.remove(index);
        self.told.push((number_of(&held.message), why));
        match why {
            Why::Expired => self.status.0 += 1,
            Why::TooOld => self.status.1 += 1,
            _ => self.status.2 += 1,
        }
        self.remove_finished();
    }

    fn remove_finished(&mut self) {
        self.signed.retain(|(id, _)| self.held.iter().any(|held| held.signed == Some(*id)));
    }

    fn some(&self, members: &[Index]) -> Vec<EntryId> {
        let chosen = members.iter().filter(|_| !self.held.is_empty());
        chosen.map(|member| member.get(&self.held).id).collect()
    }
}

struct Run {
    home: tempfile::TempDir,
    spool: Option<Spool>,
    model: Model,
}

impl Run {
    fn new() -> Self {
        let mut run = Self { home: tempfile::tempdir().unwrap(), spool: None, model: Model::default() };
        run.model.now = NOW;
        run.reopen();
        run
    }

    fn reopen(&mut self) {
        self.spool = None;
        let key = SpoolKey::load_or_create(self.home.path().join("key")).unwrap();
        let limits = Limits::default().messages(MAX_MESSAGES).age_ms(AGE);
        self.spool = Some(Spool::open(self.home.path().join("spool"), &key, limits).unwrap());
    }

    fn spool(&self) -> &Spool {
        self.spool.as_ref().unwrap()
    }

    fn step(&mut self, operation: Operation) {
        match operation {
            Operation::Accept { live, lane, expires_in } => self.accept(live, lane, expires_in),
            Operation::Peek { lane, max } => self.peek(lane, max),
            Operation::StoreSigned { members } => self.store_signed(&members),
            Operation::Done { members } => {
                let ids = self.model.some(&members);
                let before = self.model.held.len();
                self.model.held.retain(|held| !ids.contains(&held.id));
                self.model.remove_finished();
                assert_eq!(self.spool().done(ids).wait().unwrap(), before - self.model.held.len());
            }
            Operation::DeadLetter { members } => {
                let ids = self.model.some(&members);
                self.spool().dead_letter(ids.clone(), "a reason", self.model.now).wait().unwrap();
                let (dead, held) =
                    std::mem::take(&mut self.model.held).into_iter().partition(|held| ids.contains(&held.id));
                self.model.held = held;
                self.model.dead.extend(Vec::<Held>::into_iter(dead).map(|held| (held.id, held.message)));
                self.model.dead.sort_by_key(|(id, _)| *id);
                self.model.remove_finished();
            }
            Operation::Replay { member } if !self.model.dead.is_empty() => {
                let index = member.index(self.model.dead.len());
                let (id, message) = self.model.dead[index].clone();
                let deadline = deadline(&message, self.model.now);
                let answer = self.spool().replay(vec![id], self.model.now).wait();
                assert_eq!(answer.is_ok(), deadline > self.model.now);
                if answer.is_ok() {
                    self.model.dead.remove(index);
                    self.model.held.push(Held { id, message, deadline, signed: None });
                    self.model.held.sort_by_key(|held| held.id);
                }
            }
            Operation::RemoveDead { member } if !self.model.dead.is_empty() => {
                let index = member.index(self.model.dead.len());
                let (id, _) = self.model.dead.remove(index);
                assert_eq!(self.spool().remove_dead_letters(vec![id, id]).wait().unwrap(), 1);
            }
            Operation::Replay { .. } | Operation::RemoveDead { .. } => (),
            Operation::Expire => {
                let before = self.model.held.len();
                self.model.expire();
                let dropped = self.spool().expire(self.model.now).wait().unwrap();
                assert_eq!(dropped, before - self.model.held.len());
            }
            Operation::Forget { max } => {
                let ids: Vec<_> = self.spool().dropped(max).wait().unwrap().iter().map(|one| one.id).collect();
                self.model.told.drain(..ids.len());
                self.spool().forget(ids).wait().unwrap();
            }
            Operation::TimePasses { by } => self.model.now += by,
            Operation::Reopen => self.reopen(),
        }
    }

    fn accept(&mut self, live: bool, lane: u64, expires_in: Option<i64>) {
        self.model.next += 1;
        let class = if live { Class::Live } else { Class::Durable };
        let expires_at = expires_in.map_or(0, |after| self.model.now + after);
        let accepted_at = self.model.now;
        let message = Message { class, expires_at, accepted_at, ..message(self.model.next, lane, 40) };
        let expected = self.model.accept(message.clone());
        match (expected, self.spool().accept_blocking(&message).wait()) {
            (Ok(()), Ok(id)) => self.model.held.last_mut().unwrap().id = id,
            (Err("full"), Err(SpoolError::Full { limit: MAX_MESSAGES, .. })) => (),
            (Err("expired"), Err(SpoolError::Expired)) => (),
            (expected, found) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    fn peek(&self, lane: Option<u64>, max: usize) {
        let lane = lane.map(|lane| format!("lane {lane}"));
        let selection = Selection::new(self.model.now).max_messages(max);
        let selection = lane.iter().fold(selection, |selection, lane| selection.lane(lane.clone()));
        let waiting = self.model.held.iter().filter(|held| held.signed.is_none() && held.deadline > self.model.now);
        let of_lane = waiting.filter(|held| lane.as_ref().is_none_or(|lane| *lane == held.message.lane));
        let expected: Vec<Entry> =
            of_lane.take(max).map(|held| Entry { id: held.id, message: held.message.clone() }).collect();
        assert_eq!(self.spool().peek(selection).wait().unwrap().entries, expected);
    }

    fn store_signed(&mut self, members: &[Index]) {
        let mut ids = self.model.some(members);
        ids.sort();
        ids.dedup();
        let chosen = self.model.held.iter().filter(|held| ids.contains(&held.id));
        let mut lanes: Vec<_> = chosen.map(|held| held.message.lane.clone()).collect();
        lanes.dedup();
        self.model.next += 1;
        let bytes = self.model.next.to_be_bytes().to_vec();
        match self.spool().store_signed(ids.clone(), bytes.clone()).wait() {
            Ok(signed) => {
                assert_eq!(lanes.len(), 1);
                let replaced: Vec<_> = self
                    .model
                    .held
                    .iter()
                    .filter(|held| ids.contains(&held.id))
                    .filter_map(|held| held.signed)
                    .collect();
                for held in &mut self.model.held {
                    if ids.contains(&held.id) {
                        held.signed = Some(signed);
                    } else if held.signed.is_some_and(|old| replaced.contains(&old)) {
                        held.signed = None;
                    }
                }
                self.model.signed.push((signed, bytes));
                self.model.remove_finished();
            }
            Err(error) => assert!(matches!(error, SpoolError::Envelope) && lanes.len() != 1, "{error}"),
        }
    }

    /// All that the spool says is what the model says.
    fn compare(&self) {
        let Model { held, dead, told, signed, status, .. } = &self.model;
        let count = |class| held.iter().filter(|held| held.message.class == class).count() as u64;
        let found: Status = self.spool().status().wait().unwrap();
        assert_eq!((found.durable.messages, found.live.messages), (count(Class::Durable), count(Class::Live)));
        assert_eq!((found.expired, found.too_old, found.displaced), *status);
        assert_eq!((found.dead.messages, found.reports), (dead.len() as u64, told.len() as u64));
        assert_eq!(found.durable.messages == 0, found.durable.bytes == 0);

        let letters: Vec<DeadLetter> = self.spool().dead_letters(None, 100).wait().unwrap();
        let letters: Vec<_> = letters.into_iter().map(|letter| (letter.id, letter.message.unwrap())).collect();
        assert_eq!(letters, *dead);
        let reports = self.spool().dropped(1_000).wait().unwrap();
        let reports: Vec<_> =
            reports.iter().map(|one| (number_of_id(&one.message.as_ref().unwrap().message_id), one.why)).collect();
        assert_eq!(reports, *told);
        let envelopes = self.spool().signed_pending(None, 100).wait().unwrap();
        let envelopes: Vec<_> =
            envelopes.into_iter().map(|one| (one.id, one.content.unwrap().bytes, one.entries)).collect();
        let expected: Vec<_> = signed
            .iter()
            .map(|(id, bytes)| {
                let members = held.iter().filter(|held| held.signed == Some(*id)).map(|held| held.id);
                (*id, bytes.clone(), members.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(envelopes, expected);
    }
}

fn number_of_id(id: &[u8]) -> u64 {
    std::str::from_utf8(id).unwrap().parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_does_what_a_list_in_memory_would(operations in vec(operation(), 1..60)) {
        let mut run = Run::new();
        for operation in operations {
            run.step(operation);
            run.compare();
        }
    }
}
