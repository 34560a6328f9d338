//! How the streams of durable messages are.

use bus_acl::Source;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::message_streams::declared;
use super::{Asset, NO_SUCH_STREAM, Refusal};
use crate::connection::{BusClient, Inner};
use crate::error::ProvisionError;

/// The most consumers of a stream that are asked for. A policy declares far fewer.
const MAX_CONSUMERS: usize = 100_000;

/// How a stream of durable messages is, as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStatus {
    /// Its name.
    pub stream: String,
    /// How many messages it keeps.
    pub messages: u64,
    /// How many bytes these have.
    pub bytes: u64,
    /// How many bytes it keeps at most.
    pub max_bytes: u64,
    /// On how many servers each message is stored.
    pub replicas: u64,
    /// When the oldest message that it keeps was stored, in Unix milliseconds; `None` when it keeps none.
    pub first_at: Option<i64>,
    /// When the latest message that it keeps was stored, in Unix milliseconds; `None` when it keeps none.
    pub last_at: Option<i64>,
    /// Its consumers, by name.
    pub consumers: Vec<ConsumerStatus>,
    /// The consumers that the policy declares and the stream does not have, by name: it is to be provisioned again.
    pub missing: Vec<String>,
}

/// How a consumer of a stream is, as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name in the stream.
    pub consumer: String,
    /// Whether the policy declares it.
    pub declared: bool,
    /// How many messages it was never given: its lag.
    pub pending: u64,
    /// How many it was given and has not acknowledged.
    pub unacknowledged: u64,
    /// How many of those it was given more than once.
    pub redelivered: u64,
    /// How many requests for messages wait, of all processes together. With none, nobody reads.
    pub waiting: u64,
}

impl BusClient {
    /// How the streams of durable messages are: those that are there, and their consumers.
    ///
    /// Only the server's provisioner may ask.
    ///
    /// # Errors
    ///
    /// When the server has no JetStream, does not let this component ask, or does not answer within the operation timeout.
    pub async fn stream_status(&self) -> Result<Vec<StreamStatus>, ProvisionError> {
        let inner = &self.inner;
        inner.wait_until_up().await?;
        let mut streams = Vec::new();
        for source in [Source::Events, Source::Inbox] {
            streams.extend(inner.status_of(source).await?);
        }
        Ok(streams)
    }
}

impl Inner {
    async fn status_of(&self, source: Source) -> Result<Option<StreamStatus>, ProvisionError> {
        let stream = source.stream(&self.gate.root);
        let name = stream.name();
        let asset = Asset::Stream(&name);
        let info = match self.jetstream(asset, &format!("$JS.API.STREAM.INFO.{name}"), "".into()).await {
            Ok(info) => info,
            Err(Refusal::Said { code: NO_SUCH_STREAM, .. }) => return Ok(None),
            Err(refusal) => return Err(refusal.about(asset)),
        };
        let declared: Vec<_> = declared(&self.gate.policy, source)
            .map(|durable| stream.consumer(&durable.endpoint, &durable.name).name().to_owned())
            .collect();
        let found = self.consumers(&name).await?;
        let mut consumers: Vec<_> = found.iter().map(|found| consumer_status(found, &declared)).collect();
        consumers.sort_by(|one, other| one.consumer.cmp(&other.consumer));
        let is_missing = |name: &&String| !consumers.iter().any(|found| found.consumer == **name);
        let missing = declared.iter().filter(is_missing).cloned().collect();
        let messages = number(&info, "/state/messages");
        let at = |pointer: &str| time_of(&info, pointer).filter(|_| messages > 0);
        Ok(Some(StreamStatus {
            messages,
            bytes: number(&info, "/state/bytes"),
            max_bytes: number(&info, "/config/max_bytes"),
            replicas: number(&info, "/config/num_replicas"),
            first_at: at("/state/first_ts"),
            last_at: at("/state/last_ts"),
            stream: name,
            consumers,
            missing,
        }))
    }

    /// What the server tells about each consumer of a stream.
    pub(super) async fn consumers(&self, stream: &str) -> Result<Vec<Value>, ProvisionError> {
        let asset = Asset::Stream(stream);
        let subject = format!("$JS.API.CONSUMER.LIST.{stream}");
        let mut found: Vec<Value> = Vec::new();
        while found.len() < MAX_CONSUMERS {
            let page = json!({ "offset": found.len() }).to_string();
            let mut answer =
                self.jetstream(asset, &subject, page.into()).await.map_err(|refusal| refusal.about(asset))?;
            let total = number(&answer, "/total");
            let listed = match answer.get_mut("consumers").map(Value::take) {
                Some(Value::Array(listed)) => listed,
                _ => Vec::new(),
            };
            let is_last = listed.is_empty();
            found.extend(listed);
            if is_last || found.len() as u64 >= total {
                break;
            }
        }
        Ok(found)
    }
}

/// The name of a consumer; empty when the server tells none.
pub(super) fn name_of(info: &Value) -> String {
    info.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn consumer_status(info: &Value, declared: &[String]) -> ConsumerStatus {
    let consumer = name_of(info);
    ConsumerStatus {
        declared: declared.contains(&consumer),
        pending: number(info, "/num_pending"),
        unacknowledged: number(info, "/num_ack_pending"),
        redelivered: number(info, "/num_redelivered"),
        waiting: number(info, "/num_waiting"),
        consumer,
    }
}

fn number(info: &Value, pointer: &str) -> u64 {
    info.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn time_of(info: &Value, pointer: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(info.pointer(pointer)?.as_str()?, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_figures_are_read_and_what_is_missing_is_zero() {
        let info = json!({ "name": "core_c_all", "num_pending": 3, "num_ack_pending": 2, "num_redelivered": 1 });
        let status = consumer_status(&info, &["core_c_all".to_owned()]);
        assert_eq!((status.pending, status.unacknowledged, status.redelivered, status.waiting), (3, 2, 1, 0));
        assert!(status.declared);
        assert!(!consumer_status(&json!({}), &["core_c_all".to_owned()]).declared);
    }

    #[test]
    fn times_are_read_in_milliseconds() {
        let info = json!({ "at": "2026-09-21T14:13:20.500999999Z", "not": "yesterday" });
        assert_eq!(time_of(&info, "/at"), Some(1_790_000_000_500));
        assert_eq!(time_of(&info, "/not"), None);
        assert_eq!(time_of(&info, "/nowhere"), None);
    }
}
