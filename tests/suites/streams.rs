//! The streams of durable messages on a real nats-server: provisioned as the policy says, used by their consumers' owners alone.
//!
//! Components speak to it with async-nats here, as what an attacker would send is sent as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, Message, ServerError};
use bus_acl::Policy;
use bus_client::{BusClient, ProvisionError, Provisioned, ProvisionedMessageStream, StreamOptions};
use bus_tests::deployment::{Deployment, PROVISIONER, principal};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

const CORE: &str = "core/core-01";
const OTHER: &str = "core/core-02";
const AGENT: &str = "agent/agent-01";
const COMPONENTS: [&str; 3] = [CORE, OTHER, AGENT];

const EVENTS: &str = "RANSOMEYE_EVENTS";
const INBOX: &str = "RANSOMEYE_INBOX";
const ALERTS: &str = "core_core-01_alerts";
const COMMANDS: &str = "agent_agent-01_commands";

/// Alerts of agents, and commands to them, are durable.
const DURABLE: &str = r#"
[[delivery]]
types = ["Alert"]
to = "events"
class = "durable"
max_lifetime = "12h"
[[delivery]]
types = ["Command"]
to = "inbox:agent/*"
class = "durable"
max_lifetime = "90s"
[[durable]]
name = "alerts"
role = "core"
component = "core-01"
types = ["Alert"]
from = "events"
ack_wait = "10s"
[[durable]]
name = "commands"
role = "agent"
component = "agent-01"
types = "*"
from = "inbox"
max_ack_pending = 7
"#;

/// The default policy, and this besides.
fn policy(besides: &str) -> Policy {
    let default = include_str!("../../crates/bus-acl/policies/default.toml");
    Policy::from_toml(&format!("{default}\n{besides}")).unwrap()
}

/// A server with JetStream and a provisioner under this policy, where nobody has provisioned anything yet.
fn start(store: &tempfile::TempDir, policy: &Policy) -> Deployment {
    Deployment::start_with(&COMPONENTS, |config| {
        config.jetstream_dir = Some(store.path().to_owned());
        config.provisioner = Some(principal(PROVISIONER));
        config.policy = policy.clone();
    })
}

/// The provisioner, with this policy.
async fn provisioner(deployment: &Deployment, policy: &Policy) -> BusClient {
    BusClient::connect(deployment.options(PROVISIONER).policy(policy.clone())).await.unwrap()
}

/// Provisions by this policy.
async fn provision(deployment: &Deployment, policy: &Policy, options: &StreamOptions) -> Vec<ProvisionedMessageStream> {
    provisioner(deployment, policy).await.provision_streams(options).await.unwrap()
}

/// What was done about a stream, and about each of its consumers, by their names.
type Outcome<'a> = (&'a str, Provisioned, Vec<(&'a str, Provisioned)>);

fn outcomes(done: &[ProvisionedMessageStream]) -> Vec<Outcome<'_>> {
    done.iter()
        .map(|done| {
            let consumers = done.consumers.iter().map(|done| (done.consumer.as_str(), done.outcome));
            (done.stream.as_str(), done.outcome, consumers.collect())
        })
        .collect()
}

/// A component's connection without our library, and the errors that the server sends it.
struct Component {
    name: String,
    nats: Client,
    errors: mpsc::UnboundedReceiver<String>,
}

impl Component {
    async fn connect(deployment: &Deployment, name: &str) -> Self {
        let (sender, errors) = mpsc::unbounded_channel();
        let options = ConnectOptions::new()
            .tls_client_config((*deployment.identity(name).client_config()).clone())
            .require_tls(true)
            .tls_first()
            .custom_inbox_prefix(format!("_INBOX.{}", name.replace('/', ".")))
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(text)) = event {
                    // The test may be over.
                    let _ = sender.send(text);
                }
                async {}
            });
        let nats = options.connect(deployment.server.url()).await.unwrap();
        Self { name: name.to_owned(), nats, errors }
    }

    async fn request(&self, subject: &str, body: impl Into<Vec<u8>>) -> Message {
        self.nats.request(subject.to_owned(), body.into().into()).await.unwrap()
    }

    async fn ask(&self, subject: &str, body: impl Into<Vec<u8>>) -> Value {
        serde_json::from_slice(&self.request(subject, body).await.payload).unwrap()
    }

    /// Publishes an event of this type, and returns what JetStream answers.
    async fn report(&self, kind: &str, body: impl Into<Vec<u8>>) -> Value {
        self.ask(&format!("ransomeye.events.{kind}.{}", self.name.replace('/', ".")), body).await
    }

    /// The next message of a consumer, which comes under the subject that it was published to.
    async fn next(&self, stream: &str, consumer: &str) -> Message {
        let inbox = self.nats.new_inbox();
        let mut answers = self.nats.subscribe(inbox.clone()).await.unwrap();
        let body = json!({ "batch": 1, "expires": 10_000_000_000_u64 }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        self.nats.publish_with_reply(subject, inbox, body.into()).await.unwrap();
        let message = timeout(PATIENCE, answers.next()).await.expect("a message in time").expect("a subscription");
        assert_eq!(message.status, None, "{message:?}");
        message
    }

    /// Waits until the server says that it denied this.
    async fn is_denied_publishing(&mut self, subject: &str) {
        self.nats.publish(subject.to_owned(), "{}".into()).await.unwrap();
        let what = format!("Publish to \"{subject}\"");
        let denied = async { while !self.errors.recv().await.expect("a connection").contains(&what) {} };
        timeout(PATIENCE, denied).await.unwrap_or_else(|_| panic!("{} is not denied {what}", self.name));
    }
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

#[tokio::test]
async fn provisioning_makes_what_the_policy_says_and_then_changes_nothing() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    let done = provision(&deployment, &policy, &StreamOptions::default()).await;
    let created = Provisioned::Created;
    let expected = [(EVENTS, created, vec![(ALERTS, created)]), (INBOX, created, vec![(COMMANDS, created)])];
    assert_eq!(outcomes(&done), expected);
    let raw = Component::connect(&deployment, PROVISIONER).await;
    for _ in 0..2 {
        for (stream, subject, max_age) in
            [(EVENTS, "ransomeye.events.alert.*.*", 12 * 3600), (INBOX, "ransomeye.inbox.agent.*.command.*.*", 90_u64)]
        {
            let config = raw.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "").await["config"].take();
            assert_eq!(config["subjects"], json!([subject]));
            assert_eq!(config["max_age"], max_age * 1_000_000_000);
            assert_eq!((&config["discard"], &config["retention"]), (&json!("new"), &json!("limits")));
            assert_eq!(config["duplicate_window"], max_age.min(120) * 1_000_000_000);
            for setting in ["deny_delete", "deny_purge"] {
                assert_eq!(config[setting], true, "{setting}");
            }
            for setting in ["allow_direct", "allow_rollup_hdrs", "allow_msg_ttl", "republish"] {
                assert!(matches!(&config[setting], Value::Null | Value::Bool(false)), "{setting}: {config}");
            }
        }
        let consumer = raw.ask(&format!("$JS.API.CONSUMER.INFO.{EVENTS}.{ALERTS}"), "").await["config"].take();
        assert_eq!(consumer["filter_subject"], "ransomeye.events.alert.*.*");
        assert_eq!((&consumer["ack_policy"], &consumer["max_deliver"]), (&json!("explicit"), &json!(-1)));
        assert_eq!((&consumer["ack_wait"], &consumer["max_ack_pending"]), (&json!(10_000_000_000_u64), &json!(1024)));
        let consumer = raw.ask(&format!("$JS.API.CONSUMER.INFO.{INBOX}.{COMMANDS}"), "").await["config"].take();
        assert_eq!(consumer["filter_subject"], "ransomeye.inbox.agent.agent-01.command.*.*");
        assert_eq!(consumer["max_ack_pending"], 7);

        let same = Provisioned::Unchanged;
        let again = provision(&deployment, &policy, &StreamOptions::default()).await;
        assert_eq!(outcomes(&again), [(EVENTS, same, vec![(ALERTS, same)]), (INBOX, same, vec![(COMMANDS, same)])]);
    }
}

#[tokio::test]
async fn a_policy_without_durable_types_has_no_streams() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(""));
    let deployment = start(&store, &policy);
    assert_eq!(provision(&deployment, &policy, &StreamOptions::default()).await, []);
    assert_eq!(provisioner(&deployment, &policy).await.stream_status().await.unwrap(), []);
}

#[tokio::test]
async fn a_component_gets_what_its_own_consumer_delivers_and_acknowledges_it() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    provision(&deployment, &policy, &StreamOptions::default()).await;
    let agent = Component::connect(&deployment, AGENT).await;
    let core = Component::connect(&deployment, CORE).await;
    for alert in ["first", "second"] {
        assert_eq!(agent.report("alert", alert).await["stream"], EVENTS);
    }
    let first = core.next(EVENTS, ALERTS).await;
    assert_eq!((text(&first), first.subject.as_str()), ("first", "ransomeye.events.alert.agent.agent-01"));
    let reply = first.reply.as_ref().unwrap();
    assert!(reply.starts_with(&format!("$JS.ACK.{EVENTS}.{ALERTS}.")), "{reply}");
    // An acknowledgement that is answered has been stored.
    core.request(reply, "+ACK").await;
    assert_eq!(text(&core.next(EVENTS, ALERTS).await), "second");
    let info = core.ask(&format!("$JS.API.CONSUMER.INFO.{EVENTS}.{ALERTS}"), "").await;
    assert_eq!((&info["ack_floor"]["stream_seq"], &info["num_ack_pending"]), (&json!(1), &json!(1)), "{info}");

    let command = "ransomeye.inbox.agent.agent-01.command.core.core-01";
    assert_eq!(core.ask(command, "isolate").await["stream"], INBOX);
    assert_eq!(text(&agent.next(INBOX, COMMANDS).await), "isolate");
}

#[tokio::test]
async fn what_is_live_by_the_policy_is_not_kept() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    provision(&deployment, &policy, &StreamOptions::default()).await;
    let agent = Component::connect(&deployment, AGENT).await;
    let core = Component::connect(&deployment, CORE).await;
    // Nobody answers for the streams: a heartbeat is live, and so is a command to the core.
    let heartbeat = agent.nats.request("ransomeye.events.heartbeat.agent.agent-01", "beat".into()).await;
    assert!(heartbeat.is_err(), "{heartbeat:?}");
    let command = core.nats.request("ransomeye.inbox.core.core-02.command.core.core-01", "isolate".into()).await;
    assert!(command.is_err(), "{command:?}");
}

#[tokio::test]
async fn a_component_has_no_part_in_the_consumer_of_another() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    provision(&deployment, &policy, &StreamOptions::default()).await;
    let core = Component::connect(&deployment, CORE).await;
    let agent = Component::connect(&deployment, AGENT).await;
    agent.report("alert", "first").await;
    let reply = core.next(EVENTS, ALERTS).await.reply.unwrap();
    for name in [OTHER, AGENT, PROVISIONER] {
        let mut component = Component::connect(&deployment, name).await;
        component.is_denied_publishing(&format!("$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{ALERTS}")).await;
        component.is_denied_publishing(&reply).await;
        if name != PROVISIONER {
            component.is_denied_publishing(&format!("$JS.API.CONSUMER.INFO.{EVENTS}.{ALERTS}")).await;
        }
    }
    let info = core.ask(&format!("$JS.API.CONSUMER.INFO.{EVENTS}.{ALERTS}"), "").await;
    assert_eq!(info["num_ack_pending"], 1, "nobody else acknowledged it: {info}");
}

#[tokio::test]
async fn nobody_but_the_provisioner_makes_anything_and_nobody_empties_a_stream() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    provision(&deployment, &policy, &StreamOptions::default()).await;
    let mut agent = Component::connect(&deployment, AGENT).await;
    let mut core = Component::connect(&deployment, CORE).await;
    let mut keeper = Component::connect(&deployment, PROVISIONER).await;
    agent.report("alert", "kept").await;
    for stream in [EVENTS, INBOX] {
        let makes = [
            format!("STREAM.CREATE.{stream}"),
            format!("STREAM.UPDATE.{stream}"),
            format!("STREAM.INFO.{stream}"),
            format!("CONSUMER.CREATE.{stream}.mine"),
            format!("CONSUMER.CREATE.{stream}.{ALERTS}"),
            format!("CONSUMER.DELETE.{stream}.{ALERTS}"),
            format!("CONSUMER.LIST.{stream}"),
        ];
        for component in [&mut agent, &mut core] {
            for subject in &makes {
                component.is_denied_publishing(&format!("$JS.API.{subject}")).await;
            }
        }
        let never = [
            format!("STREAM.DELETE.{stream}"),
            format!("STREAM.PURGE.{stream}"),
            format!("STREAM.MSG.DELETE.{stream}"),
            format!("STREAM.MSG.GET.{stream}"),
            format!("STREAM.SNAPSHOT.{stream}"),
            format!("DIRECT.GET.{stream}"),
            format!("CONSUMER.DURABLE.CREATE.{stream}.mine"),
            format!("CONSUMER.CREATE.{stream}"),
        ];
        for component in [&mut agent, &mut core, &mut keeper] {
            for subject in &never {
                component.is_denied_publishing(&format!("$JS.API.{subject}")).await;
            }
        }
    }
    keeper.is_denied_publishing("$JS.API.STREAM.CREATE.OTHER").await;
    assert_eq!(text(&core.next(EVENTS, ALERTS).await), "kept");
    let error = deployment.connect(AGENT).await.provision_streams(&StreamOptions::default()).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::NotPermitted { principal, .. } if principal.role().as_str() == "agent"));
}

/// The broker does not police where a component has its messages delivered to, as it does not police replies.
#[tokio::test]
async fn what_the_owner_of_a_consumer_diverts_keeps_its_subject_and_is_no_order_to_the_broker() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    let keeper = provisioner(&deployment, &policy).await;
    keeper.provision_streams(&StreamOptions::default()).await.unwrap();
    let agent = Component::connect(&deployment, AGENT).await;
    let core = Component::connect(&deployment, CORE).await;
    let mut inbox = agent.nats.subscribe("ransomeye.inbox.agent.agent-01.>").await.unwrap();
    agent.nats.flush().await.unwrap();
    let command = "ransomeye.inbox.agent.agent-01.command.core.core-01";
    for (body, to) in [
        ("", format!("$JS.API.STREAM.DELETE.{INBOX}")),
        ("", format!("$JS.API.CONSUMER.DELETE.{INBOX}.{COMMANDS}")),
        (
            r#"{"name":"RANSOMEYE_KEYS","subjects":["x"],"storage":"file"}"#,
            "$JS.API.STREAM.CREATE.RANSOMEYE_KEYS".into(),
        ),
        ("an alert", command.to_owned()),
    ] {
        agent.report("alert", body).await;
        let pull = json!({ "batch": 1, "expires": 10_000_000_000_u64 }).to_string();
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{ALERTS}");
        core.nats.publish_with_reply(next, to, pull.into()).await.unwrap();
    }
    let diverted = timeout(PATIENCE, inbox.next()).await.expect("a message in time").unwrap();
    assert_eq!(text(&diverted), "an alert");
    assert_eq!(diverted.subject.as_str(), "ransomeye.events.alert.agent.agent-01", "it passes for no command");
    let status = keeper.stream_status().await.unwrap();
    assert_eq!((status[1].stream.as_str(), status[1].missing.len()), (INBOX, 0), "the orders were not obeyed");
    assert_eq!(status[1].consumers[0].pending, 0, "nothing was put before the consumer of another");
    let keys = keeper.provision_key_streams().await.unwrap();
    assert_eq!(keys.bundles, Provisioned::Created, "nobody made it before");
}

#[tokio::test]
async fn a_full_stream_refuses_and_keeps_what_it_has() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    let mut options = StreamOptions::default();
    options.max_bytes = Some(1 << 20);
    provision(&deployment, &policy, &options).await;
    let agent = Component::connect(&deployment, AGENT).await;
    let core = Component::connect(&deployment, CORE).await;
    assert_eq!(agent.report("alert", "oldest").await["seq"], 1);
    let large = vec![b'x'; 200_000];
    let mut stored = 0;
    let refused = loop {
        let answer = agent.report("alert", large.clone()).await;
        if answer.get("error").is_some() {
            break answer;
        }
        stored += 1;
        assert!(stored < 10, "the stream is never full");
    };
    assert_eq!(refused["error"]["err_code"], 10_077, "{refused}");
    assert!(stored > 3);
    assert_eq!(text(&core.next(EVENTS, ALERTS).await), "oldest");
    // More room, and it takes messages again; what the operator decided once stays.
    options.max_bytes = Some(2 << 20);
    assert_eq!(provision(&deployment, &policy, &options).await[0].outcome, Provisioned::Updated);
    assert!(agent.report("alert", large).await.get("error").is_none());
    let done = provision(&deployment, &policy, &StreamOptions::default()).await;
    assert_eq!(done[0].outcome, Provisioned::Unchanged);
}

#[tokio::test]
async fn a_sender_that_has_all_that_it_can_have_leaves_room_to_others() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    let mut options = StreamOptions::default();
    options.max_messages_per_subject = Some(2);
    provision(&deployment, &policy, &options).await;
    let core = Component::connect(&deployment, CORE).await;
    let other = Component::connect(&deployment, OTHER).await;
    let to = |sender: &str| format!("ransomeye.inbox.agent.agent-01.command.core.{sender}");
    for number in 1..=2 {
        assert_eq!(core.ask(&to("core-01"), "isolate").await["seq"], number);
    }
    let refused = core.ask(&to("core-01"), "isolate").await;
    assert!(refused["error"]["description"].as_str().unwrap().contains("per subject"), "{refused}");
    assert_eq!(other.ask(&to("core-02"), "isolate").await["seq"], 3);
}

#[tokio::test]
async fn a_changed_policy_is_applied_by_an_update_and_nothing_is_lost() {
    let (store, first) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let mut deployment = start(&store, &first);
    provision(&deployment, &first, &StreamOptions::default()).await;
    Component::connect(&deployment, AGENT).await.report("alert", "kept").await;

    let text_of = DURABLE.replace("[\"Alert\"]", "[\"Alert\", \"Heartbeat\"]").replace("\"10s\"", "\"20s\"");
    let second = policy(&text_of);
    deployment.reconfigure(&COMPONENTS, second.clone());
    let (updated, same) = (Provisioned::Updated, Provisioned::Unchanged);
    let done = provision(&deployment, &second, &StreamOptions::default()).await;
    assert_eq!(outcomes(&done), [(EVENTS, updated, vec![(ALERTS, updated)]), (INBOX, same, vec![(COMMANDS, same)])]);
    let again = provision(&deployment, &second, &StreamOptions::default()).await;
    assert_eq!(outcomes(&again), [(EVENTS, same, vec![(ALERTS, same)]), (INBOX, same, vec![(COMMANDS, same)])]);

    let agent = Component::connect(&deployment, AGENT).await;
    let core = Component::connect(&deployment, CORE).await;
    assert_eq!(agent.report("heartbeat", "beat").await["stream"], EVENTS);
    for expected in ["kept", "beat"] {
        assert_eq!(text(&core.next(EVENTS, ALERTS).await), expected);
    }
    // And back again.
    deployment.reconfigure(&COMPONENTS, first.clone());
    let done = provision(&deployment, &first, &StreamOptions::default()).await;
    assert_eq!(outcomes(&done)[0], (EVENTS, updated, vec![(ALERTS, updated)]));
}

#[tokio::test]
async fn what_the_policy_no_longer_declares_is_told_and_goes_when_asked_to() {
    let (store, first) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let mut deployment = start(&store, &first);
    provision(&deployment, &first, &StreamOptions::default()).await;
    Component::connect(&deployment, AGENT).await.report("alert", "kept").await;

    let second = policy("");
    deployment.reconfigure(&COMPONENTS, second.clone());
    let undeclared = Provisioned::Undeclared;
    let expected =
        [(EVENTS, undeclared, vec![(ALERTS, undeclared)]), (INBOX, undeclared, vec![(COMMANDS, undeclared)])];
    for _ in 0..2 {
        let done = provision(&deployment, &second, &StreamOptions::default()).await;
        assert_eq!(outcomes(&done), expected);
    }
    let keeper = provisioner(&deployment, &second).await;
    let status = keeper.stream_status().await.unwrap();
    assert_eq!((status[0].messages, status[0].consumers[0].declared), (1, false));
    // What was durable is live again: no stream answers for it.
    let agent = Component::connect(&deployment, AGENT).await;
    let alert = agent.nats.request("ransomeye.events.alert.agent.agent-01", "live".into()).await;
    assert!(alert.is_err(), "{alert:?}");

    let mut options = StreamOptions::default();
    options.prune = true;
    let removed = Provisioned::Removed;
    let done = keeper.provision_streams(&options).await.unwrap();
    assert_eq!(
        outcomes(&done),
        [(EVENTS, undeclared, vec![(ALERTS, removed)]), (INBOX, undeclared, vec![(COMMANDS, removed)])]
    );
    assert_eq!(keeper.stream_status().await.unwrap()[0].consumers, []);
    // When it is durable again, it is taken again, and what was kept is still there.
    deployment.reconfigure(&COMPONENTS, first.clone());
    let done = provision(&deployment, &first, &StreamOptions::default()).await;
    assert_eq!(outcomes(&done)[0], (EVENTS, Provisioned::Updated, vec![(ALERTS, Provisioned::Created)]));
    let core = Component::connect(&deployment, CORE).await;
    assert_eq!(text(&core.next(EVENTS, ALERTS).await), "kept");
}

#[tokio::test]
async fn the_status_has_the_figures_of_streams_and_consumers() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    let keeper = provisioner(&deployment, &policy).await;
    assert_eq!(keeper.stream_status().await.unwrap(), [], "there are none yet");
    keeper.provision_streams(&StreamOptions::default()).await.unwrap();
    let agent = Component::connect(&deployment, AGENT).await;
    let core = Component::connect(&deployment, CORE).await;
    for number in 0..5 {
        agent.report("alert", number.to_string()).await;
    }
    let first = core.next(EVENTS, ALERTS).await;
    core.request(first.reply.as_ref().unwrap(), "+ACK").await;
    let second = core.next(EVENTS, ALERTS).await;
    core.request(second.reply.as_ref().unwrap(), "-NAK").await;
    let again = core.next(EVENTS, ALERTS).await;
    assert_eq!(text(&again), "1");
    core.next(EVENTS, ALERTS).await;

    let status = keeper.stream_status().await.unwrap();
    let [events, inbox] = &status[..] else { panic!("two streams: {status:?}") };
    assert_eq!((events.stream.as_str(), events.messages, events.replicas), (EVENTS, 5, 1));
    assert!(events.bytes > 5 && events.max_bytes == 256 << 20, "{events:?}");
    assert!(events.first_at.unwrap() > 1_700_000_000_000 && events.first_at <= events.last_at, "{events:?}");
    let [alerts] = &events.consumers[..] else { panic!("one consumer: {events:?}") };
    assert!(alerts.declared && alerts.consumer == ALERTS);
    assert_eq!((alerts.pending, alerts.unacknowledged, alerts.redelivered, alerts.waiting), (2, 2, 1, 0));
    assert_eq!((inbox.messages, inbox.first_at, inbox.last_at), (0, None, None));
    assert!(events.missing.is_empty() && inbox.missing.is_empty());
}

#[tokio::test]
async fn a_consumer_that_the_policy_declares_and_nobody_made_is_missed() {
    let (store, declared) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &declared);
    let (without, _) = DURABLE.split_once("[[durable]]").unwrap();
    provision(&deployment, &policy(without), &StreamOptions::default()).await;
    let status = provisioner(&deployment, &declared).await.stream_status().await.unwrap();
    assert_eq!(status[0].missing, [ALERTS]);
    assert_eq!(status[1].missing, [COMMANDS]);
}

#[tokio::test]
async fn what_cannot_be_changed_is_for_the_operator() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let deployment = start(&store, &policy);
    let raw = Component::connect(&deployment, PROVISIONER).await;
    let keeper = provisioner(&deployment, &policy).await;
    let options = StreamOptions::default();
    let other = json!({
        "name": INBOX, "subjects": ["ransomeye.inbox.agent.*.command.*.*"], "storage": "file", "allow_msg_ttl": true,
    });
    raw.ask(&format!("$JS.API.STREAM.CREATE.{INBOX}"), other.to_string()).await;
    let error = keeper.provision_streams(&options).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::Unchangeable { stream, .. } if stream == INBOX), "{error}");
    assert!(error.to_string().contains(&format!("nats stream rm {INBOX}")), "{error}");

    // The stream of events is there by now. A consumer of it that begins elsewhere cannot be made to begin anew.
    raw.ask(&format!("$JS.API.CONSUMER.DELETE.{EVENTS}.{ALERTS}"), "").await;
    let other = json!({
        "stream_name": EVENTS, "action": "create",
        "config": { "durable_name": ALERTS, "name": ALERTS, "deliver_policy": "new", "ack_policy": "explicit" },
    });
    let made = raw.ask(&format!("$JS.API.CONSUMER.CREATE.{EVENTS}.{ALERTS}"), other.to_string()).await;
    assert!(made.get("error").is_none(), "{made}");
    let error = keeper.provision_streams(&options).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::UnchangeableConsumer { consumer, .. } if consumer == ALERTS), "{error}");
    assert!(error.to_string().contains(&format!("nats consumer rm {EVENTS} {ALERTS}")), "{error}");
}

#[tokio::test]
async fn what_a_stream_keeps_and_how_far_its_consumers_are_outlives_a_restart() {
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(DURABLE));
    let mut deployment = start(&store, &policy);
    provision(&deployment, &policy, &StreamOptions::default()).await;
    let agent = Component::connect(&deployment, AGENT).await;
    let core = Component::connect(&deployment, CORE).await;
    for alert in ["first", "second"] {
        agent.report("alert", alert).await;
    }
    let first = core.next(EVENTS, ALERTS).await;
    core.request(first.reply.as_ref().unwrap(), "+ACK").await;
    deployment.server.restart().unwrap();
    let core = Component::connect(&deployment, CORE).await;
    assert_eq!(text(&core.next(EVENTS, ALERTS).await), "second");
    let done = provision(&deployment, &policy, &StreamOptions::default()).await;
    let same = Provisioned::Unchanged;
    assert_eq!(outcomes(&done), [(EVENTS, same, vec![(ALERTS, same)]), (INBOX, same, vec![(COMMANDS, same)])]);
}

#[tokio::test]
async fn several_types_make_one_consumer_with_several_filters() {
    let text_of = DURABLE.replace("[\"Alert\"]", "[\"Alert\", \"Heartbeat\", \"x-scan\"]");
    let (store, policy) = (tempfile::tempdir().unwrap(), policy(&text_of));
    let deployment = start(&store, &policy);
    provision(&deployment, &policy, &StreamOptions::default()).await;
    let again = provision(&deployment, &policy, &StreamOptions::default()).await;
    assert_eq!(outcomes(&again)[0], (EVENTS, Provisioned::Unchanged, vec![(ALERTS, Provisioned::Unchanged)]));
    let raw = Component::connect(&deployment, PROVISIONER).await;
    let consumer = raw.ask(&format!("$JS.API.CONSUMER.INFO.{EVENTS}.{ALERTS}"), "").await["config"].take();
    assert_eq!(consumer["filter_subjects"].as_array().unwrap().len(), 3, "{consumer}");
}

#[tokio::test]
async fn without_jetstream_nothing_can_be_provisioned() {
    let policy = policy(DURABLE);
    let deployment = Deployment::start_with(&COMPONENTS, |config| config.policy = policy.clone());
    let core = BusClient::connect(deployment.options(CORE).policy(policy.clone())).await.unwrap();
    let error = core.provision_streams(&StreamOptions::default()).await.unwrap_err();
    assert!(matches!(error, ProvisionError::NotPermitted { .. } | ProvisionError::NoJetStream), "{error}");
}
