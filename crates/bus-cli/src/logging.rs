//! Logs, on stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::output;

/// What is logged unless `RUST_LOG` says otherwise. async-nats repeats as text what our client reports itself.
const DEFAULT_FILTER: &str = "info,async_nats=off";

/// The form of the logs on stderr: lines for people, or one JSON object per line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

static JSON: AtomicBool = AtomicBool::new(false);

/// Starts logging. What `RUST_LOG` says wins over the default filter.
pub(crate) fn start(format: LogFormat) {
    let named = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = named.as_deref().and_then(|text| EnvFilter::try_new(text).ok());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER)))
        .with_writer(|| Stderr);
    match format {
        LogFormat::Text => builder.with_ansi(is_styled()).init(),
        LogFormat::Json => {
            JSON.store(true, Ordering::Relaxed);
            builder.json().init();
        }
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
    let _ = writeln!(Stderr, "{line}");
}

fn is_styled() -> bool {
    io::stderr().is_terminal() && output::wants_colour()
}

/// Stderr, which first takes a live table on stdout out of the way.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        output::clear_live();
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
