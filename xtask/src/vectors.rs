//! `cargo xtask vectors`: the test vectors of the wire, which a program of `bus-tests` makes.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

const PROGRAM: &str = "bus-vectors";

/// Writes `tests/vectors/*.json`, or with `check` finds out whether one would change. Says whether all is well; the program
/// has named what is not.
pub fn run(workspace: &Workspace, check: bool) -> Result<bool> {
    let Some(mut programs) = workspace.build(&["--package", "bus-tests", "--bin", PROGRAM])? else {
        return Ok(false);
    };
    let program = programs.remove(PROGRAM).with_context(|| format!("cargo built no {PROGRAM}"))?;
    let mut command = Command::new(program);
    if check {
        command.arg("--check");
    }
    Ok(command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {PROGRAM}"))?.success())
}
