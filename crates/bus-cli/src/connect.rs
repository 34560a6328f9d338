//! The way onto the bus, and off it.

use std::time::Duration;

use anyhow::Context as _;
use bus_client::{
    BusClient, BusEvent, BusOptions, CloseReason, ConnectError, Gap, Rejected, Status, Subscription, Verified,
};
use bus_proto::Payload;
use bus_tls::TlsIdentity;
use clap::Args;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::exit::Failure;
use crate::settings::{Settings, sealing_passphrase};
use crate::signals::{Rotation, Stop};
use crate::values::duration_or_zero;

/// How long leaving the bus may take, so that a program that was asked to stop ends within ten seconds.
const DRAIN_LIMIT: Duration = Duration::from_secs(8);

/// How long to wait for a message that has arrived already.
const REMAINING_LIMIT: Duration = Duration::from_millis(500);

/// How many gaps are logged a second, for senders choose the numbers that make them.
const GAPS_LOGGED: u32 = 10;

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
    /// As [`connect`], but tries again while no server answers, until that has taken too long or `stop` was requested. From
    /// then on, SIGUSR1 has the program sign with a new key.
    pub(crate) async fn connect(&self, settings: &Settings, stop: &mut Stop) -> anyhow::Result<BusClient> {
        let rotation = Rotation::listen()?;
        let bus = self.connect_in_time(settings, stop).await?;
        tokio::spawn(rotate_keys(bus.clone(), rotation));
        Ok(bus)
    }

    async fn connect_in_time(&self, settings: &Settings, stop: &mut Stop) -> anyhow::Result<BusClient> {
        let deadline = Instant::now() + self.wait;
        let mut was_logged = false;
        loop {
            let error = match connect_for(settings, Stay::Long, |options| options).await {
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

/// How long a program means to stay connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    /// For one answer. Its keys are in its messages, and nowhere else.
    Short,
    /// Until it is stopped.
    Long,
}

/// Connects for a short while as the component that the settings name, and logs what happens to the connection.
pub(crate) async fn connect(settings: &Settings) -> anyhow::Result<BusClient> {
    connect_with(settings, |options| options).await
}

/// As [`connect`], with further options.
pub(crate) async fn connect_with(
    settings: &Settings,
    change: impl FnOnce(BusOptions) -> BusOptions,
) -> anyhow::Result<BusClient> {
    connect_for(settings, Stay::Short, change).await
}

async fn connect_for(
    settings: &Settings,
    stay: Stay,
    change: impl FnOnce(BusOptions) -> BusOptions,
) -> anyhow::Result<BusClient> {
    let options = settings.tls_options()?;
    let sealing_keys = settings.sealing_keys(&options);
    let identity = tokio::task::spawn_blocking(move || TlsIdentity::load(options)).await??;
    let mut servers = settings.servers();
    let first = servers.next().context("no address")?;
    let mut options = BusOptions::new(first, identity).policy(settings.policy()?).root(settings.root());
    options = options.store_bundles(stay == Stay::Long).seal_directed(settings.seals());
    options = options.sealing_keys_file(sealing_keys, sealing_passphrase()?);
    for server in servers {
        options = options.server(server);
    }
    let bus = BusClient::connect(change(options)).await?;
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
pub(crate) async fn remaining<T: Payload>(messages: &mut Subscription<T>) -> Option<Result<Verified<T>, Rejected>> {
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

/// Has the client sign with a new key as often as that is asked for.
async fn rotate_keys(bus: BusClient, mut rotation: Rotation) {
    loop {
        rotation.requested().await;
        // The client logs which one it signs with from now on.
        if let Err(error) = bus.rotate_signing_key().await {
            tracing::warn!("no new key could be made, the former one stays in use: {error}");
        }
    }
}

async fn log_events(mut events: tokio::sync::broadcast::Receiver<BusEvent>) {
    let mut was_lost = false;
    let mut gaps = GapLog::default();
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
            Ok(BusEvent::Gap(gap)) => gaps.take_in(&gap, Instant::now()),
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
            // The client has logged what the broker refused or denied, what it could not send, and all about its own key.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
    }
}

/// Logs which envelopes were missed, so many a second. What more there are is counted, and told with the next.
#[derive(Debug, Default)]
struct GapLog {
    since: Option<Instant>,
    logged: u32,
    unlogged: u64,
}

impl GapLog {
    fn take_in(&mut self, gap: &Gap, now: Instant) {
        if !self.has_room(now) {
            self.unlogged += 1;
            return;
        }
        tracing::warn!(
            sender = %gap.sender, subject = gap.subject, first = gap.first, last = gap.last,
            unlogged_gaps = std::mem::take(&mut self.unlogged),
            "envelopes were missed"
        );
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.logged) = (Some(now), 0);
        }
        self.logged += 1;
        self.logged <= GAPS_LOGGED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_gaps_are_logged_a_second() {
        let (mut log, start) = (GapLog::default(), Instant::now());
        let logged = |log: &mut GapLog, now| (0..100).filter(|_| log.has_room(now)).count();
        assert_eq!(logged(&mut log, start), 10);
        assert_eq!(logged(&mut log, start + Duration::from_millis(999)), 0);
        assert_eq!(logged(&mut log, start + Duration::from_secs(1)), 10);
    }
}
