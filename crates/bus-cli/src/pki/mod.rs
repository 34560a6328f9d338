//! `bus pki`: the deployment's own certificate authority.

mod record;
mod show;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bus_proto::{Endpoint, Principal, TrustDomain};
use bus_tls::pki::{Authority, CaOptions, KeyAlgorithm, PkiError, Profile};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::settings::DEFAULT_PKI;
use crate::values::time_of_seconds;

pub(crate) use record::{broker_files, component_files, components, local_node_files};

const EXAMPLES: &str = "\
Examples:
  bus pki init --trust-domain ransomeye.local
  bus pki issue broker/nats-1 --host localhost --host 127.0.0.1
  bus pki issue agent/agent-01 --days 7
  bus pki revoke agent/agent-01
  bus pki inspect pki/agent/agent-01.crt";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where the authority is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The directory of the authority
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PKI)]
    dir: PathBuf,
}

/// What can be done with the authority.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum PkiCommand {
    /// Make a new authority: its certificate, its key, and an empty revocation list
    Init(InitArgs),
    /// Issue a certificate and a key to a component or a broker
    Issue(IssueArgs),
    /// Revoke a component's certificates, or one by its serial number
    Revoke(RevokeArgs),
    /// List what was issued
    List(Place),
    /// Write the revocation list anew, before the old one is out of date
    RenewCrl {
        #[command(flatten)]
        place: Place,
        /// How long the list is good
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
        days: u32,
    },
    /// Show what certificate files say; nothing in them is verified
    Inspect {
        /// PEM files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// How the authority is made.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    place: Place,
    /// The name of the deployment, e.g. ransomeye.local
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// How long the authority is valid
    #[arg(long, default_value_t = CaOptions::default().lifetime_days, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// The kind of its key
    #[arg(long, default_value = "p256")]
    algorithm: Algorithm,
}

/// What is issued.
#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// Whom to issue it to; role `broker` makes a server's certificate
    #[arg(value_name = "ROLE/COMPONENT")]
    component: Endpoint,
    #[command(flatten)]
    place: Place,
    /// Where to write it [default: DIR/ROLE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A host name or IP address that a server is reached by; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// How long it is valid
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// The kind of its key
    #[arg(long, default_value = "p256")]
    algorithm: Algorithm,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Issue it although a certificate of this component is revoked: the broker then admits the revoked key as well
    #[arg(long)]
    despite_revoked: bool,
}

/// What is revoked.
#[derive(Debug, Args)]
#[command(
    override_usage = "bus pki revoke [--dir DIR] ROLE/COMPONENT\n       bus pki revoke [--dir DIR] --serial SERIAL"
)]
pub(crate) struct RevokeArgs {
    /// All certificates of this component
    #[arg(value_name = "ROLE/COMPONENT", required_unless_present = "serial", conflicts_with = "serial")]
    component: Option<Endpoint>,
    /// The certificate with this serial number
    #[arg(long)]
    serial: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Algorithm {
    /// ECDSA on NIST P-256
    P256,
    /// ECDSA on NIST P-384
    P384,
    /// Ed25519
    Ed25519,
    /// RSA with 2048 bits
    Rsa2048,
    /// RSA with 3072 bits
    Rsa3072,
    /// RSA with 4096 bits
    Rsa4096,
}

impl From<Algorithm> for KeyAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::P256 => Self::P256,
            Algorithm::P384 => Self::P384,
            Algorithm::Ed25519 => Self::Ed25519,
            Algorithm::Rsa2048 => Self::Rsa2048,
            Algorithm::Rsa3072 => Self::Rsa3072,
            Algorithm::Rsa4096 => Self::Rsa4096,
        }
    }
}

impl PkiCommand {
    /// Does it.
    pub(crate) fn run(self, output: Output) -> anyhow::Result<Outcome> {
        match self {
            Self::Init(args) => init(args, output)?,
            Self::Issue(args) => issue(&args, output)?,
            Self::Revoke(args) => revoke(args, output)?,
            Self::List(place) => show::list(&place.dir, output)?,
            Self::RenewCrl { place, days } => renew_crl(place, days, output)?,
            Self::Inspect { files } => show::inspect(&files, output)?,
        }
        Ok(Outcome::Done)
    }
}

fn init(args: InitArgs, output: Output) -> anyhow::Result<()> {
    let options = CaOptions { lifetime_days: args.days, key_algorithm: args.algorithm.into() };
    let authority = Authority::create(args.place.dir, args.trust_domain, &options)?;
    let (dir, ca, crl) = (authority.dir(), authority.ca_path(), authority.crl_path());
    let key = dir.join("ca.key");
    let not_after = time_of_seconds(authority.not_after());
    output.record(
        || {
            format!(
                "made the authority of {} in {}, valid until {not_after}\n  \
                 certificate      {}   (give it to every component: the one thing they trust)\n  \
                 private key      {}   (0600; whoever has it can be anybody: keep it offline)\n  \
                 revocation list  {}\n\
                 next: bus pki issue broker/nats-1 --host localhost --host 127.0.0.1{flag}\n      \
                 bus pki issue core/core-01{flag}",
                authority.trust_domain(),
                dir.display(),
                ca.display(),
                key.display(),
                crl.display(),
                flag = dir_flag(dir),
            )
        },
        || {
            json!({
                "trust_domain": authority.trust_domain().as_str(),
                "certificate": ca, "key": key, "crl": crl, "not_after": not_after,
            })
        },
    )?;
    Ok(())
}

/// ` --dir DIR`, where it differs from the default.
fn dir_flag(dir: &Path) -> String {
    if dir == Path::new(DEFAULT_PKI) { String::new() } else { format!(" --dir {}", dir.display()) }
}

fn profile(args: &IssueArgs) -> anyhow::Result<Profile> {
    let Endpoint { role, component } = args.component.clone();
    let is_server = matches!(role.as_str(), "broker" | "relay");
    if is_server && args.hosts.is_empty() {
        return Err(Failure::usage(format!(
            "a {role}'s certificate names the hosts that it is reached by: add --host localhost --host 127.0.0.1, say"
        )));
    }
    let profile = match role.as_str() {
        "broker" => Profile::broker(component, &args.hosts),
        "relay" => Profile::relay(component, &args.hosts),
        _ if args.hosts.is_empty() => Profile::component(role, component),
        _ => Profile::service(role, component, &args.hosts),
    }?;
    let profile = profile.lifetime(DAY * args.days).key_algorithm(args.algorithm.into());
    Ok(if args.despite_revoked { profile.despite_revocation() } else { profile })
}

fn issue(args: &IssueArgs, output: Output) -> anyhow::Result<()> {
    let profile = profile(args)?;
    let authority = Authority::open(&args.place.dir)?;
    let folder = args.out.clone().unwrap_or_else(|| args.place.dir.join(args.component.role.as_str()));
    let (issued, files) = authority.issue_to(&folder, &profile, args.force).map_err(|error| refused(error, args))?;
    let revoked_until = record::admitted_until(&authority, issued.principal())?.map(time_of_seconds);
    if let Some(until) = &revoked_until {
        tracing::warn!(
            "the broker admits the revoked key of {} as well until {until}, as it knows components by name",
            args.component
        );
    }
    let not_after = time_of_seconds(issued.not_after());
    output.record(
        || {
            format!(
                "issued {}, valid until {not_after}\n  certificate  {}\n  private key  {}   (0600)\n  CA           {}\n\
                 next: {}",
                issued.principal(),
                files.certificate.display(),
                files.key.display(),
                authority.ca_path().display(),
                next_step(args),
            )
        },
        || {
            json!({
                "principal": issued.principal().to_string(),
                "serial": issued.serial(),
                "not_after": not_after,
                "revoked_key_admitted_until": revoked_until,
                "certificate": files.certificate,
                "key": files.key,
                "ca": authority.ca_path(),
            })
        },
    )?;
    Ok(())
}

/// Says what to do about a refusal in the words of this program.
fn refused(error: PkiError, args: &IssueArgs) -> anyhow::Error {
    match error {
        PkiError::AlreadyExists { path } => Failure::failed(format!(
            "`{}` exists; to replace it, add --force (the broker admits the former key as well until its certificate \
             expires, or {} is revoked and the server reloaded)",
            path.display(),
            args.component
        )),
        PkiError::RevokedName { until, .. } => Failure::failed(format!(
            "a certificate of {} is revoked, and with a new one the broker would admit its key again until {until}: it \
             reads no revocation list, and knows components by name; choose another name, or, if nobody has that key, add \
             --despite-revoked",
            args.component
        )),
        error => error.into(),
    }
}

fn next_step(args: &IssueArgs) -> String {
    let dir = args.place.dir.display();
    match args.component.role.as_str() {
        "broker" => format!("bus server run --from-pki {dir}, once its components have certificates"),
        "relay" => "a relay is no component: the broker's own configuration decides what it may do".to_owned(),
        _ => "the server must know it too: bus server run --from-pki does after a restart, or a reload (SIGHUP)"
            .to_owned(),
    }
}

fn revoke(args: RevokeArgs, output: Output) -> anyhow::Result<()> {
    let authority = Authority::open(args.place.dir)?;
    let (principal, revoked) = match (args.component, args.serial) {
        (Some(endpoint), _) => {
            let principal = Principal { trust_domain: authority.trust_domain().clone(), endpoint };
            let revoked = authority.revoke_principal(&principal)?;
            (principal, revoked)
        }
        (None, serial) => {
            let entry = authority.revoke_serial(&serial.unwrap_or_default())?;
            (entry.principal.clone(), vec![entry])
        }
    };
    let admitted_until = record::admitted_until(&authority, &principal)?.map(time_of_seconds);
    output.record(
        || {
            let lines: String =
                revoked.iter().map(|entry| format!("revoked {}  serial {}\n", entry.principal, entry.serial)).collect();
            let next = after_revocation(&principal, admitted_until.as_deref());
            format!("{lines}wrote {}\nnext: {next}", authority.crl_path().display())
        },
        || {
            json!({
                "revoked": revoked.iter().map(show::entry_json).collect::<Value>(),
                "revoked_key_admitted_until": admitted_until,
                "crl": authority.crl_path(),
            })
        },
    )?;
    Ok(())
}

fn after_revocation(principal: &Principal, admitted_until: Option<&str>) -> String {
    let component = &principal.endpoint;
    let give = "give the list to components that are told to check one (--crl)";
    match admitted_until {
        Some(until) => format!(
            "the broker still admits the revoked key until {until}, as {component}\n      has another certificate, and \
             the broker knows components by name; to lock the key out:\n      bus pki revoke {component}, reload the \
             server (SIGHUP), and issue to a new name;\n      {give}"
        ),
        None if record::is_listed(principal) => format!(
            "reload the server (SIGHUP to bus server run --from-pki): it disconnects what it no longer lists;\n      {give};\n      \
             issue to a new name in its place: the broker knows components by name, not by key"
        ),
        None => format!("{give}: no other will notice"),
    }
}

fn renew_crl(place: Place, days: u32, output: Output) -> anyhow::Result<()> {
    let authority = Authority::open(place.dir)?.crl_lifetime(DAY * days);
    authority.renew_crl()?;
    let crl = authority.crl_path();
    output
        .record(|| format!("wrote {}, good for {days} days", crl.display()), || json!({ "crl": crl, "days": days }))?;
    Ok(())
}
