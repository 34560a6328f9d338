//! A deployment whose broker is a cluster of three nodes.

use std::num::NonZeroU8;
use std::path::Path;
use std::time::Duration;

use bus_client::{BusClient, BusOptions, Provisioned};
use bus_natsd::{ClusterLaunch, LocalCluster, Node, ServerConfig, TlsFiles};
use bus_proto::{Endpoint, TrustDomain};
use bus_tls::pki::{Authority, CaOptions, IssuedFiles, Profile};
use bus_tls::{CertificateInfo, TlsIdentity, TlsOptions};
use tempfile::TempDir;

use crate::deployment::{PROVISIONER, TRUST_DOMAIN, pinned_server, principal};

/// How many nodes there are, and on how many of them a stream is kept.
pub const NODES: u8 = 3;

/// A CA, a running cluster with rendered permissions, and the files of its components.
#[derive(Debug)]
pub struct ClusterDeployment {
    /// The running nodes.
    pub cluster: LocalCluster,
    /// The deployment's CA.
    pub authority: Authority,
    folder: TempDir,
}

impl ClusterDeployment {
    /// Starts three nodes that know `components`, each as `role/component`, under the default policy. [`PROVISIONER`] may
    /// make the key streams.
    #[must_use]
    pub fn start(components: &[&str]) -> Self {
        Self::start_with(components, |_| {})
    }

    /// As [`ClusterDeployment::start`], with further changes to what the nodes have in common.
    #[must_use]
    pub fn start_with(components: &[&str], change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let authority = Authority::create(folder.path().join("pki"), domain, &CaOptions::default()).unwrap();
        let nodes: Vec<Node> =
            (1..=NODES).map(|number| node(&authority, folder.path(), &format!("n{number}"))).collect();
        let components = components.iter().map(|name| principal(name)).collect();
        let mut template = ServerConfig::new(nodes[0].tls.clone(), components);
        template.port = 0;
        template.jetstream_dir = Some(folder.path().join("jetstream"));
        template.provisioner = Some(principal(PROVISIONER));
        template.lame_duck_duration = Duration::from_secs(30);
        template.lame_duck_grace_period = Duration::from_secs(2);
        change(&mut template);
        let cluster = ClusterLaunch::new(pinned_server()).start(&template, &nodes).unwrap();
        Self { cluster, authority, folder }
    }

    /// The deployment's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A node of this name that the cluster does not know, with a certificate like that of the others.
    #[must_use]
    pub fn unknown_node(&self, name: &str) -> Node {
        node(&self.authority, self.path(), name)
    }

    /// Issues the certificate of `role/component`, and returns its files.
    #[must_use]
    pub fn issue(&self, name: &str) -> IssuedFiles {
        let endpoint: Endpoint = name.parse().unwrap();
        let profile = Profile::component(endpoint.role, endpoint.component).unwrap();
        self.authority.issue(&profile).unwrap().write(self.path(), true).unwrap()
    }

    /// Options to connect as `role/component` to whichever node answers. A client leaves a lame duck within half a second.
    pub fn options(&self, name: &str) -> BusOptions {
        let files = self.issue(name);
        let identity =
            TlsIdentity::load(TlsOptions::new(files.certificate, files.key, self.authority.ca_path())).unwrap();
        let mut urls = self.cluster.urls().into_iter();
        let options = BusOptions::new(urls.next().expect("a node"), identity);
        urls.fold(options, BusOptions::server).reconnect_max_delay(Duration::from_millis(500))
    }

    /// Connects as `role/component`.
    pub async fn connect(&self, name: &str) -> BusClient {
        BusClient::connect(self.options(name)).await.unwrap()
    }

    /// Has [`PROVISIONER`] make the key streams, kept on every node.
    pub async fn provision(&self) -> Provisioned {
        let options = self.options(PROVISIONER).stream_replicas(NonZeroU8::new(NODES).expect("not zero"));
        let provisioner = BusClient::connect(options).await.unwrap();
        let done = provisioner.provision_key_streams().await.unwrap();
        assert_eq!(done.bundles, done.sealing_keys);
        provisioner.drain().await.unwrap();
        done.bundles
    }
}

fn node(authority: &Authority, folder: &Path, name: &str) -> Node {
    let profile = Profile::broker(name.parse().unwrap(), ["localhost", "127.0.0.1"]).unwrap();
    let files = authority.issue(&profile).unwrap().write(folder, false).unwrap();
    let pin = CertificateInfo::read(&files.certificate).unwrap()[0].key_fingerprint.parse().unwrap();
    let tls = TlsFiles { cert: files.certificate, key: files.key, trust_root: authority.ca_path() };
    Node { name: name.to_owned(), tls, pin }
}
