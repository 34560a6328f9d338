//! A user's desk: a folder, the program under test, and the processes started there.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bus_tests::deployment::pinned_server;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub(crate) fn bus_program() -> PathBuf {
    if let Some(path) = std::env::var_os("BUS_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("the path of this program");
    own.ancestors()
        .map(|folder| folder.join("bus"))
        .find(|program| program.is_file())
        .expect("there is no `bus` beside this suite: run `cargo build -p bus-cli`, or `cargo xtask test`")
}

/// A folder to work in, with an authority and some components in `pki`.
pub(crate) struct Desk {
    folder: TempDir,
}

impl Desk {
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With an authority, a broker, and these components.
    pub(crate) fn with(components: &[&str]) -> Self {
        let desk = Self::empty();
        desk.done("pki init --trust-domain ransomeye.test");
        desk.done("pki issue broker/nats-1 --host localhost --host 127.0.0.1");
        for component in components {
            desk.done(&format!("pki issue {component}"));
        }
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The program with these arguments, in this folder, and with nothing of our own environment that it listens to.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(bus_program());
        command.current_dir(self.folder.path()).args(arguments.split_whitespace()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("RANSOMEYE_") || name.starts_with("BUS_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.env("BUS_NATS_SERVER", pinned_server());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Finished {
        Finished::of(self.command(arguments).output().unwrap(), arguments)
    }

    /// Runs it, and expects it to succeed.
    pub(crate) fn done(&self, arguments: &str) -> Finished {
        self.run(arguments).exits_with(0)
    }

    pub(crate) fn start(&self, arguments: &str) -> Process {
        Process::start(self.command(arguments), arguments)
    }

    /// Starts a server for all components of the authority, and returns it and its address.
    pub(crate) fn serve(&self) -> (Process, String) {
        let mut server = self.start("server run --from-pki pki --port 0 --json");
        let ready = server.event("ready");
        (server, ready["url"].as_str().unwrap().to_owned())
    }
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    arguments: String,
    code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn of(output: Output, arguments: &str) -> Self {
        Self {
            arguments: arguments.to_owned(),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "`bus {}`: {self:#?}", self.arguments);
        self
    }

    /// Checks that stderr says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// What a program has said on stderr so far.
#[derive(Default)]
pub(crate) struct Log {
    text: Mutex<String>,
    news: Condvar,
}

/// A running program. It is killed when this value goes, whatever happens to the test.
pub(crate) struct Process {
    arguments: String,
    pub(crate) child: Child,
    lines: Receiver<String>,
    stderr: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(command: Command, arguments: &str) -> Self {
        Self::start_with_stderr(command, arguments, Stdio::piped())
    }

    /// Gives it this stderr. What it says there is known only where that is a pipe of ours.
    pub(crate) fn start_with_stderr(mut command: Command, arguments: &str, stderr: Stdio) -> Self {
        command.stderr(stderr);
        let (mut process, stdout) = Self::spawn(command, arguments);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        process.lines = lines;
        process
    }

    /// Leaves stdout to the caller.
    pub(crate) fn start_unread(mut command: Command, arguments: &str) -> (Self, ChildStdout) {
        command.stderr(Stdio::piped());
        Self::spawn(command, arguments)
    }

    fn spawn(mut command: Command, arguments: &str) -> (Self, ChildStdout) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let stderr = Arc::<Log>::default();
        let log = Arc::clone(&stderr);
        let reader = child.stderr.take().map(|mut errors| {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = errors.read(&mut buffer) {
                    log.text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
                    log.news.notify_all();
                }
            })
        });
        let (_, lines) = channel();
        (Self { arguments: arguments.to_owned(), child, lines, stderr, reader }, stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text.lock().unwrap().clone()
    }

    /// The next line on stdout, or `None` at its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("`bus {}` says nothing; stderr: {}", self.arguments, self.stderr())
            }
        }
    }

    /// The next JSON line with this `event`.
    #[track_caller]
    pub(crate) fn event(&mut self, name: &str) -> Value {
        while let Some(line) = self.line() {
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
            if value["event"] == name {
                return value;
            }
        }
        panic!("`bus {}` ended without the event {name}; stderr: {}", self.arguments, self.stderr());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and expects this exit code.
    #[track_caller]
    pub(crate) fn ends_with(&mut self, code: i32) {
        let deadline = Instant::now() + PATIENCE;
        while self.line().is_some() {
            assert!(Instant::now() < deadline, "`bus {}` does not end; stderr: {}", self.arguments, self.stderr());
        }
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        assert_eq!(status.code(), Some(code), "`bus {}`: {status}; stderr: {}", self.arguments, self.stderr());
    }

    /// Waits until stderr says this.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let log = self.stderr.text.lock().unwrap();
        let (log, wait) = self.stderr.news.wait_timeout_while(log, PATIENCE, |log| !log.contains(text)).unwrap();
        assert!(!wait.timed_out(), "no {text:?} on stderr: {log}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first, so that an agent's children and a server's nats-server end with it; killed if it does not listen.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state of a process as `/proc` tells it, `None` when it is gone.
pub(crate) fn process_state(pid: u64) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
}

/// An address at which nobody listens.
pub(crate) fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tls://{}", listener.local_addr().unwrap())
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
