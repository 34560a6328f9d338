//! The broker does not deliver a message once, in time, and where it belongs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bus_client::BusClient;
use bus_proto::AnyPayload;
use bus_proto::v1::{CommandResult, Custom, Envelope, TelemetryEvent};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::forgeries;
use super::reasons::{DESTINATION_MISMATCH, POLICY, REPLAYED, STALE, SUBJECT, TOO_LARGE, TOO_OLD};
use super::stage::{AGENT, CORE, Stage, deliver};
use super::wire::{Direction, Message};
use crate::attacks::limits::padded;
use crate::attacks::raw::{soon, unix_ms};
use crate::attacks::scene::kill;
use crate::attacks::{Evidence, Trial};

fn is_telemetry(message: &Message) -> bool {
    message.subject.starts_with("ransomeye.events.telemetry.")
}

fn load(cpu_usage: f64) -> TelemetryEvent {
    TelemetryEvent { cpu_usage, ram_usage: 50.0 }
}

/// The next message that the broker kept or copied.
pub(super) async fn caught(messages: &mut mpsc::UnboundedReceiver<Message>) -> Result<Message> {
    soon("a message at the broker", messages.recv()).await?.context("the broker catches nothing any more")
}

/// Lets a real agent say something, and checks that the core hears it next.
async fn heard(stage: &mut Stage, agent: &BusClient, cpu_usage: f64) -> Result<()> {
    agent.publish(load(cpu_usage)).await?;
    hears(stage, cpu_usage).await
}

/// Checks that this is what the core hears next.
async fn hears(stage: &mut Stage, cpu_usage: f64) -> Result<()> {
    let next = soon("a message", stage.events.next()).await?.context("the subscription ended")??;
    ensure!(*next.payload() == load(cpu_usage).into(), "{:?} arrives first", next.payload());
    Ok(())
}

pub(super) async fn drops() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let agent = stage.deployment.connect(AGENT).await;
    let control = async {
        heard(&mut stage, &agent, 1.0).await?;
        heard(&mut stage, &agent, 2.0).await?;
        ensure!(stage.events.missed() == 0, "the core misses what was not dropped");
        Ok(())
    }
    .await;
    let refusal = async {
        let mut dropped = stage.broker.hold(CORE, Direction::ToClient, is_telemetry);
        agent.publish(load(3.0)).await?;
        caught(&mut dropped).await?;
        stage.broker.behave(CORE);
        heard(&mut stage, &agent, 4.0).await?;
        let missed = stage.events.missed();
        ensure!(missed == 1, "the core misses {missed} messages");
        Ok(Evidence::Noticed("the receiver counts 1 missed message".into()))
    }
    .await;
    Ok(Trial { refusal, control })
}

pub(super) async fn delivers_twice() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let agent = stage.deployment.connect(AGENT).await;
    let control = heard(&mut stage, &agent, 1.0).await;
    let refusal = async {
        stage.broker.intercept(CORE, Direction::ToClient, |message, fate| {
            fate.forward(message.clone());
            fate.forward(message);
        });
        heard(&mut stage, &agent, 2.0).await?;
        let evidence = stage.refused_next("ransomeye.events", &[REPLAYED]).await?;
        stage.broker.behave(CORE);
        heard(&mut stage, &agent, 3.0).await.context("after the attack")?;
        Ok(evidence)
    }
    .await;
    Ok(Trial { refusal, control })
}

pub(super) async fn delays() -> Result<Trial> {
    let skew = Duration::from_secs(2);
    let mut stage = Stage::set_with(|options| options.clock_skew(skew)).await?;
    let agent = stage.deployment.connect(AGENT).await;
    // The bundle comes with the first.
    heard(&mut stage, &agent, 0.0).await.context("before the attack")?;
    let mut held = stage.broker.hold(CORE, Direction::ToClient, is_telemetry);
    agent.publish(load(1.0)).await?;
    let (message, kept_at) = (caught(&mut held).await?, tokio::time::Instant::now());
    let control = async {
        agent.publish(load(2.0)).await?;
        let fresh = caught(&mut held).await?;
        stage.broker.behave(CORE);
        stage.broker.deliver(CORE, &fresh).await?;
        hears(&mut stage, 2.0).await
    }
    .await;
    // The attack is the delay itself.
    sleep((skew + Duration::from_millis(100)).saturating_sub(kept_at.elapsed())).await;
    let refusal = stage.refuses(&message, &[STALE]).await;
    let control = match control {
        Ok(()) => heard(&mut stage, &agent, 3.0).await.context("after the attack"),
        failed => failed,
    };
    Ok(Trial { refusal, control })
}

/// Each of the reordered messages is accepted once, and never a second time.
pub(super) async fn reorders() -> Result<Trial> {
    const MESSAGES: u32 = 8;
    let mut stage = Stage::set().await?;
    let agent = stage.deployment.connect(AGENT).await;
    heard(&mut stage, &agent, 99.0).await?;
    let mut held = stage.broker.hold(CORE, Direction::ToClient, is_telemetry);
    let mut kept = Vec::new();
    for number in 0..MESSAGES {
        agent.publish(load(number.into())).await?;
        kept.push((number, caught(&mut held).await?));
    }
    stage.broker.behave(CORE);
    kept.reverse();
    kept.swap(0, 3);
    let control = async {
        for (number, message) in &kept {
            stage.broker.deliver(CORE, message).await?;
            hears(&mut stage, (*number).into()).await.with_context(|| format!("message {number}"))?;
        }
        Ok(())
    }
    .await;
    let refusal = async {
        let mut last = None;
        for (number, message) in &kept {
            let refused = stage.refuses(message, &[REPLAYED]).await;
            last = Some(refused.with_context(|| format!("message {number}"))?);
        }
        last.context("nothing was reordered")
    }
    .await;
    Ok(Trial { refusal, control })
}

/// A message that is held back until it lies behind the window is refused, as nobody remembers whether it came before.
pub(super) async fn holds_back() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let (early, late) = (stage.agent.telemetry(), stage.agent.telemetry());
    let (signed_early, signed_late) = (stage.agent.sign(&early), stage.agent.sign(&late));
    let control = async {
        for number in 0..500 {
            let envelope = stage.agent.telemetry();
            let signed = stage.agent.sign(&envelope);
            stage.accepts(&envelope, &signed).await.with_context(|| format!("message {number}"))?;
            if number == 400 {
                stage.accepts(&late, &signed_late).await.context("within the window")?;
            }
        }
        Ok(())
    }
    .await;
    Ok(Trial { refusal: stage.refuses(&signed_early, &[TOO_OLD]).await, control })
}

pub(super) async fn rewrites_the_type() -> Result<Trial> {
    deliver(forgeries::another_type).await
}

pub(super) async fn rewrites_the_sender() -> Result<Trial> {
    deliver(forgeries::another_sender).await
}

pub(super) async fn rewrites_the_inbox() -> Result<Trial> {
    deliver(forgeries::another_inbox).await
}

/// A directed message is delivered as it is, but to another component.
pub(super) async fn misdelivers() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let filter = stage.inbox.filter().to_owned();
    let answer = |envelope: &Envelope| envelope.destination.ends_with(CORE);
    let here = stage.agent.directed(CORE, CommandResult::completed("here"));
    let elsewhere = stage.agent.directed("core/core-02", CommandResult::completed("elsewhere"));
    ensure!(answer(&here) && !answer(&elsewhere), "both go to the same component");
    let refusal = async {
        let message = stage.agent.sign(&elsewhere);
        stage.broker.deliver_on(CORE, &filter, &message).await?;
        stage.refused_next(&message.subject, &[DESTINATION_MISMATCH]).await
    }
    .await;
    let control = async {
        let message = stage.agent.sign(&here);
        stage.broker.deliver_on(CORE, &filter, &message).await?;
        stage.accepted_next(&here).await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// A message from the future, so that it could be kept for later.
pub(super) async fn postdates() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let mut envelope = stage.agent.telemetry();
    envelope.timestamp_utc = unix_ms() + 10 * 60 * 1_000;
    let message = stage.agent.sign(&envelope);
    let refusal = stage.refuses(&message, &[STALE]).await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

/// A message that is larger than the receiver takes, whatever the server's limit is.
pub(super) async fn oversize() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let max = stage.core.max_payload();
    let envelope = stage.agent.telemetry();
    let control = async {
        let message = padded(&stage.agent, &envelope, max);
        stage.accepts(&envelope, &message).await.context("the largest message")
    }
    .await;
    let envelope = stage.agent.telemetry();
    let message = padded(&stage.agent, &envelope, max + 1);
    Ok(Trial { refusal: stage.refuses(&message, &[TOO_LARGE]).await, control })
}

/// A message is delivered on subjects that name no message of the bus.
pub(super) async fn outside_of_the_bus() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let filter = stage.events.filter().to_owned();
    let refusal = async {
        let mut last = None;
        for subject in [
            "ransomeye.events.telemetry.agent",
            "ransomeye.events.telemetry.agent.agent-01.more",
            "ransomeye.events.telemetry.Agent.agent-01",
            "ransomeye.events.another.agent.agent-01",
            "ransomeye.keys.agent.agent-01",
            "another.events.telemetry.agent.agent-01",
            "telemetry",
        ] {
            let envelope = Envelope { subject: subject.into(), ..stage.agent.telemetry() };
            stage.broker.deliver_on(CORE, &filter, &stage.agent.sign(&envelope)).await?;
            last = Some(stage.refused_next(subject, &[SUBJECT]).await.context(subject)?);
        }
        last.context("there is no message")
    }
    .await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

/// Components say, in their own names, what the policy denies them, and the broker does not mind.
pub(super) async fn what_the_policy_denies() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    stage.honest_messages_arrive().await?;
    let loot = AnyPayload::Custom(Custom { type_name: "loot.v1.Loot".into(), value: vec![1].into() });
    let loot = Envelope {
        subject: "ransomeye.events.x-loot.agent.agent-01".into(),
        payload: Some(loot),
        ..stage.agent.telemetry()
    };
    let mut as_broker = stage.agent.telemetry();
    as_broker.subject = "ransomeye.events.telemetry.broker.agent-01".into();
    let refusal = async {
        let mut last = None;
        for (what, envelope) in [
            ("an agent commands the core", stage.agent.directed(CORE, kill(4_242))),
            ("an agent publishes an unknown type", loot),
            ("an agent publishes in the role of a broker", as_broker),
        ] {
            let message = stage.agent.sign(&envelope);
            last = Some(stage.refuses(&message, &[POLICY]).await.context(what)?);
        }
        last.context("there is no message")
    }
    .await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}
