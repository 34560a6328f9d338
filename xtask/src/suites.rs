//! `cargo xtask test`: every test of the workspace, in suites that have a time budget.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{fetch, process, python, table};

/// The variable that tells the tests where the `bus` program is.
const BUS_PROGRAM: &str = "BUS_BIN";

/// How long the output may stay open once all that wrote to it was killed.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Whether it runs the Python programs of `tests/interop`, whose packages are then installed first.
    needs_python: bool,
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
        needs_python: false,
        cargo: &[
            "--workspace",
            "--exclude",
            "bus-natsd",
            "--exclude",
            "bus-tests",
            "--exclude",
            "bus-fuzz-oracles",
            "--all-features",
        ],
    },
    Suite {
        name: "corpora",
        covers: "the corpus of every fuzz target, tried without a fuzzer",
        budget: 120,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-fuzz-oracles"],
    },
    Suite {
        name: "readme",
        covers: "the README's example compiles",
        budget: 120,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--doc"],
    },
    Suite {
        name: "graph",
        covers: "what the dependency graph holds, and what it must never hold",
        budget: 60,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "graph"],
    },
    Suite {
        name: "server",
        covers: "bus-natsd: rendered configurations, and the life of a real nats-server",
        budget: 120,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-natsd", "--all-features"],
    },
    Suite {
        name: "bus",
        covers: "the client against a real nats-server",
        budget: 180,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "bus"],
    },
    Suite {
        name: "keys",
        covers: "the key streams: who may store, read and provision; sealing keys, published and found",
        budget: 60,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "keys"],
    },
    Suite {
        name: "streams",
        covers: "the streams of durable messages: provisioned as the policy says, used by their consumers' owners alone",
        budget: 60,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "streams"],
    },
    Suite {
        name: "signing",
        covers: "keys that rotate, are looked up and are revoked, under load; batches, expiry and gaps",
        budget: 180,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "signing"],
    },
    Suite {
        name: "sealing",
        covers: "messages sealed end to end: who reads them, keys that change or are missing, references, compression",
        budget: 180,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "sealing"],
    },
    Suite {
        name: "cluster",
        covers: "three nodes: who may be one, the loss of one, and a rolling restart",
        budget: 180,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "cluster"],
    },
    Suite {
        name: "attacks",
        covers: "a compromised component, outsiders and impostors, without our library",
        budget: 180,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--test", "attacks"],
    },
    Suite {
        name: "broker",
        covers: "the malicious broker of the attacks: what it forges, and that nobody notices it without",
        budget: 180,
        needs_program: false,
        needs_python: false,
        cargo: &["--package", "bus-tests", "--lib", "--test", "broker"],
    },
    Suite {
        name: "interop",
        covers: "the test vectors, and an implementation in Python, by itself and on a live bus",
        budget: 120,
        needs_program: false,
        needs_python: true,
        cargo: &["--package", "bus-tests", "--test", "interop"],
    },
    Suite {
        name: "cli",
        covers: "the bus program",
        budget: 180,
        needs_program: true,
        needs_python: false,
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
    let interrupted = process::watch_for_interrupt()?;
    let server = fetch::nats_server(workspace)?;
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
        Self { outcomes: vec![Outcome::failed("not run")] }
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
    /// Without a result of any test.
    fn failed(trouble: &str) -> Self {
        Self { tests: Tests::default(), took: Duration::ZERO, trouble: Some(trouble.to_owned()) }
    }

    fn succeeded(&self) -> bool {
        self.failures() == 0
    }

    fn failures(&self) -> u64 {
        self.tests.failed.max(u64::from(self.trouble.is_some()))
    }
}

/// The sum of what libtest prints.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Test targets that began and have not come to a result.
    unfinished: u64,
}

impl Tests {
    /// Sums up an output, and shows it.
    fn read(output: impl Read) -> Self {
        let mut tests = Self::default();
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // A test may write what is not UTF-8, which must not hide the results after it.
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            tests.add_line(text.trim_end());
            print!("{text}");
            line.clear();
        }
        tests
    }

    fn add_line(&mut self, line: &str) {
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.unfinished += 1;
        }
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        self.unfinished = self.unfinished.saturating_sub(1);
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

    /// What is wrong apart from tests that failed, if cargo ended by itself.
    fn trouble(&self, success: bool) -> Option<String> {
        if !success && self.unfinished > 0 {
            return Some(format!("{} crashed", plural(self.unfinished, "test target")));
        }
        if self.passed + self.failed == 0 {
            return Some("ran no test".to_owned());
        }
        (!success && self.failed == 0).then(|| "ended with an error".to_owned())
    }
}

fn plural(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
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
        let mut tests = self.workspace.cargo();
        tests.args(["test", "--no-fail-fast"]).args(self.suite.cargo).env(fetch::VARIABLE, self.server);
        if self.suite.needs_program {
            let built = self.workspace.build(&["--package", "bus-cli", "--bin", "bus"])?;
            self.check()?;
            let Some(program) = built.and_then(|mut programs| programs.remove("bus")) else {
                return Ok(Outcome::failed("the bus program does not build"));
            };
            tests.env(BUS_PROGRAM, program);
        }
        if self.suite.needs_python {
            tests.env(python::VARIABLE, python::packages(self.workspace)?);
        }
        // Documentation tests cannot be built apart from being run.
        let separable = !self.suite.cargo.contains(&"--doc");
        if separable && !self.built(self.workspace.cargo().args(["test", "--no-run"]).args(self.suite.cargo))? {
            return Ok(Outcome::failed("does not build"));
        }
        self.run_tests(&mut tests)
    }

    fn built(&self, cargo: &mut Command) -> Result<bool> {
        let status = cargo.stdin(Stdio::null()).status().context("cannot run cargo")?;
        // Ctrl-C ends cargo as well, which then looks like code that does not build.
        self.check()?;
        Ok(status.success())
    }

    fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { bail!("interrupted") } else { Ok(()) }
    }

    fn run_tests(&self, cargo: &mut Command) -> Result<Outcome> {
        process::own_group(cargo);
        let started = Instant::now();
        let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
        let stdout = child.stdout.take().context("cargo has no output")?;
        let reader = std::thread::spawn(move || Tests::read(stdout));
        let ended = self.wait(&mut child, started);
        // After a good end as well: a process that a test left behind would hold the output open.
        process::kill_group(&mut child)?;
        let ended = ended?;
        let took = started.elapsed();
        let killed = Instant::now();
        while !reader.is_finished() && killed.elapsed() < OUTPUT_PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !reader.is_finished() {
            return Ok(Outcome { took, ..Outcome::failed("left a process behind that could not be killed") });
        }
        let tests = reader.join().unwrap_or_default();
        let trouble = match ended {
            Ended::OverBudget => Some(format!("exceeded its budget of {} s and was killed", self.suite.budget)),
            Ended::With { success } => tests.trouble(success),
        };
        Ok(Outcome { tests, took, trouble })
    }

    /// Waits for the end, the budget or an interrupt, and leaves the killing to the caller.
    fn wait(&self, child: &mut Child, started: Instant) -> Result<Ended> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ended::With { success: status.success() });
            }
            self.check()?;
            if started.elapsed() > Duration::from_secs(self.suite.budget) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: u64, failed: u64, trouble: Option<&str>) -> Outcome {
        let tests = Tests { passed, failed, ..Tests::default() };
        Outcome { tests, took: Duration::ZERO, trouble: trouble.map(str::to_owned) }
    }

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let mut tests = Tests::default();
        tests.add_line("running 6 tests");
        tests.add_line("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s");
        tests.add_line(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tests.add_line("test it_says_5_passed ... ok");
        assert_eq!(tests, Tests { passed: 6, failed: 2, ignored: 1, unfinished: 0 });
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

    #[test]
    fn an_output_that_is_not_utf8_hides_no_result() {
        let output = b"\xff\xfe\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        assert_eq!(Tests::read(&output[..]), Tests { passed: 1, ..Tests::default() });
    }

    #[test]
    fn a_suite_whose_tests_are_all_ignored_ran_no_test() {
        let tests = Tests { ignored: 7, ..Tests::default() };
        assert_eq!(tests.trouble(true).as_deref(), Some("ran no test"));
    }

    #[test]
    fn a_crashed_target_is_named_beside_failed_tests() {
        let mut tests = Tests { passed: 3, failed: 1, ..Tests::default() };
        assert_eq!(tests.trouble(false), None, "the failed test says it all");
        tests.add_line("running 2 tests");
        assert_eq!(tests.trouble(false).as_deref(), Some("1 test target crashed"));
    }

    /// Runs a script in place of cargo.
    #[cfg(unix)]
    fn run(script: &str, budget: u64, interrupted: bool) -> Result<Outcome> {
        let suite = Suite { name: "some", covers: "", budget, needs_program: false, needs_python: false, cargo: &[] };
        let workspace = Workspace::open().unwrap();
        let interrupted = AtomicBool::new(interrupted);
        let runner = Runner { workspace: &workspace, server: Path::new(""), suite: &suite, interrupted: &interrupted };
        runner.run_tests(Command::new("sh").args(["-c", script]))
    }

    #[cfg(unix)]
    #[test]
    fn a_suite_that_exceeds_its_budget_is_killed_with_all_that_it_started() {
        // That this returns means that the grandchild, which holds the output open, is gone as well.
        let outcome = run("sleep 1000 & wait", 0, false).unwrap();
        assert_eq!(outcome.trouble.as_deref(), Some("exceeded its budget of 0 s and was killed"));
    }

    #[cfg(unix)]
    #[test]
    fn a_process_that_a_good_suite_leaves_behind_does_not_keep_it() {
        let outcome = run("sleep 1000 & echo 'test result: ok. 1 passed; 0 failed'", 60, false).unwrap();
        assert_eq!((outcome.tests.passed, outcome.trouble), (1, None));
    }

    #[cfg(unix)]
    #[test]
    fn an_interrupt_ends_the_run() {
        let error = run("sleep 1000", 60, true).err().unwrap();
        assert_eq!(error.to_string(), "interrupted");
    }

    #[cfg(unix)]
    #[test]
    fn an_interrupted_build_is_no_build_that_fails() {
        let suite =
            Suite { name: "some", covers: "", budget: 0, needs_program: false, needs_python: false, cargo: &[] };
        let workspace = Workspace::open().unwrap();
        let interrupted = AtomicBool::new(true);
        let runner = Runner { workspace: &workspace, server: Path::new(""), suite: &suite, interrupted: &interrupted };
        assert_eq!(runner.built(&mut Command::new("false")).unwrap_err().to_string(), "interrupted");
    }
}
