//! The keys stream: made, or brought to what it has to be, by the one component that may.
//!
//! JetStream's interface is JSON over requests. Three of them are needed, so they are written here by hand.

use bus_crypto::MAX_BUNDLE_LEN;
use bus_proto::SubjectRoot;
use bus_proto::prost::bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::connection::{BusClient, Inner};
use crate::error::{KeysError, ProvisionError, PublishError};

/// How many bundles of one component the stream keeps; the next one drops the oldest.
pub(crate) const BUNDLES_KEPT: usize = 8;

/// The most that it keeps in all, in bytes: the most of 2,048 components, and bundles as they are of very many more.
const MAX_BYTES: u32 = 256 * 1024 * 1024;

/// How long it keeps a bundle, in nanoseconds: eight days.
const MAX_AGE: u64 = 8 * 24 * 3600 * 1_000_000_000;

/// Within which time a repeated message id counts as a repetition, in nanoseconds. Nobody sets such ids.
const DUPLICATE_WINDOW: u64 = 120 * 1_000_000_000;

/// JetStream's own error numbers.
const NO_JETSTREAM_FOR_ACCOUNT: u64 = 10_039;
const INVALID_CONFIGURATION: u64 = 10_052;
const NO_SUCH_STREAM: u64 = 10_059;

/// What [`BusClient::provision_keys_stream`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provisioned {
    /// There was no keys stream, and now there is one.
    Created,
    /// There was one with other settings, and now they are right.
    Updated,
    /// All was as it has to be.
    Unchanged,
}

impl BusClient {
    /// Sees to it that the keys stream ([`SubjectRoot::keys_stream`]) is there, with the settings it has to have.
    ///
    /// Every component keeps its key bundles there, and any component reads them. The stream keeps the last eight bundles
    /// of each component, of at most 16 KiB each, on disk, for eight days. Nobody can delete from it, purge it or roll it
    /// up. It is made with one replica; the number of replicas and the placement of a stream that is there stay as they
    /// are.
    ///
    /// Only the server's provisioner may do this. Doing it again changes nothing.
    ///
    /// ```no_run
    /// # async fn run(bus: bus_client::BusClient) -> Result<(), bus_client::ProvisionError> {
    /// let done = bus.provision_keys_stream().await?;
    /// println!("{}: {done:?}", bus.root().keys_stream());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the server has no JetStream, does not let this component do it, refuses the stream, or does not answer within
    /// the operation timeout. [`ProvisionError::Unchangeable`] is for an operator to resolve.
    pub async fn provision_keys_stream(&self) -> Result<Provisioned, ProvisionError> {
        let inner = &self.inner;
        inner.wait_until_up().await?;
        let root = &inner.gate.root;
        let mut wanted = keys_stream(root);
        let Some(found) = inner.stream("INFO", None).await? else {
            inner.stream("CREATE", Some(&wanted)).await?.ok_or_else(|| inner.no_answer("CREATE"))?;
            return Ok(Provisioned::Created);
        };
        for operators in ["num_replicas", "placement"] {
            if let Some(value) = found.get(operators) {
                wanted.insert(operators.to_owned(), value.clone());
            }
        }
        if significant(&found) == significant(&wanted) {
            return Ok(Provisioned::Unchanged);
        }
        let updated = inner.stream("UPDATE", Some(&wanted)).await?.ok_or_else(|| inner.no_answer("UPDATE"))?;
        // A server may know settings that are not known here, and have its own defaults for them.
        let is_same = significant(&found) == significant(&updated);
        Ok(if is_same { Provisioned::Unchanged } else { Provisioned::Updated })
    }
}

impl Inner {
    /// Asks JetStream about the keys stream, and returns its configuration; `None` when there is no such stream.
    async fn stream(
        &self,
        operation: &'static str,
        config: Option<&Map<String, Value>>,
    ) -> Result<Option<Map<String, Value>>, ProvisionError> {
        let stream = self.gate.root.keys_stream();
        let body = config.map_or_else(Bytes::new, |config| Bytes::from(json!(config).to_string()));
        let mut answer = self.jetstream(&format!("$JS.API.STREAM.{operation}.{stream}"), body).await?;
        let Some((code, reason)) = refusal(&answer) else {
            return match answer.get_mut("config").map(Value::take) {
                Some(Value::Object(config)) => Ok(Some(config)),
                _ => Err(self.no_answer(operation)),
            };
        };
        match code {
            NO_SUCH_STREAM if operation == "INFO" => Ok(None),
            NO_JETSTREAM_FOR_ACCOUNT => Err(ProvisionError::NoJetStream),
            INVALID_CONFIGURATION if operation == "UPDATE" => Err(ProvisionError::Unchangeable { stream, reason }),
            code => Err(ProvisionError::Refused { stream, reason, code }),
        }
    }

    /// One request, answered, denied or given up within the operation timeout.
    async fn jetstream(&self, subject: &str, body: Bytes) -> Result<Value, ProvisionError> {
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
        match answered {
            Ok(answer) => serde_json::from_slice(&answer.payload).map_err(|_| self.no_answer(subject)),
            Err(KeysError::NoStream) => Err(ProvisionError::NoJetStream),
            Err(KeysError::Randomness) => Err(PublishError::Randomness.into()),
            Err(_) => Err(ProvisionError::TimedOut { timeout_ms: self.operation_timeout.as_millis() }),
        }
    }

    fn no_answer(&self, operation: &str) -> ProvisionError {
        ProvisionError::Refused {
            stream: self.gate.root.keys_stream(),
            reason: format!("its answer to {operation} is not understood"),
            code: 0,
        }
    }
}

/// The number and the words of a refusal, if an answer of JetStream is one.
pub(crate) fn refusal(answer: &Value) -> Option<(u64, String)> {
    let error = answer.get("error")?;
    let reason = error.get("description").and_then(Value::as_str).unwrap_or("no reason given");
    let reason = reason.chars().take(200).flat_map(char::escape_default).collect();
    Some((error.get("err_code").and_then(Value::as_u64).unwrap_or_default(), reason))
}

/// The keys stream as it has to be.
fn keys_stream(root: &SubjectRoot) -> Map<String, Value> {
    let config = json!({
        "name": root.keys_stream(),
        "description": "Key bundles of the components",
        "subjects": [root.keys_filter()],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": 1,
        "compression": "none",
        "max_msgs_per_subject": BUNDLES_KEPT,
        "max_msg_size": MAX_BUNDLE_LEN,
        "max_bytes": MAX_BYTES,
        "max_age": MAX_AGE,
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
        let wanted = keys_stream(&SubjectRoot::default());
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
