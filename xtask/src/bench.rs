//! `cargo xtask bench`: the bus side by side with its broker's own client, on this machine.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{fetch, process};

/// Where `--write` puts the report and the chart.
const DIRECTORY: &str = "docs/benchmarks";

/// What the user asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    quick: bool,
    json: bool,
    write: bool,
}

impl Options {
    /// Understands the arguments of `bench`.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--write" => options.write = true,
                other => return Err(format!("`bench` knows no argument `{other}`")),
            }
        }
        if options.quick && options.write {
            return Err("`--quick` is for a look: what `--write` publishes is measured in full".to_owned());
        }
        Ok(options)
    }
}

/// Builds the programs that measure, and runs them. Says whether they succeeded.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    // Ctrl-C reaches the program as well, which stops its server; this one waits for it.
    let _interrupted = process::watch_for_interrupt()?;
    let server = fetch::nats_server(workspace)?;
    let args = ["--release", "--package", "bus-tests", "--bin", "bus-bench", "--bin", "bus-bench-senders"];
    let Some(mut programs) = workspace.build(&args)? else {
        bail!("the benchmark does not build");
    };
    let program = programs.remove("bus-bench").context("cargo built no bus-bench")?;
    let status = std::process::Command::new(program)
        .args(arguments(options, workspace.root()))
        .env(fetch::VARIABLE, server)
        .stdin(Stdio::null())
        .status()
        .context("cannot run bus-bench")?;
    Ok(status.success())
}

fn arguments(options: &Options, root: &Path) -> Vec<std::ffi::OsString> {
    let mut arguments = Vec::new();
    if options.quick {
        arguments.push("--quick".into());
    }
    if options.json {
        arguments.push("--json".into());
    }
    if options.write {
        arguments.extend(["--write".into(), root.join(DIRECTORY).into_os_string()]);
    }
    arguments
}
