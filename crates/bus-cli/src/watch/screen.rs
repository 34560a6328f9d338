//! The table.

#[cfg(unix)]
use std::io;

use comfy_table::CellAlignment;

use super::fleet::{Component, Fleet};
use crate::output::table;
use crate::payload::plain;
use crate::values::span;

/// Lines of the table that are no component: two rules, the header, the line below, the counts, and the cursor's.
const FRAME: usize = 7;

/// The table, cut to what the terminal can show.
pub(super) fn live(fleet: &Fleet) -> String {
    draw(fleet, terminal_rows().saturating_sub(FRAME).max(1))
}

/// The whole table.
pub(super) fn whole(fleet: &Fleet) -> String {
    draw(fleet, usize::MAX)
}

fn draw(fleet: &Fleet, rows: usize) -> String {
    let mut table = table([
        "component",
        "cpu %",
        "ram %",
        "heartbeat",
        "uptime",
        "version",
        "messages",
        "alerts",
        "missed",
        "rejected",
    ]);
    for (endpoint, component) in fleet.components().take(rows) {
        table.add_row(row(endpoint.to_string(), component));
    }
    for number in [1, 2, 4, 6, 7, 8, 9] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let hidden = fleet.components().len().saturating_sub(rows);
    let more = if hidden > 0 { format!("… and {hidden} more\n") } else { String::new() };
    format!(
        "{table}\n{more}{} components, {} messages, {} missed, {} rejected",
        fleet.components().len(),
        fleet.total(),
        fleet.missed(),
        fleet.rejected()
    )
}

fn row(name: String, component: &Component) -> [String; 10] {
    let percent = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
    let heartbeat = component.last_heartbeat.map(|at| format!("{} ago", span(at.elapsed().as_secs())));
    let missing = || "–".to_owned();
    [
        name,
        percent(component.cpu),
        percent(component.ram),
        heartbeat.unwrap_or_else(missing),
        component.uptime.map_or_else(missing, span),
        component.version.as_deref().map_or_else(missing, plain),
        component.messages.to_string(),
        component.alerts.to_string(),
        component.missed.to_string(),
        component.rejected.to_string(),
    ]
}

#[cfg(unix)]
fn terminal_rows() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row))
}

#[cfg(not(unix))]
fn terminal_rows() -> usize {
    24
}
