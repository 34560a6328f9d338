//! A deployment in a temporary directory: a CA, a broker with rendered permissions, and identities on demand.

use std::path::{Path, PathBuf};

use bus_acl::Policy;
use bus_client::{BusClient, BusOptions, Provisioned, SealingKeys};
use bus_natsd::{NatsServer, ServerConfig, TlsFiles};
use bus_proto::{Endpoint, Principal, TrustDomain};
use bus_tls::pki::{Authority, CaOptions, IssuedFiles, Profile};
use bus_tls::{TlsIdentity, TlsOptions};
use tempfile::TempDir;

/// The trust domain of every test deployment.
pub const TRUST_DOMAIN: &str = "ransomeye.test";

/// Who makes the key streams of a test deployment that has them.
pub const PROVISIONER: &str = "control/provisioner";

/// The pinned nats-server: `BUS_NATS_SERVER`, else the one that `cargo xtask fetch` put below the target directory.
///
/// # Panics
///
/// When there is none. Tests never take a server from `PATH`.
#[must_use]
pub fn pinned_server() -> PathBuf {
    if let Some(path) = std::env::var_os("BUS_NATS_SERVER") {
        return path.into();
    }
    let own = std::env::current_exe().expect("the path of this program");
    own.ancestors()
        .map(|folder| folder.join("tools/nats-server-2.15.1/nats-server"))
        .find(|program| program.exists())
        .expect("there is no pinned nats-server: run `cargo xtask fetch`")
}

/// A CA, a running nats-server with rendered permissions, and the files of its components.
#[derive(Debug)]
pub struct Deployment {
    /// The running server.
    pub server: NatsServer,
    /// The deployment's CA.
    pub authority: Authority,
    folder: TempDir,
}

impl Deployment {
    /// Starts a server that knows `components`, each as `role/component`, under the default policy.
    #[must_use]
    pub fn start(components: &[&str]) -> Self {
        Self::start_with(components, |_| {})
    }

    /// As [`Deployment::start`], with the key streams, which [`PROVISIONER`] has made.
    pub async fn start_with_key_streams(components: &[&str]) -> Self {
        Self::start_with_key_streams_and(components, |_| {}).await
    }

    /// As [`Deployment::start_with_key_streams`], with further changes to the server's configuration.
    pub async fn start_with_key_streams_and(components: &[&str], change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let store = folder.path().join("jetstream");
        let deployment = Self::start_in(folder, components, |config| {
            config.jetstream_dir = Some(store);
            config.provisioner = Some(principal(PROVISIONER));
            change(config);
        });
        let provisioner = deployment.connect(PROVISIONER).await;
        let done = provisioner.provision_key_streams().await.unwrap();
        assert_eq!((done.bundles, done.sealing_keys), (Provisioned::Created, Provisioned::Created));
        provisioner.drain().await.unwrap();
        deployment
    }

    /// As [`Deployment::start`], with further changes to the server's configuration.
    #[must_use]
    pub fn start_with(components: &[&str], change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), components, change)
    }

    fn start_in(folder: TempDir, components: &[&str], change: impl FnOnce(&mut ServerConfig)) -> Self {
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let authority = Authority::create(folder.path().join("pki"), domain, &CaOptions::default()).unwrap();
        let profile = Profile::broker("nats-1".parse().unwrap(), ["localhost", "127.0.0.1"]).unwrap();
        let broker = authority.issue(&profile).unwrap().write(folder.path(), false).unwrap();
        let tls = TlsFiles { cert: broker.certificate, key: broker.key, trust_root: authority.ca_path() };
        let mut config = ServerConfig::new(tls, components.iter().map(|name| principal(name)).collect());
        config.port = 0;
        change(&mut config);
        let server = NatsServer::start(pinned_server(), config).unwrap();
        Self { server, authority, folder }
    }

    /// The deployment's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Issues, or issues again, the certificate of `role/component`, and returns its files.
    #[must_use]
    pub fn issue(&self, name: &str) -> IssuedFiles {
        let endpoint: Endpoint = name.parse().unwrap();
        let profile = Profile::component(endpoint.role, endpoint.component).unwrap();
        self.authority.issue(&profile).unwrap().write(self.folder.path(), true).unwrap()
    }

    /// A checked identity for `role/component`.
    #[must_use]
    pub fn identity(&self, name: &str) -> TlsIdentity {
        let files = self.issue(name);
        TlsIdentity::load(TlsOptions::new(files.certificate, files.key, self.authority.ca_path())).unwrap()
    }

    /// Options to connect as `role/component` with the product's own client.
    pub fn options(&self, name: &str) -> BusOptions {
        BusOptions::new(self.server.url(), self.identity(name))
    }

    /// Connects as `role/component` with the product's own client.
    pub async fn connect(&self, name: &str) -> BusClient {
        BusClient::connect(self.options(name)).await.unwrap()
    }

    /// Publishes a sealing key of `role/component`, as if it had been there before: others can seal to it.
    pub async fn publish_sealing_key(&self, name: &str) {
        let identity = self.identity(name);
        let keys = SealingKeys::open(SealingKeys::default_path(identity.key_path()), &identity.principal()).unwrap();
        let component = BusClient::connect(BusOptions::new(self.server.url(), identity)).await.unwrap();
        component.publish_sealing_key(&keys).await.unwrap();
        component.drain().await.unwrap();
    }

    /// Replaces the server's components and policy, and reloads it.
    pub fn reconfigure(&mut self, components: &[&str], policy: Policy) {
        let mut config = self.server.config().clone();
        config.components = components.iter().map(|name| principal(name)).collect();
        config.policy = policy;
        self.server.reload(config).unwrap();
    }
}

/// The identity of `role/component` in the test trust domain.
#[must_use]
pub fn principal(name: &str) -> Principal {
    format!("spiffe://{TRUST_DOMAIN}/{name}").parse().unwrap()
}
