//! The keys that others seal to: in files that processes share, under a passphrase, in memory, old copies of them.

use std::path::PathBuf;

use bus_client::{BusEvent, SealingKeys, SealingKeysError, SecretString};
use bus_tests::deployment::principal;

use super::*;

/// Where the keys of a component are by default.
fn key_file(deployment: &Deployment, name: &str) -> PathBuf {
    SealingKeys::default_path(deployment.identity(name).key_path())
}

async fn with_keys(deployment: &Deployment, name: &str, keys: SealingKeys) -> BusClient {
    BusClient::connect(options(deployment, name, "").sealing_keys(keys)).await.unwrap()
}

/// A sender that knows nothing yet.
async fn fresh(deployment: &Deployment) -> BusClient {
    connect(deployment, AGENT, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processes_of_a_component_share_one_file_and_what_one_rotates_the_others_open() {
    let deployment = deploy().await;
    let (one, two) = (connect(&deployment, CORE, "").await, connect(&deployment, CORE, "").await);
    let mut inboxes = [
        one.subscribe_inbox::<Registered<Note>>().await.unwrap(),
        two.subscribe_inbox::<Registered<Note>>().await.unwrap(),
    ];
    for (rotating, version) in [(&one, 2), (&two, 3), (&two, 4), (&one, 5)] {
        assert_eq!(rotating.rotate_sealing_key().await.unwrap(), version);
        let agent = fresh(&deployment).await;
        agent.send(&endpoint(CORE), note(version.to_string())).await.unwrap();
        assert_eq!(agent.sealing_key_of(&endpoint(CORE)).await.unwrap().version, version);
        for inbox in &mut inboxes {
            assert_eq!(next(inbox).await.unwrap().payload(), &note(version.to_string()));
        }
    }
    assert!(one.refusals().is_empty() && two.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_an_old_copy_of_the_keys_says_which_one_it_lacks() {
    let deployment = deploy().await;
    let core = connect(&deployment, CORE, "").await;
    let mut inbox = core.subscribe_inbox::<Registered<Note>>().await.unwrap();
    assert_eq!(core.rotate_sealing_key().await.unwrap(), 2);
    let copy = deployment.path().join("copy.sealing");
    std::fs::copy(key_file(&deployment, CORE), &copy).unwrap();
    let old = with_keys(&deployment, CORE, SealingKeys::open(copy, &principal(CORE)).unwrap()).await;
    let mut of_old = old.subscribe_inbox::<Registered<Note>>().await.unwrap();
    assert_eq!(core.rotate_sealing_key().await.unwrap(), 3);
    fresh(&deployment).await.send(&endpoint(CORE), note("secret")).await.unwrap();
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &note("secret"));
    let rejected = next(&mut of_old).await.unwrap_err();
    assert_eq!(rejected.reason(), "unknown_sealing_key");
    let text = rejected.to_string();
    assert!(text.starts_with("sealed for key version 3 of core-01, this process has 1 and 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_never_there_is_named() {
    let deployment = deploy().await;
    let core = connect(&deployment, CORE, "").await;
    let sent = core.send(&endpoint("agent/agent-07"), kill(1)).await.unwrap_err();
    assert!(sent.to_string().starts_with("no sealing key is known for agent/agent-07"), "{sent}");
    let asked = core.request::<CommandResult>(&endpoint("agent/agent-07"), kill(1)).await.unwrap_err();
    assert!(asked.to_string().contains("no sealing key is known for agent/agent-07"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_restarted_reads_what_is_sealed_to_its_former_key() {
    let deployment = deploy().await;
    let former = connect(&deployment, CORE, "").await;
    let mut inbox = former.subscribe_inbox::<AnyPayload>().await.unwrap();
    let agent = fresh(&deployment).await;
    agent.send(&endpoint(CORE), alert("before")).await.unwrap();
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &AnyPayload::Alert(alert("before")));
    former.drain().await.unwrap();

    let core = connect(&deployment, CORE, "").await;
    let mut inbox = core.subscribe_inbox::<AnyPayload>().await.unwrap();
    assert_eq!(core.rotate_sealing_key().await.unwrap(), 2);
    agent.send(&endpoint(CORE), alert("after")).await.unwrap();
    assert_eq!(agent.sealing_key_of(&endpoint(CORE)).await.unwrap().version, 1, "the sender has heard nothing of it");
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &AnyPayload::Alert(alert("after")));
    assert!(core.refusals().is_empty());
}

/// Whatever its type: who receives it may be another process than before, and nobody sends it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_restarted_reads_directed_messages_of_any_type_at_once() {
    let deployment = deploy().await;
    deployment.publish_sealing_key(CORE).await;
    let agent = fresh(&deployment).await;
    for round in 0..3 {
        let core = connect(&deployment, CORE, "").await;
        let mut inbox = core.subscribe_inbox::<AnyPayload>().await.unwrap();
        agent.send(&endpoint(CORE), load(round.into())).await.unwrap();
        let received = next(&mut inbox).await.unwrap();
        assert_eq!(received.payload(), &AnyPayload::Telemetry(load(round.into())));
        core.drain().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_memory_are_gone_with_their_process_and_new_ones_take_over() {
    let deployment = deploy().await;
    let keys = || SealingKeys::in_memory(&principal(CORE)).unwrap();
    let core = with_keys(&deployment, CORE, keys()).await;
    let mut inbox = core.subscribe_inbox::<CommandRequest>().await.unwrap();
    let agent = fresh(&deployment).await;
    agent.send(&endpoint(CORE), kill(1)).await.unwrap();
    let first = next(&mut inbox).await.unwrap();
    assert!(first.is_sealed());
    assert_eq!(core.rotate_sealing_key().await.unwrap(), 2);
    let second = fresh(&deployment).await;
    second.send(&endpoint(CORE), kill(2)).await.unwrap();
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &kill(2));
    core.drain().await.unwrap();
    assert!(!key_file(&deployment, CORE).exists());

    let core = with_keys(&deployment, CORE, keys()).await;
    let mut inbox = core.subscribe_inbox::<CommandRequest>().await.unwrap();
    // Versions go on from what others have seen.
    let third = fresh(&deployment).await;
    third.send(&endpoint(CORE), kill(3)).await.unwrap();
    assert_eq!(third.sealing_key_of(&endpoint(CORE)).await.unwrap().version, 3);
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &kill(3));
    second.send(&endpoint(CORE), kill(4)).await.unwrap();
    let rejected = next(&mut inbox).await.unwrap_err();
    assert!(rejected.to_string().starts_with("sealed for key version 2 of core-01, this process has"), "{rejected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_under_a_passphrase_serves_those_who_know_it() {
    let deployment = deploy().await;
    let path = deployment.path().join("locked.sealing");
    let passphrase = || SecretString::from("correct horse battery staple");
    let open = || SealingKeys::open_with_passphrase(&path, &principal(CORE), passphrase()).unwrap();
    let one = with_keys(&deployment, CORE, open()).await;
    let two = with_keys(&deployment, CORE, open()).await;
    let mut inbox = two.subscribe_inbox::<Registered<Note>>().await.unwrap();
    assert_eq!(one.rotate_sealing_key().await.unwrap(), 2);
    let agent = fresh(&deployment).await;
    agent.send(&endpoint(CORE), note("secret")).await.unwrap();
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &note("secret"));
    assert_eq!(agent.sealing_key_of(&endpoint(CORE)).await.unwrap().version, 2);

    let without = SealingKeys::open(&path, &principal(CORE)).unwrap_err();
    assert!(matches!(without, SealingKeysError::PassphraseNeeded { .. }), "{without}");
    let wrong = SealingKeys::open_with_passphrase(&path, &principal(CORE), SecretString::from("another")).unwrap_err();
    assert!(matches!(wrong, SealingKeysError::WrongPassphrase { .. }), "{wrong}");
    assert!(!key_file(&deployment, CORE).exists(), "it is the only file");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_usable_keys_does_not_receive() {
    let deployment = deploy().await;
    std::fs::write(key_file(&deployment, CORE), "no keys").unwrap();
    let core = connect(&deployment, CORE, "").await;
    let subscribed = core.subscribe_inbox::<CommandRequest>().await.unwrap_err();
    assert!(subscribed.to_string().contains("core-01.sealing"), "{subscribed}");
    // What needs no keys works.
    core.publish(load(1.0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_grow_old_are_replaced_by_one_of_the_processes_and_nothing_is_lost() {
    let deployment = deploy().await;
    // With one certificate: none of them connects anew for another.
    let ages = options(&deployment, CORE, "").sealing_key_age(Duration::from_millis(500));
    let ages = ages.rotation_check(Duration::from_millis(50));
    let (one, two) = (BusClient::connect(ages.clone()).await.unwrap(), BusClient::connect(ages).await.unwrap());
    let mut inboxes = [
        one.subscribe_inbox::<Registered<Note>>().await.unwrap(),
        two.subscribe_inbox::<Registered<Note>>().await.unwrap(),
    ];
    let mut told = one.events();
    for number in 0..4_u64 {
        let agent = fresh(&deployment).await;
        agent.send(&endpoint(CORE), note(number.to_string())).await.unwrap();
        for inbox in &mut inboxes {
            assert_eq!(next(inbox).await.unwrap().payload(), &note(number.to_string()));
        }
        soon("another key", async {
            while !matches!(told.recv().await.unwrap(), BusEvent::SealingKeyRotated { version } if version >= number + 2) {}
        })
        .await;
    }
    assert!(one.refusals().is_empty() && two.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_short_limits_get_through_though_the_file_takes_long_to_open() {
    let deployment = deploy().await;
    deployment.publish_sealing_key(AGENT).await;
    let agent = connect(&deployment, AGENT, "").await;
    let _server = agent.serve_commands(Obedient).await.unwrap();
    let path = deployment.path().join("locked.sealing");
    let options = options(&deployment, CORE, "").sealing_keys_file(path, Some(SecretString::from("correct horse")));
    let core = BusClient::connect(options).await.unwrap();
    // Each waits for a part of what opening takes, and none undoes what another has waited for.
    let mut last = None;
    for _ in 0..300 {
        match core.request_within::<CommandResult>(&endpoint(AGENT), kill(1), Duration::from_millis(100)).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
    }
    panic!("{last:?}");
}
