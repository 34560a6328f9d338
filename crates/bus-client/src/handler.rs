//! Commands: what a component does when it is told to.

use std::future::Future;
use std::sync::Arc;

use bus_proto::v1::{CommandRequest, CommandResult, Error, ErrorCode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connection::BusClient;
use crate::error::SubscribeError;
use crate::inbound::Received;
use crate::probe::AbortOnDrop;
use crate::subscription::Subscription;

/// How many commands of one server are carried out at the same time; more wait in the subscription.
const MAX_CONCURRENT: usize = 16;

/// Carries out commands. What `Kill` and `Isolate` do is up to it (requirement A6).
///
/// ```
/// use bus_client::{CommandHandler, Received};
/// use bus_proto::v1::{CommandRequest, CommandResult};
///
/// struct Refuser;
///
/// impl CommandHandler for Refuser {
///     async fn handle(&self, command: Received<CommandRequest>) -> CommandResult {
///         CommandResult::refused(format!("{} may not do that here", command.sender()))
///     }
/// }
/// ```
pub trait CommandHandler: Send + Sync + 'static {
    /// Carries out one command. Its result is the answer; a panic is answered as an internal error.
    fn handle(&self, command: Received<CommandRequest>) -> impl Future<Output = CommandResult> + Send;
}

/// Serves commands until it is dropped, or the client is drained.
#[derive(Debug)]
#[must_use = "dropping it stops serving commands"]
pub struct CommandServer {
    task: AbortOnDrop,
}

impl CommandServer {
    /// Completes when the client was drained or closed, and every command at hand was answered.
    pub async fn finished(mut self) {
        // An error means that the task was aborted or panicked: it has finished either way.
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
        let commands = self.subscribe_inbox::<CommandRequest>().await?;
        let task = tokio::spawn(serve(self.clone(), commands, Arc::new(handler)));
        Ok(CommandServer { task: AbortOnDrop(task) })
    }
}

async fn serve<H: CommandHandler>(bus: BusClient, mut commands: Subscription<CommandRequest>, handler: Arc<H>) {
    let limit = Arc::new(Semaphore::new(MAX_CONCURRENT));
    let mut running = JoinSet::new();
    while let Some(command) = commands.next().await {
        while running.try_join_next().is_some() {}
        // A refused message was counted and logged by the subscription; there is nobody to answer.
        let Ok(command) = command else { continue };
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { break };
        let (bus, handler) = (bus.clone(), Arc::clone(&handler));
        running.spawn(async move {
            answer(&bus, handler, command).await;
            drop(permit);
        });
    }
    while running.join_next().await.is_some() {}
}

async fn answer<H: CommandHandler>(bus: &BusClient, handler: Arc<H>, command: Received<CommandRequest>) {
    let asked = command.clone();
    let outcome = tokio::spawn(async move { handler.handle(command).await }).await;
    let sent = match outcome {
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
