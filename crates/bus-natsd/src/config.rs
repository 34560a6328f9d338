use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use bus_acl::{Permissions, Policy};
use bus_proto::{Principal, SubjectRoot};

use crate::cluster::ClusterConfig;
use crate::error::ConfigError;
use crate::syntax::{quoted, quoted_list, quoted_path};

/// The shortest lame duck mode that nats-server accepts.
const MINIMUM_LAME_DUCK: Duration = Duration::from_secs(30);

/// The server's own certificate, and the CA that every client's certificate must come from. All PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by its intermediates. Clients check that it names the host they dialled.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The deployment's CA: the only trust there is, for clients and servers alike.
    pub trust_root: PathBuf,
}

/// Everything that a nats-server of the bus is told.
///
/// Make one with [`ServerConfig::new`] and set the fields that should differ. Every rendered configuration demands a
/// client certificate of the deployment's CA over TLS 1.3 before the first protocol byte, and admits exactly the listed
/// components; there is no field that weakens this.
///
/// ```
/// use bus_natsd::{ServerConfig, TlsFiles};
///
/// let tls = TlsFiles { cert: "server.crt".into(), key: "server.key".into(), trust_root: "ca.crt".into() };
/// let mut config = ServerConfig::new(tls, vec!["spiffe://ransomeye.local/agent/agent-01".parse()?]);
/// config.max_payload = 64 * 1024;
/// let text = config.render()?;
/// assert!(text.contains("verify_and_map: true"));
/// assert!(text.contains(r#"user: "spiffe://ransomeye.local/agent/agent-01""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The server's name in logs and in a cluster, where each node has another. Default: `bus`.
    pub server_name: String,
    /// The address to listen on. Default: `127.0.0.1`, so that opening it to the network is a decision.
    pub host: IpAddr,
    /// The port to listen on. Default: 4222. 0 means any free one, which [`NatsServer::port`] then tells.
    ///
    /// [`NatsServer::port`]: crate::NatsServer::port
    pub port: u16,
    /// Certificate, key and trust root.
    pub tls: TlsFiles,
    /// The subject root of the bus. Default: `ransomeye`.
    pub root: SubjectRoot,
    /// Who may publish and receive what. Default: the default policy of `bus-acl`. It is applied as the policy of the
    /// components' trust domain.
    pub policy: Policy,
    /// The components that may connect, all of one trust domain. An empty list lets nobody in.
    pub components: Vec<Principal>,
    /// The largest message in bytes. A client that sends a larger one is disconnected. Default: 256 KiB.
    pub max_payload: u32,
    /// The most connections at a time. Default: 10,000.
    pub max_connections: u32,
    /// The most subscriptions of one connection. Default: 256.
    pub max_subscriptions: u32,
    /// Where JetStream keeps its streams. Default: none, JetStream is off.
    pub jetstream_dir: Option<PathBuf>,
    /// The most that JetStream keeps, in bytes, all on disk. Default: 1 GiB. The key streams take half of that, and the two
    /// streams of durable messages a quarter each unless the operator gives them more or less.
    pub jetstream_max_bytes: u64,
    /// Whether JetStream has what it keeps on the disk before it says so, so that a loss of power takes nothing of that. It
    /// costs a node by itself most of its throughput, and a cluster a third. Default: no, the operating system is told every
    /// two minutes.
    pub jetstream_sync_always: bool,
    /// The node's place in a cluster. Default: none, the server is by itself.
    pub cluster: Option<ClusterConfig>,
    /// Within how long a server in lame duck mode closes its clients' connections, the grace period included. Whole
    /// milliseconds, at least 30 s. Default: 2 minutes.
    pub lame_duck_duration: Duration,
    /// How long a server in lame duck mode leaves its clients to go elsewhere by themselves, before it closes the first
    /// connection. Whole milliseconds, less than the duration. Default: 10 s. Clients of the bus go within 5 s.
    pub lame_duck_grace_period: Duration,
    /// Who may create and update the key streams ([`SubjectRoot::bundles`], [`SubjectRoot::sealing_keys`]) and the streams
    /// of durable messages ([`SubjectRoot::events_stream`], [`SubjectRoot::inbox_stream`]) with their consumers, besides
    /// what the policy lets it do. It may connect whether or not it is among the components. Default: none. It needs a
    /// JetStream directory.
    pub provisioner: Option<Principal>,
    /// The port of the monitoring page, which is plain HTTP and therefore only ever on 127.0.0.1 (0: any free one).
    /// Default: none, the page is off.
    pub monitoring_port: Option<u16>,
}

impl ServerConfig {
    /// A configuration with the defaults that stand at each field.
    #[must_use]
    pub fn new(tls: TlsFiles, components: Vec<Principal>) -> Self {
        Self {
            server_name: "bus".to_owned(),
            host: Ipv4Addr::LOCALHOST.into(),
            port: 4222,
            tls,
            root: SubjectRoot::default(),
            policy: Policy::default(),
            components,
            max_payload: 256 * 1024,
            max_connections: 10_000,
            max_subscriptions: 256,
            jetstream_dir: None,
            jetstream_max_bytes: 1 << 30,
            jetstream_sync_always: false,
            cluster: None,
            lame_duck_duration: Duration::from_secs(120),
            lame_duck_grace_period: Duration::from_secs(10),
            provisioner: None,
            monitoring_port: None,
        }
    }

    /// The whole configuration as the text of a nats-server configuration file. Relative paths become absolute.
    ///
    /// It holds no secret: keys are named by their paths.
    ///
    /// # Errors
    ///
    /// When a component is listed twice, when components and provisioner are not all of one trust domain, when there is a
    /// provisioner but no JetStream, when a text or path cannot be written to such a file, when a limit is zero, when the times
    /// of the lame duck mode are none that nats-server takes, or when a cluster has no pins, no other nodes or malformed routes.
    pub fn render(&self) -> Result<String, ConfigError> {
        self.check_users()?;
        self.check_limits()?;
        let mut text = String::from(
            "# Rendered by bus-natsd from the policy and the list of components: change those, not this file.\n",
        );
        // Writing to a string cannot fail, so the results below carry nothing.
        let _ = writeln!(text, "server_name: {}", quoted("server name", &self.server_name)?);
        let _ = writeln!(text, "host: {}", quoted("host", &self.host.to_string())?);
        let _ = writeln!(text, "port: {}", port_number(self.port));
        let _ = writeln!(text, "max_payload: {}", self.max_payload);
        let _ = writeln!(text, "max_connections: {}", self.max_connections);
        if let Some(port) = self.monitoring_port {
            let _ = writeln!(text, "http: \"127.0.0.1:{}\"", port_number(port));
        }
        if let Some(directory) = &self.jetstream_dir {
            let directory = quoted_path("JetStream directory", directory)?;
            let bytes = self.jetstream_max_bytes;
            let sync = if self.jetstream_sync_always { ", sync_interval: always" } else { "" };
            let _ = writeln!(
                text,
                "jetstream {{ store_dir: {directory}, max_file_store: {bytes}, max_memory_store: 0{sync} }}"
            );
        }
        let _ = writeln!(text, "lame_duck_duration: \"{}ms\"", self.lame_duck_duration.as_millis());
        let _ = writeln!(text, "lame_duck_grace_period: \"{}ms\"", self.lame_duck_grace_period.as_millis());
        if let Some(cluster) = &self.cluster {
            text.push_str(&cluster.render()?);
        }
        text.push_str(&self.render_tls()?);
        // How long a client may take to present itself, in seconds.
        text.push_str("authorization { timeout: 1.5 }\n");
        text.push_str("system_account: SYS\n");
        text.push_str(&self.render_accounts()?);
        Ok(text)
    }

    /// Who may connect, each once if no component is listed twice.
    fn users(&self) -> impl Iterator<Item = &Principal> {
        let provisioner = self.provisioner.iter().filter(|provisioner| !self.components.contains(provisioner));
        self.components.iter().chain(provisioner)
    }

    fn check_users(&self) -> Result<(), ConfigError> {
        let mut seen = HashSet::new();
        for component in self.users() {
            if let Some(first) = self.users().next()
                && component.trust_domain != first.trust_domain
            {
                return Err(ConfigError::ForeignTrustDomain {
                    component: component.clone(),
                    expected: first.trust_domain.clone(),
                });
            }
            if !seen.insert(component) {
                return Err(ConfigError::DuplicateComponent(component.clone()));
            }
        }
        match (&self.provisioner, &self.jetstream_dir) {
            (Some(provisioner), None) => Err(ConfigError::NothingToProvision(provisioner.clone())),
            _ => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = [
            ("max_payload", self.max_payload.into()),
            ("max_connections", self.max_connections.into()),
            ("max_subscriptions", self.max_subscriptions.into()),
            ("jetstream_max_bytes", self.jetstream_max_bytes),
        ];
        if let Some((what, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(ConfigError::ZeroLimit { what });
        }
        let (duration, grace) = (self.lame_duck_duration, self.lame_duck_grace_period);
        if duration < MINIMUM_LAME_DUCK || grace >= duration {
            return Err(ConfigError::LameDuck { duration, grace });
        }
        Ok(())
    }

    fn render_tls(&self) -> Result<String, ConfigError> {
        Ok(format!(
            "tls {{\n  cert_file: {}\n  key_file: {}\n  ca_file: {}\n  verify_and_map: true\n  handshake_first: true\n  \
             min_version: \"1.3\"\n  timeout: 5\n}}\n",
            quoted_path("certificate", &self.tls.cert)?,
            quoted_path("key", &self.tls.key)?,
            quoted_path("trust root", &self.tls.trust_root)?,
        ))
    }

    /// Payload and subscriptions are bounded at the account, as nats-server does not enforce them per user.
    fn render_accounts(&self) -> Result<String, ConfigError> {
        let jetstream = if self.jetstream_dir.is_some() { "    jetstream: enabled\n" } else { "" };
        let mut text = format!(
            "accounts {{\n  SYS {{}}\n  BUS {{\n{jetstream}    limits {{ max_payload: {}, max_connections: {}, \
             max_subscriptions: {} }}\n    users: [\n",
            self.max_payload, self.max_connections, self.max_subscriptions
        );
        // All users are of one trust domain by now; the clients bind the policy to it as well.
        let local = self.users().next().map(|user| user.trust_domain.clone());
        let is_empty = local.is_none();
        let policy = local.map_or_else(|| self.policy.clone(), |local| self.policy.clone().for_domain(local));
        for user in self.users() {
            let mut permissions = policy.permissions(&self.root, user);
            if self.provisioner.as_ref() == Some(user) {
                permissions.publish_allow.extend(self.provisioning_subjects());
            }
            text.push_str(&render_user(&user.spiffe_id(), &permissions)?);
        }
        if is_empty {
            // Without any user nats-server asks nobody who they are. No certificate of the bus bears this name.
            text.push_str(&render_user("nobody: no component is configured", &Permissions::default())?);
        }
        text.push_str("    ]\n  }\n}\n");
        Ok(text)
    }

    /// What it takes to see to it that the streams are there, and no more: not to delete or to empty one, nor to read what it
    /// keeps. Consumers come and go with the policy, so those can be removed.
    fn provisioning_subjects(&self) -> impl Iterator<Item = String> {
        let messages = [self.root.events_stream().name(), self.root.inbox_stream().name()];
        let consumers = messages.clone().into_iter().flat_map(|stream| {
            let each = ["CREATE", "INFO", "DELETE"].map(|operation| format!("$JS.API.CONSUMER.{operation}.{stream}.*"));
            each.into_iter().chain([format!("$JS.API.CONSUMER.LIST.{stream}")])
        });
        let keys = [self.root.bundles().name(), self.root.sealing_keys().name()];
        let streams = keys.into_iter().chain(messages).flat_map(|stream| {
            ["CREATE", "INFO", "UPDATE"].map(|operation| format!("$JS.API.STREAM.{operation}.{stream}"))
        });
        streams.chain(consumers)
    }
}

fn render_user(name: &str, permissions: &Permissions) -> Result<String, ConfigError> {
    let name = quoted("component", name)?;
    let publish = render_rules(&permissions.publish_allow, &permissions.publish_deny)?;
    let subscribe = render_rules(&permissions.subscribe_allow, &permissions.subscribe_deny)?;
    Ok(format!(
        "      {{
        user: {name}
        permissions {{
          publish {{
            {publish}
          }}
          subscribe {{
            {subscribe}
          }}
        }}
      }}\n"
    ))
}

/// Nothing allowed is written as everything denied, since nats-server reads an empty list as no restriction.
fn render_rules(allow: &[String], deny: &[String]) -> Result<String, ConfigError> {
    if allow.is_empty() {
        return Ok("deny: [ \">\" ]".to_owned());
    }
    let allow = quoted_list("allowed subject", allow)?;
    if deny.is_empty() {
        return Ok(format!("allow: {allow}"));
    }
    Ok(format!("allow: {allow}\n            deny: {}", quoted_list("denied subject", deny)?))
}

/// nats-server's way to ask for any free port is -1.
pub(crate) fn port_number(port: u16) -> i32 {
    if port == 0 { -1 } else { i32::from(port) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_acl::{DeliveryRule, Destinations, Durable, Right, Rule, Source, Types, Who};
    use bus_proto::MessageType;

    fn config(components: &[&str]) -> ServerConfig {
        let tls = TlsFiles { cert: "/a b/server.crt".into(), key: "/k".into(), trust_root: "/ca".into() };
        ServerConfig::new(tls, components.iter().map(|id| id.parse().unwrap()).collect())
    }

    #[test]
    fn a_component_listed_twice_is_refused() {
        let twice = config(&["spiffe://td/agent/a", "spiffe://td/agent/b", "spiffe://td/agent/a"]);
        let error = twice.render().unwrap_err();
        assert!(matches!(&error, ConfigError::DuplicateComponent(who) if who.component().as_str() == "a"), "{error}");
    }

    #[test]
    fn a_component_of_another_trust_domain_is_refused() {
        let error = config(&["spiffe://td/agent/a", "spiffe://other/agent/a"]).render().unwrap_err();
        assert!(matches!(&error, ConfigError::ForeignTrustDomain { .. }), "{error}");
    }

    #[test]
    fn a_policy_that_names_trust_domains_is_applied_as_the_components_own() {
        let mut config = config(&["spiffe://td/agent/a"]);
        let rule = |domain: &str| {
            let who = Who::every_role().trust_domain(domain.parse().unwrap());
            Rule::allow(who, Right::PublishEvents, Types::EVERY)
        };
        config.policy = Policy::new([rule("td")]);
        assert!(config.render().unwrap().contains("ransomeye.events.*.agent.a"));
        config.policy = Policy::new([rule("other")]);
        assert!(!config.render().unwrap().contains("ransomeye.events"));
    }

    #[test]
    fn jetstream_is_bounded_on_disk_and_has_no_memory() {
        let mut config = config(&[]);
        config.jetstream_dir = Some("/data".into());
        config.jetstream_max_bytes = 12_345;
        let text = config.render().unwrap();
        assert!(text.contains("max_file_store: 12345, max_memory_store: 0"), "{text}");
        config.jetstream_max_bytes = 0;
        assert!(config.render().unwrap_err().to_string().contains("jetstream_max_bytes"));
    }

    #[test]
    fn what_jetstream_keeps_is_synced_at_once_when_asked_for() {
        let mut config = config(&[]);
        config.jetstream_dir = Some("/data".into());
        assert!(!config.render().unwrap().contains("sync_interval"));
        config.jetstream_sync_always = true;
        assert!(config.render().unwrap().contains("sync_interval: always }"));
    }

    #[test]
    fn times_of_the_lame_duck_mode_that_the_server_would_refuse_are_refused() {
        let mut config = config(&[]);
        config.lame_duck_duration = Duration::from_secs(30);
        config.lame_duck_grace_period = Duration::from_millis(1_500);
        let text = config.render().unwrap();
        assert!(text.contains("lame_duck_duration: \"30000ms\""), "{text}");
        assert!(text.contains("lame_duck_grace_period: \"1500ms\""), "{text}");
        config.lame_duck_grace_period = Duration::from_secs(30);
        assert!(matches!(config.render(), Err(ConfigError::LameDuck { .. })));
        config.lame_duck_duration = Duration::from_secs(29);
        config.lame_duck_grace_period = Duration::from_secs(1);
        assert!(matches!(config.render(), Err(ConfigError::LameDuck { .. })));
    }

    #[test]
    fn a_limit_of_zero_is_refused() {
        let mut config = config(&[]);
        config.max_subscriptions = 0;
        assert!(config.render().unwrap_err().to_string().contains("max_subscriptions"));
    }

    #[test]
    fn a_path_with_a_control_character_is_refused() {
        let mut config = config(&[]);
        config.tls.key = "/keys/a\nno_auth_user: x".into();
        assert!(matches!(config.render(), Err(ConfigError::Unwritable { what: "key", .. })));
    }

    #[test]
    fn monitoring_and_jetstream_are_off_unless_asked_for() {
        let mut config = config(&["spiffe://td/agent/a"]);
        let text = config.render().unwrap();
        assert!(!text.contains("http") && !text.contains("jetstream"), "{text}");
        config.monitoring_port = Some(0);
        config.jetstream_dir = Some("/data".into());
        let text = config.render().unwrap();
        assert!(text.contains("http: \"127.0.0.1:-1\"") && text.contains("store_dir: \"/data\""), "{text}");
    }

    /// The rendered user of this name.
    fn user<'a>(text: &'a str, name: &str) -> &'a str {
        let mut users = text.split("user: ").filter(|user| user.starts_with(&format!("{name:?}")));
        let user = users.next().expect("a user of this name");
        assert!(users.next().is_none(), "{name} is there twice");
        user
    }

    #[test]
    fn the_provisioner_alone_may_create_the_streams_whether_or_not_it_is_a_component() {
        let name = "spiffe://td/control/provisioner";
        for components in [&["spiffe://td/agent/a"][..], &["spiffe://td/agent/a", name]] {
            let mut config = config(components);
            config.jetstream_dir = Some("/data".into());
            config.provisioner = Some(name.parse().unwrap());
            let text = config.render().unwrap();
            assert_eq!(text.matches("$JS.API.STREAM.").count(), 12, "{text}");
            assert_eq!(text.matches("$JS.API.CONSUMER.").count(), 8, "{text}");
            for stream in ["RANSOMEYE_EVENTS", "RANSOMEYE_INBOX"] {
                for subject in
                    ["STREAM.CREATE.#", "STREAM.INFO.#", "STREAM.UPDATE.#", "CONSUMER.CREATE.#.*", "CONSUMER.LIST.#"]
                {
                    let subject = format!("\"$JS.API.{}\"", subject.replace('#', stream));
                    assert!(user(&text, name).contains(&subject), "{text}");
                }
            }
            for (stream, space) in [("RANSOMEYE_KEYS", "keys"), ("RANSOMEYE_SEALING", "sealing")] {
                for operation in ["CREATE", "INFO", "UPDATE"] {
                    let subject = format!("\"$JS.API.STREAM.{operation}.{stream}\"");
                    assert!(user(&text, name).contains(&subject), "{text}");
                }
                assert!(user(&text, name).contains(&format!("ransomeye.{space}.control.provisioner")), "{text}");
                assert!(user(&text, "spiffe://td/agent/a").contains(&format!("ransomeye.{space}.agent.a")), "{text}");
            }
        }
    }

    #[test]
    fn a_consumer_of_durable_messages_is_there_for_its_component_alone() {
        let mut config = config(&["spiffe://td/agent/a", "spiffe://td/core/c", "spiffe://td/core/d"]);
        let alerts = Types::only([MessageType::Alert]);
        let durable = Durable::new("all".parse().unwrap(), "core/c".parse().unwrap(), alerts.clone(), Source::Events);
        let delivery = DeliveryRule::durable(alerts, Destinations::Events, 90_000);
        let policy = Policy::default().with_deliveries([delivery]).unwrap();
        config.policy = policy.with_durables([durable]).unwrap();
        let text = config.render().unwrap();
        for subject in ["$JS.API.CONSUMER.MSG.NEXT.#", "$JS.API.CONSUMER.INFO.#", "$JS.ACK.#.>"] {
            let subject = format!("\"{}\"", subject.replace('#', "RANSOMEYE_EVENTS.core_c_all"));
            assert!(user(&text, "spiffe://td/core/c").contains(&subject), "{text}");
            assert_eq!(text.matches(&subject).count(), 1, "{text}");
        }
        assert_eq!(text.matches("_EVENTS").count(), 3, "{text}");
    }

    #[test]
    fn a_provisioner_without_jetstream_or_of_another_trust_domain_is_refused() {
        let mut config = config(&["spiffe://td/agent/a"]);
        config.provisioner = Some("spiffe://td/control/provisioner".parse().unwrap());
        assert!(matches!(config.render(), Err(ConfigError::NothingToProvision(_))));
        config.jetstream_dir = Some("/data".into());
        config.provisioner = Some("spiffe://other/control/provisioner".parse().unwrap());
        assert!(matches!(config.render(), Err(ConfigError::ForeignTrustDomain { .. })));
    }

    #[test]
    fn nothing_allowed_is_rendered_as_everything_denied() {
        assert_eq!(render_rules(&[], &["a".into()]).unwrap(), "deny: [ \">\" ]");
        assert_eq!(
            render_rules(&["a.>".into()], &["a.b".into()]).unwrap(),
            "allow: [ \"a.>\" ]\n            deny: [ \"a.b\" ]"
        );
        let everybody_out = config(&[]).render().unwrap();
        assert!(everybody_out.matches("deny: [ \">\" ]").count() == 2, "{everybody_out}");
    }
}
