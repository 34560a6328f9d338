//! Logs, on stderr.
//!
//! A thread of its own writes them, so that a stderr which nobody reads holds nothing up and breaks nothing: what it does
//! not take is lost, and the program goes on.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::{escape, output};

/// What is logged unless `RUST_LOG` says otherwise. async-nats repeats as text what our client reports itself.
const DEFAULT_FILTER: &str = "info,async_nats=off";

/// The form of the logs on stderr: lines for people, or one JSON object per line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// How many lines may wait for stderr. Further ones are lost.
const QUEUE: usize = 4096;

/// How long the end of the program waits for stderr to take the last lines.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(1);

static JSON: AtomicBool = AtomicBool::new(false);
static WRITER: OnceLock<SyncSender<Order>> = OnceLock::new();

/// What the writing thread is told.
enum Order {
    Write(Vec<u8>),
    /// Answer when everything before this is written.
    Tell(SyncSender<()>),
}

/// Starts logging. What `RUST_LOG` says wins over the default filter.
pub(crate) fn start(format: LogFormat) {
    let (sender, orders) = sync_channel(QUEUE);
    std::thread::spawn(move || write_all(&orders));
    // Only the first call counts, as there is one stderr.
    let _ = WRITER.set(sender);
    let named = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (filter, wrong) = match named.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (Some(filter), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER)))
        // It would say on stderr that stderr is not writable, and panic.
        .log_internal_errors(false)
        .with_writer(|| Stderr);
    match format {
        LogFormat::Text => builder.with_ansi(is_styled()).init(),
        LogFormat::Json => {
            JSON.store(true, Ordering::Relaxed);
            builder.json().init();
        }
    }
    if let Some(error) = wrong {
        tracing::warn!("RUST_LOG is ignored: {error}");
    }
}

/// Says what ended the program, in the form of the other logs, whatever the filter is.
pub(crate) fn fatal(message: &str, exit_code: u8) {
    let line = if JSON.load(Ordering::Relaxed) {
        serde_json::json!({ "level": "ERROR", "error": message, "exit_code": exit_code }).to_string()
    } else if is_styled() {
        format!("\u{1b}[1;31merror:\u{1b}[0m {message}")
    } else {
        format!("error: {message}")
    };
    // Where nobody reads stderr, the exit code must do.
    let _ = Stderr.write_all(format!("{line}\n").as_bytes());
}

fn is_styled() -> bool {
    io::stderr().is_terminal() && output::wants_colour()
}

/// Waits until stderr has taken what was logged, at most [`LAST_LINES_LIMIT`]. To be called before the program ends.
pub(crate) fn finish() {
    let (tell, told) = sync_channel(1);
    if let Some(writer) = WRITER.get()
        && writer.try_send(Order::Tell(tell)).is_ok()
    {
        // Whether it took too long or the writer is gone, there is nothing more to do.
        let _ = told.recv_timeout(LAST_LINES_LIMIT);
    }
}

fn write_all(orders: &Receiver<Order>) {
    for order in orders {
        match order {
            Order::Write(bytes) => {
                output::clear_live();
                // There is no other place where a failure could be told.
                let _ = io::stderr().write_all(&bytes);
            }
            Order::Tell(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// The way to stderr, which never fails or waits. Each line is one write.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(writer) = WRITER.get() {
            let bytes = match std::str::from_utf8(bytes) {
                Ok(text) if JSON.load(Ordering::Relaxed) => escape::json(text).into_owned().into_bytes(),
                _ => bytes.to_vec(),
            };
            let _ = writer.try_send(Order::Write(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
