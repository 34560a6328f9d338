//! `cargo xtask test`: every test of the workspace, in suites that have a time budget.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{fetch, table};

/// The variable that tells the tests where the `bus` program is.
const BUS_PROGRAM: &str = "BUS_BIN";

/// A set of tests that is run as one.
#[derive(Debug)]
pub struct Suite {
    /// What `--suite` calls it. An integration suite over several crates is the test target of that name in `bus-tests`.
    pub name: &'static str,
    covers: &'static str,
    /// The longest that its tests may take, in seconds, once they are built.
    budget: u64,
    /// Whether it runs the `bus` program, which is then built first.
    needs_program: bool,
    /// What `cargo test` is given.
    cargo: &'static [&'static str],
}

/// Every suite, in the order in which they run: the quick ones that explain most come first.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "unit",
        covers: "each crate by itself: unit, property and documentation tests",
        budget: 600,
        needs_program: false,
        cargo: &["--workspace", "--exclude", "bus-natsd", "--exclude", "bus-tests", "--all-features"],
    },
    Suite {
        name: "readme",
        covers: "the README's example compiles",
        budget: 120,
        needs_program: false,
        cargo: &["--package", "bus-tests", "--doc"],
    },
    Suite {
        name: "graph",
        covers: "what the dependency graph holds, and what it must never hold",
        budget: 60,
        needs_program: false,
        cargo: &["--package", "bus-tests", "--test", "graph"],
    },
    Suite {
        name: "server",
        covers: "bus-natsd: rendered configurations, and the life of a real nats-server",
        budget: 120,
        needs_program: false,
        cargo: &["--package", "bus-natsd"],
    },
    Suite {
        name: "bus",
        covers: "the client against a real nats-server",
        budget: 180,
        needs_program: false,
        cargo: &["--package", "bus-tests", "--test", "bus"],
    },
    Suite {
        name: "attacks",
        covers: "a compromised component, outsiders and impostors, without our library",
        budget: 180,
        needs_program: false,
        cargo: &["--package", "bus-tests", "--test", "attacks"],
    },
    Suite {
        name: "cli",
        covers: "the bus program",
        budget: 180,
        needs_program: true,
        cargo: &["--package", "bus-tests", "--test", "cli"],
    },
];

/// The suite of that name.
pub fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

/// Prints the suites: the named ones, or all.
pub fn list(names: &[String]) -> Result<()> {
    let rows =
        chosen(names).map(|suite| [suite.name.to_owned(), format!("{} s", suite.budget), suite.covers.to_owned()]);
    table::print(["suite", "budget", "covers"], &rows.collect::<Vec<_>>());
    Ok(())
}

/// Runs suites, prints the table and, as the last line, the sum. Says whether all is well.
pub fn run(workspace: &Workspace, names: &[String]) -> Result<bool> {
    let summary = execute(workspace, names)?;
    println!("{}", summary.last_line());
    Ok(summary.succeeded())
}

/// Runs suites (the named ones, or all), and prints the table but not the sum.
pub fn execute(workspace: &Workspace, names: &[String]) -> Result<Summary> {
    let server = fetch::nats_server(workspace)?;
    let interrupted = watch_for_interrupt()?;
    let mut outcomes = Vec::new();
    for suite in chosen(names) {
        eprintln!("\n== {}: {} (budget {} s)", suite.name, suite.covers, suite.budget);
        let runner = Runner { workspace, server: &server, suite, interrupted: &interrupted };
        outcomes.push((suite, runner.run()?));
    }
    let rows = outcomes.iter().map(|(suite, outcome)| {
        [
            suite.name.to_owned(),
            outcome.tests.passed.to_string(),
            outcome.tests.failed.to_string(),
            outcome.tests.ignored.to_string(),
            format!("{:.1} s", outcome.took.as_secs_f64()),
            format!("{} s", suite.budget),
            outcome.trouble.clone().unwrap_or_default(),
        ]
    });
    println!();
    table::print(["suite", "passed", "failed", "ignored", "took", "budget", ""], &rows.collect::<Vec<_>>());
    Ok(Summary { outcomes: outcomes.into_iter().map(|(_, outcome)| outcome).collect() })
}

fn chosen(names: &[String]) -> impl Iterator<Item = &'static Suite> {
    SUITES.iter().filter(move |suite| names.is_empty() || names.iter().any(|name| name == suite.name))
}

/// What all suites together came to.
pub struct Summary {
    outcomes: Vec<Outcome>,
}

impl Summary {
    /// What it comes to when the suites could not be run at all: a failure.
    pub fn not_run() -> Self {
        let trouble = Some("not run".to_owned());
        Self { outcomes: vec![Outcome { tests: Tests::default(), took: Duration::ZERO, trouble }] }
    }

    /// Whether every suite ran, in time, and no test failed.
    pub fn succeeded(&self) -> bool {
        self.outcomes.iter().all(Outcome::succeeded)
    }

    /// `N passed, N failed`. A suite that failed without a failed test, by its build or its budget, counts as one.
    pub fn last_line(&self) -> String {
        let passed: u64 = self.outcomes.iter().map(|outcome| outcome.tests.passed).sum();
        let failed: u64 = self.outcomes.iter().map(Outcome::failures).sum();
        format!("{passed} passed, {failed} failed")
    }
}

struct Outcome {
    tests: Tests,
    took: Duration,
    /// What went wrong apart from tests that failed.
    trouble: Option<String>,
}

impl Outcome {
    fn succeeded(&self) -> bool {
        self.failures() == 0
    }

    fn failures(&self) -> u64 {
        self.tests.failed.max(u64::from(self.trouble.is_some()))
    }
}

/// The sum of libtest's `test result:` lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tests {
    fn add_line(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

struct Runner<'a> {
    workspace: &'a Workspace,
    server: &'a Path,
    suite: &'a Suite,
    interrupted: &'a AtomicBool,
}

impl Runner<'_> {
    /// Builds first, so that the budget is about the tests alone.
    fn run(&self) -> Result<Outcome> {
        let failed = |trouble: &str| Outcome {
            tests: Tests::default(),
            took: Duration::ZERO,
            trouble: Some(trouble.to_owned()),
        };
        if self.suite.needs_program && !self.built(self.workspace.cargo().args(["build", "--package", "bus-cli"]))? {
            return Ok(failed("the bus program does not build"));
        }
        if !self.built(self.workspace.cargo().args(["test", "--no-run"]).args(self.suite.cargo))? {
            return Ok(failed("does not build"));
        }
        self.run_tests()
    }

    fn built(&self, cargo: &mut Command) -> Result<bool> {
        Ok(cargo.stdin(Stdio::null()).status().context("cannot run cargo")?.success())
    }

    fn run_tests(&self) -> Result<Outcome> {
        let program = format!("bus{}", std::env::consts::EXE_SUFFIX);
        let mut cargo = self.workspace.cargo();
        cargo
            .args(["test", "--no-fail-fast"])
            .args(self.suite.cargo)
            .env(fetch::VARIABLE, self.server)
            .env(BUS_PROGRAM, self.workspace.target().join("debug").join(program))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        own_group(&mut cargo);
        let started = Instant::now();
        let mut child = cargo.spawn().context("cannot run cargo")?;
        let stdout = child.stdout.take().context("cargo has no output")?;
        let reader = std::thread::spawn(move || {
            let mut tests = Tests::default();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                tests.add_line(&line);
                println!("{line}");
            }
            tests
        });
        let ended = self.wait(&mut child, started)?;
        let took = started.elapsed();
        let tests = reader.join().unwrap_or_default();
        let trouble = match ended {
            Ended::OverBudget => Some(format!("exceeded its budget of {} s and was killed", self.suite.budget)),
            Ended::With { .. } if tests == Tests::default() => Some("ran no test".to_owned()),
            Ended::With { success: false } if tests.failed == 0 => Some("ended with an error".to_owned()),
            Ended::With { .. } => None,
        };
        Ok(Outcome { tests, took, trouble })
    }

    fn wait(&self, child: &mut Child, started: Instant) -> Result<Ended> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ended::With { success: status.success() });
            }
            if self.interrupted.load(Ordering::Relaxed) {
                kill_group(child)?;
                bail!("interrupted");
            }
            if started.elapsed() > Duration::from_secs(self.suite.budget) {
                kill_group(child)?;
                return Ok(Ended::OverBudget);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

enum Ended {
    With { success: bool },
    OverBudget,
}

/// The tests get a process group of their own, so that a budget can end them with all that they started. An interrupt
/// from the terminal then reaches this program alone, which passes it on.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

#[cfg(unix)]
fn kill_group(child: &mut Child) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process_group};
    kill_process_group(Pid::from_child(child), Signal::KILL).context("cannot kill the tests")?;
    child.wait().context("cannot wait for the tests")?;
    Ok(())
}

#[cfg(not(unix))]
fn kill_group(child: &mut Child) -> Result<()> {
    child.kill().context("cannot kill the tests")?;
    child.wait().context("cannot wait for the tests")?;
    Ok(())
}

/// A flag that Ctrl-C and SIGTERM set from now on, instead of ending this program.
pub fn watch_for_interrupt() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).context("cannot watch for interrupts")?;
    }
    Ok(interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: u64, failed: u64, trouble: Option<&str>) -> Outcome {
        let tests = Tests { passed, failed, ignored: 0 };
        Outcome { tests, took: Duration::ZERO, trouble: trouble.map(str::to_owned) }
    }

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let mut tests = Tests::default();
        tests.add_line("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s");
        tests.add_line(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tests.add_line("test it_says_5_passed ... ok");
        assert_eq!(tests, Tests { passed: 6, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_suite_in_trouble_counts_as_a_failure() {
        let summary = Summary { outcomes: vec![outcome(3, 0, None), outcome(1, 0, Some("ran no test"))] };
        assert!(!summary.succeeded());
        assert_eq!(summary.last_line(), "4 passed, 1 failed");
        let summary = Summary { outcomes: vec![outcome(3, 0, None)] };
        assert!(summary.succeeded());
        assert_eq!(summary.last_line(), "3 passed, 0 failed");
    }

    #[cfg(unix)]
    #[test]
    fn a_suite_that_exceeds_its_budget_is_killed_with_all_that_it_started() {
        let suite = Suite { name: "slow", covers: "", budget: 0, needs_program: false, cargo: &[] };
        let workspace = Workspace::open().unwrap();
        let interrupted = AtomicBool::new(false);
        let runner = Runner { workspace: &workspace, server: Path::new(""), suite: &suite, interrupted: &interrupted };
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo started; wait"]).stdout(Stdio::piped());
        own_group(&mut command);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        assert!(matches!(runner.wait(&mut child, Instant::now()).unwrap(), Ended::OverBudget));
        // The end of the output means that the grandchild, which held it open, is gone as well.
        assert_eq!(output.read_line(&mut String::new()).unwrap(), 0);
    }
}
