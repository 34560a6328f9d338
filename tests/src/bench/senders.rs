//! What a receiver's memory holds for each sender that it knows: the product's own client receives one message of each of
//! many synthetic senders.
//!
//! No nats-server delivers what it must take for another component's, so that the messages come from the proxy that plays
//! the malicious broker elsewhere, on the connection to a real server. The receiver sees no difference.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{BusClient, BusOptions, Subscription};
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::Heartbeat;
use serde::{Deserialize, Serialize};

use super::cpu;
use super::crowd::{self, Crowd};
use crate::attacks::broker::{Broker, Message};
use crate::attacks::raw::soon;
use crate::deployment::Deployment;

const RECEIVER: &str = "core/core-01";

/// How many senders the receiver knows before it is measured: what is set up once is not the senders'.
const KNOWN_BEFORE: u32 = 500;

/// How many messages are on their way at a time.
const AT_A_TIME: usize = 32;

/// After how many senders a word is said.
const PROGRESS: u32 = 5_000;

/// What the senders took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    /// How many there were.
    pub senders: u32,
    /// What Rust's allocator was asked for and has not been given back, in bytes a sender.
    pub allocated_bytes: f64,
    /// The growth of the resident memory, in bytes a sender: what the provider's C code allocates, and what every
    /// allocation costs besides, included. `None` where the system does not tell.
    pub resident_bytes: Option<f64>,
}

/// Has a receiver receive from `count` senders, and says what its memory has grown by. `allocated` tells how many bytes are
/// allocated now, and `say` is told how far it is.
///
/// # Errors
///
/// When a message is refused or missing.
pub async fn measure(count: u32, allocated: impl Fn() -> usize, mut say: impl FnMut(&str)) -> Result<Memory> {
    let mut stage = Stage::set().await?;
    let first = stage.crowd.sender(0)?;
    stage.receive(&[crowd::heartbeat(&first)]).await?;
    stage.meet(1..KNOWN_BEFORE, &mut say).await?;
    let (allocated_before, resident_before) = (allocated(), cpu::resident());
    stage.meet(KNOWN_BEFORE..KNOWN_BEFORE + count, &mut say).await?;
    let (allocated_after, resident_after) = (allocated(), cpu::resident());
    stage.knows_everybody(KNOWN_BEFORE + count)?;
    // Whoever was met first is still known: its next message needs no bundle.
    let mut next = first.event(crowd::content());
    next.bundle = Bytes::new();
    stage.receive(&[first.sign(&next)]).await.context("the first sender was forgotten")?;
    let each = |before: u64, after: u64| {
        let grown = u32::try_from(after.saturating_sub(before))?;
        anyhow::Ok(f64::from(grown) / f64::from(count))
    };
    let resident = resident_before.zip(resident_after);
    Ok(Memory {
        senders: count,
        allocated_bytes: each(allocated_before.try_into()?, allocated_after.try_into()?)?,
        resident_bytes: resident.map(|(before, after)| each(before, after)).transpose()?,
    })
}

/// A receiver behind the proxy, and whom it receives from.
struct Stage {
    crowd: Arc<Crowd>,
    core: BusClient,
    heartbeats: Subscription<Heartbeat>,
    broker: Broker,
    _deployment: Deployment,
}

impl Stage {
    async fn set() -> Result<Self> {
        let deployment = Deployment::start(&[RECEIVER]);
        let broker = Broker::before(&deployment).await?;
        let core = BusClient::connect(BusOptions::new(broker.url(), deployment.identity(RECEIVER))).await?;
        let heartbeats = core.subscribe().await?;
        let crowd = Arc::new(Crowd::new(&deployment.authority)?);
        Ok(Self { crowd, core, heartbeats, broker, _deployment: deployment })
    }

    /// Receives a message of each of these senders.
    async fn meet(&mut self, numbers: Range<u32>, say: &mut impl FnMut(&str)) -> Result<()> {
        let mut made = self.crowd.messages(numbers.clone());
        let (mut met, mut said) = (0, 0);
        let mut messages = Vec::with_capacity(AT_A_TIME);
        while let Some(message) = made.recv().await {
            messages.push(message?);
            while messages.len() < AT_A_TIME
                && let Ok(message) = made.try_recv()
            {
                messages.push(message?);
            }
            self.receive(&messages).await?;
            met += u32::try_from(messages.len())?;
            messages.clear();
            if met - said >= PROGRESS {
                said = met;
                say(&format!("{met} of {} senders are known", numbers.len()));
            }
        }
        ensure!(met == numbers.end - numbers.start, "only {met} senders were made");
        Ok(())
    }

    /// Delivers messages, and reads them as they were verified.
    async fn receive(&mut self, messages: &[Message]) -> Result<()> {
        for message in messages {
            self.broker.deliver(RECEIVER, message).await?;
        }
        for message in messages {
            let next = soon("a message", self.heartbeats.next()).await?;
            let received = next.context("the subscription ended")?.context("a message is refused")?;
            if received.subject() != message.subject {
                bail!("{} arrives before {}", received.subject(), message.subject);
            }
        }
        Ok(())
    }

    /// Checks that every sender was received from, and nobody refused.
    fn knows_everybody(&self, senders: u32) -> Result<()> {
        let stats = self.core.stats();
        ensure!(stats.received == u64::from(senders), "{} of {senders} messages were received", stats.received);
        ensure!(stats.rejected == 0 && self.heartbeats.missed() == 0, "the receiver counts {stats:?}");
        Ok(())
    }
}
