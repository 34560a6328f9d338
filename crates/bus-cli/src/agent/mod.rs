//! `bus agent`: this host's load, a sign of life, and commands for the children that it started.

mod children;
mod host;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bus_client::{BusClient, CommandHandler, PublishError, Verified};
use bus_proto::IntoOutgoing;
use bus_proto::v1::{CommandRequest, CommandResult, Heartbeat};
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

use crate::connect::{Patience, leave, until_closed};
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::payload;
use crate::settings::Settings;
use crate::signals::{Kind, Stop};
use crate::values::duration;

use children::Children;
use host::Host;

pub(crate) const EXAMPLES: &str = "\
Examples:
  bus agent --as agent/agent-01
  bus agent --as agent/agent-01 --spawn 'sleep 600' --json
  bus agent --as agent/agent-01 --interval 10ms --count 1000

Kill (SIGKILL) and Isolate (SIGSTOP) act on children that this agent started itself, and on
nothing else. The children end with the agent, at SIGINT, SIGTERM, SIGQUIT or SIGHUP as well; only\nSIGKILL or a crash leaves them behind.";

/// How long a report that is being sent may still take when the agent is asked to stop.
const LAST_REPORT_LIMIT: Duration = Duration::from_secs(1);

/// How long a command that is at hand may take once the agent has left the bus.
const COMMAND_LIMIT: Duration = Duration::from_secs(1);

/// What the agent does.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// How often the load is reported
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    interval: Duration,

    /// How often a sign of life is sent
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    heartbeat: Duration,

    /// Stop after this many reports of the load
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// A child to start, on which commands may act; may be repeated. No shell: words are split at spaces
    #[arg(long = "spawn", value_name = "COMMAND")]
    spawn: Vec<String>,

    #[command(flatten)]
    patience: Patience,
}

/// What the agent did.
#[derive(Debug, Default)]
struct Tally {
    telemetry: u64,
    heartbeats: u64,
    /// Reports that the connection did not take in time.
    unsent: u64,
}

/// Runs the agent until it has reported enough, is asked to stop, or the connection closes for good.
pub(crate) async fn run(args: AgentArgs, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let children = Children::default();
    let at_once = children.clone();
    let mut stop = Stop::listen(Kind::Component, move || at_once.kill_all())?;
    let bus = args.patience.connect(&settings, &mut stop).await?;
    let worked = work(&args, &bus, &children, stop, output).await;
    children.end().await;
    worked
}

async fn work(
    args: &AgentArgs,
    bus: &BusClient,
    children: &Children,
    stop: Stop,
    output: Output,
) -> anyhow::Result<Outcome> {
    for command in &args.spawn {
        let pid = children.start(command)?;
        output.record(
            || format!("started {pid}: {command}"),
            || json!({ "event": "child", "pid": pid, "command": command }),
        )?;
    }
    let (told, mut carried_out) = mpsc::channel(64);
    let handler = Handler { children: children.clone(), handled: Arc::default(), told };
    let handled = Arc::clone(&handler.handled);
    let commands = bus.serve_commands(handler).await?;
    output.record(
        || format!("ready as {}", bus.principal()),
        || json!({ "event": "ready", "principal": bus.principal().to_string() }),
    )?;
    let mut reporter = Reporter { args, bus, stop, tally: Tally::default() };
    let reported = tokio::select! {
        reported = reporter.run() => reported,
        error = print_commands(&mut carried_out, output) => Err(error),
        reason = until_closed(bus) => Err(Failure::closed(&reason)),
    };
    let left = leave(bus).await;
    if left.is_ok() && timeout(COMMAND_LIMIT, commands.finished()).await.is_err() {
        tracing::warn!("a command was still being carried out");
    }
    while let Ok(command) = carried_out.try_recv() {
        command.print(output)?;
    }
    print_tally(bus, &reporter.tally, handled.load(Ordering::Relaxed), output)?;
    reported.and(left).map(|()| Outcome::Done)
}

/// Reports the load and signs of life.
struct Reporter<'a> {
    args: &'a AgentArgs,
    bus: &'a BusClient,
    stop: Stop,
    tally: Tally,
}

impl Reporter<'_> {
    /// Reports until there were enough, or the program is asked to stop.
    async fn run(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut host = Host::new().await.context("this host's load cannot be measured")?;
        let mut loads = tokio::time::interval(self.args.interval);
        let mut beats = tokio::time::interval(self.args.heartbeat);
        loads.set_missed_tick_behavior(MissedTickBehavior::Skip);
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.args.count.is_none_or(|enough| self.tally.telemetry < enough) {
            tokio::select! {
                biased;
                () = self.stop.requested() => break,
                _ = beats.tick() => {
                    let version = env!("CARGO_PKG_VERSION").to_owned();
                    let beat = Heartbeat { uptime: started.elapsed().as_secs(), version };
                    self.tally.heartbeats += self.publish(beat).await?;
                }
                _ = loads.tick() => self.tally.telemetry += self.publish(host.load()).await?,
            }
        }
        Ok(())
    }

    /// Publishes a report, and returns how many were sent: one, or none when the connection does not take it in time.
    ///
    /// A stop does not interrupt a report that is being sent, unless that takes long: counts stay exact.
    async fn publish(&mut self, report: impl IntoOutgoing) -> anyhow::Result<u64> {
        let mut stop = self.stop.clone();
        let given_up = async {
            stop.requested().await;
            tokio::time::sleep(LAST_REPORT_LIMIT).await;
        };
        let sent = tokio::select! {
            sent = self.bus.publish(report) => sent,
            () = given_up => {
                self.tally.unsent += 1;
                return Ok(0);
            }
        };
        match sent {
            Ok(()) => Ok(1),
            Err(error @ (PublishError::TimedOut { .. } | PublishError::Disconnected { .. })) => {
                self.tally.unsent += 1;
                tracing::warn!(%error, "a report was not sent");
                Ok(0)
            }
            Err(error) => Err(error).context("the agent cannot report"),
        }
    }
}

/// Prints each command that was carried out. Ends only when stdout does.
async fn print_commands(carried_out: &mut mpsc::Receiver<CarriedOut>, output: Output) -> anyhow::Error {
    while let Some(command) = carried_out.recv().await {
        if let Err(error) = command.print(output) {
            return error.into();
        }
    }
    std::future::pending().await
}

fn print_tally(bus: &BusClient, tally: &Tally, commands: u64, output: Output) -> anyhow::Result<()> {
    let Tally { telemetry, heartbeats, unsent } = *tally;
    let component = bus.principal().endpoint.to_string();
    let published = telemetry + heartbeats;
    output.record(
        || {
            format!(
                "{component}: published {published} ({telemetry} telemetry, {heartbeats} heartbeats), {unsent} unsent, \
                 {commands} commands"
            )
        },
        || {
            json!({
                "event": "final", "component": component, "published": published, "telemetry": telemetry,
                "heartbeats": heartbeats, "unsent": unsent, "commands": commands,
            })
        },
    )?;
    Ok(())
}

struct CarriedOut {
    sender: String,
    request: CommandRequest,
    result: CommandResult,
}

impl CarriedOut {
    fn print(&self, output: Output) -> io::Result<()> {
        let Self { sender, request, result } = self;
        let (command, status) = (payload::command_type(request.command_type), payload::status(result.status));
        let pid = request.target_pid;
        output.record(
            || format!("{command} {pid} from {sender}: {status}: {}", result.detail),
            || {
                json!({
                    "event": "command", "command": command, "pid": pid, "sender": sender,
                    "status": status, "detail": result.detail,
                })
            },
        )
    }
}

struct Handler {
    children: Children,
    handled: Arc<AtomicU64>,
    told: mpsc::Sender<CarriedOut>,
}

impl CommandHandler for Handler {
    async fn handle(&self, command: Verified<CommandRequest>) -> CommandResult {
        let (sender, request) = (command.sender().endpoint.to_string(), *command.payload());
        let result = self.children.command(request, &sender).await;
        self.handled.fetch_add(1, Ordering::Relaxed);
        // Only for the eye: a full queue or a closed one must not hold up the answer.
        let _ = self.told.try_send(CarriedOut { sender, request, result: result.clone() });
        result
    }
}
