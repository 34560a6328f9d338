//! What can be changed in a spool. All of it happens inside a transaction of the writer, together with others' changes.
//!
//! A change that is refused has changed nothing, or what stands by itself: messages that have expired are gone.

use std::collections::BTreeSet;

use bus_crypto::storage::{NONCE_LEN, Place};
use rusqlite::{OptionalExtension, params};

use crate::key::random;
use crate::spool::message::{Class, EntryId, Message};
use crate::spool::read::{Fault, SignedId, View, entry_place, reason_place, report_place, signed_place};
use crate::spool::report::{self, DroppedMessage, ReportId, Why};
use crate::spool::totals::{Amount, Totals, weight};
use crate::spool::{Bound, Limits, SpoolError};

/// How many messages one call of `expire` drops at most.
pub(super) const EXPIRE_AT_ONCE: usize = 1_000;

/// Random nonces, made many at a time.
pub(super) struct Nonces {
    bytes: [u8; Self::AT_ONCE * NONCE_LEN],
    used: usize,
}

impl Nonces {
    const AT_ONCE: usize = 256;

    pub(super) fn new() -> Self {
        Self { bytes: [0; Self::AT_ONCE * NONCE_LEN], used: Self::AT_ONCE }
    }

    fn next(&mut self) -> Result<[u8; NONCE_LEN], Fault> {
        if self.used == Self::AT_ONCE {
            self.bytes = *random().map_err(|_| Fault::Provider)?;
            self.used = 0;
        }
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.bytes[self.used * NONCE_LEN..][..NONCE_LEN]);
        self.used += 1;
        Ok(nonce)
    }
}

/// A message on its way in: everything that needs no transaction is done.
pub(super) struct Incoming {
    pub(super) class: Class,
    pub(super) lane: [u8; 16],
    pub(super) expires_at: i64,
    pub(super) accepted_at: i64,
    pub(super) encoded: Vec<u8>,
}

/// A message's row, without what is sealed in it.
struct Found {
    class: Class,
    signed: Option<i64>,
    sealed_len: u64,
}

pub(super) struct Changes<'a> {
    pub(super) view: View<'a>,
    pub(super) totals: &'a mut Totals,
    pub(super) limits: &'a Limits,
    pub(super) nonces: &'a mut Nonces,
}

impl Changes<'_> {
    pub(super) fn accept(&mut self, incoming: &Incoming) -> Result<EntryId, Fault> {
        let Incoming { class, lane, expires_at, accepted_at, encoded } = incoming;
        let deadline = self.limits.deadline(*expires_at, *accepted_at);
        if deadline <= *accepted_at {
            return Err(SpoolError::Expired.into());
        }
        let id = self.totals.next_entry;
        let sealed = self.seal(entry_place(id), encoded)?;
        let sealed_len = u64::try_from(sealed.len()).unwrap_or(u64::MAX);
        self.make_room(weight(sealed_len), *accepted_at)?;
        let mut insert =
            self.view.connection.prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3, ?4, NULL, ?5)")?;
        insert.execute(params![id, class.code(), lane.as_slice(), deadline, sealed])?;
        self.totals.next_entry += 1;
        self.totals.entry_added(*class, sealed_len);
        Ok(EntryId(id))
    }

    fn seal(&mut self, place: Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, Fault> {
        let nonce = self.nonces.next()?;
        Ok(self.view.keys.seal(place, nonce, plaintext)?)
    }

    /// Makes room for one more message: what has expired goes first, then the oldest live ones.
    fn make_room(&mut self, weight: u64, now: i64) -> Result<(), Fault> {
        if self.exceeded(weight, true).is_none() {
            return Ok(());
        }
        self.expire(now)?;
        if let Some(full) = self.exceeded(weight, false) {
            return Err(full.into());
        }
        while let Some(full) = self.exceeded(weight, true) {
            let mut oldest =
                self.view.connection.prepare_cached("SELECT id FROM entries WHERE class = 1 ORDER BY id LIMIT 1")?;
            let id = oldest.query_row([], |row| row.get(0)).optional()?.ok_or(full)?;
            self.drop_entry(id, now, |_| Why::Displaced)?;
        }
        Ok(())
    }

    /// Which limit one more message exceeds, with the live ones or without.
    fn exceeded(&self, weight: u64, with_live: bool) -> Option<SpoolError> {
        let status = &self.totals.status;
        let live = if with_live { status.live } else { Amount::default() };
        let messages = status.durable.messages + status.dead.messages + live.messages + 1;
        let bytes = (status.durable.bytes + status.dead.bytes + live.bytes).saturating_add(weight);
        if messages > self.limits.messages {
            Some(SpoolError::Full { what: Bound::Messages, limit: self.limits.messages })
        } else if bytes > self.limits.bytes {
            Some(SpoolError::Full { what: Bound::Bytes, limit: self.limits.bytes })
        } else {
            None
        }
    }

    pub(super) fn expire(&mut self, now: i64) -> Result<usize, Fault> {
        let mut select = self
            .view
            .connection
            .prepare_cached("SELECT id FROM entries WHERE deadline <= ?1 ORDER BY deadline, id LIMIT ?2")?;
        let limit = i64::try_from(EXPIRE_AT_ONCE).unwrap_or(i64::MAX);
        let ids: Vec<i64> = select.query_map([now, limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for id in &ids {
            self.drop_entry(*id, now, |message| match message {
                Some(message) if message.expires_at == 0 || message.expires_at > now => Why::TooOld,
                _ => Why::Expired,
            })?;
        }
        Ok(ids.len())
    }

    /// Drops a message, and reports it.
    fn drop_entry(&mut self, id: i64, now: i64, why: impl FnOnce(Option<&Message>) -> Why) -> Result<(), Fault> {
        let mut select = self.view.connection.prepare_cached("SELECT sealed FROM entries WHERE id = ?1")?;
        let message = self.view.open_message(id, select.query_row([id], |row| row.get(0))?);
        let why = why(message.as_ref());
        let Some(found) = self.remove(id)? else { return Ok(()) };
        self.remove_finished(found.signed)?;
        self.totals.dropped(why);
        let left = message.map(|message| {
            let Message { message_id, lane, message_type, .. } = message;
            DroppedMessage { message_id, lane, message_type }
        });
        let number = self.totals.next_report;
        let sealed = self.seal(report_place(number), &report::encode(EntryId(id), left.as_ref()))?;
        let connection = self.view.connection;
        let mut insert = connection.prepare_cached("INSERT INTO reports VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        insert.execute(params![number, found.class.code(), why.code(), found.signed.is_some(), now, sealed])?;
        self.totals.next_report += 1;
        self.totals.status.reports += 1;
        while self.totals.status.reports > self.limits.reports {
            let mut oldest =
                connection.prepare_cached("DELETE FROM reports WHERE id = (SELECT min(id) FROM reports)")?;
            oldest.execute([])?;
            self.totals.status.reports -= 1;
            self.totals.status.reports_lost += 1;
        }
        Ok(())
    }

    /// Removes a message. Whoever calls removes what is left of its envelope.
    fn remove(&mut self, id: i64) -> Result<Option<Found>, Fault> {
        let mut delete = self
            .view
            .connection
            .prepare_cached("DELETE FROM entries WHERE id = ?1 RETURNING class, signed, length(sealed)")?;
        let found = delete.query_row([id], |row| {
            let sealed_len = row.get::<_, i64>(2)?.unsigned_abs();
            Ok(Found { class: Class::from_code(row.get(0)?), signed: row.get(1)?, sealed_len })
        });
        let found = found.optional()?;
        if let Some(found) = &found {
            self.totals.entry_removed(found.class, found.sealed_len);
        }
        Ok(found)
    }

    /// Removes those of the envelopes that no message is left of.
    fn remove_finished(&self, envelopes: impl IntoIterator<Item = i64>) -> Result<(), Fault> {
        let mut delete = self.view.connection.prepare_cached(
            "DELETE FROM signed WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entries WHERE signed = ?1)",
        )?;
        for envelope in envelopes {
            delete.execute([envelope])?;
        }
        Ok(())
    }

    pub(super) fn done(&mut self, ids: &[EntryId]) -> Result<usize, Fault> {
        let (mut removed, mut envelopes) = (0, BTreeSet::new());
        for id in ids {
            if let Some(found) = self.remove(id.0)? {
                removed += 1;
                envelopes.extend(found.signed);
            }
        }
        self.remove_finished(envelopes)?;
        Ok(removed)
    }

    pub(super) fn store_signed(&mut self, ids: &[EntryId], envelope: &[u8]) -> Result<SignedId, Fault> {
        let connection = self.view.connection;
        let mut select = connection.prepare_cached("SELECT lane, signed FROM entries WHERE id = ?1")?;
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            let row = select.query_row([id.0], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<i64>>(1)?)));
            rows.push(row.optional()?.ok_or(SpoolError::Envelope)?);
        }
        let once = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
        let lanes: BTreeSet<&[u8]> = rows.iter().map(|(lane, _)| lane.as_slice()).collect();
        let (Some(first), 1, true) = (ids.first(), lanes.len(), once) else { return Err(SpoolError::Envelope.into()) };
        let lane = self.view.entry(*first)?.ok_or(SpoolError::Envelope)?.message.lane;

        // An envelope that this one replaces is gone; what else was in it waits to be signed again.
        let replaced: BTreeSet<i64> = rows.iter().filter_map(|(_, signed)| *signed).collect();
        for signed in replaced {
            connection.prepare_cached("UPDATE entries SET signed = NULL WHERE signed = ?1")?.execute([signed])?;
            connection.prepare_cached("DELETE FROM signed WHERE id = ?1")?.execute([signed])?;
        }
        let number = self.totals.next_signed;
        let mut plaintext = Vec::with_capacity(2 + lane.len() + envelope.len());
        // No longer than a u16 says: it comes from a row that was read.
        plaintext.extend_from_slice(&u16::try_from(lane.len()).unwrap_or(u16::MAX).to_be_bytes());
        plaintext.extend_from_slice(lane.as_bytes());
        plaintext.extend_from_slice(envelope);
        let sealed = self.seal(signed_place(number), &plaintext)?;
        connection.prepare_cached("INSERT INTO signed VALUES (?1, ?2)")?.execute(params![number, sealed])?;
        self.totals.next_signed += 1;
        let mut update = connection.prepare_cached("UPDATE entries SET signed = ?2 WHERE id = ?1")?;
        for id in ids {
            update.execute([id.0, number])?;
        }
        Ok(SignedId(number))
    }

    pub(super) fn dead_letter(&mut self, ids: &[EntryId], reason: &str, at: i64) -> Result<usize, Fault> {
        let mut moved = 0;
        for id in ids {
            let reason = self.seal(reason_place(id.0), reason.as_bytes())?;
            let mut insert = self
                .view
                .connection
                .prepare_cached("INSERT INTO dead SELECT id, class, lane, ?2, ?3, sealed FROM entries WHERE id = ?1")?;
            if insert.execute(params![id.0, at, reason])? == 1
                && let Some(found) = self.remove(id.0)?
            {
                self.remove_finished(found.signed)?;
                self.totals.dead_added(found.sealed_len);
                moved += 1;
            }
        }
        Ok(moved)
    }

    pub(super) fn replay(&mut self, ids: &[EntryId], now: i64) -> Result<(), Fault> {
        let ids: BTreeSet<&EntryId> = ids.iter().collect();
        let mut select = self.view.connection.prepare_cached("SELECT sealed FROM dead WHERE id = ?1")?;
        let mut back = Vec::with_capacity(ids.len());
        for id in ids {
            let sealed = select.query_row([id.0], |row| row.get(0)).optional()?.ok_or(SpoolError::NoDeadLetter)?;
            let message = self.view.open_message(id.0, sealed).ok_or(SpoolError::Unreadable)?;
            let deadline = self.limits.deadline(message.expires_at, now);
            if deadline <= now {
                return Err(SpoolError::Expired.into());
            }
            back.push((id.0, deadline));
        }
        for (id, deadline) in back {
            let mut insert = self.view.connection.prepare_cached(
                "INSERT INTO entries SELECT id, class, lane, ?2, NULL, sealed FROM dead WHERE id = ?1",
            )?;
            insert.execute([id, deadline])?;
            if let Some(found) = self.remove_dead(id)? {
                self.totals.entry_added(found.class, found.sealed_len);
            }
        }
        Ok(())
    }

    pub(super) fn remove_dead_letters(&mut self, ids: &[EntryId]) -> Result<usize, Fault> {
        let mut removed = 0;
        for id in ids {
            removed += usize::from(self.remove_dead(id.0)?.is_some());
        }
        Ok(removed)
    }

    fn remove_dead(&mut self, id: i64) -> Result<Option<Found>, Fault> {
        let mut delete =
            self.view.connection.prepare_cached("DELETE FROM dead WHERE id = ?1 RETURNING class, length(sealed)")?;
        let found = delete.query_row([id], |row| {
            Ok(Found {
                class: Class::from_code(row.get(0)?),
                signed: None,
                sealed_len: row.get::<_, i64>(1)?.unsigned_abs(),
            })
        });
        let found = found.optional()?;
        if let Some(found) = &found {
            self.totals.dead_removed(found.sealed_len);
        }
        Ok(found)
    }

    pub(super) fn forget(&mut self, ids: &[ReportId]) -> Result<usize, Fault> {
        let mut removed = 0;
        for id in ids {
            removed += self.view.connection.prepare_cached("DELETE FROM reports WHERE id = ?1")?.execute([id.0])?;
        }
        self.totals.status.reports = self.totals.status.reports.saturating_sub(u64::try_from(removed).unwrap_or(0));
        Ok(removed)
    }
}
