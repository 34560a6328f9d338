//! Who comes late has missed the bundles: they are looked up in the keys stream, if there is one.

use std::collections::HashMap;

use bus_proto::AnyPayload;
use bus_proto::v1::TelemetryEvent;
use bus_tests::attacks::broker::{Broker, Direction, Message as Passing};

use super::*;

fn load(cpu_usage: f64) -> TelemetryEvent {
    TelemetryEvent { cpu_usage, ram_usage: 50.0 }
}

fn is_look_up(message: &Passing) -> bool {
    message.subject == "$JS.API.DIRECT.GET.RANSOMEYE_KEYS" && message.payload.starts_with(b"{\"batch\"")
}

/// Whether it is a part of what the keys stream answers.
fn is_found(message: &Passing) -> bool {
    let headers = message.headers.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    message.subject.starts_with("_INBOX.")
        && (headers.contains("Nats-Stream") || headers.contains(" 204 ") || headers.contains(" 404 "))
}

/// A subscriber that nobody's bundle has reached, and a sender whose bundle has gone by.
async fn late(deployment: &Deployment, options: BusOptions) -> (BusClient, BusClient, Subscription<Heartbeat>) {
    let agent = BusClient::connect(deployment.options(AGENT).max_batch(1)).await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    agent.flush().await.unwrap();
    let core = BusClient::connect(options).await.unwrap();
    let beats = core.subscribe::<Heartbeat>().await.unwrap();
    (core, agent, beats)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_receives_at_once_where_there_is_a_keys_stream() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let (core, agent, mut beats) = late(&deployment, deployment.options(CORE)).await;
    stored(&core, &agent).await;
    for uptime in 1..=50 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    expect_beats(&mut beats, 1..=50).await;
    assert!(core.refusals().is_empty(), "{:?}", core.refusals());
    assert_eq!(beats.missed(), 0);
}

#[tokio::test]
async fn who_comes_late_into_a_flood_loses_nothing_where_there_is_a_keys_stream() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let (core, agent, mut beats) = late(&deployment, deployment.options(CORE)).await;
    stored(&core, &agent).await;
    for uptime in 1..=2_000 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    // All of it is there before the first message is read.
    agent.flush().await.unwrap();
    core.flush().await.unwrap();
    expect_beats(&mut beats, 1..=2_000).await;
    assert!(core.refusals().is_empty(), "{:?}", core.refusals());
    assert_eq!(beats.missed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_keys_are_looked_up_their_messages_wait_and_others_pass() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT, OTHER]).await;
    let broker = Broker::before(&deployment).await.unwrap();
    let options = BusOptions::new(broker.url(), deployment.identity(CORE));
    let (core, agent, mut beats) = late(&deployment, options).await;
    stored(&core, &agent).await;
    let other = deployment.connect(OTHER).await;
    let mut asked = broker.record(CORE, Direction::ToServer, is_look_up);
    let mut found = broker.hold(CORE, Direction::ToClient, is_found);
    for uptime in 1..=20 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    agent.flush().await.unwrap();
    other.publish(beat(100)).await.unwrap();
    // The bundle of the other came along.
    expect_beats(&mut beats, [100]).await;

    let mut answer = Vec::new();
    while answer.len() < 2 {
        answer.push(soon("an answer of the keys stream", found.recv()).await.unwrap());
    }
    broker.intercept(CORE, Direction::ToClient, |message, fate| fate.forward(message));
    for part in &answer {
        broker.deliver(CORE, part).await.unwrap();
    }
    expect_beats(&mut beats, 1..=20).await;
    assert!(asked.try_recv().is_ok() && asked.try_recv().is_err(), "one look-up for all of them");
    assert!(core.refusals().is_empty(), "{:?}", core.refusals());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_many_senders_are_looked_up_at_the_same_time() {
    let names: Vec<String> = (1..=24).map(|number| format!("agent/agent-{number:02}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).chain([CORE]).collect();
    let deployment = Deployment::start_with_key_streams(&all).await;
    let mut agents = Vec::new();
    for name in &names {
        let agent = BusClient::connect(deployment.options(name).max_batch(1)).await.unwrap();
        agent.publish(beat(0)).await.unwrap();
        agent.flush().await.unwrap();
        agents.push(agent);
    }
    let core = deployment.connect(CORE).await;
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    for agent in &agents {
        stored(&core, agent).await;
    }
    for uptime in 1..=5 {
        for agent in &agents {
            agent.publish(beat(uptime)).await.unwrap();
        }
    }
    let mut last: HashMap<Endpoint, u64> = HashMap::new();
    for _ in 0..5 * agents.len() {
        let received = next(&mut beats).await.unwrap();
        let last = last.entry(received.sender().endpoint.clone()).or_default();
        *last += 1;
        assert_eq!(received.payload().uptime, *last, "{}", received.sender());
    }
    assert_eq!(last.len(), agents.len());
    assert!(core.refusals().is_empty(), "{:?}", core.refusals());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_whose_keys_are_not_there_is_looked_up_once() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let broker = Broker::before(&deployment).await.unwrap();
    let agent = BusClient::connect(deployment.options(AGENT).max_batch(1).store_bundles(false)).await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    let core = BusClient::connect(BusOptions::new(broker.url(), deployment.identity(CORE))).await.unwrap();
    let mut asked = broker.record(CORE, Direction::ToServer, is_look_up);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let mut all = core.subscribe::<AnyPayload>().await.unwrap();
    for uptime in 1..=20 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    for _ in 1..=20 {
        let rejected = next(&mut beats).await.unwrap_err();
        assert!(matches!(rejected, Rejected::UnknownKey { .. }), "{rejected}");
        let rejected = next(&mut all).await.unwrap_err();
        assert!(matches!(rejected, Rejected::UnknownKey { .. }), "{rejected}");
    }
    assert!(asked.try_recv().is_ok() && asked.try_recv().is_err(), "one look-up for all of them");
    assert_eq!(core.refusals(), [("unknown_key", 40)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keys_stream_the_next_bundle_makes_up_for_the_one_that_was_missed() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let agent = deployment.connect(AGENT).await;
    agent.publish(beat(0)).await.unwrap();
    let core = deployment.connect(CORE).await;
    let mut events = core.subscribe::<AnyPayload>().await.unwrap();
    agent.publish(beat(1)).await.unwrap();
    let rejected = next(&mut events).await.unwrap_err();
    assert!(matches!(&rejected, Rejected::UnknownKey { key_id, .. } if *key_id == agent.signing_key()), "{rejected}");
    // The first message on another subject brings it, and it holds for all of them.
    agent.publish(load(2.0)).await.unwrap();
    assert_eq!(next(&mut events).await.unwrap().payload(), &AnyPayload::Telemetry(load(2.0)));
    agent.publish(beat(3)).await.unwrap();
    assert_eq!(next(&mut events).await.unwrap().payload(), &AnyPayload::Heartbeat(beat(3)));
    assert_eq!(core.refusals(), [("unknown_key", 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_one_subject_the_bundle_comes_along_again_after_ten_seconds() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (core, agent, mut beats) = late(&deployment, deployment.options(CORE)).await;
    let (mut ticks, mut uptime) = (tokio::time::interval(Duration::from_millis(250)), 0);
    let heard = timeout(Duration::from_secs(15), async {
        loop {
            ticks.tick().await;
            uptime += 1;
            agent.publish(beat(uptime)).await.unwrap();
            match next(&mut beats).await {
                Ok(received) => return received.payload().uptime,
                Err(rejected) => assert!(matches!(rejected, Rejected::UnknownKey { .. }), "{rejected}"),
            }
        }
    });
    let heard = heard.await.expect("a bundle in time");
    assert_eq!(core.refusals(), [("unknown_key", heard - 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_core_commands_needs_no_look_up() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    deployment.publish_sealing_key(AGENT).await;
    let core = BusClient::connect(deployment.options(CORE).store_bundles(false)).await.unwrap();
    core.send(&endpoint(AGENT), kill(0)).await.unwrap();
    let agent = deployment.connect(AGENT).await;
    let mut commands = agent.subscribe_inbox::<CommandRequest>().await.unwrap();
    core.send(&endpoint(AGENT), kill(1)).await.unwrap();
    assert_eq!(next(&mut commands).await.unwrap().payload(), &kill(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_differs_from_the_brokers_is_told() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let broker = Broker::before(&deployment).await.unwrap();
    let connect = |name| BusClient::connect(BusOptions::new(broker.url(), deployment.identity(name)));
    // The broker's clock, as far as the agent can see, is ten years behind.
    broker.intercept(AGENT, Direction::ToClient, |mut message, fate| {
        if let Some(headers) = &message.headers {
            let text = String::from_utf8(headers.to_vec()).unwrap();
            let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
            for line in lines.iter_mut().filter(|line| line.starts_with("Nats-Time-Stamp:")) {
                *line = "Nats-Time-Stamp: 2016-01-01T00:00:00Z".into();
            }
            message.headers = Some(lines.join("\r\n").into());
        }
        fate.forward(message);
    });
    let (core, agent) = (connect(CORE).await.unwrap(), connect(AGENT).await.unwrap());
    let (mut of_core, mut of_agent) = (core.events(), agent.events());
    agent.publish(beat(1)).await.unwrap();
    let told = wait_for_event(&mut of_agent, |event| matches!(event, BusEvent::ClockDiffers { .. })).await;
    let ten_years_ms = 10 * 365 * 86_400_000;
    assert!(matches!(told, BusEvent::ClockDiffers { ahead_ms } if ahead_ms > ten_years_ms), "{told:?}");

    // The core's clock is the broker's: rotating compares them, and ends after that.
    core.rotate_signing_key().await.unwrap();
    core.flush().await.unwrap();
    while let Ok(event) = of_core.try_recv() {
        assert!(!matches!(event, BusEvent::ClockDiffers { .. }), "{event:?}");
    }
}
