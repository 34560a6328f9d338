//! Calls that their callers give up half way take nothing away from others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bus_proto::v1::CommandResult;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use super::*;

const PUBLISHERS: u64 = 4;
const EACH: u64 = 1_500;

/// A heartbeat of one of several tasks.
fn of(task: u64, number: u64) -> Heartbeat {
    Heartbeat { uptime: number, version: format!("task-{task}") }
}

/// Publishes and gives up at once, again and again, until it is told to stop. Returns how many calls succeeded.
async fn give_up(agent: BusClient, stop: Arc<AtomicBool>) -> u64 {
    let (mut number, mut succeeded) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let message = of(99, number);
        let done = match number % 3 {
            0 => timeout(Duration::ZERO, agent.publish(message)).await.is_ok_and(|published| published.is_ok()),
            1 => agent.publish(message).now_or_never().is_some_and(|published| published.is_ok()),
            _ => tokio::select! {
                published = agent.publish(message) => published.is_ok(),
                () = tokio::task::yield_now() => false,
            },
        };
        succeeded += u64::from(done);
        tokio::task::yield_now().await;
    }
    succeeded
}

async fn what_others_publish_arrives(deployment: &Deployment) {
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let stop = Arc::<AtomicBool>::default();
    let impatient = tokio::spawn(give_up(agent.clone(), Arc::clone(&stop)));
    let mut publishers = JoinSet::new();
    for task in 0..PUBLISHERS {
        let agent = agent.clone();
        publishers.spawn(async move {
            for number in 1..=EACH {
                agent.publish(of(task, number)).await.unwrap();
            }
        });
    }
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut others = 0;
    while others < PUBLISHERS * EACH {
        let received = next(&mut beats).await.unwrap();
        let Heartbeat { uptime, version } = received.payload().clone();
        let before = last.entry(version.clone()).or_default();
        if version == "task-99" {
            assert!(uptime > *before, "{uptime} after {before}, of those given up");
        } else {
            assert_eq!(uptime, *before + 1, "of {version}");
            others += 1;
        }
        *before = uptime;
    }
    publishers.join_all().await;
    stop.store(true, Ordering::Relaxed);
    let succeeded = impatient.await.unwrap();
    agent.flush().await.unwrap();
    let stats = agent.stats();
    assert!(stats.published >= PUBLISHERS * EACH + succeeded, "{succeeded} succeeded: {stats:?}");
    assert_eq!((stats.unsent, beats.missed()), (0, 0));
    assert!(core.refusals().is_empty(), "{:?}", core.refusals());
    agent.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_are_given_up_cost_others_nothing() {
    what_others_publish_arrives(&Deployment::start(&[CORE, AGENT])).await;
}

#[tokio::test]
async fn publishes_that_are_given_up_cost_others_nothing_on_one_thread() {
    what_others_publish_arrives(&Deployment::start(&[CORE, AGENT])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_given_up_cost_others_nothing() {
    let deployment = with_jobs().await;
    let core = BusClient::connect(jobs(deployment.options(CORE))).await.unwrap();
    let agent = BusClient::connect(jobs(deployment.options(AGENT))).await.unwrap();
    let mut inbox = agent.subscribe_inbox::<Registered<Job>>().await.unwrap();
    let given_up = Arc::<AtomicU64>::default();
    let stop = Arc::<AtomicBool>::default();
    // These go alone, ahead of nothing that waits: each takes what waits along, and is given up meanwhile.
    let impatient = {
        let (core, stop, given_up) = (core.clone(), Arc::clone(&stop), Arc::clone(&given_up));
        tokio::spawn(async move {
            let to = endpoint(AGENT);
            while !stop.load(Ordering::Relaxed) {
                let asked = core.request::<CommandResult>(&to, job(u64::MAX));
                if timeout(Duration::from_micros(300), asked).await.is_err() {
                    given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let sending = {
        let core = core.clone();
        tokio::spawn(async move {
            for number in 0..5_000 {
                core.send(&endpoint(AGENT), job(number)).await.unwrap();
            }
            core.flush().await.unwrap();
        })
    };
    let mut expected = 0;
    while expected < 5_000 {
        let received = next(&mut inbox).await.unwrap();
        let number = received.payload().0.number;
        if number != u64::MAX {
            assert_eq!(number, expected);
            expected += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    impatient.await.unwrap();
    sending.await.unwrap();
    assert!(given_up.load(Ordering::Relaxed) > 0);
    assert_eq!((core.stats().unsent, inbox.missed()), (0, 0));
    core.drain().await.unwrap();
}

#[tokio::test]
async fn rotations_that_are_given_up_leave_a_key_that_is_good() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    for uptime in 1..=10 {
        let former = agent.signing_key();
        assert!(agent.rotate_signing_key().now_or_never().is_none(), "it waits for the keys stream");
        assert_ne!(agent.signing_key(), former);
        agent.publish(beat(uptime)).await.unwrap();
    }
    expect_beats(&mut beats, 1..=10).await;
    assert!(core.refusals().is_empty());
}
