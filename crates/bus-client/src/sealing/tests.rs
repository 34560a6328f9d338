//! Handles of one file, as processes of one component have them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use super::keys::tests::key;
use super::*;

/// In milliseconds.
const DAY: i64 = 86_400_000;

fn owner() -> Principal {
    "spiffe://ransomeye.test/core/core-01".parse().unwrap()
}

fn cheap(text: &str) -> Passphrase {
    Passphrase::new(SecretString::from(text), Cost::new(8, 1, 1).unwrap()).unwrap()
}

/// A folder, and the place of a file in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core-01.sealing");
    (folder, path)
}

fn open(path: &Path) -> SealingKeys {
    SealingKeys::open(path, &owner()).unwrap()
}

fn locked(path: &Path, passphrase: &str) -> Result<SealingKeys, SealingKeysError> {
    SealingKeys::open_file(path.into(), &owner(), Some(cheap(passphrase)))
}

/// Puts these keys into the file, as if they had been made before.
fn put(path: &Path, ring: &Ring) {
    KeyFile::new(path.into(), owner(), None).write(ring).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_made_with_a_first_version_for_its_owner_alone() {
    let (folder, path) = place();
    let keys = open(&path);
    assert_eq!((keys.versions(), keys.newest().version()), (vec![1], 1));
    assert_eq!((keys.path(), keys.owner()), (Some(path.as_path()), &owner()));
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&folder.path().join("core-01.sealing.lock")), 0o600);
    assert_eq!(names(&folder), ["core-01.sealing", "core-01.sealing.lock"]);
    let again = open(&path);
    assert_eq!(again.newest().key().public_key(), keys.newest().key().public_key());
}

#[test]
fn the_file_is_beside_the_client_key_unless_it_is_named() {
    let path = SealingKeys::default_path(Path::new("/etc/bus/agent-01.key"));
    assert_eq!(path, Path::new("/etc/bus/agent-01.sealing"));
}

#[test]
fn a_rotation_is_seen_by_the_other_processes_and_former_versions_stay() {
    let (_folder, path) = place();
    let (one, two) = (open(&path), open(&path));
    assert!(!two.refresh().unwrap());
    let second = one.rotate().unwrap();
    assert_eq!((second.version(), one.newest().version(), two.newest().version()), (2, 2, 1));
    assert_eq!(two.find(2).unwrap().key().public_key(), second.key().public_key());
    assert!(!two.refresh().unwrap(), "it knows already");
    assert_eq!(two.rotate().unwrap().version(), 3);
    assert!(one.refresh().unwrap());
    assert_eq!((one.versions(), one.newest().version()), (vec![1, 2, 3], 3));
    assert!(one.find(4).is_none() && one.find(0).is_none());
}

#[test]
fn processes_that_rotate_at_once_make_a_version_each_and_readers_see_whole_files() {
    let (_folder, path) = place();
    open(&path);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Acquire) {
                let newest = open(&path).newest().version();
                assert!(newest >= seen, "{newest} after {seen}");
                seen = newest;
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let keys = open(&path);
                    (0..25).map(|_| keys.rotate().unwrap().version()).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut made: Vec<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Release);
        reader.join().unwrap();
        made.sort_unstable();
        assert_eq!(made, (2..=101).collect::<Vec<u64>>());
    });
    assert_eq!(open(&path).versions(), (1..=101).collect::<Vec<u64>>());
}

#[test]
fn of_several_processes_one_renews_a_key_that_is_old() {
    let (_folder, path) = place();
    put(&path, &Ring::of(vec![key(1, unix_ms() - 2 * DAY)]).unwrap());
    let handles = [open(&path), open(&path), open(&path)];
    let age = Duration::from_secs(86_400);
    let renewed = handles.each_ref().map(|keys| keys.renew(age).unwrap().map(|key| key.version()));
    assert_eq!(renewed, [Some(2); 3], "all learn the new key");
    assert_eq!(open(&path).versions(), [1, 2]);
    assert_eq!(handles.each_ref().map(|keys| keys.renew(age).unwrap().is_none()), [true; 3]);
}

#[test]
fn a_higher_version_elsewhere_is_gone_above_once() {
    let (_folder, path) = place();
    let (one, two) = (open(&path), open(&path));
    assert_eq!(one.rotate_above(7).unwrap().version(), 8);
    assert_eq!(two.rotate_above(7).unwrap().version(), 8);
    assert_eq!(two.versions(), [1, 8]);
    assert!(matches!(one.rotate_above(u64::MAX), Err(SealingKeysError::NoVersionLeft)));
    assert_eq!(open(&path).versions(), [1, 8]);
}

#[test]
fn keys_in_memory_rotate_too() {
    let keys = SealingKeys::in_memory(&owner()).unwrap();
    assert_eq!((keys.rotate().unwrap().version(), keys.rotate_above(5).unwrap().version()), (2, 6));
    assert_eq!(keys.renew(Duration::ZERO).unwrap().unwrap().version(), 7);
    assert!(keys.renew(Duration::from_secs(3600)).unwrap().is_none() && !keys.refresh().unwrap());
    assert_eq!((keys.versions(), keys.path()), (vec![1, 2, 6, 7], None));
    assert!(keys.find(2).is_some() && keys.find(3).is_none());
}

#[test]
fn a_file_that_others_can_read_is_refused_with_its_mode() {
    let (_folder, path) = place();
    let keys = open(&path);
    keys.rotate().unwrap();
    for exposed in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
        let error = SealingKeys::open(&path, &owner()).unwrap_err().to_string();
        assert!(error.contains(&format!("{exposed:04o}")) && error.contains("chmod 600"), "{error}");
        assert!(matches!(keys.rotate(), Err(SealingKeysError::Exposed { .. })));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(open(&path).versions(), [1, 2]);
}

#[test]
fn a_damaged_file_is_told_and_what_was_known_stays() {
    let (_folder, path) = place();
    let keys = open(&path);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    fs::write(&path, &bad).unwrap();
    for error in [keys.refresh().unwrap_err(), keys.refresh().unwrap_err(), keys.rotate().unwrap_err()] {
        assert!(matches!(error, SealingKeysError::Damaged { .. }), "{error}");
    }
    assert!(keys.find(1).is_some() && keys.find(2).is_none());
    assert!(matches!(SealingKeys::open(&path, &owner()), Err(SealingKeysError::Damaged { .. })));
    fs::write(&path, &good).unwrap();
    assert_eq!(keys.rotate().unwrap().version(), 2);
}

#[test]
fn another_components_file_is_refused() {
    let (_folder, path) = place();
    open(&path);
    let other = "spiffe://ransomeye.test/core/core-02".parse().unwrap();
    let error = SealingKeys::open(&path, &other).unwrap_err();
    assert!(matches!(error, SealingKeysError::OtherOwner { .. }), "{error}");
}

#[test]
fn a_file_that_is_gone_is_told_and_made_again_by_a_rotation() {
    let (_folder, path) = place();
    let keys = open(&path);
    fs::remove_file(&path).unwrap();
    assert!(matches!(keys.refresh(), Err(SealingKeysError::Missing { .. })));
    assert!(keys.find(1).is_some());
    assert_eq!(keys.rotate().unwrap().version(), 2);
    assert_eq!(open(&path).versions(), [1, 2]);
}

#[test]
fn an_old_copy_that_was_restored_loses_no_key_that_a_process_knows() {
    let (_folder, path) = place();
    let keys = open(&path);
    let old = fs::read(&path).unwrap();
    keys.rotate().unwrap();
    fs::write(&path, &old).unwrap();
    assert!(!keys.refresh().unwrap());
    assert_eq!(keys.versions(), [1, 2]);
    assert_eq!(keys.rotate().unwrap().version(), 3);
    assert_eq!(open(&path).versions(), [1, 2, 3]);
}

#[test]
fn an_old_copy_that_was_rotated_elsewhere_is_a_conflict() {
    let (_folder, path) = place();
    let keys = open(&path);
    let old = fs::read(&path).unwrap();
    keys.rotate().unwrap();
    fs::write(&path, &old).unwrap();
    open(&path).rotate().unwrap();
    for error in [keys.refresh().unwrap_err(), keys.rotate().unwrap_err()] {
        assert!(matches!(error, SealingKeysError::Conflict { version: 2 }), "{error}");
    }
}

#[test]
fn what_a_killed_writer_left_behind_is_replaced() {
    let (folder, path) = place();
    let keys = open(&path);
    fs::write(folder.path().join("core-01.sealing.new"), "half a fi").unwrap();
    assert_eq!(keys.rotate().unwrap().version(), 2);
    assert_eq!(names(&folder), ["core-01.sealing", "core-01.sealing.lock"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named_with_what_to_do() {
    let (folder, _) = place();
    let path = folder.path().join("missing/core-01.sealing");
    let error = SealingKeys::open(&path, &owner()).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("RANSOMEYE_SEALING_KEYS"), "{error}");
    let error = SealingKeys::open(folder.path(), &owner()).unwrap_err();
    assert!(matches!(error, SealingKeysError::Unreadable { .. }), "{error}");
}

#[test]
fn a_file_that_cannot_be_written_can_be_read() {
    let (folder, path) = place();
    let writer = open(&path);
    let lock = folder.path().join("core-01.sealing.lock");
    fs::remove_file(&lock).unwrap();
    // As in a folder that this process may not write to; an administrator's process may everywhere.
    fs::create_dir(&lock).unwrap();
    let reader = open(&path);
    assert_eq!(reader.versions(), [1]);
    let error = reader.rotate().unwrap_err();
    assert!(matches!(error, SealingKeysError::Write { .. }), "{error}");
    assert!(matches!(reader.renew(Duration::ZERO), Err(SealingKeysError::Write { .. })));
    fs::remove_dir(&lock).unwrap();
    writer.rotate().unwrap();
    assert!(reader.refresh().unwrap() && reader.find(2).is_some());
}

#[test]
fn a_link_to_the_file_is_followed_and_stays() {
    let (folder, path) = place();
    let link = folder.path().join("link");
    open(&path);
    symlink(&path, &link).unwrap();
    assert_eq!(open(&link).rotate().unwrap().version(), 2);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(open(&path).versions(), [1, 2]);
    assert_eq!(names(&folder), ["core-01.sealing", "core-01.sealing.lock", "link"], "one lock for both names");
}

#[test]
fn a_lock_that_is_never_given_back_ends_the_wait() {
    let (_folder, path) = place();
    open(&path);
    let held = Lock::take(&path, Duration::ZERO).unwrap();
    let error = Lock::take(&path, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, SealingKeysError::Busy { waited_ms: 20, .. }), "{error}");
    assert_eq!(open(&path).versions(), [1], "readers need no lock");
    drop(held);
    Lock::take(&path, Duration::ZERO).unwrap();
}

#[test]
fn a_file_under_a_passphrase_is_shared_by_those_who_know_it() {
    let (_folder, path) = place();
    let keys = locked(&path, "right").unwrap();
    let other = locked(&path, "right").unwrap();
    assert_eq!(keys.rotate().unwrap().version(), 2);
    assert_eq!(other.rotate().unwrap().version(), 3);
    assert!(keys.find(3).is_some());
    let error = locked(&path, "wrong").unwrap_err();
    assert!(matches!(error, SealingKeysError::WrongPassphrase { .. }), "{error}");
    let error = SealingKeys::open(&path, &owner()).unwrap_err();
    assert!(matches!(error, SealingKeysError::PassphraseNeeded { .. }), "{error}");
    let file = fs::read(&path).unwrap();
    let seed = keys.newest();
    let seed = seed.key().seed();
    assert!(!file.windows(32).any(|window| window == seed.as_slice()), "the key is not in the file");
}

#[test]
fn a_file_is_put_under_a_passphrase_when_one_is_given() {
    let (_folder, path) = place();
    let plain = open(&path).newest();
    let keys = locked(&path, "right").unwrap();
    assert_eq!(keys.newest().key().public_key(), plain.key().public_key());
    let file = fs::read(&path).unwrap();
    assert!(!file.windows(32).any(|window| window == plain.key().seed().as_slice()));
    assert!(matches!(SealingKeys::open(&path, &owner()), Err(SealingKeysError::PassphraseNeeded { .. })));
    assert_eq!(locked(&path, "right").unwrap().versions(), [1]);
}

#[test]
fn a_file_that_is_only_looked_at_is_neither_made_nor_changed() {
    let (folder, path) = place();
    let existing = |passphrase: Option<&str>| SealingKeys::open_existing(&path, &owner(), passphrase.map(Into::into));
    assert!(matches!(existing(None), Err(SealingKeysError::Missing { .. })));
    assert_eq!(names(&folder), [""; 0]);
    open(&path).rotate().unwrap();
    let before = fs::read(&path).unwrap();
    for passphrase in [None, Some("p")] {
        assert_eq!(existing(passphrase).unwrap().versions(), [1, 2]);
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn an_export_is_imported_elsewhere_with_its_passphrase() {
    let (folder, path) = place();
    let keys = open(&path);
    keys.rotate().unwrap();
    let export = folder.path().join("export");
    keys.export_at(&export, cheap("travel")).unwrap();
    assert_eq!(mode(&export), 0o600);
    let error = keys.export_at(&export, cheap("travel")).unwrap_err();
    assert!(matches!(error, SealingKeysError::AlreadyExists { .. }), "{error}");

    assert_eq!(keys.import_at(&export, cheap("travel")).unwrap().known, [1, 2]);
    let error = keys.import_at(&export, cheap("other")).unwrap_err();
    assert!(matches!(error, SealingKeysError::WrongPassphrase { .. }), "{error}");

    let (_elsewhere, path) = place();
    let (restored, imported) =
        SealingKeys::restore(&export, &SecretString::from("travel"), &path, &owner(), None).unwrap();
    assert_eq!((imported.added, imported.known), (vec![1, 2], vec![]));
    assert_eq!(restored.newest().key().public_key(), keys.newest().key().public_key());
    keys.rotate().unwrap();
    let export = folder.path().join("later");
    keys.export_at(&export, cheap("travel")).unwrap();
    let (restored, imported) =
        SealingKeys::restore(&export, &SecretString::from("travel"), &path, &owner(), None).unwrap();
    assert_eq!((imported.added, imported.known), (vec![3], vec![1, 2]));
    assert_eq!((restored.versions(), open(&path).versions()), (vec![1, 2, 3], vec![1, 2, 3]));
}

#[test]
fn an_import_with_another_key_of_the_same_version_takes_nothing_in() {
    let (folder, path) = place();
    let keys = open(&path);
    let export = folder.path().join("export");
    let elsewhere = SealingKeys::in_memory(&owner()).unwrap();
    elsewhere.rotate().unwrap();
    elsewhere.export_at(&export, cheap("p")).unwrap();
    let error = keys.import_at(&export, cheap("p")).unwrap_err();
    assert!(matches!(error, SealingKeysError::Conflict { version: 1 }), "{error}");
    assert_eq!(open(&path).versions(), [1]);
}

#[test]
fn only_an_export_of_the_same_component_is_imported() {
    let (folder, path) = place();
    let keys = open(&path);
    let error = keys.import_at(&path, cheap("p")).unwrap_err();
    assert!(matches!(error, SealingKeysError::NotAnExport { .. }), "{error}");
    let export = folder.path().join("export");
    let other = "spiffe://ransomeye.test/core/core-02".parse().unwrap();
    SealingKeys::in_memory(&other).unwrap().export_at(&export, cheap("p")).unwrap();
    let error = keys.import_at(&export, cheap("p")).unwrap_err();
    assert!(matches!(error, SealingKeysError::OtherOwner { .. }), "{error}");
    let error = keys.import_at(&folder.path().join("none"), cheap("p")).unwrap_err();
    assert!(matches!(error, SealingKeysError::Missing { .. }), "{error}");
}

#[test]
fn an_export_costs_whoever_guesses_64_mib_and_three_passes() {
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("export");
    SealingKeys::in_memory(&owner()).unwrap().export(&export, &SecretString::from("p")).unwrap();
    let file = fs::read(&export).unwrap();
    let header = b"ransomeye.v1 sealing keys\n..spiffe://ransomeye.test/core/core-01\n".len();
    let cost: Vec<u8> = [65_536_u32, 3, 1].iter().flat_map(|number| number.to_be_bytes()).collect();
    assert_eq!(file[header..header + 12], cost);
}

#[test]
fn keys_that_nobody_can_need_go_at_the_next_rotation() {
    let (_folder, path) = place();
    let young = unix_ms() - 59 * DAY;
    put(&path, &Ring::of(vec![key(1, young - 2 * DAY), key(2, young), key(3, young)]).unwrap());
    let keys = open(&path);
    assert_eq!(keys.versions(), [1, 2, 3]);
    keys.rotate().unwrap();
    assert_eq!((keys.versions(), open(&path).versions()), (vec![2, 3, 4], vec![2, 3, 4]));
}
