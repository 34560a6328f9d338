//! The client against a real nats-server: what is allowed arrives, what is not is refused, and nothing hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::time::Duration;

use bus_acl::{Policy, Why};
use bus_client::{
    BusClient, BusEvent, CloseReason, CommandHandler, ConnectError, NoSealingKey, PublishError, Rejected, RequestError,
    Status, SubscribeError, Verified,
};
use bus_proto::v1::{
    AlertEvent, CommandRequest, CommandResult, CommandStatus, CommandType, Envelope, Heartbeat, Severity,
    TelemetryEvent, TraceContext,
};
use bus_proto::{AnyPayload, Endpoint, MessageType, Payload, Registered};
use bus_tests::deployment::{Deployment, principal};
use bus_tls::Refresh;
use prost::{Message, Name};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

fn beat(uptime: u64) -> Heartbeat {
    Heartbeat { uptime, version: "0.1.0".into() }
}

fn load(cpu_usage: f64) -> TelemetryEvent {
    TelemetryEvent { cpu_usage, ram_usage: 50.0 }
}

fn kill(target_pid: u32) -> CommandRequest {
    CommandRequest { command_type: CommandType::Kill.into(), target_pid }
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

async fn next<T: Payload>(subscription: &mut bus_client::Subscription<T>) -> Result<Verified<T>, Rejected> {
    timeout(PATIENCE, subscription.next()).await.expect("a message in time").expect("an open subscription")
}

async fn wait_for(bus: &BusClient, fits: impl FnMut(&Status) -> bool) {
    timeout(PATIENCE, bus.status().wait_for(fits)).await.expect("the status in time").expect("a living client");
}

async fn wait_for_event(events: &mut tokio::sync::broadcast::Receiver<BusEvent>, fits: impl Fn(&BusEvent) -> bool) {
    timeout(PATIENCE, async { while !fits(&events.recv().await.expect("an event")) {} }).await.expect("it in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_events_reach_core_with_their_sender() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let mut all = core.subscribe::<AnyPayload>().await.unwrap();

    agent.publish(load(12.5)).await.unwrap();
    agent.publish(beat(7)).await.unwrap();

    let received = next(&mut telemetry).await.unwrap();
    assert_eq!(received.sender(), &principal("agent/agent-01"));
    assert_eq!(received.subject(), "ransomeye.events.telemetry.agent.agent-01");
    assert_eq!(received.payload(), &load(12.5));
    assert_eq!(received.sequence(), 1);
    assert_eq!(received.priority(), 5);
    assert_eq!(next(&mut all).await.unwrap().payload(), &AnyPayload::Telemetry(load(12.5)));
    assert_eq!(next(&mut all).await.unwrap().payload(), &AnyPayload::Heartbeat(beat(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_envelope_keeps_its_further_fields() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    let alert = AlertEvent {
        threat_type: "ransomware.mass-rename".into(),
        severity: Severity::High.into(),
        description: "4,000 files renamed in 10 s".into(),
    };
    let mut envelope = agent.envelope(alert.clone()).unwrap();
    envelope.priority = 9;
    envelope.tags = vec!["disk".into()];
    envelope.expires_at = envelope.timestamp_utc + 60_000;
    let id = envelope.message_id.clone();
    agent.publish(envelope).await.unwrap();
    let received = next(&mut alerts).await.unwrap();
    assert_eq!(received.payload(), &alert);
    assert_eq!((received.priority(), received.tags()), (9, ["disk".to_owned()].as_slice()));
    assert_eq!(received.message_id(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_publish_never_reaches_the_server() {
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01"]).await;
    let agent = deployment.connect("agent/agent-01").await;
    let position = deployment.server.log_position();
    let error = agent.send(&endpoint("agent/agent-02"), kill(1)).await.unwrap_err();
    let PublishError::Denied(denied) = error else { panic!("{error}") };
    assert_eq!(denied.why(), Why::NoRule);
    assert_eq!(denied.request().message_type, Some(&MessageType::Command));
    assert!(matches!(agent.publish(kill(1)).await, Err(PublishError::Denied(_))));
    assert_eq!(agent.stats().denied, 2);
    assert_eq!(agent.stats().published, 0);
    // The server logs every denied publish; it has none to log, although it answers.
    agent.flush().await.unwrap();
    assert!(!deployment.server.log_lines()[position..].iter().any(|line| line.contains("Violation")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_subscription_is_an_error_of_the_call() {
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01"]).await;
    let agent = deployment.connect("agent/agent-01").await;
    assert!(matches!(agent.subscribe::<TelemetryEvent>().await, Err(SubscribeError::Denied(_))));
    assert!(matches!(agent.subscribe::<AnyPayload>().await, Err(SubscribeError::Denied(_))));
}

/// A client whose policy allows more than the broker's.
async fn with_wider_policy(deployment: &Deployment, name: &str) -> BusClient {
    let wide = Policy::from_toml(
        "version = 1\n\
         [[rule]]\nrole = \"*\"\naction = \"publish\"\ntypes = \"*\"\nto = \"events\"\n\
         [[rule]]\nrole = \"*\"\naction = \"publish\"\ntypes = \"*\"\nto = \"inbox:*/*\"\n\
         [[rule]]\nrole = \"*\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"inbox\"\n\
         [[rule]]\nrole = \"*\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"events\"\n",
    )
    .unwrap();
    BusClient::connect(deployment.options(name).policy(wide)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_by_the_broker_is_the_error_of_the_call_that_caused_it() {
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01", "agent/agent-02"]).await;
    let agent = with_wider_policy(&deployment, "agent/agent-01").await;
    deployment.publish_sealing_key("agent/agent-02").await;
    for _ in 0..3 {
        let published = agent.send(&endpoint("agent/agent-02"), kill(1)).await;
        assert!(matches!(published, Err(PublishError::BrokerDenied { .. })), "{published:?}");
    }
    agent.publish(beat(1)).await.unwrap();
    let subscribed = agent.subscribe::<TelemetryEvent>().await;
    assert!(matches!(subscribed, Err(SubscribeError::BrokerDenied { .. })), "{subscribed:?}");
    let asked = agent.request::<CommandResult>(&endpoint("agent/agent-02"), kill(1)).await;
    assert!(matches!(asked, Err(RequestError::Publish(PublishError::BrokerDenied { .. }))), "{asked:?}");
    assert!(agent.stats().broker_denied >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_withdrawn_from_a_live_connection_are_reported() {
    let mut deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    agent.publish(beat(1)).await.unwrap();
    assert!(next(&mut beats).await.is_ok());

    deployment.reconfigure(&["core/core-01", "agent/agent-01"], Policy::new([]));
    let withdrawn = next(&mut beats).await;
    assert!(matches!(withdrawn, Err(Rejected::Withdrawn { .. })), "{withdrawn:?}");
    // The first publish after it may be on its way before the verdict; the next one knows.
    let mut events = agent.events();
    if agent.publish(beat(2)).await.is_ok() {
        wait_for_event(&mut events, |event| matches!(event, BusEvent::PublishDenied { .. })).await;
    }
    assert!(matches!(agent.publish(beat(3)).await, Err(PublishError::BrokerDenied { .. })));
}

struct Obeys;

impl CommandHandler for Obeys {
    async fn handle(&self, command: Verified<CommandRequest>) -> CommandResult {
        match command.payload().target_pid {
            13 => panic!("a handler that fails"),
            pid => CommandResult::completed(format!("{} ended {pid}", command.sender().component())),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reaches_its_agent_and_the_result_comes_back() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01", "agent/agent-02"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let _server = agent.serve_commands(Obeys).await.unwrap();
    for pid in 1..=5 {
        let result = core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(pid)).await;
        if pid == 13 {
            continue;
        }
        let result = result.unwrap();
        assert_eq!(result.sender(), &principal("agent/agent-01"));
        assert_eq!(result.payload().status(), CommandStatus::Completed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_is_answered_and_goes_on() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let _server = agent.serve_commands(Obeys).await.unwrap();
    let failed = core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(13)).await;
    assert!(matches!(failed, Err(RequestError::Peer(_))), "{failed:?}");
    assert!(core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(14)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_each_get_their_own_answer() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let _server = agent.serve_commands(Obeys).await.unwrap();
    let asked = (100..200).map(|pid| {
        let core = core.clone();
        async move {
            let result = core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(pid)).await.unwrap();
            assert_eq!(result.payload().detail, format!("core-01 ended {pid}"));
        }
    });
    futures_util::future::join_all(asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_who_is_gone_fails_at_once() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    deployment.publish_sealing_key("agent/agent-01").await;
    let core = BusClient::connect(deployment.options("core/core-01").operation_timeout(PATIENCE)).await.unwrap();
    let gone = endpoint("agent/agent-01");
    let asked = timeout(PATIENCE / 2, core.request::<CommandResult>(&gone, kill(1)));
    let answer = asked.await.expect("no wait for the timeout");
    assert!(matches!(answer, Err(RequestError::NoResponders { .. })), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_who_was_never_there_fails_at_once() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01"]).await;
    let core = BusClient::connect(deployment.options("core/core-01").operation_timeout(PATIENCE)).await.unwrap();
    let nobody = endpoint("agent/agent-01");
    let asked = timeout(PATIENCE / 2, core.request::<CommandResult>(&nobody, kill(1)));
    let answer = asked.await.expect("no wait for the timeout");
    let Err(RequestError::Publish(PublishError::NoSealingKey(why))) = answer else { panic!("{answer:?}") };
    assert_eq!(why, NoSealingKey::Unknown { component: nobody });
    // Nor is anything else sent to it.
    let sent = core.send(&endpoint("agent/agent-01"), kill(1)).await;
    assert!(matches!(sent, Err(PublishError::NoSealingKey(NoSealingKey::Unknown { .. }))), "{sent:?}");
    assert_eq!(core.stats().published, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_another_component_than_the_one_asked_is_refused() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01", "agent/agent-02"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let other = deployment.connect("agent/agent-02").await;
    let mut commands = agent.subscribe_inbox::<CommandRequest>().await.unwrap();
    let asking = tokio::spawn({
        let core = core.clone();
        async move { core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await }
    });
    let command = next(&mut commands).await.unwrap();
    assert!(
        command.expires_unix_ms() > command.timestamp_unix_ms(),
        "a command that never expires can be kept for later"
    );
    // The other agent knows even the request itself, and still cannot answer it.
    other.reply(&command, CommandResult::completed("forged")).await.unwrap();
    other.flush().await.unwrap();
    agent.reply(&command, CommandResult::completed("true")).await.unwrap();
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.payload().detail, "true");
    assert_eq!(core.stats().rejected, 1);
    // A second answer to the same request is one too many.
    agent.reply(&command, CommandResult::completed("again")).await.unwrap();
    agent.flush().await.unwrap();
    core.flush().await.unwrap();
    timeout(PATIENCE, async {
        while core.stats().rejected < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the second answer is counted");
}

#[derive(Clone, PartialEq, Message)]
struct DiskUsage {
    #[prost(uint64, tag = "1")]
    free_bytes: u64,
}

impl Name for DiskUsage {
    const NAME: &'static str = "DiskUsage";
    const PACKAGE: &'static str = "acme.fleet.v1";
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_type_travels_and_an_unregistered_one_is_refused_on_both_sides() {
    let policy = Policy::from_toml(
        "version = 1\n\
         [[rule]]\nrole = \"agent\"\naction = \"publish\"\ntypes = [\"x-disk-usage\"]\nto = \"events\"\n\
         [[rule]]\nrole = \"core\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"events\"\n",
    )
    .unwrap();
    let deployment =
        Deployment::start_with(&["core/core-01", "agent/agent-01"], |config| config.policy = policy.clone());
    let known = |name| deployment.options(name).policy(policy.clone()).register::<DiskUsage>("x-disk-usage").unwrap();
    let agent = BusClient::connect(known("agent/agent-01")).await.unwrap();
    let core = BusClient::connect(known("core/core-01")).await.unwrap();
    let ignorant = BusClient::connect(deployment.options("core/core-01").policy(policy.clone())).await.unwrap();

    let mut usage = core.subscribe::<Registered<DiskUsage>>().await.unwrap();
    let mut everything = ignorant.subscribe::<AnyPayload>().await.unwrap();
    agent.publish(Registered(DiskUsage { free_bytes: 42 })).await.unwrap();
    assert_eq!(next(&mut usage).await.unwrap().payload().0.free_bytes, 42);
    let refused = next(&mut everything).await.unwrap_err();
    assert_eq!(refused.reason(), "payload", "{refused}");
    assert!(matches!(ignorant.subscribe::<Registered<DiskUsage>>().await, Err(SubscribeError::Payload(_))));
    let unknown = agent.publish(Registered(TraceContext::default())).await;
    assert!(matches!(unknown, Err(PublishError::Payload(_))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_here_and_the_connection_stays() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let agent = deployment.connect("agent/agent-01").await;
    let connects = agent.stats().connects;
    let description = "x".repeat(4_000);
    let alert = AlertEvent { threat_type: "test".into(), severity: Severity::Low.into(), description };
    let small = BusClient::connect(deployment.options("agent/agent-01").max_payload(3_000)).await.unwrap();
    let refused = small.publish(alert.clone()).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { max: 3_000, .. })), "{refused:?}");
    agent.publish(alert).await.unwrap();
    assert_eq!(agent.max_payload(), 262_144);
    assert_eq!(agent.stats().connects, connects);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_of_somebody_else_or_out_of_bounds_is_refused_here() {
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01"]).await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut foreign = agent.envelope(beat(1)).unwrap();
    foreign.source_component = "core-01".into();
    assert!(matches!(agent.publish(foreign).await, Err(PublishError::NotYourEnvelope { .. })));
    let mut expired = agent.envelope(beat(1)).unwrap();
    expired.expires_at = expired.timestamp_utc - 1;
    assert!(matches!(agent.publish(expired).await, Err(PublishError::Invalid(_))));
    assert!(matches!(agent.publish(load(101.0)).await, Err(PublishError::Invalid(_))));
    assert!(matches!(agent.publish(Envelope::default()).await, Err(PublishError::Invalid(_))));
    assert_eq!(agent.stats().published, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_the_server_does_not_know_is_refused() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01"]).await;
    let refused = BusClient::connect(deployment.options("agent/agent-99")).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_again_and_again_gives_up_and_its_streams_end() {
    let mut deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let options =
        deployment.options("agent/agent-01").give_up_after_refusals(3).reconnect_max_delay(Duration::from_millis(100));
    let agent = BusClient::connect(options).await.unwrap();
    let mut commands = agent.subscribe_inbox::<CommandRequest>().await.unwrap();
    let server = agent.serve_commands(Obeys).await.unwrap();
    deployment.reconfigure(&["core/core-01"], Policy::default());
    wait_for(&agent, |status| *status == Status::Closed(CloseReason::Refused)).await;
    assert!(matches!(agent.publish(beat(1)).await, Err(PublishError::Closed(CloseReason::Refused))));
    assert!(matches!(agent.subscribe_inbox::<CommandRequest>().await, Err(SubscribeError::Closed(_))));
    assert!(timeout(PATIENCE, commands.next()).await.expect("an end").is_none());
    timeout(PATIENCE, server.finished()).await.expect("an end");
    // Known again, it stays closed: what was given up does not come back to life.
    let position = deployment.server.log_position();
    deployment.reconfigure(&["core/core-01", "agent/agent-01"], Policy::default());
    let core = deployment.connect("core/core-01").await;
    let asked = core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await;
    assert!(matches!(asked, Err(RequestError::NoResponders { .. })), "{asked:?} {position}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answers_within_its_timeout_and_says_so() {
    let mut deployment = Deployment::start_with_key_streams(&["core/core-01"]).await;
    let options = deployment.options("core/core-01");
    deployment.server.stop().unwrap();
    let refused = BusClient::connect(options).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_ends_while_the_server_is_down_and_works_again_after_its_restart() {
    let mut deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let options = |name| {
        deployment
            .options(name)
            .operation_timeout(Duration::from_millis(500))
            .reconnect_max_delay(Duration::from_millis(100))
    };
    let core = BusClient::connect(options("core/core-01")).await.unwrap();
    let agent = BusClient::connect(options("agent/agent-01")).await.unwrap();
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    agent.publish(beat(1)).await.unwrap();
    assert!(next(&mut beats).await.is_ok());

    deployment.server.kill().unwrap();
    wait_for(&agent, |status| *status == Status::Disconnected).await;
    wait_for(&core, |status| *status == Status::Disconnected).await;
    let asked = timeout(PATIENCE, core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1))).await;
    assert!(asked.expect("an end").is_err());
    let subscribed = timeout(PATIENCE, core.subscribe::<TelemetryEvent>()).await;
    assert!(matches!(subscribed.expect("an end"), Err(SubscribeError::Disconnected { .. })));
    let published = timeout(PATIENCE, agent.publish(beat(2))).await;
    assert!(matches!(published.expect("an end"), Err(PublishError::Disconnected { .. })));
    assert_eq!(agent.stats().published, 1);

    deployment.server.restart().unwrap();
    wait_for(&agent, |status| *status == Status::Connected).await;
    wait_for(&core, |status| *status == Status::Connected).await;
    agent.publish(beat(3)).await.unwrap();
    assert_eq!(
        next(&mut beats).await.unwrap().payload().uptime,
        3,
        "the subscription lives on, and nothing stale comes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_subscriber_missed_is_counted_exactly() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = BusClient::connect(deployment.options("core/core-01").subscription_capacity(100)).await.unwrap();
    // Envelopes are counted: here each has one message.
    let agent = BusClient::connect(deployment.options("agent/agent-01").max_batch(1)).await.unwrap();
    let mut events = core.events();
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    for _ in 0..1_000 {
        agent.publish(load(1.0)).await.unwrap();
    }
    agent.flush().await.unwrap();
    core.flush().await.unwrap();
    wait_for_event(&mut events, |event| *event == BusEvent::SlowConsumer).await;
    // The last message may be dropped as well: more follow until the last one arrives, which completes the count.
    let (mut sent, mut received) = (1_000, 0);
    let last = 'rounds: loop {
        agent.publish(load(2.0)).await.unwrap();
        sent += 1;
        while let Ok(message) = timeout(Duration::from_millis(100), next(&mut telemetry)).await {
            received += 1;
            let sequence = message.unwrap().sequence();
            if sequence == sent {
                break 'rounds sequence;
            }
        }
    };
    assert_eq!(last, sent);
    assert!(telemetry.missed() > 0);
    assert_eq!(received + telemetry.missed(), sent);
    assert_eq!(core.stats().missed, telemetry.missed());
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_sends_what_is_waiting_and_closes() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    for uptime in 0..10_000 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    agent.drain().await.unwrap();
    agent.drain().await.unwrap();
    assert_eq!(*agent.status().borrow(), Status::Closed(CloseReason::Drained));
    assert!(matches!(agent.publish(beat(0)).await, Err(PublishError::Closed(CloseReason::Drained))));
    for uptime in 0..10_000 {
        assert_eq!(next(&mut beats).await.unwrap().payload().uptime, uptime);
    }
    core.drain().await.unwrap();
    assert!(timeout(PATIENCE, beats.next()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_certificate_is_used_without_a_restart() {
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01"]).await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut events = agent.events();
    assert_eq!(agent.refresh_identity().await.unwrap(), Refresh::Unchanged);
    let _files = deployment.issue("agent/agent-01");
    assert_eq!(agent.refresh_identity().await.unwrap(), Refresh::Rotated);
    wait_for_event(&mut events, |event| *event == BusEvent::IdentityRotated).await;
    wait_for_event(&mut events, |event| *event == BusEvent::Connected).await;
    agent.publish(beat(1)).await.unwrap();

    let files = deployment.issue("agent/agent-01");
    std::fs::write(&files.certificate, "no certificate").unwrap();
    assert!(agent.refresh_identity().await.is_err());
    agent.publish(beat(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_client_ends_its_connection_and_every_task() {
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01", "core/core-01"]).await;
    let core = deployment.connect("core/core-01").await;
    assert!(core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await.is_err());
    let mut status = core.status();
    drop(core);
    // The status ends when the last of the connection's own tasks has let go of it.
    timeout(PATIENCE, async { while status.changed().await.is_ok() {} }).await.expect("everything is let go of");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_one_component_do_not_disturb_each_other() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let (one, two) = (deployment.connect("agent/agent-01").await, deployment.connect("agent/agent-01").await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    for uptime in 0..100 {
        one.publish(beat(uptime)).await.unwrap();
        two.publish(beat(uptime)).await.unwrap();
    }
    for _ in 0..200 {
        next(&mut beats).await.unwrap();
    }
    assert_eq!(beats.missed(), 0);
}

/// Where the log lines of one test go.
#[derive(Clone, Default)]
struct Captured(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// One thread, because the log's subscriber is this thread's own.
#[tokio::test(flavor = "current_thread")]
async fn a_denied_publish_is_a_security_warning_with_its_fields() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01"]).await;
    let agent = deployment.connect("agent/agent-01").await;
    // Another test may have come to the same line just before this log was there, and have found nobody who listens.
    tracing::callsite::rebuild_interest_cache();
    assert!(agent.send(&endpoint("agent/agent-02"), kill(4_242)).await.is_err());

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warning = lines.iter().find(|line| line["target"] == "bus::security").expect("a security warning");
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["fields"]["principal"], "spiffe://ransomeye.test/agent/agent-01");
    assert_eq!(warning["fields"]["message_type"], "Command");
    assert_eq!(warning["fields"]["destination"], "inbox of agent/agent-02");
    assert!(!log.contains("4242"), "the payload is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_beyond_the_servers_limit_is_an_error_of_the_call() {
    let deployment = Deployment::start_with(&["core/core-01"], |config| config.max_subscriptions = 3);
    let core = deployment.connect("core/core-01").await;
    // One is the client's own, for the broker's answers.
    let mut held = Vec::new();
    let refused = loop {
        match core.subscribe::<Heartbeat>().await {
            Ok(subscription) => held.push(subscription),
            Err(error) => break error,
        }
        assert!(held.len() < 10, "no limit");
    };
    assert!(matches!(refused, SubscribeError::TooMany), "{refused}");
    assert_eq!(held.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_work_again_after_their_permission_was_withdrawn_and_restored() {
    let everyone = ["core/core-01", "agent/agent-01"];
    let mut deployment = Deployment::start_with_key_streams(&everyone).await;
    let core = BusClient::connect(deployment.options("core/core-01").operation_timeout(Duration::from_secs(2))).await;
    let core = core.unwrap();
    let agent = deployment.connect("agent/agent-01").await;
    let _server = agent.serve_commands(Obeys).await.unwrap();
    let ask = || async { core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await };
    ask().await.unwrap();
    let mut events = core.events();
    let deaf = "version = 1\n\
        [[rule]]\nrole = \"core\"\naction = \"publish\"\ntypes = \"*\"\nto = \"inbox:*/*\"\n\
        [[rule]]\nrole = \"agent\"\naction = \"publish\"\ntypes = \"*\"\nto = \"inbox:*/*\"\n\
        [[rule]]\nrole = \"agent\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"inbox\"\n";
    deployment.reconfigure(&everyone, Policy::from_toml(deaf).unwrap());
    wait_for_event(&mut events, |event| matches!(event, BusEvent::SubscriptionDenied { .. })).await;
    assert!(matches!(ask().await, Err(RequestError::Subscribe(SubscribeError::BrokerDenied { .. }))));
    deployment.reconfigure(&everyone, Policy::default());
    ask().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_while_the_server_was_down_is_not_carried_out_later() {
    let mut deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let options = |name| {
        deployment
            .options(name)
            .operation_timeout(Duration::from_millis(500))
            .reconnect_max_delay(Duration::from_millis(100))
    };
    let core = BusClient::connect(options("core/core-01")).await.unwrap();
    let agent = BusClient::connect(options("agent/agent-01")).await.unwrap();
    let mut commands = agent.subscribe_inbox::<CommandRequest>().await.unwrap();
    deployment.server.kill().unwrap();
    wait_for(&core, |status| *status == Status::Disconnected).await;
    let asked =
        (0..40).map(|_| core.request::<CommandResult>(ANYWHERE.get_or_init(|| endpoint("agent/agent-01")), kill(1)));
    let answers = timeout(PATIENCE, futures_util::future::join_all(asked)).await.expect("all end together");
    assert!(answers.iter().all(Result::is_err));

    deployment.server.restart().unwrap();
    wait_for(&agent, |status| *status == Status::Connected).await;
    wait_for(&core, |status| *status == Status::Connected).await;
    core.send(&endpoint("agent/agent-01"), kill(2)).await.unwrap();
    assert_eq!(next(&mut commands).await.unwrap().payload().target_pid, 2);
}

static ANYWHERE: std::sync::OnceLock<Endpoint> = std::sync::OnceLock::new();

struct Slow(std::sync::Arc<tokio::sync::Notify>, std::sync::Arc<tokio::sync::Notify>);

impl CommandHandler for Slow {
    async fn handle(&self, _: Verified<CommandRequest>) -> CommandResult {
        self.0.notify_one();
        self.1.notified().await;
        CommandResult::completed("at last")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_answers_the_command_at_hand() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let (begun, finish) = <(std::sync::Arc<_>, std::sync::Arc<_>)>::default();
    let server =
        agent.serve_commands(Slow(std::sync::Arc::clone(&begun), std::sync::Arc::clone(&finish))).await.unwrap();
    let asking = tokio::spawn(async move { core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await });
    timeout(PATIENCE, begun.notified()).await.expect("the command arrives");
    let (drained, ()) = tokio::join!(agent.drain(), async { finish.notify_one() });
    drained.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().payload().detail, "at last");
    timeout(PATIENCE, server.finished()).await.expect("an end");
}

/// Publishes telemetry as fast as it goes, until it is stopped.
fn flood(agent: BusClient) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            agent.publish(load(1.0)).await.unwrap();
        }
    })
}

async fn denials_show_under_a_flood() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let options = deployment.options("core/core-01").subscription_capacity(10);
    let wide = Policy::from_toml(
        "version = 1\n[[rule]]\nrole = \"*\"\naction = \"publish\"\ntypes = \"*\"\nto = \"events\"\n\
         [[rule]]\nrole = \"*\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"events\"\n",
    );
    let core = BusClient::connect(options.policy(wide.unwrap())).await.unwrap();
    let unread = core.subscribe::<TelemetryEvent>().await.unwrap();
    let flood = flood(deployment.connect("agent/agent-01").await);
    for attempt in 0..30 {
        let published = core.publish(beat(attempt)).await;
        assert!(matches!(published, Err(PublishError::BrokerDenied { .. })), "{attempt}: {published:?}");
    }
    flood.abort();
    drop(unread);
    core.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_subscription_hides_no_denial() {
    denials_show_under_a_flood().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flooded_subscription_hides_no_denial_on_one_thread() {
    denials_show_under_a_flood().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reader_that_keeps_up_misses_nothing() {
    const MESSAGES: u64 = 100_000;
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let options = deployment.options("core/core-01").subscription_capacity(1_000_000).subscription_bytes(1 << 30);
    let core = BusClient::connect(options).await.unwrap();
    let agent = deployment.connect("agent/agent-01").await;
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let publishing = tokio::spawn(async move {
        for uptime in 0..MESSAGES {
            agent.publish(beat(uptime)).await.unwrap();
        }
        agent.flush().await.unwrap();
    });
    for uptime in 0..MESSAGES {
        assert_eq!(next(&mut beats).await.unwrap().payload().uptime, uptime);
    }
    publishing.await.unwrap();
    assert_eq!(beats.missed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_stream_never_pauses_lets_timers_run() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let flood = flood(deployment.connect("agent/agent-01").await);
    // The flood ends only after the time limit struck: a stream that never yields would never let it.
    let reading = timeout(Duration::from_millis(300), async { while telemetry.next().await.is_some() {} });
    assert!(reading.await.is_err());
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_denied_type_does_not_hold_up_the_others() {
    let deployment = Deployment::start_with_key_streams(&["agent/agent-01"]).await;
    let agent = with_wider_policy(&deployment, "agent/agent-01").await;
    agent.publish(load(1.0)).await.unwrap();
    let denied = agent.clone();
    let denied = tokio::spawn(async move {
        for _ in 0..5 {
            assert!(denied.publish(kill(1)).await.is_err());
        }
    });
    // At one round trip each, this would take minutes.
    for _ in 0..10_000 {
        agent.publish(load(1.0)).await.unwrap();
    }
    denied.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_at_once_all_succeed_and_the_command_at_hand_is_answered() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let (begun, finish) = <(std::sync::Arc<_>, std::sync::Arc<_>)>::default();
    let server =
        agent.serve_commands(Slow(std::sync::Arc::clone(&begun), std::sync::Arc::clone(&finish))).await.unwrap();
    let asking = tokio::spawn(async move { core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await });
    timeout(PATIENCE, begun.notified()).await.expect("the command arrives");
    let (one, two, ()) = tokio::join!(agent.drain(), agent.drain(), async { finish.notify_one() });
    one.unwrap();
    two.unwrap();
    assert!(asking.await.unwrap().is_ok());
    timeout(PATIENCE, server.finished()).await.expect("an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_leaves_no_connection_behind() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let options = deployment.options("agent/agent-01").drain_timeout(Duration::from_millis(200));
    let agent = BusClient::connect(options).await.unwrap();
    let mut inbox = agent.subscribe_inbox::<CommandRequest>().await.unwrap();
    let (begun, never) = <(std::sync::Arc<_>, std::sync::Arc<_>)>::default();
    let _server = agent.serve_commands(Slow(std::sync::Arc::clone(&begun), never)).await.unwrap();
    let asking = core.clone();
    let asking =
        tokio::spawn(async move { asking.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await });
    timeout(PATIENCE, begun.notified()).await.expect("the command arrives");
    assert!(agent.drain().await.is_err());
    assert!(next(&mut inbox).await.is_ok(), "what arrived before is read first");
    assert!(timeout(PATIENCE, inbox.next()).await.expect("an end").is_none());
    let gone = async {
        let nobody = endpoint("agent/agent-01");
        while !matches!(core.request::<CommandResult>(&nobody, kill(2)).await, Err(RequestError::NoResponders { .. })) {
        }
    };
    timeout(PATIENCE * 2, gone).await.expect("the connection goes");
    asking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_short_limits_come_through_in_the_end() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let _server = agent.serve_commands(Obeys).await.unwrap();
    let to = endpoint("agent/agent-01");
    let comes_through = async {
        // Less than the first request needs to subscribe to its answer.
        while core.request_within::<CommandResult>(&to, kill(1), Duration::from_millis(20)).await.is_err() {}
    };
    timeout(PATIENCE, comes_through).await.expect("one of them");
}

struct PanicsAtOnce;

impl CommandHandler for PanicsAtOnce {
    fn handle(&self, command: Verified<CommandRequest>) -> impl Future<Output = CommandResult> + Send {
        assert!(command.payload().target_pid == 0, "a handler that fails before it begins");
        std::future::ready(CommandResult::completed(""))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_before_it_begins_is_answered_too() {
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let _server = agent.serve_commands(PanicsAtOnce).await.unwrap();
    let failed = core.request::<CommandResult>(&endpoint("agent/agent-01"), kill(1)).await;
    assert!(matches!(failed, Err(RequestError::Peer(_))), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_dropped_while_disconnected_lets_go_of_its_state() {
    let mut deployment = Deployment::start_with_key_streams(&["agent/agent-01"]).await;
    let agent = deployment.connect("agent/agent-01").await;
    deployment.server.kill().unwrap();
    wait_for(&agent, |status| *status == Status::Disconnected).await;
    let mut status = agent.status();
    drop(agent);
    timeout(PATIENCE, async { while status.changed().await.is_ok() {} }).await.expect("everything is let go of");
}

/// An alert that is large.
fn long_alert() -> AlertEvent {
    AlertEvent { threat_type: "test".into(), severity: Severity::Low.into(), description: "x".repeat(4_000) }
}

/// On one thread, so that a sender which waits in a circle would never let the rest of the client run.
#[tokio::test]
async fn large_messages_wait_for_room_and_arrive() {
    const ALERTS: u64 = 1_500;
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "agent/agent-01"]).await;
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    for _ in 0..ALERTS {
        timeout(PATIENCE, agent.publish(long_alert())).await.expect("room in time").unwrap();
    }
    agent.flush().await.unwrap();
    for _ in 0..ALERTS {
        next(&mut alerts).await.unwrap();
    }
    assert_eq!((agent.stats().published, agent.stats().unsent), (ALERTS, 0));
}

#[tokio::test]
async fn batches_fit_into_what_the_server_carries() {
    const ALERTS: u64 = 100;
    let deployment = Deployment::start_with(&["core/core-01", "agent/agent-01"], |config| config.max_payload = 65_536);
    let core = deployment.connect("core/core-01").await;
    let agent = deployment.connect("agent/agent-01").await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    for _ in 0..ALERTS {
        agent.publish(long_alert()).await.unwrap();
    }
    agent.flush().await.unwrap();
    for _ in 0..ALERTS {
        next(&mut alerts).await.unwrap();
    }
    assert!(agent.stats().envelopes < ALERTS, "nothing was gathered");
    assert_eq!(agent.stats().unsent, 0);
}

#[tokio::test]
async fn a_request_that_is_given_up_takes_nothing_of_others_along() {
    const SENT: u64 = 1_500;
    let deployment = Deployment::start_with_key_streams(&["core/core-01", "core/core-02"]).await;
    let policy = "version = 1\n[[rule]]\nrole = \"*\"\naction = \"publish\"\ntypes = \"*\"\nto = \"inbox:*/*\"\n\
        [[rule]]\nrole = \"*\"\naction = \"subscribe\"\ntypes = \"*\"\nfrom = \"inbox\"\n";
    let policy = Policy::from_toml(policy).unwrap();
    let mut deployment = deployment;
    deployment.reconfigure(&["core/core-01", "core/core-02"], policy.clone());
    let core = BusClient::connect(deployment.options("core/core-01").policy(policy.clone())).await.unwrap();
    let other = BusClient::connect(deployment.options("core/core-02").policy(policy)).await.unwrap();
    let mut beats = other.subscribe_inbox::<Heartbeat>().await.unwrap();
    let to = endpoint("core/core-02");
    // Each with a label of its own, so that none shares an envelope with another.
    for uptime in 0..SENT {
        let mut envelope = core.envelope(beat(uptime)).unwrap();
        envelope.tags = vec![uptime.to_string()];
        core.send(&to, envelope).await.unwrap();
    }
    let given_up = core.request_within::<Heartbeat>(&to, beat(SENT), Duration::from_millis(1)).await;
    assert!(given_up.is_err());
    core.flush().await.unwrap();
    for uptime in 0..SENT {
        assert_eq!(next(&mut beats).await.unwrap().payload().uptime, uptime);
    }
    core.drain().await.unwrap();
}
