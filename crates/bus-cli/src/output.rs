//! Data, on stdout: text for people, or JSON with `--json`.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::Value;

use crate::escape;

/// How many lines the live table on the terminal has now.
static LIVE_LINES: AtomicUsize = AtomicUsize::new(0);

/// Where a command's data goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a person sees this on a terminal, so that it may be redrawn.
    pub(crate) fn is_live(self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Writes one record: its text for people, or as JSON on one line. Each is made only when it is needed.
    ///
    /// An error is that of stdout; one that says that the reader has gone ends the program quietly.
    pub(crate) fn record(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> io::Result<()> {
        let line = if self.json { escape::json(&json().to_string()).into_owned() } else { text() };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", line.trim_end_matches('\n'))?;
        stdout.flush()
    }

    /// Writes a record that only readers of JSON get.
    pub(crate) fn event(self, json: impl FnOnce() -> Value) -> io::Result<()> {
        if self.json { self.record(String::new, json) } else { Ok(()) }
    }

    /// The text in green or red, where colours are wanted.
    pub(crate) fn verdict(self, good: bool, text: &str) -> String {
        if self.is_live() && wants_colour() {
            let colour = if good { 32 } else { 31 };
            format!("\u{1b}[1;{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether the user wants colours at all (<https://no-color.org>).
pub(crate) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Draws `text` in the place of what was drawn so before.
pub(crate) fn draw_live(text: &str) -> io::Result<()> {
    clear_live();
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    LIVE_LINES.store(text.lines().count(), Ordering::Relaxed);
    stdout.flush()
}

/// Takes the live drawing off the terminal, so that something else can be written there.
pub(crate) fn clear_live() {
    let lines = LIVE_LINES.swap(0, Ordering::Relaxed);
    if lines > 0 {
        let mut stdout = io::stdout().lock();
        // To the start of the drawing's first line, and clear from there (ECMA-48: CPL, ED). A terminal that has gone
        // shows in the next write of data.
        let _ = write!(stdout, "\u{1b}[{lines}F\u{1b}[J").and_then(|()| stdout.flush());
    }
}

/// An empty table as all tables of this program look.
pub(crate) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
    let style = TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);
    let mut table = Table::new();
    table
        .load_style(style)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.into_iter().collect::<Vec<_>>());
    table
}
