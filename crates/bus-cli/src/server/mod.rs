//! `bus server`: the broker's configuration, and a running broker.

mod cluster;
mod keys;
mod node;
mod plan;
mod run;

use std::num::NonZeroU8;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use crate::cli::block_on;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Layer, RulesFlags, Settings};
use crate::values::counted;

use plan::Plan;
pub(crate) use plan::ServerFlags;

const EXAMPLES: &str = "\
Examples:
  bus server run --from-pki pki
  bus server run --from-pki pki --port 0 --json             any free port; the URL is on stdout
  bus server config --from-pki pki --out nats-server.conf
  bus server config --from-pki pki --node n1 --peer n2 --peer n3 --out n1.conf
  bus server cluster --from-pki pki                         three nodes on this machine, to try what a cluster does
  bus server config --cert n1.crt --key n1.key --ca ca.crt --components fleet.txt
  bus server provision --as control/provisioner             for a nats-server that was started otherwise";

/// What can be done with the broker.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum ServerCommand {
    /// Print the configuration of nats-server
    Config {
        #[command(flatten)]
        flags: ServerFlags,
        #[command(flatten)]
        rules: RulesFlags,
        /// Write it to this file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace that file if it exists
        #[arg(long, requires = "out")]
        force: bool,
    },
    /// Run nats-server until a signal ends it; SIGHUP reads components and policy again
    ///
    /// The program is the one that BUS_NATS_SERVER names, else nats-server of 2.15 or newer on PATH. Its log goes to
    /// stderr. When it is ready, its address is printed on stdout. SIGHUP stops it where the terminal that it was started
    /// from has gone.
    Run {
        #[command(flatten)]
        flags: ServerFlags,
        #[command(flatten)]
        rules: RulesFlags,
    },
    /// Run a cluster on this machine until a signal ends it; SIGHUP reads components and policy again
    ///
    /// The nodes get certificates of their own and any free ports, and keep their streams and each other's below
    /// `cluster` in the directory of --from-pki. Their logs go to stderr, each line behind its node's name. When they have a
    /// leader, their addresses are printed on stdout. A node that ends stays ended until SIGHUP, and the others go on.
    Cluster {
        #[command(flatten)]
        flags: ServerFlags,
        #[command(flatten)]
        rules: RulesFlags,
        /// How many nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
        nodes: u8,
    },
    /// Make the key streams of a running server, or bring them up to date
    ///
    /// `bus server run` does this by itself. Only the provisioner may, whom the server's configuration names.
    Provision {
        #[command(flatten)]
        connection: Layer,
        /// On how many nodes of a cluster to keep it [default: as it is; a new one on one]
        #[arg(long, value_name = "NODES", value_parser = replicas)]
        replicas: Option<NonZeroU8>,
    },
}

impl ServerCommand {
    /// Does it.
    pub(crate) fn run(
        self,
        load: impl FnOnce(Layer) -> anyhow::Result<Settings>,
        output: Output,
    ) -> anyhow::Result<Outcome> {
        match self {
            Self::Config { flags, rules, out, force } => {
                print_config(&Plan::new(flags, load(rules.into())?)?, out, force, output)
            }
            Self::Run { flags, rules } => {
                let plan = Plan::new(flags, load(rules.into())?)?;
                block_on(run::run(plan, output))
            }
            Self::Cluster { flags, rules, nodes } => block_on(cluster::run(flags, load(rules.into())?, nodes, output)),
            Self::Provision { connection, replicas } => block_on(keys::provision(load(connection)?, replicas, output)),
        }
    }
}

/// What JetStream takes.
fn replicas(text: &str) -> Result<NonZeroU8, String> {
    let nodes = text.parse().ok().filter(|nodes: &NonZeroU8| nodes.get() <= 5);
    nodes.ok_or_else(|| "it must be 1 to 5".to_owned())
}

fn print_config(plan: &Plan, out: Option<PathBuf>, force: bool, output: Output) -> anyhow::Result<Outcome> {
    plan.check_credentials_that_are_here()?;
    let config = plan.config()?;
    let text = config.render()?;
    let Some(path) = out else {
        output.record(|| text.clone(), || json!({ "config": text, "components": config.components.len() }))?;
        return Ok(Outcome::Done);
    };
    if path.exists() && !force {
        return Err(Failure::failed(format!("`{}` exists; to replace it, add --force", path.display())));
    }
    std::fs::write(&path, &text).with_context(|| format!("`{}` cannot be written", path.display()))?;
    output.record(
        || {
            let components = counted(config.components.len() as u64, "component");
            format!("wrote {}, for {components}\nnext: nats-server -c {0}", path.display())
        },
        || json!({ "file": path, "components": config.components.len() }),
    )?;
    Ok(Outcome::Done)
}
