//! The project's own commands. `cargo xtask` without arguments lists them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]
#![allow(unreachable_pub, reason = "a program exports nothing")]

mod bench;
mod ci;
mod demo;
mod fetch;
mod fuzz;
mod process;
mod proto;
mod python;
mod suites;
mod table;
mod tidy;
mod vectors;
mod workspace;

use std::process::ExitCode;

use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--json]                 the bus at work: one core, five agents, a Kill, and a compromised agent refused
  test [--suite NAME] [--list]  runs the test suites; with --suite only that one, which can be given several times
  proto [--check]               generates the protobuf code; with --check fails when the committed code differs
  vectors [--check]             makes the test vectors of the wire; with --check fails when a committed file differs
  fuzz [TARGET...] [--seconds N]
                                runs the fuzz targets, 60 seconds each unless told otherwise; needs a nightly compiler
  bench [--quick] [--json] [--write]
                                measures the bus side by side with async-nats; --write puts the report into docs/benchmarks
  tidy                          checks the design's arrows and doors, the manifests and the documents
  fetch                         fetches the pinned nats-server into target/tools, once, and prints its path
  ci                            everything that must hold before a change is merged
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Demo(Vec<String>),
    Test { suites: Vec<String>, list: bool },
    Proto { check: bool },
    Vectors { check: bool },
    Fuzz(fuzz::Options),
    Bench(bench::Options),
    Tidy,
    Fetch,
    Ci,
}

fn main() -> ExitCode {
    let command = match parse(std::env::args().skip(1).collect()) {
        Ok(command) => command,
        Err(mistake) => {
            eprintln!("error: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let succeeded = match command {
        Command::Help => {
            print!("{USAGE}");
            true
        }
        Command::Demo(args) => demo::run(&args)?,
        Command::Test { suites, list: true } => suites::list(&suites).map(|()| true)?,
        Command::Test { suites, list: false } => suites::run(&Workspace::open()?, &suites)?,
        Command::Proto { check } => proto::run(Workspace::open()?.root(), check).map(|()| true)?,
        Command::Bench(options) => bench::run(&Workspace::open()?, &options)?,
        Command::Fuzz(options) => fuzz::run(&Workspace::open()?, &options)?,
        Command::Vectors { check } => vectors::run(&Workspace::open()?, check)?,
        Command::Tidy => tidy::run(&Workspace::open()?)?,
        Command::Fetch => {
            println!("{}", fetch::nats_server(&Workspace::open()?)?.display());
            true
        }
        Command::Ci => ci::run(&Workspace::open()?)?,
    };
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(args: Vec<String>) -> Result<Command, String> {
    let mut args = args.into_iter();
    let name = args.next().ok_or("a command is missing")?;
    let command = match name.as_str() {
        "help" | "--help" | "-h" => Command::Help,
        "demo" => return Ok(Command::Demo(args.collect())),
        "test" => return parse_test(args),
        "bench" => return bench::Options::parse(args).map(Command::Bench),
        "fuzz" => return fuzz::Options::parse(args).map(Command::Fuzz),
        "proto" => Command::Proto { check: parse_check(&name, &mut args)? },
        "vectors" => Command::Vectors { check: parse_check(&name, &mut args)? },
        "tidy" => Command::Tidy,
        "fetch" => Command::Fetch,
        "ci" => Command::Ci,
        other => return Err(format!("there is no command `{other}`")),
    };
    match args.next() {
        None => Ok(command),
        Some(extra) => Err(format!("`{name}` knows no argument `{extra}`")),
    }
}

/// The only argument that a command which makes files knows.
fn parse_check(name: &str, args: &mut impl Iterator<Item = String>) -> Result<bool, String> {
    match args.next().as_deref() {
        None => Ok(false),
        Some("--check") => Ok(true),
        Some(other) => Err(format!("`{name}` knows no argument `{other}`")),
    }
}

fn parse_test(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut suites, mut list) = (Vec::new(), false);
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--list" => list = true,
            "--suite" => {
                suites.push(args.next().ok_or("`--suite` needs a name; `cargo xtask test --list` shows them")?);
            }
            other => match other.strip_prefix("--suite=") {
                Some(suite) => suites.push(suite.to_owned()),
                None => return Err(format!("`test` knows no argument `{other}`")),
            },
        }
    }
    if let Some(unknown) = suites.iter().find(|name| suites::find(name).is_none()) {
        return Err(format!("there is no suite `{unknown}`; `cargo xtask test --list` shows them"));
    }
    Ok(Command::Test { suites, list })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_command_line_is_understood() {
        assert_eq!(parse(words("proto --check")), Ok(Command::Proto { check: true }));
        assert_eq!(parse(words("vectors")), Ok(Command::Vectors { check: false }));
        assert_eq!(parse(words("demo --json")), Ok(Command::Demo(words("--json"))));
        assert_eq!(
            parse(words("test --suite attacks --suite=unit")),
            Ok(Command::Test { suites: words("attacks unit"), list: false })
        );
    }

    #[test]
    fn misuse_is_named() {
        for (line, blamed) in [
            ("", "missing"),
            ("tset", "`tset`"),
            ("ci now", "`now`"),
            ("proto --force", "`--force`"),
            ("vectors --force", "`--force`"),
            ("proto --check twice", "`twice`"),
            ("test attacks", "`attacks`"),
            ("bench --fast", "`--fast`"),
            ("bench --quick --write", "`--write`"),
            ("test --suite", "needs a name"),
            ("test --suite nothing", "`nothing`"),
        ] {
            let mistake = parse(words(line)).unwrap_err();
            assert!(mistake.contains(blamed), "{line}: {mistake}");
        }
    }
}
