use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const NOW: i64 = 1_790_000_000_000;
const SENDER: &str = "spiffe://ransomeye.local/agent/agent-01";

fn delivery(message_id: &str) -> Delivery<'_> {
    Delivery { sender: SENDER, message_id, member: 0, expires_at: NOW + 1_000, now: NOW }
}

fn records(home: &tempfile::TempDir) -> Records {
    Records::open(home.path().join("records"), RecordLimits::default()).unwrap()
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn insert(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("CREATE TABLE IF NOT EXISTS effects (n INTEGER); INSERT INTO effects VALUES (1)")
}

fn effects(records: &Records) -> i64 {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'effects'";
    let count = |sql| records.write(|transaction| transaction.query_row(sql, [], |row| row.get::<_, i64>(0))).unwrap();
    if count(table) == 0 { 0 } else { count("SELECT count(*) FROM effects") }
}

#[test]
fn a_transactional_handler_has_one_effect_however_often_a_message_is_delivered() {
    let home = home();
    for _ in 0..3 {
        let records = records(&home);
        records.transactional(&delivery("a"), insert).unwrap();
        assert_eq!(records.transactional(&delivery("a"), insert).unwrap(), Outcome::Handled);
        assert_eq!(effects(&records), 1);
    }
}

#[test]
fn a_transactional_handler_that_fails_leaves_neither_effect_nor_record() {
    let records = records(&home());
    let failed = records.transactional(&delivery("a"), |transaction| {
        insert(transaction).unwrap();
        Err::<(), _>("no")
    });
    assert!(matches!(failed, Err(HandleError::Handler("no"))), "{failed:?}");
    assert_eq!(effects(&records), 0);
    assert_eq!(records.known(&[delivery("a")]).unwrap(), [Known::Fresh]);
}

#[test]
fn a_transactional_handler_that_panics_leaves_neither_effect_nor_record() {
    let records = records(&home());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        records.transactional(&delivery("a"), |transaction| {
            insert(transaction).unwrap();
            if effects_in(transaction) == 1 {
                panic!("the handler's own");
            }
            Ok::<_, ()>(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(effects(&records), 0);
    assert_eq!(records.known(&[delivery("a")]).unwrap(), [Known::Fresh]);
}

fn effects_in(transaction: &Transaction<'_>) -> i64 {
    transaction.query_row("SELECT count(*) FROM effects", [], |row| row.get(0)).unwrap()
}

#[test]
fn record_first_never_calls_twice_and_an_interruption_is_reported_until_it_is_settled() {
    let home = home();
    let calls = AtomicU32::new(0);
    let handler = || {
        calls.fetch_add(1, Ordering::Relaxed);
        Err::<(), _>("interrupted")
    };
    records(&home).record_first(&delivery("a"), handler).unwrap_err();

    let records = records(&home);
    assert_eq!(records.record_first(&delivery("a"), handler).unwrap(), Outcome::Begun);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(records.interrupted(NOW, 10).unwrap(), [], "it was begun at that time, not before");
    let interrupted = records.interrupted(NOW + 1, 10).unwrap();
    let [one] = interrupted.as_slice() else { panic!("{interrupted:?}") };
    let expected = (SENDER, "a", 0, NOW);
    assert_eq!((one.sender.as_str(), one.message_id.as_str(), one.member, one.begun_at), expected);
    records.settle(one).unwrap();
    assert!(matches!(records.settle(one), Err(RecordsError::NotBegun)));
    assert_eq!(records.interrupted(NOW + 1, 10).unwrap(), []);
    assert_eq!(records.record_first(&delivery("a"), handler).unwrap(), Outcome::Handled);
}

#[test]
fn record_first_that_ends_well_is_no_interruption() {
    let records = records(&home());
    assert_eq!(records.record_first(&delivery("a"), || Ok::<_, ()>(7)).unwrap(), Outcome::Done(7));
    assert_eq!(records.record_first(&delivery("a"), || Ok::<_, ()>(7)).unwrap(), Outcome::Handled);
    assert_eq!(records.interrupted(i64::MAX, 10).unwrap(), []);
}

#[test]
fn record_last_calls_again_until_the_handler_ends_well() {
    let records = records(&home());
    records.record_last(&delivery("a"), || Err::<(), _>("no")).unwrap_err();
    assert_eq!(records.record_last(&delivery("a"), || Ok::<_, ()>(7)).unwrap(), Outcome::Done(7));
    assert_eq!(records.record_last(&delivery("a"), || Ok::<_, ()>(7)).unwrap(), Outcome::Handled);
}

#[test]
fn members_of_a_batch_are_recorded_each_and_count_as_one_message() {
    let home = home();
    let of = |member| Delivery { member, ..delivery("a") };
    records(&home).finish(&[of(0), of(255)]).unwrap();
    let records = records(&home);
    assert_eq!(
        records.known(&[of(0), of(1), of(254), of(255)]).unwrap(),
        [Known::Handled, Known::Fresh, Known::Fresh, Known::Handled]
    );
    assert_eq!(records.count().unwrap(), 1);
    assert!(matches!(records.known(&[of(256)]), Err(RecordsError::Member { max: 256 })));
}

#[test]
fn an_id_is_a_senders_own() {
    let records = records(&home());
    records.finish(&[delivery("a")]).unwrap();
    let other = Delivery { sender: "spiffe://ransomeye.local/agent/agent-02", ..delivery("a") };
    assert_eq!(records.known(&[other]).unwrap(), [Known::Fresh]);
}

#[test]
fn a_sender_over_its_quota_is_refused_and_nothing_is_evicted() {
    let home = home();
    let records = Records::open(home.path().join("records"), RecordLimits::default().per_sender(2)).unwrap();
    records.finish(&[delivery("a"), delivery("b")]).unwrap();
    let refused = records.transactional(&delivery("c"), insert).unwrap_err();
    assert!(
        matches!(refused, HandleError::Records(RecordsError::OverQuota { limit: 2, .. })),
        "another error: {refused:?}"
    );
    assert_eq!(effects(&records), 0);
    assert_eq!(records.known(&[delivery("a"), delivery("b")]).unwrap(), [Known::Handled, Known::Handled]);
    let other = Delivery { sender: "spiffe://ransomeye.local/agent/agent-02", ..delivery("c") };
    assert_eq!(records.begin(&[other]).unwrap(), [Known::Fresh]);

    // When the records are needed no longer, there is room.
    let later = Delivery { now: NOW + 1_000, expires_at: NOW + 2_000, ..delivery("c") };
    assert_eq!(records.begin(&[later]).unwrap(), [Known::Fresh]);
}

#[test]
fn a_message_that_expired_is_refused_before_and_after_its_record_is_swept() {
    let records = records(&home());
    records.finish(&[delivery("a")]).unwrap();
    let late = Delivery { now: NOW + 1_000, ..delivery("a") };
    assert!(matches!(records.begin(&[late]), Err(RecordsError::Expired)));
    assert_eq!(records.sweep(NOW + 999, 10).unwrap(), 0);
    assert_eq!(records.sweep(NOW + 1_000, 10).unwrap(), 1);
    assert_eq!(records.count().unwrap(), 0);
    assert!(matches!(records.begin(&[late]), Err(RecordsError::Expired)));
}

#[test]
fn an_interruption_outlives_the_record() {
    let records = records(&home());
    records.begin(&[delivery("a")]).unwrap();
    assert_eq!(records.sweep(NOW + 1_000, 10).unwrap(), 1);
    let interrupted = records.interrupted(i64::MAX, 10).unwrap();
    assert_eq!(interrupted.len(), 1);
    records.settle(&interrupted[0]).unwrap();
    assert_eq!(records.interrupted(i64::MAX, 10).unwrap(), []);
}

#[test]
fn of_many_who_are_delivered_one_message_one_handles_it() {
    let home = home();
    let path = home.path().join("records");
    let done: usize = std::thread::scope(|scope| {
        let work = || {
            // A connection each, as processes have, and opened at once.
            let records = Records::open(&path, RecordLimits::default()).unwrap();
            let outcomes = (0..20).map(|number| {
                let id = number.to_string();
                records.transactional(&delivery(&id), insert).unwrap()
            });
            outcomes.filter(|outcome| *outcome == Outcome::Done(())).count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(done, 20);
    assert_eq!(effects(&records(&home)), 20);
}

#[test]
fn waiting_for_another_process_has_an_end() {
    let home = home();
    let path = home.path().join("records");
    let records = records(&home);
    let impatient = Records::open(path, RecordLimits::default().busy(Duration::from_millis(1))).unwrap();
    records
        .transactional(&delivery("a"), |_| {
            let refused = impatient.begin(&[delivery("b")]).unwrap_err();
            assert!(matches!(refused, RecordsError::Store(StoreError::InUse { .. })), "{refused}");
            Ok::<_, ()>(())
        })
        .unwrap();
    assert_eq!(impatient.begin(&[delivery("b")]).unwrap(), [Known::Fresh]);
}

#[test]
fn a_spool_is_no_file_of_records() {
    let home = home();
    let key = crate::SpoolKey::load_or_create(home.path().join("key")).unwrap();
    let path = home.path().join("file");
    drop(crate::Spool::open(&path, &key, crate::Limits::default()).unwrap());
    let refused = Records::open(&path, RecordLimits::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Foreign { expected: "file of records", .. }), "{refused}");
}
