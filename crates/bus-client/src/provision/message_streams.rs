//! The streams of durable messages, and their consumers.

use std::collections::BTreeSet;
use std::num::NonZeroU8;
use std::time::Duration;

use bus_acl::{Durable, Kept, Policy, Source};
use bus_proto::prost::bytes::Bytes;
use bus_proto::{MessageStream, SubjectRoot};
use serde_json::{Value, json};

use super::{Asset, Config, DUPLICATE_WINDOW, Provisioned, leave_to_operator, object};
use crate::connection::{BusClient, Inner};
use crate::error::ProvisionError;

/// What a stream keeps at most unless the operator says otherwise, in bytes.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The least that an operator can bound a stream to, in bytes: four of the largest messages that a server takes unless told
/// otherwise.
const LEAST_MAX_BYTES: u64 = 1024 * 1024;

/// The most replicas that NATS knows.
const MAX_REPLICAS: u8 = 5;

/// A millisecond in nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// What the operator decides about the streams of durable messages. Everything else follows from the policy.
///
/// What is `None` stays as it is where there is a stream, and is otherwise the default that stands at each field.
///
/// ```
/// let mut options = bus_client::StreamOptions::default();
/// options.replicas = Some(3);
/// options.max_bytes = Some(8 << 30);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamOptions {
    /// On how many servers of a cluster each message is stored: 1, 3 or 5. Default: 1.
    pub replicas: Option<u8>,
    /// How much each stream keeps at most, in bytes: 1 MiB to what fits into an `i64`. A full stream refuses messages until
    /// others have expired, and their publishers are told. The server sets the room aside. Default: 256 MiB.
    pub max_bytes: Option<u64>,
    /// How many messages of one type one sender can have in a stream at a time, or with 0, no such bound. For one that has
    /// more the stream refuses, and is not full for others. Default: 0.
    pub max_messages_per_subject: Option<u64>,
    /// How long a stream remembers the ids of messages to tell a repetition: at least two minutes, and never longer than
    /// messages live. Default: two minutes.
    pub duplicate_window: Option<Duration>,
    /// Whether consumers that the policy does not declare are removed. Default: no, they stay and are told.
    pub prune: bool,
}

/// What [`BusClient::provision_streams`] did about one stream and its consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvisionedMessageStream {
    /// The name of the stream.
    pub stream: String,
    /// What was done about the stream. [`Provisioned::Undeclared`]: the policy makes nothing durable there, and the stream
    /// takes no more messages.
    pub outcome: Provisioned,
    /// What was done about each consumer: those that the policy declares, in its order, then the others.
    pub consumers: Vec<ProvisionedConsumer>,
}

/// What [`BusClient::provision_streams`] did about one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvisionedConsumer {
    /// Its name in the stream.
    pub consumer: String,
    /// What was done about it.
    pub outcome: Provisioned,
}

impl StreamOptions {
    fn check(&self) -> Result<(), ProvisionError> {
        let wrong = |option, rule| Err(ProvisionError::Option { option, rule });
        if self.replicas.is_some_and(|replicas| replicas > MAX_REPLICAS || replicas % 2 == 0) {
            return wrong("replicas", "it must be 1, 3 or 5");
        }
        if self.max_bytes.is_some_and(|bytes| bytes < LEAST_MAX_BYTES || i64::try_from(bytes).is_err()) {
            return wrong("max_bytes", "it must be at least 1 MiB, 1048576");
        }
        if self.max_messages_per_subject.is_some_and(|messages| i64::try_from(messages).is_err()) {
            return wrong("max_messages_per_subject", "it must fit into 63 bits");
        }
        if self.duplicate_window.is_some_and(|window| window < Duration::from_nanos(DUPLICATE_WINDOW)) {
            return wrong("duplicate_window", "it must be at least two minutes");
        }
        Ok(())
    }

    /// A stream as it has to be, where `found` is what is there.
    fn stream_config(&self, stream: MessageStream<'_>, source: Source, kept: &Kept, found: Option<&Config>) -> Config {
        let number = |setting: &str| found.and_then(|found| found.get(setting)).and_then(Value::as_u64);
        let max_age = kept.max_lifetime_ms.saturating_mul(MILLISECOND);
        let max_bytes = self.max_bytes.or_else(|| number("max_bytes")).unwrap_or(MAX_BYTES);
        let per_subject = self.max_messages_per_subject.or_else(|| number("max_msgs_per_subject")).unwrap_or(0);
        let window = self.duplicate_window.map(|window| u64::try_from(window.as_nanos()).unwrap_or(u64::MAX));
        let window = window.or_else(|| number("duplicate_window")).unwrap_or_default();
        let description = match source {
            Source::Events => "Durable events",
            Source::Inbox => "Durable directed messages",
        };
        let mut config = object(json!({
            "name": stream.name(),
            "description": description,
            "subjects": kept.subjects,
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "discard_new_per_subject": per_subject > 0,
            "num_replicas": 1,
            "compression": "none",
            "max_msgs_per_subject": if per_subject > 0 { json!(per_subject) } else { json!(-1) },
            "max_msg_size": -1,
            "max_bytes": max_bytes,
            "max_age": max_age,
            "max_msgs": -1,
            "max_consumers": -1,
            "duplicate_window": window.max(DUPLICATE_WINDOW).min(max_age),
            "allow_direct": false,
            "deny_delete": true,
            "deny_purge": true,
            "allow_rollup_hdrs": false,
            "allow_msg_ttl": false,
        }));
        leave_to_operator(&["num_replicas", "placement"], found, &mut config);
        if let Some(replicas) = self.replicas {
            config.insert("num_replicas".to_owned(), replicas.into());
        }
        config
    }
}

impl BusClient {
    /// Sees to it that the streams of durable messages ([`SubjectRoot::events_stream`], [`SubjectRoot::inbox_stream`]) and
    /// their consumers are there, as this client's policy says: [`Policy::kept`], [`Policy::durables`].
    ///
    /// A stream keeps on disk what is durable, each message until it has expired, and refuses more when it is full. Nobody
    /// can delete from it, purge it, roll it up or read it but by a consumer. A consumer begins with the oldest message that
    /// is there. One that the policy no longer declares stays unless [`StreamOptions::prune`] is set; a stream of which the
    /// policy makes nothing durable any more stays as well, keeps what it has, and takes no more. Placement, and what the
    /// options leave open, stay as they are.
    ///
    /// Only the server's provisioner may do this. Doing it again changes nothing. What it returns is about the streams that
    /// are there now.
    ///
    /// ```no_run
    /// # async fn run(bus: bus_client::BusClient) -> Result<(), bus_client::ProvisionError> {
    /// for done in bus.provision_streams(&bus_client::StreamOptions::default()).await? {
    ///     println!("{}: {:?}", done.stream, done.outcome);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When an option is outside its bounds, when the server has no JetStream, does not let this component do it, refuses a
    /// stream or a consumer, or does not answer within the operation timeout. [`ProvisionError::Unchangeable`] and
    /// [`ProvisionError::UnchangeableConsumer`] are for an operator to resolve. What was done before stays.
    pub async fn provision_streams(
        &self,
        options: &StreamOptions,
    ) -> Result<Vec<ProvisionedMessageStream>, ProvisionError> {
        let inner = &self.inner;
        let replicas = options.replicas.or(inner.stream_replicas.map(NonZeroU8::get));
        let options = &StreamOptions { replicas, ..options.clone() };
        options.check()?;
        inner.wait_until_up().await?;
        let mut done = Vec::new();
        for source in [Source::Events, Source::Inbox] {
            done.extend(inner.provision_messages(source, options).await?);
        }
        Ok(done)
    }
}

impl Inner {
    async fn provision_messages(
        &self,
        source: Source,
        options: &StreamOptions,
    ) -> Result<Option<ProvisionedMessageStream>, ProvisionError> {
        let (root, policy) = (&self.gate.root, &self.gate.policy);
        let stream = source.stream(root);
        let name = stream.name();
        let found = self.find(Asset::Stream(&name)).await?;
        let outcome = match (policy.kept(root, source), found) {
            (None, None) => return Ok(None),
            (None, Some(found)) => {
                let mut idle = found.clone();
                idle.insert("subjects".to_owned(), json!([stream.idle()]));
                self.bring_about(Asset::Stream(&name), Some(found), &idle).await?;
                Provisioned::Undeclared
            }
            (Some(kept), found) => {
                let wanted = options.stream_config(stream, source, &kept, found.as_ref());
                self.bring_about(Asset::Stream(&name), found, &wanted).await?
            }
        };
        let mut consumers = Vec::new();
        for durable in declared(policy, source) {
            let consumer = stream.consumer(&durable.endpoint, &durable.name).name().to_owned();
            let asset = Asset::Consumer { stream: &name, name: &consumer };
            let found = self.find(asset).await?;
            let mut wanted = consumer_config(root, policy, durable, &consumer);
            leave_to_operator(&["num_replicas"], found.as_ref(), &mut wanted);
            let outcome = self.bring_about(asset, found, &wanted).await?;
            consumers.push(ProvisionedConsumer { consumer, outcome });
        }
        let declared: BTreeSet<_> = consumers.iter().map(|done| done.consumer.clone()).collect();
        for consumer in self.consumers(&name).await? {
            let consumer = super::status::name_of(&consumer);
            if declared.contains(&consumer) || consumer.is_empty() {
                continue;
            }
            let outcome =
                if options.prune { self.remove_consumer(&name, &consumer).await? } else { Provisioned::Undeclared };
            consumers.push(ProvisionedConsumer { consumer, outcome });
        }
        Ok(Some(ProvisionedMessageStream { stream: name, outcome, consumers }))
    }

    async fn remove_consumer(&self, stream: &str, name: &str) -> Result<Provisioned, ProvisionError> {
        let asset = Asset::Consumer { stream, name };
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
        match self.jetstream(asset, &subject, Bytes::new()).await {
            Ok(_) => Ok(Provisioned::Removed),
            Err(refusal) => Err(refusal.about(asset)),
        }
    }
}

/// The consumers that the policy declares for one stream.
pub(super) fn declared(policy: &Policy, source: Source) -> impl Iterator<Item = &Durable> {
    policy.durables().iter().filter(move |durable| durable.from == source)
}

/// A consumer as it has to be.
///
/// It delivers without end: how often is enough, its owner counts, which can tell what became of the message.
fn consumer_config(root: &SubjectRoot, policy: &Policy, durable: &Durable, name: &str) -> Config {
    let mut filters = policy.delivered(root, durable);
    let mut config = object(json!({
        "name": name,
        "durable_name": name,
        "description": format!("Durable messages for {}", durable.endpoint),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_policy": "explicit",
        "ack_wait": u64::try_from(durable.ack_wait.as_nanos()).unwrap_or(u64::MAX),
        "max_ack_pending": durable.max_ack_pending,
        "max_deliver": -1,
        "max_waiting": 512,
        "num_replicas": 0,
    }));
    // JetStream has a setting for one filter and another for several.
    match (filters.pop(), filters.is_empty()) {
        (Some(only), true) => config.insert("filter_subject".to_owned(), only.into()),
        (last, _) => {
            filters.extend(last);
            config.insert("filter_subjects".to_owned(), filters.into())
        }
    };
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_acl::{DeliveryRule, Destinations, Types};
    use bus_proto::MessageType;

    fn policy(lifetime: u64) -> Policy {
        let rule = DeliveryRule::durable(Types::only([MessageType::Alert]), Destinations::Events, lifetime);
        Policy::default().with_deliveries([rule]).unwrap()
    }

    fn config(options: &StreamOptions, lifetime: u64, found: Option<&Config>) -> Config {
        let root = SubjectRoot::default();
        let kept = policy(lifetime).kept(&root, Source::Events).unwrap();
        options.stream_config(root.events_stream(), Source::Events, &kept, found)
    }

    #[test]
    fn what_the_operator_leaves_open_stays_as_it_is() {
        let options = StreamOptions {
            replicas: Some(3),
            max_bytes: Some(1 << 30),
            max_messages_per_subject: Some(7),
            duplicate_window: Some(Duration::from_secs(600)),
            prune: false,
        };
        let first = config(&options, 3_600_000, None);
        assert_eq!(first["num_replicas"], 3);
        assert_eq!(first["max_bytes"], 1 << 30);
        assert_eq!((&first["max_msgs_per_subject"], &first["discard_new_per_subject"]), (&json!(7), &json!(true)));
        assert_eq!(first["duplicate_window"], 600_000_000_000_u64);
        assert_eq!(config(&StreamOptions::default(), 3_600_000, Some(&first)), first);
    }

    #[test]
    fn a_bound_for_each_sender_can_be_taken_back() {
        let mut options = StreamOptions { max_messages_per_subject: Some(7), ..StreamOptions::default() };
        let first = config(&options, 3_600_000, None);
        options.max_messages_per_subject = Some(0);
        let second = config(&options, 3_600_000, Some(&first));
        assert_eq!((&second["max_msgs_per_subject"], &second["discard_new_per_subject"]), (&json!(-1), &json!(false)));
    }

    #[test]
    fn repetitions_are_remembered_for_two_minutes_and_never_longer_than_messages_live() {
        let window = |lifetime, found: Option<&Config>| {
            config(&StreamOptions::default(), lifetime, found)["duplicate_window"].as_u64().unwrap() / MILLISECOND
        };
        assert_eq!(window(3_600_000, None), 120_000);
        assert_eq!(window(30_000, None), 30_000);
        let short = config(&StreamOptions::default(), 30_000, None);
        assert_eq!(window(3_600_000, Some(&short)), 120_000, "it grows with the lifetime");
    }

    #[test]
    fn options_outside_their_bounds_are_refused() {
        let changes: [fn(&mut StreamOptions); 5] = [
            |options| options.replicas = Some(2),
            |options| options.replicas = Some(7),
            |options| options.max_bytes = Some(1_048_575),
            |options| options.max_bytes = Some(u64::MAX),
            |options| options.duplicate_window = Some(Duration::from_secs(119)),
        ];
        for change in changes {
            let mut options = StreamOptions::default();
            assert!(options.check().is_ok());
            change(&mut options);
            assert!(matches!(options.check(), Err(ProvisionError::Option { .. })), "{options:?}");
        }
    }
}
