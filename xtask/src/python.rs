//! The Python packages of `tests/interop`, installed once into `target/python` by their hashes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::workspace::{Workspace, stdout_of};

/// The variable that tells the tests where the packages are.
pub const VARIABLE: &str = "BUS_PYTHON_PACKAGES";

const REQUIREMENTS: &str = "tests/interop/requirements.txt";
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };
/// What the installed packages were made from: the interpreter's kind and the digest of the requirements.
const STAMP: &str = "stamp";
/// What the directory of an installation that is under way begins with.
const SCRATCH: &str = "python-";

/// Where the packages are, which are installed if they are not there yet, or are others than those that are asked for.
pub fn packages(workspace: &Workspace) -> Result<PathBuf> {
    let home = workspace.target().join("python");
    let requirements = workspace.root().join(REQUIREMENTS);
    let wanted = stamp(&requirements)?;
    let installed = || fs::read_to_string(home.join(STAMP)).is_ok_and(|stamp| stamp == wanted);
    if installed() {
        return Ok(home);
    }
    fs::create_dir_all(workspace.target()).context("cannot create the target directory")?;
    let lock = File::create(workspace.target().join("python.lock")).context("cannot create target/python.lock")?;
    lock.lock().context("cannot lock target/python")?;
    // Another process may have installed them while this one waited.
    if !installed() {
        install(workspace.target(), &requirements, &home, &wanted).with_context(|| {
            format!(
                "the Python packages of {REQUIREMENTS} could not be installed: check that `{PYTHON} -m pip` works here"
            )
        })?;
    }
    Ok(home)
}

/// Wheels with native code are of one version of one interpreter on one platform.
fn stamp(requirements: &Path) -> Result<String> {
    let question = "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())";
    let python = stdout_of(Command::new(PYTHON).args(["-c", question]))?;
    let text = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{} {digest}\n", python.trim_end()))
}

fn install(target: &Path, requirements: &Path, home: &Path, stamp: &str) -> Result<()> {
    if std::env::var("CARGO_NET_OFFLINE").is_ok_and(|value| value == "true") {
        bail!("CARGO_NET_OFFLINE is set, so nothing is fetched");
    }
    let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(target).context("cannot create a directory")?;
    let log = scratch.path().join("pip.log");
    eprintln!("installing the Python packages of {REQUIREMENTS} into {}", home.display());
    let status = Command::new(PYTHON)
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-compile"])
        .args(["--retries", "2", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r"])
        .arg(requirements)
        .arg("--target")
        .arg(scratch.path().join("packages"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .status()
        .with_context(|| format!("`{PYTHON}` cannot be run"))?;
    if !status.success() {
        bail!("`{PYTHON} -m pip install` failed:\n{}", fs::read_to_string(&log).unwrap_or_default().trim_end());
    }
    fs::write(scratch.path().join("packages").join(STAMP), stamp)?;
    if home.exists() {
        fs::remove_dir_all(home).with_context(|| format!("cannot remove the old {}", home.display()))?;
    }
    fs::rename(scratch.path().join("packages"), home).with_context(|| format!("cannot put {} in place", home.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_to_a_version_and_to_hashes() {
        let text = include_str!("../../tests/interop/requirements.txt");
        let lines = text.replace("\\\n", " ");
        let packages: Vec<&str> = lines.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(packages.len() >= 5, "{packages:?}");
        for package in packages {
            let (name, rest) = package.split_once("==").expect("a version");
            let hashes: Vec<&str> = rest.split("--hash=sha256:").skip(1).map(str::trim).collect();
            assert!(!hashes.is_empty(), "{name}");
            let well_formed = |hash: &&str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(hashes.iter().all(well_formed), "{name}");
        }
    }

    #[test]
    fn other_requirements_have_another_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("requirements.txt");
        fs::write(&file, "a==1\n").unwrap();
        let one = stamp(&file).unwrap();
        assert_eq!(stamp(&file).unwrap(), one);
        fs::write(&file, "a==2\n").unwrap();
        assert_ne!(stamp(&file).unwrap(), one);
    }
}
