//! The keys of an epoch come along from time to time. Who comes late waits for them, and for nothing else.

use bus_client::Status;

use super::*;

/// A sender of sealed telemetry whose keys have gone by, and a recipient who comes after that.
async fn late(deployment: &Deployment) -> (BusClient, BusClient) {
    let first = connect(deployment, CORE, TO_CORE).await;
    let mut telemetry = first.subscribe::<TelemetryEvent>().await.unwrap();
    let agent = connect(deployment, AGENT, TO_CORE).await;
    agent.publish(load(0.0)).await.unwrap();
    assert_eq!(next(&mut telemetry).await.unwrap().payload(), &load(0.0));
    // The signing key is looked up where the late one looks as well.
    soon("the bundle in the keys stream", async {
        let owner = endpoint(AGENT);
        while !first.published_keys(&owner).await.unwrap().keys.iter().any(|key| key.key_id == agent.signing_key()) {}
    })
    .await;
    first.drain().await.unwrap();
    (agent, connect(deployment, CORE, TO_CORE).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_reads_from_the_next_epoch_on() {
    let deployment = deploy().await;
    let (agent, core) = late(&deployment).await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let mut watched = core.subscribe::<AnyPayload>().await.unwrap();
    agent.publish(load(1.0)).await.unwrap();
    let rejected = next(&mut telemetry).await.unwrap_err();
    assert_eq!(rejected.reason(), "unknown_epoch");
    assert!(rejected.to_string().contains("it comes again within 10 s"), "{rejected}");
    let shown = next(&mut watched).await.unwrap();
    assert!(matches!(shown.payload(), AnyPayload::Sealed(sealed) if sealed.wrapped_keys.is_empty()));
    // A new signing key begins a new epoch.
    agent.rotate_signing_key().await.unwrap();
    for number in 2..10_u32 {
        agent.publish(load(number.into())).await.unwrap();
        assert_eq!(next(&mut telemetry).await.unwrap().payload(), &load(number.into()));
        assert_eq!(next(&mut watched).await.unwrap().payload(), &AnyPayload::Telemetry(load(number.into())));
    }
    assert_eq!(core.refusals(), [("unknown_epoch", 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_reads_within_ten_seconds() {
    let deployment = deploy().await;
    let (agent, core) = late(&deployment).await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let mut closed = 0;
    let heard = timeout(Duration::from_secs(15), async {
        loop {
            ticks.tick().await;
            agent.publish(load(1.0)).await.unwrap();
            match next(&mut telemetry).await {
                Ok(_) => return,
                Err(rejected) => assert_eq!(rejected.reason(), "unknown_epoch"),
            }
            closed += 1;
        }
    });
    heard.await.expect("the keys in time");
    assert_eq!(core.refusals(), [("unknown_epoch", closed)].into());
    agent.publish(load(2.0)).await.unwrap();
    assert_eq!(next(&mut telemetry).await.unwrap().payload(), &load(2.0), "they are kept");
}

/// What is worth something for longer than a moment never waits for keys.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_reads_alerts_at_once() {
    let deployment = deploy().await;
    let (agent, core) = late(&deployment).await;
    agent.publish(alert("before")).await.unwrap();
    agent.flush().await.unwrap();
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    agent.publish(alert("after")).await.unwrap();
    assert_eq!(next(&mut alerts).await.unwrap().payload(), &alert("after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_of_the_sender_brings_the_keys_again() {
    let mut deployment = deploy().await;
    let (agent, core) = late(&deployment).await;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await.unwrap();
    let former = agent.signing_key();
    deployment.server.kill().unwrap();
    let is = async |bus: &BusClient, wanted: Status| {
        soon("the status", bus.status().wait_for(|status| *status == wanted)).await.unwrap();
    };
    is(&agent, Status::Disconnected).await;
    is(&core, Status::Disconnected).await;
    deployment.server.restart().unwrap();
    is(&agent, Status::Connected).await;
    is(&core, Status::Connected).await;
    agent.publish(load(1.0)).await.unwrap();
    assert_eq!(next(&mut telemetry).await.unwrap().payload(), &load(1.0));
    assert_eq!(agent.signing_key(), former, "it is the same epoch");
    assert!(core.refusals().is_empty(), "{:?}", core.refusals());
}
