//! `cargo xtask demo`: the product's main job, in one command, in a temporary directory.
//!
//! A CA, a broker with mutual TLS and rendered permissions, one core and five agents as processes of their own, a Kill
//! that ends a real child process, and then a compromised agent that is refused at every turn.

mod fleet;
mod program;
mod report;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::demo::fleet::Fleet;
use crate::demo::report::{Attack, Report};
use crate::workspace::Workspace;
use crate::{fetch, process};

/// How long the attacks may take together. Each has a deployment of its own.
const ATTACKS_PATIENCE: Duration = Duration::from_secs(120);

/// How the demo talks to its user.
struct Stage {
    json: bool,
    /// Set by Ctrl-C; whatever waits, looks at it.
    interrupted: Arc<AtomicBool>,
}

impl Stage {
    /// Says what happens now. On stderr, so that stdout holds the result alone.
    fn say(&self, text: &str) {
        eprintln!("{}", if self.colour() { format!("\u{1b}[1;36m▸\u{1b}[0m {text}") } else { format!("> {text}") });
    }

    fn colour(&self) -> bool {
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { bail!("interrupted; everything was cleaned up") } else { Ok(()) }
    }
}

/// Runs the demo. Says whether nothing was lost and nothing got through.
pub fn run(args: &[String]) -> Result<bool> {
    let json = match args {
        [] => false,
        [flag] if flag == "--json" => true,
        other => bail!("`demo` knows no argument `{}`; it takes --json", other.join(" ")),
    };
    let stage = Stage { json, interrupted: process::watch_for_interrupt()? };
    let workspace = Workspace::open()?;
    let server = fetch::nats_server(&workspace)?;
    let (bus, attacker) = build(&workspace, &stage)?;
    let started = Instant::now();
    let folder = tempfile::tempdir().context("cannot make a temporary directory")?;

    let fleet = Fleet { stage: &stage, folder: folder.path(), bus: &bus, server: &server };
    let observed = fleet.run()?;
    stage.check()?;
    stage.say("a compromised agent, outsiders and impostors attack, without our library");
    let attacks = attack(&attacker, &server, folder.path(), &stage)?;

    let report = Report::new(observed, attacks, started.elapsed());
    report.print(json)?;
    Ok(report.is_good())
}

/// Builds the `bus` program and the attacker.
fn build(workspace: &Workspace, stage: &Stage) -> Result<(PathBuf, PathBuf)> {
    stage.say("building the programs (the first time takes some minutes)");
    let args = ["--package", "bus-cli", "--package", "bus-tests", "--bin", "bus", "--bin", "bus-attacks"];
    let built = workspace.build(&args)?;
    stage.check()?;
    let mut programs = built.context("the programs do not build")?;
    let mut take = |name| programs.remove(name).with_context(|| format!("cargo built no {name}"));
    Ok((take("bus")?, take("bus-attacks")?))
}

/// Plays every attack, each with its positive control, and reads what came of it.
fn attack(program: &Path, server: &Path, folder: &Path, stage: &Stage) -> Result<Vec<Attack>> {
    let mut command = Command::new(program);
    command.arg("--json").env(fetch::VARIABLE, server);
    let running = program::Program::start("attacks", &mut command, folder)?;
    let line = running.wait_for("its result", ATTACKS_PATIENCE, &stage.interrupted, serde_json::Value::is_array)?;
    // Its exit status repeats what the list says; the list is what is judged.
    serde_json::from_value(line).context("the attacks' result is malformed")
}
