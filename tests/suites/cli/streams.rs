//! `bus streams`, and what `bus server run` does about the streams of durable messages.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::desk::Desk;

const DURABLE: &str = r#"
[[delivery]]
types = ["Alert"]
to = "events"
class = "durable"
max_lifetime = "12h"
[[durable]]
name = "alerts"
role = "core"
component = "core-01"
types = ["Alert"]
from = "events"
"#;

/// Writes the default policy, and this besides.
fn write_policy(desk: &Desk, besides: &str) {
    let default = include_str!("../../../crates/bus-acl/policies/default.toml");
    desk.write("mine.toml", &format!("{default}\n{besides}"));
}

#[test]
fn a_server_provisions_what_its_policy_makes_durable_and_again_when_that_changes() {
    let desk = Desk::with(&["core/core-01"]);
    write_policy(&desk, "");
    let mut server = desk.start("server run --from-pki pki --policy mine.toml --port 0 --json");
    let ready = server.event("ready");
    assert_eq!(ready["streams"], json!([]));
    let url = ready["url"].as_str().unwrap();
    let keeper = format!("--as control/provisioner --policy mine.toml --url {url}");
    assert!(desk.done(&format!("streams status {keeper}")).stdout.contains("nothing durable"));

    write_policy(&desk, DURABLE);
    let without = desk.run(&format!("streams status {keeper} --json")).exits_with(1).json();
    assert_eq!(without, json!({ "streams": [], "missing": ["RANSOMEYE_EVENTS"] }));
    server.signal(Signal::HUP);
    server.event("reloaded");
    let applied = desk.done(&format!("streams apply {keeper} --json")).json();
    let consumers = json!([{ "consumer": "core_core-01_alerts", "outcome": "unchanged" }]);
    assert_eq!(
        applied,
        json!({ "streams": [{ "stream": "RANSOMEYE_EVENTS", "outcome": "unchanged", "consumers": consumers }] })
    );
    server.signal(Signal::TERM);
    server.ends_with(0);

    let mut server = desk.start("server run --from-pki pki --policy mine.toml --port 0 --json");
    assert_eq!(server.event("ready")["streams"], json!(["RANSOMEYE_EVENTS"]));
    server.wait_for_log("its consumer core_core-01_alerts is there");
}

#[test]
fn the_operator_decides_about_streams_and_sees_how_they_are() {
    let desk = Desk::with(&["core/core-01"]);
    write_policy(&desk, DURABLE);
    let mut server = desk.start("server run --from-pki pki --policy mine.toml --max-store 2GiB --port 0 --json");
    let ready = server.event("ready");
    let url = ready["url"].as_str().unwrap();
    let keeper = format!("--as control/provisioner --policy mine.toml --url {url}");
    desk.done(&format!("streams apply --max-bytes 1GiB {keeper}"));
    for expected in ["the stream RANSOMEYE_EVENTS is there, updated", "the stream RANSOMEYE_EVENTS is there\n"] {
        let applied =
            desk.done(&format!("streams apply --max-bytes 2MiB --max-messages-per-subject 9 {keeper}")).stdout;
        assert!(applied.contains(expected), "{applied}");
    }
    let status = desk.done(&format!("streams status {keeper} --json")).json();
    let stream = &status["streams"][0];
    assert_eq!((&stream["stream"], &stream["messages"]), (&json!("RANSOMEYE_EVENTS"), &json!(0)));
    assert_eq!((&stream["max_bytes"], &stream["first_at"]), (&json!(2 << 20), &Value::Null));
    assert_eq!(stream["consumers"][0]["consumer"], "core_core-01_alerts");
    assert_eq!(stream["consumers"][0]["pending"], 0);
    let shown = desk.done(&format!("streams status {keeper}")).stdout;
    for part in ["RANSOMEYE_EVENTS", "2097152", "core_core-01_alerts", "redelivered"] {
        assert!(shown.contains(part), "{shown}");
    }

    desk.run(&format!("streams apply --max-bytes 1 {keeper}")).exits_with(2).says("max_bytes");
    desk.run(&format!("streams apply --max-bytes much {keeper}")).exits_with(2).says("512MiB");
    desk.run(&format!("streams apply --max-bytes 9GiB {keeper}")).exits_with(1).says("--max-store");
    let core = format!("--as core/core-01 --policy mine.toml --url {url}");
    for command in ["apply", "status"] {
        desk.run(&format!("streams {command} {core}")).exits_with(3).says("provisioner");
    }
}

#[test]
fn an_explanation_says_whether_messages_are_kept() {
    let desk = Desk::empty();
    write_policy(&desk, DURABLE);
    let question = "agent/agent-01 publish alert --policy mine.toml";
    let text = desk.done(&format!("acl explain {question}")).stdout;
    assert!(text.contains("\ndelivery: durable, for at most 12h\n"), "{text}");
    let explained = desk.done(&format!("acl explain {question} --json")).json();
    let matched = json!([{ "number": 1, "delivery": "Alert to events: durable, for at most 12h" }]);
    assert_eq!(explained["delivery"], json!({ "class": "durable", "max_lifetime_ms": 43_200_000, "matched": matched }));
    let live = desk.done("acl explain agent/agent-01 publish telemetry --policy mine.toml --json").json();
    assert_eq!(live["delivery"], json!({ "class": "live", "max_lifetime_ms": null, "matched": [] }));
    let rendered = desk.done("acl render core/core-01 --policy mine.toml").stdout;
    assert!(rendered.contains("$JS.API.CONSUMER.MSG.NEXT.RANSOMEYE_EVENTS.core_core-01_alerts"), "{rendered}");

    write_policy(&desk, &DURABLE.replace("\"core\"", "\"agent\""));
    desk.run("acl explain agent/agent-01 publish alert --policy mine.toml")
        .exits_with(2)
        .says("no rule lets agent/core-01");
}
