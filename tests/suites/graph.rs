//! What the dependency graph holds, and what it must never hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::process::Command;

/// The crates that `cargo tree` lists for these arguments, without their versions.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<_> = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(!crates.is_empty(), "cargo tree lists nothing for {arguments:?}");
    crates
}

#[test]
fn the_policy_crate_brings_at_most_eight_crates() {
    let crates = tree(&["-p", "bus-acl", "-e", "normal,build"]);
    assert!(crates.len() <= 8, "{crates:?}");
}

#[test]
fn the_lower_crates_do_not_build_the_broker_client() {
    for package in ["bus-acl", "bus-proto", "bus-tls"] {
        let crates = tree(&["-p", package, "--all-features", "-e", "normal,build"]);
        assert!(crates.contains(package) && !crates.contains("async-nats"), "{package}: {crates:?}");
    }
    assert!(tree(&["-p", "bus-client"]).contains("async-nats"));
}

#[test]
fn there_is_one_crypto_provider_and_no_other_tls() {
    let crates = tree(&["--workspace", "--target", "all", "--all-features"]);
    for banned in ["ring", "openssl-sys", "native-tls", "rsa"] {
        assert!(!crates.contains(banned), "{banned} is in the graph");
    }
    assert!(crates.contains("aws-lc-rs"));
}

/// The one package of this name in the graph, with its version and where it comes from.
fn origin(name: &str) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["tree", "--locked", "--workspace", "--target", "all", "--depth", "0", "-i", name])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_operating_systems_trust_store_is_not_in_the_graph() {
    let text = origin("rustls-native-certs");
    assert!(text.starts_with("rustls-native-certs v0.8.99 (") && text.contains("stubs"), "{text}");
}

#[test]
fn the_broker_client_is_the_one_that_no_message_disconnects() {
    let text = origin("async-nats");
    assert!(text.starts_with("async-nats v0.51.99 (") && text.contains("third-party"), "{text}");
}
