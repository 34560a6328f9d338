//! Child processes that are ended with all that they started, and the signals that ask for that.

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

/// A flag that Ctrl-C, SIGTERM and the end of the terminal set from now on, instead of ending this program.
pub fn watch_for_interrupt() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let interrupted = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    let of_the_terminal = [signal_hook::consts::SIGHUP, signal_hook::consts::SIGQUIT];
    #[cfg(not(unix))]
    let of_the_terminal = [];
    for signal in [SIGINT, SIGTERM].into_iter().chain(of_the_terminal) {
        signal_hook::flag::register(signal, interrupted.clone()).context("cannot watch for interrupts")?;
    }
    Ok(interrupted)
}

/// A process group of its own, so that the child can be ended with all that it started. What the terminal sends then
/// reaches this program alone, which passes it on.
#[cfg(unix)]
pub fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
pub fn own_group(_: &mut Command) {}

/// Kills what is left of the group of a child that was started with [`own_group`], whether or not the child itself has
/// ended, and waits for the child.
#[cfg(unix)]
pub fn kill_group(child: &mut Child) -> Result<()> {
    use rustix::io::Errno;
    use rustix::process::{Pid, Signal, kill_process_group};
    match kill_process_group(Pid::from_child(child), Signal::KILL) {
        // The group ended by itself.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error).context("cannot kill a process group"),
    }
    child.wait().context("cannot wait for a child process")?;
    Ok(())
}

#[cfg(not(unix))]
pub fn kill_group(child: &mut Child) -> Result<()> {
    child.kill().context("cannot kill a child process")?;
    child.wait().context("cannot wait for a child process")?;
    Ok(())
}

/// Asks a child to end, as a service manager would.
#[cfg(unix)]
pub fn terminate(child: &mut Child) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    Ok(kill_process(Pid::from_child(child), Signal::TERM)?)
}

#[cfg(not(unix))]
pub fn terminate(child: &mut Child) -> Result<()> {
    Ok(child.kill()?)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Stdio;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn the_end_of_the_terminal_is_an_interrupt() {
        let interrupted = watch_for_interrupt().unwrap();
        // A signal that a thread raises for itself is handled before this returns.
        signal_hook::low_level::raise(signal_hook::consts::SIGHUP).unwrap();
        assert!(interrupted.load(Ordering::Relaxed));
    }

    #[test]
    fn what_a_child_left_behind_is_killed_with_its_group() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 &"]).stdout(Stdio::piped());
        own_group(&mut command);
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        assert!(child.wait().unwrap().success());
        kill_group(&mut child).unwrap();
        // The output ends only when the grandchild, which holds it open, is gone.
        assert_eq!(output.read(&mut [0; 1]).unwrap(), 0);
        kill_group(&mut child).unwrap();
    }
}
