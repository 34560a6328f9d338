//! Where the workspace and its target directory are, and how its cargo is called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A checkout: the one that this program was built from, but for tests.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The checkout that this program was built from.
    pub fn open() -> Result<Self> {
        Self::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
    }

    /// Asks cargo where things are. It needs no network.
    pub fn of(manifest: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            workspace_root: PathBuf,
            target_directory: PathBuf,
        }
        let mut cargo = Command::new(cargo_program());
        cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"]);
        let json = stdout_of(cargo.arg(manifest))?;
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

    /// Builds programs and says where each is, by its name: the target platform and the configuration decide that.
    /// `None` if they do not build.
    pub fn build(&self, args: &[&str]) -> Result<Option<BTreeMap<String, PathBuf>>> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--message-format", "json-render-diagnostics"]).args(args);
        let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
        Ok(output.status.success().then(|| programs(&String::from_utf8_lossy(&output.stdout))))
    }
}

/// The programs among the artifacts that cargo says it built, one JSON object per line.
fn programs(messages: &str) -> BTreeMap<String, PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        target: Target,
        executable: PathBuf,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    // Whatever else cargo says, such as a library, has no executable.
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    artifacts.map(|artifact| (artifact.target.name, artifact.executable)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_where_cargo_says_and_a_library_is_no_program() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"a"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"b"},"executable":"/t/some-triple/debug/b"}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        let expected = BTreeMap::from([("b".to_owned(), PathBuf::from("/t/some-triple/debug/b"))]);
        assert_eq!(programs(&messages.join("\n")), expected);
    }
}
