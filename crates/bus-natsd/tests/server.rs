//! Rendered configurations and the life of a server, with a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod cluster;
mod common;

use std::time::Duration;

use bus_acl::{Policy, Right, Rule, Types, Who};
use bus_natsd::{Launch, NatsServer, ServerError, check_config};
use bus_proto::MessageType;
use common::{Deployment, SOON, principal, recorder, server_program};

#[test]
fn a_rendered_configuration_is_accepted() {
    let deployment = Deployment::new();
    let mut config = deployment.config(&[&principal("core", "core-01"), &principal("agent", "agent-01")]);
    check_config(&server_program(), &config).unwrap();
    config.jetstream_dir = Some(deployment.path().join("streams"));
    config.monitoring_port = Some(0);
    check_config(&server_program(), &config).unwrap();
    config.components.clear();
    check_config(&server_program(), &config).unwrap();
}

#[test]
fn a_path_with_spaces_quotes_and_comment_signs_is_accepted() {
    let deployment = Deployment::new();
    let mut config = deployment.config(&[&principal("core", "core-01")]);
    let directory = deployment.path().join("a \"b\" 'c' #d //e $f {g}");
    std::fs::create_dir_all(&directory).unwrap();
    let key = directory.join("server.key");
    std::fs::rename(&config.tls.key, &key).unwrap();
    config.tls.key = key;
    check_config(&server_program(), &config).unwrap();
}

#[test]
fn a_configuration_that_the_server_refuses_comes_back_with_its_reason() {
    let deployment = Deployment::new();
    let mut config = deployment.config(&[]);
    config.tls.cert = deployment.path().join("missing.crt");
    let refused = check_config(&server_program(), &config).unwrap_err();
    assert!(matches!(&refused, ServerError::Refused { reason } if reason.contains("missing.crt")), "{refused}");
    let ended = NatsServer::start(server_program(), config).unwrap_err();
    assert!(matches!(&ended, ServerError::Ended { log } if log.contains("missing.crt")), "{ended}");
}

#[test]
fn a_listed_component_is_admitted_on_a_free_port() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let server = deployment.start(&[&agent]);
    assert_ne!(server.port(), 0);
    assert_eq!(server.url(), format!("tls://127.0.0.1:{}", server.port()));
    deployment.connect(&server, &agent).unwrap();
}

#[test]
fn a_component_that_is_not_listed_is_refused() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let server = deployment.start(&[&agent]);
    let refusal = deployment.connect(&server, &principal("agent", "agent-02")).err().unwrap();
    assert!(refusal.contains("Authorization Violation"), "{refusal}");
    deployment.connect(&server, &agent).unwrap();
}

#[test]
fn without_components_nobody_is_admitted() {
    let deployment = Deployment::new();
    let server = deployment.start(&[]);
    let refusal = deployment.connect(&server, &principal("core", "core-01")).err().unwrap();
    assert!(refusal.contains("Authorization Violation"), "{refusal}");
}

#[test]
fn a_component_is_held_to_its_permissions() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let server = deployment.start(&[&agent]);
    let mut client = deployment.connect(&server, &agent).unwrap();
    client.send("PUB ransomeye.events.heartbeat.agent.agent-01 2\r\nhi\r\n");
    client.ping().unwrap();
    client.send("SUB ransomeye.inbox.agent.agent-01.> 1\r\n");
    client.ping().unwrap();
    client.send("PUB ransomeye.events.heartbeat.agent.agent-02 2\r\nhi\r\n");
    let refusal = client.ping().unwrap_err();
    assert!(refusal.contains("Permissions Violation for Publish"), "{refusal}");
    client.expect("PONG").unwrap();
    client.send("SUB > 2\r\n");
    let refusal = client.ping().unwrap_err();
    assert!(refusal.contains("Permissions Violation for Subscription"), "{refusal}");
}

#[test]
fn a_denial_of_the_policy_wins_over_what_it_allows() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let types = || Types::only([MessageType::Alert, MessageType::Heartbeat]);
    let all_agents = || Who::role(agent.role());
    let mut config = deployment.config(&[&agent]);
    config.policy = Policy::new([
        Rule::allow(all_agents(), Right::PublishEvents, types()),
        Rule::deny(
            all_agents().component(agent.component().clone()),
            Right::PublishEvents,
            Types::only([MessageType::Alert]),
        ),
    ]);
    let server = NatsServer::start(server_program(), config).unwrap();
    let mut client = deployment.connect(&server, &agent).unwrap();
    client.send("PUB ransomeye.events.heartbeat.agent.agent-01 2\r\nhi\r\n");
    client.ping().unwrap();
    client.send("PUB ransomeye.events.alert.agent.agent-01 2\r\nhi\r\n");
    let refusal = client.ping().unwrap_err();
    assert!(refusal.contains("Permissions Violation for Publish"), "{refusal}");
}

#[test]
fn the_limits_of_the_configuration_are_enforced() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut config = deployment.config(&[&agent]);
    config.max_payload = 1000;
    config.max_subscriptions = 2;
    config.max_connections = 2;
    let server = NatsServer::start(server_program(), config).unwrap();
    let [mut first, mut second] = [(), ()].map(|()| deployment.connect(&server, &agent).unwrap());
    assert!(deployment.connect(&server, &agent).is_err());
    assert!(server.wait_for_log(|line| line.contains("maximum connections exceeded"), SOON).is_some());
    // Each connection has its own two subscriptions.
    for client in [&mut first, &mut second] {
        client.send("SUB _INBOX.agent.agent-01.a 1\r\nSUB _INBOX.agent.agent-01.b 2\r\n");
        client.ping().unwrap();
    }
    second.send("SUB _INBOX.agent.agent-01.c 3\r\n");
    let refusal = second.ping().unwrap_err();
    assert!(refusal.contains("maximum subscriptions exceeded"), "{refusal}");
    // The size alone is judged, before any of the bytes.
    first.send("PUB ransomeye.events.alert.agent.agent-01 1001\r\n");
    let refusal = first.expect("PONG").unwrap_err();
    assert!(refusal.contains("Maximum Payload Violation"), "{refusal}");
}

#[test]
fn a_reload_disconnects_the_component_that_it_removes_and_nobody_else() {
    let deployment = Deployment::new();
    let [stays, goes] = [principal("agent", "agent-01"), principal("agent", "agent-02")];
    let mut server = deployment.start(&[&stays, &goes]);
    let mut staying = deployment.connect(&server, &stays).unwrap();
    let mut going = deployment.connect(&server, &goes).unwrap();
    let port = server.port();
    server.reload(deployment.config(&[&stays])).unwrap();
    going.wait_for_close();
    staying.ping().unwrap();
    assert!(deployment.connect(&server, &goes).is_err());
    assert_eq!(server.port(), port);
}

#[test]
fn a_reload_without_components_lets_nobody_stay() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut server = deployment.start(&[&agent]);
    let mut client = deployment.connect(&server, &agent).unwrap();
    server.reload(deployment.config(&[])).unwrap();
    client.wait_for_close();
    assert!(deployment.connect(&server, &agent).is_err());
}

#[test]
fn the_monitoring_page_and_jetstream_start_when_asked_for_and_only_then() {
    let deployment = Deployment::new();
    let mut config = deployment.config(&[]);
    let monitor = |line: &str| line.contains("http monitor on");
    let jetstream = |line: &str| line.contains("Starting JetStream");
    let plain = NatsServer::start(server_program(), config.clone()).unwrap();
    assert!(plain.wait_for_log(|line| monitor(line) || jetstream(line), Duration::ZERO).is_none());
    config.monitoring_port = Some(0);
    config.jetstream_dir = Some(deployment.path().join("streams"));
    let full = NatsServer::start(server_program(), config).unwrap();
    let line = full.wait_for_log(monitor, Duration::ZERO).unwrap();
    assert!(line.contains("127.0.0.1:"), "{line}");
    assert!(full.wait_for_log(jetstream, Duration::ZERO).is_some());
    assert!(deployment.path().join("streams").is_dir());
}

#[test]
fn a_refused_reload_leaves_the_previous_configuration_in_force() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut server = deployment.start(&[&agent]);
    let mut client = deployment.connect(&server, &agent).unwrap();
    let mut bad = deployment.config(&[]);
    bad.tls.key = deployment.path().join("missing.key");
    let refused = server.reload(bad).unwrap_err();
    assert!(matches!(&refused, ServerError::Refused { reason } if reason.contains("missing.key")), "{refused}");
    let twice = deployment.config(&[&agent, &agent]);
    assert!(matches!(server.reload(twice), Err(ServerError::Config(_))));
    client.ping().unwrap();
    server.restart().unwrap();
    deployment.connect(&server, &agent).unwrap();
}

#[test]
fn a_restart_keeps_the_port() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut server = deployment.start(&[&agent]);
    let (port, pid) = (server.port(), server.pid());
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    deployment.connect(&server, &agent).unwrap();
}

#[test]
fn a_killed_server_can_be_started_again() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut server = deployment.start(&[&agent]);
    let mut client = deployment.connect(&server, &agent).unwrap();
    let port = server.port();
    server.kill().unwrap();
    assert!(!server.is_running());
    assert!(matches!(server.reload(deployment.config(&[])), Err(ServerError::NotRunning)));
    client.wait_for_close();
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    deployment.connect(&server, &agent).unwrap();
}

#[test]
fn a_clean_stop_is_in_the_log() {
    let deployment = Deployment::new();
    let mut server = deployment.start(&[]);
    let position = server.log_position();
    server.stop().unwrap();
    assert!(!server.is_running());
    let farewell = |line: &str| line.contains("Server Exiting");
    assert!(server.wait_for_log_after(position, farewell, SOON).is_some(), "{:#?}", server.log_lines());
    server.stop().unwrap();
}

#[test]
fn a_log_line_is_waited_for() {
    let deployment = Deployment::new();
    let (sink, seen) = recorder();
    let server = Launch::new(server_program()).on_log(sink).start(deployment.config(&[])).unwrap();
    assert!(server.wait_for_log(|line| line.contains("Server is ready"), Duration::ZERO).is_some());
    let position = server.log_position();
    let denied = |line: &str| line.contains("authentication error");
    assert!(server.wait_for_log(denied, Duration::ZERO).is_none());
    deployment.connect(&server, &principal("agent", "agent-01")).err().unwrap();
    let line = server.wait_for_log_after(position, denied, SOON).unwrap();
    assert!(seen.lock().unwrap().contains(&line));
    assert!(server.log_lines().contains(&line));
}

#[test]
fn two_servers_run_at_once() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let [first, second] = [deployment.start(&[&agent]), deployment.start(&[&agent])];
    assert_ne!(first.port(), second.port());
    for server in [&first, &second] {
        deployment.connect(server, &agent).unwrap();
    }
}

#[test]
fn a_given_directory_gets_the_configuration_and_keeps_it() {
    let deployment = Deployment::new();
    let config = deployment.config(&[]);
    let server = Launch::new(server_program()).directory(deployment.path()).start(config).unwrap();
    drop(server);
    let text = std::fs::read_to_string(deployment.path().join("nats-server.conf")).unwrap();
    assert!(text.contains("verify_and_map: true"));
}

#[test]
fn a_dropped_server_is_gone() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let server = deployment.start(&[&agent]);
    let mut client = deployment.connect(&server, &agent).unwrap();
    drop(server);
    client.wait_for_close();
}

#[test]
fn a_program_that_cannot_be_run_is_named() {
    let deployment = Deployment::new();
    let error = NatsServer::start(deployment.path().join("no-server"), deployment.config(&[])).unwrap_err();
    assert!(matches!(&error, ServerError::Io { what, .. } if what.contains("no-server")), "{error}");
}
