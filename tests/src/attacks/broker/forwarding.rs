//! No attack, no false alarm: what the broker forwards as it is, arrives.

use std::time::Instant;

use anyhow::{Context as _, Result};
use bus_client::{BusClient, BusOptions};
use bus_proto::v1::TelemetryEvent;
use bus_proto::{Endpoint, MessageType};
use futures_util::FutureExt as _;
use serde::Serialize;

use super::Broker;
use super::stage::{AGENT, CORE};
use crate::attacks::raw::soon;
use crate::deployment::Deployment;

/// How many messages may be on their way at once: fewer than a subscription holds back before it drops any.
const WINDOW: u64 = 8_192;

/// What came of sending messages through a broker that attacks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Run {
    /// How many were sent.
    pub sent: u64,
    /// In how many envelopes, most of them batches.
    pub envelopes: u64,
    /// How many arrived in their order.
    pub received: u64,
    /// How many were refused, by any of the two clients.
    pub rejected: u64,
    /// How many the receiver counts as missing.
    pub missed: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Run {
    /// Whether all arrived, and nothing was refused.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.received == self.sent && self.rejected == 0 && self.missed == 0
    }
}

/// Sends telemetry from an agent to a core, both of them connected through the broker.
///
/// # Errors
///
/// When a message cannot be sent, or none arrives for a while.
pub async fn without_an_attack(messages: u64) -> Result<Run> {
    run(messages, Deployment::start(&[CORE, AGENT]), |options| options).await
}

/// As [`without_an_attack`], sealed to the core.
///
/// # Errors
///
/// As there.
pub async fn without_an_attack_sealed(messages: u64) -> Result<Run> {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let core: Endpoint = CORE.parse()?;
    run(messages, deployment, |options| options.seal_events(MessageType::Telemetry, [core])).await
}

async fn run(messages: u64, deployment: Deployment, form: impl FnOnce(BusOptions) -> BusOptions) -> Result<Run> {
    let broker = Broker::before(&deployment).await?;
    let options = |name| BusOptions::new(broker.url(), deployment.identity(name));
    let core = BusClient::connect(options(CORE)).await?;
    let agent = BusClient::connect(form(options(AGENT))).await?;
    let mut telemetry = core.subscribe::<TelemetryEvent>().await?;
    let started = Instant::now();
    let window = tokio::sync::Semaphore::new(usize::try_from(WINDOW)?);
    let sending = async {
        for number in 0..messages {
            soon("room for another message", window.acquire()).await??.forget();
            agent.publish(numbered(number)).await.with_context(|| format!("message {number}"))?;
        }
        agent.flush().await?;
        anyhow::Ok(())
    };
    let receiving = async {
        let (mut received, mut settled) = (0, 0);
        while settled < messages {
            let next = soon("a message", telemetry.next()).await?.context("the subscription ended")?;
            if next.is_ok_and(|next| *next.payload() == numbered(received)) {
                received += 1;
            }
            settled += 1;
            window.add_permits(1);
        }
        anyhow::Ok(received)
    };
    let ((), received) = futures_util::future::try_join(sending, receiving).await?;
    let seconds = started.elapsed().as_secs_f64();
    // What came beyond that would be a message too many.
    let surplus = telemetry.next().now_or_never().is_some();
    let rejected = core.stats().rejected + agent.stats().rejected;
    let (received, missed) = (received + u64::from(surplus), telemetry.missed());
    Ok(Run { sent: messages, envelopes: agent.stats().envelopes, received, rejected, missed, seconds })
}

/// Telemetry that tells its place.
fn numbered(number: u64) -> TelemetryEvent {
    let (high, low) = (number / 10_000, number % 10_000);
    #[expect(clippy::cast_precision_loss, reason = "numbers up to a million")]
    let (cpu_usage, ram_usage) = (high as f64 / 100.0, low as f64 / 100.0);
    TelemetryEvent { cpu_usage, ram_usage }
}
