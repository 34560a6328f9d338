//! Measures the bus side by side with async-nats alone, and prints what came of it.
//!
//! `bus-bench` prints a table, `bus-bench --json` the whole report; progress goes to stderr. `--quick` measures less, and
//! `--write DIRECTORY` writes `messages.json` and `messages.svg` there as well. `--only CONTENDER` runs one alone, for a
//! profiler.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use bus_tests::bench::{self, Effort, Memory, Report, chart};

const USAGE: &str = "usage: bus-bench [--quick] [--json] [--write DIRECTORY] [--only CONTENDER]";

#[derive(Debug, Default)]
struct Options {
    quick: bool,
    json: bool,
    write: Option<PathBuf>,
    only: Option<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--write" => options.write = Some(arguments.next()?.into()),
                "--only" => options.only = Some(arguments.next()?),
                _ => return None,
            }
        }
        Some(options)
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let effort = if options.quick { Effort::quick() } else { Effort::full() };
    if let Some(contender) = &options.only {
        bench::only(contender, effort, |what| eprintln!("{what}")).await?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("memory of {} senders, in a process of its own", effort.senders);
    let memory = memory(effort.senders)?;
    let report = tokio::select! {
        report = bench::run(effort, memory, |what| eprintln!("{what}")) => report?,
        // The server and its directory go with the run that is dropped here.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    publish(&report, &options)?;
    Ok(ExitCode::SUCCESS)
}

/// Has the program beside this one measure, for its allocator counts.
fn memory(senders: u32) -> Result<Memory> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name(format!("bus-bench-senders{}", std::env::consts::EXE_SUFFIX));
    let output = Command::new(&program).arg(senders.to_string()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{} failed", program.display());
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn publish(report: &Report, options: &Options) -> Result<()> {
    let json = report.to_json()?;
    if let Some(directory) = &options.write {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        for (name, text) in [("messages.json", &json), ("messages.svg", &chart::messages(report))] {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
    }
    if options.json {
        print!("{json}");
    } else {
        print!("{report}");
    }
    Ok(())
}
