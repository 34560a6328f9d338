//! Signing keys change while messages flow both ways.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus_crypto::KeyId;
use bus_proto::v1::CommandResult;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::*;

/// How many events are on their way at most: fewer than a subscription holds back before it drops any.
const WINDOW: usize = 4_096;

/// Every so many commands, one asks for an answer.
const ASKED: u32 = 8;

/// What one side has received: how much, and under which keys.
#[derive(Debug, Default, Clone)]
struct Arrived {
    messages: u64,
    keys: HashSet<KeyId>,
}

/// An agent that reports, and a core that commands it, both as fast as it goes. Each side checks that what arrives is the
/// next message, whatever key it is signed with.
struct Traffic {
    core: BusClient,
    agent: BusClient,
    events: watch::Receiver<Arrived>,
    commands: watch::Receiver<Arrived>,
    stop: Arc<AtomicBool>,
    /// Those who send, and how much each has sent.
    senders: Vec<JoinHandle<u64>>,
    /// Those who receive, until they are told how much there was.
    receivers: Vec<JoinHandle<()>>,
    total: [watch::Sender<Option<u64>>; 2],
}

/// Receives until everything came that was sent.
async fn receive<T: Payload>(
    mut from: Subscription<T>,
    arrived: watch::Sender<Arrived>,
    mut total: watch::Receiver<Option<u64>>,
    mut take: impl AsyncFnMut(u64, Verified<T>),
) {
    let mut number = 0;
    loop {
        let message = tokio::select! {
            biased;
            message = next(&mut from) => message,
            _ = total.wait_for(|total| *total == Some(number)) => break,
        };
        let message = message.unwrap_or_else(|rejected| panic!("{number} is refused: {rejected}"));
        let key_id = message.key_id();
        take(number, message).await;
        number += 1;
        arrived.send_modify(|arrived| {
            arrived.messages = number;
            arrived.keys.insert(key_id);
        });
    }
    assert_eq!((from.missed(), from.take_gaps()), (0, Vec::new()));
}

impl Traffic {
    async fn start(core: BusClient, agent: BusClient) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (arrived_events, events) = watch::channel(Arrived::default());
        let (arrived_commands, commands) = watch::channel(Arrived::default());
        let total = [watch::Sender::new(None), watch::Sender::new(None)];
        let window = Arc::new(Semaphore::new(WINDOW));
        let beats = core.subscribe::<Heartbeat>().await.unwrap();
        let inbox = agent.subscribe_inbox::<CommandRequest>().await.unwrap();
        let room = Arc::clone(&window);
        let receive_beats = receive(beats, arrived_events, total[0].subscribe(), async move |number, message| {
            assert_eq!(message.payload().uptime, number);
            room.add_permits(1);
        });
        let answering = agent.clone();
        let receive_commands = receive(inbox, arrived_commands, total[1].subscribe(), async move |number, message| {
            assert_eq!(u64::from(message.payload().target_pid), number + 1);
            if number % u64::from(ASKED) == 0 {
                answering.reply(&message, CommandResult::completed(number.to_string())).await.unwrap();
            }
        });
        let receivers = vec![tokio::spawn(receive_beats), tokio::spawn(receive_commands)];
        let senders = vec![
            tokio::spawn(report(agent.clone(), Arc::clone(&stop), window)),
            tokio::spawn(command(core.clone(), Arc::clone(&stop))),
        ];
        Self { core, agent, events, commands, stop, senders, receivers, total }
    }

    /// Waits until this much more has arrived on both sides, and the keys that are in use now have been used.
    async fn flows(&mut self, events: u64, commands: u64) {
        let sides = [(&mut self.events, events, &self.agent), (&mut self.commands, commands, &self.core)];
        for (arrived, more, sender) in sides {
            let (goal, key_id) = (arrived.borrow().messages + more, sender.signing_key());
            let flows = arrived.wait_for(|arrived| arrived.messages >= goal && arrived.keys.contains(&key_id));
            soon("more traffic", flows).await.expect("a receiver");
        }
    }

    /// Stops it, and checks that all of it arrived: once, in order, and nothing was refused. Returns under how many keys
    /// events and commands came.
    async fn ends_without_a_loss(self) -> [usize; 2] {
        self.stop.store(true, Ordering::Relaxed);
        for (sender, total) in self.senders.into_iter().zip(&self.total) {
            let sent = soon("the end of a sender", sender).await.unwrap();
            total.send_replace(Some(sent));
        }
        for receiver in self.receivers {
            soon("what was sent last", receiver).await.unwrap();
        }
        for bus in [&self.core, &self.agent] {
            assert!(bus.refusals().is_empty(), "{}: {:?}", bus.principal(), bus.refusals());
            assert_eq!((bus.stats().missed, bus.stats().unsent), (0, 0));
        }
        [&self.events, &self.commands].map(|arrived| arrived.borrow().keys.len())
    }
}

async fn report(agent: BusClient, stop: Arc<AtomicBool>, window: Arc<Semaphore>) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        soon("room for an event", window.acquire()).await.unwrap().forget();
        agent.publish(beat(number)).await.unwrap();
        number += 1;
    }
    number
}

async fn command(core: BusClient, stop: Arc<AtomicBool>) -> u64 {
    let (to, mut number) = (endpoint(AGENT), 0);
    while !stop.load(Ordering::Relaxed) {
        if number % ASKED == 0 {
            let answer = core.request_within::<CommandResult>(&to, kill(number), PATIENCE).await.unwrap();
            assert_eq!(answer.payload().detail, number.to_string());
        } else {
            core.send(&to, kill(number)).await.unwrap();
        }
        number += 1;
    }
    u64::from(number)
}

async fn rotation_on_demand_loses_nothing(deployment: &Deployment) {
    let mut traffic = Traffic::start(deployment.connect(CORE).await, deployment.connect(AGENT).await).await;
    for _ in 0..10 {
        traffic.flows(300, 20).await;
        let (core, agent) = (traffic.core.clone(), traffic.agent.clone());
        let rotate = |bus: BusClient| async move {
            let former = bus.signing_key();
            let key_id = bus.rotate_signing_key().await.unwrap();
            assert!(key_id != former && bus.signing_key() == key_id);
        };
        tokio::join!(rotate(core), rotate(agent));
    }
    traffic.flows(300, 20).await;
    assert_eq!(traffic.ends_without_a_loss().await, [11, 11], "the first key and ten others");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_rotated_under_load_lose_nothing_in_either_direction() {
    rotation_on_demand_loses_nothing(&Deployment::start_with_key_streams(&[CORE, AGENT]).await).await;
}

#[tokio::test]
async fn keys_that_are_rotated_on_one_thread_lose_nothing() {
    rotation_on_demand_loses_nothing(&Deployment::start_with_key_streams(&[CORE, AGENT]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_grow_old_are_rotated_and_nothing_is_lost() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let (age, check) = (Duration::from_millis(400), Duration::from_millis(50));
    let connect = |name| BusClient::connect(deployment.options(name).signing_key_age(age).rotation_check(check));
    let (core, agent) = (connect(CORE).await.unwrap(), connect(AGENT).await.unwrap());
    let mut told = agent.events();
    let first = agent.signing_key();
    let mut traffic = Traffic::start(core, agent).await;
    for arrived in [&mut traffic.events, &mut traffic.commands] {
        soon("a fourth key", arrived.wait_for(|arrived| arrived.keys.len() >= 4)).await.unwrap();
    }
    let [of_agent, of_core] = traffic.ends_without_a_loss().await;
    assert!(of_agent >= 4 && of_core >= 4);
    let rotated = wait_for_event(&mut told, |event| matches!(event, BusEvent::SigningKeyRotated { .. })).await;
    assert!(matches!(rotated, BusEvent::SigningKeyRotated { former, key_id } if former == first && key_id != first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_certificate_brings_a_new_key_under_load_and_no_message_is_refused() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let (stop, publishing) = (Arc::<AtomicBool>::default(), agent.clone());
    let stopped = Arc::clone(&stop);
    let window = Arc::new(Semaphore::new(WINDOW));
    let room = Arc::clone(&window);
    let publisher = tokio::spawn(async move {
        let mut uptime = 0;
        while !stopped.load(Ordering::Relaxed) {
            soon("room for an event", room.acquire()).await.unwrap().forget();
            publishing.publish(beat(uptime)).await.unwrap();
            uptime += 1;
        }
    });
    let (mut last, mut keys) = (None, Vec::new());
    for _ in 0..3 {
        let present = agent.signing_key();
        // What is on its way when the connection is replaced may be lost, but comes neither twice nor in another order.
        loop {
            let received = next(&mut beats).await.unwrap();
            assert!(Some(received.payload().uptime) > last, "{} after {last:?}", received.payload().uptime);
            let missing = last.map_or(0, |last| received.payload().uptime - last - 1);
            window.add_permits(1 + usize::try_from(missing).unwrap());
            last = Some(received.payload().uptime);
            if received.key_id() == present {
                break;
            }
        }
        keys.push(present);
        let _files = deployment.issue(AGENT);
        refresh(&agent).await;
        assert_ne!(agent.signing_key(), present);
    }
    stop.store(true, Ordering::Relaxed);
    window.add_permits(WINDOW);
    publisher.await.unwrap();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 3);
    assert!(core.refusals().is_empty(), "{:?}", core.refusals());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_go_on_after_either_side_has_a_new_certificate() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut inbox = agent.subscribe_inbox::<CommandRequest>().await.unwrap();
    let answering = agent.clone();
    let answerer = tokio::spawn(async move {
        let mut keys = Vec::new();
        for _ in 0..3 {
            let command = next(&mut inbox).await.unwrap();
            keys.push(command.key_id());
            answering.reply(&command, CommandResult::completed("done")).await.unwrap();
        }
        keys
    });
    let ask = async || core.request::<CommandResult>(&endpoint(AGENT), kill(1)).await.unwrap().key_id();
    let first = (core.signing_key(), ask().await);
    let _files = deployment.issue(AGENT);
    refresh(&agent).await;
    let second = (core.signing_key(), ask().await);
    let _files = deployment.issue(CORE);
    refresh(&core).await;
    let third = (core.signing_key(), ask().await);
    assert!(first.0 == second.0 && second.0 != third.0, "the core's");
    assert!(first.1 != second.1 && second.1 == third.1, "the agent's");
    assert_eq!(answerer.await.unwrap(), [first.0, second.0, third.0]);
    assert!(core.refusals().is_empty() && agent.refusals().is_empty());
}

#[tokio::test]
async fn unusable_files_keep_nobody_from_rotating_the_key_of_the_certificate_in_use() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let key_id = agent.signing_key();
    let files = deployment.issue(AGENT);
    std::fs::write(&files.key, "no key").unwrap();
    assert!(agent.refresh_identity().await.is_err());
    assert_eq!(agent.signing_key(), key_id);
    assert_ne!(agent.rotate_signing_key().await.unwrap(), key_id);
    agent.publish(beat(1)).await.unwrap();
    expect_beats(&mut beats, [1]).await;
}
