//! What must not be lost on the Ransomeye message bus, on disk: a **spool** for what cannot be sent yet, and **records** of what was
//! handled. Each is one SQLite file; neither knows of a network, and either can be used for anything else.
//!
//! A [`Spool`] takes a message and says so when it is on the disk. It keeps messages encrypted and within bounds, in their order,
//! until they were delivered, given up, or have expired, and says what became of them:
//!
//! ```
//! use bus_store::{Class, Limits, Message, Selection, Spool, SpoolKey};
//!
//! # let home = tempfile::tempdir()?;
//! # let home = home.path();
//! # let now = 1_790_000_000_000;
//! let key = SpoolKey::load_or_create(home.join("agent-01.spoolkey"))?;
//! let spool = Spool::open(home.join("agent-01.spool"), &key, Limits::default().bytes(64 << 20))?;
//!
//! // What comes in while nothing can be sent. In asynchronous code: `spool.accept(&message).await?`.
//! let message = Message {
//!     class: Class::Durable,
//!     lane: "ransomeye.events.alert.agent.agent-01".to_owned(),
//!     message_type: "alert".to_owned(),
//!     message_id: *b"01998b2f-5a3c-7d10-8f7e-2b1a6c9d4e5f",
//!     expires_at: now + 86_400_000,
//!     priority: 5,
//!     accepted_at: now,
//!     content: b"an encoded alert".to_vec(),
//! };
//! let id = spool.accept_blocking(&message).wait()?; // it is on the disk
//!
//! // What goes out when it can be. The signed envelope is kept before it is sent, so that a retry sends the same bytes.
//! let page = spool.peek(Selection::new(now)).wait()?;
//! let ids: Vec<_> = page.entries.iter().map(|entry| entry.id).collect();
//! assert_eq!(ids, [id]);
//! # let sign = |content: &[u8]| content.to_vec();
//! let envelope = sign(&page.entries[0].message.content);
//! spool.store_signed(ids.clone(), envelope).wait()?;
//! // … sent under an id by which the broker recognises a repetition …
//! let _nats_msg_id = spool.message_key(&page.entries[0].message.message_id);
//! // … and acknowledged:
//! spool.done(ids).wait()?;
//! assert_eq!(spool.status().wait()?.durable.messages, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Records`] say whether a message that arrives was handled already, and hand it to a handler under one of three promises. Exactly
//! once, for a handler that writes to the same file:
//!
//! ```
//! use bus_store::{Delivery, Outcome, RecordLimits, Records, rusqlite};
//!
//! # let home = tempfile::tempdir()?;
//! # let now = 1_790_000_000_000;
//! let records = Records::open(home.path().join("records"), RecordLimits::default())?;
//! let delivery = Delivery {
//!     sender: "spiffe://ransomeye.local/agent/agent-01",
//!     message_id: "01998b2f-5a3c-7d10-8f7e-2b1a6c9d4e5f",
//!     member: 0,
//!     expires_at: now + 86_400_000,
//!     now,
//! };
//! let handler = |transaction: &rusqlite::Transaction<'_>| {
//!     transaction.execute_batch("CREATE TABLE IF NOT EXISTS alerts (severity INTEGER); INSERT INTO alerts VALUES (5)")
//! };
//! assert_eq!(records.transactional(&delivery, handler)?, Outcome::Done(()));
//! assert_eq!(records.transactional(&delivery, handler)?, Outcome::Handled); // delivered again, and left alone
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//!
//! * [`Spool`], [`Limits`], [`Message`], [`Reply`]: the queue; [`Selection`], [`Page`], [`SignedEnvelope`]: draining it;
//!   [`DeadLetter`], [`Dropped`]: what was not delivered; [`Inspector`]: looking at it from another process.
//! * [`SpoolKey`]: what it is encrypted under.
//! * [`Records`], [`Delivery`], [`Known`], [`Outcome`], [`Interrupted`]: what was handled.
//! * [`SpoolError`], [`RecordsError`], [`HandleError`], and [`StoreError`] for what is wrong with a file.
//! * [`rusqlite`]: the version whose transactions handlers are handed.
//!
//! # What it does not do
//!
//! It has no clock: `now` is an argument, in Unix milliseconds. It signs, sends and decides nothing, and needs no asynchronous runtime.
//! A file that someone puts back as it was earlier is accepted: what was done since then is repeated, or handled again. The last
//! transactions of a write-ahead log that the disk damaged are lost without a word, as SQLite takes them for unfinished.
#![forbid(unsafe_code)]

mod error;
mod file;
mod key;
mod records;
mod spool;

pub use error::StoreError;
pub use key::SpoolKey;
pub use records::{
    Delivery, HandleError, Interrupted, Known, MAX_MEMBERS, Outcome, RecordLimits, Records, RecordsError,
};
pub use rusqlite;
pub use spool::{
    Amount, Bound, Busy, Class, DeadLetter, Dropped, DroppedMessage, Entry, EntryId, Inspector, Limits, MESSAGE_ID_LEN,
    Message, Page, Reply, ReportId, Selection, SignedContent, SignedEnvelope, SignedId, Spool, SpoolError, Status, Why,
};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
