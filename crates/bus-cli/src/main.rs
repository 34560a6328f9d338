//! `bus`: certificates, server, policy, agent and tools of the Ransomeye message bus, in one program.
//!
//! # Layout
//!
//! `cli` is the command line, `settings` what flags, environment and `bus.toml` say together, `connect` the way onto the
//! bus. Each group of commands has its own module. `output` writes data to stdout, `logging` writes logs to stderr,
//! `capture` keeps evidence in files, `escape` makes a peer's text safe to show, `signals` listens for what is asked of a
//! running program, its end above all, and `exit` turns errors into exit codes.
#![forbid(unsafe_code)]

mod acl;
mod agent;
mod capture;
mod cli;
mod command;
mod connect;
mod escape;
mod exit;
mod keys;
mod logging;
mod output;
mod payload;
mod pki;
mod publish;
mod server;
mod settings;
mod signals;
mod streams;
mod subscribe;
mod values;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    logging::start(cli.log_format);
    let code = match cli.run() {
        Ok(outcome) => outcome.into(),
        Err(error) => exit::report(&error),
    };
    logging::finish();
    code
}
