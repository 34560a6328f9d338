//! Signing keys and sealing keys change ten times a second while sealed messages flow in all directions: none is lost.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus_crypto::KeyId;

use super::*;

/// Fewer than a receiver keeps apart within the time that clocks may differ.
const ROTATIONS: u64 = 12;

const EVERY: Duration = Duration::from_millis(100);

/// What each visitor says.
const VISIT: u64 = 10;

/// The last event of all.
const END: &str = "end";

/// What arrived, by sender, in order, and how many keys it was signed with.
#[derive(Debug, Default)]
struct Arrived {
    by_sender: BTreeMap<Endpoint, Vec<String>>,
    keys: HashSet<KeyId>,
}

async fn receive(mut alerts: Subscription<AlertEvent>) -> Arrived {
    let mut arrived = Arrived::default();
    loop {
        let message = next(&mut alerts).await.unwrap_or_else(|rejected| panic!("{rejected}"));
        assert!(message.is_sealed());
        if message.payload().description == END {
            assert_eq!((alerts.missed(), alerts.take_gaps()), (0, Vec::new()));
            return arrived;
        }
        arrived.keys.insert(message.key_id());
        let of_sender = arrived.by_sender.entry(message.sender().endpoint.clone()).or_default();
        of_sender.push(message.into_payload().description);
    }
}

/// Publishes until it is told to stop, and returns how much it was.
async fn report(agent: BusClient, stop: Arc<AtomicBool>) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            agent.publish(alert(number.to_string())).await.unwrap();
            number += 1;
        }
        // A reader on a slow machine keeps up with this.
        agent.flush().await.unwrap();
    }
    number
}

async fn ask(core: BusClient, stop: Arc<AtomicBool>) -> u32 {
    let (to, mut number) = (endpoint(AGENT), 1);
    while !stop.load(Ordering::Relaxed) {
        let answer = core.request_within::<CommandResult>(&to, kill(number), PATIENCE).await.unwrap();
        assert!(answer.is_sealed());
        assert_eq!(answer.payload().detail, format!("{MARKER} {number}"));
        number += 1;
    }
    number
}

/// Somebody who comes, learns the keys of now, and goes.
async fn visit(deployment: &Deployment, round: u64) {
    let visitor = connect(deployment, OTHER, TO_CORE).await;
    for number in 0..VISIT {
        visitor.publish(alert(format!("{round}.{number}"))).await.unwrap();
    }
    let answer = visitor.request_within::<CommandResult>(&endpoint(AGENT), kill(1), PATIENCE).await.unwrap();
    assert_eq!(answer.payload().detail, format!("{MARKER} 1"));
    visitor.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_rotations_a_second_of_every_key_lose_nothing() {
    let deployment = deploy().await;
    let core = connect(&deployment, CORE, TO_CORE).await;
    // Another process of the same component, which reads what the first one's new keys are for.
    let twin = connect(&deployment, CORE, TO_CORE).await;
    let agent = connect(&deployment, AGENT, TO_CORE).await;
    let receivers = [&core, &twin].map(|bus| {
        let bus = bus.clone();
        async move { bus.subscribe::<AlertEvent>().await.unwrap() }
    });
    let receivers = futures_util::future::join_all(receivers).await;
    let receivers: Vec<_> = receivers.into_iter().map(|alerts| tokio::spawn(receive(alerts))).collect();
    let server = agent.serve_commands(Obedient).await.unwrap();
    let stop = Arc::<AtomicBool>::default();
    let reporting = tokio::spawn(report(agent.clone(), Arc::clone(&stop)));
    let asking = tokio::spawn(ask(core.clone(), Arc::clone(&stop)));

    let mut ticks = tokio::time::interval(EVERY);
    let (mut versions, mut visits) = (BTreeMap::<&str, u64>::new(), Vec::new());
    for round in 0..ROTATIONS {
        ticks.tick().await;
        let (signing, signing_of_agent, sealing, sealing_of_agent) = tokio::join!(
            core.rotate_signing_key(),
            agent.rotate_signing_key(),
            core.rotate_sealing_key(),
            agent.rotate_sealing_key()
        );
        assert_ne!(signing.unwrap(), signing_of_agent.unwrap());
        versions.insert(CORE, sealing.unwrap());
        versions.insert(AGENT, sealing_of_agent.unwrap());
        if round % 2 == 0 {
            visit(&deployment, round).await;
            visits.extend((0..VISIT).map(|number| format!("{round}.{number}")));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (reported, asked) = (reporting.await.unwrap(), asking.await.unwrap());
    agent.publish(alert(END)).await.unwrap();
    agent.flush().await.unwrap();
    assert_eq!(versions, [(CORE, ROTATIONS + 1), (AGENT, ROTATIONS + 1)].into());
    assert!(reported > 100 && asked > 10, "{reported} events, {asked} requests");

    for receiver in receivers {
        let arrived = soon("what was published last", receiver).await.unwrap();
        assert!(arrived.by_sender[&endpoint(AGENT)].iter().cloned().eq((0..reported).map(|number| number.to_string())));
        assert_eq!(arrived.by_sender[&endpoint(OTHER)], visits);
        assert!(arrived.keys.len() > usize::try_from(ROTATIONS / 2).unwrap(), "{} keys", arrived.keys.len());
    }
    server.stop().await;
    for bus in [&core, &twin, &agent] {
        assert!(bus.refusals().is_empty(), "{}: {:?}", bus.principal(), bus.refusals());
        assert_eq!((bus.stats().missed, bus.stats().unsent), (0, 0));
    }
}
