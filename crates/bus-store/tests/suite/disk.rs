//! A disk that is full: a small file system in memory, where one may be mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bus_store::{EntryId, Inspector, Limits, Reply, Selection, Spool, SpoolError, SpoolKey, StoreError};

use crate::{NOW, message, number_of};

/// A small file system, gone when this is dropped.
struct SmallDisk {
    home: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where it is not allowed.
    fn mount() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"]).arg(home.path());
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self { home })
    }

    fn path(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn open(path: &Path, key: &SpoolKey) -> Spool {
    Spool::open(path, key, Limits::default()).unwrap()
}

fn numbers(spool: &Spool) -> Vec<u64> {
    let page = spool.peek(Selection::new(NOW).max_messages(100_000).max_bytes(1 << 30)).wait().unwrap();
    page.entries.iter().map(|entry| number_of(&entry.message)).collect()
}

/// Accepts until the disk is full, a few messages at once.
fn fill(spool: &Spool, path: &PathBuf, from: u64) -> Vec<u64> {
    let mut accepted = Vec::new();
    for first in (from..).step_by(50) {
        let replies: Vec<_> = (first..first + 50).map(|number| (number, accept(spool, number))).collect();
        let before = accepted.len();
        for (number, reply) in replies {
            match reply.wait() {
                Ok(_) => accepted.push(number),
                Err(SpoolError::Store(StoreError::DiskFull { path: full })) => assert_eq!(full, *path),
                Err(other) => panic!("another error than a full disk: {other:?}"),
            }
        }
        if accepted.len() == before {
            break;
        }
    }
    accepted
}

fn accept(spool: &Spool, number: u64) -> Reply<EntryId> {
    spool.accept_blocking(&message(number, 0, 5_000))
}

fn drain(spool: &Spool, count: usize) {
    let entries = spool.peek(Selection::new(NOW).max_messages(count).max_bytes(1 << 30)).wait().unwrap().entries;
    let ids: Vec<_> = entries.into_iter().map(|entry| entry.id).collect();
    spool.store_signed(ids.clone(), vec![7; 100_000]).wait().unwrap();
    assert_eq!(spool.done(ids).wait().unwrap(), count);
}

#[test]
fn a_full_disk_is_a_clear_error_and_loses_nothing_and_passes() {
    let Some(disk) = SmallDisk::mount() else {
        println!("NOT RUN: no file system may be mounted here; a unit test does the same with a limit of SQLite's");
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let key = SpoolKey::load_or_create(elsewhere.path().join("key")).unwrap();
    let path = disk.path().join("spool");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![7; 5_000_000]).unwrap();

    let spool = open(&path, &key);
    let mut expected = fill(&spool, &path, 0);
    assert!(expected.len() > 1_000, "{}", expected.len());
    assert_eq!(numbers(&spool), expected);
    // Still full, but for what fits by itself, and still whole.
    expected.extend(fill(&spool, &path, 100_000));
    assert_eq!(numbers(&spool), expected);

    // Somebody makes room.
    fs::remove_file(&ballast).unwrap();
    let more = fill(&spool, &path, 200_000);
    assert!(more.len() > 50, "{more:?}");
    expected.extend(more);
    assert_eq!(numbers(&spool), expected);

    // What was there is there after a restart, on a disk that is still full.
    drop(spool);
    assert_eq!(Inspector::open(&path, &key).unwrap().check().unwrap(), [""; 0]);
    let spool = open(&path, &key);
    assert_eq!(numbers(&spool), expected);
}

#[test]
fn a_spool_on_a_full_disk_can_be_drained_to_its_end() {
    let Some(disk) = SmallDisk::mount() else {
        println!("NOT RUN: no file system may be mounted here");
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let key = SpoolKey::load_or_create(elsewhere.path().join("key")).unwrap();
    let path = disk.path().join("spool");
    let spool = open(&path, &key);
    let expected = fill(&spool, &path, 0);
    // And others take the last bytes that there are.
    let ballast = disk.path().join("ballast");
    let _full = fs::write(&ballast, vec![7; 64 << 20]).unwrap_err();

    for rest in expected.chunks(100) {
        drain(&spool, rest.len());
    }
    assert_eq!(numbers(&spool), [0; 0]);
    // The file has become smaller, so that there is room again.
    accept(&spool, 1).wait().unwrap();
    assert_eq!(numbers(&spool), [1]);
}

#[test]
fn nothing_is_accepted_without_the_room_to_drain_it() {
    let Some(disk) = SmallDisk::mount() else {
        println!("NOT RUN: no file system may be mounted here");
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let key = SpoolKey::load_or_create(elsewhere.path().join("key")).unwrap();
    let path = disk.path().join("spool");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![7; 55 << 20]).unwrap();
    let spool = open(&path, &key);
    let refused = accept(&spool, 1).wait().unwrap_err();
    assert!(matches!(refused, SpoolError::Store(StoreError::DiskFull { .. })), "{refused}");
    fs::remove_file(&ballast).unwrap();
    accept(&spool, 1).wait().unwrap();
    assert_eq!(numbers(&spool), [1]);
}
