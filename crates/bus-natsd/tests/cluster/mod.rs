//! Three nodes on this machine, and what befalls them.

use std::time::Duration;

use bus_natsd::{ClusterLaunch, ConfigError, ServerError, check_config};

use crate::common::{Client, Deployment, SOON, principal, server_program};

const SUBJECT: &str = "ransomeye.events.alert.agent.agent-01";

/// Sends until what is sent at one node is received at another: the interest takes a moment to get there.
fn reaches(sender: &mut Client, receiver: &mut Client) {
    receiver.send("SUB ransomeye.events.alert.*.* 1\r\n");
    receiver.ping().unwrap();
    for _ in 0..1_000 {
        sender.send(&format!("PUB {SUBJECT} 0\r\n\r\n"));
        sender.ping().unwrap();
        if receiver.hears("MSG ", Duration::from_millis(20)) {
            return;
        }
    }
    panic!("nothing arrived");
}

#[test]
fn what_is_published_at_one_node_is_received_at_another_through_kills_and_restarts() {
    let deployment = Deployment::new();
    let [core, agent] = [principal("core", "core-01"), principal("agent", "agent-01")];
    let mut cluster = deployment.start_cluster(&[&core, &agent]);
    let urls = cluster.urls();
    assert_eq!(urls.len(), 3);
    let mut receiver = deployment.connect(&cluster.nodes()[2], &core).unwrap();
    let mut sender = deployment.connect(&cluster.nodes()[0], &agent).unwrap();
    reaches(&mut sender, &mut receiver);
    cluster.kill(0).unwrap();
    sender.wait_for_close();
    cluster.restart(0).unwrap();
    let mut sender = deployment.connect(&cluster.nodes()[0], &agent).unwrap();
    reaches(&mut sender, &mut receiver);
    assert_eq!(cluster.urls(), urls);
}

#[test]
fn all_nodes_can_be_killed_and_started_again() {
    let deployment = Deployment::new();
    let mut cluster = deployment.start_cluster(&[&principal("agent", "agent-01")]);
    for node in 0..3 {
        cluster.kill(node).unwrap();
    }
    for node in 0..3 {
        cluster.restart(node).unwrap();
    }
    assert!(cluster.nodes().iter().all(|node| node.pid().is_some()));
    cluster.stop().unwrap();
    assert!(cluster.nodes().iter().all(|node| node.pid().is_none()));
}

#[test]
fn a_lame_duck_tells_its_clients_and_ends_by_itself() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut cluster = deployment.start_cluster(&[&agent]);
    let mut client = deployment.connect(&cluster.nodes()[1], &agent).unwrap();
    cluster.lame_duck(1).unwrap();
    assert!(deployment.connect(&cluster.nodes()[1], &agent).is_err(), "it takes no more clients");
    client.expect_part("\"ldm\":true").unwrap();
    assert!(cluster.node(1).unwrap().wait_for_end(SOON).unwrap());
    client.wait_for_close();
    assert!(matches!(cluster.lame_duck(1), Err(ServerError::NotRunning)));
    cluster.restart(1).unwrap();
    deployment.connect(&cluster.nodes()[1], &agent).unwrap();
}

#[test]
fn a_paused_node_answers_nothing_until_it_is_resumed() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut cluster = deployment.start_cluster(&[&agent]);
    let mut client = deployment.connect(&cluster.nodes()[2], &agent).unwrap();
    cluster.pause(2).unwrap();
    client.send("PING\r\n");
    assert!(!client.hears("PONG", Duration::from_millis(300)));
    cluster.resume(2).unwrap();
    client.expect("PONG").unwrap();
    cluster.pause(2).unwrap();
    cluster.kill(2).unwrap();
    client.wait_for_close();
}

#[test]
fn every_node_learns_of_a_change_now_or_when_it_starts() {
    let deployment = Deployment::new();
    let [stays, goes] = [principal("agent", "agent-01"), principal("agent", "agent-02")];
    let mut cluster = deployment.start_cluster(&[&stays, &goes]);
    let mut going = deployment.connect(&cluster.nodes()[0], &goes).unwrap();
    cluster.kill(2).unwrap();
    cluster.reconfigure(|config| config.components.retain(|component| *component == stays)).unwrap();
    going.wait_for_close();
    cluster.restart(2).unwrap();
    for node in cluster.nodes() {
        deployment.connect(node, &stays).unwrap();
        assert!(deployment.connect(node, &goes).is_err());
    }
}

#[test]
fn a_drain_makes_a_lame_duck_of_every_node() {
    let deployment = Deployment::new();
    let agent = principal("agent", "agent-01");
    let mut cluster = deployment.start_cluster(&[&agent]);
    let mut client = deployment.connect(&cluster.nodes()[0], &agent).unwrap();
    cluster.drain(SOON).unwrap();
    client.expect_part("\"ldm\":true").unwrap();
    for node in cluster.nodes() {
        assert!(node.wait_for_log(|line| line.contains("Entering lame duck mode"), Duration::ZERO).is_some());
        assert!(node.pid().is_none());
    }
}

#[test]
fn nodes_beyond_the_last_port_are_refused() {
    let deployment = Deployment::new();
    let mut config = deployment.template(&[]);
    config.port = 65_534;
    let nodes = ["n1", "n2", "n3"].map(|name| deployment.node(name));
    let refused = ClusterLaunch::new(server_program()).start(&config, &nodes).unwrap_err();
    assert!(matches!(refused, ServerError::NoPort { .. }), "{refused}");
}

#[test]
fn a_cluster_without_streams_or_of_one_node_is_refused() {
    let deployment = Deployment::new();
    let nodes = [deployment.node("n1"), deployment.node("n2")];
    let launch = || ClusterLaunch::new(server_program());
    let refused = launch().start(&deployment.config(&[]), &nodes).unwrap_err();
    assert!(matches!(refused, ServerError::Config(ConfigError::NoStreams)), "{refused}");
    let refused = launch().start(&deployment.template(&[]), &nodes[..1]).unwrap_err();
    assert!(matches!(refused, ServerError::Config(ConfigError::LoneNode)), "{refused}");
}

#[test]
fn the_configuration_of_a_node_is_accepted() {
    let deployment = Deployment::new();
    let cluster = deployment.start_cluster(&[]);
    for node in cluster.nodes() {
        let mut config = node.config().clone();
        config.jetstream_sync_always = true;
        check_config(&server_program(), &config).unwrap();
    }
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let deployment = Deployment::new();
    let mut cluster = deployment.start_cluster(&[]);
    let error = cluster.kill(3).unwrap_err();
    assert_eq!(error.to_string(), "the cluster has no node 3: they are numbered from 0 to 2");
}
