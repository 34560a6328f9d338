//! The product's own client, as a program would use it.

use anyhow::{Context as _, Result};
use bus_client::{BusClient, BusOptions, Subscription};
use bus_proto::Registered;
use bus_proto::prost::bytes::Bytes;
use prost::{Message, Name};

use super::PAYLOAD;
use super::load::{Incoming, Outgoing};
use super::scene::{EVENT_TYPE, RECEIVER, SENDER, Scene};

/// What stands before the data when telemetry is encoded: a tag and a length of two bytes.
const OVERHEAD: usize = 3;

/// Telemetry that is 256 bytes when it is encoded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Telemetry {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

impl Name for Telemetry {
    const NAME: &'static str = "Telemetry";
    const PACKAGE: &'static str = "bench.v1";
}

impl Telemetry {
    pub(crate) fn new(payload: &Bytes) -> Registered<Self> {
        Registered(Self { data: payload.slice(..PAYLOAD - OVERHEAD) })
    }
}

/// Whether the client gathers what waits into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batches {
    On,
    Off,
}

/// Whether what is sent is sealed to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sealing {
    On,
    Off,
}

pub(crate) async fn connect(scene: &Scene, name: &str, batches: Batches, sealing: Sealing) -> Result<BusClient> {
    let options = BusOptions::new(scene.url(), scene.identity(name)?.clone()).policy(scene.policy());
    let options = options.register::<Telemetry>(EVENT_TYPE)?;
    let options = match batches {
        Batches::On => options,
        Batches::Off => options.max_batch(1),
    };
    let options = match sealing {
        Sealing::On => options.seal_events(EVENT_TYPE.parse()?, [RECEIVER.parse()?]),
        Sealing::Off => options.seal_directed(false),
    };
    Ok(BusClient::connect(options).await?)
}

pub(crate) struct Publisher(BusClient);

impl Outgoing for Publisher {
    async fn publish(&mut self, payload: Bytes) -> Result<()> {
        Ok(self.0.publish(Telemetry::new(&payload)).await?)
    }

    async fn release(&mut self) -> Result<()> {
        // The client sends what waits by itself.
        Ok(())
    }
}

pub(crate) struct Receiver(Subscription<Registered<Telemetry>>);

impl Incoming for Receiver {
    async fn receive(&mut self, mut take: impl FnMut(&[u8]) + Send) -> Result<()> {
        let message = self.0.next().await.context("the subscription ended")??;
        take(&message.payload().0.data);
        Ok(())
    }
}

pub(crate) async fn open(scene: &Scene, batches: Batches, sealing: Sealing) -> Result<(Publisher, Receiver)> {
    let receiver = connect(scene, RECEIVER, batches, sealing).await?.subscribe().await?;
    Ok((Publisher(connect(scene, SENDER, batches, sealing).await?), Receiver(receiver)))
}
