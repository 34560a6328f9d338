//! `bus keys`: the keys that components sign with, as the keys stream has them, and the own ones that others seal to.

mod passphrase;
mod rotate;
mod sealing;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bus_client::{BusClient, NoSealingKey, PublishedKey, PublishedKeys, SealingKeyInfo};
use bus_crypto::UnverifiedBundle;
use bus_proto::Endpoint;
use bus_tls::CertificateInfo;
use clap::Subcommand;
use serde_json::{Value, json};

use passphrase::PassphraseArgs;
use sealing::SealingListing;

use crate::capture::{bundle_name, create_dir, write_new};
use crate::cli::block_on;
use crate::connect::{connect, leave};
use crate::escape::plain;
use crate::exit::Outcome;
use crate::output::{Output, table};
use crate::settings::{Layer, Settings};
use crate::values::{short, time_of_millis};

const EXAMPLES: &str = "\
A key belongs to one process and lives as long as it does. Its bundle says who signs with it and
until when, and a certificate vouches for that. Bundles travel with the messages; the keys stream
of the server has the latest eight of each component, those of its short commands among them.

Examples:
  bus keys show --as agent/agent-01
  bus keys fetch agent/agent-01 --out bundles --as core/core-01
  bus keys rotate --pid 4242 --as agent/agent-01
  bus keys seal-rotate --as core/core-01
  bus keys export core-01.export --as core/core-01

Sealing keys, to which others seal messages, are in a file that the processes of a component share,
beside its private key unless --sealing-keys says otherwise. RANSOMEYE_SEALING_PASSPHRASE, where it
is set, is the passphrase that the file is under, or is put under by the next command that writes it.";

/// What can be done about keys.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum KeysCommand {
    /// Show the keys of this component that the keys stream has, and the versions of its sealing key
    Show {
        #[command(flatten)]
        connection: Layer,
    },
    /// Fetch the key bundles of a component from the keys stream, and verify them; and its sealing key
    ///
    /// Exit code 0 only if at least one bundle holds.
    Fetch {
        /// Whose
        #[arg(value_name = "ROLE/COMPONENT")]
        component: Endpoint,

        /// Write each one that holds to this directory, as KEY_ID.bundle
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,

        #[command(flatten)]
        connection: Layer,
    },
    /// Have a running `bus agent`, `bus sub` or `bus watch` sign with a new key, by SIGUSR1
    ///
    /// A component signs with a new key by itself, every 12 hours and when its certificate was rotated. This is for more
    /// often than that. Nothing that it signed before becomes invalid.
    #[command(after_help = rotate::EXPLANATION)]
    Rotate {
        #[command(flatten)]
        args: rotate::RotateArgs,
        #[command(flatten)]
        connection: Layer,
    },
    /// Make a new version of this component's sealing key, without connecting
    ///
    /// Running processes of the component notice by themselves. The former versions stay for what was sealed to them.
    SealRotate {
        #[command(flatten)]
        connection: Layer,
    },
    /// Write all versions of this component's sealing key to a new file, under a passphrase
    Export {
        /// The file, which must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        passphrase: PassphraseArgs,
        #[command(flatten)]
        connection: Layer,
    },
    /// Take in the versions in an export of this component's sealing key
    ///
    /// An export with another key of a version that is there is refused, and nothing of it is taken in.
    Import {
        /// The export
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        passphrase: PassphraseArgs,
        #[command(flatten)]
        connection: Layer,
    },
}

impl KeysCommand {
    /// Does it.
    pub(crate) fn run(
        self,
        load: impl FnOnce(Layer) -> anyhow::Result<Settings>,
        output: Output,
    ) -> anyhow::Result<Outcome> {
        match self {
            Self::Show { connection } => block_on(show(load(connection)?, output)),
            Self::Fetch { component, out, connection } => block_on(fetch(component, out, load(connection)?, output)),
            Self::Rotate { args, connection } => block_on(rotate::run(args, load(connection)?, output)),
            Self::SealRotate { connection } => sealing::rotate(&load(connection)?, output),
            Self::Export { file, passphrase, connection } => {
                sealing::export(&file, &passphrase, &load(connection)?, output)
            }
            Self::Import { file, passphrase, connection } => {
                sealing::import(&file, &passphrase, &load(connection)?, output)
            }
        }
    }
}

async fn show(settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let bus = connect(&settings).await?;
    let own = bus.principal().clone();
    let published = published(&bus, &own.endpoint).await;
    leave(&bus).await?;
    let mut listing = Listing::new(&own.endpoint, &published?)?;
    let sealing = SealingListing::read(&settings, &own)?;
    let holds = sealing.holds();
    listing.sealing = Some(sealing);
    listing.print(output)?;
    Ok(if holds { Outcome::Done } else { Outcome::Failed })
}

async fn fetch(
    component: Endpoint,
    out: Option<PathBuf>,
    settings: Settings,
    output: Output,
) -> anyhow::Result<Outcome> {
    let bus = connect(&settings).await?;
    let published = published(&bus, &component).await;
    let sealed_to = bus.sealing_key_of(&component).await;
    leave(&bus).await?;
    let published = published?;
    let mut listing = Listing::new(&component, &published)?;
    listing.sealed_to = Some(sealed_to);
    if let Some(dir) = &out {
        listing.write(dir, &published.keys)?;
    }
    let holds = !listing.keys.is_empty();
    listing.print(output)?;
    Ok(if holds { Outcome::Done } else { Outcome::Failed })
}

/// What the keys stream has of a component. The key of this program itself is left out: it is of no use any more when
/// somebody reads of it.
async fn published(bus: &BusClient, component: &Endpoint) -> anyhow::Result<PublishedKeys> {
    let mut published = bus.published_keys(component).await?;
    published.keys.retain(|key| key.key_id != bus.signing_key());
    Ok(published)
}

/// What is told about the keys of a component.
struct Listing<'a> {
    component: &'a Endpoint,
    keys: Vec<Row>,
    /// Name of the reason, and what it says.
    refused: Vec<(&'static str, String)>,
    /// Those to seal to, where they are our own.
    sealing: Option<SealingListing>,
    /// The one that others seal to, as it is published.
    sealed_to: Option<Result<SealingKeyInfo, NoSealingKey>>,
}

struct Row {
    short: String,
    key_id: String,
    not_before: String,
    sign_until: String,
    verify_until: String,
    serial: String,
    file: Option<PathBuf>,
}

impl<'a> Listing<'a> {
    fn new(component: &'a Endpoint, published: &PublishedKeys) -> anyhow::Result<Self> {
        let refused = published.refused.iter().map(|rejected| (rejected.reason(), rejected.to_string()));
        Ok(Self {
            component,
            keys: published.keys.iter().map(Row::new).collect::<Result<_, _>>()?,
            refused: refused.collect(),
            sealing: None,
            sealed_to: None,
        })
    }

    fn write(&mut self, dir: &Path, keys: &[PublishedKey]) -> anyhow::Result<()> {
        create_dir(dir)?;
        for (row, key) in self.keys.iter_mut().zip(keys) {
            let name = bundle_name(&key.key_id);
            let path = dir.join(&name);
            write_new(dir, &name, &key.bundle).with_context(|| format!("`{}` cannot be written", path.display()))?;
            row.file = Some(path);
        }
        Ok(())
    }

    fn print(&self, output: Output) -> anyhow::Result<()> {
        output.record(|| self.to_text(), || self.to_json())?;
        Ok(())
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if self.keys.is_empty() {
            text.push_str(&format!("the keys stream has no key of {} that holds\n", self.component));
        } else {
            let mut table = table(["key", "valid from", "signs until", "verified until", "certificate"]);
            for Row { short, not_before, sign_until, verify_until, serial, .. } in &self.keys {
                table.add_row([short, not_before, sign_until, verify_until, serial]);
            }
            text.push_str(&format!("{table}\n"));
        }
        for file in self.keys.iter().filter_map(|row| row.file.as_ref()) {
            text.push_str(&format!("{}\n", file.display()));
        }
        for (_, detail) in &self.refused {
            text.push_str(&format!("refused: {}\n", plain(detail)));
        }
        if let Some(sealing) = &self.sealing {
            text.push_str(&sealing.to_text());
        }
        match &self.sealed_to {
            Some(Ok(SealingKeyInfo { version, not_after, .. })) => {
                text.push_str(&format!("sealed to: version {version}, until {}\n", time_of_millis(*not_after)));
            }
            Some(Err(error)) => text.push_str(&format!("sealed to: {}\n", plain(&error.to_string()))),
            None => {}
        }
        text
    }

    fn to_json(&self) -> Value {
        let key = |row: &Row| {
            json!({
                "key_id": row.key_id, "not_before": row.not_before, "sign_until": row.sign_until,
                "verify_until": row.verify_until, "certificate_serial": row.serial, "file": row.file,
            })
        };
        let mut listing = json!({
            "component": self.component.to_string(),
            "keys": self.keys.iter().map(key).collect::<Value>(),
            "refused": self.refused.iter().map(|(reason, detail)| json!({ "reason": reason, "detail": detail }))
                .collect::<Value>(),
        });
        if let Some(sealing) = &self.sealing {
            listing["sealing_keys"] = sealing.to_json();
        }
        if let Some(sealed_to) = &self.sealed_to {
            listing["sealed_to"] = match sealed_to {
                Ok(info) => json!({ "version": info.version, "until": time_of_millis(info.not_after) }),
                Err(error) => json!({ "error": error.to_string() }),
            };
        }
        listing
    }
}

impl Row {
    fn new(key: &PublishedKey) -> anyhow::Result<Self> {
        // It was read and verified already.
        let bundle = UnverifiedBundle::read(&key.bundle)?;
        let leaf = bundle.chain().first().context("a bundle without a certificate")?;
        Ok(Self {
            short: short(&key.key_id),
            key_id: key.key_id.to_string(),
            not_before: time_of_millis(key.lifetime.not_before),
            sign_until: time_of_millis(key.lifetime.sign_until),
            verify_until: time_of_millis(key.lifetime.verify_until),
            serial: CertificateInfo::from_der(leaf)?.serial,
            file: None,
        })
    }
}
