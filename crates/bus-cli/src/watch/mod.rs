//! `bus watch`: the fleet, as it reports.

mod fleet;
mod screen;

use std::time::Duration;

use bus_client::{BusClient, Subscription};
use bus_proto::AnyPayload;
use clap::Args;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::connect::{Patience, leave, remaining, until_closed};
use crate::exit::{Failure, Outcome};
use crate::output::{self, Output};
use crate::settings::Settings;
use crate::signals::{Kind, Stop};
use crate::values::duration;

use fleet::Fleet;

pub(crate) const EXAMPLES: &str = "\
Examples:
  bus watch --as core/core-01
  bus watch --as core/core-01 --for 30s --json

On a terminal the table is redrawn in place; elsewhere it is printed at the end. With --json:
{\"event\":\"ready\"} once it receives, a snapshot every second, and {\"event\":\"final\"} with exact
counts. What is sealed to others counts as sealed: who sent it and when is seen, and nothing of what it says.";

/// How often the table is redrawn, and how often a snapshot is written.
const REDRAW: Duration = Duration::from_millis(500);
const SNAPSHOT: Duration = Duration::from_secs(1);

/// When to end.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Stop after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    limit: Option<Duration>,

    #[command(flatten)]
    patience: Patience,
}

/// Shows the fleet until there were enough messages, the time is over, or the program is asked to stop.
pub(crate) async fn run(args: WatchArgs, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let mut stop = Stop::listen(Kind::Component, || {})?;
    let bus = args.patience.connect(&settings, &mut stop).await?;
    let mut messages = bus.subscribe::<AnyPayload>().await?;
    output.event(|| json!({ "event": "ready", "principal": bus.principal().to_string() }))?;
    tracing::info!(filter = messages.filter(), "watching");
    let mut fleet = Fleet::default();
    let over = async {
        match args.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let watched = tokio::select! {
        watched = follow(&mut messages, &mut fleet, args.count, output) => watched,
        reason = until_closed(&bus) => Err(Failure::closed(&reason)),
        () = over => Ok(()),
        () = stop.requested() => Ok(()),
    };
    let left = finish(&bus, &mut messages, &mut fleet, args.count).await;
    show_end(&fleet, output)?;
    watched.and(left).map(|()| Outcome::Done)
}

/// Takes in messages and shows them from time to time, until there were enough.
async fn follow(
    messages: &mut Subscription<AnyPayload>,
    fleet: &mut Fleet,
    enough: Option<u64>,
    output: Output,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(if output.is_live() { REDRAW } else { SNAPSHOT });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while enough.is_none_or(|enough| fleet.total() < enough) {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => fleet.take_in(&message, messages.missed()),
                // The caller learns from the connection why.
                None => std::future::pending().await,
            },
            _ = ticks.tick() => show(fleet, output)?,
        }
    }
    Ok(())
}

/// Leaves the bus, and takes in what had arrived until then, so that the counts are exact.
async fn finish(
    bus: &BusClient,
    messages: &mut Subscription<AnyPayload>,
    fleet: &mut Fleet,
    enough: Option<u64>,
) -> anyhow::Result<()> {
    let left = leave(bus).await;
    while enough.is_none_or(|enough| fleet.total() < enough) {
        match remaining(messages).await {
            Some(message) => fleet.take_in(&message, messages.missed()),
            None => break,
        }
    }
    left
}

fn show(fleet: &Fleet, output: Output) -> anyhow::Result<()> {
    if output.is_live() {
        output::draw_live(&screen::live(fleet))?;
    }
    output.event(|| fleet.snapshot())?;
    Ok(())
}

fn show_end(fleet: &Fleet, output: Output) -> anyhow::Result<()> {
    output::clear_live();
    output.record(|| screen::whole(fleet), || fleet.totals())?;
    Ok(())
}
