//! How fast messages are accepted and drained, and how much memory that takes: `cargo bench -p bus-store -- [messages]`, on the disk of the target
//! directory, or of `SPOOL_BENCH_DIR`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program that measures")]

use std::collections::VecDeque;
use std::time::Instant;

use bus_store::{Class, Limits, Message, Selection, Spool, SpoolKey};

const CONTENT_LEN: usize = 256;

fn message(number: usize) -> Message {
    Message {
        class: Class::Durable,
        lane: format!("ransomeye.events.alert.agent.agent-{:02}", number % 16),
        message_type: "alert".to_owned(),
        message_id: format!("{number:036}").into_bytes().try_into().unwrap(),
        expires_at: 2_000_000_000_000,
        priority: 5,
        accepted_at: 1_790_000_000_000,
        content: vec![7; CONTENT_LEN],
    }
}

/// This process's memory in MiB: the largest so far, and what is its own now.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let mib = |line: &str| line.trim().split(' ').next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024;
    (mib(line("VmHWM:")), mib(line("RssAnon:")))
}

fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) as f64 / 100.0
}

fn report(what: &str, count: usize, began: Instant, processor: f64) {
    let (seconds, processor) = (began.elapsed().as_secs_f64(), processor_seconds() - processor);
    let (peak, now) = memory();
    println!(
        "{what:<34} {count:>9} in {seconds:>7.2} s: {:>9.0}/s, {:>6.2} µs of processor each, memory {now} MiB (peak {peak})",
        count as f64 / seconds,
        processor / count as f64 * 1e6,
    );
}

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(200_000);
    let home =
        tempfile::tempdir_in(std::env::var_os("SPOOL_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into()))
            .unwrap();
    let path = home.path().join("spool");
    let key = SpoolKey::load_or_create(home.path().join("key")).unwrap();

    disk(home.path());
    let spool = Spool::open(&path, &key, Limits::default().bytes(1 << 40).messages(1 << 40)).unwrap();
    let (began, processor) = (Instant::now(), processor_seconds());
    let alone = 1_000.min(count);
    for number in 0..alone {
        spool.accept_blocking(&message(number)).wait().unwrap();
    }
    report("accepted one after another", alone, began, processor);

    let (began, processor) = (Instant::now(), processor_seconds());
    let mut waiting = VecDeque::new();
    for number in 0..count {
        waiting.push_back(spool.accept_blocking(&message(number)));
        if waiting.len() >= 8_192 {
            waiting.pop_front().unwrap().wait().unwrap();
        }
        if number > 0 && number % 500_000 == 0 {
            report("  so far", number, began, processor);
        }
    }
    for reply in waiting {
        reply.wait().unwrap();
    }
    report("accepted, 8,192 at once", count, began, processor);
    println!("{:<34} {:>9} MiB", "the file", std::fs::metadata(&path).unwrap().len() >> 20);

    let began = Instant::now();
    drop(spool);
    println!("{:<34} {:>9.3} s", "closed in", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let spool = Spool::open(&path, &key, Limits::default().bytes(1 << 40).messages(1 << 40)).unwrap();
    println!("{:<34} {:>9.3} s", "opened in", began.elapsed().as_secs_f64());

    drain(&spool, count + alone);
    drop(spool);
    println!("{:<34} {:>9} MiB", "the file after that", std::fs::metadata(&path).unwrap().len() >> 20);
}

/// Goes round the lanes: a page of up to 256 messages of each, one envelope for it, and then all of them are done. Sixteen pages are
/// on their way.
fn drain(spool: &Spool, count: usize) {
    const NOW: i64 = 1_790_000_000_001;
    let (began, processor) = (Instant::now(), processor_seconds());
    let mut drained = 0;
    loop {
        let lanes = spool.lanes(NOW, None, 16).wait().unwrap();
        let lanes = lanes.into_iter().map(|entry| entry.message.lane);
        let pages: Vec<_> = lanes.map(|lane| spool.peek(Selection::new(NOW).lane(lane))).collect();
        let mut stored = Vec::new();
        for page in pages {
            let page = page.wait().unwrap();
            let ids: Vec<_> = page.entries.iter().map(|entry| entry.id).collect();
            let envelope = page.entries.iter().flat_map(|entry| entry.message.content.clone()).collect();
            stored.push((spool.store_signed(ids.clone(), envelope), ids));
        }
        if stored.is_empty() {
            break;
        }
        let done: Vec<_> =
            stored.into_iter().map(|(stored, ids)| stored.wait().map(|_| spool.done(ids)).unwrap()).collect();
        drained += done.into_iter().map(|done| done.wait().unwrap()).sum::<usize>();
    }
    assert_eq!(drained, count);
    report("drained in envelopes of up to 256", drained, began, processor);
}

/// What a wait for this disk costs.
fn disk(home: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(home.join("disk")).unwrap();
    let began = Instant::now();
    for _ in 0..200 {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    println!("{:<34} {:>9.0} µs", "writing 4 KiB and fdatasync", began.elapsed().as_secs_f64() / 200.0 * 1e6);
}
