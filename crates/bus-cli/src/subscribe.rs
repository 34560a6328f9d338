//! `bus sub`: messages as they arrive, and who signed them.

use std::path::PathBuf;

use bus_client::{BusClient, Rejected, Subscription, Verified};
use bus_proto::{AnyPayload, MessageType, Payload, v1};
use clap::Args;
use serde_json::{Value, json};

use crate::capture::Capture;
use crate::connect::{Patience, leave, remaining, until_closed};
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::payload;
use crate::settings::Settings;
use crate::signals::{Kind, Stop};
use crate::values::{short, time_of_millis};

pub(crate) const EXAMPLES: &str = "\
Examples:
  bus sub --as core/core-01                      every event
  bus sub alert --as core/core-01 --json         alerts, as JSON lines
  bus sub --inbox --as agent/agent-01            what is sent to this component alone
  bus sub --capture evidence --as core/core-01   with files that `bus verify` checks later

Each line has the time, the sender, the first 16 digits of the id of the key that signed it, the
place in its batch if it came in one, such as [12], the type, and the payload. A message that is refused is logged on stderr and not printed.";

/// What to print.
#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// Message type, e.g. telemetry, or `all`
    #[arg(value_name = "TYPE", default_value = "all")]
    what: String,

    /// Stop after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// What is sent to this component alone, instead of events
    #[arg(long)]
    inbox: bool,

    /// Keep what proves each message in this directory, for `bus verify`: DIGEST.envelope, one for a whole batch, and
    /// KEY_ID.bundle, one for each key. They hold the messages themselves
    #[arg(long, value_name = "DIR")]
    capture: Option<PathBuf>,

    /// Stop, with exit code 1, before more than this was written there
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    capture_limit: u64,

    #[command(flatten)]
    patience: Patience,
}

/// Prints messages until there were enough, or the program is asked to stop.
pub(crate) async fn run(args: SubscribeArgs, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let message_type = match args.what.as_str() {
        "all" => None,
        name => Some(name.parse::<MessageType>().map_err(|error| Failure::usage(error.to_string()))?),
    };
    let capture = args.capture.as_deref().map(|dir| Capture::new(dir, args.capture_limit)).transpose()?;
    let mut stop = Stop::listen(Kind::Component, || {})?;
    let bus = args.patience.connect(&settings, &mut stop).await?;
    let printer = Printer { left: args.count, capture, output };
    match message_type {
        None => printer.run::<AnyPayload>(&bus, args.inbox, &mut stop).await,
        Some(MessageType::Telemetry) => printer.run::<v1::TelemetryEvent>(&bus, args.inbox, &mut stop).await,
        Some(MessageType::Alert) => printer.run::<v1::AlertEvent>(&bus, args.inbox, &mut stop).await,
        Some(MessageType::Command) => printer.run::<v1::CommandRequest>(&bus, args.inbox, &mut stop).await,
        Some(MessageType::Heartbeat) => printer.run::<v1::Heartbeat>(&bus, args.inbox, &mut stop).await,
        Some(MessageType::CommandResult) => printer.run::<v1::CommandResult>(&bus, args.inbox, &mut stop).await,
        Some(MessageType::Error) => printer.run::<v1::Error>(&bus, args.inbox, &mut stop).await,
        Some(MessageType::Custom(_)) => {
            Err(Failure::usage("bus knows no custom types; only programs that registered them can read them"))
        }
    }
}

/// What a message is about, where that is said to this component. `null` where it is said to others alone.
fn references<T>(message: &Verified<T>) -> Option<Vec<Value>> {
    let shown = |reference: &v1::Reference| json!({ "kind": reference.kind, "value": reference.value });
    (!message.has_hidden_references()).then(|| message.references().iter().map(shown).collect())
}

struct Printer {
    left: Option<u64>,
    capture: Option<Capture>,
    output: Output,
}

impl Printer {
    async fn run<T: Payload + Clone>(
        mut self,
        bus: &BusClient,
        inbox: bool,
        stop: &mut Stop,
    ) -> anyhow::Result<Outcome> {
        let messages: Subscription<T> = if inbox { bus.subscribe_inbox().await? } else { bus.subscribe().await? };
        let mut messages = messages.keep_evidence(self.capture.is_some());
        tracing::info!(filter = messages.filter(), "subscribed");
        let printed = tokio::select! {
            printed = self.print_all(&mut messages) => printed,
            reason = until_closed(bus) => Err(Failure::closed(&reason)),
            () = stop.requested() => Ok(()),
        };
        let left = leave(bus).await;
        printed?;
        while self.left != Some(0)
            && let Some(message) = remaining(&mut messages).await
        {
            self.print(message)?;
        }
        left.map(|()| Outcome::Done)
    }

    /// Prints messages until there were enough.
    async fn print_all<T: Payload + Clone>(&mut self, messages: &mut Subscription<T>) -> anyhow::Result<()> {
        while self.left != Some(0) {
            match messages.next().await {
                Some(message) => self.print(message)?,
                // The caller learns from the connection why.
                None => std::future::pending().await,
            }
        }
        Ok(())
    }

    fn print<T: Payload + Clone>(&mut self, message: Result<Verified<T>, Rejected>) -> anyhow::Result<()> {
        // The client has logged what it refused.
        let Ok(message) = message else { return Ok(()) };
        let key_id = message.key_id();
        // Before it is printed: what was printed is proven.
        let file = match (&mut self.capture, message.evidence()) {
            (Some(capture), Some(evidence)) => Some(capture.keep(&evidence, &key_id)?),
            _ => None,
        };
        let content = message.payload().clone().into_payload();
        let time = time_of_millis(message.timestamp_unix_ms());
        self.output.record(
            || {
                let (sender, message_type) = (&message.sender().endpoint, message.message_type());
                let place = message.batch_index().map_or_else(String::new, |index| format!("[{index}]"));
                format!("{time}  {sender}  {}{place}  {message_type}  {}", short(&key_id), payload::to_text(&content))
            },
            || {
                json!({
                    "sender": message.sender().to_string(),
                    "key_id": key_id.to_string(),
                    "type": message.message_type().token(),
                    "subject": message.subject(),
                    "time": time,
                    "message_id": message.message_id(),
                    "sequence": message.sequence(),
                    "batch_index": message.batch_index(),
                    "sealed": message.is_sealed(),
                    "references": references(&message),
                    "evidence": file,
                    "payload": payload::to_json(&content),
                })
            },
        )?;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }
}
