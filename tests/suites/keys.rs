//! The keys stream on a real nats-server: everyone stores its own bundles and reads everyone's, and can do nothing else.
//!
//! Components speak to it with async-nats here, as what an attacker would send is sent as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, ServerError};
use bus_client::{ProvisionError, Provisioned};
use bus_tests::deployment::{Deployment, PROVISIONER, principal};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);
const STREAM: &str = "RANSOMEYE_KEYS";
const COMPONENTS: [&str; 2] = ["core/core-01", "agent/agent-01"];

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
        Self { name: name.to_owned(), nats: options.connect(deployment.server.url()).await.unwrap(), errors }
    }

    fn keys(&self) -> String {
        format!("ransomeye.keys.{}", self.name.replace('/', "."))
    }

    async fn ask(&self, subject: &str, body: impl Into<Vec<u8>>) -> Value {
        let answer = self.nats.request(subject.to_owned(), body.into().into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// Stores bytes under its own name, and returns what JetStream answers.
    async fn store(&self, bytes: &str) -> Value {
        self.ask(&self.keys(), bytes).await
    }

    /// What a batched direct get answers, up to and including the message that ends it.
    async fn get(&self, subject: &str) -> Vec<Message> {
        let inbox = self.nats.new_inbox();
        let mut answers = self.nats.subscribe(inbox.clone()).await.unwrap();
        let body = json!({ "batch": 8, "next_by_subj": subject, "seq": 1 }).to_string();
        self.nats.publish_with_reply(format!("$JS.API.DIRECT.GET.{STREAM}"), inbox, body.into()).await.unwrap();
        let mut messages = Vec::new();
        loop {
            let message = timeout(PATIENCE, answers.next()).await.expect("an answer in time").expect("a subscription");
            let is_last = message.status.is_some();
            messages.push(message);
            if is_last {
                return messages;
            }
        }
    }

    /// What is stored under a subject, oldest first.
    async fn read(&self, subject: &str) -> Vec<String> {
        let mut messages = self.get(subject).await;
        assert!(matches!(status(&messages), Some(NOTHING | END)), "{messages:?}");
        messages.pop();
        messages.into_iter().map(|message| String::from_utf8(message.payload.to_vec()).unwrap()).collect()
    }

    /// Waits until the server says that it denied this.
    async fn is_denied(&mut self, what: &str) {
        let denied = async { while !self.errors.recv().await.expect("a connection").contains(what) {} };
        timeout(PATIENCE, denied).await.unwrap_or_else(|_| panic!("{} is not denied {what}", self.name));
    }

    async fn is_denied_publishing(&mut self, subject: &str) {
        self.nats.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.is_denied(&format!("Publish to \"{subject}\"")).await;
    }
}

/// What ends an answer: the end of a batch, nothing there, or nobody there.
const END: u16 = 204;
const NOTHING: u16 = 404;
const NOBODY: u16 = 503;

fn status(messages: &[Message]) -> Option<u16> {
    messages.last().and_then(|message| message.status).map(|status| status.as_u16())
}

/// A server with JetStream and a provisioner, where nobody has provisioned anything yet.
fn unprovisioned(store: &tempfile::TempDir) -> Deployment {
    Deployment::start_with(&COMPONENTS, |config| {
        config.jetstream_dir = Some(store.path().to_owned());
        config.provisioner = Some(principal(PROVISIONER));
    })
}

#[tokio::test]
async fn what_a_component_stores_any_other_reads() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let agent = Component::connect(&deployment, "agent/agent-01").await;
    let core = Component::connect(&deployment, "core/core-01").await;
    assert!(core.read(&agent.keys()).await.is_empty());
    for bundle in ["first", "second"] {
        assert_eq!(agent.store(bundle).await["stream"], STREAM);
    }
    core.store("another's").await;
    for reader in [&agent, &core] {
        assert_eq!(reader.read(&agent.keys()).await, ["first", "second"]);
    }
}

#[tokio::test]
async fn the_end_of_a_batch_and_the_lack_of_one_are_told_apart() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let agent = Component::connect(&deployment, "agent/agent-01").await;
    assert_eq!(status(&agent.get(&agent.keys()).await), Some(NOTHING));
    agent.store("bundle").await;
    let found = agent.get(&agent.keys()).await;
    assert_eq!((found.len(), status(&found)), (2, Some(END)));

    let store = tempfile::tempdir().unwrap();
    let without = unprovisioned(&store);
    let agent = Component::connect(&without, "agent/agent-01").await;
    assert_eq!(status(&agent.get(&agent.keys()).await), Some(NOBODY));
}

#[tokio::test]
async fn a_ninth_bundle_drops_the_first_of_its_owner_alone() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let agent = Component::connect(&deployment, "agent/agent-01").await;
    let core = Component::connect(&deployment, "core/core-01").await;
    core.store("core's").await;
    for bundle in 1..=9 {
        agent.store(&bundle.to_string()).await;
    }
    assert_eq!(core.read(&agent.keys()).await, ["2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(agent.read(&core.keys()).await, ["core's"]);
}

#[tokio::test]
async fn a_bundle_that_is_too_large_is_refused() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let agent = Component::connect(&deployment, "agent/agent-01").await;
    assert_eq!(agent.store(&"x".repeat(16_384)).await["seq"], 1);
    assert_eq!(agent.store(&"x".repeat(16_385)).await["error"]["err_code"], 10_054);
}

#[tokio::test]
async fn nobody_stores_under_anothers_name_or_sees_what_is_stored_go_by() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let mut agent = Component::connect(&deployment, "agent/agent-01").await;
    let core = Component::connect(&deployment, "core/core-01").await;
    agent.is_denied_publishing(&core.keys()).await;
    assert!(core.read(&core.keys()).await.is_empty());
    for filter in [agent.keys(), core.keys(), "ransomeye.keys.>".to_owned()] {
        let _subscription = agent.nats.subscribe(filter.clone()).await.unwrap();
        agent.is_denied(&format!("Subscription to \"{filter}\"")).await;
    }
}

#[tokio::test]
async fn nobody_but_the_provisioner_manages_the_stream_and_nobody_empties_it() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let mut agent = Component::connect(&deployment, "agent/agent-01").await;
    let mut provisioner = Component::connect(&deployment, PROVISIONER).await;
    agent.store("bundle").await;
    for operation in ["STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO"] {
        agent.is_denied_publishing(&format!("$JS.API.{operation}.{STREAM}")).await;
    }
    let destructive = ["STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE", "STREAM.SNAPSHOT", "CONSUMER.CREATE"];
    for operation in destructive {
        for component in [&mut agent, &mut provisioner] {
            component.is_denied_publishing(&format!("$JS.API.{operation}.{STREAM}")).await;
        }
    }
    provisioner.is_denied_publishing("$JS.API.STREAM.CREATE.OTHER").await;
    let update = json!({
        "name": STREAM, "subjects": ["ransomeye.keys.*.*"], "storage": "file", "deny_delete": false, "deny_purge": false,
    });
    let refused = provisioner.ask(&format!("$JS.API.STREAM.UPDATE.{STREAM}"), update.to_string()).await;
    assert_eq!(refused["error"]["err_code"], 10_052, "{refused}");
    assert_eq!(agent.read(&agent.keys()).await, ["bundle"]);
}

#[tokio::test]
async fn nobody_rolls_up_or_shortens_the_life_of_what_is_stored() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let agent = Component::connect(&deployment, "agent/agent-01").await;
    agent.store("bundle").await;
    for (name, value, code) in
        [("Nats-Rollup", "all", 10_111), ("Nats-Rollup", "sub", 10_111), ("Nats-TTL", "1s", 10_166)]
    {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        let answer = agent.nats.request_with_headers(agent.keys(), headers, "x".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["error"]["err_code"], code, "{name}: {answer}");
    }
    assert_eq!(agent.read(&agent.keys()).await, ["bundle"]);
}

#[tokio::test]
async fn what_is_stored_outlives_a_restart_and_a_reload_of_the_server() {
    let mut deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let agent = Component::connect(&deployment, "agent/agent-01").await;
    agent.store("bundle").await;
    let config = deployment.server.config().clone();
    deployment.server.reload(config).unwrap();
    assert_eq!(agent.read(&agent.keys()).await, ["bundle"]);
    deployment.server.restart().unwrap();
    let agent = Component::connect(&deployment, "agent/agent-01").await;
    assert_eq!(agent.read(&agent.keys()).await, ["bundle"]);
    let provisioner = deployment.connect(PROVISIONER).await;
    assert_eq!(provisioner.provision_keys_stream().await.unwrap(), Provisioned::Unchanged);
}

#[tokio::test]
async fn provisioning_puts_right_what_is_not_and_then_changes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let deployment = unprovisioned(&store);
    let raw = Component::connect(&deployment, PROVISIONER).await;
    let other = json!({ "name": STREAM, "subjects": ["ransomeye.keys.>"], "storage": "file", "max_bytes": 1_000_000 });
    raw.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), other.to_string()).await;
    let provisioner = deployment.connect(PROVISIONER).await;
    assert_eq!(provisioner.provision_keys_stream().await.unwrap(), Provisioned::Updated);
    assert_eq!(provisioner.provision_keys_stream().await.unwrap(), Provisioned::Unchanged);
    let config = raw.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), "").await["config"].take();
    assert_eq!(config["subjects"], json!(["ransomeye.keys.*.*"]));
    assert_eq!(config["max_msgs_per_subject"], 8);
    for setting in ["allow_direct", "deny_delete", "deny_purge"] {
        assert_eq!(config[setting], true, "{setting}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_changed_are_for_the_operator() {
    let store = tempfile::tempdir().unwrap();
    let deployment = unprovisioned(&store);
    let raw = Component::connect(&deployment, PROVISIONER).await;
    let other = json!({
        "name": STREAM, "subjects": ["ransomeye.keys.*.*"], "storage": "file", "max_bytes": 1_000_000, "allow_msg_ttl": true,
    });
    let made = raw.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), other.to_string()).await;
    assert!(made.get("error").is_none(), "{made}");
    let error = deployment.connect(PROVISIONER).await.provision_keys_stream().await.unwrap_err();
    assert!(matches!(&error, ProvisionError::Unchangeable { stream, .. } if stream == STREAM), "{error}");
    assert!(error.to_string().contains("nats stream rm RANSOMEYE_KEYS"), "{error}");
}

#[tokio::test]
async fn who_is_not_the_provisioner_is_told_so() {
    let deployment = Deployment::start_with_keys_stream(&COMPONENTS).await;
    let error = deployment.connect("agent/agent-01").await.provision_keys_stream().await.unwrap_err();
    assert!(
        matches!(&error, ProvisionError::NotPermitted { principal, .. } if principal.role().as_str() == "agent"),
        "{error}"
    );
}
