//! Killed at any moment: what was acknowledged is there, once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bus_store::{Delivery, EntryId, Inspector, Limits, RecordLimits, Records, Selection, Spool, SpoolKey, rusqlite};

use crate::{NOW, message, number_of};

/// Where this test program, started again by itself, finds its folder.
const HOME: &str = "BUS_STORE_KILL_HOME";
/// Which of the processes it is: the first of its messages' numbers in millions.
const ROUND: &str = "BUS_STORE_KILL_ROUND";
const SEED: &str = "BUS_STORE_KILL_SEED";
const ROUNDS: u64 = 12;

/// A small generator with a seed (SplitMix64), so that a failure can be had again as nearly as a kill allows.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        u64::from(std::process::id()) << 20 | std::time::UNIX_EPOCH.elapsed().unwrap().subsec_micros() as u64
    })
}

fn open(home: &Path) -> Spool {
    let key = SpoolKey::load_or_create(home.join("key")).unwrap();
    Spool::open(home.join("spool"), &key, Limits::default()).unwrap()
}

/// Starts this test again in a process of its own, which finds `HOME` set and plays the other part.
fn start(test: &str, home: &Path, round: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(HOME, home).env(ROUND, round.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Reads the lines of the process that begin with `word`, kills it after a random number of them, and returns those that it had
/// written until then: what it had been told.
fn kill_after(mut child: Child, word: &str, lines: u64) -> Vec<String> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut told = Vec::new();
    let mut line = String::new();
    while (told.len() as u64) < lines && output.read_line(&mut line).unwrap() > 0 {
        told.extend(line.strip_prefix(word).map(|rest| rest.trim().to_owned()));
        line.clear();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    // The last line may be cut in the middle.
    let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
    told.extend(whole.lines().filter_map(|line| line.strip_prefix(word)).map(|rest| rest.trim().to_owned()));
    told
}

/// Accepts messages without end, a few at once, and says of each when it was acknowledged; removes some, and says so too.
fn accept_for_ever(home: &Path) {
    let spool = open(home);
    let mut number = std::env::var(ROUND).unwrap().parse::<u64>().unwrap() * 1_000_000;
    let mut out = std::io::stdout().lock();
    loop {
        let replies: Vec<_> =
            (number..number + 7).map(|n| (n, spool.accept_blocking(&message(n, n % 3, 300)))).collect();
        number += 7;
        let mut last = None;
        for (n, reply) in replies {
            last = Some((n, reply.wait().unwrap()));
            writeln!(out, "accepted {n}").unwrap();
        }
        // Every seventh is sent and acknowledged.
        if let Some((n, id)) = last {
            spool.store_signed(vec![id], vec![1; 300]).wait().unwrap();
            writeln!(out, "removing {n}").unwrap();
            spool.done(vec![id]).wait().unwrap();
            writeln!(out, "removed {n}").unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_nothing_is_there_twice() {
    if let Some(home) = std::env::var_os(HOME) {
        return accept_for_ever(Path::new(&home));
    }
    let home = tempfile::tempdir().unwrap();
    let seed = seed();
    println!("seed {seed}: to run with it again, set {SEED}");
    let mut random = Random(seed);
    let mut accepted = BTreeSet::new();
    let (mut removing, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let child = start("kill::what_was_acknowledged_survives_kill_9_and_nothing_is_there_twice", home.path(), round);
        for line in kill_after(child, "", random.below(400)) {
            let Some((word, number)) = line.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "accepted" => accepted.insert(number),
                "removing" => removing.insert(number),
                "removed" => removed.insert(number),
                _ => continue,
            };
        }
        check(home.path(), &accepted, &removing, &removed, round);
    }
    println!("{} acknowledged, {} removed, in {ROUNDS} processes that were killed", accepted.len(), removed.len());
    assert!(!accepted.is_empty());
}

fn check(home: &Path, accepted: &BTreeSet<u64>, removing: &BTreeSet<u64>, removed: &BTreeSet<u64>, round: u64) {
    let spool = open(home);
    let page = spool.peek(Selection::new(NOW).max_messages(1_000_000).max_bytes(1 << 30)).wait().unwrap();
    assert!(page.unreadable.is_empty(), "round {round}: {:?}", page.unreadable);
    let mut found: Vec<(u64, EntryId)> =
        page.entries.iter().map(|entry| (number_of(&entry.message), entry.id)).collect();
    assert!(found.is_sorted(), "round {round}: out of order");
    for envelope in spool.signed_pending(None, 1_000_000).wait().unwrap() {
        assert_eq!(envelope.content.unwrap().bytes, [1; 300]);
        for id in envelope.entries {
            found.push((number_of(&spool.entry(id).wait().unwrap().unwrap().message), id));
        }
    }
    let mut times = BTreeMap::new();
    found.iter().for_each(|(number, _)| *times.entry(*number).or_insert(0) += 1);
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "round {round}: there twice: {twice:?}");
    let lost: Vec<_> = accepted.iter().filter(|n| !times.contains_key(n) && !removing.contains(n)).collect();
    assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
    let back: Vec<_> = removed.iter().filter(|number| times.contains_key(number)).collect();
    assert!(back.is_empty(), "round {round}: removed and back: {back:?}");
    assert_eq!(spool.status().wait().unwrap().durable.messages, found.len() as u64, "round {round}");
    drop(spool);
    let key = SpoolKey::load_or_create(home.join("key")).unwrap();
    let faults = Inspector::open(home.join("spool"), &key).unwrap().check().unwrap();
    assert_eq!(faults, [""; 0], "round {round}");
}

/// Handles messages without end: every message has one effect, a row, in the transaction that it is handed.
fn handle_for_ever(home: &Path) {
    let records = Records::open(home.join("records"), RecordLimits::default()).unwrap();
    let mut out = std::io::stdout().lock();
    for number in 0_u64.. {
        let id = number.to_string();
        let delivery = Delivery { sender: "a sender", message_id: &id, member: 0, expires_at: NOW + 1, now: NOW };
        let table = "CREATE TABLE IF NOT EXISTS effects (number INTEGER)";
        records
            .transactional(&delivery, |transaction| {
                transaction.execute_batch(table)?;
                transaction.execute("INSERT INTO effects VALUES (?1)", [id.parse::<i64>().unwrap()])
            })
            .unwrap();
        writeln!(out, "handled {number}").unwrap();
    }
}

#[test]
fn a_transactional_effect_is_there_once_after_kill_9_and_redelivery() {
    if let Some(home) = std::env::var_os(HOME) {
        return handle_for_ever(Path::new(&home));
    }
    let home = tempfile::tempdir().unwrap();
    let seed = seed();
    println!("seed {seed}: to run with it again, set {SEED}");
    let mut random = Random(seed);
    let mut handled = BTreeSet::new();
    // Each process begins at the first message again, as after a redelivery of all of them.
    for round in 0..ROUNDS {
        let child = start("kill::a_transactional_effect_is_there_once_after_kill_9_and_redelivery", home.path(), round);
        let told = kill_after(child, "handled ", 1 + random.below(200));
        handled.extend(told.iter().filter_map(|number| number.parse::<i64>().ok()));
        let database = rusqlite::Connection::open(home.path().join("records")).unwrap();
        let mut select = database.prepare("SELECT number, count(*) FROM effects GROUP BY number").unwrap();
        let effects = select.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap();
        let effects: BTreeMap<i64, i64> = effects.map(Result::unwrap).collect();
        assert!(effects.values().all(|count| *count == 1), "round {round}: {effects:?}");
        assert!(handled.iter().all(|number| effects.contains_key(number)), "round {round}: an effect is missing");
    }
    println!("{} handled, in {ROUNDS} processes that were killed", handled.len());
}
