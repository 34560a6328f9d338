//! Sealing keys: what can be done about them without a bus.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use crate::desk::{Desk, Finished, mode};

const CORE: &str = "--as core/core-01";

/// Runs it with this passphrase in the environment.
fn with_passphrase(desk: &Desk, passphrase: &str, arguments: &str) -> Finished {
    let mut command = desk.command(arguments);
    Finished::of(command.env("RANSOMEYE_SEALING_PASSPHRASE", passphrase).output().unwrap(), arguments)
}

#[test]
fn a_rotation_makes_the_file_and_then_a_version_each_time() {
    let desk = Desk::with(&["core/core-01"]);
    let first = desk.done(&format!("keys seal-rotate --json {CORE}")).json();
    assert_eq!((&first["version"], &first["component"]), (&json!(1), &json!("core/core-01")));
    assert_eq!(mode(&desk.path("pki/core/core-01.sealing")), 0o600);
    let second = desk.done(&format!("keys seal-rotate --json {CORE}")).json();
    assert_eq!(second["versions"], json!([1, 2]));
    assert!(desk.done(&format!("keys seal-rotate {CORE}")).stdout.contains("version 3"));
}

#[test]
fn the_file_is_where_the_settings_say() {
    let desk = Desk::with(&["core/core-01"]);
    desk.done(&format!("keys seal-rotate --sealing-keys flag.sealing {CORE}"));
    let mut command = desk.command(&format!("keys seal-rotate {CORE}"));
    Finished::of(command.env("RANSOMEYE_SEALING_KEYS", "env.sealing").output().unwrap(), "seal-rotate").exits_with(0);
    desk.write("bus.toml", "sealing_keys = 'file.sealing'\n");
    desk.done(&format!("keys seal-rotate {CORE}"));
    for name in ["flag.sealing", "env.sealing", "file.sealing"] {
        assert!(desk.path(name).is_file(), "{name}");
    }
    assert!(!desk.path("pki/core/core-01.sealing").exists());
}

#[test]
fn an_export_is_imported_on_another_host_with_its_passphrase() {
    let desk = Desk::with(&["core/core-01"]);
    desk.write("passphrase", "correct horse\n");
    desk.write("wrong", "battery staple\n");
    desk.done(&format!("keys seal-rotate {CORE}"));
    desk.done(&format!("keys seal-rotate {CORE}"));
    let export = format!("keys export out.export --passphrase-file passphrase {CORE}");
    assert_eq!(desk.done(&format!("{export} --json")).json()["versions"], json!([1, 2]));
    assert_eq!(mode(&desk.path("out.export")), 0o600);
    desk.run(&export).exits_with(1).says("not overwritten");

    let import = format!("keys import out.export --sealing-keys elsewhere {CORE}");
    desk.run(&format!("{import} --passphrase-file wrong")).exits_with(4).says("passphrase of `out.export` is wrong");
    assert!(!desk.path("elsewhere").exists());
    let imported = desk.done(&format!("{import} --passphrase-file passphrase --json")).json();
    assert_eq!((&imported["added"], &imported["known"]), (&json!([1, 2]), &json!([])));
    let again = desk.done(&format!("{import} --passphrase-file passphrase --json")).json();
    assert_eq!((&again["added"], &again["known"]), (&json!([]), &json!([1, 2])));

    let mut damaged = fs::read(desk.path("out.export")).unwrap();
    damaged[100] ^= 1;
    fs::write(desk.path("out.export"), damaged).unwrap();
    desk.run(&format!("{import} --passphrase-file passphrase")).exits_with(4).says("damaged");
}

#[test]
fn an_import_of_another_key_of_the_same_version_is_refused() {
    let desk = Desk::with(&["core/core-01"]);
    desk.write("passphrase", "correct horse\n");
    for file in ["one", "two"] {
        desk.done(&format!("keys seal-rotate --sealing-keys {file} {CORE}"));
    }
    desk.done(&format!("keys export out.export --sealing-keys one --passphrase-file passphrase {CORE}"));
    let import = format!("keys import out.export --sealing-keys two --passphrase-file passphrase {CORE}");
    desk.run(&import).exits_with(4).says("version 1");
}

#[test]
fn a_passphrase_in_the_environment_encrypts_the_file() {
    let desk = Desk::with(&["core/core-01"]);
    let rotate = format!("keys seal-rotate --json {CORE}");
    desk.done(&rotate);
    let encrypted = with_passphrase(&desk, "correct horse", &rotate).exits_with(0);
    assert_eq!(encrypted.json()["versions"], json!([1, 2]));
    desk.run(&rotate).exits_with(4).says("RANSOMEYE_SEALING_PASSPHRASE");
    with_passphrase(&desk, "battery staple", &rotate).exits_with(4).says("wrong");
}

#[test]
fn without_a_passphrase_keys_or_permissions_nothing_is_exported() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    desk.write("passphrase", "correct horse\n");
    desk.write("empty", "\n");
    let export = format!("keys export out.export {CORE}");
    desk.run(&format!("{export} --passphrase-file passphrase")).exits_with(1).says("core-01.sealing");
    assert!(!desk.path("pki/core/core-01.sealing").exists(), "an export makes no keys");
    desk.done(&format!("keys seal-rotate {CORE}"));
    desk.run(&format!("{export} --passphrase-file empty")).exits_with(2).says("empty");
    desk.run(&format!("{export} --passphrase-file missing")).exits_with(2).says("missing");
    let other = "keys seal-rotate --sealing-keys pki/core/core-01.sealing --as agent/agent-01";
    desk.run(other).exits_with(4).says("core/core-01");
    let path = desk.path("pki/core/core-01.sealing");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    desk.run(&format!("{export} --passphrase-file passphrase")).exits_with(4).says("chmod 600");
    assert!(!desk.path("out.export").exists());
}

#[test]
fn a_rotation_that_is_killed_leaves_the_old_file_or_the_new_one() {
    let desk = Desk::with(&["core/core-01"]);
    let rotate = format!("keys seal-rotate --json {CORE}");
    let mut known = desk.done(&rotate).json()["versions"].as_array().unwrap().len();
    for _ in 0..10 {
        let mut running: Vec<_> =
            (0..3).map(|_| desk.command(&rotate).stdout(Stdio::null()).spawn().unwrap()).collect();
        // The last is let be, so that the others are killed while it works.
        running.pop().unwrap().wait().unwrap();
        for child in &mut running {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let versions = desk.done(&rotate).json()["versions"].as_array().unwrap().len();
        assert!(versions > known, "{versions} after {known}");
        known = versions;
    }
}
