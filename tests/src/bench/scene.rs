//! The deployment that every contender runs against: one server, one policy, two components.

use anyhow::{Context as _, Result};
use bus_acl::Policy;
use bus_natsd::ServerConfig;
use bus_tls::TlsIdentity;

use crate::deployment::Deployment;

/// Who publishes, and who is asked.
pub(crate) const SENDER: &str = "agent/agent-01";

/// Who receives, and who asks.
pub(crate) const RECEIVER: &str = "core/core-01";

/// The type of the events.
pub(crate) const EVENT_TYPE: &str = "x-telemetry";

/// What the events are published to.
pub(crate) const EVENT_SUBJECT: &str = "ransomeye.events.x-telemetry.agent.agent-01";

/// What they are subscribed to as.
pub(crate) const EVENT_FILTER: &str = "ransomeye.events.x-telemetry.*.*";

/// What the sender may publish to and nobody is subscribed to.
pub(crate) const NOBODY_OF_SENDER: &str = "ransomeye.inbox.core.nobody.result.agent.agent-01";

/// What the receiver may publish to and nobody is subscribed to.
pub(crate) const NOBODY_OF_RECEIVER: &str = "ransomeye.inbox.agent.nobody.command.core.core-01";

/// The default policy's rules that concern this, and one for the type of the benchmark.
const POLICY: &str = r#"
version = 1

[[rule]]
role = "agent"
action = "publish"
types = ["Telemetry", "Alert", "Heartbeat", "x-telemetry"]
to = "events"

[[rule]]
role = "*"
action = "publish"
types = ["CommandResult", "Error"]
to = "inbox:*/*"

[[rule]]
role = "core"
action = "publish"
types = ["Command"]
to = "inbox:*/*"

[[rule]]
role = "core"
action = "subscribe"
types = "*"
from = "events"

[[rule]]
role = "*"
action = "subscribe"
types = "*"
from = "inbox"
"#;

/// A running server with the rendered permissions of two components, and their identities.
pub(crate) struct Scene {
    deployment: Deployment,
    policy: Policy,
    identities: [(&'static str, TlsIdentity); 2],
}

impl Scene {
    pub(crate) async fn start() -> Result<Self> {
        let policy = Policy::from_toml(POLICY)?;
        let change = |config: &mut ServerConfig| config.policy = policy.clone();
        let deployment = Deployment::start_with_key_streams_and(&[SENDER, RECEIVER], change).await;
        let identities = [SENDER, RECEIVER].map(|name| (name, deployment.identity(name)));
        Ok(Self { deployment, policy, identities })
    }

    pub(crate) fn url(&self) -> String {
        self.deployment.server.url()
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy.clone()
    }

    /// The server's process.
    pub(crate) fn server(&self) -> Option<u32> {
        self.deployment.server.pid()
    }

    pub(crate) fn identity(&self, name: &str) -> Result<&TlsIdentity> {
        let found = self.identities.iter().find(|(known, _)| *known == name);
        found.map(|(_, identity)| identity).with_context(|| format!("there is no {name}"))
    }
}
