//! The streams of a server that runs here, and the key streams of one that runs elsewhere.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::Path;
use std::time::Duration;

use bus_acl::Policy;
use bus_client::{
    BusClient, BusOptions, ProvisionError, Provisioned, ProvisionedMessageStream, ProvisionedStreams, StreamOptions,
};
use bus_natsd::NatsServer;
use bus_proto::SubjectRoot;
use bus_tls::{CertificateInfo, TlsIdentity, TlsOptions};
use serde_json::json;

use crate::connect;
use crate::exit::Outcome;
use crate::output::Output;
use crate::settings::Settings;
use crate::streams::{self, outcome, remark};

/// How long the server beside us may take for each step.
const PATIENCE: Duration = Duration::from_secs(3);

/// What it takes to provision the server that runs here.
#[derive(Debug, Clone)]
pub(super) struct Provisioner {
    pub(super) url: String,
    pub(super) credentials: TlsOptions,
    pub(super) root: SubjectRoot,
    pub(super) policy: Policy,
    /// On how many nodes streams are kept; `None`: as they are, a new one on one.
    pub(super) replicas: Option<NonZeroU8>,
}

impl Provisioner {
    /// Connects as the provisioner, sees to the streams, and leaves. What did not work is logged.
    pub(super) async fn provision(self) -> Provisions {
        let root = self.root.clone();
        match self.try_provision().await {
            Ok((done, messages)) => {
                for (stream, done) in each(&root, done) {
                    tracing::info!("the key stream {stream} is there{}", remark(done));
                }
                Provisions { keys: true, messages: of_messages(&root, messages) }
            }
            Err(error) => {
                tracing::warn!("the key streams of {root} are not provisioned: {error:#}");
                Provisions::default()
            }
        }
    }

    async fn try_provision(self) -> anyhow::Result<(ProvisionedStreams, ProvisionedMessages)> {
        let credentials = self.credentials;
        let identity = tokio::task::spawn_blocking(move || TlsIdentity::load(credentials)).await??;
        let mut options = BusOptions::new(self.url, identity)
            .root(self.root)
            .policy(self.policy)
            .connect_timeout(PATIENCE)
            .operation_timeout(PATIENCE)
            .drain_timeout(PATIENCE);
        if let Some(nodes) = self.replicas {
            options = options.stream_replicas(nodes);
        }
        let bus = BusClient::connect(options).await?;
        let done = bus.provision_key_streams().await;
        let messages = bus.provision_streams(&StreamOptions::default()).await;
        // All that was asked for is answered: leaving late, or not at all, loses nothing.
        let _ = bus.drain().await;
        Ok((done?, messages))
    }
}

/// The streams that were seen to.
#[derive(Debug, Default)]
pub(super) struct Provisions {
    /// Whether the key streams are there.
    pub(super) keys: bool,
    /// The streams of durable messages that are there, by name.
    pub(super) messages: Vec<String>,
}

type ProvisionedMessages = Result<Vec<ProvisionedMessageStream>, ProvisionError>;

fn of_messages(root: &SubjectRoot, done: ProvisionedMessages) -> Vec<String> {
    match done {
        Ok(done) => {
            if !done.is_empty() {
                streams::applied(&done).lines().for_each(|line| tracing::info!("{}", line.trim_start()));
            }
            done.into_iter().map(|done| done.stream).collect()
        }
        Err(error) => {
            tracing::warn!("the streams of durable messages of {root} are not provisioned: {error:#}");
            Vec::new()
        }
    }
}

/// `bus server provision`.
pub(super) async fn provision(
    settings: Settings,
    replicas: Option<NonZeroU8>,
    output: Output,
) -> anyhow::Result<Outcome> {
    let bus = connect::connect_with(&settings, |options| match replicas {
        Some(nodes) => options.stream_replicas(nodes),
        None => options,
    })
    .await?;
    let done = bus.provision_key_streams().await?;
    connect::leave(&bus).await?;
    for (stream, done) in each(bus.root(), done) {
        output.record(
            || format!("the key stream {stream} is there{}", remark(done)),
            || json!({ "stream": stream, "outcome": outcome(done) }),
        )?;
    }
    Ok(Outcome::Done)
}

/// What became of each stream, by its name.
fn each(root: &SubjectRoot, done: ProvisionedStreams) -> [(String, Provisioned); 2] {
    [(root.bundles().name(), done.bundles), (root.sealing_keys().name(), done.sealing_keys)]
}

/// The address to dial the server at that runs here.
pub(super) fn address(server: &NatsServer, certificate: &Path) -> anyhow::Result<String> {
    let certificates = CertificateInfo::read(certificate)?;
    let names = certificates.first().map(|leaf| leaf.names.as_slice()).unwrap_or_default();
    let host = server.config().host;
    Ok(named_address(&server.url(), host.is_loopback() || host.is_unspecified(), server.port(), names))
}

/// The address that the certificate names: `url`, else `localhost` if the server listens there, else the first host that
/// is named. With none, `url`: the handshake will say what is wrong.
fn named_address(url: &str, is_local: bool, port: u16, names: &[String]) -> String {
    let hosts = names.iter().filter_map(|name| name.strip_prefix("IP:").or_else(|| name.strip_prefix("DNS:")));
    let hosts: Vec<&str> = hosts.filter(|host| !host.starts_with('*')).collect();
    let dialled = hosts.iter().find(|host| tls_url(host, port) == url);
    let localhost = hosts.iter().find(|host| is_local && **host == "localhost");
    dialled.or(localhost).or(hosts.first()).map_or_else(|| url.to_owned(), |host| tls_url(host, port))
}

fn tls_url(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("tls://[{address}]:{port}"),
        _ => format!("tls://{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_dialled_by_a_name_in_its_certificate() {
        let dialled = |url: &str, is_local, names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            named_address(url, is_local, 4222, &names)
        };
        let url = "tls://127.0.0.1:4222";
        assert_eq!(dialled(url, true, &["URI:spiffe://td/broker/n1", "DNS:localhost", "IP:127.0.0.1"]), url);
        assert_eq!(dialled(url, true, &["DNS:bus.example", "DNS:localhost"]), "tls://localhost:4222");
        assert_eq!(dialled(url, true, &["DNS:*.example", "DNS:bus.example"]), "tls://bus.example:4222");
        assert_eq!(dialled("tls://10.0.0.1:4222", false, &["DNS:localhost", "IP:10.0.0.1"]), "tls://10.0.0.1:4222");
        assert_eq!(dialled("tls://[::1]:4222", true, &["IP:::1"]), "tls://[::1]:4222");
        assert_eq!(dialled(url, true, &[]), url);
    }
}
