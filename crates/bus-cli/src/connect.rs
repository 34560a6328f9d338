//! The way onto the bus, and off it.

use std::time::Duration;

use anyhow::Context as _;
use bus_client::{
    BusClient, BusEvent, BusOptions, CloseReason, ConnectError, Received, Rejected, Status, Subscription,
};
use bus_proto::Payload;
use bus_tls::TlsIdentity;
use clap::Args;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::exit::Failure;
use crate::settings::Settings;
use crate::signals::Stop;
use crate::values::duration_or_zero;

/// How long leaving the bus may take, so that a program that was asked to stop ends within ten seconds.
const DRAIN_LIMIT: Duration = Duration::from_secs(8);

/// How long to wait for a message that has arrived already.
const REMAINING_LIMIT: Duration = Duration::from_millis(500);

/// How long to pause before a server that did not answer is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How patient a long-running command is at its start.
#[derive(Debug, Args)]
pub(crate) struct Patience {
    /// How long to wait at the start for a server that does not answer; 0 for not at all
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration_or_zero)]
    wait: Duration,
}

impl Patience {
    /// As [`connect`], but tries again while no server answers, until that has taken too long or `stop` was requested.
    pub(crate) async fn connect(&self, settings: &Settings, stop: &mut Stop) -> anyhow::Result<BusClient> {
        let deadline = Instant::now() + self.wait;
        let mut was_logged = false;
        loop {
            let error = match connect(settings).await {
                Ok(bus) => return Ok(bus),
                Err(error) => error,
            };
            let is_unreachable = matches!(error.downcast_ref(), Some(ConnectError::Unreachable { .. }));
            if !is_unreachable || Instant::now() + RETRY_PAUSE > deadline {
                return Err(error);
            }
            if !was_logged {
                was_logged = true;
                tracing::info!(wait = ?self.wait, "waiting for the server: {error:#}");
            }
            tokio::select! {
                () = stop.requested() => return Err(error),
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }
}

/// Connects as the component that the settings name, and logs what happens to the connection from then on.
pub(crate) async fn connect(settings: &Settings) -> anyhow::Result<BusClient> {
    let options = settings.tls_options()?;
    let identity = tokio::task::spawn_blocking(move || TlsIdentity::load(options)).await??;
    let mut servers = settings.servers();
    let first = servers.next().context("no address")?;
    let mut options = BusOptions::new(first, identity).policy(settings.policy()?).root(settings.root());
    for server in servers {
        options = options.server(server);
    }
    let bus = BusClient::connect(options).await?;
    tokio::spawn(log_events(bus.events()));
    Ok(bus)
}

/// Waits until the broker has handled all that was published, and closes the connection; at most [`DRAIN_LIMIT`].
///
/// What had arrived until then can still be read from the subscriptions, see [`remaining`].
pub(crate) async fn leave(bus: &BusClient) -> anyhow::Result<()> {
    match tokio::time::timeout(DRAIN_LIMIT, bus.drain()).await {
        Ok(left) => Ok(left?),
        Err(_) => Err(Failure::failed(format!("leaving the bus did not end within {} s", DRAIN_LIMIT.as_secs()))),
    }
}

/// The next message of a subscription whose connection was closed, as long as there is one.
pub(crate) async fn remaining<T: Payload>(messages: &mut Subscription<T>) -> Option<Result<Received<T>, Rejected>> {
    // A drained subscription ends by itself. One whose connection broke may not, and has nothing more to give.
    tokio::time::timeout(REMAINING_LIMIT, messages.next()).await.ok().flatten()
}

/// Completes when the connection closes for good.
pub(crate) async fn until_closed(bus: &BusClient) -> CloseReason {
    let mut status = bus.status();
    match status.wait_for(|status| matches!(status, Status::Closed(_))).await.as_deref() {
        Ok(Status::Closed(reason)) => reason.clone(),
        // The client is gone, which only the program's own end can do.
        _ => CloseReason::Drained,
    }
}

async fn log_events(mut events: tokio::sync::broadcast::Receiver<BusEvent>) {
    let mut was_lost = false;
    loop {
        match events.recv().await {
            Ok(BusEvent::Connected) if was_lost => tracing::info!("connected again"),
            Ok(BusEvent::Disconnected) => {
                was_lost = true;
                tracing::warn!("disconnected; reconnecting");
            }
            Ok(BusEvent::ReconnectFailed { reason }) => tracing::warn!(reason, "reconnecting failed; trying again"),
            Ok(BusEvent::SlowConsumer) => {
                tracing::warn!("messages arrive faster than they are handled; some are missed");
            }
            Ok(BusEvent::IdentityRotated) => {
                tracing::info!("the certificate was rotated; reconnecting under the new one");
            }
            Ok(BusEvent::RotationFailed { reason }) => {
                tracing::warn!(
                    reason,
                    "the certificate files changed to something unusable; the former one stays in use"
                );
            }
            Ok(BusEvent::LameDuck) => tracing::warn!("the server is about to shut down"),
            Ok(BusEvent::ServerError { text }) => tracing::warn!(text, "the server reports an error"),
            Ok(BusEvent::Closed(_)) | Err(RecvError::Closed) => return,
            // The client has logged what the broker refused or denied.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
    }
}
