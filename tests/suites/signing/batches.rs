//! Messages that share an envelope, and messages that do not.
//!
//! On a runtime of one thread whatever is published one after the other waits together: the task that sends comes after.

use std::collections::HashSet;

use bus_proto::MessageType;
use bus_proto::v1::{AlertEvent, CommandResult, Severity, TraceContext};

use super::*;

/// A core that hears heartbeats, and an agent that has sent its first one, which goes alone.
async fn warm(deployment: &Deployment, options: BusOptions) -> (BusClient, Subscription<Heartbeat>, BusClient) {
    let core = deployment.connect(CORE).await;
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let agent = BusClient::connect(options).await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    assert_eq!(next(&mut beats).await.unwrap().batch_index(), None);
    (core, beats, agent)
}

#[tokio::test]
async fn every_message_of_a_batch_has_its_own_id_time_and_place() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (_core, mut beats, agent) = warm(&deployment, deployment.options(AGENT)).await;
    let mut sent = Vec::new();
    for uptime in 1..=10 {
        let mut envelope = agent.envelope(beat(uptime)).unwrap();
        envelope.timestamp_utc -= 1_000 - i64::try_from(uptime).unwrap();
        // Not before the subscription.
        envelope.timestamp_utc += 1_000;
        envelope.expires_at = envelope.timestamp_utc + 60_000 + i64::try_from(uptime).unwrap();
        sent.push((envelope.message_id.clone(), envelope.timestamp_utc, envelope.expires_at));
        agent.publish(envelope).await.unwrap();
    }
    let mut digests = HashSet::new();
    for (place, (id, timestamp, expires_at)) in (0_u16..).zip(sent) {
        let received = next(&mut beats).await.unwrap();
        assert_eq!(received.payload().uptime, u64::from(place) + 1);
        assert_eq!(
            (received.message_id(), received.timestamp_unix_ms(), received.expires_unix_ms()),
            (id.as_str(), timestamp, expires_at)
        );
        assert_eq!((received.batch_index(), received.sequence()), (Some(place), 2));
        assert_eq!((received.key_id(), received.message_type()), (agent.signing_key(), &MessageType::Heartbeat));
        digests.insert(received.digest());
    }
    assert_eq!((digests.len(), agent.stats().envelopes, agent.stats().published), (1, 2, 11));
}

#[tokio::test]
async fn messages_with_other_labels_share_no_envelope() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (_core, mut beats, agent) = warm(&deployment, deployment.options(AGENT)).await;
    let trace = TraceContext {
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        tracestate: String::new(),
    };
    let labels: [(u32, &[&str], Option<TraceContext>); 7] = [
        (5, &[], None),
        (5, &[], None),
        (9, &[], None),
        (9, &["disk"], None),
        (9, &["disk"], None),
        (9, &["disk", "raid"], None),
        (9, &["disk", "raid"], Some(trace)),
    ];
    for (uptime, (priority, tags, trace_context)) in (1..).zip(&labels) {
        let mut envelope = agent.envelope(beat(uptime)).unwrap();
        envelope.priority = *priority;
        envelope.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        envelope.trace_context.clone_from(trace_context);
        agent.publish(envelope).await.unwrap();
    }
    let mut digests = Vec::new();
    for (uptime, (priority, tags, trace_context)) in (1..).zip(labels) {
        let received = next(&mut beats).await.unwrap();
        assert_eq!((received.payload().uptime, received.priority()), (uptime, priority));
        assert_eq!((received.tags(), received.trace_context()), (tags_of(tags).as_slice(), trace_context.as_ref()));
        digests.push(received.digest());
    }
    let shared: Vec<bool> = digests.windows(2).map(|pair| pair[0] == pair[1]).collect();
    assert_eq!(shared, [true, false, false, true, false, false]);
    assert_eq!(agent.stats().envelopes, 1 + 5);
}

fn tags_of(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

#[tokio::test]
async fn without_batches_every_message_has_an_envelope_of_its_own() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (_core, mut beats, agent) = warm(&deployment, deployment.options(AGENT).max_batch(1)).await;
    for uptime in 1..=500 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    for uptime in 1..=500 {
        let received = next(&mut beats).await.unwrap();
        assert_eq!((received.payload().uptime, received.sequence()), (uptime, uptime + 1));
        assert_eq!(received.batch_index(), None);
    }
    assert_eq!((agent.stats().published, agent.stats().envelopes), (501, 501));
}

#[tokio::test]
async fn no_batch_is_larger_than_was_asked_for() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (_core, mut beats, agent) = warm(&deployment, deployment.options(AGENT).max_batch(4)).await;
    for uptime in 1..=100 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    for uptime in 1..=100 {
        let received = next(&mut beats).await.unwrap();
        assert_eq!(received.payload().uptime, uptime);
        assert!(received.batch_index().is_none_or(|place| place < 4));
    }
    let stats = agent.stats();
    assert!((1 + 25..=1 + 50).contains(&stats.envelopes), "{stats:?}");
}

#[tokio::test]
async fn batches_stay_below_the_greatest_size_with_the_most_labels() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let core = deployment.connect(CORE).await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    for max_payload in [2_100, 3_000, 4_096, 6_000, 8_192, 20_000] {
        let options = deployment.options(AGENT).max_payload(max_payload);
        let agent = BusClient::connect(options).await.unwrap();
        for number in 0..100 {
            let description = number.to_string() + &"x".repeat(number * 7 % 500);
            let alert = AlertEvent { threat_type: "t".into(), severity: Severity::Low.into(), description };
            let mut envelope = agent.envelope(alert).unwrap();
            if number >= 50 {
                envelope.tags = (0..16).map(|tag| format!("{tag:064}")).collect();
            }
            agent.publish(envelope).await.unwrap();
        }
        agent.flush().await.unwrap();
        assert_eq!(agent.stats().unsent, 0, "with {max_payload}");
        for number in 0..100 {
            let received = next(&mut alerts).await.unwrap();
            assert!(received.payload().description.starts_with(&number.to_string()), "{number} with {max_payload}");
        }
    }
    assert!(core.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_alone_keeps_its_place_among_batches() {
    let deployment = with_jobs().await;
    let core = BusClient::connect(jobs(deployment.options(CORE))).await.unwrap();
    let agent = BusClient::connect(jobs(deployment.options(AGENT))).await.unwrap();
    let mut inbox = agent.subscribe_inbox::<Registered<Job>>().await.unwrap();
    let mut events = core.subscribe::<Registered<Job>>().await.unwrap();
    let (count, asked) = (2_000, |number| number % 50 == 49);
    let answering = agent.clone();
    let receiving = tokio::spawn(async move {
        let (mut alone, mut batched) = (0, 0);
        for number in 0..count {
            let received = next(&mut inbox).await.unwrap();
            assert_eq!(received.payload().0.number, number);
            *if received.batch_index().is_none() { &mut alone } else { &mut batched } += 1;
            if asked(number) {
                assert_eq!(received.batch_index(), None, "what is asked goes alone");
                answering.reply(&received, CommandResult::completed(number.to_string())).await.unwrap();
            } else if received.batch_index().is_some() {
                let refused = answering.reply(&received, CommandResult::completed("")).await;
                assert!(matches!(refused, Err(bus_client::PublishError::NotARequest)), "{refused:?}");
            }
        }
        (alone, batched)
    });
    // Another task keeps the same connection busy.
    let busy = agent.clone();
    let reporting = tokio::spawn(async move {
        for number in 0..count {
            busy.publish(job(number)).await.unwrap();
        }
    });
    let to = endpoint(AGENT);
    for number in 0..count {
        if asked(number) {
            let answer = core.request_within::<CommandResult>(&to, job(number), PATIENCE).await.unwrap();
            assert_eq!(answer.payload().detail, number.to_string());
        } else {
            core.send(&to, job(number)).await.unwrap();
        }
    }
    let (alone, batched) = receiving.await.unwrap();
    assert!(alone >= 40 && batched > 0, "{alone} alone, {batched} in batches");
    reporting.await.unwrap();
    for number in 0..count {
        assert_eq!(next(&mut events).await.unwrap().payload().0.number, number);
    }
    assert!(core.refusals().is_empty() && agent.refusals().is_empty());
}

#[tokio::test]
async fn a_flush_waits_for_what_was_queued() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (core, mut beats, agent) = warm(&deployment, deployment.options(AGENT)).await;
    for uptime in 1..=1_500 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    agent.flush().await.unwrap();
    assert_eq!(agent.stats().published, 1_501, "all of it was handed over");
    // What the broker has handled is on its way to the core before this round trip ends.
    core.flush().await.unwrap();
    for uptime in 1..=1_500 {
        let received = timeout(Duration::from_secs(1), beats.next()).await.expect("it is there").unwrap().unwrap();
        assert_eq!(received.payload().uptime, uptime);
    }
}

#[tokio::test]
async fn draining_sends_what_waits_for_every_subject() {
    let deployment = with_jobs().await;
    let core = BusClient::connect(jobs(deployment.options(CORE))).await.unwrap();
    let agent = BusClient::connect(jobs(deployment.options(AGENT))).await.unwrap();
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let mut events = core.subscribe::<Registered<Job>>().await.unwrap();
    let mut inbox = core.subscribe_inbox::<Registered<Job>>().await.unwrap();
    let to = endpoint(CORE);
    for number in 0..2_000 {
        agent.publish(beat(number)).await.unwrap();
        agent.publish(job(number)).await.unwrap();
        agent.send(&to, job(number)).await.unwrap();
    }
    agent.drain().await.unwrap();
    assert_eq!((agent.stats().published, agent.stats().unsent), (6_000, 0));
    for number in 0..2_000 {
        assert_eq!(next(&mut beats).await.unwrap().payload().uptime, number);
        assert_eq!(next(&mut events).await.unwrap().payload().0.number, number);
        assert_eq!(next(&mut inbox).await.unwrap().payload().0.number, number);
    }
}
