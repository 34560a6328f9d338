//! What can go wrong on this side, by operation.

use bus_acl::Denied;
use bus_crypto::compression::CompressionError;
use bus_crypto::sealing::SealError;
use bus_proto::{EnvelopeError, MessageType, PayloadError, Principal, v1};

use crate::inbound::Rejected;
use crate::sealing::{NoSealingKey, SealingKeysError};
use crate::signer::KeyError;
use crate::status::CloseReason;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not one of a server with mutual TLS.
    #[error("`{url}` is not an address of the bus: use tls://host:port; there is no plaintext mode")]
    Address {
        /// The address.
        url: String,
    },
    /// No server answered.
    #[error("no server answers at {servers}: {reason}; check the address, and that the server runs")]
    Unreachable {
        /// The addresses that were tried.
        servers: String,
        /// What the operating system says.
        reason: String,
    },
    /// The TLS handshake failed: one side does not accept the other's certificate.
    #[error("the TLS handshake with {servers} failed: {reason}")]
    Handshake {
        /// The addresses that were tried.
        servers: String,
        /// What TLS says.
        reason: String,
    },
    /// The server accepts the certificate, but has no such component.
    #[error("the server refuses {principal}: it is not among the components that its configuration names")]
    Refused {
        /// Who was refused.
        principal: Principal,
    },
    /// The server accepts connections, but did not answer in time.
    #[error("no authenticated round trip with {servers} within {timeout_ms} ms")]
    TimedOut {
        /// The addresses that were tried.
        servers: String,
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The server does not let this component probe the connection, so its permissions come from another policy.
    #[error(
        "the server denies {principal} the probe subject `{subject}`: render its configuration with `bus server config` again"
    )]
    ProbeDenied {
        /// Who was denied.
        principal: Principal,
        /// The subject.
        subject: String,
    },
    /// There is no key to sign with.
    #[error("messages cannot be signed: {0}")]
    Key(#[from] KeyError),
    /// The system gives no randomness.
    #[error("the operating system gives no random bytes")]
    Randomness,
}

/// Why a message was not published. Nothing was sent, except after [`PublishError::BrokerDenied`], where the broker
/// dropped it, and [`PublishError::TimedOut`], where it may still be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The policy denies it.
    #[error(transparent)]
    Denied(Box<Denied>),
    /// The broker denies what the policy here allows: the two differ.
    #[error(
        "the broker denies publishing to `{subject}`: its configuration comes from another policy than this client's"
    )]
    BrokerDenied {
        /// The subject.
        subject: String,
    },
    /// The envelope breaks a rule.
    #[error("the envelope is invalid: {0}")]
    Invalid(EnvelopeError),
    /// The payload is of no type that can be published here.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The envelope names another source than this client.
    #[error("source_component is `{stated}`, but this client is `{own}`")]
    NotYourEnvelope {
        /// What the envelope says.
        stated: String,
        /// This client's component.
        own: String,
    },
    /// The message is larger than the bus carries.
    #[error("the message has {size} bytes, at most {max} are carried")]
    TooLarge {
        /// Its encoded size, in bytes.
        size: usize,
        /// The most, in bytes.
        max: usize,
    },
    /// The connection is down, and did not come up in time.
    #[error("not connected, for {timeout_ms} ms of waiting")]
    Disconnected {
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The envelope answers an event, or nothing.
    #[error(
        "only a directed message that came alone has an answer: an event has none, nor has a message out of a batch"
    )]
    NotARequest,
    /// The connection did not take it, or the broker did not answer, in time.
    #[error("the connection took no message, or the broker gave no answer, for {timeout_ms} ms")]
    TimedOut {
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The client is closed.
    #[error("the client is closed: {0}")]
    Closed(CloseReason),
    /// The system gives no randomness.
    #[error("the operating system gives no random bytes")]
    Randomness,
    /// Messages that waited could not be sent, or expired: [`BusEvent::Unsent`](crate::BusEvent::Unsent) says why.
    #[error("{messages} messages that waited were not sent")]
    Unsent {
        /// How many.
        messages: u64,
    },
    /// There is no key to sign with.
    #[error("the message cannot be signed: {0}")]
    Key(Box<KeyError>),
    /// There is no key to seal to. Nothing was sent.
    #[error(transparent)]
    NoSealingKey(#[from] NoSealingKey),
    /// The message has to be sealed, and nobody is named who could read it.
    #[error(
        "the policy has {message_type} sealed and names no recipients: name some there (`recipients`), or with \
         `BusOptions::seal_events`"
    )]
    NoRecipients {
        /// The type.
        message_type: MessageType,
    },
    /// The message could not be sealed. Nothing was sent.
    #[error("the message cannot be sealed: {0}")]
    Sealing(#[from] SealError),
    /// The message could not be compressed. Nothing was sent.
    #[error("the message cannot be compressed: {0}")]
    Compression(#[from] CompressionError),
}

/// Why a subscription did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The policy denies it.
    #[error(transparent)]
    Denied(Box<Denied>),
    /// The broker denies what the policy here allows: the two differ.
    #[error(
        "the broker denies subscribing to `{filter}`: its configuration comes from another policy than this client's"
    )]
    BrokerDenied {
        /// What was subscribed to.
        filter: String,
    },
    /// The server allows this connection no more subscriptions.
    #[error("the server allows no more subscriptions: drop some, or raise `max_subscriptions` in its configuration")]
    TooMany,
    /// The type is not registered.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The connection is down, and did not come up in time.
    #[error("not connected, for {timeout_ms} ms of waiting")]
    Disconnected {
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The broker did not confirm it in time.
    #[error("the broker did not confirm the subscription within {timeout_ms} ms")]
    TimedOut {
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The client is closed.
    #[error("the client is closed: {0}")]
    Closed(CloseReason),
    /// There are no keys that others could seal to: whoever receives has some.
    #[error(transparent)]
    SealingKeys(#[from] SealingKeysError),
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request was not sent.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The answer could not be subscribed to.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Nobody listens there.
    #[error("{destination} is not connected, or does not take this type of request")]
    NoResponders {
        /// Who was asked.
        destination: String,
    },
    /// No answer came in time. The request may have been carried out.
    #[error("no answer from {destination} within {timeout_ms} ms")]
    TimedOut {
        /// Who was asked.
        destination: String,
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The other side answered with an error.
    #[error("the other side answered: {}", .0.message)]
    Peer(v1::Error),
    /// The answer was refused on arrival.
    #[error("the answer was refused: {0}")]
    Rejected(Rejected),
}

/// Why a stream, or a consumer of one, is not as it has to be, or cannot be asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// An option of the operator's is outside its bounds.
    #[error("{option}: {rule}")]
    Option {
        /// The option.
        option: &'static str,
        /// What it may be.
        rule: &'static str,
    },
    /// The server has no JetStream, or this bus has none there.
    #[error("the server has no JetStream: give it a directory to keep streams in (`bus server run --store DIR`)")]
    NoJetStream,
    /// This component is not the provisioner.
    #[error(
        "the server denies {principal} `{subject}`: connect as its provisioner, which `bus server config --provisioner` names"
    )]
    NotPermitted {
        /// Who was denied.
        principal: Principal,
        /// The subject.
        subject: String,
    },
    /// The stream is there with settings that no update can change.
    #[error(
        "the stream `{stream}` is there with settings that cannot be changed ({reason}): remove it as an administrator \
         (`nats stream rm {stream}`) and provision again; what it keeps is lost, and components store their keys anew"
    )]
    Unchangeable {
        /// The stream.
        stream: String,
        /// The server's own words.
        reason: String,
    },
    /// The server does not make the stream as it has to be.
    #[error("the server refuses the stream `{stream}`: {reason} (JetStream error {code})")]
    Refused {
        /// The stream.
        stream: String,
        /// The server's own words.
        reason: String,
        /// JetStream's number of the error; 0 when it gave none.
        code: u64,
    },
    /// The server cannot set aside the room that the stream is to have.
    #[error(
        "the server has no room for the stream `{stream}` ({reason}): let it keep more (`bus server run --max-store`), or the \
         stream less (`bus streams apply --max-bytes`)"
    )]
    NoRoom {
        /// The stream.
        stream: String,
        /// The server's own words.
        reason: String,
    },
    /// The consumer is there with settings that no update can change.
    #[error(
        "the consumer `{consumer}` of `{stream}` is there with settings that cannot be changed ({reason}): remove it as an \
         administrator (`nats consumer rm {stream} {consumer}`) and provision again; it begins anew"
    )]
    UnchangeableConsumer {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The server's own words.
        reason: String,
    },
    /// The server does not make the consumer as it has to be.
    #[error("the server refuses the consumer `{consumer}` of `{stream}`: {reason} (JetStream error {code})")]
    RefusedConsumer {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The server's own words.
        reason: String,
        /// JetStream's number of the error; 0 when it gave none.
        code: u64,
    },
    /// JetStream did not answer in time. What was asked for may have been done.
    #[error("JetStream gave no answer for {timeout_ms} ms: try again")]
    TimedOut {
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The client is not connected.
    #[error(transparent)]
    Connection(#[from] PublishError),
}

/// Why a key stream, that of bundles or that of sealing keys, was of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The server has none.
    #[error("this bus has no key stream `{stream}`: run the server with JetStream, and `bus server provision`")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// The server did not take what was to be left there.
    #[error("the key stream `{stream}` did not take the message: {reason}")]
    Refused {
        /// The stream.
        stream: String,
        /// What the server said.
        reason: String,
    },
    /// Our sealing key cannot be published.
    #[error("no record of our sealing key can be made: {reason}")]
    Record {
        /// What is wrong with it, or with our certificate.
        reason: String,
    },
    /// Our sealing keys had to be replaced, and could not be.
    #[error(transparent)]
    SealingKeys(#[from] SealingKeysError),
    /// The system gives no randomness.
    #[error("the operating system gives no random bytes")]
    Randomness,
    /// The broker did not answer in time, or does not permit it.
    #[error("the broker gave no answer about the key stream `{stream}` for {timeout_ms} ms")]
    TimedOut {
        /// The stream.
        stream: String,
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
}

/// Why draining did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// Not all was sent and handled in time.
    #[error("draining did not end within {timeout_ms} ms: messages may be lost")]
    TimedOut {
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
}

impl From<KeyError> for PublishError {
    fn from(error: KeyError) -> Self {
        Self::Key(Box::new(error))
    }
}

impl From<Denied> for PublishError {
    fn from(denied: Denied) -> Self {
        Self::Denied(Box::new(denied))
    }
}

impl From<Denied> for SubscribeError {
    fn from(denied: Denied) -> Self {
        Self::Denied(Box::new(denied))
    }
}
