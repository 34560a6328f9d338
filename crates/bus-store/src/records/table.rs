//! The tables of the records, and what is done to them inside a transaction.

use rusqlite::{Connection, OptionalExtension, params};

use crate::file::Format;
use crate::records::delivery::{Delivery, Interrupted, Known, Members};

pub(super) const FORMAT: Format = Format {
    name: "file of records",
    // "RBrc"
    application: 0x5242_7263,
    version: 1,
    schema: "
        CREATE TABLE bus_senders (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, records INTEGER NOT NULL) STRICT;
        CREATE TABLE bus_records (
            sender INTEGER NOT NULL, message_id TEXT NOT NULL, expires_at INTEGER NOT NULL, handled BLOB NOT NULL,
            PRIMARY KEY (sender, message_id)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX bus_records_by_expiry ON bus_records (expires_at);
        CREATE TABLE bus_begun (
            sender INTEGER NOT NULL, message_id TEXT NOT NULL, member INTEGER NOT NULL, begun_at INTEGER NOT NULL,
            PRIMARY KEY (sender, message_id, member)
        ) STRICT, WITHOUT ROWID;
    ",
};

/// A message's record, found or to be made.
pub(super) struct Record {
    sender: i64,
    handled: Members,
    new: bool,
    /// How many records its sender has.
    pub(super) records: u64,
}

impl Record {
    pub(super) fn is_new(&self) -> bool {
        self.new
    }

    /// Finds the record of a message, and what is known of its member.
    pub(super) fn find(connection: &Connection, delivery: &Delivery<'_>) -> rusqlite::Result<(Self, Known)> {
        let Delivery { sender, message_id, member, .. } = delivery;
        let mut select = connection.prepare_cached("SELECT id, records FROM bus_senders WHERE name = ?1")?;
        let known = select.query_row([sender], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())));
        let (sender, records) = match known.optional()? {
            Some(known) => known,
            None => {
                connection
                    .prepare_cached("INSERT INTO bus_senders (name, records) VALUES (?1, 0)")?
                    .execute([sender])?;
                (connection.last_insert_rowid(), 0)
            }
        };
        let sql = "SELECT handled FROM bus_records WHERE sender = ?1 AND message_id = ?2";
        let found =
            connection.prepare_cached(sql)?.query_row(params![sender, message_id], |row| row.get(0)).optional()?;
        let new = found.is_none();
        let handled = Members::from_bytes(found.unwrap_or_default());
        let sql = "SELECT 1 FROM bus_begun WHERE sender = ?1 AND message_id = ?2 AND member = ?3";
        let known = if handled.contains(*member) {
            Known::Handled
        } else if connection.prepare_cached(sql)?.exists(params![sender, message_id, member])? {
            Known::Begun
        } else {
            Known::Fresh
        };
        Ok((Self { sender, handled, new, records }, known))
    }

    /// Writes that the member was begun.
    pub(super) fn begin(&mut self, connection: &Connection, delivery: &Delivery<'_>) -> rusqlite::Result<()> {
        self.write(connection, delivery)?;
        let mut insert = connection.prepare_cached("INSERT INTO bus_begun VALUES (?1, ?2, ?3, ?4)")?;
        insert.execute(params![self.sender, delivery.message_id, delivery.member, delivery.now])?;
        Ok(())
    }

    /// Writes that the member was handled.
    pub(super) fn handle(&mut self, connection: &Connection, delivery: &Delivery<'_>) -> rusqlite::Result<()> {
        self.handled.insert(delivery.member);
        self.write(connection, delivery)?;
        let sql = "DELETE FROM bus_begun WHERE sender = ?1 AND message_id = ?2 AND member = ?3";
        connection.prepare_cached(sql)?.execute(params![self.sender, delivery.message_id, delivery.member])?;
        Ok(())
    }

    fn write(&mut self, connection: &Connection, delivery: &Delivery<'_>) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(
            "INSERT INTO bus_records VALUES (?1, ?2, ?3, ?4) ON CONFLICT (sender, message_id)
             DO UPDATE SET handled = excluded.handled, expires_at = max(expires_at, excluded.expires_at)",
        )?;
        upsert.execute(params![self.sender, delivery.message_id, delivery.expires_at, self.handled.as_bytes()])?;
        if std::mem::take(&mut self.new) {
            let sql = "UPDATE bus_senders SET records = records + 1 WHERE id = ?1";
            connection.prepare_cached(sql)?.execute([self.sender])?;
        }
        Ok(())
    }
}

/// Settles a member that was begun: it is handled from now on. Whether it had been begun.
pub(super) fn settle(connection: &Connection, interrupted: &Interrupted) -> rusqlite::Result<bool> {
    let Interrupted { sender, message_id, member, .. } = interrupted;
    let sql = "DELETE FROM bus_begun WHERE sender = (SELECT id FROM bus_senders WHERE name = ?1)
               AND message_id = ?2 AND member = ?3 RETURNING sender";
    let begun =
        connection.prepare_cached(sql)?.query_row(params![sender, message_id, member], |row| row.get::<_, i64>(0));
    let Some(sender) = begun.optional()? else { return Ok(false) };
    let sql = "SELECT handled FROM bus_records WHERE sender = ?1 AND message_id = ?2";
    let handled =
        connection.prepare_cached(sql)?.query_row(params![sender, message_id], |row| row.get(0)).optional()?;
    // The record is gone when the message has expired. Then it is not delivered again either.
    if let Some(handled) = handled {
        let mut handled = Members::from_bytes(handled);
        handled.insert(*member);
        let sql = "UPDATE bus_records SET handled = ?3 WHERE sender = ?1 AND message_id = ?2";
        connection.prepare_cached(sql)?.execute(params![sender, message_id, handled.as_bytes()])?;
    }
    Ok(true)
}

/// Removes records of messages that have expired, the oldest first, at most `max`.
pub(super) fn sweep(connection: &Connection, now: i64, max: usize) -> rusqlite::Result<usize> {
    let sql = "SELECT sender, message_id FROM bus_records WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2";
    let mut select = connection.prepare_cached(sql)?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let expired = select.query_map([now, max], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    let expired: Vec<_> = expired.collect::<Result<_, _>>()?;
    for (sender, message_id) in &expired {
        let sql = "DELETE FROM bus_records WHERE sender = ?1 AND message_id = ?2";
        connection.prepare_cached(sql)?.execute(params![sender, message_id])?;
        let sql = "UPDATE bus_senders SET records = records - 1 WHERE id = ?1";
        connection.prepare_cached(sql)?.execute([sender])?;
    }
    // A sender of nothing that is on record, or has to be reported, is forgotten.
    let sql = "DELETE FROM bus_senders WHERE id = ?1 AND records = 0
               AND NOT EXISTS (SELECT 1 FROM bus_begun WHERE sender = ?1)";
    for (sender, _) in &expired {
        connection.prepare_cached(sql)?.execute([sender])?;
    }
    Ok(expired.len())
}

pub(super) fn interrupted(
    connection: &Connection,
    begun_before: i64,
    max: usize,
) -> rusqlite::Result<Vec<Interrupted>> {
    let mut select = connection.prepare_cached(
        "SELECT name, message_id, member, begun_at FROM bus_begun JOIN bus_senders ON bus_senders.id = bus_begun.sender
         WHERE begun_at < ?1 ORDER BY begun_at, name, message_id, member LIMIT ?2",
    )?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = select.query_map([begun_before, max], |row| {
        Ok(Interrupted { sender: row.get(0)?, message_id: row.get(1)?, member: row.get(2)?, begun_at: row.get(3)? })
    })?;
    rows.collect()
}
