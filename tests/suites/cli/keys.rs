//! Keys: what the keys stream has of them.

use std::fs;
use std::time::Instant;

use async_nats::ConnectOptions;
use bus_tls::{TlsIdentity, TlsOptions};
use serde_json::{Value, json};

use crate::desk::{Desk, PATIENCE, Process, dead_address};

/// Runs it again and again until it shows what was waited for.
pub(crate) fn until(desk: &Desk, arguments: &str, shows: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let run = desk.run(arguments);
        if let Ok(value) = serde_json::from_str(&run.stdout)
            && shows(&value)
        {
            return value;
        }
        assert!(Instant::now() < deadline, "`bus {arguments}` never shows it: {run:#?}");
    }
}

pub(crate) fn key_ids(listing: &Value) -> Vec<String> {
    let keys = listing["keys"].as_array().unwrap();
    keys.iter().map(|key| key["key_id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn next(sub: &mut Process) -> Value {
    serde_json::from_str(&sub.line().unwrap()).unwrap()
}

/// An agent that reports often, and a subscriber to that.
pub(crate) fn reporting(desk: &Desk, url: &str) -> (Process, Process) {
    let mut sub = desk.start(&format!("sub telemetry --json --as core/core-01 --url {url}"));
    sub.wait_for_log("subscribed");
    let mut agent = desk.start(&format!("agent --json --interval 20ms --as agent/agent-01 --url {url}"));
    agent.event("ready");
    assert_eq!(next(&mut sub)["sender"], "spiffe://ransomeye.test/agent/agent-01");
    (agent, sub)
}

#[test]
fn the_key_of_an_agent_is_shown_to_it_and_fetched_by_others() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let (_agent, mut sub) = reporting(&desk, &url);
    let signed = next(&mut sub)["key_id"].as_str().unwrap().to_owned();
    let arguments = format!("keys fetch agent/agent-01 --out bundles --json --as core/core-01 --url {url}");
    let fetched = until(&desk, &arguments, |listing| key_ids(listing).contains(&signed));
    assert_eq!((&fetched["component"], &fetched["refused"]), (&json!("agent/agent-01"), &json!([])));
    assert_eq!(fetched["sealed_to"]["version"], 1, "{fetched}");
    let issued = desk.done("pki list --json").json();
    assert_eq!(fetched["keys"][0]["certificate_serial"], issued["issued"][2]["serial"], "{issued}");
    for id in key_ids(&fetched) {
        assert!(desk.path(&format!("bundles/{id}.bundle")).is_file(), "{id}");
    }

    let shown = desk.done(&format!("keys show --json --as agent/agent-01 --url {url}")).json();
    assert!(key_ids(&shown).contains(&signed), "{shown}");
    assert_eq!(shown["keys"][0]["file"], Value::Null);
    let table = desk.done(&format!("keys show --as agent/agent-01 --url {url}")).stdout;
    assert!(table.contains("signs until") && table.contains(&signed[..16]), "{table}");
}

#[test]
fn a_component_without_keys_is_no_success() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let run = desk.run(&format!("keys fetch agent/agent-01 --as core/core-01 --url {url}")).exits_with(1);
    assert!(run.stdout.contains("no key of agent/agent-01"), "{run:#?}");
}

#[test]
fn a_bundle_that_does_not_hold_is_refused_with_its_reason() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let [cert, key, ca] =
        ["agent/agent-01.crt", "agent/agent-01.key", "ca.crt"].map(|name| desk.path("pki").join(name));
    let identity = TlsIdentity::load(TlsOptions::new(cert, key, ca)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = ConnectOptions::new()
            .tls_client_config((*identity.client_config()).clone())
            .require_tls(true)
            .tls_first()
            .custom_inbox_prefix("_INBOX.agent.agent-01");
        let nats = options.connect(&url).await.unwrap();
        nats.request("ransomeye.keys.agent.agent-01", "no bundle".into()).await.unwrap();
    });
    let fetch = format!("keys fetch agent/agent-01 --out bundles --as core/core-01 --url {url}");
    let listing = desk.run(&format!("{fetch} --json")).exits_with(1).json();
    assert_eq!((&listing["keys"], &listing["refused"][0]["reason"]), (&json!([]), &json!("bundle")));
    assert!(desk.run(&fetch).exits_with(1).stdout.contains("refused: the key bundle:"));
    assert_eq!(fs::read_dir(desk.path("bundles")).unwrap().count(), 0);
}

#[test]
fn a_bus_without_a_keys_stream_says_what_to_do() {
    let desk = Desk::with(&["agent/agent-01"]);
    let tls = "--cert pki/broker/nats-1.crt --key pki/broker/nats-1.key --ca pki/ca.crt --component agent/agent-01";
    let mut server = desk.start(&format!("server run {tls} --port 0 --json"));
    let url = server.event("ready")["url"].as_str().unwrap().to_owned();
    for command in ["keys show", "keys fetch agent/agent-01"] {
        desk.run(&format!("{command} --as agent/agent-01 --url {url}")).exits_with(1).says("bus server provision");
    }
}

#[test]
fn a_refused_identity_or_a_dead_server_has_its_exit_code() {
    let desk = Desk::with(&["agent/agent-01"]);
    let dead = dead_address();
    desk.run(&format!("keys show --as agent/agent-01 --url {dead}")).exits_with(5);
    desk.run(&format!("keys show --url {dead}")).exits_with(4);
    desk.run("keys fetch nobody").exits_with(2);
    desk.run("keys rotate").exits_with(2).says("--pid");
    desk.run("keys rotate --pid 0").exits_with(2);
}
