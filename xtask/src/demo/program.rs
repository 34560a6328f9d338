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

use crate::process;

/// How long a program may take to say what it is waited for, unless more is granted, and to end.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a program that is no longer wanted may take for a clean end, in which it ends what it started itself.
const GRACE: Duration = Duration::from_secs(2);

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
    /// Starts it, with its log and its temporary files in `folder`: even one that is killed leaves no key elsewhere.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", name.replace('/', "-")));
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        process::own_group(command);
        let mut child = command
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, folder)))
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

    /// Waits for the first line that `fits`; others are passed over.
    pub fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        interrupted: &AtomicBool,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            match self.lines.recv_timeout(TICK) {
                Ok(line) if fits(&line) => return Ok(line),
                Ok(_) if Instant::now() <= deadline => {}
                Err(RecvTimeoutError::Disconnected) => bail!("{} ended before {what}:\n{}", self.name, self.tail()),
                Err(RecvTimeoutError::Timeout) if Instant::now() <= deadline => {}
                Ok(_) | Err(RecvTimeoutError::Timeout) => {
                    bail!("{} took too long for {what}:\n{}", self.name, self.tail());
                }
            }
        }
    }

    /// Waits for the line `{"event": event, …}`.
    pub fn wait_for_event(&self, event: &str, interrupted: &AtomicBool) -> Result<Value> {
        self.wait_for(&format!("its `{event}`"), PATIENCE, interrupted, |line| line["event"] == event)
    }

    /// The lines that have arrived and were not waited for.
    pub fn pending(&self) -> impl Iterator<Item = Value> {
        self.lines.try_iter()
    }

    /// Asks it to end, as a service manager would.
    pub fn terminate(&mut self) -> Result<()> {
        process::terminate(&mut self.child).with_context(|| format!("cannot end {}", self.name))
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
        let running = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if running(&mut self.child) && process::terminate(&mut self.child).is_ok() {
            let deadline = Instant::now() + GRACE;
            while running(&mut self.child) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Whatever is left of it cannot be helped further.
        let _ = process::kill_group(&mut self.child);
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &Path) -> Program {
        Program::start("agent/a-1", Command::new("sh").args(["-c", script]), folder).unwrap()
    }

    #[test]
    fn temporary_files_go_into_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let program = shell("echo \"{\\\"at\\\": \\\"$TMPDIR\\\"}\"", folder.path());
        let line = program.wait_for("it", PATIENCE, &AtomicBool::new(false), |_| true).unwrap();
        assert_eq!(line["at"].as_str(), folder.path().to_str());
    }

    #[test]
    fn a_program_that_says_the_wrong_thing_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let program = shell("while echo '{}'; do :; done", folder.path());
        let error = program.wait_for("its end", Duration::ZERO, &AtomicBool::new(false), |_| false).unwrap_err();
        assert!(error.to_string().starts_with("agent/a-1 took too long for its end"), "{error}");
    }

    #[test]
    fn what_an_ended_program_left_behind_is_ended_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut program = shell("sleep 1000 & echo \"{\\\"child\\\": $!}\"", folder.path());
        let line = program.wait_for("its child", PATIENCE, &AtomicBool::new(false), |_| true).unwrap();
        assert!(program.child.wait().unwrap().success());
        let child = line["child"].as_i64().unwrap();
        let child = rustix::process::Pid::from_raw(i32::try_from(child).unwrap()).unwrap();
        assert!(rustix::process::getpgid(Some(child)).is_ok(), "it runs");
        let lines = std::mem::replace(&mut program.lines, channel().1);
        drop(program);
        // The reader ends with the output, which the grandchild held open.
        assert_eq!(lines.recv(), Err(std::sync::mpsc::RecvError));
    }
}
