//! Signed messages between clients of the product, against a real nats-server: keys that change, keys that are looked up,
//! certificates that are revoked, and messages that share an envelope.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "signing/batches.rs"]
mod batches;
#[path = "signing/blocked.rs"]
mod blocked;
#[path = "signing/evidence.rs"]
mod evidence;
#[path = "signing/expiry.rs"]
mod expiry;
#[path = "signing/gaps.rs"]
mod gaps;
#[path = "signing/given_up.rs"]
mod given_up;
#[path = "signing/look_ups.rs"]
mod look_ups;
#[path = "signing/revocation.rs"]
mod revocation;
#[path = "signing/rotation.rs"]
mod rotation;

use std::future::Future;
use std::time::Duration;

use bus_acl::Policy;
use bus_client::{BusClient, BusEvent, BusOptions, Rejected, Subscription, Verified};
use bus_proto::v1::{CommandRequest, CommandType, Envelope, Heartbeat};
use bus_proto::{Endpoint, Payload, Registered};
use bus_tests::deployment::Deployment;
use prost::{Message, Name};
use tokio::sync::broadcast;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const CORE: &str = "core/core-01";
const AGENT: &str = "agent/agent-01";
const OTHER: &str = "agent/agent-02";

/// Who may say what where both directions and every form of sending are needed: jobs go anywhere.
const JOBS: &str = r#"
version = 1

[[rule]]
role = "*"
action = "publish"
types = ["Telemetry", "Alert", "Heartbeat", "Command", "CommandResult", "x-job"]
to = "inbox:*/*"

[[rule]]
role = "*"
action = "publish"
types = ["Telemetry", "Alert", "Heartbeat", "x-job"]
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

/// A message of a type that shares envelopes wherever it goes.
#[derive(Clone, PartialEq, Message)]
struct Job {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "vec", tag = "2")]
    filling: Vec<u8>,
}

impl Name for Job {
    const NAME: &'static str = "Job";
    const PACKAGE: &'static str = "acme.fleet.v1";
}

fn job(number: u64) -> Registered<Job> {
    Registered(Job { number, filling: Vec::new() })
}

fn policy() -> Policy {
    Policy::from_toml(JOBS).unwrap()
}

/// A deployment of a core and agents that exchange jobs.
async fn with_jobs() -> Deployment {
    Deployment::start_with_key_streams_and(&[CORE, AGENT, OTHER], |config| config.policy = policy()).await
}

fn jobs(options: BusOptions) -> BusOptions {
    options.policy(policy()).register::<Job>("x-job").unwrap()
}

fn beat(uptime: u64) -> Heartbeat {
    Heartbeat { uptime, version: "0.1.0".into() }
}

/// A command that tells its number: no process has the id 0.
fn kill(number: u32) -> CommandRequest {
    CommandRequest { command_type: CommandType::Kill.into(), target_pid: number + 1 }
}

fn endpoint(name: &str) -> Endpoint {
    name.parse().unwrap()
}

/// A heartbeat that is worth something for as long as `life`.
fn short_lived(bus: &BusClient, uptime: u64, life: Duration) -> Envelope {
    let mut envelope = bus.envelope(beat(uptime)).unwrap();
    envelope.expires_at = envelope.timestamp_utc + i64::try_from(life.as_millis()).unwrap();
    envelope
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

async fn next<T: Payload>(subscription: &mut Subscription<T>) -> Result<Verified<T>, Rejected> {
    soon("a message", subscription.next()).await.expect("an open subscription")
}

/// Reads heartbeats, which must be these, in this order, and none refused.
async fn expect_beats(beats: &mut Subscription<Heartbeat>, uptimes: impl IntoIterator<Item = u64>) {
    for uptime in uptimes {
        let received = next(beats).await.unwrap_or_else(|rejected| panic!("{uptime} is refused: {rejected}"));
        assert_eq!(received.payload().uptime, uptime);
    }
}

async fn wait_for_event(events: &mut broadcast::Receiver<BusEvent>, fits: impl Fn(&BusEvent) -> bool) -> BusEvent {
    soon("the event", async {
        loop {
            let event = events.recv().await.expect("an event");
            if fits(&event) {
                return event;
            }
        }
    })
    .await
}

/// Has a client take its changed files into use, and waits until it is connected again.
async fn refresh(bus: &BusClient) {
    let mut events = bus.events();
    assert_eq!(bus.refresh_identity().await.unwrap(), bus_tls::Refresh::Rotated);
    wait_for_event(&mut events, |event| *event == BusEvent::IdentityRotated).await;
    wait_for_event(&mut events, |event| *event == BusEvent::Connected).await;
}

/// Waits until a sender's present key is in the keys stream.
async fn stored(reader: &BusClient, sender: &BusClient) {
    let owner = &sender.principal().endpoint;
    soon("the bundle in the keys stream", async {
        while !reader.published_keys(owner).await.unwrap().keys.iter().any(|key| key.key_id == sender.signing_key()) {}
    })
    .await;
}
