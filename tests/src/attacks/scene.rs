//! Where the attacks of a compromised component take place: a broker, a core, and two agents, one of them compromised.

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{BusClient, Rejected, Subscription, Verified};
use bus_natsd::ServerConfig;
use bus_proto::AnyPayload;
use bus_proto::v1::{CommandRequest, CommandType, Envelope};

use super::raw::{Attacker, soon};
use super::sender::Sender;
use crate::deployment::Deployment;

/// The compromised agent.
pub(crate) const COMPROMISED: &str = "agent-01";

/// An agent that is attacked.
pub(crate) const OTHER: &str = "agent-02";

const COMPONENTS: [&str; 3] = ["core/core-01", "agent/agent-01", "agent/agent-02"];

/// A broker, a core that receives all events through our client, and the compromised agent.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) deployment: Deployment,
    pub(crate) core: BusClient,
    pub(crate) events: Subscription<AnyPayload>,
    pub(crate) attacker: Attacker,
    /// What the compromised agent signs with.
    pub(crate) compromised: Sender,
    /// What the other agent signs with.
    pub(crate) other: Sender,
}

impl Scene {
    pub(crate) async fn set() -> Result<Self> {
        Self::set_with(|_| {}).await
    }

    pub(crate) async fn set_with(change: impl FnOnce(&mut ServerConfig)) -> Result<Self> {
        Self::set_in(Deployment::start_with_key_streams_and(&COMPONENTS, change).await).await
    }

    async fn set_in(deployment: Deployment) -> Result<Self> {
        let core = deployment.connect("core/core-01").await;
        // What the core commands it is sealed to this.
        deployment.publish_sealing_key("agent/agent-01").await;
        let events = core.subscribe().await?;
        let attacker = Attacker::agent(&deployment, COMPROMISED).await?;
        let compromised = Sender::agent(&deployment, COMPROMISED)?;
        let other = Sender::agent(&deployment, OTHER)?;
        Ok(Self { deployment, core, events, attacker, compromised, other })
    }

    /// The next event that reaches the core, or its refusal of one.
    pub(crate) async fn next_event(&mut self) -> Result<Result<Verified<AnyPayload>, Rejected>> {
        soon("an event", self.events.next()).await?.context("the subscription ended")
    }

    /// The core's refusal of the next event.
    pub(crate) async fn next_rejection(&mut self) -> Result<Rejected> {
        match self.next_event().await? {
            Err(rejected) => Ok(rejected),
            Ok(received) => bail!("{} from {} was accepted", received.message_type(), received.sender()),
        }
    }

    /// Checks that the next event at the core is this one, so nothing came between.
    pub(crate) async fn arrives_next(&mut self, envelope: &Envelope) -> Result<()> {
        self.arrives_next_as(&envelope.message_id).await
    }

    /// As [`Scene::arrives_next`], of the message with this identifier.
    pub(crate) async fn arrives_next_as(&mut self, message_id: &str) -> Result<()> {
        let received = self.next_event().await?.context("the core refuses what is allowed")?;
        ensure!(
            received.message_id() == message_id,
            "{} from {} arrives first, on {}",
            received.message_type(),
            received.sender(),
            received.subject()
        );
        Ok(())
    }

    /// The control of most attacks: the compromised agent's own telemetry still arrives. As it is the next to arrive,
    /// nothing that the agent published before did.
    pub(crate) async fn own_telemetry_arrives_next(&mut self) -> Result<()> {
        let allowed = self.compromised.telemetry();
        self.attacker.send(&self.compromised.sign(&allowed)).await?;
        self.arrives_next(&allowed).await
    }

    /// The core commands an agent, as it may.
    pub(crate) async fn core_commands(&self, component: &str, target_pid: u32) -> Result<()> {
        self.core.send(&format!("agent/{component}").parse()?, kill(target_pid)).await?;
        ensure!(self.core.flush().await.is_ok(), "the broker does not answer the core");
        Ok(())
    }
}

/// A command.
pub(crate) fn kill(target_pid: u32) -> CommandRequest {
    CommandRequest { command_type: CommandType::Kill.into(), target_pid }
}

/// Checks that the next message in an agent's inbox is the core's command with this process id.
pub(crate) async fn commanded_next(inbox: &mut Subscription<AnyPayload>, target_pid: u32) -> Result<()> {
    let received = soon("a command", inbox.next()).await?.context("the inbox ended")??;
    let from_core = received.sender().component().as_str() == "core-01";
    ensure!(
        from_core && *received.payload() == kill(target_pid).into(),
        "{:?} from {} arrives first",
        received.payload(),
        received.sender()
    );
    Ok(())
}
