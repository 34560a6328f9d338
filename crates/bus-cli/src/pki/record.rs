//! What the authority's record says about who may be on the bus.

use std::path::{Path, PathBuf};

use bus_proto::Principal;
use bus_tls::pki::{Authority, Entry};
use jiff::Timestamp;

use super::dir_flag;
use crate::exit::Failure;
use crate::settings::files_of;

/// The components that hold a certificate which is neither revoked nor expired, each once. Brokers and relays are not
/// among them.
pub(crate) fn components(pki: &Path) -> anyhow::Result<Vec<Principal>> {
    let entries = Authority::open(pki)?.issued()?;
    let mut components: Vec<_> = valid(&entries)
        .map(|entry| entry.principal.clone())
        .filter(|principal| !matches!(principal.role().as_str(), "broker" | "relay"))
        .collect();
    components.sort_unstable();
    components.dedup();
    Ok(components)
}

/// The certificate and key of the broker that was last issued one which is still valid and in its place.
pub(crate) fn broker_files(pki: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let entries = Authority::open(pki)?.issued()?;
    let brokers = valid(&entries).filter(|entry| entry.principal.role().as_str() == "broker");
    let mut files = brokers.map(|entry| files_of(pki, &entry.principal.endpoint));
    files.rfind(|files| files.iter().all(|path| path.exists())).ok_or_else(|| {
        Failure::credentials(format!(
            "`{}` holds no valid certificate for a broker; make one: bus pki issue broker/nats-1 --host localhost --host \
             127.0.0.1{}",
            pki.display(),
            dir_flag(pki)
        ))
    })
}

fn valid(entries: &[Entry]) -> impl DoubleEndedIterator<Item = &Entry> {
    entries.iter().filter(|entry| state(entry) == "valid")
}

/// Whether a certificate can be used, in one word.
pub(super) fn state(entry: &Entry) -> &'static str {
    if entry.revoked_at.is_some() {
        "revoked"
    } else if entry.not_after < Timestamp::now().as_second() {
        "expired"
    } else {
        "valid"
    }
}
