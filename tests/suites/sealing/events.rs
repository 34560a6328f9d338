//! Events are sealed to those whom the policy names, and to those whom the sender names.

use bus_proto::MessageType;

use super::*;

const TO_TWO: &str = r#"
[[form]]
types = ["Alert"]
to = "events"
seal = "on"
recipients = ["core/core-01", "core/core-02"]
"#;

/// Cores one to three, of which each has its subscription to alerts.
async fn cores(deployment: &Deployment) -> Vec<(BusClient, Subscription<AlertEvent>)> {
    let mut cores = Vec::new();
    for name in [CORE, CORE_2, CORE_3] {
        let core = connect(deployment, name, "").await;
        let alerts = core.subscribe().await.unwrap();
        cores.push((core, alerts));
    }
    cores
}

/// Checks that these of the three cores can read what the agent publishes, and that the others are told why they cannot.
async fn is_read_by(deployment: &Deployment, agent: &BusClient, readers: [bool; 3]) {
    let mut cores = cores(deployment).await;
    let count = readers.iter().filter(|reads| **reads).count();
    for number in 0..20 {
        agent.publish(alert(number.to_string())).await.unwrap();
    }
    for ((core, alerts), reads) in cores.iter_mut().zip(readers) {
        let mut read = 0;
        while reads && read < 20 {
            let received = next(alerts).await.unwrap();
            assert!(received.is_sealed());
            assert_eq!(received.payload(), &alert(read.to_string()));
            read += 1;
        }
        if !reads {
            let rejected = next(alerts).await.unwrap_err();
            assert!(matches!(rejected, Rejected::NotARecipient { recipients } if recipients == count), "{rejected}");
            assert_eq!(rejected.reason(), "not_a_recipient");
            let text = format!("the message is sealed to {count} others, and not to this component");
            assert_eq!(rejected.to_string(), text);
        } else {
            assert!(core.refusals().is_empty(), "{:?}", core.refusals());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sealed_to_the_one_whom_the_policy_names() {
    let deployment = deploy().await;
    deployment.publish_sealing_key(CORE).await;
    let agent = connect(&deployment, AGENT, TO_CORE).await;
    is_read_by(&deployment, &agent, [true, false, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sealed_to_all_whom_the_policy_names() {
    let deployment = deploy().await;
    let agent = connect(&deployment, AGENT, TO_TWO).await;
    is_read_by(&deployment, &agent, [true, true, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sealed_to_those_whom_the_configuration_names() {
    let deployment = deploy().await;
    let options = options(&deployment, AGENT, "").seal_events(MessageType::Alert, [endpoint(CORE_3)]);
    is_read_by(&deployment, &BusClient::connect(options).await.unwrap(), [false, false, true]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sealed_to_those_of_the_policy_and_of_the_configuration() {
    let deployment = deploy().await;
    let options = options(&deployment, AGENT, TO_CORE).seal_events(MessageType::Alert, [endpoint(CORE_3)]);
    is_read_by(&deployment, &BusClient::connect(options).await.unwrap(), [true, false, true]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_sees_that_events_are_sealed_where_from_and_of_what_type() {
    let deployment = deploy().await;
    let broker = Broker::before(&deployment).await.unwrap();
    let core = connect(&deployment, CORE, TO_TWO).await;
    let other = connect(&deployment, CORE_2, TO_TWO).await;
    let watcher = connect_through(&broker, &deployment, CORE_3, TO_TWO).await;
    let agent = connect(&deployment, AGENT, TO_TWO).await;
    let (mut read, _other) = (core.subscribe::<AnyPayload>().await.unwrap(), other.subscribe::<AlertEvent>().await);
    let mut watched = watcher.subscribe::<AnyPayload>().await.unwrap();
    let mut seen = broker.record(CORE_3, Direction::ToClient, |_| true);
    for number in 0..3 {
        let mut envelope = agent.envelope(alert(format!("{MARKER} {number}"))).unwrap();
        envelope.priority = 9;
        envelope.tags = vec![format!("number-{number}")];
        agent.publish(envelope).await.unwrap();
    }
    for number in 0..3 {
        let shown = next(&mut watched).await.unwrap();
        let AnyPayload::Sealed(sealed) = shown.payload() else { panic!("{:?}", shown.payload()) };
        let recipients: Vec<_> = sealed.wrapped_keys.iter().map(|key| key.recipient.rsplit('/').next()).collect();
        assert_eq!(recipients, [Some("core-01"), Some("core-02")]);
        assert!(shown.is_sealed());
        assert_eq!(shown.sender().endpoint, endpoint(AGENT));
        assert_eq!(shown.subject(), "ransomeye.events.alert.agent.agent-01");
        assert_eq!(shown.message_type(), &MessageType::Alert);
        assert_eq!((shown.priority(), shown.tags()), (9, [format!("number-{number}")].as_slice()));
        assert_eq!(shown.sequence(), number + 1);
        let opened = next(&mut read).await.unwrap();
        assert_eq!(opened.payload(), &AnyPayload::Alert(alert(format!("{MARKER} {number}"))));
        assert_eq!((opened.message_id(), opened.digest()), (shown.message_id(), shown.digest()));
    }
    // What is not sealed is shown as ever.
    agent.publish(load(1.0)).await.unwrap();
    assert_eq!(next(&mut watched).await.unwrap().payload(), &AnyPayload::Telemetry(load(1.0)));
    assert_eq!((watcher.stats().rejected, watched.missed()), (0, 0));
    let seen = passed(&mut seen);
    assert!(seen.len() >= 4 && !seen.iter().any(|message| contains(&message.payload, MARKER)));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_the_policy_wants_sealed_are_refused_unsealed() {
    const REQUIRED: &str =
        "[[form]]\ntypes = [\"Alert\"]\nto = \"events\"\nseal = \"required\"\nrecipients = [\"core/core-01\"]\n";
    let deployment = deploy().await;
    let (core, watcher) = (connect(&deployment, CORE, REQUIRED).await, connect(&deployment, CORE_2, REQUIRED).await);
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    let mut watched = watcher.subscribe::<AnyPayload>().await.unwrap();
    let (plain, sealing) = (connect(&deployment, OTHER, "").await, connect(&deployment, AGENT, REQUIRED).await);
    plain.publish(alert("for everybody")).await.unwrap();
    assert_eq!(next(&mut alerts).await.unwrap_err().reason(), "not_sealed");
    assert_eq!(next(&mut watched).await.unwrap_err().reason(), "not_sealed");
    sealing.publish(alert("secret")).await.unwrap();
    assert_eq!(next(&mut alerts).await.unwrap().payload(), &alert("secret"));
    assert!(matches!(next(&mut watched).await.unwrap().payload(), AnyPayload::Sealed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_to_be_sealed_to_nobody_are_not_sent() {
    let deployment = deploy().await;
    let agent = connect(&deployment, AGENT, "[[form]]\ntypes = [\"Alert\"]\nto = \"events\"\nseal = \"on\"\n").await;
    let published = agent.publish(alert("secret")).await.unwrap_err();
    assert!(matches!(published, PublishError::NoRecipients { message_type: MessageType::Alert }), "{published}");
    assert_eq!(agent.stats().published, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_never_there_cannot_be_sealed_to_until_he_comes() {
    let deployment = deploy().await;
    let agent = connect(&deployment, AGENT, TO_CORE).await;
    let published = agent.publish(alert("secret")).await.unwrap_err();
    assert!(matches!(published, PublishError::NoSealingKey(NoSealingKey::Unknown { .. })), "{published}");
    let core = connect(&deployment, CORE, TO_CORE).await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    at_last("the first key", || agent.publish(alert("secret"))).await;
    assert_eq!(next(&mut alerts).await.unwrap().payload(), &alert("secret"));
}

/// The room that wrapped keys take, to the byte, is taken off what messages may share.
#[tokio::test(flavor = "multi_thread")]
async fn sealed_batches_stay_below_the_greatest_size() {
    let deployment = deploy().await;
    let mut cores = cores(&deployment).await;
    let all = [CORE, CORE_2, CORE_3].map(endpoint);
    for max_payload in [3_000, 4_096, 8_192, 65_536] {
        let options = options(&deployment, AGENT, "").seal_events(MessageType::Alert, all.clone());
        let agent = BusClient::connect(options.max_payload(max_payload)).await.unwrap();
        for number in 0..300 {
            agent.publish(alert(number.to_string() + &"x".repeat(number * 7 % 500))).await.unwrap();
        }
        agent.flush().await.unwrap();
        let stats = agent.stats();
        assert_eq!(stats.unsent, 0, "with {max_payload}");
        assert!(stats.envelopes < stats.published, "nothing was gathered");
        for (core, alerts) in &mut cores {
            for number in 0..300 {
                let received = next(alerts).await.unwrap();
                assert!(received.payload().description.starts_with(&number.to_string()), "{number}");
            }
            assert!(core.refusals().is_empty());
        }
    }
}

/// The length of the longest alert, among some, that is accepted.
async fn longest(agent: &BusClient) -> usize {
    let mut longest = 0;
    for len in (1_500..3_000).step_by(10) {
        match agent.publish(alert("x".repeat(len))).await {
            Ok(()) => longest = len,
            Err(error) => assert!(matches!(error, PublishError::TooLarge { max: 3_000, .. }), "{error}"),
        }
    }
    agent.flush().await.unwrap();
    assert_eq!(agent.stats().unsent, 0, "what was accepted was sent");
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_once_it_is_sealed_is_refused_by_its_call() {
    let deployment = deploy().await;
    deployment.publish_sealing_key(CORE).await;
    deployment.publish_sealing_key(CORE_2).await;
    let mut lengths = Vec::new();
    for forms in ["", TO_CORE, TO_TWO] {
        let agent = BusClient::connect(options(&deployment, AGENT, forms).max_payload(3_000)).await.unwrap();
        lengths.push(longest(&agent).await);
    }
    assert!(lengths[0] > lengths[1] && lengths[1] > lengths[2] && lengths[2] > 1_500, "{lengths:?}");
}
