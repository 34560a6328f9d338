//! Measures what a receiver's memory holds for each sender that it knows, and prints it as JSON.
//!
//! `bus-bench-senders 100000` makes that many; progress goes to stderr. It is a program of its own because its allocator
//! counts, and because its resident memory is to hold nothing else.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]
#![allow(unsafe_code, reason = "a counting allocator has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use bus_tests::bench::senders;

/// The system's allocator, counting how many bytes are allocated now.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator; counting does not allocate. `realloc` and
// `alloc_zeroed` are the trait's own, which come down to these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(count) = arguments.first().and_then(|count| count.parse().ok()).filter(|_| arguments.len() == 1) else {
        eprintln!("usage: bus-bench-senders COUNT");
        return Ok(ExitCode::from(2));
    };
    let memory = tokio::select! {
        // First, for an interrupt also ends the server, and that alone would be an error.
        biased;
        // The server's directory goes with the measurement that is dropped here.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        memory = senders::measure(count, || ALLOCATED.load(Ordering::Relaxed), |what| eprintln!("{what}")) => memory?,
    };
    println!("{}", serde_json::to_string(&memory)?);
    Ok(ExitCode::SUCCESS)
}
