//! `bus streams`: the streams of durable messages, and who reads them.

use std::time::Duration;

use bus_acl::Source;
use bus_client::{ConsumerStatus, Provisioned, ProvisionedMessageStream, StreamOptions, StreamStatus};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::block_on;
use crate::connect::{connect, leave};
use crate::escape::plain;
use crate::exit::Outcome;
use crate::output::{Output, table};
use crate::settings::{Layer, Settings};
use crate::values::{duration, size, time_of_millis};

const EXAMPLES: &str = "\
The policy says which messages are durable ([[delivery]]) and which component reads them
([[durable]]). Streams keep them until they expire, and refuse more when they are full. Only the
server's provisioner can make the streams and see how they are.

Examples:
  bus streams apply --as control/provisioner
  bus streams apply --replicas 3 --max-bytes 8GiB --as control/provisioner
  bus streams status --as control/provisioner";

/// What can be done about the streams of durable messages.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum StreamsCommand {
    /// Make the streams and consumers that the policy declares, or bring them up to date
    ///
    /// Doing it again changes nothing. What is not given stays as it is. `bus server run` does it by itself.
    Apply {
        #[command(flatten)]
        args: ApplyArgs,
        #[command(flatten)]
        connection: Layer,
    },
    /// Show how full the streams are, and how far their consumers
    ///
    /// Exit code 0 only if all is there that the policy declares.
    Status {
        #[command(flatten)]
        connection: Layer,
    },
}

/// What the operator decides about streams.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// On how many servers of a cluster each message is stored: 1, 3 or 5 [default: 1]
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<u8>,

    /// How much each stream keeps at most, such as 8GiB; the server sets it aside [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_bytes: Option<u64>,

    /// How many messages of one type one sender can have in a stream; 0: no such bound [default: 0]
    #[arg(long, value_name = "NUMBER")]
    max_messages_per_subject: Option<u64>,

    /// How long repetitions are told, at least 2m [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duplicate_window: Option<Duration>,

    /// Remove consumers that the policy does not declare, and what they had not handled with them
    #[arg(long)]
    prune: bool,
}

impl StreamsCommand {
    /// Does it.
    pub(crate) fn run(
        self,
        load: impl FnOnce(Layer) -> anyhow::Result<Settings>,
        output: Output,
    ) -> anyhow::Result<Outcome> {
        match self {
            Self::Apply { args, connection } => block_on(apply(args, load(connection)?, output)),
            Self::Status { connection } => block_on(status(load(connection)?, output)),
        }
    }
}

async fn apply(args: ApplyArgs, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let mut options = StreamOptions::default();
    options.replicas = args.replicas;
    options.max_bytes = args.max_bytes;
    options.max_messages_per_subject = args.max_messages_per_subject;
    options.duplicate_window = args.duplicate_window;
    options.prune = args.prune;
    let bus = connect(&settings).await?;
    let done = bus.provision_streams(&options).await;
    leave(&bus).await?;
    let done = done?;
    output.record(|| applied(&done), || json!({ "streams": done.iter().map(applied_json).collect::<Value>() }))?;
    Ok(Outcome::Done)
}

/// What was done, a line for each stream and consumer.
pub(crate) fn applied(done: &[ProvisionedMessageStream]) -> String {
    if done.is_empty() {
        return "the policy makes nothing durable, and there is no stream".to_owned();
    }
    let mut lines = Vec::new();
    for ProvisionedMessageStream { stream, outcome, consumers, .. } in done {
        lines.push(match outcome {
            Provisioned::Undeclared => {
                format!("the stream {stream} takes no more messages: the policy makes nothing durable there")
            }
            outcome => format!("the stream {stream} is there{}", remark(*outcome)),
        });
        for consumer in consumers {
            let name = plain(&consumer.consumer);
            lines.push(match consumer.outcome {
                Provisioned::Undeclared => format!("  its consumer {name} stays, which the policy does not declare"),
                Provisioned::Removed => format!("  its consumer {name} is removed"),
                outcome => format!("  its consumer {name} is there{}", remark(outcome)),
            });
        }
    }
    lines.join("\n")
}

fn applied_json(done: &ProvisionedMessageStream) -> Value {
    let consumers = done.consumers.iter();
    let consumers = consumers.map(|done| json!({ "consumer": done.consumer, "outcome": outcome(done.outcome) }));
    json!({ "stream": done.stream, "outcome": outcome(done.outcome), "consumers": consumers.collect::<Value>() })
}

/// What was done, in a word.
pub(crate) fn outcome(done: Provisioned) -> &'static str {
    match done {
        Provisioned::Created => "created",
        Provisioned::Updated => "updated",
        Provisioned::Undeclared => "undeclared",
        Provisioned::Removed => "removed",
        _ => "unchanged",
    }
}

/// What was done, behind a sentence; nothing, if nothing was.
pub(crate) fn remark(done: Provisioned) -> String {
    match done {
        Provisioned::Unchanged => String::new(),
        done => format!(", {}", outcome(done)),
    }
}

async fn status(settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let bus = connect(&settings).await?;
    let status = bus.stream_status().await;
    leave(&bus).await?;
    let (status, policy, root) = (status?, settings.policy()?, settings.root());
    let wanted = [Source::Events, Source::Inbox].into_iter().filter(|source| policy.kept(&root, *source).is_some());
    let mut missing: Vec<_> = wanted.map(|source| source.stream(&root).name()).collect();
    missing.retain(|name| !status.iter().any(|stream| stream.stream == *name));
    output.record(
        || shown(&status, &missing),
        || json!({ "streams": status.iter().map(stream_json).collect::<Value>(), "missing": missing }),
    )?;
    let is_complete = missing.is_empty() && status.iter().all(|stream| stream.missing.is_empty());
    Ok(if is_complete { Outcome::Done } else { Outcome::Failed })
}

fn shown(status: &[StreamStatus], missing: &[String]) -> String {
    let mut text = String::new();
    if status.is_empty() && missing.is_empty() {
        text.push_str("the policy makes nothing durable, and there is no stream\n");
    }
    if !status.is_empty() {
        let mut streams = table(["stream", "messages", "bytes", "at most", "replicas", "oldest", "latest"]);
        for stream in status {
            let at = |time: Option<i64>| time.map_or_else(|| "-".to_owned(), time_of_millis);
            let figures = [stream.messages, stream.bytes, stream.max_bytes, stream.replicas].map(|n| n.to_string());
            let times = [at(stream.first_at), at(stream.last_at)];
            streams.add_row([stream.stream.clone()].into_iter().chain(figures).chain(times));
        }
        text.push_str(&format!("{streams}\n"));
    }
    if status.iter().any(|stream| !stream.consumers.is_empty()) {
        let header = ["consumer", "stream", "lag", "unacknowledged", "redelivered", "waiting", "declared"];
        let mut consumers = table(header);
        for (stream, consumer) in status.iter().flat_map(|of| of.consumers.iter().map(move |one| (&of.stream, one))) {
            let ConsumerStatus { pending, unacknowledged, redelivered, waiting, .. } = consumer;
            let figures = [pending, unacknowledged, redelivered, waiting].map(ToString::to_string);
            let declared = if consumer.declared { "yes" } else { "no" };
            let names = [plain(&consumer.consumer), stream.clone()];
            consumers.add_row(names.into_iter().chain(figures).chain([declared.to_owned()]));
        }
        text.push_str(&format!("{consumers}\n"));
    }
    for stream in missing {
        text.push_str(&format!("there is no stream {stream}: run `bus streams apply`\n"));
    }
    for (stream, consumer) in status.iter().flat_map(|of| of.missing.iter().map(move |one| (&of.stream, one))) {
        text.push_str(&format!("the stream {stream} has no consumer {consumer}: run `bus streams apply`\n"));
    }
    text
}

fn stream_json(status: &StreamStatus) -> Value {
    let consumer = |consumer: &ConsumerStatus| {
        json!({
            "consumer": consumer.consumer, "declared": consumer.declared, "pending": consumer.pending,
            "unacknowledged": consumer.unacknowledged, "redelivered": consumer.redelivered, "waiting": consumer.waiting,
        })
    };
    json!({
        "stream": status.stream, "messages": status.messages, "bytes": status.bytes, "max_bytes": status.max_bytes,
        "replicas": status.replicas, "first_at": status.first_at.map(time_of_millis),
        "last_at": status.last_at.map(time_of_millis), "missing": status.missing,
        "consumers": status.consumers.iter().map(consumer).collect::<Value>(),
    })
}
