//! The key streams on a real nats-server: everyone stores its own and reads everyone's, and can do nothing else.
//!
//! Components speak to it with async-nats here, as what an attacker would send is sent as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "keys/sealing.rs"]
mod sealing;

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, ServerError};
use bus_client::{ProvisionError, Provisioned};
use bus_tests::deployment::{Deployment, PROVISIONER, principal};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// The name of each stream, and the subjects that it keeps.
const BUNDLES: (&str, &str) = ("RANSOMEYE_KEYS", "ransomeye.keys");
const SEALING: (&str, &str) = ("RANSOMEYE_SEALING", "ransomeye.sealing");
const STREAMS: [(&str, &str); 2] = [BUNDLES, SEALING];

const CORE: &str = "core/core-01";
const AGENT: &str = "agent/agent-01";
const COMPONENTS: [&str; 2] = [CORE, AGENT];

/// A component's connection without our library, and the errors that the server sends it.
struct Component {
    name: String,
    stream: &'static str,
    space: &'static str,
    nats: Client,
    errors: mpsc::UnboundedReceiver<String>,
}

impl Component {
    /// Connects, to speak with this stream.
    async fn connect(deployment: &Deployment, name: &str, (stream, space): (&'static str, &'static str)) -> Self {
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
        Self { name: name.to_owned(), stream, space, nats, errors }
    }

    fn keys(&self) -> String {
        format!("{}.{}", self.space, self.name.replace('/', "."))
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
        self.nats.publish_with_reply(format!("$JS.API.DIRECT.GET.{}", self.stream), inbox, body.into()).await.unwrap();
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
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    for stream in STREAMS {
        let agent = Component::connect(&deployment, AGENT, stream).await;
        let core = Component::connect(&deployment, CORE, stream).await;
        assert!(core.read(&agent.keys()).await.is_empty());
        for bytes in ["first", "second"] {
            assert_eq!(agent.store(bytes).await["stream"], stream.0);
        }
        core.store("another's").await;
        for reader in [&agent, &core] {
            assert_eq!(reader.read(&agent.keys()).await, ["first", "second"]);
        }
    }
}

#[tokio::test]
async fn the_end_of_a_batch_and_the_lack_of_one_are_told_apart() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let store = tempfile::tempdir().unwrap();
    let without = unprovisioned(&store);
    for stream in STREAMS {
        let agent = Component::connect(&deployment, AGENT, stream).await;
        assert_eq!(status(&agent.get(&agent.keys()).await), Some(NOTHING));
        agent.store("bytes").await;
        let found = agent.get(&agent.keys()).await;
        assert_eq!((found.len(), status(&found)), (2, Some(END)));

        let agent = Component::connect(&without, AGENT, stream).await;
        assert_eq!(status(&agent.get(&agent.keys()).await), Some(NOBODY));
    }
}

#[tokio::test]
async fn a_ninth_message_drops_the_first_of_its_owner_alone() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    for stream in STREAMS {
        let agent = Component::connect(&deployment, AGENT, stream).await;
        let core = Component::connect(&deployment, CORE, stream).await;
        core.store("core's").await;
        for number in 1..=9 {
            agent.store(&number.to_string()).await;
        }
        assert_eq!(core.read(&agent.keys()).await, ["2", "3", "4", "5", "6", "7", "8", "9"]);
        assert_eq!(agent.read(&core.keys()).await, ["core's"]);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    for stream in STREAMS {
        let agent = Component::connect(&deployment, AGENT, stream).await;
        assert_eq!(agent.store(&"x".repeat(16_384)).await["seq"], 1);
        assert_eq!(agent.store(&"x".repeat(16_385)).await["error"]["err_code"], 10_054);
    }
}

#[tokio::test]
async fn nobody_stores_under_anothers_name_or_sees_what_is_stored_go_by() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    for stream in STREAMS {
        let mut agent = Component::connect(&deployment, AGENT, stream).await;
        let core = Component::connect(&deployment, CORE, stream).await;
        agent.is_denied_publishing(&core.keys()).await;
        assert!(core.read(&core.keys()).await.is_empty());
        for filter in [agent.keys(), core.keys(), format!("{}.>", stream.1)] {
            let _subscription = agent.nats.subscribe(filter.clone()).await.unwrap();
            agent.is_denied(&format!("Subscription to \"{filter}\"")).await;
        }
    }
}

#[tokio::test]
async fn nobody_but_the_provisioner_manages_the_streams_and_nobody_empties_them() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    for stream in STREAMS {
        let mut agent = Component::connect(&deployment, AGENT, stream).await;
        let mut provisioner = Component::connect(&deployment, PROVISIONER, stream).await;
        let (name, space) = stream;
        agent.store("bytes").await;
        for operation in ["STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO"] {
            agent.is_denied_publishing(&format!("$JS.API.{operation}.{name}")).await;
        }
        let destructive = ["STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE", "STREAM.SNAPSHOT", "CONSUMER.CREATE"];
        for operation in destructive {
            for component in [&mut agent, &mut provisioner] {
                component.is_denied_publishing(&format!("$JS.API.{operation}.{name}")).await;
            }
        }
        provisioner.is_denied_publishing("$JS.API.STREAM.CREATE.OTHER").await;
        let update = json!({
            "name": name, "subjects": [format!("{space}.*.*")], "storage": "file",
            "deny_delete": false, "deny_purge": false,
        });
        let refused = provisioner.ask(&format!("$JS.API.STREAM.UPDATE.{name}"), update.to_string()).await;
        assert_eq!(refused["error"]["err_code"], 10_052, "{refused}");
        assert_eq!(agent.read(&agent.keys()).await, ["bytes"]);
    }
}

#[tokio::test]
async fn nobody_rolls_up_or_shortens_the_life_of_what_is_stored() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    for stream in STREAMS {
        let agent = Component::connect(&deployment, AGENT, stream).await;
        agent.store("bytes").await;
        for (name, value, code) in
            [("Nats-Rollup", "all", 10_111), ("Nats-Rollup", "sub", 10_111), ("Nats-TTL", "1s", 10_166)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(name, value);
            let answer = agent.nats.request_with_headers(agent.keys(), headers, "x".into()).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            assert_eq!(answer["error"]["err_code"], code, "{name}: {answer}");
        }
        assert_eq!(agent.read(&agent.keys()).await, ["bytes"]);
    }
}

#[tokio::test]
async fn what_is_stored_outlives_a_restart_and_a_reload_of_the_server() {
    let mut deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    for stream in STREAMS {
        let agent = Component::connect(&deployment, AGENT, stream).await;
        agent.store("bytes").await;
        let config = deployment.server.config().clone();
        deployment.server.reload(config).unwrap();
        assert_eq!(agent.read(&agent.keys()).await, ["bytes"]);
        deployment.server.restart().unwrap();
        let agent = Component::connect(&deployment, AGENT, stream).await;
        assert_eq!(agent.read(&agent.keys()).await, ["bytes"]);
    }
    let done = deployment.connect(PROVISIONER).await.provision_key_streams().await.unwrap();
    assert_eq!((done.bundles, done.sealing_keys), (Provisioned::Unchanged, Provisioned::Unchanged));
}

#[tokio::test]
async fn provisioning_puts_right_what_is_not_and_then_changes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let deployment = unprovisioned(&store);
    let raw = Component::connect(&deployment, PROVISIONER, SEALING).await;
    let (name, space) = SEALING;
    let other = json!({ "name": name, "subjects": [format!("{space}.>")], "storage": "file", "max_bytes": 1_000_000 });
    raw.ask(&format!("$JS.API.STREAM.CREATE.{name}"), other.to_string()).await;
    let provisioner = deployment.connect(PROVISIONER).await;
    let done = provisioner.provision_key_streams().await.unwrap();
    assert_eq!((done.bundles, done.sealing_keys), (Provisioned::Created, Provisioned::Updated));
    let done = provisioner.provision_key_streams().await.unwrap();
    assert_eq!((done.bundles, done.sealing_keys), (Provisioned::Unchanged, Provisioned::Unchanged));
    for ((name, space), days) in [(BUNDLES, 8_u64), (SEALING, 31)] {
        let config = raw.ask(&format!("$JS.API.STREAM.INFO.{name}"), "").await["config"].take();
        assert_eq!(config["subjects"], json!([format!("{space}.*.*")]));
        assert_eq!(config["max_msgs_per_subject"], 8);
        assert_eq!(config["max_age"], days * 24 * 3600 * 1_000_000_000);
        for setting in ["allow_direct", "deny_delete", "deny_purge"] {
            assert_eq!(config[setting], true, "{setting}");
        }
    }
}

#[tokio::test]
async fn settings_that_cannot_be_changed_are_for_the_operator() {
    for (name, space) in STREAMS {
        let store = tempfile::tempdir().unwrap();
        let deployment = unprovisioned(&store);
        let raw = Component::connect(&deployment, PROVISIONER, (name, space)).await;
        let other = json!({
            "name": name, "subjects": [format!("{space}.*.*")], "storage": "file", "max_bytes": 1_000_000,
            "allow_msg_ttl": true,
        });
        let made = raw.ask(&format!("$JS.API.STREAM.CREATE.{name}"), other.to_string()).await;
        assert!(made.get("error").is_none(), "{made}");
        let error = deployment.connect(PROVISIONER).await.provision_key_streams().await.unwrap_err();
        assert!(matches!(&error, ProvisionError::Unchangeable { stream, .. } if stream == name), "{error}");
        assert!(error.to_string().contains(&format!("nats stream rm {name}")), "{error}");
    }
}

#[tokio::test]
async fn who_is_not_the_provisioner_is_told_so() {
    let deployment = Deployment::start_with_key_streams(&COMPONENTS).await;
    let error = deployment.connect(AGENT).await.provision_key_streams().await.unwrap_err();
    assert!(
        matches!(&error, ProvisionError::NotPermitted { principal, .. } if principal.role().as_str() == "agent"),
        "{error}"
    );
}
