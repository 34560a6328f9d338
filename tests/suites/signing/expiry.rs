//! Messages that expire on their way, and what is counted of that.
//!
//! Here a test lets time pass, which is not the same as waiting for something to happen. On a runtime of one thread, blocking
//! the thread keeps what was published where it is.

use bus_proto::AnyPayload;

use bus_client::PublishError;

use super::*;

const LIFE: Duration = Duration::from_millis(200);

/// Lets time pass, and nothing else happen.
fn stand_still() {
    std::thread::sleep(LIFE + Duration::from_millis(50));
}

#[tokio::test]
async fn what_expires_while_it_waits_is_not_sent_and_told() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let mut events = agent.events();
    agent.publish(beat(0)).await.unwrap();
    agent.publish(beat(1)).await.unwrap();
    agent.publish(short_lived(&agent, 2, LIFE)).await.unwrap();
    agent.publish(short_lived(&agent, 3, PATIENCE)).await.unwrap();
    agent.publish(short_lived(&agent, 4, LIFE)).await.unwrap();
    stand_still();
    agent.publish(beat(5)).await.unwrap();
    let told = wait_for_event(&mut events, |event| matches!(event, BusEvent::Unsent { .. })).await;
    let BusEvent::Unsent { subject, messages, reason } = told else { panic!("{told:?}") };
    assert_eq!((subject.as_str(), messages), ("ransomeye.events.heartbeat.agent.agent-01", 2));
    assert!(reason.contains("expired"), "{reason}");
    expect_beats(&mut beats, [0, 1, 3, 5]).await;
    agent.flush().await.unwrap();
    let stats = agent.stats();
    assert_eq!((stats.unsent, stats.published), (2, 4), "{stats:?}");
    assert!(core.refusals().is_empty() && beats.missed() == 0);
}

#[tokio::test]
async fn when_all_that_waits_expires_nothing_is_sent_and_a_flush_ends() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    for uptime in 1..=20 {
        agent.publish(short_lived(&agent, uptime, LIFE)).await.unwrap();
    }
    stand_still();
    let flushed = agent.flush().await;
    assert!(matches!(flushed, Err(PublishError::Unsent { messages: 20 })), "{flushed:?}");
    agent.flush().await.unwrap();
    assert_eq!((agent.stats().unsent, agent.stats().envelopes), (20, 1));
    agent.publish(beat(21)).await.unwrap();
    expect_beats(&mut beats, [0, 21]).await;
    assert_eq!(beats.missed(), 0);
    agent.drain().await.unwrap();
}

#[tokio::test]
async fn what_has_expired_already_is_an_error_of_the_call() {
    let deployment = Deployment::start(&[AGENT]);
    let agent = deployment.connect(AGENT).await;
    let late = short_lived(&agent, 1, LIFE);
    stand_still();
    let published = agent.publish(late).await;
    assert!(matches!(published, Err(PublishError::Invalid(_))), "{published:?}");
}

#[tokio::test]
async fn a_member_that_expires_before_it_is_read_is_refused_alone() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    expect_beats(&mut beats, [0]).await;
    agent.publish(beat(1)).await.unwrap();
    agent.publish(short_lived(&agent, 2, 5 * LIFE)).await.unwrap();
    agent.publish(beat(3)).await.unwrap();
    let first = next(&mut beats).await.unwrap();
    assert_eq!((first.payload().uptime, first.batch_index()), (1, Some(0)), "its batch is there");
    for _ in 0..5 {
        stand_still();
    }
    let rejected = next(&mut beats).await.unwrap_err();
    assert!(matches!(rejected, Rejected::Expired { late_ms } if late_ms > 0), "{rejected}");
    expect_beats(&mut beats, [3]).await;
    assert_eq!(core.refusals(), [("expired", 1)].into());
}

#[tokio::test]
async fn refusals_are_counted_by_their_reason() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let agent = BusClient::connect(deployment.options(AGENT).max_batch(1)).await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    let core = deployment.connect(CORE).await;
    let mut events = core.subscribe::<AnyPayload>().await.unwrap();
    for uptime in 1..=3 {
        agent.publish(beat(uptime)).await.unwrap();
        let rejected = next(&mut events).await.unwrap_err();
        assert_eq!(rejected.reason(), "unknown_key", "{rejected}");
    }
    agent.rotate_signing_key().await.unwrap();
    agent.publish(beat(4)).await.unwrap();
    assert!(next(&mut events).await.is_ok());
    for uptime in 5..=6 {
        agent.publish(short_lived(&agent, uptime, LIFE)).await.unwrap();
        agent.flush().await.unwrap();
        stand_still();
        let rejected = next(&mut events).await.unwrap_err();
        assert_eq!(rejected.reason(), "expired", "{rejected}");
    }
    let mut early = agent.envelope(beat(7)).unwrap();
    early.timestamp_utc += 3_600_000;
    agent.publish(early).await.unwrap();
    let rejected = next(&mut events).await.unwrap_err();
    assert!(
        matches!(rejected, Rejected::ClockSkew { ahead_ms, skew_ms: 30_000 } if ahead_ms > 3_500_000),
        "{rejected}"
    );
    assert!(rejected.to_string().contains("check both clocks"), "{rejected}");
    assert_eq!(core.refusals(), [("clock_skew", 1), ("expired", 2), ("unknown_key", 3)].into());
    assert_eq!((core.stats().rejected, core.stats().received), (6, 1));
}
