//! Sealing keys, as components publish them and find each other's.

use bus_client::{BusClient, BusEvent, BusOptions, KeysError, NoSealingKey, SealingKeys};
use bus_proto::Endpoint;
use bus_tls::{TlsIdentity, TlsOptions};

use super::*;

const CORE_KEYS: &str = "ransomeye.sealing.core.core-01";

fn endpoint(name: &str) -> Endpoint {
    name.parse().unwrap()
}

fn new_keys(name: &str) -> SealingKeys {
    SealingKeys::in_memory(&principal(name)).unwrap()
}

async fn version_of(bus: &BusClient, name: &str) -> u64 {
    bus.sealing_key_of(&endpoint(name)).await.unwrap().version
}

/// How many records of the core's the stream has.
async fn stored(raw: &Component) -> usize {
    let mut messages = raw.get(CORE_KEYS).await;
    messages.pop();
    messages.len()
}

#[tokio::test]
async fn a_sealing_key_that_was_published_is_found_and_verified() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let keys = new_keys(CORE);
    core.publish_sealing_key(&keys).await.unwrap();
    let found = agent.sealing_key_of(&endpoint(CORE)).await.unwrap();
    assert_eq!(found.version, 1);
    assert!(found.not_after > keys.newest().created_unix_ms());
    assert!(found.not_after <= keys.newest().not_after_unix_ms());
    assert_eq!(core.sealing_key_of(&endpoint(CORE)).await.unwrap(), found, "its owner finds it as well");
}

#[tokio::test]
async fn a_key_is_published_once_and_again_when_it_was_replaced_or_pushed_back() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let core = deployment.connect(CORE).await;
    let raw = Component::connect(&deployment, CORE, SEALING).await;
    let keys = new_keys(CORE);
    for _ in 0..2 {
        core.publish_sealing_key(&keys).await.unwrap();
        assert_eq!(stored(&raw).await, 1);
    }
    keys.rotate().unwrap();
    core.publish_sealing_key(&keys).await.unwrap();
    assert_eq!(stored(&raw).await, 2);
    raw.store("not a record").await;
    core.publish_sealing_key(&keys).await.unwrap();
    assert_eq!(stored(&raw).await, 4);
    assert_eq!(version_of(&deployment.connect(AGENT).await, CORE).await, 2);
}

#[tokio::test]
async fn an_old_record_that_is_stored_again_changes_nothing() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let core = deployment.connect(CORE).await;
    let raw = Component::connect(&deployment, CORE, SEALING).await;
    let keys = new_keys(CORE);
    core.publish_sealing_key(&keys).await.unwrap();
    let old = raw.get(CORE_KEYS).await.remove(0).payload;
    keys.rotate().unwrap();
    core.publish_sealing_key(&keys).await.unwrap();
    raw.nats.request(CORE_KEYS, old).await.unwrap();
    assert_eq!(version_of(&deployment.connect(AGENT).await, CORE).await, 2);
}

#[tokio::test]
async fn keys_that_begin_anew_go_on_above_what_others_know() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let core = deployment.connect(CORE).await;
    let former = new_keys(CORE);
    former.rotate().unwrap();
    core.publish_sealing_key(&former).await.unwrap();
    for expected in [3, 4] {
        let restored = new_keys(CORE);
        core.publish_sealing_key(&restored).await.unwrap();
        assert_eq!(restored.newest().version(), expected);
        assert_eq!(version_of(&deployment.connect(AGENT).await, CORE).await, expected);
    }
}

#[tokio::test]
async fn a_lower_version_than_was_seen_is_refused_once_the_newer_one_is_good_no_more() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let (files, authority) = (deployment.issue(AGENT), &deployment.authority);
    let tls = TlsOptions::new(files.certificate, files.key, authority.ca_path()).crl(authority.crl_path());
    let agent = BusOptions::new(deployment.server.url(), TlsIdentity::load(tls).unwrap());
    let agent = BusClient::connect(agent).await.unwrap();
    let keys = new_keys(CORE);
    deployment.connect(CORE).await.publish_sealing_key(&keys).await.unwrap();
    keys.rotate().unwrap();
    // Another certificate of the same component.
    let identity = deployment.identity(CORE);
    let serial = identity.leaf().serial().to_owned();
    let core = BusClient::connect(BusOptions::new(deployment.server.url(), identity)).await.unwrap();
    core.publish_sealing_key(&keys).await.unwrap();
    assert_eq!(version_of(&agent, CORE).await, 2);

    deployment.authority.revoke_serial(&serial).unwrap();
    // It connects anew with the list, and what it asks on the former connection may be lost.
    let mut events = agent.events();
    agent.refresh_identity().await.unwrap();
    let connected = async { while !matches!(events.recv().await.unwrap(), BusEvent::Connected) {} };
    timeout(PATIENCE, connected).await.unwrap();
    let refused = agent.sealing_key_of(&endpoint(CORE)).await.unwrap_err();
    assert_eq!(refused, NoSealingKey::RolledBack { component: endpoint(CORE), version: 1, highest: 2 });
}

#[tokio::test]
async fn what_is_no_record_or_anothers_is_refused_with_the_reason() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let core = deployment.connect(CORE).await;
    core.publish_sealing_key(&new_keys(CORE)).await.unwrap();
    let raw = Component::connect(&deployment, AGENT, SEALING).await;
    let anothers = raw.get(CORE_KEYS).await.remove(0).payload;
    raw.nats.request(raw.keys(), anothers).await.unwrap();
    let refused = core.sealing_key_of(&endpoint(AGENT)).await.unwrap_err();
    assert!(refused.to_string().contains(&principal(CORE).to_string()), "{refused}");
    raw.store("not a record").await;
    let refused = deployment.connect(CORE).await.sealing_key_of(&endpoint(AGENT)).await.unwrap_err();
    assert!(matches!(refused, NoSealingKey::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn whose_key_nobody_knows_is_named_and_so_is_a_stream_that_is_not_there() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let unknown = deployment.connect(CORE).await.sealing_key_of(&endpoint(AGENT)).await.unwrap_err();
    assert_eq!(unknown, NoSealingKey::Unknown { component: endpoint(AGENT) });
    assert!(unknown.to_string().starts_with("no sealing key is known for agent/agent-01"), "{unknown}");

    let store = tempfile::tempdir().unwrap();
    let without = unprovisioned(&store);
    let core = without.connect(CORE).await;
    let error = core.sealing_key_of(&endpoint(AGENT)).await.unwrap_err();
    assert_eq!(error, NoSealingKey::NoStream { stream: SEALING.0.to_owned() });
    assert!(error.to_string().contains("bus server provision"), "{error}");
    let error = core.publish_sealing_key(&new_keys(CORE)).await.unwrap_err();
    assert!(matches!(&error, KeysError::NoStream { stream } if stream == SEALING.0), "{error}");
}
