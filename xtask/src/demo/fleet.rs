//! The fleet at work: CA, broker, core, five agents, and one Kill.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::demo::Stage;
use crate::demo::program::{PATIENCE, Program};
use crate::demo::report::{Counts, Observed};
use crate::fetch;
use crate::workspace::stdout_of;

const AGENTS: usize = 5;

/// How many reports of its load each agent publishes, and how often.
const REPORTS: u64 = 400;
const INTERVAL: &str = "20ms";

/// How long the agents may take for their reports, which is some seven times what they need.
const FLEET_PATIENCE: Duration = Duration::from_secs(60);

/// The agent whose child is killed.
const VICTIM: usize = 2;

pub struct Fleet<'a> {
    pub stage: &'a Stage,
    pub folder: &'a Path,
    pub bus: &'a Path,
    pub server: &'a Path,
}

impl Fleet<'_> {
    /// Plays it from the CA to the last count.
    pub fn run(&self) -> Result<Observed> {
        let agents: Vec<String> = (1..=AGENTS).map(|number| format!("agent/agent-linux-{number:02}")).collect();
        self.issue_certificates(&agents)?;

        self.stage.say("nats-server starts: TLS 1.3, client certificates, permissions rendered from the policy");
        let mut command = self.command(&["--json", "server", "run", "--from-pki", "pki", "--port", "0"]);
        let server = Program::start("server", command.env(fetch::VARIABLE, self.server), self.folder)?;
        let ready =
            server.wait_for("its address", PATIENCE, &self.stage.interrupted, |line| line["url"].is_string())?;
        let url = ready["url"].as_str().unwrap_or_default().to_owned();

        self.stage.say("core subscribes to every event; only then do the agents start");
        let mut core = self.start("core", &url, &["watch", "--as", "core/core-01"])?;
        core.wait_for_event("ready", &self.stage.interrupted)?;

        let count = REPORTS.to_string();
        let report = ["agent", "--interval", INTERVAL, "--heartbeat", "1s", "--count", &count, "--spawn", "sleep 600"];
        let started = agents.iter().map(|name| self.start(name, &url, &[&report[..], &["--as", name]].concat()));
        let mut programs = started.collect::<Result<Vec<_>>>()?;
        let child = programs[VICTIM].wait_for_event("child", &self.stage.interrupted)?;
        let pid = child["pid"].as_u64().context("the agent names no child")?;
        programs[VICTIM].wait_for_event("ready", &self.stage.interrupted)?;

        let kill = self.kill(&url, &agents[VICTIM], pid)?;
        self.stage.say(&kill);
        let published = self.follow(&core, &agents, &mut programs)?;

        core.terminate()?;
        let totals = core.wait_for_event("final", &self.stage.interrupted)?;
        core.finish(&self.stage.interrupted)?;
        let received = |name: &String| totals["received"][name].as_u64().unwrap_or_default();
        Ok(Observed {
            agents: agents
                .iter()
                .zip(published)
                .map(|(name, published)| (name.clone(), Counts { published, delivered: received(name) }))
                .collect(),
            commands_completed: 1,
            rejected: totals["rejected"].as_u64().unwrap_or(u64::MAX),
            kill,
        })
    }

    fn issue_certificates(&self, agents: &[String]) -> Result<()> {
        self.stage.say("a CA of its own, and a certificate for the broker, core, the console and five agents");
        self.bus(&["pki", "init", "--trust-domain", "demo.ransomeye"])?;
        self.bus(&["pki", "issue", "broker/nats-01", "--host", "localhost", "--host", "127.0.0.1"])?;
        for name in ["core/core-01", "core/console-01"].into_iter().chain(agents.iter().map(String::as_str)) {
            self.bus(&["pki", "issue", name])?;
            self.stage.check()?;
        }
        Ok(())
    }

    /// Has core's console end a child of that agent, and makes sure that it is gone.
    fn kill(&self, url: &str, agent: &str, pid: u64) -> Result<String> {
        if !is_alive(pid) {
            bail!("the child {pid} of {agent} ended before its time");
        }
        self.stage.say(&format!("core orders {agent} to kill its child process {pid}"));
        let id = pid.to_string();
        let answer = self.bus(&["--json", "command", "kill", agent, &id, "--as", "core/console-01", "--url", url])?;
        let answer: Value = serde_json::from_str(&answer).context("the command's result is malformed")?;
        if answer["status"] != "completed" || is_alive(pid) {
            bail!("the Kill did not end process {pid}: {answer}");
        }
        Ok(format!("{agent} killed process {pid}; the result came back and the process is gone"))
    }

    /// Shows the fleet until every agent has published its share and left. Returns what each says it published.
    fn follow(&self, core: &Program, agents: &[String], programs: &mut Vec<Program>) -> Result<Vec<u64>> {
        let deadline = Instant::now() + FLEET_PATIENCE;
        let mut screen = Screen::new(self.stage.json);
        let mut published = vec![None; agents.len()];
        while published.contains(&None) {
            self.stage.check()?;
            for (count, program) in published.iter_mut().zip(programs.iter()) {
                let last = program.pending().find(|line| line["event"] == "final");
                *count = count.or(last.and_then(|line| line["published"].as_u64()));
            }
            if let Some(snapshot) = core.pending().filter(|line| line["event"] == "snapshot").last() {
                screen.draw(&snapshot)?;
            }
            if published.contains(&None) {
                // An agent that ended badly never says its count; this finds out.
                still_well(&published, programs)?;
                if Instant::now() > deadline {
                    bail!("after {} s there is no count from {}", FLEET_PATIENCE.as_secs(), silent(agents, &published));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        for program in programs.drain(..) {
            program.finish(&self.stage.interrupted)?;
        }
        Ok(published.into_iter().flatten().collect())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bus);
        command.current_dir(self.folder).args(args);
        // What the user's own environment says about a bus is not for the demo's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RANSOMEYE_") || name == "BUS_CONFIG" {
                command.env_remove(name);
            }
        }
        command
    }

    fn bus(&self, args: &[&str]) -> Result<String> {
        stdout_of(&mut self.command(args))
    }

    fn start(&self, name: &str, url: &str, args: &[&str]) -> Result<Program> {
        Program::start(name, self.command(&["--json"]).args(args).args(["--url", url]), self.folder)
    }
}

fn still_well(published: &[Option<u64>], programs: &mut [Program]) -> Result<()> {
    published.iter().zip(programs).filter(|(count, _)| count.is_none()).try_for_each(|(_, program)| program.is_well())
}

/// The agents that have not said how much they published.
fn silent(agents: &[String], published: &[Option<u64>]) -> String {
    let silent = agents.iter().zip(published).filter(|(_, count)| count.is_none());
    silent.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether a process of that number exists and is not merely waiting to be reaped.
fn is_alive(pid: u64) -> bool {
    if !cfg!(target_os = "linux") {
        return Command::new("kill").args(["-0", &pid.to_string()]).status().is_ok_and(|status| status.success());
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the program's name, which stands in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The fleet's table, redrawn in place on a terminal and not drawn elsewhere.
struct Screen {
    live: bool,
    lines: usize,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self { live: !json && std::io::stdout().is_terminal(), lines: 0 }
    }

    fn draw(&mut self, snapshot: &Value) -> Result<()> {
        if !self.live || snapshot["components"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        let components: BTreeMap<_, _> = snapshot["components"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|component| (component["component"].as_str().unwrap_or_default(), component))
            .collect();
        let mut text = format!("  {:24} {:>6} {:>6} {:>7} {:>9}\n", "component", "cpu %", "ram %", "up s", "messages");
        for (name, component) in &components {
            let figure = |key: &str| component[key].as_f64().unwrap_or_default();
            text.push_str(&format!(
                "  {name:24} {:>6.1} {:>6.1} {:>7.0} {:>9.0}\n",
                figure("cpu_usage"),
                figure("ram_usage"),
                figure("uptime"),
                figure("messages"),
            ));
        }
        let mut stdout = std::io::stdout().lock();
        if self.lines > 0 {
            // Back to the first line of the last drawing, and clear from there (ECMA-48: CPL, ED).
            write!(stdout, "\u{1b}[{}F\u{1b}[J", self.lines)?;
        }
        self.lines = text.lines().count();
        write!(stdout, "{text}")?;
        Ok(stdout.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silent_agents_are_named() {
        let agents = ["agent/a-1", "agent/a-2", "agent/a-3"].map(str::to_owned);
        assert_eq!(silent(&agents, &[None, Some(400), None]), "agent/a-1, agent/a-3");
    }
}
