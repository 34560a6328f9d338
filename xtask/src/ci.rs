//! `cargo xtask ci`: everything that must hold before a change is merged.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{proto, suites, table, tidy, vectors};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Ok,
    Failed,
    /// It was not run, for this reason: neither good nor bad, but never silent.
    NotRun(String),
}

impl State {
    fn of(succeeded: bool) -> Self {
        if succeeded { Self::Ok } else { Self::Failed }
    }

    fn cells(&self) -> [String; 2] {
        match self {
            Self::Ok => ["ok".to_owned(), String::new()],
            Self::Failed => ["FAILED".to_owned(), String::new()],
            Self::NotRun(why) => ["NOT RUN".to_owned(), why.clone()],
        }
    }
}

struct Step {
    name: &'static str,
    run: fn(&Workspace) -> Result<State>,
}

/// The steps before the tests, the quick ones first.
const STEPS: &[Step] = &[
    Step { name: "lock", run: lock },
    Step { name: "fmt", run: |workspace| if_installed(workspace, &["fmt", "--all", "--", "--check"]) },
    Step { name: "proto --check", run: |workspace| proto::run(workspace.root(), true).map(|()| State::Ok) },
    Step { name: "tidy", run: |workspace| tidy::run(workspace).map(State::of) },
    Step { name: "vectors --check", run: |workspace| vectors::run(workspace, true).map(State::of) },
    Step { name: "clippy", run: clippy },
    Step { name: "doc", run: documentation },
    Step { name: "package", run: package },
    Step { name: "deny", run: |workspace| deny(workspace, &["bans", "licenses", "sources"]) },
    Step { name: "advisories", run: advisories },
    Step {
        name: "machete",
        run: |workspace| if_installed(workspace, &["machete", "crates", "fuzz", "stubs", "tests", "xtask"]),
    },
    Step { name: "hack", run: hack },
];

/// Runs every step, whatever fails on the way, and prints what each took. Says whether nothing failed.
pub fn run(workspace: &Workspace) -> Result<bool> {
    let mut rows = Vec::new();
    let mut good = true;
    for step in STEPS {
        eprintln!("\n== {}", step.name);
        let started = Instant::now();
        let state = (step.run)(workspace).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            State::Failed
        });
        if let State::NotRun(why) = &state {
            eprintln!("NOT RUN: {why}");
        }
        good &= state != State::Failed;
        rows.push(row(step.name, &state, started.elapsed()));
    }
    let started = Instant::now();
    let summary = suites::execute(workspace, &[]).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        suites::Summary::not_run()
    });
    rows.push(row("test", &State::of(summary.succeeded()), started.elapsed()));
    println!();
    table::print(["step", "took", "state", ""], &rows);
    println!("{}", summary.last_line());
    Ok(good && summary.succeeded())
}

fn row(name: &str, state: &State, took: Duration) -> [String; 4] {
    let [state, why] = state.cells();
    [name.to_owned(), format!("{:.1} s", took.as_secs_f64()), state, why]
}

fn succeeded(command: &mut Command) -> Result<State> {
    Ok(State::of(command.stdin(Stdio::null()).status()?.success()))
}

/// Whether `Cargo.lock` says what the manifests ask for. The steps after this one would silently correct it.
fn lock(workspace: &Workspace) -> Result<State> {
    succeeded(workspace.cargo().args(["metadata", "--locked", "--format-version", "1"]).stdout(Stdio::null()))
}

fn clippy(workspace: &Workspace) -> Result<State> {
    let args = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    if_installed(workspace, &args)
}

fn documentation(workspace: &Workspace) -> Result<State> {
    let mut cargo = workspace.cargo();
    cargo.args(["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings");
    succeeded(&mut cargo)
}

/// Whether what would be published is complete. Building it again from the packages would repeat the other steps, and a
/// lock file without the workspace's patches cannot be made without a network.
fn package(workspace: &Workspace) -> Result<State> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "package",
        "--quiet",
        "--offline",
        "--allow-dirty",
        "--no-verify",
        "--exclude-lockfile",
        "--workspace",
    ]);
    for private in ["xtask", "bus-tests", "bus-fuzz-oracles", "rustls-native-certs"] {
        cargo.args(["--exclude", private]);
    }
    succeeded(&mut cargo)
}

/// Checks of cargo-deny. By now `tidy` has made cargo fetch what it needs to see the whole graph.
fn deny(workspace: &Workspace, checks: &[&str]) -> Result<State> {
    let args = [&["deny", "--all-features", "--offline", "check", "--hide-inclusion-graph"], checks].concat();
    if_installed(workspace, &args)
}

fn advisories(workspace: &Workspace) -> Result<State> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = named.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    if !cargo_home.is_some_and(|home| has_directory(&home.join("advisory-dbs"))) {
        return Ok(State::NotRun("no advisory database; `cargo deny fetch` gets it".to_owned()));
    }
    deny(workspace, &["advisories"])
}

fn has_directory(parent: &Path) -> bool {
    std::fs::read_dir(parent).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}

/// The pure crates build with each set of their features; the others have too few to differ.
fn hack(workspace: &Workspace) -> Result<State> {
    let pure = ["--package", "bus-proto", "--package", "bus-acl", "--package", "bus-crypto"];
    if_installed(workspace, &[&["hack", "check", "--feature-powerset"], &pure[..]].concat())
}

/// Runs a cargo subcommand, the first of `args`, that a machine may lack.
fn if_installed(workspace: &Workspace, args: &[&str]) -> Result<State> {
    let name = args.first().copied().unwrap_or_default();
    // A file of that name proves nothing: rustup has one for each of its components, installed or not.
    let mut probe = workspace.cargo();
    probe.args([name, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status()?.success() {
        return Ok(State::NotRun(format!("cargo-{name} is not installed")));
    }
    succeeded(workspace.cargo().args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_not_installed_is_said_to_be() {
        let workspace = Workspace::open().unwrap();
        let state = if_installed(&workspace, &["no-such-tool"]).unwrap();
        assert_eq!(state, State::NotRun("cargo-no-such-tool is not installed".to_owned()));
        assert_eq!(
            row("x", &state, Duration::from_millis(1500)),
            ["x", "1.5 s", "NOT RUN", "cargo-no-such-tool is not installed"]
        );
    }
}
