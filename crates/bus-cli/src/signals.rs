//! The end of a long-running command: the first signal asks it to drain, the second ends it at once.

use std::io::{self, IsTerminal as _};

use tokio::sync::watch;

use crate::logging;

/// What the closing of the terminal, SIGHUP, means to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnHangup {
    /// To stop, unless the program was started with SIGHUP ignored, as `nohup` does.
    Stop,
    /// Something else, for which the command has a [`Hangup`].
    Other,
}

/// Tells when the program was asked to stop.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Starts listening. `at_once` is done before the second signal ends the program: what must not be left behind.
    ///
    /// Every signal counts that would otherwise end the program and can be caught: SIGINT, SIGTERM, SIGQUIT, SIGALRM,
    /// SIGUSR1, SIGUSR2, and SIGHUP where `hangup` says so.
    pub(crate) fn listen(hangup: OnHangup, at_once: impl FnOnce() + Send + 'static) -> anyhow::Result<Self> {
        let mut signals = Signals::new(hangup)?;
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
    fn new(hangup: OnHangup) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        use tokio::signal::unix::{SignalKind, signal};
        let mut kinds = vec![
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::quit(),
            SignalKind::alarm(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        if hangup == OnHangup::Stop && !ignores_hangup() {
            kinds.push(SignalKind::hangup());
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
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is signal 1, hence the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new(_: OnHangup) -> anyhow::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
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
