use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::{NamedTempFile, TempDir};

use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::log::{Log, Sink};

/// How long a server may take to be ready, to reload, and to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

const CONFIG_FILE: &str = "nats-server.conf";
const READY: &str = "Server is ready";
const LISTENING: &str = "Listening for client connections on ";
const RELOADED: &str = "Reloaded server configuration";
const RELOAD_FAILED: &str = "Failed to reload server configuration";

/// How a server is started: which program, and where its configuration and log lines go.
///
/// ```no_run
/// use bus_natsd::{Launch, ServerConfig};
///
/// # fn example(config: ServerConfig) -> Result<(), bus_natsd::ServerError> {
/// let server = Launch::new(bus_natsd::find_server()?)
///     .directory("/run/bus")
///     .on_log(|line| eprintln!("{line}"))
///     .start(config)?;
/// # Ok(()) }
/// ```
#[must_use = "nothing runs before `start`"]
pub struct Launch {
    program: PathBuf,
    directory: Option<PathBuf>,
    sink: Option<Sink>,
}

impl Launch {
    /// A launch of this nats-server, with its configuration in a private temporary directory.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), directory: None, sink: None }
    }

    /// Writes the configuration to `nats-server.conf` in this directory, which must exist, and leaves it there.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Gives every line of the server's log to `sink`, from another thread, as it arrives.
    pub fn on_log(mut self, sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.sink = Some(Arc::new(sink));
        self
    }

    /// Starts the server and waits until it is ready for clients, at most ten seconds.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be rendered or written, or the server does not start: with its own reason.
    pub fn start(self, config: ServerConfig) -> Result<NatsServer, ServerError> {
        let home = match self.directory {
            Some(directory) => Home::Given(directory),
            None => Home::Temporary(private_directory()?),
        };
        let mut server = NatsServer {
            program: self.program,
            home,
            address: SocketAddr::new(config.host, config.port),
            config,
            log: Log::new(self.sink),
            child: None,
        };
        server.launch()?;
        Ok(server)
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// A running nats-server. It is killed when this value is dropped; [`stop`](Self::stop) ends it cleanly.
///
/// The server is a child in the caller's process group, so an interrupt from the terminal reaches both.
pub struct NatsServer {
    program: PathBuf,
    home: Home,
    config: ServerConfig,
    /// Where it listens; the port is known once it has started.
    address: SocketAddr,
    log: Log,
    /// `None` when it is not running.
    child: Option<Child>,
}

enum Home {
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

    fn apply(&self) -> Result<(), ServerError> {
        let position = self.log.position();
        self.signal(Signal::Reload)?;
        let answered = |line: &str| line.contains(RELOADED) || line.contains(RELOAD_FAILED);
        match self.log.wait(position, answered, PATIENCE) {
            Some(line) if line.contains(RELOADED) => Ok(()),
            Some(line) => Err(ServerError::Refused { reason: line }),
            None => Err(self.timeout("reloaded")),
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
        let mut child = Command::new(&self.program)
            .arg("-c")
            .arg(self.home.path().join(CONFIG_FILE))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ServerError::io(format!("run {}", self.program.display())))?;
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
                false => self.timeout("ready"),
            });
        }
        let listening = self.log.wait(position, |line| line.contains(LISTENING), Duration::ZERO);
        let port = listening.as_deref().and_then(|line| line.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
        self.address.set_port(port.ok_or_else(|| self.timeout("listening"))?);
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

    fn timeout(&self, what: &'static str) -> ServerError {
        ServerError::Timeout { what, waited: PATIENCE, log: self.log.tail() }
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
fn private_directory() -> Result<TempDir, ServerError> {
    tempfile::Builder::new().prefix("bus-natsd-").tempdir().map_err(ServerError::io("create a temporary directory"))
}

#[derive(Clone, Copy)]
enum Signal {
    Reload,
    Terminate,
}

#[cfg(unix)]
fn send(child: &Child, signal: Signal) -> Result<(), ServerError> {
    use rustix::process::{Pid, Signal as Native, kill_process};
    let native = match signal {
        Signal::Reload => Native::HUP,
        Signal::Terminate => Native::TERM,
    };
    kill_process(Pid::from_child(child), native).map_err(|error| ServerError::io("signal nats-server")(error.into()))
}

#[cfg(not(unix))]
fn send(_: &Child, signal: Signal) -> Result<(), ServerError> {
    match signal {
        Signal::Reload | Signal::Terminate => Err(ServerError::Unsupported),
    }
}
