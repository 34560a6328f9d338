//! Makes the test vectors of the wire.
//!
//! `bus-vectors` writes `tests/vectors/*.json`, `bus-vectors --check` fails when one of them would change. `bus-vectors
//! --record` makes the signatures that cannot be repeated, where one is missing, and keeps them beside the generator.
#![allow(clippy::print_stderr, reason = "a program")]

use std::path::Path;
use std::process::ExitCode;

use bus_tests::vectors::{self, Recorder};

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let check = match arguments.as_slice() {
        [] => false,
        ["--check"] => true,
        ["--record"] => {
            let recorder = Recorder::new(true);
            vectors::generate(&recorder)?;
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/vectors/recorded.txt");
            std::fs::write(path, recorder.used())?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {
            eprintln!("usage: bus-vectors [--check | --record]");
            return Ok(ExitCode::from(2));
        }
    };
    vectors::run(&vectors::directory(), check, &Recorder::new(false))?;
    Ok(ExitCode::SUCCESS)
}
