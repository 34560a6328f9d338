//! What signals ask of a long-running command. The first that asks it to stop has it drain, the second ends it at once.

use std::io::{self, IsTerminal as _};

use tokio::sync::watch;

use crate::logging;

/// What kind of program it is, to which some signals mean something of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A component of the bus. The closing of its terminal, SIGHUP, stops it, unless it was started with SIGHUP ignored, as
    /// `nohup` does. SIGUSR1 has it sign with a new key, see [`Rotation`].
    Component,
    /// A server, to which SIGHUP means something else, see [`Hangup`].
    Server,
}

/// Tells when the program was asked to stop.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Starts listening. `at_once` is done before the second signal ends the program: what must not be left behind.
    ///
    /// Every signal counts that would otherwise end the program and can be caught: SIGINT, SIGTERM, SIGQUIT, SIGALRM,
    /// SIGUSR2, and of SIGHUP and SIGUSR1 the one that means nothing else to this kind of program.
    pub(crate) fn listen(kind: Kind, at_once: impl FnOnce() + Send + 'static) -> anyhow::Result<Self> {
        let mut signals = Signals::new(kind)?;
        let (asked, stop) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            asked.send_replace(true);
            tracing::info!("stopping; signal again to stop at once");
            signals.next().await;
            at_once();
            logging::finish();
            std::process::exit(1);
        });
        Ok(Self(stop))
    }

    /// Completes when the program was asked to stop.
    pub(crate) async fn requested(&mut self) {
        // The sender lives as long as the program.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}

#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn new(kind: Kind) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        use tokio::signal::unix::{SignalKind, signal};
        let mut kinds = vec![
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::quit(),
            SignalKind::alarm(),
            SignalKind::user_defined2(),
        ];
        match kind {
            Kind::Server => kinds.push(SignalKind::user_defined1()),
            Kind::Component if ignores_hangup() => {}
            Kind::Component => kinds.push(SignalKind::hangup()),
        }
        kinds.into_iter().map(signal).collect::<Result<_, _>>().map(Self).context("cannot listen for signals")
    }

    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let mut arrived = self.0.iter_mut().map(|signal| signal.poll_recv(context));
            if arrived.any(|poll| poll.is_ready()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

/// Whether the program was started with SIGHUP ignored. Only Linux tells; elsewhere the answer is no.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // The number of SIGHUP everywhere.
    is_in_mask(&status, "SigIgn:", 1)
}

/// Whether a signal is in this set of those that `/proc/PID/status` tells.
#[cfg(unix)]
pub(crate) fn is_in_mask(status: &str, set: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(set));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signals count from 1, bits from 0.
    let bit = signal.checked_sub(1).and_then(|bit| 1_u64.checked_shl(bit)).unwrap_or(0);
    mask.is_some_and(|mask| mask & bit != 0)
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new(_: Kind) -> anyhow::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells when SIGUSR1 arrived, which asks a component to sign with a new key. Elsewhere than on Unix it never does.
pub(crate) struct Rotation {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Rotation {
    /// Starts listening.
    #[cfg(unix)]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use anyhow::Context as _;
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { signal: signal(SignalKind::user_defined1()).context("cannot listen for signals")? })
    }

    /// Starts listening.
    #[cfg(not(unix))]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Completes when a new key is asked for.
    pub(crate) async fn requested(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Tells when SIGHUP arrived. Elsewhere than on Unix it never does.
pub(crate) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
    terminals: [bool; 3],
}

impl Hangup {
    /// Starts listening.
    #[cfg(unix)]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use anyhow::Context as _;
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        Ok(Self { signal, terminals: terminals() })
    }

    /// Starts listening.
    #[cfg(not(unix))]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminals: terminals() })
    }

    /// Completes at the next SIGHUP.
    pub(crate) async fn received(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Whether the terminal that the program was started from has gone, which SIGHUP then was about.
    pub(crate) fn is_of_terminal(&self) -> bool {
        self.terminals.iter().zip(terminals()).any(|(before, now)| *before && !now)
    }
}

/// Which of stdin, stdout and stderr are terminals. One that was hung up is none.
fn terminals() -> [bool; 3] {
    [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()]
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_found_in_its_set() {
        let status = "Name:\tbus\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000a01\n";
        assert!([1, 10, 12].iter().all(|signal| is_in_mask(status, "SigCgt:", *signal)));
        assert!([0, 2, 65].iter().all(|signal| !is_in_mask(status, "SigCgt:", *signal)));
        assert!(!is_in_mask(status, "SigIgn:", 1));
        assert!(is_in_mask(status, "SigIgn:", 13) && !is_in_mask(status, "SigBlk:", 13));
    }
}
