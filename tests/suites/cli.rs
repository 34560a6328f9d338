//! The `bus` program, as its users run it: real processes, a real nats-server, exit codes, signals and output.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "cli/cluster.rs"]
mod cluster;
#[path = "cli/desk.rs"]
mod desk;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/proofs.rs"]
mod proofs;
#[path = "cli/sealed.rs"]
mod sealed;
#[path = "cli/sealing_keys.rs"]
mod sealing_keys;
// Elsewhere nobody is told.
#[cfg(target_os = "linux")]
#[path = "cli/rotation.rs"]
mod rotation;
#[path = "cli/streams.rs"]
mod streams;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bus_tests::deployment::pinned_server;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

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
    desk.run("server config --from-pki pki --out nats.conf").exits_with(1).says("--force");
    desk.done("server config --from-pki pki --out nats.conf --force");
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
    let foreign = format!("server config {tls} --component spiffe://other.test/agent/agent-01");
    desk.run(&foreign).exits_with(2).says("other.test/agent/agent-01 is of another trust domain");
}

#[test]
fn a_configuration_that_nats_server_would_refuse_is_not_rendered() {
    let desk = Desk::with(&["agent/agent-01"]);
    for bytes in ["0", "67108865", "4294967295"] {
        desk.run(&format!("server config --from-pki pki --max-payload {bytes}")).exits_with(2).says("max-payload");
    }
    desk.done("server config --from-pki pki --max-payload 67108864");
    let agents = "--cert pki/agent/agent-01.crt --key pki/agent/agent-01.key --ca pki/ca.crt";
    desk.run(&format!("server config {agents} --component agent/agent-01")).exits_with(4);
}

#[test]
fn the_log_of_a_server_that_does_not_start_is_shown_once() {
    let desk = Desk::with(&["agent/agent-01"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let failed = desk.run(&format!("server run --from-pki pki --port {port}")).exits_with(1).says("did not start");
    assert_eq!(failed.stderr.matches("address already in use").count(), 1, "{failed:#?}");
}

#[test]
fn a_server_without_a_certificate_names_the_command_that_makes_one() {
    let desk = Desk::empty();
    desk.run("server run --from-pki pki").exits_with(4).says("bus pki init");
    desk.done("pki init --trust-domain ransomeye.test");
    desk.run("server run --from-pki pki").exits_with(4).says("bus pki issue broker/nats-1");
}

#[test]
fn a_server_provisions_its_key_streams_with_a_certificate_that_it_issues_itself() {
    let desk = Desk::with(&["agent/agent-01"]);
    let mut server = desk.start("server run --from-pki pki --port 0 --json");
    let ready = server.event("ready");
    assert_eq!(ready["keys_stream"], "RANSOMEYE_KEYS");
    assert_eq!(ready["sealing_stream"], "RANSOMEYE_SEALING");
    assert_eq!(ready["components"], 1, "the provisioner is no component");
    server.wait_for_log("RANSOMEYE_KEYS is there, created");
    server.wait_for_log("RANSOMEYE_SEALING is there, created");
    let url = ready["url"].as_str().unwrap();
    let again = desk.done(&format!("server provision --as control/provisioner --url {url} --json"));
    let records: Vec<Value> = again.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let unchanged = ["RANSOMEYE_KEYS", "RANSOMEYE_SEALING"];
    assert_eq!(records, unchanged.map(|stream| json!({ "stream": stream, "outcome": "unchanged" })));
    desk.run(&format!("server provision --as agent/agent-01 --url {url}")).exits_with(3).says("provisioner");
    server.signal(Signal::HUP);
    assert_eq!(server.event("reloaded")["components"], 1);
    desk.done(&format!("server provision --as control/provisioner --url {url}"));
    server.signal(Signal::TERM);
    server.ends_with(0);

    let issued = desk.read("pki/control/provisioner.crt");
    let ready = desk.start("server run --from-pki pki --port 0 --json").event("ready");
    assert_eq!(ready["keys_stream"], "RANSOMEYE_KEYS");
    assert_eq!(desk.read("pki/control/provisioner.crt"), issued, "a valid certificate is not replaced");
}

#[test]
fn a_server_that_cannot_have_key_streams_says_so_and_runs_without() {
    let desk = Desk::with(&["agent/agent-01"]);
    let tls = "--cert pki/broker/nats-1.crt --key pki/broker/nats-1.key --ca pki/ca.crt --component agent/agent-01";
    let mut storeless = desk.start(&format!("server run {tls} --port 0 --json"));
    assert_eq!(storeless.event("ready")["keys_stream"], Value::Null);
    storeless.wait_for_log("there are no key streams");
    let mut alone = desk.start(&format!("server run {tls} --port 0 --json --store streams"));
    assert_eq!(alone.event("ready")["keys_stream"], Value::Null);
    alone.wait_for_log("nobody provisions the key streams");

    desk.done("pki issue control/provisioner");
    desk.done("pki revoke control/provisioner");
    let mut revoked = desk.start("server run --from-pki pki --port 0 --json");
    assert_eq!(revoked.event("ready")["keys_stream"], Value::Null);
    revoked.wait_for_log("nobody provisions the key streams, as control/provisioner gets no certificate");
    desk.run(&format!("server run {tls} --provisioner control/provisioner")).exits_with(2).says("--store");
}

#[test]
fn two_servers_never_share_a_store() {
    let desk = Desk::with(&["agent/agent-01"]);
    let mut first = desk.start("server run --from-pki pki --port 0 --json");
    assert_eq!(first.event("ready")["keys_stream"], "RANSOMEYE_KEYS");
    let mut second = desk.start("server run --from-pki pki --port 0 --json");
    assert_eq!(second.event("ready")["keys_stream"], Value::Null);
    second.wait_for_log("another server uses the store");
    desk.run("server run --from-pki pki --port 0 --store pki/jetstream").exits_with(1).says("another server uses");
    let mut third = desk.start("server run --from-pki pki --port 0 --json --store elsewhere");
    assert_eq!(third.event("ready")["keys_stream"], "RANSOMEYE_KEYS");
}

#[test]
fn a_provisioner_with_credentials_of_its_own_needs_no_authority() {
    let desk = Desk::with(&["agent/agent-01", "ops/keeper"]);
    let mut server = desk.start(
        "server run --cert pki/broker/nats-1.crt --key pki/broker/nats-1.key --ca pki/ca.crt --component agent/agent-01 \
         --store streams --provisioner ops/keeper --provisioner-cert pki/ops/keeper.crt --provisioner-key \
         pki/ops/keeper.key --root acme.prod --port 0 --json",
    );
    let ready = server.event("ready");
    assert_eq!(
        (&ready["keys_stream"], &ready["sealing_stream"]),
        (&json!("ACME_PROD_KEYS"), &json!("ACME_PROD_SEALING"))
    );
    assert!(desk.path("streams").is_dir());
    assert!(!desk.path("pki/control").exists());
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

#[test]
fn a_server_that_a_signal_ends_takes_nats_server_with_it() {
    let desk = Desk::with(&["agent/agent-01"]);
    for signal in [Signal::USR1, Signal::USR2, Signal::QUIT] {
        let mut server = desk.start("server run --from-pki pki --port 0 --json");
        let pid = server.event("ready")["pid"].as_u64().unwrap();
        server.signal(signal);
        server.ends_with(0);
        assert_eq!(process_state(pid), None, "{signal:?}");
    }
}

// Logs.

/// What a program gets for stderr when nobody reads its logs: a full disk, a reader that has gone, and one that sleeps.
/// The second value keeps the last one's pipe open.
#[cfg(target_os = "linux")]
fn unreadable_stderrs() -> (Vec<Stdio>, std::io::PipeReader) {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let (asleep, mut stuck) = std::io::pipe().unwrap();
    // The capacity of a pipe.
    std::io::Write::write_all(&mut stuck, &[b'x'; 65_536]).unwrap();
    (vec![full.into(), gone.into(), stuck.into()], asleep)
}

#[test]
#[cfg(target_os = "linux")]
fn logs_that_nobody_reads_hold_up_no_server() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (stderrs, _asleep) = unreadable_stderrs();
    for stderr in stderrs {
        let arguments = "server run --from-pki pki --port 0 --json";
        let mut server = Process::start_with_stderr(desk.command(arguments), arguments, stderr);
        let url = server.event("ready")["url"].as_str().unwrap().to_owned();
        desk.done(&format!("pub heartbeat --as agent/agent-01 --url {url}"));
        server.signal(Signal::HUP);
        server.event("reloaded");
        server.signal(Signal::TERM);
        server.ends_with(0);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn logs_that_nobody_reads_hold_up_no_agent() {
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let (stderrs, _asleep) = unreadable_stderrs();
    for stderr in stderrs {
        let arguments = format!("agent --json --as agent/agent-01 --url {url}");
        let mut agent = Process::start_with_stderr(desk.command(&arguments), &arguments, stderr);
        agent.event("ready");
        // Refusing is logged.
        let refused = desk.run(&format!("command kill agent/agent-01 1 --json --as core/core-01 --url {url}"));
        assert_eq!(refused.exits_with(1).json()["status"], "refused");
        agent.signal(Signal::TERM);
        agent.event("final");
        agent.ends_with(0);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_error_that_nobody_reads_still_has_its_exit_code() {
    let desk = Desk::empty();
    let (stderrs, _asleep) = unreadable_stderrs();
    for stderr in stderrs {
        let arguments = "server run --from-pki pki";
        Process::start_with_stderr(desk.command(arguments), arguments, stderr).ends_with(4);
    }
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
    desk.run("sub --count 0").exits_with(2);
    desk.run("pub telemetry --cpu -1 --ram 40").exits_with(2).says("from 0 to 100");
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

/// Has a component subscribe to its inbox, so that others can seal to it, and go again.
fn was_there(desk: &Desk, name: &str, url: &str) {
    let mut sub = desk.start(&format!("sub command --inbox --as {name} --url {url}"));
    sub.wait_for_log("subscribed");
    sub.signal(Signal::TERM);
    sub.ends_with(0);
}

#[test]
fn what_only_the_broker_denies_exits_with_3() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    let everything = "[[rule]]\neffect = \"allow\"\nrole = \"*\"\naction = \"publish\"\ntypes = \"*\"\nto = \"inbox:*/*\"\n\
                      [[rule]]\neffect = \"allow\"\nrole = \"*\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"inbox\"\n";
    desk.write("mine.toml", &format!("version = 1\n{everything}"));
    was_there(&desk, "agent/agent-01", &url);
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
    let command = format!("command kill agent/agent-01 1 --as core/core-01 --url {url}");
    desk.run(&command).exits_with(5).says("no sealing key is known for agent/agent-01");
    was_there(&desk, "agent/agent-01", &url);
    desk.run(&command).exits_with(5).says("agent/agent-01");
}

#[test]
fn an_agent_waits_for_its_server_at_the_start() {
    let desk = Desk::with(&["agent/agent-01"]);
    let address = dead_address();
    let (_, port) = address.rsplit_once(':').unwrap();
    let arguments = format!("agent --json --as agent/agent-01 --wait 60s --url {address}");
    let mut agent = desk.start(&arguments);
    agent.wait_for_log("waiting for the server");
    let mut server = desk.start(&format!("server run --from-pki pki --port {port} --json"));
    server.event("ready");
    agent.event("ready");
    agent.signal(Signal::TERM);
    agent.ends_with(0);
    assert_eq!(agent.stderr().matches("waiting for the server").count(), 1, "{}", agent.stderr());
}

#[test]
fn waiting_for_a_server_ends_after_its_time_and_at_a_signal() {
    let desk = Desk::with(&["agent/agent-01", "core/core-01"]);
    let dead = dead_address();
    for command in ["agent --as agent/agent-01", "watch --as core/core-01", "sub --as core/core-01"] {
        let at_once = desk.run(&format!("{command} --wait 0 --url {dead}")).exits_with(5).says(&dead);
        assert!(!at_once.stderr.contains("waiting"), "{at_once:#?}");
        desk.run(&format!("{command} --wait 500ms --url {dead}")).exits_with(5).says("waiting for the server");
        let mut waiting = desk.start(&format!("{command} --wait 1h --url {dead}"));
        waiting.wait_for_log("waiting for the server");
        waiting.signal(Signal::TERM);
        waiting.ends_with(5);
    }
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
fn a_directory_in_the_file_and_a_component_in_a_flag_go_together() {
    let desk = Desk::with(&["agent/agent-01", "agent/agent-02"]);
    let (_server, url) = desk.serve();
    fs::rename(desk.path("pki"), desk.path("certificates")).unwrap();
    desk.write("bus.toml", &format!("url = '{url}'\nas = 'agent/agent-01'\npki = 'certificates'\n"));
    assert!(desk.done("pub heartbeat --json --as agent/agent-02").stdout.contains("agent-02"));
    fs::rename(desk.path("certificates"), desk.path("moved")).unwrap();
    assert!(desk.done("pub heartbeat --json --pki moved").stdout.contains("agent-01"));
}

#[test]
fn a_key_that_others_may_read_is_accepted_where_the_environment_says_so() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    fs::set_permissions(desk.path("pki/agent/agent-01.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let arguments = format!("pub heartbeat --as agent/agent-01 --url {url}");
    let run = |value: &str| {
        let mut command = desk.command(&arguments);
        Finished::of(command.env("RANSOMEYE_TLS_KEY_PERMISSIONS", value).output().unwrap(), &arguments)
    };
    desk.run(&arguments).exits_with(4).says("RANSOMEYE_TLS_KEY_PERMISSIONS=shared");
    run("shared").exits_with(0);
    run("owner-only").exits_with(4);
    run("everybody").exits_with(2).says("owner-only or shared");
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

#[test]
fn the_policy_tells_how_messages_travel_and_warns_of_who_cannot_open_them() {
    let desk = Desk::empty();
    let core = "[[rule]]\nrole = \"core\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"events\"\n";
    let form = "[[form]]\ntypes = [\"Alert\"]\nto = \"events\"\nseal = \"required\"\nrecipients = [\"core/core-01\"]\n";
    desk.write("mine.toml", &format!("version = 1\n{core}{form}"));
    let (named, other) =
        ("core/core-01 subscribe alert --policy mine.toml", "core/core-02 subscribe alert --policy mine.toml");
    let explained = desk.done(&format!("acl explain {named} --json")).json();
    let matched = "Alert to events: must be sealed for core/core-01";
    let form = serde_json::json!({
        "seal": "required",
        "recipients": ["core/core-01"],
        "compress": false,
        "matched": [{ "number": 1, "form": matched }],
    });
    assert_eq!((&explained["form"], &explained["warnings"]), (&form, &serde_json::json!([])));
    let text = desk.done(&format!("acl explain {other}")).stdout;
    let lines = ["form: must be sealed for core/core-01; not compressed", matched, "warning: spiffe://"];
    assert!(lines.iter().all(|line| text.contains(line)), "{text}");
    desk.run(&format!("acl check {other}")).exits_with(0).says("core/core-02 is none of the recipients");
    let denied = desk.done("acl explain agent/agent-01 subscribe alert --policy mine.toml --json").json();
    assert_eq!(denied["form"], Value::Null);
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
fn children_end_with_an_agent_that_a_signal_ends() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    for signal in [Signal::HUP, Signal::QUIT, Signal::USR2, Signal::ALARM, Signal::TERM] {
        let mut command = desk.command(&format!("agent --json --as agent/agent-01 --url {url}"));
        command.args(["--spawn", "sleep 3600"]);
        let mut agent = Process::start(command, "agent");
        let child = agent.event("child")["pid"].as_u64().unwrap();
        agent.event("ready");
        agent.signal(signal);
        agent.ends_with(0);
        assert_eq!(process_state(child), None, "{signal:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn under_nohup_an_agent_outlives_its_terminal() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_server, url) = desk.serve();
    let bus = desk.command(&format!("agent --json --count 2 --interval 300ms --as agent/agent-01 --url {url}"));
    let mut command = Command::new("nohup");
    command.arg(bus.get_program()).args(bus.get_args()).current_dir(desk.path("")).stdin(Stdio::null());
    let mut agent = Process::start(command, "agent");
    agent.event("ready");
    agent.signal(Signal::HUP);
    assert_eq!(agent.event("final")["telemetry"], 2);
    agent.ends_with(0);
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
    assert!(
        table.contains("agent/agent-01") && table.contains("12.5") && table.contains("1 component, 1 message,"),
        "{table}"
    );
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
fn what_a_peer_says_cannot_steer_the_terminal() {
    let unseen = "\u{202e}\u{2066}\u{200b}\u{2028}\u{9b}\u{85}\u{7f}";
    let desk = Desk::with(&["core/core-01", "agent/agent-01"]);
    let (_server, url) = desk.serve();
    let sub = |form: &str| {
        let sub = desk.start(&format!("sub alert --count 1 {form} --as core/core-01 --url {url}"));
        sub.wait_for_log("subscribed");
        sub
    };
    let (mut text, mut json) = (sub(""), sub("--json"));
    let mut alert = desk.command(&format!("pub alert --type x --severity low --as agent/agent-01 --url {url}"));
    Finished::of(alert.args(["--description", unseen]).output().unwrap(), "pub alert").exits_with(0);
    let (shown, written) = (text.line().unwrap(), json.line().unwrap());
    assert!(shown.is_ascii() && shown.contains("\\u{202e}"), "{shown:?}");
    assert!(written.is_ascii() && written.contains("\\u009b"), "{written:?}");
    let message: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(message["payload"]["description"], unseen);
    text.ends_with(0);
    json.ends_with(0);
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
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
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
fn a_wrong_filter_for_the_logs_is_said_to_be_ignored() {
    let desk = Desk::empty();
    let arguments = "acl check agent/agent-01 publish telemetry";
    let mut command = desk.command(arguments);
    let run = Finished::of(command.env("RUST_LOG", "info,=!!bad=").output().unwrap(), arguments);
    run.exits_with(0).says("RUST_LOG is ignored");
}

#[test]
fn the_version_is_told() {
    assert!(Desk::empty().done("--version").stdout.starts_with("bus "));
}

// Certificates again: what a revoked key can still do, and what a refusal leaves behind.

#[test]
fn a_revoked_name_is_not_issued_again_unasked() {
    let desk = Desk::with(&["agent/agent-01"]);
    let stolen = "--cert stolen.crt --key stolen.key --ca pki/ca.crt";
    for kind in ["crt", "key"] {
        fs::copy(desk.path(&format!("pki/agent/agent-01.{kind}")), desk.path(&format!("stolen.{kind}"))).unwrap();
    }
    let (mut server, url) = desk.serve();
    desk.done("pki revoke agent/agent-01");
    let listed = desk.done("pki list --json").stdout;
    desk.run("pki issue agent/agent-01 --force").exits_with(1).says("choose another name");
    assert_eq!(desk.done("pki list --json").stdout, listed, "a refused issue leaves no trace in the record");
    server.signal(Signal::HUP);
    assert_eq!(server.event("reloaded")["components"], 0);
    desk.run(&format!("pub heartbeat {stolen} --url {url}")).exits_with(3).says("refuses");
    // What the warning says is true.
    desk.done("pki issue agent/agent-01 --force --despite-revoked").says("admits the revoked key of agent/agent-01");
    server.signal(Signal::HUP);
    assert_eq!(server.event("reloaded")["components"], 1);
    desk.done(&format!("pub heartbeat {stolen} --url {url}"));
}

#[test]
fn a_revocation_says_whether_the_broker_still_admits_the_key() {
    let desk = Desk::with(&["agent/agent-01"]);
    let first = desk.done("pki list --json").json()["issued"][1].clone();
    desk.run("pki issue agent/agent-01").exits_with(1).says("the broker admits the former key as well");
    desk.done("pki issue agent/agent-01 --force");
    let by_serial = format!("pki revoke --serial {}", first["serial"].as_str().unwrap());
    assert_eq!(desk.done(&format!("{by_serial} --json")).json()["revoked_key_admitted_until"], first["not_after"]);
    let said = desk.done(&by_serial).stdout;
    assert!(said.contains("still admits the revoked key") && said.contains("bus pki revoke agent/agent-01"), "{said}");
    let said = desk.done("pki revoke agent/agent-01").stdout;
    assert!(said.contains("disconnects what it no longer lists") && said.contains("issue to a new name"), "{said}");
    assert_eq!(desk.done("pki revoke agent/agent-01 --json").json()["revoked_key_admitted_until"], Value::Null);
    let said = desk.done("pki revoke broker/nats-1").stdout;
    assert!(said.contains("--crl") && !said.contains("disconnects"), "{said}");
    desk.done("pki issue broker/nats-1 --host localhost --force");
}

#[test]
fn a_certificate_that_cannot_be_written_is_not_recorded() {
    let desk = Desk::with(&["agent/agent-01"]);
    let listed = desk.done("pki list --json").stdout;
    std::os::unix::fs::symlink("nowhere", desk.path("pki/agent/agent-02.key")).unwrap();
    desk.run("pki issue agent/agent-02").exits_with(1).says("pki/agent/agent-02.key");
    desk.run("pki issue agent/agent-02 --force").exits_with(4).says("pki/agent/agent-02.key");
    assert_eq!(desk.done("pki list --json").stdout, listed);
}

#[test]
fn the_authority_is_its_owners_alone_whatever_the_umask() {
    let desk = Desk::empty();
    for arguments in ["pki init --trust-domain ransomeye.test", "pki issue agent/agent-01"] {
        let bus = desk.command(arguments);
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(bus.get_program()).args(bus.get_args());
        let status = shell.current_dir(desk.path("")).output().unwrap().status;
        assert!(status.success(), "{arguments}");
    }
    for directory in ["pki", "pki/agent"] {
        assert_eq!(mode(&desk.path(directory)), 0o700, "{directory}");
    }
    for file in ["pki/ca.key", "pki/record.tsv", "pki/agent/agent-01.key", "pki/agent/.bus-pki.lock"] {
        assert_eq!(mode(&desk.path(file)), 0o600, "{file}");
    }
    for file in ["pki/ca.crt", "pki/crl.pem", "pki/agent/agent-01.crt"] {
        assert_eq!(mode(&desk.path(file)), 0o644, "{file}");
    }
}
