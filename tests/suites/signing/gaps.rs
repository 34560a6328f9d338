//! What a subscriber missed is told with its sender, its key, its subject and its numbers.

use std::collections::BTreeMap;

use bus_client::Gap;
use bus_crypto::KeyId;

use super::*;

/// Which numbers arrived, and which are told to be missing, by sender and key. No number is told twice.
#[derive(Debug, Default)]
struct Ledger(BTreeMap<(String, KeyId), BTreeMap<u64, bool>>);

impl Ledger {
    fn note(&mut self, sender: &bus_proto::Principal, key_id: KeyId, sequence: u64, arrived: bool) {
        let numbers = self.0.entry((sender.to_string(), key_id)).or_default();
        assert_eq!(numbers.insert(sequence, arrived), None, "{sequence} of {sender} twice");
    }

    fn note_gap(&mut self, gap: &Gap) {
        assert_eq!(gap.count(), gap.last - gap.first + 1);
        (gap.first..=gap.last).for_each(|sequence| self.note(&gap.sender, gap.key_id, sequence, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_names_sender_key_subject_and_range() {
    let deployment = Deployment::start(&[CORE, AGENT, OTHER]);
    let core = BusClient::connect(deployment.options(CORE).subscription_capacity(20)).await.unwrap();
    let mut told = core.events();
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let mut senders = Vec::new();
    for name in [AGENT, OTHER] {
        senders.push(BusClient::connect(deployment.options(name).max_batch(1)).await.unwrap());
    }
    let (mut ledger, mut missed, mut last) = (Ledger::default(), 0, BTreeMap::new());
    // The first of each arrives: what comes before it is nobody's loss.
    for sender in &senders {
        sender.publish(beat(0)).await.unwrap();
        let first = next(&mut beats).await.unwrap();
        ledger.note(first.sender(), first.key_id(), first.sequence(), true);
    }
    for _ in 0..300 {
        for sender in &senders {
            sender.publish(beat(1)).await.unwrap();
        }
    }
    for sender in &senders {
        sender.flush().await.unwrap();
    }
    core.flush().await.unwrap();
    wait_for_event(&mut told, |event| *event == BusEvent::SlowConsumer).await;
    // Messages go on, one by one, until the latest of each has arrived: then every gap is known.
    for (number, sender) in senders.iter().enumerate() {
        let mut sent = 301;
        'rounds: loop {
            sender.publish(beat(2)).await.unwrap();
            sent += 1;
            while let Ok(received) = timeout(Duration::from_millis(200), beats.next()).await {
                let received = received.unwrap().unwrap();
                ledger.note(received.sender(), received.key_id(), received.sequence(), true);
                if *received.sender() == *sender.principal() && received.sequence() == sent {
                    break 'rounds;
                }
            }
        }
        last.insert(number, sent);
    }
    for gap in beats.take_gaps() {
        assert_eq!(
            gap.subject,
            format!("ransomeye.events.heartbeat.agent.{}", gap.sender.component()),
            "of {}",
            gap.sender
        );
        missed += gap.count();
        ledger.note_gap(&gap);
        wait_for_event(&mut told, |event| *event == BusEvent::Gap(gap.clone())).await;
    }
    assert!(missed > 0);
    assert_eq!((beats.missed(), core.stats().missed), (missed, missed));
    assert_eq!(beats.take_gaps(), Vec::new(), "they are told once");
    assert_eq!(ledger.0.len(), 2);
    for (number, sender) in senders.iter().enumerate() {
        let numbers = &ledger.0[&(sender.principal().to_string(), sender.signing_key())];
        assert!(numbers.keys().copied().eq(1..=last[&number]), "every number arrived or is told to be missing");
    }
}

#[tokio::test]
async fn messages_of_a_batch_that_is_missed_are_one_envelope() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    // Room for one envelope.
    let core = BusClient::connect(deployment.options(CORE).subscription_capacity(1)).await.unwrap();
    let agent = deployment.connect(AGENT).await;
    let mut told = core.events();
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    expect_beats(&mut beats, [0]).await;
    for round in 1..=2 {
        for uptime in 0..10 {
            agent.publish(beat(10 * round + uptime)).await.unwrap();
        }
        agent.flush().await.unwrap();
    }
    wait_for_event(&mut told, |event| *event == BusEvent::SlowConsumer).await;
    expect_beats(&mut beats, 10..20).await;
    agent.publish(beat(30)).await.unwrap();
    expect_beats(&mut beats, [30]).await;
    let gaps = beats.take_gaps();
    assert!(
        matches!(gaps.as_slice(), [Gap { first: 3, last: 3, key_id, .. }] if *key_id == agent.signing_key()),
        "{gaps:?}"
    );
    assert_eq!(beats.missed(), 1);
}

#[tokio::test]
async fn a_new_key_begins_a_new_count_and_is_no_gap() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    for uptime in 1..=3 {
        agent.publish(beat(uptime)).await.unwrap();
        agent.flush().await.unwrap();
    }
    let former = agent.signing_key();
    agent.rotate_signing_key().await.unwrap();
    agent.publish(beat(4)).await.unwrap();
    let mut seen = Vec::new();
    for _ in 1..=4 {
        let received = next(&mut beats).await.unwrap();
        seen.push((received.key_id(), received.sequence()));
    }
    assert_eq!(seen, [(former, 1), (former, 2), (former, 3), (agent.signing_key(), 1)]);
    assert_eq!((beats.missed(), beats.take_gaps()), (0, Vec::new()));
}
