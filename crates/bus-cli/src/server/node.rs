//! The nodes of a cluster, as their certificates have them.

use std::net::IpAddr;
use std::path::Path;

use bus_natsd::KeyPin;
use bus_proto::{Endpoint, IdentityError};
use bus_tls::CertificateInfo;

use crate::exit::Failure;
use crate::settings::files_of;

/// Who a node is.
pub(super) fn broker(node: &str) -> anyhow::Result<Endpoint> {
    let endpoint = format!("broker/{node}").parse();
    endpoint.map_err(|error: IdentityError| Failure::usage(format!("node {node:?}: {error}")))
}

/// Where a node is reached, and the pin of its key: both as its certificate says.
pub(super) fn certificate(pki: &Path, node: &str) -> anyhow::Result<(String, KeyPin)> {
    let [path, _] = files_of(pki, &broker(node)?);
    let unusable = || {
        Failure::credentials(format!(
            "`{}` names no host: bus pki issue broker/{node} --host HOST --force",
            path.display()
        ))
    };
    let leaf = CertificateInfo::read(&path)?.into_iter().next().ok_or_else(unusable)?;
    let hosts = leaf.names.iter().filter_map(|name| name.strip_prefix("DNS:").or_else(|| name.strip_prefix("IP:")));
    // Where there is a name that others can use, this host's own are for itself.
    let (own, others): (Vec<&str>, Vec<&str>) = hosts
        .filter(|host| !host.starts_with('*'))
        .partition(|host| *host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()));
    let host = others.into_iter().chain(own).next().ok_or_else(unusable)?;
    let address = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Ok((address, leaf.key_fingerprint.parse()?))
}
