//! What this crate promises, one test for each promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::result_large_err, reason = "an error of a handshake is shown once")]
#![cfg(unix)]
#![allow(unreachable_pub, reason = "the modules of a test program are reachable from nowhere else")]

mod accepted;
mod bench;
mod certificates;
mod credentials;
mod environment;
mod files;
mod handshakes;
mod offline;
mod peers;
mod pki;
mod pki_files;
mod revocation;
mod rotation;
mod trust_roots;
