//! `bus server cluster`, and the configurations of nodes on hosts of their own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::desk::{Desk, Process, process_state};

fn start(desk: &Desk) -> (Process, Value) {
    let mut cluster = desk.start("server cluster --from-pki pki --json");
    let ready = cluster.event("ready");
    (cluster, ready)
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
}

fn pids(ready: &Value) -> Vec<u64> {
    ready["nodes"].as_array().unwrap().iter().map(|node| node["pid"].as_u64().unwrap()).collect()
}

#[test]
fn a_cluster_serves_at_every_node_and_is_drained_at_a_signal() {
    let desk = Desk::with(&["agent/agent-01", "core/core-01"]);
    let before = desk.done("server config --from-pki pki").stdout;
    let (mut cluster, ready) = start(&desk);
    let urls = texts(&ready["urls"]);
    assert_eq!(urls.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(ready["components"], 2);
    assert_eq!(ready["keys_stream"], "RANSOMEYE_KEYS");
    for url in &urls {
        desk.done(&format!("pub heartbeat --as agent/agent-01 --url {url}"));
    }
    let all = urls.join(",");
    let kept = desk.done(&format!("server provision --as control/provisioner --replicas 3 --json --url {all}")).stdout;
    assert_eq!(
        kept.matches(r#""outcome":"unchanged""#).count(),
        2,
        "the streams are kept on three nodes already: {kept}"
    );
    assert_eq!(desk.done("server config --from-pki pki").stdout, before, "a server by itself keeps its certificate");

    let begun = Instant::now();
    cluster.signal(Signal::TERM);
    cluster.ends_with(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert!(pids(&ready).into_iter().all(|pid| process_state(pid).is_none()));
    for node in ["local-1", "local-2", "local-3"] {
        assert!(cluster.stderr().contains(&format!("{node}: Entering lame duck mode")), "{}", cluster.stderr());
    }
}

#[test]
fn a_node_that_ends_is_told_and_a_reload_starts_it_again() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (mut cluster, ready) = start(&desk);
    let urls = texts(&ready["urls"]);
    let pid = i32::try_from(pids(&ready)[1]).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(cluster.event("ended")["node"], "local-2");
    desk.run(&format!("pub heartbeat --as agent/agent-01 --url {}", urls[1])).exits_with(5);
    desk.done(&format!("pub heartbeat --as agent/agent-01 --url {}", urls[2]));
    desk.done("pki issue agent/agent-02");
    cluster.signal(Signal::HUP);
    assert_eq!(cluster.event("reloaded")["components"], 2);
    for url in &urls {
        desk.done(&format!("pub heartbeat --as agent/agent-02 --url {url}"));
    }
    cluster.signal(Signal::INT);
    cluster.ends_with(0);
}

#[test]
fn a_cluster_without_nodes_says_so() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (mut cluster, ready) = start(&desk);
    for pid in pids(&ready) {
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    cluster.ends_with(1);
    assert!(cluster.stderr().contains("all nodes ended"), "{}", cluster.stderr());
}

#[test]
fn a_second_cluster_keeps_out_of_the_first_ones_streams() {
    let desk = Desk::with(&["agent/agent-01"]);
    let (_cluster, _) = start(&desk);
    desk.run("server cluster --from-pki pki").exits_with(1).says("another server uses");
}

#[test]
fn a_node_of_its_own_knows_the_others_by_their_certificates() {
    let desk = Desk::with(&["agent/agent-01"]);
    for node in ["n1", "n2", "n3"] {
        desk.done(&format!("pki issue broker/{node} --host localhost --host {node}.example"));
    }
    let inspected = desk.done("pki inspect pki/broker/n2.crt --json").json();
    let pin = inspected["certificates"][0]["key_sha256"].as_str().unwrap().to_owned();
    let peers = "--peer n1 --peer n2 --peer n3 --cluster-port 7000 --sync-always";
    let config = desk.done(&format!("server config --from-pki pki --node n1 {peers}")).stdout;
    for part in
        ["server_name: \"n1\"", "\"tls://n2.example:7000\"", "\"tls://n3.example:7000\"", &pin, "sync_interval: always"]
    {
        assert!(config.contains(part), "{part} is not in {config}");
    }
    assert!(!config.contains("n1.example"), "a node dials itself: {config}");
    desk.run("server config --from-pki pki --node n1 --peer n9").exits_with(4).says("n9.crt");
    desk.run("server config --from-pki pki --node n1").exits_with(2).says("--peer");
}

#[test]
fn a_cluster_needs_an_authority_and_several_nodes() {
    let desk = Desk::with(&[]);
    desk.run("server cluster").exits_with(2).says("--from-pki");
    desk.run("server cluster --from-pki pki --nodes 1").exits_with(2).says("1");
    desk.run("server cluster --from-pki pki --name x").exits_with(2).says("of their own");
    desk.run("server provision --replicas 6").exits_with(2).says("1 to 5");
}
