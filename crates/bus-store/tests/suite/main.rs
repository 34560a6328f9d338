//! The store as its users see it: against a model, killed, and on a full disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod disk;
mod kill;
mod model;

use bus_store::{Class, Message};

const NOW: i64 = 1_790_000_000_000;

fn message(number: u64, lane: u64, len: usize) -> Message {
    Message {
        class: Class::Durable,
        lane: format!("lane {lane}"),
        message_type: "alert".to_owned(),
        message_id: format!("{number:036}").into_bytes().try_into().unwrap(),
        expires_at: 0,
        priority: 5,
        accepted_at: NOW,
        content: number.to_be_bytes().into_iter().cycle().take(len).collect(),
    }
}

fn number_of(message: &Message) -> u64 {
    std::str::from_utf8(&message.message_id).unwrap().parse().unwrap()
}
