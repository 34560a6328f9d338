//! What a message is about is sealed apart from it, to readers of its own.

use bus_proto::v1::Reference;
use bus_proto::{IntoOutgoing, Outgoing};

use super::*;

fn case(value: &str) -> Reference {
    Reference { kind: "case".into(), value: value.into() }
}

fn about(message: impl IntoOutgoing, value: &str, readers: &[&str]) -> Outgoing {
    message.with_references([case(value)], readers.iter().map(|name| endpoint(name)))
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_what_an_event_is_about_and_others_that_it_is_about_something() {
    let deployment = deploy().await;
    let broker = Broker::before(&deployment).await.unwrap();
    let (core, other) = (connect(&deployment, CORE, "").await, connect(&deployment, CORE_2, "").await);
    let agent = connect_through(&broker, &deployment, AGENT, "").await;
    let mut seen = all_from(&broker, AGENT);
    let mut known = core.subscribe::<AlertEvent>().await.unwrap();
    let mut unknown = other.subscribe::<AlertEvent>().await.unwrap();
    for number in 0..5 {
        let value = format!("{MARKER} {number}");
        agent.publish(about(alert(number.to_string()), &value, &[CORE])).await.unwrap();
        let received = next(&mut known).await.unwrap();
        assert_eq!(received.references(), [case(&value)]);
        assert!(!received.has_hidden_references() && !received.is_sealed());
        let received = next(&mut unknown).await.unwrap();
        assert!(received.references().is_empty() && received.has_hidden_references());
        assert_eq!(received.payload(), &alert(number.to_string()));
    }
    agent.publish(alert("about nothing")).await.unwrap();
    let received = next(&mut unknown).await.unwrap();
    assert!(received.references().is_empty() && !received.has_hidden_references());
    let seen = passed(&mut seen);
    assert_eq!(of_the_bus(&seen).len(), 6);
    assert!(!seen.iter().any(|message| contains(&message.payload, MARKER)));
    assert!(core.refusals().is_empty() && other.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_readers_and_several_references_and_who_comes_late() {
    let deployment = deploy().await;
    deployment.publish_sealing_key(CORE).await;
    deployment.publish_sealing_key(CORE_2).await;
    let agent = connect(&deployment, AGENT, "").await;
    let all = [case("2026-0117"), Reference { kind: "host".into(), value: "db-3".into() }];
    let readers = [CORE_2, CORE, CORE_2].map(endpoint);
    agent.publish(load(0.0).with_references(all.clone(), readers.clone())).await.unwrap();
    agent.flush().await.unwrap();
    agent.rotate_signing_key().await.unwrap();
    // Whoever comes now needs nothing of what was before.
    let (core, other) = (connect(&deployment, CORE, "").await, connect(&deployment, CORE_2, "").await);
    for bus in [&core, &other] {
        let mut telemetry = bus.subscribe::<TelemetryEvent>().await.unwrap();
        agent.publish(load(1.0).with_references(all.clone(), readers.clone())).await.unwrap();
        agent.rotate_signing_key().await.unwrap();
        let received = next(&mut telemetry).await.unwrap();
        assert_eq!((received.payload(), received.references()), (&load(1.0), all.as_slice()));
    }
}

/// The one who acts need not know why, and the one who knows need not be able to read the order.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_message_has_other_readers_of_what_it_is_about() {
    let deployment = deploy().await;
    deployment.publish_sealing_key(CORE_2).await;
    let (core, agent) = (connect(&deployment, CORE, TO_CORE).await, connect(&deployment, AGENT, TO_CORE).await);
    let mut inbox = agent.subscribe_inbox::<Registered<Note>>().await.unwrap();
    core.send(&endpoint(AGENT), about(note("open it"), "hidden", &[CORE_2])).await.unwrap();
    let received = next(&mut inbox).await.unwrap();
    assert!(received.is_sealed() && received.has_hidden_references());
    assert_eq!((received.payload(), received.references()), (&note("open it"), [].as_slice()));
    core.send(&endpoint(AGENT), about(note("again"), "shown", &[AGENT])).await.unwrap();
    assert_eq!(next(&mut inbox).await.unwrap().references(), [case("shown")]);

    let (reader, reports) = (connect(&deployment, CORE_2, TO_CORE).await, core.subscribe::<AlertEvent>().await);
    let mut watched = reader.subscribe::<AnyPayload>().await.unwrap();
    agent.publish(about(alert("secret"), "why", &[CORE_2])).await.unwrap();
    let shown = next(&mut watched).await.unwrap();
    assert!(matches!(shown.payload(), AnyPayload::Sealed(_)));
    assert_eq!(shown.references(), [case("why")]);
    let read = next(&mut reports.unwrap()).await.unwrap();
    assert_eq!(read.payload(), &alert("secret"));
    assert!(read.has_hidden_references());
}

/// What a message is about is its own: it shares its envelope with no other message.
#[tokio::test(flavor = "multi_thread")]
async fn messages_with_references_keep_their_place_and_their_own_references_among_batches() {
    let deployment = deploy().await;
    let (core, agent) = (connect(&deployment, CORE, TO_CORE).await, connect(&deployment, AGENT, TO_CORE).await);
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    let count = 1_000;
    for number in 0..count {
        let message = alert(number.to_string());
        match number % 50 {
            0 => agent.publish(about(message, &number.to_string(), &[CORE])).await.unwrap(),
            _ => agent.publish(message).await.unwrap(),
        }
    }
    let mut batched = 0;
    for number in 0..count {
        let received = next(&mut alerts).await.unwrap();
        assert_eq!(received.payload(), &alert(number.to_string()));
        let expected = if number % 50 == 0 { vec![case(&number.to_string())] } else { Vec::new() };
        assert_eq!(received.references(), expected);
        assert!(expected.is_empty() || received.batch_index().is_none());
        batched += u32::from(received.batch_index().is_some());
    }
    assert!(batched > 0, "nothing was gathered");
    assert!(core.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn references_for_nobody_or_for_who_was_never_there_are_not_sent() {
    let deployment = deploy().await;
    let agent = connect(&deployment, AGENT, "").await;
    let nobody = agent.publish(about(alert("of what?"), "x", &[])).await.unwrap_err();
    assert!(matches!(nobody, PublishError::Invalid(_)), "{nobody}");
    let nothing = agent.publish(alert("of what?").with_references([], [endpoint(CORE)])).await.unwrap_err();
    assert!(matches!(nothing, PublishError::Invalid(_)), "{nothing}");
    let unknown = agent.publish(about(alert("of what?"), "x", &[CORE_3])).await.unwrap_err();
    assert!(matches!(unknown, PublishError::NoSealingKey(NoSealingKey::Unknown { .. })), "{unknown}");
    assert_eq!(agent.stats().published, 0);
}
