//! The records in which components state their sealing keys: their ends, and what is older than what was seen.

use async_nats::ConnectOptions;
use bus_client::SealingKeys;
use bus_tls::pki::Profile;
use bus_tls::{TlsIdentity, TlsOptions};

use super::*;

/// How long the short certificates are good for.
const SHORT: Duration = Duration::from_secs(4);

/// An identity with a certificate that ends soon.
fn short_lived(deployment: &Deployment, name: &str) -> TlsIdentity {
    let Endpoint { role, component } = endpoint(name);
    let profile = Profile::component(role, component).unwrap().lifetime(SHORT);
    let files = deployment.authority.issue(&profile).unwrap().write(deployment.path(), true).unwrap();
    TlsIdentity::load(TlsOptions::new(files.certificate, files.key, deployment.authority.ca_path())).unwrap()
}

/// Publishes the newest key of a component under a certificate that ends soon: a new key, if that is asked for.
async fn publish_for_a_while(deployment: &Deployment, name: &str, rotate: bool) {
    let identity = short_lived(deployment, name);
    let keys = SealingKeys::open(SealingKeys::default_path(identity.key_path()), &identity.principal()).unwrap();
    if rotate {
        keys.rotate().unwrap();
    }
    let bus = BusClient::connect(BusOptions::new(deployment.server.url(), identity)).await.unwrap();
    bus.publish_sealing_key(&keys).await.unwrap();
    bus.drain().await.unwrap();
}

/// Every publish says what becomes of it: none is accepted and then lost.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_seals_to_a_key_whose_certificate_has_ended() {
    let deployment = deploy().await;
    publish_for_a_while(&deployment, CORE, false).await;
    let agent = connect(&deployment, AGENT, TO_CORE).await;
    let mut accepted = 0;
    let why = soon("the end of the key", async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            match agent.publish(alert("secret")).await {
                Ok(()) => accepted += 1,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(matches!(why, PublishError::NoSealingKey(NoSealingKey::Expired { .. })), "{why}");
    assert!(why.to_string().contains("the sealing key of core/core-01 has expired"), "{why}");
    let sent = agent.send(&endpoint(CORE), alert("secret")).await.unwrap_err();
    assert!(matches!(sent, PublishError::NoSealingKey(NoSealingKey::Expired { .. })), "{sent}");
    agent.flush().await.unwrap();
    // At most the one that was about to go when the key ended is told of later.
    let stats = agent.stats();
    assert!(stats.published + stats.unsent == accepted && stats.unsent <= 1, "{accepted} accepted: {stats:?}");

    let core = connect(&deployment, CORE, TO_CORE).await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    at_last("the new record", || agent.publish(alert("again"))).await;
    assert_eq!(next(&mut alerts).await.unwrap().payload(), &alert("again"));
}

/// The next record is taken before the former one ends, or as soon as it has: nothing is lost in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_states_the_same_key_again_and_nothing_is_lost() {
    let deployment = deploy().await;
    publish_for_a_while(&deployment, CORE, false).await;
    let agent = connect(&deployment, AGENT, TO_CORE).await;
    let first = agent.sealing_key_of(&endpoint(CORE)).await.unwrap();
    agent.publish(alert("first")).await.unwrap();
    let core = connect(&deployment, CORE, TO_CORE).await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    let mut number = 0_u64;
    soon("the second record", async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while agent.sealing_key_of(&endpoint(CORE)).await.unwrap().not_after == first.not_after {
            ticks.tick().await;
            agent.publish(alert(number.to_string())).await.unwrap();
            number += 1;
        }
    })
    .await;
    for _ in 0..50 {
        agent.publish(alert(number.to_string())).await.unwrap();
        number += 1;
    }
    let second = agent.sealing_key_of(&endpoint(CORE)).await.unwrap();
    assert!(second.version == first.version && second.not_after > first.not_after);
    agent.flush().await.unwrap();
    let unsent = agent.stats().unsent;
    assert!(unsent <= 1, "at most the one that was about to go when the key ended: {unsent}");
    let mut arrived = Vec::new();
    for _ in unsent..number {
        arrived.push(next(&mut alerts).await.unwrap().payload().description.parse::<u64>().unwrap());
    }
    assert!(arrived.is_sorted_by(|one, next| one < next), "{arrived:?}");
    assert_eq!((alerts.missed(), core.stats().rejected), (0, 0));
}

/// The owner's own connection, without our library: nobody else can store anything under its name.
async fn store_raw(deployment: &Deployment, name: &str, records: &[&[u8]]) {
    let dotted = name.replace('/', ".");
    let options = ConnectOptions::new()
        .tls_client_config((*deployment.identity(name).client_config()).clone())
        .require_tls(true)
        .tls_first()
        .custom_inbox_prefix(format!("_INBOX.{dotted}"));
    let nats = options.connect(deployment.server.url()).await.unwrap();
    for record in records {
        let answer = nats.request(format!("ransomeye.sealing.{dotted}"), record.to_vec().into()).await.unwrap();
        assert!(answer.payload.starts_with(b"{\"stream\":"), "{:?}", answer.payload);
    }
}

/// The first record of a component, which other programs have seen as well.
async fn first_record(deployment: &Deployment, name: &str) -> Vec<u8> {
    let broker = Broker::before(deployment).await.unwrap();
    let bus = connect_through(&broker, deployment, name, "").await;
    let mut seen = all_from(&broker, name);
    let _inbox = bus.subscribe_inbox::<CommandRequest>().await.unwrap();
    let seen = passed(&mut seen);
    let record = seen.iter().find(|message| message.subject.starts_with("ransomeye.sealing.")).expect("a record");
    let record = record.payload.to_vec();
    bus.drain().await.unwrap();
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_a_later_key_refuses_one_that_is_rolled_back() {
    let deployment = deploy().await;
    let first = first_record(&deployment, CORE).await;
    publish_for_a_while(&deployment, CORE, true).await;
    let (agent, to) = (connect(&deployment, AGENT, TO_CORE).await, endpoint(CORE));
    assert_eq!(agent.sealing_key_of(&to).await.unwrap().version, 2);
    // It pushes out what is later.
    store_raw(&deployment, CORE, &[first.as_slice(); 8]).await;
    let why = soon("the end of the second record", async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            match agent.sealing_key_of(&to).await {
                // What was seen is good as long as it is good.
                Ok(known) => assert_eq!(known.version, 2),
                Err(why) => return why,
            }
        }
    })
    .await;
    assert_eq!(why, NoSealingKey::RolledBack { component: to.clone(), version: 1, highest: 2 });
    let text = "the sealing key of core/core-01 is rolled back: the stream has version 1, but version 2 was seen";
    assert!(why.to_string().starts_with(text), "{why}");
    let sent = agent.send(&to, alert("secret")).await.unwrap_err();
    assert!(matches!(sent, PublishError::NoSealingKey(NoSealingKey::RolledBack { .. })), "{sent}");
    assert_eq!(agent.stats().published, 0);

    // The owner puts it right by being there.
    let core = connect(&deployment, CORE, TO_CORE).await;
    let mut inbox = core.subscribe_inbox::<AlertEvent>().await.unwrap();
    at_last("the record of the second key", || agent.send(&to, alert("secret"))).await;
    assert_eq!(agent.sealing_key_of(&to).await.unwrap().version, 2);
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &alert("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_record_beside_a_later_one_changes_nothing_and_neither_does_one_that_is_damaged() {
    let deployment = deploy().await;
    let first = first_record(&deployment, CORE).await;
    let core = connect(&deployment, CORE, "").await;
    let mut inbox = core.subscribe_inbox::<AlertEvent>().await.unwrap();
    assert_eq!(core.rotate_sealing_key().await.unwrap(), 2);
    let mut damaged = first.clone();
    *damaged.last_mut().unwrap() ^= 1;
    store_raw(&deployment, CORE, &[&first, &damaged, b"no record", &first]).await;
    let agent = connect(&deployment, AGENT, "").await;
    agent.send(&endpoint(CORE), alert("secret")).await.unwrap();
    assert_eq!(agent.sealing_key_of(&endpoint(CORE)).await.unwrap().version, 2);
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &alert("secret"));

    store_raw(&deployment, OTHER, &[b"no record"]).await;
    let sent = agent.send(&endpoint(OTHER), alert("secret")).await.unwrap_err();
    assert!(matches!(sent, PublishError::NoSealingKey(NoSealingKey::Refused { .. })), "{sent}");
    assert!(sent.to_string().contains("no sealing key of agent/agent-02 holds"), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_holds_is_sealed_to_while_nobody_answers() {
    let deployment = deploy().await;
    let broker = Broker::before(&deployment).await.unwrap();
    let agent = connect(&deployment, AGENT, "").await;
    let _server = agent.serve_commands(Obedient).await.unwrap();
    let options = knowing(BusOptions::new(broker.url(), deployment.identity(CORE)), "");
    // It looks anew each time, and a look-up that nobody answers lasts as long as a request may.
    let options = options.operation_timeout(Duration::from_secs(2)).sealing_key_refresh(Duration::ZERO);
    let core = BusClient::connect(options).await.unwrap();
    core.request::<CommandResult>(&endpoint(AGENT), kill(1)).await.unwrap();
    broker.intercept(CORE, Direction::ToServer, |message, fate| {
        if !message.subject.contains("RANSOMEYE_SEALING") {
            fate.forward(message);
        }
    });
    for pid in 2..5 {
        core.request::<CommandResult>(&endpoint(AGENT), kill(pid)).await.unwrap();
    }
}
