//! A compromised component does what the policy denies it, on a connection that the broker accepted.

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::{StatusCode, Subscriber};
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::Envelope;
use futures_util::{FutureExt as _, StreamExt as _};

use super::Trial;
use super::raw::{Attacker, PATIENCE, Session, soon};
use super::scene::{COMPROMISED, OTHER, Scene, commanded_next, kill};
use super::sender::Sender;

const OTHERS_INBOX: &str = "ransomeye.inbox.agent.agent-02.>";
const OWN_INBOX: &str = "ransomeye.inbox.agent.agent-01.>";
const OWN_REPLIES: &str = "_INBOX.agent.agent-01.>";

/// A well-formed command of the compromised agent to the other one.
fn own_command(attacker: &Sender) -> Envelope {
    attacker.directed("agent/agent-02", kill(4_242))
}

/// The same in the name of the core, which may command.
fn command_of_the_core(attacker: &Sender) -> Envelope {
    Envelope {
        subject: "ransomeye.inbox.agent.agent-02.command.core.core-01".into(),
        source_component: "core-01".into(),
        ..own_command(attacker)
    }
}

pub(super) async fn publish_a_command() -> Result<Trial> {
    forged_command(own_command).await
}

pub(super) async fn publish_as_another() -> Result<Trial> {
    // As the core, and as the other agent, which may report.
    let trial = forged_command(command_of_the_core).await?;
    if trial.refusal.is_err() {
        return Ok(trial);
    }
    let mut scene = Scene::set().await?;
    let subject = "ransomeye.events.telemetry.agent.agent-02";
    let report = Envelope { subject: subject.into(), source_component: OTHER.into(), ..scene.compromised.telemetry() };
    scene.attacker.send(&scene.compromised.sign(&report)).await?;
    let refusal = scene.attacker.server_error(&format!("Publish to \"{subject}\"")).await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}

/// The other agent must get nothing but what the core really sends.
async fn forged_command(forge: fn(&Sender) -> Envelope) -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let other = scene.deployment.connect("agent/agent-02").await;
    let mut inbox = other.subscribe_inbox().await?;
    let refusal = async {
        let command = scene.compromised.sign(&forge(&scene.compromised));
        scene.attacker.send(&command).await?;
        let evidence = scene.attacker.server_error(&format!("Publish to \"{}\"", command.subject)).await?;
        scene.core_commands(OTHER, 7).await?;
        commanded_next(&mut inbox, 7).await?;
        Ok(evidence)
    }
    .await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}

pub(super) async fn subscribe_to_anothers_inbox() -> Result<Trial> {
    spy(OTHERS_INBOX, None).await
}

pub(super) async fn join_a_queue_group_on_anothers_inbox() -> Result<Trial> {
    spy(OTHERS_INBOX, Some("thieves")).await
}

pub(super) async fn subscribe_to_anothers_replies() -> Result<Trial> {
    spy("_INBOX.agent.agent-02.>", None).await
}

pub(super) async fn subscribe_to_everything() -> Result<Trial> {
    spy(">", None).await
}

/// Subscribes to what is not the attacker's, has the core and the other agent provide something to see there, and then
/// receives what is the attacker's own: that must be the first to arrive.
async fn spy(filter: &str, queue: Option<&str>) -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let other = scene.deployment.connect("agent/agent-02").await;
    let mut inbox = other.subscribe_inbox().await?;
    let nats = &scene.attacker.nats;
    let mut spying = match queue {
        None => nats.subscribe(filter.to_owned()).await?,
        Some(queue) => nats.queue_subscribe(filter.to_owned(), queue.to_owned()).await?,
    };
    let mut own = nats.subscribe(OWN_INBOX).await?;
    nats.flush().await?;
    let refusal = scene.attacker.server_error(&format!("Subscription to \"{filter}\"")).await;
    let control = async {
        scene.core_commands(OTHER, 7).await?;
        commanded_next(&mut inbox, 7).await?;
        ensure!(other.flush().await.is_ok(), "the broker does not answer the other agent");
        scene.core_commands(COMPROMISED, 8).await?;
        let mine = soon("the attacker's own command", own.next()).await?.context("the subscription ended")?;
        ensure!(mine.subject.as_str() == "ransomeye.inbox.agent.agent-01.command.core.core-01", "{}", mine.subject);
        Ok(())
    }
    .await;
    Ok(Trial { refusal: refusal.and_then(|evidence| unseen(&mut spying).map(|()| evidence)), control })
}

/// Checks that nothing has arrived on a subscription.
fn unseen(spying: &mut Subscriber) -> Result<()> {
    match spying.next().now_or_never().flatten() {
        None => Ok(()),
        Some(message) => bail!("it sees a message on {}", message.subject),
    }
}

pub(super) async fn publish_under_inbox() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let other = Attacker::agent(&scene.deployment, OTHER).await?;
    let mut answers = other.nats.subscribe("_INBOX.agent.agent-02.>").await?;
    // The server's answer to this tells that the subscription is in force.
    no_responders(&other, &mut answers, OTHER, "before").await?;
    let subject = "_INBOX.agent.agent-02.forged";
    let refusal = async {
        scene.attacker.publish(subject, br#"{"stream":"forged","seq":1}"#).await?;
        let evidence = scene.attacker.server_error(&format!("Publish to \"{subject}\"")).await?;
        no_responders(&other, &mut answers, OTHER, "after").await?;
        Ok(evidence)
    }
    .await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}

pub(super) async fn use_jetstream_api() -> Result<Trial> {
    let store = tempfile::tempdir()?;
    let scene = Scene::set_with(|config| config.jetstream_dir = Some(store.path().to_owned())).await?;
    let subjects = [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.CREATE.LOOT",
        "$JS.API.STREAM.CREATE.RANSOMEYE_KEYS",
        "$JS.API.STREAM.UPDATE.RANSOMEYE_KEYS",
        "$JS.API.STREAM.PURGE.RANSOMEYE_KEYS",
        "$JS.API.STREAM.DELETE.RANSOMEYE_KEYS",
        "$JS.API.STREAM.MSG.DELETE.RANSOMEYE_KEYS",
        "$JS.API.CONSUMER.CREATE.RANSOMEYE_KEYS.spy",
    ];
    use_services(scene, &subjects, "$JS.>").await
}

pub(super) async fn use_system_subjects() -> Result<Trial> {
    let scene = Scene::set().await?;
    use_services(scene, &["$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING.CONNZ"], "$SYS.>").await
}

/// Asks services of the server itself, and listens to them. Every subject must be denied, and no answer may come.
async fn use_services(mut scene: Scene, subjects: &[&'static str], filter: &'static str) -> Result<Trial> {
    let attacker = &mut scene.attacker;
    let mut answers = attacker.nats.subscribe(OWN_REPLIES).await?;
    no_responders(attacker, &mut answers, COMPROMISED, "before").await?;
    let refusal = async {
        let _listening = attacker.nats.subscribe(filter).await?;
        attacker.nats.flush().await?;
        let mut evidence = attacker.server_error(&format!("Subscription to \"{filter}\"")).await?;
        for subject in subjects {
            let reply = "_INBOX.agent.agent-01.answer";
            attacker.nats.publish_with_reply(*subject, reply, "{}".into()).await?;
            attacker.nats.flush().await?;
            evidence = attacker.server_error(&format!("Publish to \"{subject}\"")).await?;
        }
        no_responders(attacker, &mut answers, COMPROMISED, "after").await?;
        Ok(evidence)
    }
    .await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}

/// Lets the server answer "no responders" to a component's probe, and checks that this is the next answer to arrive.
async fn no_responders(client: &Attacker, answers: &mut Subscriber, component: &str, marker: &str) -> Result<()> {
    let probe = format!("ransomeye.control.bus.ping.agent.{component}");
    let reply = format!("_INBOX.agent.{component}.{marker}");
    client.nats.publish_with_reply(probe, reply.clone(), Bytes::new()).await?;
    client.nats.flush().await?;
    let answer = soon("the server's answer", answers.next()).await?.context("the subscription ended")?;
    ensure!(answer.subject.as_str() == reply, "an answer on {} arrives first", answer.subject);
    ensure!(answer.status == Some(StatusCode::NO_RESPONDERS), "the answer is {:?}", answer.status);
    Ok(())
}

pub(super) async fn claim_another_user() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let core = "spiffe://ransomeye.test/core/core-01";
    let position = scene.deployment.server.log_position();
    let mut session = Session::agent_claiming(&scene.deployment, COMPROMISED, core).await?;
    let noted = |line: &str| line.contains(core) && line.contains("found in connect proto");
    let noted = scene.deployment.server.wait_for_log_after(position, noted, PATIENCE);
    let refusal = async {
        noted.context("the server's log does not tell of the claim")?;
        session.send(&scene.compromised.sign(&command_of_the_core(&scene.compromised))).await?;
        session.server_error().await
    }
    .await;
    let control = async {
        let allowed = scene.compromised.telemetry();
        session.send(&scene.compromised.sign(&allowed)).await?;
        scene.arrives_next(&allowed).await
    }
    .await;
    Ok(Trial { refusal, control })
}
