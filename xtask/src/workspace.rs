//! Where the workspace and its target directory are, and how its cargo is called.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The checkout that this program was built from.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Asks cargo where things are. It needs no network.
    pub fn open() -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            workspace_root: PathBuf,
            target_directory: PathBuf,
        }
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let mut cargo = Command::new(cargo_program());
        cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"]);
        let json = stdout_of(cargo.arg(&manifest))?;
        let answer: Answer = serde_json::from_str(&json).context("cargo metadata gave something unexpected")?;
        Ok(Self { root: answer.workspace_root, target: answer.target_directory })
    }

    /// The directory of the workspace's `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The target directory, wherever the environment or the configuration puts it.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// A cargo command in the workspace's root that builds into the same target directory.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(cargo_program());
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }
}

/// What a command writes to its standard output. The error holds what it wrote to its standard error.
pub fn stdout_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{program}` wrote something that is not UTF-8"))
}

fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
