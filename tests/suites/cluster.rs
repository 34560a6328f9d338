//! Three nodes: who may be one, what survives the loss of one, and that nobody notices a rolling restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bus_client::{BusClient, BusEvent, CommandHandler, Provisioned, RequestError, Verified};
use bus_natsd::{ClusterConfig, NatsServer, Node, ServerConfig, TlsFiles};
use bus_proto::Endpoint;
use bus_proto::v1::{CommandRequest, CommandResult, CommandType, TelemetryEvent};
use bus_tests::cluster::ClusterDeployment;
use bus_tests::deployment::{PROVISIONER, pinned_server};
use tokio::task::block_in_place;
use tokio::time::timeout;

const CORE: &str = "core/core-01";
const AGENT: &str = "agent/agent-01";
/// Longer than an election and its aftermath take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const NOT_PINNED: &str = "certificate not pinned";
const JOINED: &str = "Route connection created";

/// A server that takes itself for a node: with these files, and with routes to the nodes of the cluster, which it would accept.
fn pretender(deployment: &ClusterDeployment, tls: TlsFiles, port: u16) -> NatsServer {
    let nodes = deployment.cluster.nodes().iter().map(|node| node.config().cluster.clone().unwrap());
    let known: Vec<ClusterConfig> = nodes.collect();
    let routes = known.iter().filter(|node| node.port != port).map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut cluster = ClusterConfig::new(tls, known[0].pins.clone(), routes);
    cluster.port = port;
    // What clients see of it is in order; only its routes are not.
    let mut config = ServerConfig::new(deployment.unknown_node("door").tls, Vec::new());
    config.server_name = "pretender".into();
    config.port = 0;
    config.cluster = Some(cluster);
    NatsServer::start(pinned_server(), config).unwrap()
}

/// Whether a node took in somebody, according to its log after this position; waits until that is decided.
fn took_in(node: &NatsServer, position: usize) -> bool {
    let decided = |line: &str| line.contains(NOT_PINNED) || line.contains(JOINED);
    node.wait_for_log_after(position, decided, PATIENCE).expect("a decision").contains(JOINED)
}

/// Somebody with these files tries to be a node. Says whether any node took it in.
fn tries_to_join(deployment: &ClusterDeployment, tls: TlsFiles) -> bool {
    let positions: Vec<usize> = deployment.cluster.nodes().iter().map(NatsServer::log_position).collect();
    let _pretender = pretender(deployment, tls, 0);
    let nodes = deployment.cluster.nodes().iter().zip(positions);
    let decisions: Vec<bool> = nodes.map(|(node, position)| took_in(node, position)).collect();
    decisions.contains(&true)
}

#[test]
fn a_components_certificate_makes_no_node() {
    let deployment = ClusterDeployment::start(&[AGENT]);
    let files = deployment.issue(AGENT);
    let tls = TlsFiles { cert: files.certificate, key: files.key, trust_root: deployment.authority.ca_path() };
    assert!(!tries_to_join(&deployment, tls));
}

#[test]
fn another_servers_certificate_of_the_same_ca_makes_no_node() {
    let deployment = ClusterDeployment::start(&[AGENT]);
    let Node { tls, .. } = deployment.unknown_node("n4");
    assert!(!tries_to_join(&deployment, tls));
}

#[test]
fn a_server_with_a_pinned_key_is_a_node() {
    let mut deployment = ClusterDeployment::start(&[AGENT]);
    let Node { tls, pin, .. } = deployment.unknown_node("n4");
    let pin_it = |config: &mut ServerConfig| config.cluster.as_mut().unwrap().pins.push(pin);
    deployment.cluster.reconfigure(pin_it).unwrap();
    assert!(tries_to_join(&deployment, tls), "the tests of those who are refused prove nothing");
}

#[test]
fn a_node_accepts_nobody_else_in_the_place_of_another() {
    let mut deployment = ClusterDeployment::start(&[AGENT]);
    let port = deployment.cluster.nodes()[2].config().cluster.as_ref().unwrap().port;
    deployment.cluster.kill(2).unwrap();
    let positions: Vec<usize> = deployment.cluster.nodes()[..2].iter().map(NatsServer::log_position).collect();
    let Node { tls, .. } = deployment.unknown_node("n4");
    // It listens where the others dial.
    let _impostor = pretender(&deployment, tls, port);
    for (node, position) in deployment.cluster.nodes()[..2].iter().zip(positions) {
        assert!(!took_in(node, position));
    }
}

#[test]
fn a_node_whose_pin_is_taken_off_is_one_no_longer() {
    let mut deployment = ClusterDeployment::start(&[AGENT]);
    let gone = *deployment.cluster.nodes()[2].config().cluster.as_ref().unwrap().pins.last().unwrap();
    for index in 0..2 {
        let node = deployment.cluster.node(index).unwrap();
        let mut config = node.config().clone();
        config.cluster.as_mut().unwrap().pins.retain(|pin| *pin != gone);
        let position = node.log_position();
        node.reload(config).unwrap();
        for what_happens in ["Router connection closed: TLS Handshake Failure - Remote: n3", NOT_PINNED] {
            let line = node.wait_for_log_after(position, |line| line.contains(what_happens), PATIENCE);
            assert!(line.is_some(), "no {what_happens:?} in {:?}", node.log_lines());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_kept_on_every_node_and_outlives_the_loss_of_any() {
    let mut deployment = ClusterDeployment::start_with(&[CORE, AGENT], |config| config.jetstream_sync_always = true);
    assert_eq!(deployment.provision().await, Provisioned::Created);
    assert_eq!(deployment.provision().await, Provisioned::Unchanged);
    let core = deployment.connect(CORE).await;
    let agent = deployment.connect(AGENT).await;
    agent.publish(load(1.0)).await.unwrap();
    let endpoint: Endpoint = AGENT.parse().unwrap();
    let has_keys = |core: BusClient, endpoint: Endpoint| async move {
        timeout(PATIENCE, async {
            while !core.published_keys(&endpoint).await.is_ok_and(|keys| !keys.keys.is_empty()) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the agent's keys");
    };
    has_keys(core.clone(), endpoint.clone()).await;
    for node in 0..3 {
        block_in_place(|| deployment.cluster.kill(node).unwrap());
        has_keys(core.clone(), endpoint.clone()).await;
        block_in_place(|| deployment.cluster.restart(node).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_one_node_is_spread_when_that_is_asked_for_and_stays_so() {
    let deployment = ClusterDeployment::start(&[]);
    let alone = deployment.connect(PROVISIONER).await;
    assert_eq!(alone.provision_key_streams().await.unwrap().bundles, Provisioned::Created);
    assert_eq!(deployment.provision().await, Provisioned::Updated);
    assert_eq!(alone.provision_key_streams().await.unwrap().bundles, Provisioned::Unchanged);
    let too_many = deployment.options(PROVISIONER).stream_replicas(NonZeroU8::new(5).unwrap());
    let too_many = BusClient::connect(too_many).await.unwrap();
    too_many.provision_key_streams().await.unwrap_err();
}

fn load(cpu_usage: f64) -> TelemetryEvent {
    TelemetryEvent { cpu_usage, ram_usage: 50.0 }
}

/// Carries out commands in this time each, and counts them.
#[derive(Clone, Default)]
struct Obeys {
    takes: Duration,
    carried_out: Arc<AtomicU32>,
}

impl CommandHandler for Obeys {
    async fn handle(&self, command: Verified<CommandRequest>) -> CommandResult {
        self.carried_out.fetch_add(1, Ordering::AcqRel);
        tokio::time::sleep(self.takes).await;
        CommandResult::completed(command.payload().target_pid.to_string())
    }
}

fn kill(target_pid: u32) -> CommandRequest {
    CommandRequest { command_type: CommandType::Kill.into(), target_pid }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_is_carried_out_once() {
    let deployment = ClusterDeployment::start(&[CORE, AGENT]);
    deployment.provision().await;
    let core = deployment.connect(CORE).await;
    let agent = deployment.connect(AGENT).await;
    let obeys = Obeys { takes: Duration::from_millis(1_500), ..Obeys::default() };
    let _served = agent.serve_commands(obeys.clone()).await.unwrap();
    let result = core.request::<CommandResult>(&AGENT.parse().unwrap(), kill(7)).await.unwrap();
    assert_eq!(result.payload().detail, "7");
    assert_eq!(obeys.carried_out.load(Ordering::Acquire), 1);
    assert!(agent.refusals().values().sum::<u64>() >= 1, "it was not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nobody_is_there_is_told_after_a_second() {
    let deployment = ClusterDeployment::start(&[CORE, AGENT]);
    deployment.provision().await;
    // Whoever was never there has no key to seal to. This one was, and is gone.
    let gone = deployment.connect(AGENT).await;
    drop(gone.subscribe_inbox::<CommandRequest>().await.unwrap());
    gone.drain().await.unwrap();
    let core = deployment.connect(CORE).await;
    let begun = Instant::now();
    let nobody = core.request::<CommandResult>(&AGENT.parse().unwrap(), kill(1)).await;
    assert!(matches!(nobody, Err(RequestError::NoResponders { .. })), "{nobody:?}");
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(4));
}

/// Asks until told to end, and says how many requests that were. None fails.
async fn keep_asking(core: &BusClient, over: &AtomicBool) -> u32 {
    let agent: Endpoint = AGENT.parse().unwrap();
    let mut answered = 0;
    while !over.load(Ordering::Acquire) {
        let asked = answered + 1;
        let result = core.request::<CommandResult>(&agent, kill(asked)).await;
        assert_eq!(
            result.unwrap_or_else(|error| panic!("request {asked}: {error}")).payload().detail,
            asked.to_string()
        );
        answered = asked;
    }
    answered
}

/// Publishes until told to end, and says how many messages that were. No call fails.
async fn keep_publishing(agent: &BusClient, over: &AtomicBool) -> u64 {
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    let mut published = 0;
    while !over.load(Ordering::Acquire) {
        pace.tick().await;
        agent.publish(load(1.0)).await.unwrap();
        published += 1;
    }
    agent.flush().await.unwrap();
    published
}

/// Each node in turn is told to go, goes by itself, and comes back.
fn roll(mut deployment: ClusterDeployment) -> ClusterDeployment {
    for node in 0..deployment.cluster.nodes().len() {
        deployment.cluster.lame_duck(node).unwrap();
        assert!(
            deployment.cluster.node(node).unwrap().wait_for_end(PATIENCE).unwrap(),
            "node {node} did not end by itself"
        );
        deployment.cluster.restart(node).unwrap();
    }
    deployment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_is_an_error_to_no_client() {
    let deployment = ClusterDeployment::start(&[CORE, AGENT]);
    deployment.provision().await;
    let core = deployment.connect(CORE).await;
    // Each message has an envelope of its own, so that what is missed is counted in messages.
    let agent = BusClient::connect(deployment.options(AGENT).max_batch(1)).await.unwrap();
    let mut events = [core.events(), agent.events()];
    let obeys = Obeys::default();
    let _served = agent.serve_commands(obeys.clone()).await.unwrap();
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let over = AtomicBool::new(false);

    let rolling = async {
        let deployment = tokio::task::spawn_blocking(move || roll(deployment)).await.unwrap();
        over.store(true, Ordering::Release);
        deployment
    };
    let working = async { tokio::join!(keep_publishing(&agent, &over), keep_asking(&core, &over), rolling) };
    let mut working = std::pin::pin!(timeout(2 * PATIENCE, working));
    let mut received = 0;
    let (published, answered, _deployment) = loop {
        tokio::select! {
            message = telemetry.next() => {
                message.expect("an open subscription").expect("a message that is in order");
                received += 1;
            }
            done = &mut working => break done.expect("an end"),
        }
    };
    // A last one, behind which nothing is missed unnoticed.
    agent.publish(TelemetryEvent { cpu_usage: 99.0, ram_usage: 50.0 }).await.unwrap();
    let mut last = false;
    while !last {
        let message = timeout(PATIENCE, telemetry.next()).await.expect("the last message").unwrap().unwrap();
        last = message.payload().cpu_usage > 98.0;
        received += 1;
    }
    assert_eq!(received + core.stats().missed, published + 1, "what does not arrive is counted");
    assert!(received * 100 > published * 95, "{received} of {published} arrived");
    assert_eq!(agent.stats().unsent + core.stats().unsent, 0);
    assert_eq!(obeys.carried_out.load(Ordering::Acquire), answered, "a command was carried out twice, or not at all");
    for (client, events) in [&core, &agent].into_iter().zip(&mut events) {
        assert!(client.stats().connects >= 2, "every node was away once");
        let told = std::iter::from_fn(|| events.try_recv().ok()).any(|event| event == BusEvent::LameDuck);
        assert!(told);
    }
}
