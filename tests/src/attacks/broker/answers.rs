//! The broker answers itself: that nobody is there, that it took what it drops, or in place of the one who was asked.
//!
//! It can keep anybody from being heard. It cannot make anybody believe what was not said, and what it drops shows.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{BusClient, RequestError};
use bus_crypto::{KeyId, trailer};
use bus_proto::Endpoint;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{CommandResult, Envelope, TelemetryEvent};

use super::delivery::caught;
use super::proxy::Broker;
use super::reasons::{SENDER, UNSOLICITED};
use super::stage::{AGENT, CORE, OTHER, options};
use super::wire::{Direction, Message};
use crate::attacks::raw::soon;
use crate::attacks::scene::kill;
use crate::attacks::sender::Sender;
use crate::attacks::{Evidence, Trial};
use crate::deployment::Deployment;

/// How long a request waits that must not be answered.
const SHORT: Duration = Duration::from_millis(500);

/// How long any other request waits.
const LONG: Duration = Duration::from_secs(5);

fn is_command(message: &Message) -> bool {
    message.subject.starts_with("ransomeye.inbox.agent.")
}

/// A core behind the malicious broker, which asks an agent whose messages the broker makes by hand.
struct Scene {
    deployment: Deployment,
    broker: Broker,
    core: BusClient,
    agent: Sender,
    other: Sender,
}

impl Scene {
    async fn set() -> Result<Self> {
        let deployment = Deployment::start_with_key_streams(&[CORE, AGENT, OTHER]).await;
        // What the core asks is sealed to this.
        deployment.publish_sealing_key(AGENT).await;
        let broker = Broker::before(&deployment).await?;
        let core = BusClient::connect(options(&deployment, &broker, CORE)?).await?;
        let agent = Sender::of(&deployment.authority, AGENT)?;
        let other = Sender::of(&deployment.authority, OTHER)?;
        Ok(Self { deployment, broker, core, agent, other })
    }

    /// Asks the agent, while the broker does with the request what `act` says, and returns the answer.
    async fn ask<F: Future<Output = Result<()>>>(
        &self,
        limit: Duration,
        act: impl FnOnce(Message) -> F,
    ) -> Result<Result<String, RequestError>> {
        let to: Endpoint = AGENT.parse()?;
        let mut requests = self.broker.hold(CORE, Direction::ToServer, is_command);
        let asking = self.core.request_within::<CommandResult>(&to, kill(1), limit);
        let acting = async { act(caught(&mut requests).await?).await };
        let (answer, acted) = tokio::join!(asking, acting);
        self.broker.behave(CORE);
        acted?;
        Ok(answer.map(|answer| answer.payload().detail.clone()))
    }

    /// What `sender` answers to a request.
    fn answer(sender: &Sender, request: &Message, detail: &str) -> Message {
        sender.sign(&Self::unsigned_answer(sender, request, detail))
    }

    fn unsigned_answer(sender: &Sender, request: &Message, detail: &str) -> Envelope {
        let prefix = trailer::split(&request.payload).map_or(&request.payload[..], |split| split.prefix);
        let mut envelope = sender.directed(CORE, CommandResult::completed(detail));
        envelope.correlation_id = KeyId::of_bundle(prefix).as_bytes().to_vec().into();
        envelope
    }

    async fn delivers(&self, message: &Message) -> Result<()> {
        self.broker.deliver(CORE, message).await
    }

    /// The control: the answer of the one who was asked is accepted.
    async fn true_answer_arrives(&self) -> Result<()> {
        let answer =
            self.ask(LONG, async |request| self.delivers(&Self::answer(&self.agent, &request, "true")).await).await??;
        ensure!(answer == "true", "the answer is {answer}");
        Ok(())
    }
}

pub(super) async fn no_responders() -> Result<Trial> {
    let scene = Scene::set().await?;
    let refusal = async {
        let mut late = None;
        let nobody = async |request: Message| {
            let reply = request.reply.clone().context("a request without a reply subject")?;
            late = Some(Scene::answer(&scene.agent, &request, "late"));
            let nobody = Message::new(reply, Bytes::new()).with_headers("NATS/1.0 503\r\n\r\n");
            scene.delivers(&nobody).await
        };
        match scene.ask(LONG, nobody).await? {
            Err(RequestError::NoResponders { .. }) => {}
            Err(error) => bail!("the request fails otherwise: {error}"),
            Ok(answer) => bail!("the answer is {answer}"),
        }
        // The true answer comes too late. The one to the next request comes behind it on the same subscription.
        scene.delivers(&late.context("there was no request")?).await?;
        scene.true_answer_arrives().await?;
        let refusals = scene.core.refusals();
        ensure!(refusals == [(UNSOLICITED, 1)].into(), "the answers are refused as {refusals:?}");
        Ok(Evidence::Noticed("the request fails; no answer is made up, and the late one is refused and counted".into()))
    }
    .await;
    Ok(Trial { refusal, control: scene.true_answer_arrives().await })
}

/// What the broker itself puts where the broker's own answers come has no say: it is no answer.
pub(super) async fn an_answer_of_its_own() -> Result<Trial> {
    let scene = Scene::set().await?;
    let own = async |request: Message| {
        let reply = request.reply.clone().context("a request without a reply subject")?;
        let answer = Scene::answer(&scene.agent, &request, "made up");
        scene.delivers(&Message { subject: reply, ..answer }).await
    };
    let refusal = match scene.ask(SHORT, own).await? {
        Err(RequestError::TimedOut { .. }) => {
            Ok(Evidence::Noticed("what comes on the reply subject is ignored".into()))
        }
        Err(error) => Err(error).context("the request fails otherwise"),
        Ok(answer) => bail!("the answer is {answer}"),
    };
    Ok(Trial { refusal, control: scene.true_answer_arrives().await })
}

/// Another component, with a good key, answers what it was not asked.
pub(super) async fn another_component_answers() -> Result<Trial> {
    let scene = Scene::set().await?;
    let answers = async |request: Message| {
        scene.delivers(&Scene::answer(&scene.other, &request, "made up")).await?;
        // And under the name of the one who was asked.
        let mut answer = Scene::unsigned_answer(&scene.other, &request, "made up");
        answer.subject = answer.subject.replace("agent-02", "agent-01");
        answer.source_component = "agent-01".into();
        scene.delivers(&scene.other.sign(&answer)).await
    };
    let refusal = match scene.ask(SHORT, answers).await? {
        Err(RequestError::TimedOut { .. }) => {
            let refusals = scene.core.refusals();
            ensure!(refusals == [(SENDER, 1), (UNSOLICITED, 1)].into(), "the answers are refused as {refusals:?}");
            Ok(Evidence::Noticed("the receiver refuses each answer, and counts them by their reasons".into()))
        }
        Err(error) => Err(error).context("the request fails otherwise"),
        Ok(answer) => bail!("the answer is {answer}"),
    };
    Ok(Trial { refusal, control: scene.true_answer_arrives().await })
}

/// The broker drops what it acknowledges: a publisher does not see that, and the receiver does.
pub(super) async fn publish_acknowledgements() -> Result<Trial> {
    let scene = Scene::set().await?;
    let agent = BusClient::connect(options(&scene.deployment, &scene.broker, AGENT)?).await?;
    let mut telemetry = scene.core.subscribe::<TelemetryEvent>().await?;
    let load = |cpu_usage| TelemetryEvent { cpu_usage, ram_usage: 50.0 };
    let mut heard = async |cpu_usage| {
        agent.publish(load(cpu_usage)).await?;
        let next = soon("a message", telemetry.next()).await?.context("the subscription ended")??;
        ensure!(*next.payload() == load(cpu_usage), "{:?} arrives first", next.payload());
        Ok(telemetry.missed())
    };
    let control = async {
        heard(1.0).await?;
        let missed = heard(2.0).await?;
        ensure!(missed == 0, "{missed} are missed before the attack");
        Ok(())
    }
    .await;
    let refusal = async {
        let is_telemetry = |message: &Message| message.subject.starts_with("ransomeye.events.telemetry.");
        let mut dropped = scene.broker.hold(AGENT, Direction::ToServer, is_telemetry);
        agent.publish(load(3.0)).await?;
        agent.flush().await.context("the publisher notices, which is more than can be expected")?;
        caught(&mut dropped).await?;
        scene.broker.behave(AGENT);
        let missed = heard(4.0).await?;
        ensure!(missed == 1, "the receiver counts {missed} missed messages");
        Ok(Evidence::Noticed("the publisher is deceived; the receiver counts 1 missed message".into()))
    }
    .await;
    Ok(Trial { refusal, control })
}

/// The broker acknowledges key bundles and throws them away: messages bring their own.
pub(super) async fn key_acknowledgements() -> Result<Trial> {
    let scene = Scene::set().await?;
    let mut telemetry = scene.core.subscribe::<TelemetryEvent>().await?;
    scene.broker.intercept(AGENT, Direction::ToServer, |message, fate| {
        match message.reply.clone().filter(|_| message.subject.starts_with("ransomeye.keys.")) {
            Some(reply) => fate.answer(Message::new(reply, &br#"{"stream":"RANSOMEYE_KEYS","seq":1}"#[..])),
            None => fate.forward(message),
        }
    });
    let mut heard = async |agent: BusClient| {
        agent.publish(TelemetryEvent { cpu_usage: 1.0, ram_usage: 2.0 }).await?;
        soon("a message", telemetry.next()).await?.context("the subscription ended")?.context("it is refused")?;
        Ok(())
    };
    let deceived = BusClient::connect(options(&scene.deployment, &scene.broker, AGENT)?).await?;
    let refusal = heard(deceived).await;
    let control = heard(scene.deployment.connect(OTHER).await).await;
    Ok(Trial { refusal: refusal.map(|()| Evidence::Noticed("the message brings its bundle with it".into())), control })
}
