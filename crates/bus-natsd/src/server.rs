use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::{NamedTempFile, TempDir};

use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::launch::Launch;
use crate::log::Log;
use crate::signal::{Signal, send};

/// How long a server may take to be ready, to reload, and to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

const CONFIG_FILE: &str = "nats-server.conf";
const READY: &str = "Server is ready";
const LISTENING: &str = "Listening for client connections on ";
const RELOADED: &str = "Reloaded server configuration";
const RELOAD_FAILED: &str = "Failed to reload server configuration";
const LAME_DUCK: &str = "Entering lame duck mode";

/// A running nats-server. It is killed when this value is dropped; [`stop`](Self::stop) ends it cleanly.
///
/// The server is a child in the caller's process group, so an interrupt from the terminal reaches both, unless it was started
/// [`apart`](Launch::apart).
pub struct NatsServer {
    program: PathBuf,
    home: Home,
    config: ServerConfig,
    /// Where it listens; the port is known once it has started.
    address: SocketAddr,
    log: Log,
    is_apart: bool,
    /// `None` when it is not running.
    child: Option<Child>,
}

/// Where a server's configuration is.
pub(crate) enum Home {
    Given(PathBuf),
    /// Removed when the server's value goes.
    Temporary(TempDir),
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

impl NatsServer {
    /// Starts this nats-server with this configuration and waits until it is ready for clients, at most ten seconds.
    ///
    /// # Errors
    ///
    /// As for [`Launch::start`].
    pub fn start(program: impl Into<PathBuf>, config: ServerConfig) -> Result<Self, ServerError> {
        Launch::new(program).start(config)
    }

    /// Starts a server, and waits until it is ready.
    pub(crate) fn launched(
        program: PathBuf,
        home: Home,
        config: ServerConfig,
        log: Log,
        is_apart: bool,
    ) -> Result<Self, ServerError> {
        let address = SocketAddr::new(config.host, config.port);
        let mut server = Self { program, home, address, config, log, is_apart, child: None };
        server.launch()?;
        Ok(server)
    }

    /// The address that clients on this machine dial, such as `tls://127.0.0.1:4222`.
    #[must_use]
    pub fn url(&self) -> String {
        let host = match self.address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            host => host,
        };
        format!("tls://{}", SocketAddr::new(host, self.port()))
    }

    /// The port that it listens on. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The configuration that it was last given.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The process id, as long as it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The first line of its log, from the beginning, that fits; waits for it at most for `timeout`.
    ///
    /// `None` when the time is over, or the server has ended, without such a line.
    pub fn wait_for_log(&self, fits: impl Fn(&str) -> bool, timeout: Duration) -> Option<String> {
        self.wait_for_log_after(0, fits, timeout)
    }

    /// Like [`wait_for_log`](Self::wait_for_log), but only lines after `position` count, which
    /// [`log_position`](Self::log_position) gave before.
    pub fn wait_for_log_after(
        &self,
        position: usize,
        fits: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Option<String> {
        self.log.wait(position, fits, timeout)
    }

    /// How many lines it has logged so far.
    #[must_use]
    pub fn log_position(&self) -> usize {
        self.log.position()
    }

    /// The lines of its log, over all restarts; at most the last 100,000.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Gives the running server another configuration, and waits until it is in force, at most ten seconds.
    ///
    /// A component that is no longer listed is disconnected. The connections of others stay, and changed permissions
    /// apply to them at once. Port 0 means the port that the server has.
    ///
    /// # Errors
    ///
    /// When the server is not running, the configuration cannot be rendered or written, or the server refuses it: with
    /// its own reason, and the previous configuration stays in force.
    pub fn reload(&mut self, config: ServerConfig) -> Result<(), ServerError> {
        if !self.is_running() {
            return Err(ServerError::NotRunning);
        }
        let previous = std::mem::replace(&mut self.config, config);
        let outcome = self.write_config().and_then(|()| self.apply());
        if outcome.is_err() {
            self.config = previous;
            // The refused file must not be what a restart reads.
            self.write_config()?;
        }
        outcome
    }

    /// As [`reload`](Self::reload) if it runs; else the next start uses the configuration.
    pub(crate) fn reconfigure(&mut self, config: ServerConfig) -> Result<(), ServerError> {
        if self.is_running() {
            return self.reload(config);
        }
        config.render()?;
        self.config = config;
        Ok(())
    }

    fn apply(&self) -> Result<(), ServerError> {
        let position = self.log.position();
        self.signal(Signal::Reload)?;
        let answered = |line: &str| line.contains(RELOADED) || line.contains(RELOAD_FAILED);
        match self.log.wait(position, answered, PATIENCE) {
            Some(line) if line.contains(RELOADED) => Ok(()),
            Some(line) => Err(ServerError::Refused { reason: line }),
            None => Err(self.late("reloaded")),
        }
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it cleanly: clients are disconnected and streams are written out. After ten seconds it is killed.
    ///
    /// A server that has ended already is no error.
    ///
    /// # Errors
    ///
    /// When the process cannot be waited for.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        let begun = Instant::now();
        let mut asked = 0;
        while self.is_running() && begun.elapsed() < PATIENCE {
            // Asked again each second: nats-server loses a signal that arrives while it handles two others.
            if begun.elapsed().as_secs() >= asked {
                asked += 1;
                if self.signal(Signal::Terminate).is_err() {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill()
    }

    /// Ends it at once, as a crash would (SIGKILL).
    ///
    /// A server that has ended already is no error.
    ///
    /// # Errors
    ///
    /// When the process cannot be killed or waited for.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        if let Some(mut child) = self.child.take() {
            child.kill().map_err(ServerError::io("kill nats-server"))?;
            child.wait().map_err(ServerError::io("wait for nats-server"))?;
            self.log.wait_for_end(PATIENCE);
        }
        Ok(())
    }

    /// Puts it into lame duck mode, and returns once it is: it takes no more clients, hands its streams' leadership over, tells
    /// its clients, and ends by itself when they have gone or its times are over. [`wait_for_end`](Self::wait_for_end) waits
    /// for that.
    ///
    /// # Errors
    ///
    /// When it is not running, cannot be told, or does not say within ten seconds that it was.
    pub fn lame_duck(&mut self) -> Result<(), ServerError> {
        if !self.is_running() {
            return Err(ServerError::NotRunning);
        }
        let position = self.log.position();
        self.begin_lame_duck()?;
        match self.log.wait(position, |line| line.contains(LAME_DUCK), PATIENCE) {
            Some(_) => Ok(()),
            None => Err(self.late("in lame duck mode")),
        }
    }

    /// Tells it to be a lame duck, and does not wait.
    pub(crate) fn begin_lame_duck(&self) -> Result<(), ServerError> {
        self.signal(Signal::LameDuck)
    }

    /// Waits until it has ended by itself, at most for `timeout`. Says whether it has.
    ///
    /// # Errors
    ///
    /// When the process cannot be waited for.
    pub fn wait_for_end(&mut self, timeout: Duration) -> Result<bool, ServerError> {
        self.log.wait_for_end(timeout);
        if !self.log.has_ended() {
            return Ok(false);
        }
        // It has closed its output, which is among the last things that a process does.
        if let Some(mut child) = self.child.take() {
            child.wait().map_err(ServerError::io("wait for nats-server"))?;
        }
        Ok(true)
    }

    /// Has it stand still (SIGSTOP): its connections stay, and nothing is answered, until [`resume`](Self::resume).
    ///
    /// A server that stands still cannot be stopped cleanly. It can be killed.
    ///
    /// # Errors
    ///
    /// When it is not running or cannot be told.
    pub fn pause(&self) -> Result<(), ServerError> {
        self.signal(Signal::Pause)
    }

    /// Has it go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it is not running or cannot be told.
    pub fn resume(&self) -> Result<(), ServerError> {
        self.signal(Signal::Resume)
    }

    /// Starts it again with the same configuration on the same port, after a clean stop if it still runs.
    ///
    /// # Errors
    ///
    /// As for [`Launch::start`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.stop()?;
        self.launch()
    }

    fn launch(&mut self) -> Result<(), ServerError> {
        self.write_config()?;
        let position = self.log.position();
        let mut command = Command::new(&self.program);
        command
            .arg("-c")
            .arg(self.home.path().join(CONFIG_FILE))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[cfg(unix)]
        if self.is_apart {
            use std::os::unix::process::CommandExt;
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(ServerError::io(format!("run {}", self.program.display())))?;
        if let Some(stdout) = child.stdout.take() {
            self.log.follow(stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            self.log.follow(stderr);
        }
        self.child = Some(child);
        let outcome = self.await_readiness(position);
        if outcome.is_err() {
            self.kill()?;
        }
        outcome
    }

    fn await_readiness(&mut self, position: usize) -> Result<(), ServerError> {
        if self.log.wait(position, |line| line.contains(READY), PATIENCE).is_none() {
            return Err(match self.log.has_ended() {
                true => ServerError::Ended { log: self.log.tail() },
                false => self.late("ready"),
            });
        }
        let listening = self.log.wait(position, |line| line.contains(LISTENING), Duration::ZERO);
        let port = listening.as_deref().and_then(|line| line.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
        self.address.set_port(port.ok_or_else(|| self.late("listening"))?);
        Ok(())
    }

    /// Replaces the file in one step, so that the server never reads half of one.
    fn write_config(&self) -> Result<(), ServerError> {
        let directory = self.home.path();
        let mut config = self.config.clone();
        if config.port == 0 {
            config.port = self.address.port();
        }
        let text = config.render()?;
        let what = || format!("write {}", directory.join(CONFIG_FILE).display());
        let mut file = NamedTempFile::new_in(directory).map_err(ServerError::io(what()))?;
        file.write_all(text.as_bytes()).map_err(ServerError::io(what()))?;
        file.persist(directory.join(CONFIG_FILE)).map(drop).map_err(|error| ServerError::io(what())(error.error))
    }

    fn signal(&self, signal: Signal) -> Result<(), ServerError> {
        match &self.child {
            Some(child) => send(child, signal),
            None => Err(ServerError::NotRunning),
        }
    }

    fn late(&self, what: &'static str) -> ServerError {
        self.timeout(what, PATIENCE)
    }

    pub(crate) fn timeout(&self, what: &'static str, waited: Duration) -> ServerError {
        ServerError::Timeout { what, waited, log: self.log.tail() }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // Nobody is left to hear about a failure.
        let _ = self.kill();
    }
}

impl fmt::Debug for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsServer")
            .field("program", &self.program)
            .field("address", &self.address)
            .field("is_apart", &self.is_apart)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Lets this nats-server check a configuration, certificates included, without running it (`nats-server -t`).
///
/// # Errors
///
/// When it cannot be rendered, or the server refuses it: with its own reason.
pub fn check_config(program: &Path, config: &ServerConfig) -> Result<(), ServerError> {
    let text = config.render()?;
    let directory = private_directory()?;
    let file = directory.path().join(CONFIG_FILE);
    fs::write(&file, text).map_err(ServerError::io(format!("write {}", file.display())))?;
    let output = Command::new(program)
        .arg("-t")
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .map_err(ServerError::io(format!("run {}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::Refused { reason: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// A directory that only this user can read.
pub(crate) fn private_directory() -> Result<TempDir, ServerError> {
    tempfile::Builder::new().prefix("bus-natsd-").tempdir().map_err(ServerError::io("create a temporary directory"))
}
