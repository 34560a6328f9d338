//! What a server is to be, put together from flags, settings and the authority's record.

use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use bus_natsd::{ClusterConfig, ServerConfig, TlsFiles};
use bus_proto::{Endpoint, Principal, TrustDomain};
use bus_tls::{CertificateInfo, TlsIdentity, TlsOptions};
use clap::Args;
use serde::Deserialize;

use super::node;
use crate::exit::Failure;
use crate::pki;
use crate::settings::{Settings, files_of};
use crate::values::size;

/// What nats-server accepts at most as its largest message, in bytes.
const MAX_PAYLOAD: u32 = 64 * 1024 * 1024;

/// Who provisions the streams unless told otherwise.
const DEFAULT_PROVISIONER: &str = "control/provisioner";

/// The port for routes unless told otherwise.
const DEFAULT_CLUSTER_PORT: u16 = 6222;

/// What a server is told: flags, or the table `server` in `bus.toml` with `_` for `-`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerFlags {
    /// Take the broker's certificate, the CA and all components with a valid certificate from this directory of `bus pki`
    #[arg(long, value_name = "DIR")]
    from_pki: Option<PathBuf>,

    /// The broker's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The private key of the broker's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Certificate of the deployment's CA, PEM [env: RANSOMEYE_TRUST_ROOT_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// A component that may connect, ROLE/COMPONENT; may be repeated
    #[arg(long = "component", value_name = "ROLE/COMPONENT")]
    component: Vec<String>,

    /// A file that lists components that may connect, one ROLE/COMPONENT per line; `#` begins a comment
    #[arg(long, value_name = "FILE")]
    components: Option<PathBuf>,

    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    host: Option<IpAddr>,

    /// The port to listen on, 0 for any free one [default: 4222; for `cluster`, any]
    #[arg(long)]
    port: Option<u16>,

    /// The server's name in logs [default: bus]
    #[arg(long)]
    name: Option<String>,

    /// The largest message, in bytes, up to 64 MiB [default: 262144]
    #[arg(long, value_name = "BYTES")]
    max_payload: Option<u32>,

    /// Where to keep streams, the key streams among them [default: jetstream in the directory of --from-pki, else
    /// none: without key streams; for `cluster`, cluster/jetstream there]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// How much all streams together may keep, such as 20GiB; in the settings file, in bytes [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_store: Option<u64>,

    /// Who makes the streams, and nobody else may [default: control/provisioner]
    #[arg(long, value_name = "ROLE/COMPONENT")]
    provisioner: Option<String>,

    /// The provisioner's certificate, PEM; for `run` [default: the one in the directory of --from-pki, issued if need be]
    #[arg(long, value_name = "FILE", requires = "provisioner_key")]
    provisioner_cert: Option<PathBuf>,

    /// The private key of the provisioner's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "provisioner_cert")]
    provisioner_key: Option<PathBuf>,

    /// Have the disk hold what a stream keeps before that is acknowledged: a loss of power then takes nothing of it
    #[arg(long)]
    sync_always: bool,

    /// Be the node of this name in a cluster, with the certificate of broker/NAME
    #[arg(long, value_name = "NAME", requires = "peer")]
    node: Option<String>,

    /// Another node of the cluster, all of which have to be named; its key and its address are those in the certificate of
    /// broker/NAME in the directory of --from-pki
    #[arg(long = "peer", value_name = "NAME", requires = "node")]
    peer: Vec<String>,

    /// The port for routes, on every node of the cluster [default: 6222]
    #[arg(long, value_name = "PORT", requires = "node", value_parser = clap::value_parser!(u16).range(1..))]
    cluster_port: Option<u16>,

    /// The port of nats-server's monitoring page, plain HTTP on 127.0.0.1 [default: none]
    #[arg(long, value_name = "PORT")]
    monitoring_port: Option<u16>,
}

impl ServerFlags {
    /// The directory of `bus pki`.
    pub(super) fn pki(&self) -> Option<&Path> {
        self.from_pki.as_deref()
    }

    /// What the nodes of a cluster on this machine have in common: these flags, with the certificate of one of them, any free
    /// ports, and a directory of their own for streams.
    pub(super) fn of_local_cluster(mut self, pki: &Path, node: &TlsFiles) -> anyhow::Result<Self> {
        if self.cert.is_some() || self.name.is_some() || self.node.is_some() {
            return Err(Failure::usage("cluster: its nodes have names and certificates of their own: name none"));
        }
        (self.cert, self.key) = (Some(node.cert.clone()), Some(node.key.clone()));
        self.port = self.port.or(Some(0));
        self.store = self.store.or_else(|| Some(pki.join("cluster").join("jetstream")));
        Ok(self)
    }

    /// The address to listen on.
    pub(super) fn host(&self) -> IpAddr {
        self.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// The paths in it.
    pub(crate) fn paths(&mut self) -> [&mut Option<PathBuf>; 8] {
        let Self { from_pki, cert, key, ca, components, store, provisioner_cert, provisioner_key, .. } = self;
        [from_pki, cert, key, ca, components, store, provisioner_cert, provisioner_key]
    }

    /// These flags, and where they say nothing, the lower ones. Lists are not merged.
    pub(crate) fn or(self, lower: Self) -> Self {
        Self {
            from_pki: self.from_pki.or(lower.from_pki),
            cert: self.cert.or(lower.cert),
            key: self.key.or(lower.key),
            ca: self.ca.or(lower.ca),
            component: if self.component.is_empty() { lower.component } else { self.component },
            components: self.components.or(lower.components),
            host: self.host.or(lower.host),
            port: self.port.or(lower.port),
            name: self.name.or(lower.name),
            max_payload: self.max_payload.or(lower.max_payload),
            store: self.store.or(lower.store),
            max_store: self.max_store.or(lower.max_store),
            provisioner: self.provisioner.or(lower.provisioner),
            provisioner_cert: self.provisioner_cert.or(lower.provisioner_cert),
            provisioner_key: self.provisioner_key.or(lower.provisioner_key),
            sync_always: self.sync_always || lower.sync_always,
            node: self.node.or(lower.node),
            peer: if self.peer.is_empty() { lower.peer } else { self.peer },
            cluster_port: self.cluster_port.or(lower.cluster_port),
            monitoring_port: self.monitoring_port.or(lower.monitoring_port),
        }
    }
}

/// What a server is to be. Components and policy are read anew whenever [`Plan::config`] is called.
#[derive(Debug)]
pub(super) struct Plan {
    flags: ServerFlags,
    settings: Settings,
    tls: TlsFiles,
    /// Where streams are kept; `None`: there are none.
    store: Option<PathBuf>,
    /// Held as long as the server may run.
    lock: Option<File>,
    provisioner: Endpoint,
}

impl Plan {
    /// Puts the flags before what the settings file says.
    pub(super) fn new(flags: ServerFlags, settings: Settings) -> anyhow::Result<Self> {
        let flags = flags.or(settings.server.clone());
        let ca = flags.ca.clone().or_else(|| Some(flags.from_pki.as_ref()?.join("ca.crt"))).or_else(|| settings.ca());
        let (cert, key) = match (&flags.cert, &flags.key, &flags.from_pki) {
            (Some(cert), Some(key), _) => (cert.clone(), key.clone()),
            (None, None, Some(pki)) => match &flags.node {
                Some(node) => files_of(pki, &node::broker(node)?).into(),
                None => pki::broker_files(pki)?.into(),
            },
            _ => return Err(Failure::usage("say what the server is: --from-pki DIR, or --cert, --key and --ca")),
        };
        let trust_root = ca.ok_or_else(|| Failure::usage("no CA certificate: give --ca FILE or --from-pki DIR"))?;
        let store = flags.store.clone().or_else(|| Some(flags.from_pki.as_ref()?.join("jetstream")));
        if store.is_none() && (flags.provisioner.is_some() || flags.provisioner_cert.is_some()) {
            return Err(Failure::usage("provisioner: without --store DIR there is nothing to provision"));
        }
        let provisioner = flags.provisioner.as_deref().unwrap_or(DEFAULT_PROVISIONER).parse();
        let provisioner = provisioner.map_err(|error| Failure::usage(format!("provisioner: {error}")))?;
        Ok(Self { flags, settings, tls: TlsFiles { cert, key, trust_root }, store, lock: None, provisioner })
    }

    /// Checks the broker's own credentials, so that what is wrong with them is said in our words.
    pub(super) fn check_credentials(&self) -> anyhow::Result<()> {
        let TlsFiles { cert, key, trust_root } = &self.tls;
        let options = TlsOptions::new(cert, key, trust_root).key_permissions(self.settings.key_permissions());
        TlsIdentity::load_server(options)?;
        Ok(())
    }

    /// As [`check_credentials`](Self::check_credentials), unless the files are on another host than this one.
    pub(super) fn check_credentials_that_are_here(&self) -> anyhow::Result<()> {
        let TlsFiles { cert, key, trust_root } = &self.tls;
        if [cert, key, trust_root].iter().all(|path| path.exists()) { self.check_credentials() } else { Ok(()) }
    }

    /// Makes the directory for streams, and keeps other servers out of it. If it was not asked for and cannot be had, the
    /// server does without.
    pub(super) fn claim_store(&mut self) -> anyhow::Result<()> {
        let Some(store) = &self.store else {
            tracing::warn!("there are no key streams: to have them, give --store DIR");
            return Ok(());
        };
        match claim(store) {
            Ok(lock) => self.lock = Some(lock),
            Err(error) if self.flags.store.is_none() => {
                tracing::warn!("there are no key streams, as {error}; to have them, give --store DIR");
                self.store = None;
            }
            Err(error) => return Err(Failure::failed(error)),
        }
        Ok(())
    }

    /// What it takes to connect as the provisioner; `None` when the server has no streams, or nobody said where the
    /// credentials are. With an authority at hand, they are issued if there are no valid ones.
    pub(super) fn provisioner_credentials(&self) -> anyhow::Result<Option<TlsOptions>> {
        let files = match (&self.store, &self.flags.provisioner_cert, &self.flags.provisioner_key, &self.flags.from_pki)
        {
            (None, ..) => None,
            (_, Some(cert), Some(key), _) => Some([cert.clone(), key.clone()]),
            (_, _, _, Some(pki)) => Some(pki::component_files(pki, &self.provisioner)?),
            _ => None,
        };
        let options = files.map(|[cert, key]| TlsOptions::new(cert, key, &self.tls.trust_root));
        Ok(options.map(|options| options.key_permissions(self.settings.key_permissions())))
    }

    /// The broker's certificate.
    pub(super) fn certificate(&self) -> &Path {
        &self.tls.cert
    }

    /// The configuration, as components and policy are now.
    pub(super) fn config(&self) -> anyhow::Result<ServerConfig> {
        let domain = self.trust_domain()?;
        let components = self.components(&domain)?;
        let mut config = ServerConfig::new(self.tls.clone(), components);
        config.jetstream_dir.clone_from(&self.store);
        config.jetstream_sync_always = self.flags.sync_always;
        config.provisioner = self.store.as_ref().map(|_| self.provisioner_in(&domain));
        config.policy = self.settings.policy()?.for_domain(domain);
        config.root = self.settings.root();
        config.monitoring_port = self.flags.monitoring_port;
        if let Some(host) = self.flags.host {
            config.host = host;
        }
        if let Some(port) = self.flags.port {
            config.port = port;
        }
        if let Some(name) = &self.flags.name {
            config.server_name.clone_from(name);
        }
        if let Some(node) = &self.flags.node {
            config.server_name.clone_from(node);
            config.cluster = Some(self.cluster(node, config.host)?);
        }
        if let Some(bytes) = self.flags.max_store {
            config.jetstream_max_bytes = bytes;
        }
        if let Some(bytes) = self.flags.max_payload {
            if !(1..=MAX_PAYLOAD).contains(&bytes) {
                return Err(Failure::usage(format!("max-payload: it must be 1 to {MAX_PAYLOAD} bytes")));
            }
            config.max_payload = bytes;
        }
        Ok(config)
    }

    /// The node's place in its cluster, as the certificates of all nodes have it.
    fn cluster(&self, node: &str, host: IpAddr) -> anyhow::Result<ClusterConfig> {
        let Some(pki) = &self.flags.from_pki else {
            return Err(Failure::usage("node: the keys of all nodes are taken from --from-pki DIR"));
        };
        let port = self.flags.cluster_port.unwrap_or(DEFAULT_CLUSTER_PORT);
        let mut pins = vec![node::certificate(pki, node)?.1];
        let mut routes = Vec::new();
        for peer in self.flags.peer.iter().filter(|peer| peer.as_str() != node) {
            let (address, pin) = node::certificate(pki, peer)?;
            routes.push(format!("{address}:{port}"));
            pins.push(pin);
        }
        let mut cluster = ClusterConfig::new(self.tls.clone(), pins, routes);
        (cluster.host, cluster.port) = (host, port);
        Ok(cluster)
    }

    /// The trust domain that is named, else the one in the broker's certificate.
    fn trust_domain(&self) -> anyhow::Result<TrustDomain> {
        if let Some(domain) = &self.settings.trust_domain {
            return Ok(domain.clone());
        }
        let certificates = CertificateInfo::read(&self.tls.cert)?;
        let principal = certificates.into_iter().next().and_then(|leaf| leaf.principal);
        principal.map(|principal| principal.trust_domain).ok_or_else(|| {
            Failure::credentials(format!(
                "the certificate `{}` names no trust domain; give --trust-domain, or issue one with `bus pki issue broker/NAME`",
                self.tls.cert.display()
            ))
        })
    }

    fn provisioner_in(&self, domain: &TrustDomain) -> Principal {
        Principal { trust_domain: domain.clone(), endpoint: self.provisioner.clone() }
    }

    fn components(&self, domain: &TrustDomain) -> anyhow::Result<Vec<Principal>> {
        let mut components = Vec::new();
        if let Some(pki) = &self.flags.from_pki {
            // The provisioner is admitted as such, and is no component merely because it has a certificate.
            let provisioner = self.provisioner_in(domain);
            components.extend(pki::components(pki)?.into_iter().filter(|component| *component != provisioner));
        }
        for text in &self.flags.component {
            components.push(component(text, domain).map_err(|error| Failure::usage(format!("component: {error}")))?);
        }
        if let Some(path) = &self.flags.components {
            components.extend(listed(path, domain)?);
        }
        if components.is_empty() && self.flags.from_pki.is_none() && self.flags.components.is_none() {
            return Err(Failure::usage("no component may connect: give --component, --components or --from-pki"));
        }
        if let Some(foreign) = components.iter().find(|component| component.trust_domain != *domain) {
            return Err(Failure::usage(format!(
                "component {foreign} is of another trust domain than the server's, {domain}: a server serves one"
            )));
        }
        components.sort_unstable();
        components.dedup();
        Ok(components)
    }
}

/// Makes the directory if need be, and locks it: nats-server does not notice when two of them use one.
fn claim(store: &Path) -> Result<File, String> {
    let file = std::fs::create_dir_all(store).and_then(|()| File::create(store.join("bus.lock")));
    let file = file.map_err(|error| format!("the store `{}` cannot be made: {error}", store.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("another server uses the store `{}`", store.display())),
        Err(TryLockError::Error(error)) => Err(format!("the store `{}` cannot be locked: {error}", store.display())),
    }
}

fn component(text: &str, domain: &TrustDomain) -> Result<Principal, bus_proto::IdentityError> {
    if text.starts_with("spiffe:") {
        return text.parse();
    }
    Ok(Principal { trust_domain: domain.clone(), endpoint: text.parse()? })
}

fn listed(path: &Path, domain: &TrustDomain) -> anyhow::Result<Vec<Principal>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("components `{}` cannot be read: {error}", path.display())))?;
    let mut components = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let name = line.split('#').next().unwrap_or_default().trim();
        if !name.is_empty() {
            components.push(component(name, domain).map_err(|error| {
                Failure::usage(format!("components `{}`, line {}: {error}", path.display(), index + 1))
            })?);
        }
    }
    Ok(components)
}
