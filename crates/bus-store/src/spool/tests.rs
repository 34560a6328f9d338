use std::fs;
use std::sync::mpsc;

use bus_crypto::zeroize::Zeroizing;
use rusqlite::Connection;

use super::*;

const NOW: i64 = 1_790_000_000_000;

struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("spool")
    }

    fn try_open(&self, key: u8, limits: Limits) -> Result<Spool, StoreError> {
        Spool::open(self.path(), &key_of(key), limits)
    }

    fn open(&self, limits: Limits) -> Spool {
        self.try_open(1, limits).unwrap()
    }

    /// The file by SQLite alone, as damage or a later version would change it.
    fn change(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

fn key_of(byte: u8) -> SpoolKey {
    SpoolKey::from_bytes(Zeroizing::new([byte; 32]))
}

fn message(number: u32) -> Message {
    Message {
        class: Class::Durable,
        lane: "a lane".to_owned(),
        message_type: "alert".to_owned(),
        message_id: format!("{number:036}").into_bytes().try_into().unwrap(),
        expires_at: NOW + 10_000,
        priority: 5,
        accepted_at: NOW,
        content: format!("the content of {number}").into_bytes(),
    }
}

fn live(number: u32) -> Message {
    Message { class: Class::Live, expires_at: 0, ..message(number) }
}

fn accept(spool: &Spool, message: &Message) -> EntryId {
    spool.accept_blocking(message).wait().unwrap()
}

/// Keeps the writer busy until what is returned is dropped.
fn hold(spool: &Spool) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    let _answered_to_nobody = spool.ask(move |_| {
        begun.send(()).unwrap();
        let _released = held.recv();
        Ok(())
    });
    begins.recv().unwrap();
    release
}

fn peek(spool: &Spool) -> Vec<Entry> {
    spool.peek(Selection::new(NOW)).wait().unwrap().entries
}

fn numbers(entries: &[Entry]) -> Vec<u32> {
    entries.iter().map(|entry| number_of(&entry.message.message_id)).collect()
}

fn number_of(message_id: &[u8]) -> u32 {
    std::str::from_utf8(message_id).unwrap().parse().unwrap()
}

#[test]
fn what_was_accepted_is_there_after_a_restart_as_it_was() {
    let place = Place::new();
    let id = accept(&place.open(Limits::default()), &message(1));
    assert_eq!(peek(&place.open(Limits::default())), [Entry { id, message: message(1) }]);
}

#[test]
fn asynchronous_code_needs_no_runtime_of_a_certain_kind() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let message = message(1);
    let mut accepting = std::pin::pin!(spool.accept(&message));
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let accepted = loop {
        match accepting.as_mut().poll(&mut context) {
            std::task::Poll::Ready(accepted) => break accepted,
            std::task::Poll::Pending => thread::park(),
        }
    };
    assert_eq!(accepted.unwrap(), peek(&spool)[0].id);
}

#[test]
fn a_commit_waits_for_the_disk() {
    let place = Place::new();
    let connection = file::open(&place.path(), &schema::FORMAT, BUSY, |_| Ok(())).unwrap();
    let pragma =
        |name| connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
    assert_eq!(pragma("synchronous"), 2.into());
    assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
}

#[test]
fn nothing_that_a_message_says_is_in_the_file() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let ids = [accept(&spool, &message(1)), accept(&spool, &message(2))];
    spool.store_signed(ids[..1].to_vec(), b"an envelope with content".to_vec()).wait().unwrap();
    spool.dead_letter(ids[1..].to_vec(), "the reason", NOW).wait().unwrap();
    accept(&spool, &message(3));
    spool.expire(NOW + 10_000).wait().unwrap();
    drop(spool);
    for file in fs::read_dir(place.home.path()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for text in ["content", "a lane", "alert", "0000001", "the reason", "envelope with"] {
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!found, "{text} is in the clear");
        }
    }
}

#[cfg(unix)]
#[test]
fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let spool = place.open(Limits::default());
    accept(&spool, &message(1));
    let files: Vec<_> = fs::read_dir(place.home.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    drop(spool);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(place.try_open(1, Limits::default()), Err(StoreError::Exposed { mode: 0o604, .. })));
}

#[test]
fn order_is_that_of_acceptance_in_each_lane() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    for number in 0..6 {
        accept(&spool, &Message { lane: format!("lane {}", number % 2), ..message(number) });
    }
    let of = |selection: Selection| numbers(&spool.peek(selection).wait().unwrap().entries);
    assert_eq!(of(Selection::new(NOW)), [0, 1, 2, 3, 4, 5]);
    assert_eq!(of(Selection::new(NOW).lane("lane 1")), [1, 3, 5]);
    assert_eq!(of(Selection::new(NOW).lane("lane")), [0; 0]);
    assert_eq!(of(Selection::new(NOW).max_messages(2)), [0, 1]);
    assert_eq!(of(Selection::new(NOW).class(Class::Live)), [0; 0]);
    let len = message(0).content.len();
    assert_eq!(of(Selection::new(NOW).max_bytes(3 * len)), [0, 1, 2]);
    assert_eq!(of(Selection::new(NOW).max_bytes(0)), [0], "one in any case");
    let third = peek(&spool)[2].id;
    assert_eq!(of(Selection::new(NOW).after(third)), [3, 4, 5]);
    let mut heads = numbers(&spool.lanes(NOW, None, 10).wait().unwrap());
    heads.sort_unstable();
    assert_eq!(heads, [0, 1]);
    let first = spool.lanes(NOW, None, 1).wait().unwrap()[0].message.lane.clone();
    let second = spool.lanes(NOW, Some(first.clone()), 10).wait().unwrap();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].message.lane, first);
}

#[test]
fn a_durable_message_that_does_not_fit_is_refused_with_the_limit() {
    let place = Place::new();
    let spool = place.open(Limits::default().messages(2));
    accept(&spool, &message(1));
    let second = accept(&spool, &message(2));
    let refused = spool.accept_blocking(&message(3)).wait().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the spool is full: 2 messages is its limit; drain it, remove dead letters, or raise the limit"
    );
    assert_eq!(numbers(&peek(&spool)), [1, 2]);

    spool.dead_letter(vec![second], "no", NOW).wait().unwrap();
    let refused = spool.accept_blocking(&live(3)).wait().unwrap_err();
    assert!(
        matches!(refused, SpoolError::Full { what: Bound::Messages, limit: 2 }),
        "dead letters take room: {refused}"
    );
    spool.remove_dead_letters(vec![second]).wait().unwrap();
    accept(&spool, &message(3));
    drop(spool);

    let spool = place.open(Limits::default().bytes(100));
    let refused = spool.accept_blocking(&message(4)).wait().unwrap_err();
    assert!(matches!(refused, SpoolError::Full { what: Bound::Bytes, limit: 100 }), "{refused}");
    assert_eq!(numbers(&peek(&spool)), [1, 3], "a smaller limit takes nothing away");
}

#[test]
fn the_oldest_live_messages_make_room_and_are_counted_and_told() {
    let place = Place::new();
    let spool = place.open(Limits::default().messages(3));
    for message in [live(1), message(2), live(3), live(4), message(5)] {
        accept(&spool, &message);
    }
    assert_eq!(numbers(&peek(&spool)), [2, 4, 5]);
    let status = spool.status().wait().unwrap();
    assert_eq!((status.displaced, status.reports, status.live.messages, status.durable.messages), (2, 2, 1, 2));
    drop(spool);

    // The reports outlive the process.
    let spool = place.open(Limits::default());
    let dropped = spool.dropped(10).wait().unwrap();
    let told: Vec<_> =
        dropped.iter().map(|one| (number_of(&one.message.as_ref().unwrap().message_id), one.why)).collect();
    assert_eq!(told, [(1, Why::Displaced), (3, Why::Displaced)]);
    assert_eq!(dropped[0].message.as_ref().unwrap().lane, "a lane");
    assert!(!dropped[0].was_signed);
    assert_eq!(spool.forget(dropped.iter().map(|one| one.id).collect()).wait().unwrap(), 2);
    assert_eq!(spool.dropped(10).wait().unwrap(), []);
    assert_eq!(spool.status().wait().unwrap().reports, 0);
}

#[test]
fn what_has_expired_is_not_drained_but_dropped_and_told() {
    let place = Place::new();
    let spool = place.open(Limits::default().age_ms(5_000));
    accept(&spool, &Message { expires_at: NOW + 1_000, ..message(1) });
    let second = accept(&spool, &message(2));
    accept(&spool, &Message { accepted_at: NOW + 3_000, ..message(3) });
    spool.store_signed(vec![second], b"envelope".to_vec()).wait().unwrap();

    let waiting = |now| numbers(&spool.peek(Selection::new(now)).wait().unwrap().entries);
    assert_eq!(waiting(NOW + 999), [1, 3]);
    assert_eq!(waiting(NOW + 1_000), [3]);
    assert_eq!(spool.expire(NOW + 5_000).wait().unwrap(), 2);
    let dropped = spool.dropped(10).wait().unwrap();
    let told: Vec<_> = dropped
        .iter()
        .map(|one| (number_of(&one.message.as_ref().unwrap().message_id), one.why, one.was_signed))
        .collect();
    assert_eq!(told, [(1, Why::Expired, false), (2, Why::TooOld, true)]);
    assert_eq!(spool.signed_pending(None, 10).wait().unwrap(), [], "the envelope went with its message");
    let status = spool.status().wait().unwrap();
    assert_eq!((status.expired, status.too_old, status.durable.messages), (1, 1, 1));
    let refused = spool.accept_blocking(&Message { expires_at: NOW, ..message(4) }).wait().unwrap_err();
    assert!(matches!(refused, SpoolError::Expired), "{refused}");
}

#[test]
fn what_has_expired_makes_room() {
    let place = Place::new();
    let spool = place.open(Limits::default().messages(1));
    accept(&spool, &message(1));
    accept(&spool, &Message { accepted_at: NOW + 10_000, expires_at: 0, ..message(2) });
    assert_eq!(numbers(&peek(&spool)), [2]);
    assert_eq!(spool.status().wait().unwrap().expired, 1);
}

#[test]
fn reports_that_nobody_reads_are_bounded_and_counted() {
    let place = Place::new();
    let spool = place.open(Limits::default().messages(1).reports(2));
    for number in 1..=5 {
        accept(&spool, &live(number));
    }
    let dropped = spool.dropped(10).wait().unwrap();
    let told: Vec<_> = dropped.iter().map(|one| number_of(&one.message.as_ref().unwrap().message_id)).collect();
    assert_eq!(told, [3, 4]);
    let status = spool.status().wait().unwrap();
    assert_eq!((status.displaced, status.reports, status.reports_lost), (4, 2, 2));
}

#[test]
fn a_retry_after_a_restart_sends_the_same_bytes() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let ids: Vec<_> = (1..=4).map(|number| accept(&spool, &message(number))).collect();
    spool.store_signed(ids[..2].to_vec(), b"one and two".to_vec()).wait().unwrap();
    spool.store_signed(ids[2..3].to_vec(), b"three".to_vec()).wait().unwrap();
    drop(spool);

    let spool = place.open(Limits::default());
    assert_eq!(numbers(&peek(&spool)), [4], "what is signed is not signed again");
    let pending = spool.signed_pending(None, 10).wait().unwrap();
    let found: Vec<_> =
        pending.iter().map(|one| (one.content.as_ref().unwrap().bytes.as_slice(), &one.entries[..])).collect();
    assert_eq!(found, [(&b"one and two"[..], &ids[..2]), (b"three", &ids[2..3])]);
    assert_eq!(pending[0].content.as_ref().unwrap().lane, "a lane");
    assert_eq!(spool.signed_pending(Some(pending[0].id), 10).wait().unwrap(), pending[1..]);

    assert_eq!(spool.done(ids[..2].to_vec()).wait().unwrap(), 2);
    assert_eq!(spool.done(ids[..2].to_vec()).wait().unwrap(), 0);
    assert_eq!(spool.signed_pending(None, 10).wait().unwrap(), pending[1..]);
}

#[test]
fn signing_again_replaces_the_envelope() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let ids: Vec<_> = (1..=3).map(|number| accept(&spool, &message(number))).collect();
    spool.store_signed(ids.clone(), b"all".to_vec()).wait().unwrap();
    assert_eq!(spool.entry(ids[1]).wait().unwrap().unwrap().message, message(2));
    spool.store_signed(ids[..2].to_vec(), b"two".to_vec()).wait().unwrap();
    let pending = spool.signed_pending(None, 10).wait().unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].entries, ids[..2]);
    assert_eq!(numbers(&peek(&spool)), [3]);
}

#[test]
fn an_envelope_is_for_messages_of_one_lane_that_are_there_each_once() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let first = accept(&spool, &message(1));
    let other = accept(&spool, &Message { lane: "another".to_owned(), ..message(2) });
    for ids in [vec![], vec![first, other], vec![first, first], vec![EntryId(7)], vec![first, EntryId(7)]] {
        let refused = spool.store_signed(ids.clone(), b"envelope".to_vec()).wait();
        assert!(matches!(refused, Err(SpoolError::Envelope)), "{ids:?}");
    }
    assert_eq!(spool.signed_pending(None, 10).wait().unwrap(), []);
}

#[test]
fn a_dead_letter_keeps_its_reason_and_can_be_put_back_where_it_was() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let ids: Vec<_> = (1..=3).map(|number| accept(&spool, &message(number))).collect();
    spool.store_signed(ids[..1].to_vec(), b"envelope".to_vec()).wait().unwrap();
    assert_eq!(spool.dead_letter(ids[..2].to_vec(), "refused by policy", NOW + 1).wait().unwrap(), 2);
    assert_eq!(spool.signed_pending(None, 10).wait().unwrap(), []);
    drop(spool);

    let spool = place.open(Limits::default());
    let letters = spool.dead_letters(None, 10).wait().unwrap();
    let [one, two] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((one.reason.as_str(), one.at, one.message.as_ref()), ("refused by policy", NOW + 1, Some(&message(1))));
    assert_eq!(spool.dead_letters(Some(one.id), 10).wait().unwrap(), letters[1..]);
    assert_eq!(numbers(&peek(&spool)), [3]);

    let refused = spool.replay(vec![one.id, ids[2]], NOW).wait();
    assert!(matches!(refused, Err(SpoolError::NoDeadLetter)), "all or none");
    let refused = spool.replay(vec![one.id], NOW + 10_000).wait();
    assert!(matches!(refused, Err(SpoolError::Expired)));
    spool.replay(vec![one.id], NOW).wait().unwrap();
    assert_eq!(numbers(&peek(&spool)), [1, 3]);
    assert_eq!(spool.remove_dead_letters(vec![one.id, two.id]).wait().unwrap(), 1);
    let status = spool.status().wait().unwrap();
    assert_eq!((status.dead, status.durable.messages), (Amount::default(), 2));
}

#[test]
fn a_message_key_is_of_the_file_and_the_message_and_stays() {
    let (place, other) = (Place::new(), Place::new());
    let id = message(1).message_id;
    let key = place.open(Limits::default()).message_key(&id);
    assert_eq!(place.open(Limits::default()).message_key(&id), key);
    assert_ne!(place.open(Limits::default()).message_key(&message(2).message_id), key);
    assert_ne!(other.open(Limits::default()).message_key(&id), key);
}

#[test]
fn a_wrong_key_and_a_damaged_file_are_told_apart() {
    let place = Place::new();
    accept(&place.open(Limits::default()), &message(1));
    assert!(matches!(place.try_open(2, Limits::default()), Err(StoreError::WrongKey { .. })));
    for (what, undo) in [("file", "file"), ("commitment", "commitment"), ("secret", "secret")] {
        place.change(&format!(
            "CREATE TABLE kept AS SELECT * FROM header; UPDATE header SET {what} = zeroblob(length({what}))"
        ));
        for key in [1, 2] {
            let refused = place.try_open(key, Limits::default()).unwrap_err();
            assert!(matches!(refused, StoreError::Damaged { .. }), "{what}: {refused}");
        }
        place.change(&format!("UPDATE header SET {undo} = (SELECT {undo} FROM kept); DROP TABLE kept"));
    }
    drop(place.open(Limits::default()));
    let bytes = fs::read(place.path()).unwrap();
    for start in [0, 4096, 8192] {
        let mut damaged = bytes.clone();
        damaged[start..start + 100].fill(0xff);
        fs::write(place.path(), damaged).unwrap();
        let refused: Result<(), _> = place.try_open(1, Limits::default()).and_then(|_| {
            let inspector = Inspector::open(place.path(), &key_of(1))?;
            let found = inspector.check().unwrap();
            assert!(!found.is_empty(), "damage at {start} was not noticed");
            Err(StoreError::damaged(&place.path(), "found by the check"))
        });
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{start}: {refused:?}");
    }
    fs::write(place.path(), bytes).unwrap();
    assert_eq!(numbers(&peek(&place.open(Limits::default()))), [1]);
}

#[test]
fn a_damaged_row_does_not_stop_the_rest() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let ids: Vec<_> = (1..=3).map(|number| accept(&spool, &message(number))).collect();
    drop(spool);
    place.change("UPDATE entries SET sealed = zeroblob(length(sealed)) WHERE id = 2");
    let inspector = Inspector::open(place.path(), &key_of(1)).unwrap();
    assert_eq!(inspector.check().unwrap(), ["row 2 of entries is damaged"]);
    drop(inspector);

    let spool = place.open(Limits::default());
    let page = spool.peek(Selection::new(NOW)).wait().unwrap();
    assert_eq!((numbers(&page.entries), page.unreadable.as_slice()), (vec![1, 3], &ids[1..2]));
    spool.dead_letter(page.unreadable, "damaged", NOW).wait().unwrap();
    assert_eq!(spool.dead_letters(None, 10).wait().unwrap()[0].message, None);
    assert!(matches!(spool.replay(vec![ids[1]], NOW).wait(), Err(SpoolError::Unreadable)));
    assert_eq!(spool.remove_dead_letters(vec![ids[1]]).wait().unwrap(), 1);
}

#[test]
fn a_second_process_gets_an_error_and_an_inspector_reads_along() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    accept(&spool, &message(1));
    assert!(matches!(place.try_open(1, Limits::default()), Err(StoreError::InUse { .. })));
    let inspector = Inspector::open(place.path(), &key_of(1)).unwrap();
    assert_eq!(inspector.status().unwrap().durable.messages, 1);
    accept(&spool, &message(2));
    assert_eq!(numbers(&inspector.peek(&Selection::new(NOW)).unwrap().entries), [1, 2]);
    assert!(matches!(Inspector::open(place.path(), &key_of(2)), Err(StoreError::WrongKey { .. })));
    drop(spool);
    drop(place.open(Limits::default()));
}

#[cfg(unix)]
#[test]
fn another_version_and_another_kind_of_file_are_left_alone() {
    let place = Place::new();
    drop(place.open(Limits::default()));
    place.change("PRAGMA user_version = 2");
    let refused = place.try_open(1, Limits::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Version { found: 2, supported: 1, .. }), "{refused}");
    place.change("PRAGMA application_id = 7");
    assert!(matches!(place.try_open(1, Limits::default()), Err(StoreError::Foreign { expected: "spool", .. })));

    let other = Place::new();
    other.change("CREATE TABLE theirs (n)");
    fs::set_permissions(other.path(), private()).unwrap();
    assert!(matches!(other.try_open(1, Limits::default()), Err(StoreError::Foreign { .. })));
    let text = Place::new();
    fs::write(text.path(), "a text that is long enough to be taken for a database, but for what it says".repeat(9))
        .unwrap();
    fs::set_permissions(text.path(), private()).unwrap();
    assert!(matches!(text.try_open(1, Limits::default()), Err(StoreError::Damaged { .. })));
}

#[cfg(unix)]
fn private() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o600)
}

/// The page limit makes SQLite fail as a full disk does, at whatever point it comes.
#[test]
fn when_there_is_no_room_nothing_is_lost_and_it_works_again_when_there_is() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let limit = |pages: i64| {
        let set = spool.ask(move |changes| Ok(changes.view.connection.pragma_update(None, "max_page_count", pages)?));
        set.wait().unwrap();
    };
    limit(60);
    let big = |number| Message { content: vec![7; 10_000], ..message(number) };
    let mut accepted = Vec::new();
    let refused = loop {
        let number = u32::try_from(accepted.len()).unwrap();
        match spool.accept_blocking(&big(number)).wait() {
            Ok(_) => accepted.push(number),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(&refused, SpoolError::Store(StoreError::DiskFull { path }) if *path == place.path()), "{refused}");
    assert!(accepted.len() > 5, "{accepted:?}");
    assert_eq!(numbers(&peek(&spool)), accepted);
    assert_eq!(spool.status().wait().unwrap().durable.messages, accepted.len() as u64);

    // In one group, what drains is done though what adds is not.
    let first = peek(&spool)[0].id;
    let release = hold(&spool);
    let adding: Vec<_> = (100..110).map(|number| spool.try_accept(&big(number)).unwrap()).collect();
    let done = spool.done(vec![first]);
    drop(release);
    assert!(adding.into_iter().map(Reply::wait).all(|added| added.is_err()));
    assert_eq!(done.wait().unwrap(), 1);
    assert_eq!(numbers(&peek(&spool)), accepted[1..]);

    limit(1_000_000);
    accept(&spool, &big(200));
    drop(spool);
    assert_eq!(Inspector::open(place.path(), &key_of(1)).unwrap().check().unwrap(), [""; 0]);
    assert_eq!(numbers(&peek(&place.open(Limits::default()))), [&accepted[1..], &[200]].concat());
}

#[test]
fn what_drains_does_not_depend_on_what_cannot_be_added() {
    let place = Place::new();
    let id = accept(&place.open(Limits::default()), &message(1));
    let reserve = file::beside(&place.path(), "-reserve");
    fs::remove_file(&reserve).unwrap();
    fs::create_dir(&reserve).unwrap();
    let spool = place.open(Limits::default());
    let release = hold(&spool);
    let (adding, done) = (spool.accept_blocking(&message(2)), spool.done(vec![id]));
    drop(release);
    let refused = adding.wait().unwrap_err();
    assert!(matches!(refused, SpoolError::Store(StoreError::Io { .. })), "{refused}");
    assert_eq!(done.wait().unwrap(), 1);
}

#[test]
fn a_table_without_its_row_is_damage() {
    let place = Place::new();
    drop(place.open(Limits::default()));
    place.change("DELETE FROM totals");
    assert!(matches!(place.try_open(1, Limits::default()), Err(StoreError::Damaged { .. })));
}

#[test]
fn the_file_becomes_smaller_when_nothing_is_left() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let big = |number| Message { content: vec![7; 1 << 20], ..message(number) };
    let ids: Vec<_> = (0..40).map(|number| spool.accept_blocking(&big(number))).collect();
    let ids: Vec<_> = ids.into_iter().map(|reply| reply.wait().unwrap()).collect();
    spool.done(ids).wait().unwrap();
    // It is done a piece at a time, while nothing else is asked for.
    let pages = |name| {
        let count =
            spool.ask(move |changes| Ok(changes.view.connection.pragma_query_value(None, name, |row| row.get(0))?));
        count.wait().unwrap()
    };
    let before: i64 = pages("page_count");
    while pages("freelist_count") > 4_096 {}
    drop(spool);
    let after = fs::metadata(place.path()).unwrap().len();
    assert!(after < 20 << 20, "{before} pages became {after} bytes");
}

#[test]
fn dropping_a_spool_finishes_what_was_asked_for() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let replies: Vec<_> = (0..100).map(|number| spool.try_accept(&message(number)).unwrap()).collect();
    drop(spool);
    assert!(replies.into_iter().all(|reply| reply.wait().is_ok()));
    assert_eq!(peek(&place.open(Limits::default())).len(), 100);
}

#[test]
fn a_spool_that_is_behind_says_so() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    let release = hold(&spool);
    let big = |number| Message { content: vec![7; 1 << 20], ..message(number) };
    let mut replies = Vec::new();
    let behind = loop {
        assert!(replies.len() < 20, "twenty megabytes wait in memory");
        match spool.try_accept(&big(u32::try_from(replies.len()).unwrap())) {
            Ok(reply) => replies.push(reply),
            Err(Busy) => break u32::try_from(replies.len()).unwrap(),
        }
    };
    drop(release);
    replies.push(spool.accept_blocking(&big(behind)));
    for reply in replies {
        reply.wait().unwrap();
    }
    assert_eq!(peek_all(&spool), (0..=behind).collect::<Vec<_>>());
}

fn peek_all(spool: &Spool) -> Vec<u32> {
    numbers(&spool.peek(Selection::new(NOW).max_bytes(1 << 30)).wait().unwrap().entries)
}

#[test]
fn debug_texts_show_neither_keys_nor_content() {
    let place = Place::new();
    let spool = place.open(Limits::default());
    assert_eq!(format!("{spool:?}"), format!("Spool {{ path: {:?}, .. }}", place.path()));
    assert!(!format!("{:?}", message(1)).contains("the content"));
}
