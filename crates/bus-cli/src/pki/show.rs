//! What was issued, and what certificates say.

use std::path::{Path, PathBuf};

use bus_tls::CertificateInfo;
use bus_tls::pki::{Authority, Entry};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::record::state;
use crate::output::{Output, table};
use crate::values::time_of_seconds;

/// Lists what was issued.
pub(super) fn list(dir: &Path, output: Output) -> anyhow::Result<()> {
    let entries = Authority::open(dir)?.issued()?;
    output.record(
        || {
            let mut table = table(["component", "state", "until", "serial"]);
            for entry in &entries {
                let component = entry.principal.endpoint.to_string();
                table.add_row([component.as_str(), state(entry), &time_of_seconds(entry.not_after), &entry.serial]);
            }
            if entries.is_empty() { "nothing was issued yet".to_owned() } else { table.to_string() }
        },
        || json!({ "issued": entries.iter().map(entry_json).collect::<Value>() }),
    )?;
    Ok(())
}

/// One certificate in the record, as JSON.
pub(super) fn entry_json(entry: &Entry) -> Value {
    json!({
        "principal": entry.principal.to_string(),
        "serial": entry.serial,
        "state": state(entry),
        "not_before": time_of_seconds(entry.not_before),
        "not_after": time_of_seconds(entry.not_after),
        "revoked_at": entry.revoked_at.map(time_of_seconds),
    })
}

/// Shows what is in certificate files.
pub(super) fn inspect(files: &[PathBuf], output: Output) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for file in files {
        found.extend(CertificateInfo::read(file)?.into_iter().map(|info| (file, info)));
    }
    output.record(
        || found.iter().map(|(file, info)| format!("{}\n{}\n", file.display(), describe(info))).collect(),
        || json!({ "certificates": found.iter().map(|(file, info)| info_json(file, info)).collect::<Value>() }),
    )?;
    Ok(())
}

fn describe(info: &CertificateInfo) -> Table {
    let now = Timestamp::now().as_second();
    let validity = match now {
        now if now < info.not_before => "not yet valid",
        now if now > info.not_after => "expired",
        _ => "current",
    };
    let kind = if info.is_ca { "certificate authority" } else { "end entity" };
    let principal = info.principal.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in [
        ("principal", principal),
        ("kind", kind.to_owned()),
        ("subject", info.subject.clone()),
        ("issuer", info.issuer.clone()),
        ("names", info.names.join(", ")),
        ("usages", info.usages.join(", ")),
        ("key", info.key.to_string()),
        ("valid from", time_of_seconds(info.not_before)),
        ("valid until", format!("{} ({validity})", time_of_seconds(info.not_after))),
        ("serial", info.serial.clone()),
        ("SHA-256", info.fingerprint.clone()),
        ("key SHA-256", info.key_fingerprint.clone()),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    table
}

fn info_json(file: &Path, info: &CertificateInfo) -> Value {
    json!({
        "file": file,
        "principal": info.principal.as_ref().map(ToString::to_string),
        "subject": info.subject, "issuer": info.issuer, "names": info.names, "usages": info.usages,
        "key": info.key.to_string(), "is_ca": info.is_ca, "serial": info.serial,
        "not_before": time_of_seconds(info.not_before), "not_after": time_of_seconds(info.not_after),
        "sha256": info.fingerprint, "key_sha256": info.key_fingerprint,
    })
}
