//! The `bus` program, as its users run it: real processes, a real nats-server, exit codes, signals and output.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "cli/desk.rs"]
mod desk;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use bus_tests::deployment::pinned_server;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use desk::{Desk, Finished, Process, dead_address, mode, process_state};

// Certificates.

#[test]
fn an_authority_is_never_overwritten() {
    let desk = Desk::with(&[]);
    let before = desk.read("pki/ca.key");
    desk.run("pki init --trust-domain ransomeye.test").exits_with(1).says("pki/ca.crt");
    desk.run("pki init --trust-domain other.test").exits_with(1).says("not overwritten");
    assert_eq!(desk.read("pki/ca.key"), before);
}

#[test]
fn a_certificate_is_replaced_only_by_force() {
    let desk = Desk::with(&["agent/agent-01"]);
    let before = desk.read("pki/agent/agent-01.key");
    desk.run("pki issue agent/agent-01").exits_with(1).says("--force");
    assert_eq!(desk.read("pki/agent/agent-01.key"), before);
    let listed = desk.done("pki list --json").json();
    assert_eq!(listed["issued"].as_array().unwrap().len(), 2, "a refused issue leaves no trace in the record");
    desk.done("pki issue agent/agent-01 --force");
    assert_ne!(desk.read("pki/agent/agent-01.key"), before);
}

#[test]
fn private_keys_are_for_their_owner_alone() {
    let desk = Desk::with(&["agent/agent-01"]);
    desk.done("pki issue agent/agent-01 --force");
    for key in ["pki/ca.key", "pki/broker/nats-1.key", "pki/agent/agent-01.key"] {
        assert_eq!(mode(&desk.path(key)), 0o600, "{key}");
    }
}

#[test]
fn what_is_issued_can_be_inspected_listed_and_revoked() {
    let desk = Desk::with(&[]);
    let issued = desk.done("pki issue agent/agent-01 --days 7 --algorithm ed25519 --json").json();
    let id = "spiffe://ransomeye.test/agent/agent-01";
    assert_eq!(issued["principal"], id);

    let inspected = desk.done("pki inspect pki/agent/agent-01.crt pki/ca.crt --json").json();
    let [leaf, ca] = inspected["certificates"].as_array().unwrap().as_slice() else { panic!("{inspected}") };
    assert_eq!(
        [&leaf["principal"], &leaf["serial"], &leaf["key"]],
        [&issued["principal"], &issued["serial"], &Value::from("Ed25519")]
    );
    assert_eq!([&leaf["is_ca"], &ca["is_ca"]], [&Value::from(false), &Value::from(true)]);
    assert!(desk.done("pki inspect pki/agent/agent-01.crt").stdout.contains(id));

    let crl = desk.read("pki/crl.pem");
    let revoked = desk.done("pki revoke agent/agent-01 --json").json();
    assert_eq!(revoked["revoked"][0]["serial"], issued["serial"]);
    assert_ne!(desk.read("pki/crl.pem"), crl);
    let listed = desk.done("pki list --json").json();
    let states: Vec<_> = listed["issued"].as_array().unwrap().iter().map(|entry| entry["state"].clone()).collect();
    assert_eq!(states, ["valid", "revoked"]);
    let serial = listed["issued"][0]["serial"].as_str().unwrap();
    desk.done(&format!("pki revoke --serial {serial}"));
    desk.run("pki revoke --serial 00").exits_with(1);
    desk.run("pki revoke agent/nobody").exits_with(1);
    desk.done("pki renew-crl --days 30");
}

#[test]
fn a_revoked_certificate_is_refused_where_the_list_is_given() {
    let desk = Desk::with(&["agent/agent-01"]);
    desk.done("pki revoke agent/agent-01");
    desk.run("pub heartbeat --as agent/agent-01 --crl pki/crl.pem").exits_with(4).says("revoked");
}

#[test]
fn no_output_holds_key_material() {
    let desk = Desk::empty();
    let mut said = String::new();
    for arguments in [
        "pki init --trust-domain ransomeye.test",
        "pki issue broker/nats-1 --host localhost",
        "pki issue agent/agent-01 --json",
        "pki issue agent/agent-01 --force",
        "pki list",
        "pki inspect pki/agent/agent-01.crt",
        "pki revoke agent/agent-01 --json",
        "server config --from-pki pki",
        "pub heartbeat --as agent/agent-01 --log-format json",
        "pub heartbeat --cert pki/agent/agent-01.key --key pki/agent/agent-01.key --ca pki/ca.crt",
        "pki inspect pki/agent/agent-01.key",
    ] {
        let mut command = desk.command(arguments);
        let run = Finished::of(command.env("RUST_LOG", "trace").output().unwrap(), arguments);
        said.push_str(&run.stdout);
        said.push_str(&run.stderr);
    }
    for key in ["pki/ca.key", "pki/broker/nats-1.key", "pki/agent/agent-01.key"] {
        for line in desk.read(key).lines().filter(|line| !line.starts_with("-----")) {
            assert!(!said.contains(line), "{key} is in {said}");
        }
    }
}

// The server.

#[test]
fn a_rendered_configuration_is_accepted_by_nats_server() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let printed = desk.done("server config --from-pki pki").stdout;
    desk.done("server config --from-pki pki --out nats.conf");
    assert_eq!(desk.read("nats.conf").trim_end(), printed.trim_end());
    let check = Command::new(pinned_server()).arg("-t").arg("-c").arg(desk.path("nats.conf")).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    for id in ["spiffe://ransomeye.test/core/core-01", "spiffe://ransomeye.test/agent/agent-01"] {
        assert!(printed.contains(id), "{id}");
    }
    assert!(!printed.contains("spiffe://ransomeye.test/broker/"), "a broker is no component");
}

#[test]
fn components_come_from_flags_and_from_a_file() {
    let desk = Desk::with(&[]);
    desk.write("fleet.txt", "# the fleet\ncore/core-01\n\nspiffe://ransomeye.test/agent/agent-01 # one\n");
    let tls = "--cert pki/broker/nats-1.crt --key pki/broker/nats-1.key --ca pki/ca.crt";
    let both =
        desk.done(&format!("server config {tls} --components fleet.txt --component agent/agent-02 --json")).json();
    assert_eq!(both["components"], 3);
    desk.run(&format!("server config {tls}")).exits_with(2).says("--from-pki");
    desk.run(&format!("server config {tls} --component agent")).exits_with(2);
    desk.write("fleet.txt", "core/core-01\nagent/A\n");
    desk.run(&format!("server config {tls} --components fleet.txt")).exits_with(2).says("line 2");
    desk.run("server config").exits_with(2).says("--from-pki");
}

#[test]
fn a_server_without_a_certificate_names_the_command_that_makes_one() {
    let desk = Desk::empty();
    desk.run("server run --from-pki pki").exits_with(4).says("bus pki init");
    desk.done("pki init --trust-domain ransomeye.test");
    desk.run("server run --from-pki pki").exits_with(4).says("bus pki issue broker/nats-1");
}

#[test]
fn a_reload_admits_who_was_issued_and_refuses_who_was_revoked() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (mut server, url) = desk.serve();
    desk.done(&format!("pub heartbeat --as agent/agent-01 --url {url}"));
    desk.done("pki issue agent/agent-02");
    desk.run(&format!("pub heartbeat --as agent/agent-02 --url {url}")).exits_with(3).says("refuses");
    desk.done("pki revoke agent/agent-01");
    server.signal(Signal::HUP);
    assert_eq!(server.event("reloaded")["components"], 1);
    desk.done(&format!("pub heartbeat --as agent/agent-02 --url {url}"));
    desk.run(&format!("pub heartbeat --as agent/agent-01 --url {url}")).exits_with(3).says("refuses");
}

#[test]
fn a_reload_reads_the_policy_again_and_a_wrong_one_changes_nothing() {
    let desk = Desk::with(&["agent/agent-01"]);
    let rule = |types: &str| {
        format!(
            "version = 1\n[[rule]]\neffect = 'allow'\nrole = 'agent'\naction = 'publish'\ntypes = {types}\nto = 'events'\n"
        )
    };
    desk.write("policy.toml", &rule("['Heartbeat']"));
    let mut server = desk.start("server run --from-pki pki --port 0 --json --policy policy.toml");
    let url = server.event("ready")["url"].as_str().unwrap().to_owned();
    // The agent's own policy is the built-in one, so that it is the broker that denies.
    let alert = format!("pub alert --type x --severity low --as agent/agent-01 --url {url}");
    desk.run(&alert).exits_with(3).says("the broker denies");
    desk.write("policy.toml", &rule("['Nonsense']"));
    server.signal(Signal::HUP);
    server.wait_for_log("stays in force");
    desk.done(&format!("pub heartbeat --as agent/agent-01 --url {url}"));
    desk.write("policy.toml", &rule("['Heartbeat', 'Alert']"));
    server.signal(Signal::HUP);
    server.event("reloaded");
    desk.done(&alert);
}

#[test]
fn the_server_takes_nats_server_with_it() {
    let desk = Desk::with(&["agent/agent-01"]);
    let mut server = desk.start("server run --from-pki pki --port 0 --json");
    let pid = server.event("ready")["pid"].as_u64().unwrap();
    assert!(process_state(pid).is_some());
    server.signal(Signal::TERM);
    server.ends_with(0);
    assert_eq!(process_state(pid), None);
}

#[test]
fn a_server_whose_nats_server_dies_says_so() {
    let desk = Desk::with(&["agent/agent-01"]);
    let mut server = desk.start("server run --from-pki pki --port 0 --json");
    let pid = server.event("ready")["pid"].as_u64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    server.ends_with(1);
    assert!(server.stderr().contains("ended by itself"), "{}", server.stderr());
}

// Exit codes and settings.

#[test]
fn wrong_usage_exits_with_2() {
    let desk = Desk::with(&["agent/agent-01"]);
    desk.run("").exits_with(2);
    desk.run("fly").exits_with(2);
    desk.run("pki issue agent").exits_with(2);
    desk.run("pki issue broker/nats-2").exits_with(2).says("--host");
    desk.run("agent --interval 0s").exits_with(2);
    desk.run("pub heartbeat --as agent/agent-01 --url nats://localhost:4222").exits_with(2).says("plaintext");
    desk.run("acl check agent/agent-01 publish nonsense").exits_with(2);
    desk.run("acl check agent/agent-01 publish alert nowhere").exits_with(2).says("ROLE/COMPONENT");
    desk.write("bus.toml", "urll = 'tls://localhost:1'\n");
    desk.run("pub heartbeat").exits_with(2).says("unknown field `urll`");
    desk.write("bus.toml", "trust_domain = 'Not A Domain'\n");
    desk.run("pub heartbeat").exits_with(2).says("bus.toml, trust domain");
    desk.run("pub heartbeat --config missing.toml").exits_with(2).says("missing.toml");
}

#[test]
fn a_wrong_policy_file_exits_with_2_and_its_line() {
    let desk = Desk::empty();
    desk.write("policy.toml", "version = 1\n[[rule]]\neffect = \"perhaps\"\n");
    desk.run("acl check agent/a publish alert --policy policy.toml").exits_with(2).says("policy.toml").says("line 3");
}

#[test]
fn what_the_policy_denies_exits_with_3() {
    let desk = Desk::with(&["agent/agent-01", "core/core-01"]);
    let (_server, url) = desk.serve();
    let denied = "does not allow";
    desk.run(&format!("command kill agent/agent-01 1 --as agent/agent-01 --url {url}")).exits_with(3).says(denied);
    desk.run(&format!("sub --as agent/agent-01 --url {url}")).exits_with(3).says(denied);
    desk.run("acl check agent/agent-01 publish command core/core-01").exits_with(3);
    desk.run(&format!("agent --as core/core-01 --url {url}")).exits_with(3).says(denied);
}

#[test]
fn what_only_the_broker_denies_exits_with_3() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    let everything = "[[rule]]\neffect = \"allow\"\nrole = \"*\"\naction = \"publish\"\ntypes = \"*\"\nto = \"inbox:*/*\"\n\
                      [[rule]]\neffect = \"allow\"\nrole = \"*\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"inbox\"\n";
    desk.write("mine.toml", &format!("version = 1\n{everything}"));
    desk.run(&format!("command kill agent/agent-01 1 --as agent/agent-01 --policy mine.toml --url {url}"))
        .exits_with(3)
        .says("the broker denies");
}

#[test]
fn wrong_credentials_exit_with_4() {
    let desk = Desk::with(&["agent/agent-01", "core/core-01"]);
    let (_server, url) = desk.serve();
    desk.run(&format!("pub heartbeat --url {url}")).exits_with(4).says("RANSOMEYE_TLS_CLIENT_CERT");
    desk.run(&format!("pub heartbeat --as agent/nobody --url {url}")).exits_with(4).says("pki/agent/nobody");
    let files = "--cert pki/agent/agent-01.crt --key pki/core/core-01.key --ca pki/ca.crt";
    desk.run(&format!("pub heartbeat {files} --url {url}")).exits_with(4).says("does not belong");
    fs::set_permissions(desk.path("pki/core/core-01.key"), fs::Permissions::from_mode(0o644)).unwrap();
    desk.run(&format!("sub --count 1 --as core/core-01 --url {url}")).exits_with(4);

    desk.done("pki init --dir other --trust-domain ransomeye.test");
    desk.done("pki issue agent/agent-01 --dir other");
    desk.run(&format!("pub heartbeat --as agent/agent-01 --pki other --url {url}")).exits_with(4).says("TLS handshake");
}

#[test]
fn who_does_not_answer_exits_with_5() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let dead = dead_address();
    desk.run(&format!("pub heartbeat --as agent/agent-01 --url {dead}")).exits_with(5).says(&dead);
    let (_server, url) = desk.serve();
    desk.run(&format!("command kill agent/agent-01 1 --as core/core-01 --url {url}"))
        .exits_with(5)
        .says("agent/agent-01");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let desk = Desk::with(&["agent/agent-01"]);
    let [in_file, in_environment, in_flag] = [dead_address(), dead_address(), dead_address()];
    desk.write("bus.toml", &format!("url = '{in_file}'\nas = 'agent/agent-01'\n"));
    desk.run("pub heartbeat").exits_with(5).says(&in_file);
    let run = |arguments: &str| {
        let mut command = desk.command(arguments);
        Finished::of(command.env("RANSOMEYE_BUS_URL", &in_environment).output().unwrap(), arguments)
    };
    run("pub heartbeat").exits_with(5).says(&in_environment);
    run(&format!("pub heartbeat --url {in_flag}")).exits_with(5).says(&in_flag);
}

#[test]
fn the_environment_alone_suffices() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut command = desk.command("pub heartbeat");
    command
        .env("RANSOMEYE_BUS_URL", url)
        .env("RANSOMEYE_TLS_CLIENT_CERT", desk.path("pki/agent/agent-01.crt"))
        .env("RANSOMEYE_TLS_CLIENT_KEY", desk.path("pki/agent/agent-01.key"))
        .env("RANSOMEYE_TRUST_ROOT_CA", desk.path("pki/ca.crt"));
    Finished::of(command.output().unwrap(), "pub heartbeat").exits_with(0);
}

#[test]
fn paths_in_the_file_are_relative_to_it() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    let text = format!(
        "url = '{url}'\ncert = 'pki/agent/agent-01.crt'\nkey = 'pki/agent/agent-01.key'\nca = 'pki/ca.crt'\n\
         [server]\nfrom_pki = 'pki'\n"
    );
    desk.write("bus.toml", &text);
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |arguments: &str| {
        let mut command = desk.command(arguments);
        command.current_dir(elsewhere.path()).env("BUS_CONFIG", desk.path("bus.toml"));
        Finished::of(command.output().unwrap(), arguments).exits_with(0)
    };
    run("pub heartbeat");
    run("server config");
}

// The policy.

#[test]
fn the_policy_answers_explains_and_renders() {
    let desk = Desk::empty();
    let allowed = desk.done("acl check agent/agent-01 publish TelemetryEvent --json").json();
    assert_eq!(allowed["subject"], "ransomeye.events.telemetry.agent.agent-01");
    let denied = desk.run("acl check agent/agent-01 publish CommandRequest agent/agent-02 --json").exits_with(3).json();
    assert_eq!(denied["allowed"], false);
    let explained = desk.done("acl explain core/core-01 publish command agent/agent-01").stdout;
    assert!(explained.contains("ALLOWED") && explained.contains("rule"), "{explained}");
    let rendered = desk.done("acl render agent/agent-01 --root acme.bus --json").json();
    let subscribe = serde_json::json!(["_INBOX.agent.agent-01.>", "acme.bus.inbox.agent.agent-01.>"]);
    assert_eq!(rendered["subscribe"]["allow"], subscribe);
    let foreign = "acl check spiffe://other.test/agent/a publish alert --trust-domain ransomeye.test";
    desk.run(foreign).exits_with(3);
}

// Agents, watchers, publishers and subscribers.

#[test]
fn every_message_of_every_agent_is_received_and_counted() {
    let agents = ["agent/agent-01", "agent/agent-02", "agent/agent-03"];
    let desk = Desk::with(&["core/core-01", agents[0], agents[1], agents[2]]);
    let (_server, url) = desk.serve();
    let mut watch = desk.start(&format!("watch --json --as core/core-01 --url {url}"));
    watch.event("ready");
    let mut running: Vec<_> = agents
        .iter()
        .map(|name| desk.start(&format!("agent --json --interval 1ms --count 400 --as {name} --url {url}")))
        .collect();
    let mut published = BTreeMap::new();
    for agent in &mut running {
        let tally = agent.event("final");
        assert_eq!(tally["telemetry"], 400);
        published.insert(tally["component"].as_str().unwrap().to_owned(), tally["published"].clone());
        agent.ends_with(0);
    }
    watch.signal(Signal::TERM);
    let tally = watch.event("final");
    watch.ends_with(0);
    assert_eq!(tally["received"], serde_json::json!(published));
    for agent in agents {
        assert_eq!(tally["types"][agent]["telemetry"], 400, "{tally}");
    }
    assert_eq!([&tally["missed"], &tally["rejected"]], [0, 0], "{tally}");
}

#[test]
fn what_an_agent_reports_is_this_hosts_load() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut sub = desk.start(&format!("sub telemetry --json --count 3 --as core/core-01 --url {url}"));
    sub.wait_for_log("subscribed");
    let mut agent = desk.start(&format!("agent --json --interval 20ms --as agent/agent-01 --url {url}"));
    for _ in 0..3 {
        let message: Value = serde_json::from_str(&sub.line().unwrap()).unwrap();
        assert_eq!(message["sender"], "spiffe://ransomeye.test/agent/agent-01");
        assert_eq!(message["subject"], "ransomeye.events.telemetry.agent.agent-01");
        let ram = message["payload"]["ram_usage"].as_f64().unwrap();
        assert!(ram > 0.0 && ram <= 100.0, "{message}");
        assert!((0.0..=100.0).contains(&message["payload"]["cpu_usage"].as_f64().unwrap()), "{message}");
    }
    sub.ends_with(0);
    agent.signal(Signal::TERM);
    agent.ends_with(0);
}

/// A server, and an agent with one child. The agent goes first, while it can still drain.
struct Commanded {
    agent: Process,
    server: Process,
    desk: Desk,
    url: String,
    child: u64,
}

impl Commanded {
    fn start() -> Self {
        let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
        let (server, url) = desk.serve();
        let mut command = desk.command(&format!("agent --json --as agent/agent-01 --url {url}"));
        command.args(["--spawn", "sleep 3600"]);
        let mut agent = Process::start(command, "agent");
        let child = agent.event("child")["pid"].as_u64().unwrap();
        agent.event("ready");
        Self { agent, server, desk, url, child }
    }

    fn order(&self, order: &str, pid: u64) -> Finished {
        self.desk.run(&format!("command {order} agent/agent-01 {pid} --json --as core/core-01 --url {}", self.url))
    }
}

#[test]
fn a_kill_ends_the_child_and_its_result_comes_back() {
    let mut fleet = Commanded::start();
    assert!(process_state(fleet.child).is_some());
    let result = fleet.order("kill", fleet.child).exits_with(0).json();
    assert_eq!(result["status"], "completed");
    assert_eq!(process_state(fleet.child), None, "the result says that it has ended, and it was reaped");
    assert_eq!(fleet.agent.event("command")["sender"], "core/core-01");
    fleet.agent.signal(Signal::TERM);
    assert_eq!(fleet.agent.event("final")["commands"], 1);
    fleet.agent.ends_with(0);
}

#[test]
fn an_isolate_stops_the_child_and_a_kill_still_ends_it() {
    let fleet = Commanded::start();
    assert_eq!(fleet.order("isolate", fleet.child).exits_with(0).json()["status"], "completed");
    assert_eq!(process_state(fleet.child), Some('T'));
    fleet.order("isolate", fleet.child).exits_with(0);
    fleet.order("kill", fleet.child).exits_with(0);
    assert_eq!(process_state(fleet.child), None);
}

#[test]
fn a_process_that_the_agent_did_not_start_is_left_alone() {
    let fleet = Commanded::start();
    let mut bystander = Command::new("sleep").arg("3600").spawn().unwrap();
    for order in ["kill", "isolate"] {
        let refused = fleet.order(order, u64::from(bystander.id())).exits_with(1).json();
        assert_eq!(refused["status"], "refused");
    }
    // The agent itself is no child of its own either.
    fleet.order("kill", u64::from(fleet.agent.child.id())).exits_with(1);
    let state = process_state(u64::from(bystander.id()));
    let alive = matches!(bystander.try_wait(), Ok(None));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(alive);
    assert_ne!(state, Some('T'));
    assert!(fleet.agent.stderr().contains("bus::security"), "{}", fleet.agent.stderr());
    assert!(process_state(fleet.child).is_some());
}

#[test]
fn children_end_with_their_agent() {
    let mut fleet = Commanded::start();
    fleet.order("isolate", fleet.child).exits_with(0);
    fleet.agent.signal(Signal::INT);
    fleet.agent.ends_with(0);
    assert_eq!(process_state(fleet.child), None);
}

#[test]
fn sigterm_drains_an_agent() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut watch = desk.start(&format!("watch --json --as core/core-01 --url {url}"));
    watch.event("ready");
    let mut agent = desk.start(&format!("agent --json --interval 1ms --as agent/agent-01 --url {url}"));
    while watch.event("snapshot")["total"].as_u64().unwrap() < 50 {}
    agent.signal(Signal::TERM);
    let published = agent.event("final")["published"].clone();
    agent.ends_with(0);
    watch.signal(Signal::INT);
    assert_eq!(watch.event("final")["received"]["agent/agent-01"], published);
    watch.ends_with(0);
}

#[test]
fn a_second_signal_ends_an_agent_that_cannot_drain_at_once() {
    let mut fleet = Commanded::start();
    // Without its server the agent waits for a reconnect while it drains.
    fleet.server.signal(Signal::TERM);
    fleet.server.ends_with(0);
    fleet.agent.wait_for_log("disconnected");
    fleet.agent.signal(Signal::TERM);
    fleet.agent.wait_for_log("stopping");
    let asked = Instant::now();
    fleet.agent.signal(Signal::TERM);
    fleet.agent.ends_with(1);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(matches!(process_state(fleet.child), None | Some('Z')), "the child is killed as well");
}

#[test]
fn an_agent_that_cannot_drain_ends_within_ten_seconds() {
    let mut fleet = Commanded::start();
    fleet.server.signal(Signal::TERM);
    fleet.server.ends_with(0);
    fleet.agent.wait_for_log("disconnected");
    let asked = Instant::now();
    fleet.agent.signal(Signal::TERM);
    fleet.agent.ends_with(1);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[test]
fn a_watch_ends_after_so_many_messages_and_after_so_long() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut timed = desk.start(&format!("watch --for 200ms --as core/core-01 --url {url}"));
    timed.ends_with(0);
    let mut watch = desk.start(&format!("watch --json --count 5 --as core/core-01 --url {url}"));
    watch.event("ready");
    let mut agent = desk.start(&format!("agent --interval 5ms --count 20 --as agent/agent-01 --url {url}"));
    assert_eq!(watch.event("final")["total"], 5);
    watch.ends_with(0);
    agent.ends_with(0);
}

#[test]
fn a_watch_prints_a_table_where_there_is_no_terminal() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut watch = desk.start(&format!("watch --count 1 --as core/core-01 --url {url}"));
    watch.wait_for_log("watching");
    desk.done(&format!("pub telemetry --cpu 12.5 --ram 40 --as agent/agent-01 --url {url}"));
    let mut table = String::new();
    while let Some(line) = watch.line() {
        table.push_str(&line);
        table.push('\n');
    }
    watch.ends_with(0);
    assert!(table.contains("agent/agent-01") && table.contains("12.5") && table.contains("1 messages"), "{table}");
    assert!(!table.contains('\u{1b}'), "no control sequences where there is no terminal: {table:?}");
}

#[test]
fn what_is_published_is_printed_by_a_subscriber() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut sub = desk.start(&format!("sub --count 3 --json --as core/core-01 --url {url}"));
    sub.wait_for_log("subscribed");
    let publish = |event: &str| desk.done(&format!("pub {event} --json --as agent/agent-01 --url {url}")).json();
    publish("telemetry --cpu 12.5 --ram 40");
    publish("alert --type disk --severity high --description full");
    let sent = publish("heartbeat --uptime 5");
    let received: Vec<Value> = (0..3).map(|_| serde_json::from_str(&sub.line().unwrap()).unwrap()).collect();
    sub.ends_with(0);
    assert_eq!(received[0]["payload"], serde_json::json!({ "cpu_usage": 12.5, "ram_usage": 40.0 }));
    let alert = serde_json::json!({ "threat_type": "disk", "severity": "high", "description": "full" });
    assert_eq!(received[1]["payload"], alert);
    assert_eq!([&received[2]["subject"], &received[2]["payload"]], [&sent["subject"], &sent["payload"]]);
}

#[test]
fn an_inbox_is_printed_for_its_owner() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let mut sub = desk.start(&format!("sub command --inbox --count 1 --as agent/agent-01 --url {url}"));
    sub.wait_for_log("subscribed");
    // A subscriber only reads along: nobody answers.
    desk.run(&format!("command isolate agent/agent-01 77 --timeout 300ms --as core/core-01 --url {url}")).exits_with(5);
    let line = sub.line().unwrap();
    assert!(line.contains("core/core-01") && line.contains("isolate 77"), "{line}");
    sub.ends_with(0);
}

#[test]
fn a_subscriber_whose_reader_goes_ends_quietly() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let (mut sub, stdout) = Process::start_unread(desk.command(&format!("sub --as core/core-01 --url {url}")), "sub");
    sub.wait_for_log("subscribed");
    let _agent = desk.start(&format!("agent --interval 10ms --as agent/agent-01 --url {url}"));
    let mut first = String::new();
    let mut reader = BufReader::new(stdout);
    reader.read_line(&mut first).unwrap();
    drop(reader);
    let status = sub.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", sub.stderr());
    assert!(first.contains("agent/agent-01"), "{first}");
    assert!(!sub.stderr().contains("error") && !sub.stderr().contains("panic"), "{}", sub.stderr());
}

#[test]
fn a_subscriber_drains_at_a_signal() {
    let desk = Desk::with(&["core/core-01"]);
    let (_server, url) = desk.serve();
    for signal in [Signal::INT, Signal::TERM] {
        let mut sub = desk.start(&format!("sub --as core/core-01 --url {url}"));
        sub.wait_for_log("subscribed");
        sub.signal(signal);
        sub.ends_with(0);
    }
}

#[test]
fn logs_are_json_where_that_is_asked_for() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    let run = desk.run(&format!("sub --log-format json --as agent/agent-01 --url {url}")).exits_with(3);
    let lines: Vec<Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["target"] == "bus::security"), "{run:#?}");
    assert_eq!(lines.last().unwrap()["exit_code"], 3);
    assert!(run.stdout.is_empty());
}

#[test]
fn the_version_is_told() {
    assert!(Desk::empty().done("--version").stdout.starts_with("bus "));
}
