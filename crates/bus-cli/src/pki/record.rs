//! What the authority's record says about who may be on the bus.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bus_proto::{Endpoint, Principal};
use bus_tls::CertificateInfo;
use bus_tls::pki::{Authority, Entry, Profile};
use jiff::Timestamp;

use super::dir_flag;
use crate::exit::Failure;
use crate::settings::files_of;

/// The components that hold a certificate which is neither revoked nor expired, each once. Brokers and relays are not
/// among them.
pub(crate) fn components(pki: &Path) -> anyhow::Result<Vec<Principal>> {
    let entries = Authority::open(pki)?.issued()?;
    let mut components: Vec<_> = valid(&entries).map(|entry| entry.principal.clone()).filter(is_listed).collect();
    components.sort_unstable();
    components.dedup();
    Ok(components)
}

/// Whether the broker admits it because it is on the list: all but brokers and relays.
pub(super) fn is_listed(principal: &Principal) -> bool {
    !principal.role().is_reserved()
}

/// Until when the broker admits a principal's revoked keys, because the principal is listed for another certificate;
/// `None` when it admits none.
pub(super) fn admitted_until(authority: &Authority, principal: &Principal) -> anyhow::Result<Option<i64>> {
    let entries = authority.issued()?;
    if !is_listed(principal) || !valid(&entries).any(|entry| entry.principal == *principal) {
        return Ok(None);
    }
    Ok(authority.revoked_until(principal)?)
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

/// The certificate and key of a component. If it holds no valid certificate, or the files are not in their place, both are
/// issued now.
pub(crate) fn component_files(pki: &Path, component: &Endpoint) -> anyhow::Result<[PathBuf; 2]> {
    let authority = Authority::open(pki)?;
    let files = files_of(pki, component);
    let holds_one = valid(&authority.issued()?).any(|entry| {
        entry.principal.endpoint == *component && entry.principal.trust_domain == *authority.trust_domain()
    });
    if !holds_one || !files.iter().all(|path| path.exists()) {
        let profile = Profile::component(component.role.clone(), component.component.clone())?;
        let (issued, _) = authority.issue_to(pki.join(component.role.as_str()), &profile, true)?;
        tracing::info!("issued {}, as it had no valid certificate", issued.principal());
    }
    Ok(files)
}

/// The certificate and key of a node of a cluster on this machine, in the directory `cluster`, where nobody takes them for those
/// of a server elsewhere. If there is no valid certificate for this address, both are issued now.
pub(crate) fn local_node_files(pki: &Path, node: &str, host: IpAddr) -> anyhow::Result<[PathBuf; 2]> {
    let authority = Authority::open(pki)?;
    let folder = pki.join("cluster");
    let files = ["crt", "key"].map(|kind| folder.join(format!("{node}.{kind}")));
    let entries = authority.issued()?;
    let is_good = |info: &CertificateInfo| {
        info.names.contains(&format!("IP:{host}")) && valid(&entries).any(|entry| entry.serial == info.serial)
    };
    let is_there = CertificateInfo::read(&files[0]).is_ok_and(|read| read.first().is_some_and(is_good));
    if !is_there || !files[1].exists() {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), host.to_string()];
        let names: BTreeSet<_> = names.into_iter().collect();
        let (issued, _) = authority.issue_to(&folder, &Profile::broker(node.parse()?, names)?, true)?;
        tracing::info!("issued {}, as it had no valid certificate", issued.principal());
    }
    Ok(files)
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
