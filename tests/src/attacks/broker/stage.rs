//! Where the malicious broker acts: a core that is connected through it, and two agents whose messages it has.

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{BusClient, BusOptions, Subscription};
use bus_proto::AnyPayload;
use bus_proto::v1::Envelope;
use bus_tls::{TlsIdentity, TlsOptions};

use super::forgeries::{Forged, Forgery, Make};
use super::proxy::Broker;
use super::wire::Message;
use crate::attacks::raw::soon;
use crate::attacks::sender::Sender;
use crate::attacks::{Evidence, Trial};
use crate::deployment::Deployment;

pub(super) const CORE: &str = "core/core-01";
pub(super) const AGENT: &str = "agent/agent-01";
pub(super) const OTHER: &str = "agent/agent-02";

/// A core behind the malicious broker, with subscriptions to all events and to its inbox.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) deployment: Deployment,
    pub(super) broker: Broker,
    pub(super) core: BusClient,
    pub(super) events: Subscription<AnyPayload>,
    pub(super) inbox: Subscription<AnyPayload>,
    pub(super) agent: Sender,
    pub(super) other: Sender,
}

impl Stage {
    pub(super) async fn set() -> Result<Self> {
        Self::set_with(|options| options).await
    }

    pub(super) async fn set_with(change: impl FnOnce(BusOptions) -> BusOptions) -> Result<Self> {
        Self::set_in(Deployment::start(&[CORE, "core/core-02", AGENT, OTHER]), change).await
    }

    /// As [`Stage::set`], with a keys stream.
    pub(super) async fn set_with_keys_stream() -> Result<Self> {
        let deployment = Deployment::start_with_key_streams(&[CORE, AGENT, OTHER]).await;
        // What the core asks is sealed to this.
        deployment.publish_sealing_key(AGENT).await;
        Self::set_in(deployment, |options| options).await
    }

    async fn set_in(deployment: Deployment, change: impl FnOnce(BusOptions) -> BusOptions) -> Result<Self> {
        let broker = Broker::before(&deployment).await?;
        let core = BusClient::connect(change(options(&deployment, &broker, CORE)?)).await?;
        let (events, inbox) = (core.subscribe().await?, core.subscribe_inbox().await?);
        let agent = Sender::of(&deployment.authority, AGENT)?;
        let other = Sender::of(&deployment.authority, OTHER)?;
        Ok(Self { deployment, broker, core, events, inbox, agent, other })
    }

    /// The subscription that a message on this subject goes to.
    fn subscription(&mut self, subject: &str) -> &mut Subscription<AnyPayload> {
        if subject.contains(".inbox.") { &mut self.inbox } else { &mut self.events }
    }

    /// Delivers a signed message, or each member of a signed batch, and checks that it is the next to be accepted.
    pub(super) async fn accepts(&mut self, envelope: &Envelope, signed: &Message) -> Result<()> {
        self.broker.deliver(CORE, signed).await?;
        self.accepted_next(envelope).await
    }

    /// Checks that this message, or each member of it, is the next to be accepted.
    pub(super) async fn accepted_next(&mut self, envelope: &Envelope) -> Result<()> {
        let expected = match &envelope.payload {
            Some(AnyPayload::Batch(batch)) => batch.members.iter().map(|member| &member.message_id).collect(),
            _ => vec![&envelope.message_id],
        };
        for message_id in expected {
            let next = soon("a message", self.subscription(&envelope.subject).next()).await?;
            let received = next.context("the subscription ended")?.context("the core refuses an honest message")?;
            ensure!(
                received.message_id() == message_id
                    && received.sender().component().as_str() == envelope.source_component,
                "a {} from {} arrives first",
                received.message_type(),
                received.sender()
            );
        }
        Ok(())
    }

    /// Checks that the core refuses the next message on this subject, counts it, and says why: for one of these reasons,
    /// or for any if there are none.
    pub(super) async fn refused_next(&mut self, subject: &str, reasons: &[&str]) -> Result<Evidence> {
        let next = soon("a refusal", self.subscription(subject).next()).await?;
        let rejected = match next.context("the subscription ended")? {
            Err(rejected) => rejected,
            Ok(received) => bail!("a {} from {} is accepted", received.message_type(), received.sender()),
        };
        let reason = rejected.reason();
        ensure!(reasons.is_empty() || reasons.contains(&reason), "it is refused as `{reason}`: {rejected}");
        Ok(Evidence::Rejected(rejected))
    }

    /// Delivers a message that the core must refuse and count.
    pub(super) async fn refuses(&mut self, message: &Message, reasons: &[&str]) -> Result<Evidence> {
        let before = self.core.stats().rejected;
        self.broker.deliver(CORE, message).await?;
        let evidence = self.refused_next(&message.subject, reasons).await?;
        let counted = self.core.stats().rejected - before;
        ensure!(counted == 1, "the core counts {counted} refusals");
        Ok(evidence)
    }

    /// The control of most attacks: what both agents say is accepted, and it is the next, so nothing else was before.
    pub(super) async fn honest_messages_arrive(&mut self) -> Result<()> {
        let envelope = self.agent.telemetry();
        let signed = self.agent.sign(&envelope);
        self.accepts(&envelope, &signed).await.context("an honest message of agent-01")?;
        let envelope = self.other.telemetry();
        let signed = self.other.sign(&envelope);
        self.accepts(&envelope, &signed).await.context("an honest message of agent-02")
    }
}

/// How `role/component` connects through the broker, with a revocation list.
pub(super) fn options(deployment: &Deployment, broker: &Broker, name: &str) -> Result<BusOptions> {
    let files = deployment.issue(name);
    let authority = &deployment.authority;
    let tls = TlsOptions::new(files.certificate, files.key, authority.ca_path()).crl(authority.crl_path());
    Ok(BusOptions::new(broker.url(), TlsIdentity::load(tls)?))
}

/// Delivers forgeries between honest messages. Each must be refused, and the original must be accepted nevertheless.
pub(super) async fn deliver(make: Make) -> Result<Trial> {
    let mut stage = Stage::set().await?;
    stage.honest_messages_arrive().await?;
    let Forged { original, signed, forgeries } = make(&stage.agent, &stage.other);
    let refusal = async {
        let mut last = None;
        for Forgery { what, message, reasons } in &forgeries {
            last = Some(stage.refuses(message, reasons).await.context(*what)?);
        }
        last.context("there is no forgery")
    }
    .await;
    let control = async {
        stage.accepts(&original, &signed).await.context("the original")?;
        stage.honest_messages_arrive().await
    }
    .await;
    Ok(Trial { refusal, control })
}
