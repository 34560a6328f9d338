//! `bus pub`: one event.

use bus_proto::v1::{AlertEvent, Heartbeat, Severity, TelemetryEvent};
use bus_proto::{AnyPayload, Destination, MessageType};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::connect::{connect, leave};
use crate::exit::Outcome;
use crate::output::Output;
use crate::payload;
use crate::settings::{Layer, Settings};
use crate::values::percent;

pub(crate) const EXAMPLES: &str = "\
Examples:
  bus pub heartbeat --as agent/agent-01
  bus pub telemetry --cpu 12.5 --ram 40 --as agent/agent-01
  bus pub alert --type ransomware.mass-rename --severity high --as agent/agent-01";

/// The events that can be published.
#[derive(Debug, Subcommand)]
pub(crate) enum Event {
    /// How loaded a host is
    Telemetry {
        /// Use of all processors together, in percent
        #[arg(long, value_name = "PERCENT", allow_negative_numbers = true, value_parser = percent)]
        cpu: f64,
        /// Memory in use, in percent
        #[arg(long, value_name = "PERCENT", allow_negative_numbers = true, value_parser = percent)]
        ram: f64,
        #[command(flatten)]
        connection: Layer,
    },
    /// Something suspicious
    Alert {
        /// Kind of threat, for machines, e.g. ransomware.mass-rename
        #[arg(long = "type", value_name = "NAME")]
        threat_type: String,
        /// How bad it is
        #[arg(long)]
        severity: Level,
        /// What was seen, for people
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        #[command(flatten)]
        connection: Layer,
    },
    /// A sign of life
    Heartbeat {
        /// How long the program has been running
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        uptime: u64,
        /// The program's version [default: that of bus]
        #[arg(long, value_name = "TEXT", default_value = env!("CARGO_PKG_VERSION"), hide_default_value = true)]
        program_version: String,
        #[command(flatten)]
        connection: Layer,
    },
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    /// Worth knowing, no action needed
    Info,
    /// Look at it when convenient
    Low,
    /// Look at it today
    Medium,
    /// Look at it now
    High,
    /// Damage is being done
    Critical,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
            Level::Critical => Self::Critical,
        }
    }
}

impl Event {
    /// The message, and how to connect.
    pub(crate) fn into_parts(self) -> (AnyPayload, Layer) {
        match self {
            Self::Telemetry { cpu, ram, connection } => {
                (TelemetryEvent { cpu_usage: cpu, ram_usage: ram }.into(), connection)
            }
            Self::Alert { threat_type, severity, description, connection } => {
                let severity = Severity::from(severity).into();
                (AlertEvent { threat_type, severity, description }.into(), connection)
            }
            Self::Heartbeat { uptime, program_version, connection } => {
                (Heartbeat { uptime, version: program_version }.into(), connection)
            }
        }
    }
}

/// Publishes the event, and returns when the broker has accepted it.
pub(crate) async fn run(event: AnyPayload, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let bus = connect(&settings).await?;
    let message_type = match &event {
        AnyPayload::Telemetry(_) => MessageType::Telemetry,
        AnyPayload::Alert(_) => MessageType::Alert,
        _ => MessageType::Heartbeat,
    };
    let subject = bus.root().subject(&Destination::Events, &message_type, bus.principal());
    let published = bus.publish(event.clone()).await;
    leave(&bus).await?;
    published?;
    output.record(
        || format!("published {message_type} to {subject}"),
        || {
            json!({
                "published": true,
                "type": message_type.token(),
                "subject": subject,
                "payload": payload::to_json(&event),
            })
        },
    )?;
    Ok(Outcome::Done)
}
