//! Commands: what a component does when it is told to.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::task::Poll;

use bus_proto::Destination;
use bus_proto::v1::{CommandRequest, CommandResult, Error, ErrorCode};
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::backlog::Feed;
use crate::connection::BusClient;
use crate::error::SubscribeError;
use crate::inbound::Verified;
use crate::probe::AbortOnDrop;
use crate::subscription::Subscription;

/// How many commands of one server are carried out at the same time; more wait in the subscription.
const MAX_CONCURRENT: usize = 16;

/// Carries out commands. What `Kill` and `Isolate` do is up to it (requirement A6).
///
/// ```
/// use bus_client::{CommandHandler, Verified};
/// use bus_proto::v1::{CommandRequest, CommandResult};
///
/// struct Refuser;
///
/// impl CommandHandler for Refuser {
///     async fn handle(&self, command: Verified<CommandRequest>) -> CommandResult {
///         CommandResult::refused(format!("{} may not do that here", command.sender()))
///     }
/// }
/// ```
pub trait CommandHandler: Send + Sync + 'static {
    /// Carries out one command. Its result is the answer; a panic is answered as an internal error.
    ///
    /// It must not block its thread, which would hold up the other commands, and not wait for the client to drain:
    /// draining waits for it.
    fn handle(&self, command: Verified<CommandRequest>) -> impl Future<Output = CommandResult> + Send;
}

/// Serves commands until it is stopped or dropped, or the client is drained or closes.
///
/// [`CommandServer::stop`] and [`BusClient::drain`] let it answer what it has at hand; dropping it does not.
#[derive(Debug)]
#[must_use = "dropping it stops serving commands"]
pub struct CommandServer {
    control: ServerControl,
    task: AbortOnDrop,
}

/// How a server is told to stop, and tells that it has.
#[derive(Debug, Clone)]
pub(crate) struct ServerControl {
    stop: Arc<watch::Sender<bool>>,
    stopped: watch::Receiver<()>,
}

impl ServerControl {
    /// Has it take no further commands.
    pub(crate) fn tell(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the commands at hand are answered.
    pub(crate) async fn over(mut self) {
        // Ends when the server's task drops the other end.
        while self.stopped.changed().await.is_ok() {}
    }

    fn is_over(&self) -> bool {
        self.stopped.has_changed().is_err()
    }
}

impl CommandServer {
    /// Takes no further commands, and waits until those at hand are answered.
    pub async fn stop(self) {
        self.control.tell();
        self.control.over().await;
    }

    /// Waits until it has ended: because the client was drained, and every command at hand was answered, or because the
    /// client closed.
    pub async fn finished(mut self) {
        // An error means that the task was aborted or panicked: it has ended either way.
        let _ = (&mut self.task.0).await;
    }
}

impl BusClient {
    /// Answers the commands that are sent to this component, at most 16 at a time. Whether the sender may command it,
    /// the policy decides before the handler sees anything.
    ///
    /// # Errors
    ///
    /// As [`BusClient::subscribe_inbox`].
    pub async fn serve_commands(&self, handler: impl CommandHandler) -> Result<CommandServer, SubscribeError> {
        let own = Destination::Inbox(self.inner.shared.principal.endpoint.clone());
        let commands = self.inner.subscribe::<CommandRequest>(&own, Feed::read_at_all_times).await?;
        let (stop, stopping) = watch::channel(false);
        let (over, stopped) = watch::channel(());
        let control = ServerControl { stop: Arc::new(stop), stopped };
        let mut servers = self.inner.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|server| !server.is_over());
        servers.push(control.clone());
        drop(servers);
        let server = Server { bus: self.clone(), handler: Arc::new(handler), _over: over };
        let task = AbortOnDrop(tokio::spawn(server.serve(commands, stopping)));
        Ok(CommandServer { control, task })
    }
}

struct Server<H> {
    bus: BusClient,
    handler: Arc<H>,
    /// Dropped with the server, which tells whoever waits for its end.
    _over: watch::Sender<()>,
}

impl<H: CommandHandler> Server<H> {
    async fn serve(self, mut commands: Subscription<CommandRequest>, mut stopping: watch::Receiver<bool>) {
        let limit = Arc::new(Semaphore::new(MAX_CONCURRENT));
        let mut running = JoinSet::new();
        loop {
            let command = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                command = commands.next() => command,
            };
            while running.try_join_next().is_some() {}
            let Some(command) = command else { break };
            // A refused message was counted and logged by the subscription; there is nobody to answer.
            let Ok(command) = command else { continue };
            let permit = tokio::select! {
                biased;
                permit = Arc::clone(&limit).acquire_owned() => permit,
                () = commands.keep_filling() => break,
            };
            let Ok(permit) = permit else { break };
            let (bus, handler) = (self.bus.clone(), Arc::clone(&self.handler));
            let mut answering = Box::pin(async move {
                answer(&bus, &*handler, command).await;
                drop(permit);
            });
            // What is answered at once needs no task of its own.
            let first = std::future::poll_fn(|context| Poll::Ready(answering.as_mut().poll(context))).await;
            if first.is_pending() {
                running.spawn(answering);
            }
        }
        drop(commands);
        while running.join_next().await.is_some() {}
    }
}

async fn answer<H: CommandHandler>(bus: &BusClient, handler: &H, command: Verified<CommandRequest>) {
    let asked = command.clone();
    // The handler's own state is its own matter after a panic; nothing of ours is shared with it.
    let handled = AssertUnwindSafe(async { handler.handle(command).await }).catch_unwind().await;
    let sent = match handled {
        Ok(result) => bus.reply(&asked, result).await,
        Err(_) => {
            tracing::error!(sender = %asked.sender(), "a command handler panicked");
            let error = Error { code: ErrorCode::Internal.into(), message: "the handler failed".into() };
            bus.reply(&asked, error).await
        }
    };
    if let Err(error) = sent {
        tracing::warn!(sender = %asked.sender(), %error, "the answer to a command was not sent");
    }
}
