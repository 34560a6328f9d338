//! The broker delivers again what was delivered before: to another process, after a restart, as another answer.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{BusClient, BusEvent, CommandHandler, RequestError};
use bus_proto::Endpoint;
use bus_proto::v1::{CommandRequest, CommandResult};
use tokio::sync::mpsc;

use super::delivery::caught;
use super::proxy::Broker;
use super::reasons::{PREDATES, REPLAYED};
use super::stage::{AGENT, CORE, Stage, options};
use super::wire::{Direction, Message};
use crate::attacks::raw::soon;
use crate::attacks::scene::kill;
use crate::attacks::{Evidence, Trial};
use crate::deployment::Deployment;

/// How long a request waits that must not be answered.
const SHORT: Duration = Duration::from_millis(500);

/// A message that the core has accepted.
async fn accepted(stage: &mut Stage) -> Result<Message> {
    let envelope = stage.agent.telemetry();
    let signed = stage.agent.sign(&envelope);
    stage.accepts(&envelope, &signed).await.context("before the attack")?;
    Ok(signed)
}

/// A process of the core that starts now, in place of the one on the stage or beside it.
async fn another_process(stage: &mut Stage) -> Result<()> {
    let core = BusClient::connect(options(&stage.deployment, &stage.broker, CORE)?).await?;
    (stage.events, stage.inbox) = (core.subscribe().await?, core.subscribe_inbox().await?);
    stage.core = core;
    Ok(())
}

pub(super) async fn to_another_process() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let old = accepted(&mut stage).await?;
    let _first = stage.core.clone();
    another_process(&mut stage).await?;
    let second = stage.broker.accepted();
    let refusal = async {
        stage.broker.deliver_to(CORE, second, &old).await?;
        stage.refused_next(&old.subject, &[PREDATES]).await
    }
    .await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

pub(super) async fn after_a_restart() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let old = accepted(&mut stage).await?;
    stage.core.drain().await?;
    another_process(&mut stage).await?;
    let refusal = stage.refuses(&old, &[PREDATES]).await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

/// Ends the core's connection, and waits until it is back.
pub(super) async fn reconnected(stage: &Stage) -> Result<()> {
    let mut events = stage.core.events();
    stage.broker.hang_up(CORE);
    soon("a new connection", async {
        while events.recv().await? != BusEvent::Connected {}
        anyhow::Ok(())
    })
    .await?
}

pub(super) async fn after_a_reconnect() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let old = accepted(&mut stage).await?;
    reconnected(&stage).await?;
    let refusal = stage.refuses(&old, &[REPLAYED]).await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

/// Does what it is told, and says so.
struct Obedient(mpsc::UnboundedSender<u32>);

impl CommandHandler for Obedient {
    async fn handle(&self, command: bus_client::Verified<CommandRequest>) -> CommandResult {
        let target_pid = command.payload().target_pid;
        // The test has ended if nobody listens.
        let _ = self.0.send(target_pid);
        CommandResult::completed(target_pid.to_string())
    }
}

/// A core that commands an agent, both of them behind the malicious broker.
struct Command {
    deployment: Deployment,
    broker: Broker,
    core: BusClient,
    agent: BusClient,
    obeyed: mpsc::UnboundedReceiver<u32>,
    server: bus_client::CommandServer,
}

impl Command {
    async fn set() -> Result<Self> {
        let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
        let broker = Broker::before(&deployment).await?;
        let core = BusClient::connect(options(&deployment, &broker, CORE)?).await?;
        let agent = BusClient::connect(options(&deployment, &broker, AGENT)?).await?;
        let (sender, obeyed) = mpsc::unbounded_channel();
        let server = agent.serve_commands(Obedient(sender)).await?;
        Ok(Self { deployment, broker, core, agent, obeyed, server })
    }

    async fn ask(&self, target_pid: u32) -> Result<String, RequestError> {
        ask(&self.core, target_pid).await
    }

    /// The control of these attacks: a command that the agent obeys next.
    async fn obeys_next(&mut self, target_pid: u32) -> Result<()> {
        let answer = self.ask(target_pid).await?;
        ensure!(answer == target_pid.to_string(), "the answer is {answer}");
        let obeyed = soon("a command", self.obeyed.recv()).await?.context("the agent has ended")?;
        ensure!(obeyed == target_pid, "the agent obeys {obeyed} first");
        Ok(())
    }
}

async fn ask(core: &BusClient, target_pid: u32) -> Result<String, RequestError> {
    let to: Endpoint = AGENT.parse().expect("a role and a component");
    core.request::<CommandResult>(&to, kill(target_pid)).await.map(|answer| answer.payload().detail.clone())
}

fn is_answer(message: &Message) -> bool {
    message.subject.starts_with("ransomeye.inbox.core.")
}

fn is_command(message: &Message) -> bool {
    message.subject.starts_with("ransomeye.inbox.agent.")
}

pub(super) async fn a_command_twice() -> Result<Trial> {
    let mut scene = Command::set().await?;
    let mut commands = scene.broker.record(AGENT, Direction::ToClient, is_command);
    scene.obeys_next(1).await?;
    let command = caught(&mut commands).await?;
    for _ in 0..3 {
        scene.broker.deliver(AGENT, &command).await?;
    }
    // It comes behind the copies, and must be the next that is obeyed.
    let control = scene.obeys_next(2).await;
    let refusal = count(&scene.agent, 3, "replayed command");
    scene.server.stop().await;
    Ok(Trial { refusal, control })
}

/// So many refusals are evidence of as many attempts.
fn count(victim: &BusClient, attempts: u64, what: &str) -> Result<Evidence> {
    let rejected = victim.stats().rejected;
    ensure!(rejected == attempts, "{rejected} of {attempts} are refused");
    Ok(Evidence::Noticed(format!("the receiver refuses each {what}, and counts {rejected}")))
}

pub(super) async fn a_command_after_a_restart() -> Result<Trial> {
    let mut scene = Command::set().await?;
    let mut commands = scene.broker.record(AGENT, Direction::ToClient, is_command);
    scene.obeys_next(1).await?;
    let command = caught(&mut commands).await?;
    scene.agent.drain().await?;
    scene.agent = BusClient::connect(options(&scene.deployment, &scene.broker, AGENT)?).await?;
    let (sender, obeyed) = mpsc::unbounded_channel();
    (scene.server, scene.obeyed) = (scene.agent.serve_commands(Obedient(sender)).await?, obeyed);
    scene.broker.deliver(AGENT, &command).await?;
    let control = scene.obeys_next(2).await;
    let refusal = count(&scene.agent, 1, "replayed command");
    scene.server.stop().await;
    Ok(Trial { refusal, control })
}

/// The answer to the first request is delivered in place of the one to the second.
pub(super) async fn an_answer_to_another_request() -> Result<Trial> {
    let mut scene = Command::set().await?;
    let mut answers = scene.broker.record(CORE, Direction::ToClient, is_answer);
    let control = scene.obeys_next(1).await;
    let first = caught(&mut answers).await?;
    let before = scene.core.stats().rejected;
    let mut replayed = Some(first);
    scene.broker.intercept(CORE, Direction::ToClient, move |message, fate| {
        if is_answer(&message)
            && let Some(first) = replayed.take()
        {
            // Under the number of the subscription that the true one comes on, so just as well placed.
            fate.forward(Message { subscription: message.subscription.clone(), ..first });
        }
        fate.forward(message);
    });
    let refusal = async {
        let answer = scene.ask(2).await?;
        ensure!(answer == "2", "the second request is answered with {answer}");
        let rejected = scene.core.stats().rejected - before;
        ensure!(rejected == 1, "{rejected} answers are refused");
        Ok(Evidence::Noticed("the receiver refuses the old answer, counts it, and takes the true one".into()))
    }
    .await;
    Ok(Trial { refusal, control })
}

/// With the true answer held back, the old one must not do.
pub(super) async fn an_answer_instead_of_another() -> Result<Trial> {
    let mut scene = Command::set().await?;
    let mut answers = scene.broker.record(CORE, Direction::ToClient, is_answer);
    let control = scene.obeys_next(1).await;
    let first = caught(&mut answers).await?;
    let before = scene.core.stats().rejected;
    scene.broker.intercept(CORE, Direction::ToClient, move |message, fate| match is_answer(&message) {
        true => fate.forward(Message { subscription: message.subscription, ..first.clone() }),
        false => fate.forward(message),
    });
    let refusal = async {
        let to: Endpoint = AGENT.parse()?;
        match scene.core.request_within::<CommandResult>(&to, kill(2), SHORT).await {
            Err(RequestError::TimedOut { .. }) => {}
            Err(error) => bail!("the request fails otherwise: {error}"),
            Ok(answer) => bail!("the second request is answered with {}", answer.payload().detail),
        }
        let rejected = scene.core.stats().rejected - before;
        ensure!(rejected == 1, "{rejected} answers are refused");
        Ok(Evidence::Noticed("the receiver refuses the old answer, counts it, and waits for the true one".into()))
    }
    .await;
    Ok(Trial { refusal, control })
}
