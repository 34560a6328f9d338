//! What `bus` shows of sealed messages to those whom they are for, and to others.

use serde_json::json;

use crate::desk::Desk;

const SEALED: &str = r#"
[[form]]
types = ["Alert"]
to = "events"
seal = "required"
recipients = ["core/core-01"]
"#;

#[test]
fn who_is_no_recipient_sees_who_sent_what_and_when_and_that_it_is_sealed() {
    let desk = Desk::with(&["core/core-01", "core/core-02", "agent/agent-01"]);
    let default = include_str!("../../../crates/bus-acl/policies/default.toml");
    desk.write("mine.toml", &format!("{default}\n{SEALED}"));
    let mut server = desk.start("server run --from-pki pki --policy mine.toml --port 0 --json");
    let ready = server.event("ready");
    let bus = format!("--policy mine.toml --url {}", ready["url"].as_str().unwrap());
    let alert = format!("pub alert --type x.y --severity high --description MARKER --as agent/agent-01 {bus}");
    desk.run(&alert).exits_with(5).says("no sealing key is known for core/core-01");

    let mut reader = desk.start(&format!("sub alert --count 1 --json --as core/core-01 {bus}"));
    reader.wait_for_log("subscribed");
    let mut stranger = desk.start(&format!("sub all --count 1 --as core/core-02 {bus}"));
    stranger.wait_for_log("subscribed");
    let mut watch = desk.start(&format!("watch --count 1 --json --as core/core-02 {bus}"));
    watch.event("ready");
    desk.done(&alert);

    let read: serde_json::Value = serde_json::from_str(&reader.line().unwrap()).unwrap();
    assert_eq!((&read["sealed"], &read["payload"]["description"]), (&json!(true), &json!("MARKER")));
    let seen = stranger.line().unwrap();
    assert!(seen.contains("agent/agent-01") && seen.contains("Alert") && !seen.contains("MARKER"), "{seen}");
    assert!(seen.contains("sealed to spiffe://ransomeye.test/core/core-01"), "{seen}");
    let tally = watch.event("final");
    assert_eq!((&tally["sealed"]["agent/agent-01"], &tally["rejected"]), (&json!(1), &json!(0)), "{tally}");
    assert!(!tally.to_string().contains("MARKER"), "{tally}");
}
