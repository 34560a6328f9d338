//! How a server is started.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::log::{Log, Sink};
use crate::server::{Home, NatsServer, private_directory};

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
    is_apart: bool,
}

impl Launch {
    /// A launch of this nats-server, with its configuration in a private temporary directory.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), directory: None, sink: None, is_apart: false }
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

    /// Keeps the server out of the caller's process group, so that an interrupt from the terminal reaches the caller alone,
    /// who then ends the server as it sees fit. On Unix; elsewhere it changes nothing.
    pub fn apart(mut self) -> Self {
        self.is_apart = true;
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
        NatsServer::launched(self.program, home, config, Log::new(self.sink), self.is_apart)
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("directory", &self.directory)
            .field("is_apart", &self.is_apart)
            .finish_non_exhaustive()
    }
}
