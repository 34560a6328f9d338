use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::ServerError;

/// The environment variable that names the nats-server to run.
pub const SERVER_VARIABLE: &str = "BUS_NATS_SERVER";

/// The oldest nats-server, as (major, minor), that is known to enforce all that a rendered configuration says. 2.12.0
/// delivers what a deny rule forbids to some wildcard subscriptions; 2.15.1 does not.
pub const MINIMUM_VERSION: (u32, u32) = (2, 15);

const PROGRAM: &str = if cfg!(windows) { "nats-server.exe" } else { "nats-server" };

/// Finds the nats-server of this machine: the one that `BUS_NATS_SERVER` names, else the first one on `PATH`.
///
/// It is asked for its version. Nothing is ever downloaded.
///
/// # Errors
///
/// [`ServerError::NotFound`] when there is none or it is older than [`MINIMUM_VERSION`]. A server that the variable
/// names and that will not do is an error too: `PATH` does not stand in for it.
pub fn find_server() -> Result<PathBuf, ServerError> {
    find(std::env::var_os(SERVER_VARIABLE), &std::env::var_os("PATH").unwrap_or_default())
}

fn find(named: Option<OsString>, path: &OsStr) -> Result<PathBuf, ServerError> {
    let (program, place) = match named {
        Some(named) => (PathBuf::from(named), SERVER_VARIABLE),
        None => {
            let mut candidates = std::env::split_paths(path).map(|directory| directory.join(PROGRAM));
            let found = candidates.find(|file| file.is_file());
            (found.ok_or(ServerError::NotFound { why: "none is on PATH".to_owned() })?, "PATH")
        }
    };
    let trouble = match version(&program) {
        Ok(version) if version >= MINIMUM_VERSION => return Ok(program),
        Ok((major, minor)) => format!("is {major}.{minor}"),
        Err(trouble) => trouble,
    };
    Err(ServerError::NotFound { why: format!("{}, from {place}, {trouble}", program.display()) })
}

fn version(program: &Path) -> Result<(u32, u32), String> {
    let output = Command::new(program).arg("--version").output().map_err(|error| format!("cannot be run ({error})"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| "does not tell its version".to_owned())
}

/// Reads `nats-server: v2.15.1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, numbers) = text.trim().split_once("nats-server: v")?;
    let mut numbers = numbers.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(parse_version("nats-server: v2.12.0-RC.1"), Some((2, 12)));
        assert_eq!(parse_version("nats-server: v3\n"), None);
        assert_eq!(parse_version("curl 8.0"), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!((2, 9) < MINIMUM_VERSION && (2, 100) >= MINIMUM_VERSION && (3, 0) > MINIMUM_VERSION);
    }

    /// Held by every test here that starts a program. A program's file must not be open for writing when it is started,
    /// and whatever another thread starts meanwhile inherits the open file for a moment (ETXTBSY).
    static STARTS: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn a_program_that_is_none_says_so() {
        let _alone = STARTS.lock();
        assert!(version(Path::new("/nonexistent/nats-server")).unwrap_err().contains("cannot be run"));
    }

    /// A directory with a nats-server that says this.
    #[cfg(unix)]
    fn pretender(says: &str) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(PROGRAM);
        std::fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    #[cfg(unix)]
    #[test]
    fn the_named_server_is_taken_before_the_one_on_path() {
        let _alone = STARTS.lock();
        let [named, on_path] = [pretender("nats-server: v2.15.1"), pretender("nats-server: v2.16.0")];
        let program = named.path().join(PROGRAM);
        assert_eq!(find(Some(program.clone().into()), on_path.path().as_os_str()).unwrap(), program);
        assert_eq!(find(None, on_path.path().as_os_str()).unwrap(), on_path.path().join(PROGRAM));
    }

    #[cfg(unix)]
    #[test]
    fn a_named_server_that_will_not_do_is_not_replaced_by_another() {
        let _alone = STARTS.lock();
        let [old, good] = [pretender("nats-server: v2.12.0"), pretender("nats-server: v2.15.1")];
        let error = find(Some(old.path().join(PROGRAM).into()), good.path().as_os_str()).unwrap_err().to_string();
        assert!(error.contains("BUS_NATS_SERVER") && error.contains("is 2.12"), "{error}");
    }

    #[test]
    fn the_error_names_the_upstream_release_and_the_variable() {
        let error = find(None, OsStr::new("")).unwrap_err().to_string();
        assert!(
            error.contains("github.com/nats-io/nats-server/releases") && error.contains(SERVER_VARIABLE),
            "{error}"
        );
    }
}
