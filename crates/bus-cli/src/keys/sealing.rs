//! The keys that others seal to: those of this component, in its own file.

use std::path::{Path, PathBuf};

use bus_client::{OwnKey, SealingKeys, SealingKeysError};
use bus_proto::Principal;
use bus_tls::TlsIdentity;
use serde_json::{Value, json};

use super::passphrase::PassphraseArgs;
use crate::exit::Outcome;
use crate::output::{Output, table};
use crate::settings::{Settings, sealing_passphrase};
use crate::values::time_of_millis;

/// Makes a new version, or the first one.
pub(super) fn rotate(settings: &Settings, output: Output) -> anyhow::Result<Outcome> {
    let (path, owner) = place(settings)?;
    let is_new = !path.try_exists()?;
    let keys = match sealing_passphrase()? {
        Some(passphrase) => SealingKeys::open_with_passphrase(&path, &owner, passphrase)?,
        None => SealingKeys::open(&path, &owner)?,
    };
    let newest = if is_new { keys.newest() } else { keys.rotate()? };
    output.record(
        || {
            let (version, until) = (newest.version(), time_of_millis(newest.not_after_unix_ms()));
            format!("the sealing key of {owner} has version {version}, until {until}\n{}", path.display())
        },
        || {
            json!({ "component": owner.endpoint.to_string(), "file": path, "version": newest.version(),
            "versions": keys.versions(), "until": time_of_millis(newest.not_after_unix_ms()) })
        },
    )?;
    Ok(Outcome::Done)
}

/// Writes all keys to a file, under a passphrase.
pub(super) fn export(to: &Path, args: &PassphraseArgs, settings: &Settings, output: Output) -> anyhow::Result<Outcome> {
    let (path, owner) = place(settings)?;
    let keys = SealingKeys::open_existing(path, &owner, sealing_passphrase()?)?;
    keys.export(to, &args.read(true)?)?;
    output.record(
        || format!("versions {} of the sealing key of {owner}\n{}", list(&keys.versions()), to.display()),
        || json!({ "component": owner.endpoint.to_string(), "file": to, "versions": keys.versions() }),
    )?;
    Ok(Outcome::Done)
}

/// Takes in the keys of an export.
pub(super) fn import(
    from: &Path,
    args: &PassphraseArgs,
    settings: &Settings,
    output: Output,
) -> anyhow::Result<Outcome> {
    let (path, owner) = place(settings)?;
    let (keys, imported) = SealingKeys::restore(from, &args.read(false)?, &path, &owner, sealing_passphrase()?)?;
    output.record(
        || {
            let (added, known) = (list(&imported.added), list(&imported.known));
            format!("sealing key of {owner}: versions added: {added}; known already: {known}\n{}", path.display())
        },
        || {
            json!({ "component": owner.endpoint.to_string(), "file": path, "added": imported.added,
            "known": imported.known, "versions": keys.versions() })
        },
    )?;
    Ok(Outcome::Done)
}

/// The file of the component's sealing keys, and whose they are.
fn place(settings: &Settings) -> anyhow::Result<(PathBuf, Principal)> {
    let options = settings.tls_options()?;
    let path = settings.sealing_keys(&options);
    Ok((path, TlsIdentity::load(options)?.principal()))
}

fn list(versions: &[u64]) -> String {
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
}

/// What is told about the sealing keys of this component.
pub(super) struct SealingListing {
    path: PathBuf,
    /// Ascending by version; or why they are not known.
    keys: Result<Vec<std::sync::Arc<OwnKey>>, SealingKeysError>,
}

impl SealingListing {
    /// Reads the file, if there is one, and leaves it as it is.
    pub(super) fn read(settings: &Settings, owner: &Principal) -> anyhow::Result<Self> {
        let path = settings.sealing_keys(&settings.tls_options()?);
        let keys = match SealingKeys::open_existing(&path, owner, sealing_passphrase()?) {
            Ok(keys) => Ok(keys.keys()),
            Err(SealingKeysError::Missing { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        Ok(Self { path, keys })
    }

    /// Whether they are known.
    pub(super) fn holds(&self) -> bool {
        self.keys.is_ok()
    }

    pub(super) fn to_text(&self) -> String {
        let keys = match &self.keys {
            Ok(keys) => keys,
            Err(error) => return format!("sealing keys: {error}\n"),
        };
        let Some(newest) = keys.last() else {
            return format!("there are no sealing keys yet in {}\n", self.path.display());
        };
        let mut table = table(["sealing key", "created", "sealed to until", ""]);
        for key in keys {
            let mark = if key.version() == newest.version() { "newest" } else { "" };
            let [created, until] = [key.created_unix_ms(), key.not_after_unix_ms()].map(time_of_millis);
            table.add_row([format!("version {}", key.version()), created, until, mark.to_owned()]);
        }
        format!("{table}\n")
    }

    pub(super) fn to_json(&self) -> Value {
        let keys = self.keys.as_deref().unwrap_or_default();
        let newest = keys.last().map(|key| key.version());
        let versions = keys.iter().map(|key| {
            json!({ "version": key.version(), "created": time_of_millis(key.created_unix_ms()),
                "until": time_of_millis(key.not_after_unix_ms()), "newest": Some(key.version()) == newest })
        });
        let error = self.keys.as_ref().err().map(ToString::to_string);
        json!({ "file": self.path, "versions": versions.collect::<Value>(), "error": error })
    }
}
