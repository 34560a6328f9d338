//! The demo's child processes: their JSON lines, their end, and that none outlives the demo.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long a program may take to say what it is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a wait looks for an interrupt.
const TICK: Duration = Duration::from_millis(50);

/// A running program that writes JSON lines. It ends with this value.
pub struct Program {
    name: String,
    child: Child,
    lines: Receiver<Value>,
    log: PathBuf,
}

impl Program {
    /// Starts it, with its log in `folder`.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", name.replace('/', "-")));
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        own_group(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("a program without output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // What is no JSON is not for us.
                let Ok(value) = serde_json::from_str(&line) else { continue };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, lines, log })
    }

    /// Waits for the first line that `fits`; others are given to `other`.
    pub fn wait_for(
        &self,
        what: &str,
        interrupted: &AtomicBool,
        fits: impl Fn(&Value) -> bool,
        mut other: impl FnMut(&Value),
    ) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            match self.lines.recv_timeout(TICK) {
                Ok(line) if fits(&line) => return Ok(line),
                Ok(line) => other(&line),
                Err(RecvTimeoutError::Disconnected) => bail!("{} ended before {what}:\n{}", self.name, self.tail()),
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    bail!("{} took too long for {what}:\n{}", self.name, self.tail());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for the line `{"event": event, …}`.
    pub fn wait_for_event(&self, event: &str, interrupted: &AtomicBool) -> Result<Value> {
        self.wait_for(&format!("its `{event}`"), interrupted, |line| line["event"] == event, |_| {})
    }

    /// The lines that have arrived and were not waited for.
    pub fn pending(&self) -> impl Iterator<Item = Value> {
        self.lines.try_iter()
    }

    /// Asks it to end, as a service manager would.
    pub fn terminate(&mut self) -> Result<()> {
        terminate(&mut self.child).with_context(|| format!("cannot end {}", self.name))
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self, interrupted: &AtomicBool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.tail()),
                None if interrupted.load(Ordering::Relaxed) => bail!("interrupted"),
                None if Instant::now() > deadline => bail!("{} does not end:\n{}", self.name, self.tail()),
                None => std::thread::sleep(TICK),
            }
        }
    }

    /// Fails when it has ended, and not well.
    pub fn is_well(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) if !status.success() => bail!("{} ended with {status}:\n{}", self.name, self.tail()),
            _ => Ok(()),
        }
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(&mut self.child);
        }
    }
}

/// A process group of its own, so that the terminal's Ctrl-C reaches the demo alone, which then ends its programs in
/// order, with all that they started.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(unix)]
fn terminate(child: &mut Child) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    Ok(kill_process(Pid::from_child(child), Signal::TERM)?)
}

#[cfg(unix)]
fn kill(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};
    let id = Pid::from_child(child);
    // A moment for a clean end, in which it ends what it started itself; then the whole group at once.
    let asked = kill_process(id, Signal::TERM).is_ok();
    let deadline = Instant::now() + Duration::from_secs(2);
    while asked && Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Whatever of it is left cannot be helped further.
    let _ = kill_process_group(id, Signal::KILL);
    let _ = child.wait();
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

#[cfg(not(unix))]
fn terminate(child: &mut Child) -> Result<()> {
    Ok(child.kill()?)
}

#[cfg(not(unix))]
fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
