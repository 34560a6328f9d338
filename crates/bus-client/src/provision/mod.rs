//! Streams and their consumers: made, or brought to what they have to be, by the one component that may.
//!
//! JetStream's interface is JSON over requests. The few that are needed are written here by hand.

mod key_streams;
mod message_streams;
mod status;

use bus_proto::prost::bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::connection::Inner;
use crate::error::{ProvisionError, PublishError};
use crate::key_stream::Unanswered;

pub use key_streams::ProvisionedStreams;
pub use message_streams::{ProvisionedConsumer, ProvisionedMessageStream, StreamOptions};
pub use status::{ConsumerStatus, StreamStatus};

/// The settings of a stream or consumer, as JetStream has them.
type Config = Map<String, Value>;

/// Within which time a repeated message id counts as a repetition, in nanoseconds, unless a stream says otherwise.
const DUPLICATE_WINDOW: u64 = 120 * 1_000_000_000;

/// JetStream's own error numbers.
const NO_SUCH_CONSUMER: u64 = 10_014;
const NO_JETSTREAM_FOR_ACCOUNT: u64 = 10_039;
const NO_ROOM: u64 = 10_047;
const INVALID_CONFIGURATION: u64 = 10_052;
const NO_SUCH_STREAM: u64 = 10_059;
/// A consumer that cannot be as it is asked for.
const UNSUITABLE_CONSUMER: u64 = 10_012;

/// What was done about one stream or consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provisioned {
    /// There was none, and now there is one.
    Created,
    /// There was one with other settings, and now they are right.
    Updated,
    /// All was as it has to be.
    Unchanged,
    /// There is one that nothing asks for. It stays.
    Undeclared,
    /// There was one that nothing asks for, and now it is gone.
    Removed,
}

/// A stream, or a consumer of one, by its name.
#[derive(Debug, Clone, Copy)]
enum Asset<'a> {
    Stream(&'a str),
    Consumer { stream: &'a str, name: &'a str },
}

/// What can be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Info,
    Create,
    Update,
}

impl Asset<'_> {
    /// Where to ask for it.
    fn subject(self, operation: Operation) -> String {
        match (self, operation) {
            (Self::Stream(name), Operation::Info) => format!("$JS.API.STREAM.INFO.{name}"),
            (Self::Stream(name), Operation::Create) => format!("$JS.API.STREAM.CREATE.{name}"),
            (Self::Stream(name), Operation::Update) => format!("$JS.API.STREAM.UPDATE.{name}"),
            (Self::Consumer { stream, name }, Operation::Info) => format!("$JS.API.CONSUMER.INFO.{stream}.{name}"),
            (Self::Consumer { stream, name }, _) => format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"),
        }
    }

    /// What to ask with.
    fn body(self, operation: Operation, config: Option<&Config>) -> Bytes {
        let Some(config) = config else {
            return Bytes::new();
        };
        let body = match (self, operation) {
            (Self::Stream(_), _) => json!(config),
            (Self::Consumer { stream, .. }, Operation::Update) => {
                json!({ "stream_name": stream, "config": config, "action": "update" })
            }
            (Self::Consumer { stream, .. }, _) => {
                json!({ "stream_name": stream, "config": config, "action": "create" })
            }
        };
        body.to_string().into()
    }

    fn unchangeable(self, reason: String) -> ProvisionError {
        match self {
            Self::Stream(stream) => ProvisionError::Unchangeable { stream: stream.to_owned(), reason },
            Self::Consumer { stream, name } => {
                ProvisionError::UnchangeableConsumer { stream: stream.to_owned(), consumer: name.to_owned(), reason }
            }
        }
    }

    fn refused(self, code: u64, reason: String) -> ProvisionError {
        match self {
            Self::Stream(stream) => ProvisionError::Refused { stream: stream.to_owned(), reason, code },
            Self::Consumer { stream, name } => {
                let (stream, consumer) = (stream.to_owned(), name.to_owned());
                ProvisionError::RefusedConsumer { stream, consumer, reason, code }
            }
        }
    }

    fn no_answer(self) -> ProvisionError {
        self.refused(0, "its answer is not understood".to_owned())
    }
}

impl Inner {
    /// Sees to it that it is there, with these settings, where `found` is what is there.
    async fn bring_about(
        &self,
        asset: Asset<'_>,
        found: Option<Config>,
        wanted: &Config,
    ) -> Result<Provisioned, ProvisionError> {
        let Some(found) = found else {
            let made = self.configure(asset, Operation::Create, Some(wanted)).await?;
            return made.map(|_| Provisioned::Created).ok_or_else(|| asset.no_answer());
        };
        if significant(&found) == significant(wanted) {
            return Ok(Provisioned::Unchanged);
        }
        let updated = self.configure(asset, Operation::Update, Some(wanted)).await?.ok_or_else(|| asset.no_answer())?;
        // A server may know settings that are not known here, and have its own defaults for them.
        let is_same = significant(&found) == significant(&updated);
        Ok(if is_same { Provisioned::Unchanged } else { Provisioned::Updated })
    }

    /// The settings of what is there; `None` when there is nothing.
    async fn find(&self, asset: Asset<'_>) -> Result<Option<Config>, ProvisionError> {
        self.configure(asset, Operation::Info, None).await
    }

    async fn configure(
        &self,
        asset: Asset<'_>,
        operation: Operation,
        config: Option<&Config>,
    ) -> Result<Option<Config>, ProvisionError> {
        let answer = self.jetstream(asset, &asset.subject(operation), asset.body(operation, config)).await;
        match answer {
            Ok(mut answer) => match answer.get_mut("config").map(Value::take) {
                Some(Value::Object(config)) => Ok(Some(config)),
                _ => Err(asset.no_answer()),
            },
            Err(Refusal::Said { code: NO_SUCH_STREAM | NO_SUCH_CONSUMER, .. }) if operation == Operation::Info => {
                Ok(None)
            }
            Err(Refusal::Said { code: INVALID_CONFIGURATION | UNSUITABLE_CONSUMER, reason })
                if operation == Operation::Update =>
            {
                Err(asset.unchangeable(reason))
            }
            Err(refusal) => Err(refusal.about(asset)),
        }
    }

    /// One request, answered, denied or given up within the operation timeout.
    async fn jetstream(&self, asset: Asset<'_>, subject: &str, body: Bytes) -> Result<Value, Refusal> {
        let moment = self.shared.verdicts.now();
        let answered = tokio::select! {
            answered = self.ask_broker(subject.to_owned(), body) => answered,
            () = self.shared.verdicts.publish_denial(subject, moment) => {
                return Err(Refusal::Other(ProvisionError::NotPermitted {
                    principal: self.shared.principal.clone(),
                    subject: subject.to_owned(),
                }));
            }
        };
        let answer = answered.map_err(|why| match why {
            Unanswered::NoResponders => ProvisionError::NoJetStream,
            Unanswered::Randomness => PublishError::Randomness.into(),
            Unanswered::TimedOut => ProvisionError::TimedOut { timeout_ms: self.operation_timeout.as_millis() },
        })?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|_| asset.no_answer())?;
        match refusal(&answer) {
            None => Ok(answer),
            Some((code, reason)) => Err(Refusal::Said { code, reason }),
        }
    }
}

/// Why JetStream did not do what it was asked for.
enum Refusal {
    /// It said so.
    Said { code: u64, reason: String },
    /// Anything else.
    Other(ProvisionError),
}

impl From<ProvisionError> for Refusal {
    fn from(error: ProvisionError) -> Self {
        Self::Other(error)
    }
}

impl Refusal {
    fn about(self, asset: Asset<'_>) -> ProvisionError {
        match self {
            Self::Said { code: NO_JETSTREAM_FOR_ACCOUNT, .. } => ProvisionError::NoJetStream,
            Self::Said { code, reason } => match asset {
                Asset::Stream(stream) if code == NO_ROOM => {
                    ProvisionError::NoRoom { stream: stream.to_owned(), reason }
                }
                asset => asset.refused(code, reason),
            },
            Self::Other(error) => error,
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

/// The settings in a JSON object.
fn object(value: Value) -> Config {
    match value {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}

/// The settings that say something: not what is off or empty, and not the server's own notes.
fn significant(config: &Config) -> Config {
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

/// Keeps what is the operator's as it is where it is there.
fn leave_to_operator(settings: &[&str], found: Option<&Config>, wanted: &mut Config) {
    for setting in settings {
        if let Some(value) = found.and_then(|found| found.get(*setting)) {
            wanted.insert((*setting).to_owned(), value.clone());
        }
    }
}
