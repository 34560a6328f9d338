//! One request after the other, each answered before the next is sent.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bus_client::{CommandHandler, Verified};
use bus_proto::Endpoint;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{CommandRequest, CommandResult, CommandStatus, CommandType};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::ours::{self, Batches, Sealing};
use super::raw;
use super::scene::{NOBODY_OF_RECEIVER, NOBODY_OF_SENDER, RECEIVER, SENDER, Scene};
use super::stats::percentile;

const REQUEST_SUBJECT: &str = "ransomeye.inbox.agent.agent-01.command.core.core-01";
const ANSWER_SUBJECT: &str = "ransomeye.inbox.core.core-01.result.agent.agent-01";

/// How long a run may take beyond its time. Only a lost request or answer makes it take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one run of requests came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Answered {
    /// How many were answered.
    pub requests: u64,
    /// From the call to its answer, in microseconds: the median.
    pub p50_us: f64,
    /// The same: what one in a hundred exceeds.
    pub p99_us: f64,
}

/// How long a run of requests takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Asks again and again, and times each answer once it is warm.
async fn run(plan: Plan, ask: impl AsyncFnMut() -> Result<()>) -> Result<Answered> {
    let limit = plan.warm_up + plan.measured + PATIENCE;
    tokio::time::timeout(limit, run_unbounded(plan, ask)).await.context("a request was not answered")?
}

async fn run_unbounded(plan: Plan, mut ask: impl AsyncFnMut() -> Result<()>) -> Result<Answered> {
    let started = Instant::now();
    while started.elapsed() < plan.warm_up {
        ask().await?;
    }
    let mut delays = Vec::with_capacity(1 << 16);
    let started = Instant::now();
    while started.elapsed() < plan.measured || delays.is_empty() {
        let asked = Instant::now();
        ask().await?;
        delays.push(u64::try_from(asked.elapsed().as_nanos())?);
    }
    delays.sort_unstable();
    Ok(Answered {
        requests: u64::try_from(delays.len())?,
        p50_us: percentile(&delays, 50) / 1e3,
        p99_us: percentile(&delays, 99) / 1e3,
    })
}

/// async-nats by itself: the responder sends back what it was sent. No component may publish below `_INBOX` here, so the
/// answer goes to a subject of the requester's inbox and not to a reply subject.
pub(crate) async fn raw(scene: &Scene, plan: Plan) -> Result<Answered> {
    let (asking, answering) = (raw::connect(scene, RECEIVER).await?, raw::connect(scene, SENDER).await?);
    let mut requests = answering.subscribe(REQUEST_SUBJECT).await?;
    let mut answers = asking.subscribe(ANSWER_SUBJECT).await?;
    raw::round_trip(&answering, NOBODY_OF_SENDER).await?;
    raw::round_trip(&asking, NOBODY_OF_RECEIVER).await?;
    let responder = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            answering.publish(ANSWER_SUBJECT, request.payload).await?;
        }
        anyhow::Ok(())
    });
    let payload = Bytes::from(vec![b'.'; super::PAYLOAD]);
    let answered = run(plan, async || {
        asking.publish(REQUEST_SUBJECT, payload.clone()).await?;
        answers.next().await.context("the subscription ended").map(|_| ())
    });
    let answered = answered.await;
    responder.abort();
    answered
}

/// Does at once whatever it is told.
struct Obedient;

impl CommandHandler for Obedient {
    async fn handle(&self, _: Verified<CommandRequest>) -> CommandResult {
        CommandResult { status: CommandStatus::Completed.into(), ..CommandResult::default() }
    }
}

/// The product's own client: a command and its result.
pub(crate) async fn ours(scene: &Scene, plan: Plan, sealing: Sealing) -> Result<Answered> {
    let asking = ours::connect(scene, RECEIVER, Batches::On, sealing).await?;
    let answering = ours::connect(scene, SENDER, Batches::On, sealing).await?;
    let _server = answering.serve_commands(Obedient).await?;
    let to: Endpoint = SENDER.parse()?;
    run(plan, async || {
        let kill = CommandRequest { command_type: CommandType::Kill.into(), target_pid: 4242 };
        asking.request::<CommandResult>(&to, kill).await?;
        Ok(())
    })
    .await
}
