//! `bus server`: the broker's configuration, and a running broker.

mod keys;
mod plan;
mod run;

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
    /// Make the key streams of a running server, or bring them up to date
    ///
    /// `bus server run` does this by itself. Only the provisioner may, whom the server's configuration names.
    Provision {
        #[command(flatten)]
        connection: Layer,
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
            Self::Provision { connection } => block_on(keys::provision(load(connection)?, output)),
        }
    }
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
