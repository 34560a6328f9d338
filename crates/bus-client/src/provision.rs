//! The key streams: made, or brought to what they have to be, by the one component that may.
//!
//! JetStream's interface is JSON over requests. Three of them are needed, so they are written here by hand.

use bus_crypto::MAX_BUNDLE_LEN;
use bus_crypto::sealing::record::MAX_RECORD_LEN;
use bus_proto::prost::bytes::Bytes;
use bus_proto::{KeyStream, SubjectRoot};
use serde_json::{Map, Value, json};

use crate::connection::{BusClient, Inner};
use crate::error::{ProvisionError, PublishError};
use crate::key_stream::{KEPT, Unanswered};

/// The most that a stream keeps in all, in bytes: the most of 2,048 components, and what they leave as a rule of very many
/// more.
const MAX_BYTES: u32 = 256 * 1024 * 1024;

/// A day in nanoseconds.
const DAY: u64 = 24 * 3600 * 1_000_000_000;

/// How long a bundle is kept, in nanoseconds: a key signs for at most one day, and is verified for seven more.
const MAX_AGE_OF_BUNDLES: u64 = 8 * DAY;

/// How long the record of a sealing key is kept, in nanoseconds: it is of use for at most 30 days.
const MAX_AGE_OF_RECORDS: u64 = 31 * DAY;

/// Within which time a repeated message id counts as a repetition, in nanoseconds. Nobody sets such ids.
const DUPLICATE_WINDOW: u64 = 120 * 1_000_000_000;

/// JetStream's own error numbers.
const NO_JETSTREAM_FOR_ACCOUNT: u64 = 10_039;
const INVALID_CONFIGURATION: u64 = 10_052;
const NO_SUCH_STREAM: u64 = 10_059;

/// What [`BusClient::provision_key_streams`] did about one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provisioned {
    /// There was no such stream, and now there is one.
    Created,
    /// There was one with other settings, and now they are right.
    Updated,
    /// All was as it has to be.
    Unchanged,
}

/// What [`BusClient::provision_key_streams`] did about each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvisionedStreams {
    /// About that of the key bundles ([`SubjectRoot::bundles`]).
    pub bundles: Provisioned,
    /// About that of the sealing keys ([`SubjectRoot::sealing_keys`]).
    pub sealing_keys: Provisioned,
}

impl BusClient {
    /// Sees to it that the two key streams are there, with the settings that they have to have: that of the key bundles
    /// ([`SubjectRoot::bundles`]), and that of the sealing keys ([`SubjectRoot::sealing_keys`]).
    ///
    /// Every component leaves its own there, and any component reads them. A stream keeps the latest eight messages of each
    /// component, of at most 16 KiB each, on disk: bundles for eight days, records of sealing keys for 31. Nobody can delete
    /// from it, purge it or roll it up. It is kept on as many nodes as [`BusOptions::stream_replicas`] says; unless that
    /// is set, it is made with one replica, and a stream that is there keeps the number that it has. Its placement stays as it is.
    ///
    /// [`BusOptions::stream_replicas`]: crate::BusOptions::stream_replicas
    ///
    /// Only the server's provisioner may do this. Doing it again changes nothing.
    ///
    /// ```no_run
    /// # async fn run(bus: bus_client::BusClient) -> Result<(), bus_client::ProvisionError> {
    /// let done = bus.provision_key_streams().await?;
    /// println!("{}: {:?}", bus.root().bundles().name(), done.bundles);
    /// println!("{}: {:?}", bus.root().sealing_keys().name(), done.sealing_keys);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the server has no JetStream, does not let this component do it, refuses a stream, or does not answer within
    /// the operation timeout. [`ProvisionError::Unchangeable`] is for an operator to resolve. The stream of bundles comes
    /// first, and stays when the other one cannot be had.
    pub async fn provision_key_streams(&self) -> Result<ProvisionedStreams, ProvisionError> {
        let inner = &self.inner;
        inner.wait_until_up().await?;
        let root = &inner.gate.root;
        let bundles = inner.provision(root.bundles(), bundles_config(root)).await?;
        let sealing_keys = inner.provision(root.sealing_keys(), sealing_keys_config(root)).await?;
        Ok(ProvisionedStreams { bundles, sealing_keys })
    }
}

impl Inner {
    async fn provision(
        &self,
        stream: KeyStream<'_>,
        mut wanted: Map<String, Value>,
    ) -> Result<Provisioned, ProvisionError> {
        let stream = stream.name();
        if let Some(nodes) = self.stream_replicas {
            wanted.insert("num_replicas".to_owned(), nodes.get().into());
        }
        let Some(found) = self.stream(&stream, "INFO", None).await? else {
            let made = self.stream(&stream, "CREATE", Some(&wanted)).await?;
            return made.map(|_| Provisioned::Created).ok_or_else(|| no_answer(&stream, "CREATE"));
        };
        for operators in ["num_replicas", "placement"] {
            if let Some(value) = found.get(operators)
                && (operators == "placement" || self.stream_replicas.is_none())
            {
                wanted.insert(operators.to_owned(), value.clone());
            }
        }
        if significant(&found) == significant(&wanted) {
            return Ok(Provisioned::Unchanged);
        }
        let updated = self.stream(&stream, "UPDATE", Some(&wanted)).await?;
        let updated = updated.ok_or_else(|| no_answer(&stream, "UPDATE"))?;
        // A server may know settings that are not known here, and have its own defaults for them.
        let is_same = significant(&found) == significant(&updated);
        Ok(if is_same { Provisioned::Unchanged } else { Provisioned::Updated })
    }

    /// Asks JetStream about a stream, and returns its configuration; `None` when there is no such stream.
    async fn stream(
        &self,
        stream: &str,
        operation: &'static str,
        config: Option<&Map<String, Value>>,
    ) -> Result<Option<Map<String, Value>>, ProvisionError> {
        let body = config.map_or_else(Bytes::new, |config| Bytes::from(json!(config).to_string()));
        let answer = self.jetstream(&format!("$JS.API.STREAM.{operation}.{stream}"), body).await?;
        let Ok(mut answer) = serde_json::from_slice::<Value>(&answer) else {
            return Err(no_answer(stream, operation));
        };
        let Some((code, reason)) = refusal(&answer) else {
            return match answer.get_mut("config").map(Value::take) {
                Some(Value::Object(config)) => Ok(Some(config)),
                _ => Err(no_answer(stream, operation)),
            };
        };
        let stream = stream.to_owned();
        match code {
            NO_SUCH_STREAM if operation == "INFO" => Ok(None),
            NO_JETSTREAM_FOR_ACCOUNT => Err(ProvisionError::NoJetStream),
            INVALID_CONFIGURATION if operation == "UPDATE" => Err(ProvisionError::Unchangeable { stream, reason }),
            code => Err(ProvisionError::Refused { stream, reason, code }),
        }
    }

    /// One request, answered, denied or given up within the operation timeout.
    async fn jetstream(&self, subject: &str, body: Bytes) -> Result<Bytes, ProvisionError> {
        let moment = self.shared.verdicts.now();
        let answered = tokio::select! {
            answered = self.ask_broker(subject.to_owned(), body) => answered,
            () = self.shared.verdicts.publish_denial(subject, moment) => {
                return Err(ProvisionError::NotPermitted {
                    principal: self.shared.principal.clone(),
                    subject: subject.to_owned(),
                });
            }
        };
        answered.map(|answer| answer.payload).map_err(|why| match why {
            Unanswered::NoResponders => ProvisionError::NoJetStream,
            Unanswered::Randomness => PublishError::Randomness.into(),
            Unanswered::TimedOut => ProvisionError::TimedOut { timeout_ms: self.operation_timeout.as_millis() },
        })
    }
}

fn no_answer(stream: &str, operation: &str) -> ProvisionError {
    let reason = format!("its answer to {operation} is not understood");
    ProvisionError::Refused { stream: stream.to_owned(), reason, code: 0 }
}

/// The number and the words of a refusal, if an answer of JetStream is one.
pub(crate) fn refusal(answer: &Value) -> Option<(u64, String)> {
    let error = answer.get("error")?;
    let reason = error.get("description").and_then(Value::as_str).unwrap_or("no reason given");
    let reason = reason.chars().take(200).flat_map(char::escape_default).collect();
    Some((error.get("err_code").and_then(Value::as_u64).unwrap_or_default(), reason))
}

/// The stream of key bundles as it has to be.
fn bundles_config(root: &SubjectRoot) -> Map<String, Value> {
    config(root.bundles(), "Key bundles of the components", MAX_AGE_OF_BUNDLES, MAX_BUNDLE_LEN)
}

/// The stream of sealing keys as it has to be.
fn sealing_keys_config(root: &SubjectRoot) -> Map<String, Value> {
    config(root.sealing_keys(), "Sealing keys of the components", MAX_AGE_OF_RECORDS, MAX_RECORD_LEN)
}

fn config(stream: KeyStream<'_>, description: &str, max_age: u64, max_len: usize) -> Map<String, Value> {
    let config = json!({
        "name": stream.name(),
        "description": description,
        "subjects": [stream.filter()],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": 1,
        "compression": "none",
        "max_msgs_per_subject": KEPT,
        "max_msg_size": max_len,
        "max_bytes": MAX_BYTES,
        "max_age": max_age,
        "max_msgs": -1,
        "max_consumers": -1,
        "duplicate_window": DUPLICATE_WINDOW,
        "allow_direct": true,
        "deny_delete": true,
        "deny_purge": true,
        "allow_rollup_hdrs": false,
        "allow_msg_ttl": false,
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}

/// The settings that say something: not what is off or empty, and not the server's own notes.
fn significant(config: &Map<String, Value>) -> Map<String, Value> {
    let says_something = |name: &str, value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_u64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => name != "metadata" && !entries.is_empty(),
    };
    let kept = config.iter().filter(|(name, value)| says_something(name, value));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_adds_to_a_configuration_makes_no_difference() {
        let wanted = sealing_keys_config(&SubjectRoot::default());
        let mut found = wanted.clone();
        let added = json!({
            "sealed": false, "mirror_direct": false, "consumer_limits": {}, "metadata": { "_nats.ver": "2.15.1" },
            "sources": null, "first_seq": 0,
        });
        found.extend(added.as_object().unwrap().clone());
        assert_eq!(significant(&found), significant(&wanted));
        for (name, value) in
            [("max_msgs_per_subject", json!(9)), ("mirror", json!({ "name": "X" })), ("no_ack", true.into())]
        {
            let mut other = found.clone();
            other.insert(name.to_owned(), value);
            assert_ne!(significant(&other), significant(&wanted), "{name}");
        }
    }
}
