//! The children that this agent started, and what may be done to them.
//!
//! Each child has one task that owns it: only there is it signalled, waited for and reaped. A process identifier is thus
//! never used after it may belong to somebody else.

use std::collections::HashMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bus_proto::v1::{CommandRequest, CommandResult, CommandType};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::exit::Failure;

/// What one child's task is told, and where its answer goes.
struct Order {
    what: CommandType,
    answer: oneshot::Sender<CommandResult>,
}

struct Entry {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

/// The children that live.
#[derive(Clone, Default)]
pub(super) struct Children(Arc<Mutex<HashMap<u32, Entry>>>);

impl Children {
    /// Starts a child in a process group of its own, so that a terminal's interrupt reaches the agent alone.
    pub(super) fn start(&self, command: &str) -> anyhow::Result<u32> {
        let mut words = command.split_whitespace();
        let program = words.next().ok_or_else(|| Failure::usage("--spawn needs a command"))?;
        let mut builder = Command::new(program);
        // Stdout carries the agent's own data, so what a child says goes to stderr.
        builder.args(words).stdin(Stdio::null()).stdout(io::stderr()).kill_on_drop(true);
        #[cfg(unix)]
        builder.process_group(0);
        let child = builder.spawn().with_context(|| format!("cannot start `{program}`"))?;
        let pid = child.id().context("the child ended before it began")?;
        let (orders, received) = mpsc::channel(1);
        // The registry is locked until the child is in it: its task may take it out only then.
        let mut registry = self.lock();
        let task = tokio::spawn(look_after(child, pid, received, self.clone()));
        registry.insert(pid, Entry { orders, task });
        Ok(pid)
    }

    /// Carries out a command, if it concerns a child that lives.
    pub(super) async fn command(&self, request: CommandRequest, sender: &str) -> CommandResult {
        let pid = request.target_pid;
        let orders = self.lock().get(&pid).map(|entry| entry.orders.clone());
        let Some(orders) = orders else {
            tracing::warn!(
                target: "bus::security",
                sender, pid, "refused a command for a process that is no child of this agent"
            );
            return CommandResult::refused(format!("process {pid} is no living child of this agent"));
        };
        let Ok(what) = CommandType::try_from(request.command_type) else {
            return CommandResult::refused("this agent does not know that command");
        };
        let (answer, answered) = oneshot::channel();
        let ended = || CommandResult::failed(format!("process {pid} had ended already"));
        if orders.send(Order { what, answer }).await.is_err() {
            return ended();
        }
        answered.await.unwrap_or_else(|_| ended())
    }

    /// Ends every child and waits until each is gone.
    pub(super) async fn end(&self) {
        let entries: Vec<Entry> = self.lock().drain().map(|(_, entry)| entry).collect();
        let mut tasks = Vec::new();
        for Entry { orders, task } in entries {
            // Without anybody who could give it orders, the task ends its child.
            drop(orders);
            tasks.push(task);
        }
        for task in tasks {
            // A task that panicked has dropped its child, which killed it.
            let _ = task.await;
        }
    }

    /// Kills every child without waiting, when the program ends at once.
    pub(super) fn kill_all(&self) {
        for pid in self.lock().keys() {
            // It may have ended in this very moment; there is nobody left to tell.
            let _ = signal(*pid, Signal::Kill);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns one child until it has ended.
async fn look_after(mut child: Child, pid: u32, mut orders: mpsc::Receiver<Order>, registry: Children) {
    loop {
        let order = tokio::select! {
            biased;
            order = orders.recv() => order,
            ended = child.wait() => {
                registry.lock().remove(&pid);
                tracing::info!(pid, how = how(ended), "a child ended by itself");
                return;
            }
        };
        match order {
            Some(Order { what: CommandType::Isolate, answer }) => {
                // Who asked may have gone.
                let _ = answer.send(isolate(pid).await);
            }
            Some(Order { what: CommandType::Kill, answer }) => {
                let result = kill(&mut child, pid).await;
                if child.id().is_none() {
                    registry.lock().remove(&pid);
                    let _ = answer.send(result);
                    return;
                }
                let _ = answer.send(result);
            }
            Some(Order { what: CommandType::Unspecified, answer }) => {
                let _ = answer.send(CommandResult::refused("this agent does not know that command"));
            }
            None => {
                kill(&mut child, pid).await;
                return;
            }
        }
    }
}

/// Ends the child and waits for its end.
async fn kill(child: &mut Child, pid: u32) -> CommandResult {
    match child.kill().await {
        Ok(()) => CommandResult::completed(format!("process {pid} was killed and has ended")),
        Err(error) => CommandResult::failed(format!("process {pid} could not be killed: {error}")),
    }
}

fn how(ended: io::Result<ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

#[derive(Clone, Copy)]
enum Signal {
    Kill,
    Stop,
}

#[cfg(unix)]
fn signal(pid: u32, signal: Signal) -> io::Result<rustix::process::Pid> {
    use rustix::process::{Pid, Signal as Native, kill_process};
    let native = match signal {
        Signal::Kill => Native::KILL,
        Signal::Stop => Native::STOP,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    kill_process(pid, native)?;
    Ok(pid)
}

/// Stops the child, and waits until the system says that it has stopped.
#[cfg(unix)]
async fn isolate(pid: u32) -> CommandResult {
    use std::time::Duration;

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(1);

    let failed = |error: io::Error| CommandResult::failed(format!("process {pid} could not be stopped: {error}"));
    let id = match signal(pid, Signal::Stop) {
        Ok(id) => id,
        Err(error) => return failed(error),
    };
    let stopped = async {
        // Only looks, and takes nothing away: reaping is the owner's.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            match waitid(WaitId::Pid(id), options) {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, stopped).await {
        Ok(Ok(())) => CommandResult::completed(format!("process {pid} is stopped (SIGSTOP)")),
        Ok(Err(error)) => failed(error),
        Err(_) => CommandResult::failed(format!("process {pid} did not stop within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(not(unix))]
fn signal(_: u32, signal: Signal) -> io::Result<()> {
    match signal {
        Signal::Kill | Signal::Stop => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(not(unix))]
async fn isolate(pid: u32) -> CommandResult {
    match signal(pid, Signal::Stop) {
        Ok(()) => CommandResult::completed(format!("process {pid} is stopped")),
        Err(_) => CommandResult::refused("processes cannot be stopped on this platform"),
    }
}
