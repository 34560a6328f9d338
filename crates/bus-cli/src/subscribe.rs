//! `bus sub`: messages as they arrive.

use bus_client::{BusClient, Received, Rejected, Subscription};
use bus_proto::{AnyPayload, MessageType, Payload, v1};
use clap::Args;
use serde_json::json;

use crate::connect::{Patience, leave, remaining, until_closed};
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::payload;
use crate::settings::Settings;
use crate::signals::{OnHangup, Stop};
use crate::values::time_of_millis;

pub(crate) const EXAMPLES: &str = "\
Examples:
  bus sub --as core/core-01                      every event
  bus sub alert --as core/core-01 --json         alerts, as JSON lines
  bus sub --inbox --as agent/agent-01            what is sent to this component alone

A message that is refused is logged on stderr and not printed.";

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

    #[command(flatten)]
    patience: Patience,
}

/// Prints messages until there were enough, or the program is asked to stop.
pub(crate) async fn run(args: SubscribeArgs, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let message_type = match args.what.as_str() {
        "all" => None,
        name => Some(name.parse::<MessageType>().map_err(|error| Failure::usage(error.to_string()))?),
    };
    let mut stop = Stop::listen(OnHangup::Stop, || {})?;
    let bus = args.patience.connect(&settings, &mut stop).await?;
    let printer = Printer { left: args.count, output };
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

struct Printer {
    left: Option<u64>,
    output: Output,
}

impl Printer {
    async fn run<T: Payload + Clone>(
        mut self,
        bus: &BusClient,
        inbox: bool,
        stop: &mut Stop,
    ) -> anyhow::Result<Outcome> {
        let mut messages: Subscription<T> = if inbox { bus.subscribe_inbox().await? } else { bus.subscribe().await? };
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

    fn print<T: Payload + Clone>(&mut self, message: Result<Received<T>, Rejected>) -> anyhow::Result<()> {
        // The client has logged what it refused.
        let Ok(message) = message else { return Ok(()) };
        let content = message.payload().clone().into_payload();
        let time = time_of_millis(message.timestamp_unix_ms());
        self.output.record(
            || {
                let (sender, message_type) = (&message.sender().endpoint, message.message_type());
                format!("{time}  {sender}  {message_type}  {}", payload::to_text(&content))
            },
            || {
                json!({
                    "sender": message.sender().to_string(),
                    "type": message.message_type().token(),
                    "subject": message.subject(),
                    "time": time,
                    "message_id": message.message_id(),
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
