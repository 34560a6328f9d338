//! What is in the spool and what became of the rest, in numbers that are kept with it.

use rusqlite::{Connection, named_params};

use crate::spool::message::Class;
use crate::spool::report::Why;

/// How many messages, and how much they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Bytes, as the limits count them: what the rows take in the file, about.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The state of a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Durable messages that wait, or whose envelope was not acknowledged yet.
    pub durable: Amount,
    /// Live ones.
    pub live: Amount,
    /// Dead letters, of either class.
    pub dead: Amount,
    /// How many messages have expired in the spool since the file was made.
    pub expired: u64,
    /// How many became older than [`Limits::age_ms`](crate::Limits::age_ms).
    pub too_old: u64,
    /// How many live ones made room for others.
    pub displaced: u64,
    /// How many reports of those three kinds wait to be read.
    pub reports: u64,
    /// How many reports were given up, since more than [`Limits::reports`](crate::Limits::reports) waited.
    pub reports_lost: u64,
}

/// The state, and the next free numbers. Read once, then kept in memory and written with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) next_entry: i64,
    pub(super) next_signed: i64,
    pub(super) next_report: i64,
    pub(super) status: Status,
}

/// What a row takes besides what it holds: its number, its other columns and its places in the indexes.
const ROW_BYTES: u64 = 96;

/// What a row with so many sealed bytes counts.
pub(super) fn weight(sealed: u64) -> u64 {
    sealed.saturating_add(ROW_BYTES)
}

impl Totals {
    pub(super) fn of(&mut self, class: Class) -> &mut Amount {
        match class {
            Class::Durable => &mut self.status.durable,
            Class::Live => &mut self.status.live,
        }
    }

    pub(super) fn entry_added(&mut self, class: Class, sealed: u64) {
        self.of(class).add(weight(sealed));
    }

    pub(super) fn entry_removed(&mut self, class: Class, sealed: u64) {
        self.of(class).subtract(weight(sealed));
    }

    pub(super) fn dead_added(&mut self, sealed: u64) {
        self.status.dead.add(weight(sealed));
    }

    pub(super) fn dead_removed(&mut self, sealed: u64) {
        self.status.dead.subtract(weight(sealed));
    }

    pub(super) fn dropped(&mut self, why: Why) {
        match why {
            Why::Expired => self.status.expired += 1,
            Why::TooOld => self.status.too_old += 1,
            Why::Displaced => self.status.displaced += 1,
        }
    }

    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection.query_row("SELECT * FROM totals", [], |row| {
            let number = |name| row.get::<_, i64>(name).map(i64::unsigned_abs);
            let amount = |messages, bytes| -> rusqlite::Result<_> {
                Ok(Amount { messages: number(messages)?, bytes: number(bytes)? })
            };
            Ok(Self {
                next_entry: row.get("next_entry")?,
                next_signed: row.get("next_signed")?,
                next_report: row.get("next_report")?,
                status: Status {
                    durable: amount("durable", "durable_bytes")?,
                    live: amount("live", "live_bytes")?,
                    dead: amount("dead", "dead_bytes")?,
                    expired: number("expired")?,
                    too_old: number("too_old")?,
                    displaced: number("displaced")?,
                    reports: number("reports")?,
                    reports_lost: number("reports_lost")?,
                },
            })
        })
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Self { next_entry, next_signed, next_report, status } = self;
        let Status { durable, live, dead, expired, too_old, displaced, reports, reports_lost } = status;
        let mut update = connection.prepare_cached(
            "UPDATE totals SET next_entry = :next_entry, next_signed = :next_signed, next_report = :next_report,
                durable = :durable, durable_bytes = :durable_bytes, live = :live, live_bytes = :live_bytes,
                dead = :dead, dead_bytes = :dead_bytes, expired = :expired, too_old = :too_old, displaced = :displaced,
                reports = :reports, reports_lost = :reports_lost",
        )?;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        update.execute(named_params! {
            ":next_entry": next_entry, ":next_signed": next_signed, ":next_report": next_report,
            ":durable": number(durable.messages), ":durable_bytes": number(durable.bytes),
            ":live": number(live.messages), ":live_bytes": number(live.bytes),
            ":dead": number(dead.messages), ":dead_bytes": number(dead.bytes),
            ":expired": number(*expired), ":too_old": number(*too_old), ":displaced": number(*displaced),
            ":reports": number(*reports), ":reports_lost": number(*reports_lost),
        })?;
        Ok(())
    }
}
