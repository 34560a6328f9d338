//! The table.

#[cfg(unix)]
use std::io;

use comfy_table::{CellAlignment, ContentArrangement};

use super::fleet::{Component, Fleet};
use crate::output::table;
use crate::values::{counted, span};

/// Lines of the table that are no component: two rules, the header, the line below, the counts, and the cursor's.
const FRAME: usize = 6;

/// What a terminal that does not tell its size is taken to have.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// The longest version that is shown; the rest of it is cut off.
const VERSION_LENGTH: usize = 16;

const HEADER: [&str; 11] = [
    "component",
    "cpu %",
    "ram %",
    "heartbeat",
    "uptime",
    "version",
    "messages",
    "sealed",
    "alerts",
    "missed",
    "rejected",
];

/// Which columns hold figures.
const FIGURES: [usize; 8] = [1, 2, 4, 6, 7, 8, 9, 10];

/// Columns in the order in which they are left out where the terminal is too narrow.
const DISPENSABLE: [usize; 9] = [5, 4, 7, 10, 9, 8, 6, 3, 2];

/// How much text fits, in characters.
#[derive(Debug, Clone, Copy)]
struct Size {
    columns: usize,
    rows: usize,
}

/// The table, cut to what the terminal can show.
pub(super) fn live(fleet: &Fleet) -> String {
    draw(fleet, terminal().unwrap_or(USUAL))
}

/// The table with all its rows, no wider than the terminal if there is one.
pub(super) fn whole(fleet: &Fleet) -> String {
    draw(fleet, Size { columns: terminal().map_or(usize::MAX, |size| size.columns), rows: usize::MAX })
}

/// No line of it is wider than the columns, so that a terminal wraps none, and the cursor has a line of its own below.
fn draw(fleet: &Fleet, size: Size) -> String {
    let count = fleet.components().len();
    let room = size.rows.saturating_sub(FRAME);
    // Where not all fit, one line says so.
    let shown = if count > room { room.saturating_sub(1) } else { count };
    let rows: Vec<_> =
        fleet.components().take(shown).map(|(endpoint, component)| row(endpoint.to_string(), component)).collect();
    let mut lines = fitting_table(&rows, size.columns);
    if shown < count {
        lines.push(format!("… and {} more", count - shown));
    }
    lines.push(format!(
        "{}, {}, {} missed, {} rejected",
        counted(count as u64, "component"),
        counted(fleet.total(), "message"),
        fleet.missed(),
        fleet.rejected()
    ));
    // In a window that is too low for the frame alone, the counts are what is left.
    let surplus = lines.len().saturating_sub(size.rows.saturating_sub(1).max(1));
    lines.drain(..surplus);
    lines.iter().map(|line| cut(line, size.columns)).collect::<Vec<_>>().join("\n")
}

/// The table's lines, with as many columns as fit.
fn fitting_table(rows: &[[String; 11]], width: usize) -> Vec<String> {
    let mut columns: Vec<usize> = (0..HEADER.len()).collect();
    let mut dispensable = DISPENSABLE.iter();
    loop {
        let lines = table_of(rows, &columns);
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
        match dispensable.next() {
            Some(next) if widest > width => columns.retain(|column| column != next),
            _ => return lines,
        }
    }
}

fn table_of(rows: &[[String; 11]], columns: &[usize]) -> Vec<String> {
    let mut table = table(columns.iter().map(|column| HEADER[*column]));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.add_rows(rows.iter().map(|row| columns.iter().map(|column| &row[*column])));
    for (place, _) in columns.iter().enumerate().filter(|(_, column)| FIGURES.contains(column)) {
        if let Some(column) = table.column_mut(place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().collect()
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A peer's version, short, and in characters of known width.
fn version(text: &str) -> String {
    cut(
        &text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect::<String>(),
        VERSION_LENGTH,
    )
}

fn row(name: String, component: &Component) -> [String; 11] {
    let percent = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
    let heartbeat = component.last_heartbeat.map(|at| format!("{} ago", span(at.elapsed().as_secs())));
    let missing = || "–".to_owned();
    [
        name,
        percent(component.cpu),
        percent(component.ram),
        heartbeat.unwrap_or_else(missing),
        component.uptime.map_or_else(missing, span),
        component.version.as_deref().map_or_else(missing, version),
        component.messages.to_string(),
        component.sealed.to_string(),
        component.alerts.to_string(),
        component.missed.to_string(),
        component.rejected.to_string(),
    ]
}

#[cfg(unix)]
fn terminal() -> Option<Size> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // A terminal that does not know its size says zero.
    (size.ws_col > 0 && size.ws_row > 0).then(|| Size { columns: size.ws_col.into(), rows: size.ws_row.into() })
}

#[cfg(not(unix))]
fn terminal() -> Option<Size> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(count: usize) -> Fleet {
        Fleet::of((1..=count).map(|number| {
            let component = Component {
                cpu: Some(12.5),
                ram: Some(40.0),
                uptime: Some(90_061),
                version: Some("1.2.3-a very long \u{1b}[2J版本".into()),
                messages: 1_234_567,
                ..Component::default()
            };
            (format!("agent/agent-linux-{number:03}").parse().unwrap(), component)
        }))
    }

    #[test]
    fn a_live_table_fits_the_terminal_whatever_its_size() {
        for count in [0, 1, 17, 18, 19, 300] {
            let fleet = fleet(count);
            for columns in [1, 10, 40, 79, 80, 120, 200] {
                for rows in [1, 2, 7, 8, 24, 50] {
                    let drawn = draw(&fleet, Size { columns, rows });
                    let fits = drawn.lines().all(|line| line.chars().count() <= columns);
                    assert!(fits, "{columns} columns:\n{drawn}");
                    let height = drawn.lines().count();
                    assert!(height < rows || height == 1, "{height} lines, {rows} rows:\n{drawn}");
                }
            }
        }
    }

    #[test]
    fn a_narrow_terminal_keeps_the_columns_that_matter() {
        let drawn = draw(&fleet(3), Size { columns: 80, rows: 24 });
        for text in ["component", "cpu %", "ram %", "messages", "agent/agent-linux-003", "3 components"] {
            assert!(drawn.contains(text), "no {text}:\n{drawn}");
        }
        assert!(!drawn.contains("version"), "{drawn}");
        let wide = draw(&fleet(1), Size { columns: 200, rows: 24 });
        assert!(wide.contains("version") && wide.contains("1 component,"), "{wide}");
        assert!(!wide.contains('\u{1b}') && !wide.contains('版'), "{wide}");
    }

    #[test]
    fn components_that_do_not_fit_are_counted() {
        let drawn = draw(&fleet(300), Size { columns: 80, rows: 24 });
        assert!(drawn.contains("… and 283 more\n300 components"), "{drawn}");
        assert_eq!(drawn.lines().count(), 23);
        let all = draw(&fleet(300), Size { columns: usize::MAX, rows: usize::MAX });
        assert!(all.contains("agent-linux-300") && !all.contains(" more"), "{all}");
    }
}
