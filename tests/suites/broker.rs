//! The malicious broker: what it tries is refused, and while it attacks nothing, nobody notices that it is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "broker/attacks.rs"]
mod attacks;

use std::time::Duration;

use bus_client::{BusClient, BusOptions, CommandHandler, Status, Verified};
use bus_proto::v1::{CommandRequest, CommandResult, CommandType, Reference, TelemetryEvent};
use bus_proto::{Endpoint, IntoOutgoing as _, MessageType};
use bus_tests::attacks::broker::{self, Broker, Direction};
use bus_tests::deployment::Deployment;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

async fn connect(deployment: &Deployment, broker: &Broker, name: &str) -> BusClient {
    BusClient::connect(BusOptions::new(broker.url(), deployment.identity(name))).await.unwrap()
}

fn load(cpu_usage: f64) -> TelemetryEvent {
    TelemetryEvent { cpu_usage, ram_usage: 50.0 }
}

struct Obedient;

impl CommandHandler for Obedient {
    async fn handle(&self, command: Verified<CommandRequest>) -> CommandResult {
        CommandResult::completed(format!("{}", command.payload().target_pid))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_answers_pass_as_they_are() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let broker = Broker::before(&deployment).await.unwrap();
    let core = connect(&deployment, &broker, "core/core-01").await;
    let agent = connect(&deployment, &broker, "agent/agent-01").await;
    assert_eq!(broker.accepted(), 2);
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    agent.publish(load(12.5)).await.unwrap();
    let received = timeout(PATIENCE, telemetry.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(received.payload(), &load(12.5));

    let server = agent.serve_commands(Obedient).await.unwrap();
    let command = CommandRequest { command_type: CommandType::Kill.into(), target_pid: 42 };
    let answer = core.request::<CommandResult>(&"agent/agent-01".parse().unwrap(), command).await.unwrap();
    assert_eq!(answer.payload().detail, "42");
    server.stop().await;
    assert_eq!((core.stats().rejected, agent.stats().rejected), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_it_hung_up_on_comes_back() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let broker = Broker::before(&deployment).await.unwrap();
    let core = connect(&deployment, &broker, "core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let mut status = core.status();
    broker.hang_up("core/core-01");
    timeout(PATIENCE, status.wait_for(|status| *status != Status::Connected)).await.unwrap().unwrap();
    timeout(PATIENCE, status.wait_for(|status| *status == Status::Connected)).await.unwrap().unwrap();
    assert_eq!(broker.accepted(), 2);
    agent.publish(load(1.0)).await.unwrap();
    let received = timeout(PATIENCE, telemetry.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(received.payload(), &load(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_keeps_back_arrives_when_it_says_so() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let broker = Broker::before(&deployment).await.unwrap();
    let core = connect(&deployment, &broker, "core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let mut held = broker.hold("core/core-01", Direction::ToClient, |message| message.subject.contains("telemetry"));
    agent.publish(load(1.0)).await.unwrap();
    let message = timeout(PATIENCE, held.recv()).await.unwrap().unwrap();
    broker.behave("core/core-01");
    broker.deliver("core/core-01", &message).await.unwrap();
    let received = timeout(PATIENCE, telemetry.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((received.payload(), received.sequence()), (&load(1.0), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_attack_nothing_is_refused_and_nothing_is_missing() {
    let run = broker::without_an_attack(50_000).await.unwrap();
    assert_eq!((run.received, run.rejected, run.missed), (50_000, 0, 0), "{run:?}");
    assert!(run.envelopes < run.sent, "there were no batches: {run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_attack_nothing_that_is_sealed_is_refused_or_missing() {
    let run = broker::without_an_attack_sealed(50_000).await.unwrap();
    assert_eq!((run.received, run.rejected, run.missed), (50_000, 0, 0), "{run:?}");
    assert!(run.envelopes < run.sent, "there were no batches: {run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn references_for_changing_readers_cost_no_message() {
    const CORES: [&str; 4] = ["core/core-01", "core/core-02", "core/core-03", "core/core-04"];
    let deployment = Deployment::start_with_key_streams(&[&CORES[..], &["agent/agent-01"]].concat()).await;
    let mut cores = Vec::new();
    for name in CORES {
        let core = deployment.connect(name).await;
        let telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
        cores.push((core, telemetry));
    }
    let reader: Endpoint = CORES[0].parse().unwrap();
    let options = deployment.options("agent/agent-01").seal_events(MessageType::Telemetry, [reader]);
    let agent = BusClient::connect(options).await.unwrap();
    // Each of the others reads the references of half of the messages: of eight sets of readers, one after the other.
    for number in 0..24 {
        let others = (1..CORES.len()).filter(|other| number >> (other - 1) & 1 == 1);
        let readers: Vec<Endpoint> = [0].into_iter().chain(others).map(|core| CORES[core].parse().unwrap()).collect();
        let case = Reference { kind: "case".into(), value: number.to_string() };
        agent.publish(load(f64::from(number)).with_references([case.clone()], readers)).await.unwrap();
        let received = timeout(PATIENCE, cores[0].1.next()).await.unwrap().unwrap();
        let received = received.unwrap_or_else(|rejected| panic!("message {number}: {rejected}"));
        assert_eq!((received.payload(), received.references()), (&load(f64::from(number)), &[case][..]));
    }
    assert_eq!(cores[0].1.missed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_message_that_expires_costs_no_other() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let options = deployment.options("agent/agent-01");
    let options = options.seal_events(MessageType::Telemetry, ["core/core-01".parse().unwrap()]);
    let agent = BusClient::connect(options).await.unwrap();
    // The first one, which brings the wrapped keys, has expired when it is read. The second one has no end.
    let mut first = agent.envelope(load(1.0)).unwrap();
    first.expires_at = first.timestamp_utc + 1_000;
    agent.publish(first).await.unwrap();
    agent.publish(load(2.0)).await.unwrap();
    agent.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let expired = timeout(PATIENCE, telemetry.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(expired.reason(), "expired");
    let received = timeout(PATIENCE, telemetry.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(received.payload(), &load(2.0));
}
