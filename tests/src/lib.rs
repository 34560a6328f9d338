//! What the integration suites share: a small deployment with its own CA and a real nats-server.
//!
//! * [`deployment`]: a temporary CA, identities and a running server.
//! * [`attacks`]: what must be refused, each attempt with its evidence and its positive control.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

pub mod attacks;
pub mod deployment;

/// The project README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
