//! `bus command`: one component is told to do something.

use std::time::Duration;

use bus_proto::Endpoint;
use bus_proto::v1::{CommandRequest, CommandResult, CommandStatus, CommandType};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::connect::{connect, leave};
use crate::escape::plain;
use crate::exit::Outcome;
use crate::output::Output;
use crate::payload;
use crate::settings::Settings;
use crate::values::duration;

pub(crate) const EXAMPLES: &str = "\
Examples:
  bus command kill agent/agent-01 4242 --as core/core-01
  bus command isolate agent/agent-01 4242 --timeout 2s --as core/core-01

Exit code 0: completed; 1: failed, or refused by the component; 3: denied by the policy or the
broker; 5: nobody answers.";

/// What a component can be told to do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Order {
    /// End a process
    Kill,
    /// Stop a process from doing anything, without ending it
    Isolate,
}

impl From<Order> for CommandType {
    fn from(order: Order) -> Self {
        match order {
            Order::Kill => Self::Kill,
            Order::Isolate => Self::Isolate,
        }
    }
}

/// Whom to command, and what.
#[derive(Debug, Args)]
pub(crate) struct CommandArgs {
    /// What to do
    order: Order,

    /// Who is to do it
    #[arg(value_name = "ROLE/COMPONENT")]
    component: Endpoint,

    /// The process, by its identifier on that component's host
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: u32,

    /// How long to wait for the result
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

/// Sends the command and prints its result.
pub(crate) async fn run(args: CommandArgs, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let bus = connect(&settings).await?;
    let command_type = CommandType::from(args.order);
    let request = CommandRequest { command_type: command_type.into(), target_pid: args.pid };
    let answer = bus.request_within::<CommandResult>(&args.component, request, args.timeout).await;
    leave(&bus).await?;
    let result = answer?.into_payload();
    let completed = result.status == i32::from(CommandStatus::Completed);
    let status = payload::status(result.status);
    output.record(
        || format!("{}: {}: {}", args.component, output.verdict(completed, status), plain(&result.detail)),
        || {
            json!({
                "component": args.component.to_string(),
                "command": payload::command_type(request.command_type),
                "pid": args.pid,
                "status": status,
                "detail": result.detail,
            })
        },
    )?;
    Ok(if completed { Outcome::Done } else { Outcome::Failed })
}
