//! Messages that are sealed end to end, against a real nats-server: who reads them and who does not, keys that change and keys
//! that are missing, references, and compression.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "sealing/compression.rs"]
mod compression;
#[path = "sealing/directed.rs"]
mod directed;
#[path = "sealing/events.rs"]
mod events;
#[path = "sealing/keys.rs"]
mod keys;
#[path = "sealing/late.rs"]
mod late;
#[path = "sealing/records.rs"]
mod records;
#[path = "sealing/references.rs"]
mod references;
#[path = "sealing/rotation.rs"]
mod rotation;

use std::time::Duration;

use bus_acl::Policy;
use bus_client::{BusClient, BusOptions, CommandHandler, NoSealingKey, PublishError, Rejected, Subscription, Verified};
use bus_proto::v1::{AlertEvent, CommandRequest, CommandResult, CommandType, Severity, TelemetryEvent};
use bus_proto::{AnyPayload, Endpoint, Payload, Registered};
use bus_tests::attacks::broker::{Broker, Direction, Message as Passing};
use bus_tests::deployment::Deployment;
use prost::{Message, Name};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

const CORE: &str = "core/core-01";
const CORE_2: &str = "core/core-02";
const CORE_3: &str = "core/core-03";
const AGENT: &str = "agent/agent-01";
const OTHER: &str = "agent/agent-02";
const ALL: [&str; 5] = [CORE, CORE_2, CORE_3, AGENT, OTHER];

/// What nobody else may ever see.
const MARKER: &str = "the-vault-is-behind-the-picture";

/// Everybody says and hears everything: what is read, sealing alone decides.
const RULES: &str = r#"
version = 1

[[rule]]
role = "*"
action = "publish"
types = "*"
to = "inbox:*/*"

[[rule]]
role = "*"
action = "publish"
types = "*"
to = "events"

[[rule]]
role = "*"
action = "subscribe"
types = "*"
from = "events"

[[rule]]
role = "*"
action = "subscribe"
types = "*"
from = "inbox"
"#;

/// Alerts are sealed to one core.
const TO_CORE: &str = r#"
[[form]]
types = ["Alert", "Telemetry"]
to = "events"
seal = "on"
recipients = ["core/core-01"]
"#;

/// A message that is nothing but text.
#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
}

impl Name for Note {
    const NAME: &'static str = "Note";
    const PACKAGE: &'static str = "acme.fleet.v1";
}

fn note(text: impl Into<String>) -> Registered<Note> {
    Registered(Note { text: text.into() })
}

fn alert(description: impl Into<String>) -> AlertEvent {
    AlertEvent { threat_type: "test".into(), severity: Severity::High.into(), description: description.into() }
}

fn load(cpu_usage: f64) -> TelemetryEvent {
    TelemetryEvent { cpu_usage, ram_usage: 50.0 }
}

fn kill(target_pid: u32) -> CommandRequest {
    CommandRequest { command_type: CommandType::Kill.into(), target_pid }
}

fn endpoint(name: &str) -> Endpoint {
    name.parse().unwrap()
}

/// The policy that lets everybody do everything, with these rules about forms.
fn policy(forms: &str) -> Policy {
    Policy::from_toml(&format!("{RULES}{forms}")).unwrap()
}

/// A server with key streams, under that policy.
async fn deploy() -> Deployment {
    Deployment::start_with_key_streams_and(&ALL, |config| config.policy = policy("")).await
}

fn knowing(options: BusOptions, forms: &str) -> BusOptions {
    options.policy(policy(forms)).register::<Note>("x-note").unwrap()
}

/// How `name` connects, with these rules about forms.
fn options(deployment: &Deployment, name: &str, forms: &str) -> BusOptions {
    knowing(deployment.options(name), forms)
}

async fn connect(deployment: &Deployment, name: &str, forms: &str) -> BusClient {
    BusClient::connect(options(deployment, name, forms)).await.unwrap()
}

/// As [`connect`], through whoever stands in front of the server.
async fn connect_through(broker: &Broker, deployment: &Deployment, name: &str, forms: &str) -> BusClient {
    let options = BusOptions::new(broker.url(), deployment.identity(name));
    BusClient::connect(knowing(options, forms)).await.unwrap()
}

/// Everything that a component sends to the broker.
fn all_from(broker: &Broker, name: &str) -> mpsc::UnboundedReceiver<Passing> {
    broker.record(name, Direction::ToServer, |_| true)
}

/// What passed so far.
fn passed(recorded: &mut mpsc::UnboundedReceiver<Passing>) -> Vec<Passing> {
    std::iter::from_fn(|| recorded.try_recv().ok()).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The messages of the bus among what passed.
fn of_the_bus(passed: &[Passing]) -> Vec<&Passing> {
    let kinds = ["ransomeye.events.", "ransomeye.inbox."];
    passed.iter().filter(|message| kinds.iter().any(|kind| message.subject.starts_with(kind))).collect()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

async fn next<T: Payload>(subscription: &mut Subscription<T>) -> Result<Verified<T>, Rejected> {
    soon("a message", subscription.next()).await.expect("an open subscription")
}

/// Answers each command with a text.
struct Obedient;

impl CommandHandler for Obedient {
    async fn handle(&self, command: Verified<CommandRequest>) -> CommandResult {
        assert!(command.is_sealed());
        CommandResult::completed(format!("{MARKER} {}", command.payload().target_pid))
    }
}

/// Tries again until it succeeds: what is missing is remembered for a second.
async fn at_last<T, E, F: Future<Output = Result<T, E>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    soon(what, async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            if let Ok(done) = attempt().await {
                return done;
            }
        }
    })
    .await
}
