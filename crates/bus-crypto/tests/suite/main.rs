//! What a stranger can do with the crate, and what an attacker cannot.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "test code"
)]

mod bundles;
#[cfg(feature = "zstd")]
mod compression;
mod envelopes;
mod forms;
mod records;
mod replay;
mod scan;
mod sealing;
mod support;
