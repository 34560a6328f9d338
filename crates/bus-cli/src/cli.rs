//! The command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::exit::Outcome;
use crate::logging::LogFormat;
use crate::output::Output;
use crate::settings::{Layer, Settings, TrustFlags};
use crate::{acl, agent, command, keys, pki, publish, server, streams, subscribe, verify, watch};

const EXAMPLES: &str = "\
A bus on a laptop:
  bus pki init --trust-domain ransomeye.local
  bus pki issue broker/nats-1 --host localhost --host 127.0.0.1
  bus pki issue core/core-01
  bus pki issue agent/agent-01
  bus server run --from-pki pki
  bus watch --as core/core-01
  bus agent --as agent/agent-01 --spawn 'sleep 600'
  bus command kill agent/agent-01 PID --as core/core-01

Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 credentials, 5 unreachable.
Data goes to stdout, logs to stderr; RUST_LOG chooses what is logged.";

/// Certificates, server, policy, agent and tools of the Ransomeye message bus
#[derive(Debug, Parser)]
#[command(name = "bus", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Write data as JSON: one object, or one per line where it is a stream
    #[arg(long, global = true, help_heading = "Global")]
    json: bool,

    /// Form of the logs on stderr
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", help_heading = "Global")]
    pub(crate) log_format: LogFormat,

    /// Settings file [env: BUS_CONFIG] [default: bus.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    group: Group,
}

#[derive(Debug, Subcommand)]
enum Group {
    /// The deployment's own certificate authority: make it, issue and revoke certificates
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// The broker: print the configuration of nats-server, or run one
    #[command(subcommand)]
    Server(server::ServerCommand),
    /// The policy: ask it, have it explained, see what the broker enforces
    #[command(subcommand)]
    Acl(acl::AclCommand),
    /// Report this host's real load, and carry out commands on children that it started
    #[command(after_help = agent::EXAMPLES)]
    Agent {
        #[command(flatten)]
        args: agent::AgentArgs,
        #[command(flatten)]
        connection: Layer,
    },
    /// Show the fleet as a live table
    #[command(after_help = watch::EXAMPLES)]
    Watch {
        #[command(flatten)]
        args: watch::WatchArgs,
        #[command(flatten)]
        connection: Layer,
    },
    /// Publish one event
    #[command(after_help = publish::EXAMPLES)]
    Pub {
        #[command(subcommand)]
        event: publish::Event,
    },
    /// Print messages as they arrive
    #[command(after_help = subscribe::EXAMPLES)]
    Sub {
        #[command(flatten)]
        args: subscribe::SubscribeArgs,
        #[command(flatten)]
        connection: Layer,
    },
    /// Check a captured message against a CA: offline, without an identity, and years later
    #[command(after_help = verify::EXAMPLES)]
    Verify {
        #[command(flatten)]
        args: verify::VerifyArgs,
        #[command(flatten)]
        trust: TrustFlags,
    },
    /// The keys that components sign with, and those that are sealed to: see them, fetch and verify another's, have new ones
    /// made, keep a copy
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// The streams of durable messages: make what the policy declares, see how full they are and how far their readers
    #[command(subcommand)]
    Streams(streams::StreamsCommand),
    /// Command one component, and wait for its result
    #[command(after_help = command::EXAMPLES)]
    Command {
        #[command(flatten)]
        args: command::CommandArgs,
        #[command(flatten)]
        connection: Layer,
    },
}

impl Cli {
    /// Whether the command runs on as a component, which signs with a new key when SIGUSR1 asks it to.
    #[cfg(target_os = "linux")]
    pub(crate) fn rotates_keys(&self) -> bool {
        matches!(self.group, Group::Agent { .. } | Group::Watch { .. } | Group::Sub { .. })
    }

    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let output = Output::new(self.json);
        let load = |flags: Layer| Settings::load(self.config, flags);
        match self.group {
            Group::Pki(command) => command.run(output),
            Group::Server(command) => command.run(load, output),
            Group::Acl(command) => command.run(load, output),
            Group::Agent { args, connection } => block_on(agent::run(args, load(connection)?, output)),
            Group::Watch { args, connection } => block_on(watch::run(args, load(connection)?, output)),
            Group::Pub { event } => {
                let (payload, connection) = event.into_parts();
                block_on(publish::run(payload, load(connection)?, output))
            }
            Group::Sub { args, connection } => block_on(subscribe::run(args, load(connection)?, output)),
            Group::Verify { args, trust } => verify::run(&args, &load(trust.into())?, output),
            Group::Keys(command) => command.run(load, output),
            Group::Streams(command) => command.run(load, output),
            Group::Command { args, connection } => block_on(command::run(args, load(connection)?, output)),
        }
    }
}

/// Runs a command that needs the network, on a runtime that ends with it.
pub(crate) fn block_on(work: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let outcome = runtime.block_on(work);
    // What still runs in the background has nothing to say any more.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
