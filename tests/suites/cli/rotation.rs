//! A running program that is told to sign with a new key.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::desk::{Desk, dead_address, process_state};
use crate::keys::{key_ids, next, reporting, until};

#[test]
fn an_agent_that_is_told_signs_with_a_new_key_and_loses_nothing() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let (mut agent, mut sub) = reporting(&desk, &url);
    let before = next(&mut sub)["key_id"].as_str().unwrap().to_owned();
    let fetch = format!("keys fetch agent/agent-01 --json --as core/core-01 --url {url}");
    until(&desk, &fetch, |listing| key_ids(listing).contains(&before));
    let pid = agent.child.id();
    let rotated = desk.done(&format!("keys rotate --pid {pid} --json --as agent/agent-01 --url {url}")).json();
    assert_eq!((&rotated["pid"], &rotated["component"]), (&json!(pid), &json!("agent/agent-01")));
    assert!(rotated["former_key_ids"].as_array().unwrap().contains(&json!(before)), "{rotated}");
    assert_ne!(rotated["key_id"], before);
    let mut received = 2;
    loop {
        received += 1;
        let message = next(&mut sub);
        if message["key_id"] == rotated["key_id"] {
            assert_eq!(message["sequence"], 1, "a new key counts from the start");
            break;
        }
        assert_eq!(message["key_id"], before);
    }
    agent.wait_for_log("signing key rotated");
    agent.signal(Signal::TERM);
    let sent = agent.event("final")["telemetry"].as_u64().unwrap();
    agent.ends_with(0);
    while received < sent {
        assert_eq!(next(&mut sub)["key_id"], rotated["key_id"]);
        received += 1;
    }
    sub.signal(Signal::TERM);
    sub.ends_with(0);
    assert!(!sub.stderr().contains("missed") && !sub.stderr().contains("refused"), "{}", sub.stderr());
}

#[test]
fn a_subscriber_and_a_watcher_can_be_told_as_well() {
    let desk = Desk::with(&["core/core-01"]);
    let (_server, url) = desk.serve();
    for (command, sign) in [("sub", "subscribed"), ("watch", "watching")] {
        let mut program = desk.start(&format!("{command} --as core/core-01 --url {url}"));
        program.wait_for_log(sign);
        let pid = program.child.id();
        let said = desk.done(&format!("keys rotate --pid {pid} --as core/core-01 --url {url}")).stdout;
        assert!(said.contains("a new key of core/core-01 is"), "{said}");
        program.signal(Signal::TERM);
        program.ends_with(0);
    }
}

#[test]
fn who_cannot_look_still_tells_and_says_so() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut agent = desk.start(&format!("agent --json --as agent/agent-01 --url {url}"));
    agent.event("ready");
    let pid = agent.child.id();
    let blind = desk.done(&format!("keys rotate --pid {pid} --json")).json();
    assert_eq!(blind["key_id"], Value::Null);
    assert!(blind["unconfirmed"].as_str().unwrap().contains("no certificate"), "{blind}");
    agent.wait_for_log("signing key rotated");
    let said = desk.done(&format!("keys rotate --pid {pid} --wait 0 --as agent/agent-01 --url {url}")).stdout;
    assert!(said.contains("was not seen: not waited for"), "{said}");
}

#[test]
fn a_new_key_that_does_not_appear_is_a_failure() {
    let desk = Desk::with(&["agent/agent-01", "agent/agent-02"]);
    let (_server, url) = desk.serve();
    let mut agent = desk.start(&format!("agent --json --as agent/agent-01 --url {url}"));
    agent.event("ready");
    let pid = agent.child.id();
    desk.run(&format!("keys rotate --pid {pid} --wait 300ms --as agent/agent-02 --url {url}"))
        .exits_with(1)
        .says("was told, but no new key of agent/agent-02");
}

#[test]
fn only_a_program_that_signs_is_told() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (server, _) = desk.serve();
    let mut bystander = Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn().unwrap();
    let sleeps = desk.run(&format!("keys rotate --pid {} --wait 0", bystander.id()));
    let serves = desk.run(&format!("keys rotate --pid {} --wait 0", server.child.id()));
    let state = process_state(u64::from(bystander.id()));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    sleeps.exits_with(1).says("is `sleep`, not `bus`");
    serves.exits_with(1).says("only `bus agent`, `bus sub` and `bus watch`");
    assert!(matches!(state, Some('S' | 'R')), "{state:?}");
    assert!(process_state(u64::from(server.child.id())).is_some());
    desk.run(&format!("keys rotate --pid {} --wait 0", bystander.id())).exits_with(1).says("there is no process");
    desk.run("keys rotate --pid 4294967295 --wait 0").exits_with(1).says("there is no process");
}

#[test]
fn a_program_that_waits_for_its_server_is_not_ended_by_being_told() {
    let desk = Desk::with(&["agent/agent-01"]);
    let dead = dead_address();
    let mut agent = desk.start(&format!("agent --wait 1h --as agent/agent-01 --url {dead}"));
    agent.wait_for_log("waiting for the server");
    let arguments = format!("keys rotate --pid {} --as agent/agent-01 --url {dead}", agent.child.id());
    let told = desk.done(&arguments);
    assert!(told.stdout.contains("was told"), "{told:#?}");
    assert!(matches!(agent.child.try_wait(), Ok(None)), "{}", agent.stderr());
    agent.signal(Signal::TERM);
    agent.ends_with(5);
}
