//! A compromised component sends, where it may publish, what is no good message. It signs with its own good key. The
//! receiver refuses it and goes on.

use anyhow::{Context as _, Result, bail, ensure};
use bus_proto::AnyPayload;
use bus_proto::prost::Message as _;
use bus_proto::v1::{Batch, BatchMember, Envelope, TelemetryEvent, batch_member};

use super::broker::Message;
use super::raw::telemetry;
use super::scene::{COMPROMISED, Scene, kill};
use super::sender::{Sender, an_hour_that_is_over};
use super::{Evidence, Trial};

pub(super) async fn unsigned() -> Result<Trial> {
    deliver("unsigned", |sender| {
        let report = sender.telemetry();
        Message::new(report.subject.clone(), report.encode_to_vec())
    })
    .await
}

pub(super) async fn undecodable_bytes() -> Result<Trial> {
    deliver("encoding", |sender| sender.sign_prefix(&telemetry(COMPROMISED).subject, vec![0xff; 64])).await
}

pub(super) async fn another_source() -> Result<Trial> {
    changed("sender_mismatch", |report| report.source_component = "core-01".into()).await
}

pub(super) async fn command_as_telemetry() -> Result<Trial> {
    changed("type_mismatch", |report| report.payload = Some(kill(4_242).into())).await
}

pub(super) async fn old_message() -> Result<Trial> {
    changed("clock_skew", |report| report.timestamp_utc -= 60 * 60 * 1_000).await
}

pub(super) async fn expired_message() -> Result<Trial> {
    changed("expired", |report| report.expires_at = report.timestamp_utc).await
}

pub(super) async fn event_with_a_destination() -> Result<Trial> {
    changed("destination_mismatch", |report| report.destination = "spiffe://ransomeye.test/core/core-01".into()).await
}

pub(super) async fn uncounted_message() -> Result<Trial> {
    changed("not_counted", |report| report.sequence = 0).await
}

pub(super) async fn impossible_values() -> Result<Trial> {
    changed("value", |report| {
        report.payload = Some(TelemetryEvent { cpu_usage: f64::NAN, ram_usage: 50.0 }.into());
    })
    .await
}

/// Its key may still be used to verify, but it no longer signs.
pub(super) async fn spent_key() -> Result<Trial> {
    deliver("key_time", |sender| {
        let sender = Sender::with(sender.leaf.clone(), an_hour_that_is_over()).expect("a bundle");
        sender.sign(&sender.telemetry())
    })
    .await
}

pub(super) async fn oversize_batch() -> Result<Trial> {
    deliver("encoding", |sender| sender.sign(&sender.batch(257))).await
}

pub(super) async fn mixed_batch() -> Result<Trial> {
    changed_batch("encoding", |members| members[1].payload = Some(batch_member::Payload::Command(kill(4_242)))).await
}

pub(super) async fn batch_of_another_type() -> Result<Trial> {
    changed_batch("type_mismatch", |members| {
        for member in members {
            member.payload = Some(batch_member::Payload::Command(kill(4_242)));
        }
    })
    .await
}

pub(super) async fn expired_member() -> Result<Trial> {
    dropped_alone("expired", |member| member.expires_at = member.timestamp_utc).await
}

pub(super) async fn impossible_member() -> Result<Trial> {
    dropped_alone("value", |member| {
        let impossible = TelemetryEvent { cpu_usage: 101.0, ram_usage: 50.0 };
        member.payload = Some(batch_member::Payload::Telemetry(impossible));
    })
    .await
}

/// One member of a batch is refused, and those before and behind it arrive.
async fn dropped_alone(reason: &str, change: fn(&mut BatchMember)) -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.own_telemetry_arrives_next().await?;
    let refusal = async {
        let mut batch = scene.compromised.batch(3);
        change(&mut members(&mut batch)[1]);
        scene.attacker.send(&scene.compromised.sign(&batch)).await?;
        let [first, _, last] = &members(&mut batch)[..] else { bail!("no batch of three") };
        scene.arrives_next_as(&first.message_id).await.context("the member before it")?;
        let refusal = refused_as(&mut scene, reason).await?;
        scene.arrives_next_as(&last.message_id).await.context("the member behind it")?;
        Ok(refusal)
    }
    .await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}

/// More keys than any number of restarts takes: each would have a receiver remember what it signed.
pub(super) async fn too_many_keys() -> Result<Trial> {
    const KEPT_APART: usize = 16;
    let mut scene = Scene::set().await?;
    let control = async {
        scene.own_telemetry_arrives_next().await?;
        for number in 1..KEPT_APART {
            let restarted = scene.compromised.restarted()?;
            let report = restarted.telemetry();
            scene.attacker.send(&restarted.sign(&report)).await?;
            scene.arrives_next(&report).await.with_context(|| format!("restart {number}"))?;
        }
        Ok(())
    }
    .await;
    let refusal = async {
        let restarted = scene.compromised.restarted()?;
        scene.attacker.send(&restarted.sign(&restarted.telemetry())).await?;
        refused_as(&mut scene, "too_many_sessions").await
    }
    .await;
    let control = match control {
        Ok(()) => scene.own_telemetry_arrives_next().await.context("with the first key"),
        failed => failed,
    };
    Ok(Trial { refusal, control })
}

/// Numbers that leave out as many as there are: no count overflows, and what comes behind them is refused.
pub(super) async fn absurd_numbers() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.own_telemetry_arrives_next().await?;
    let jump = async |scene: &mut Scene, sender: &Sender| {
        for report in [sender.telemetry(), Envelope { sequence: u64::MAX, ..sender.telemetry() }] {
            scene.attacker.send(&sender.sign(&report)).await?;
            scene.arrives_next(&report).await?;
        }
        anyhow::Ok(())
    };
    let restarted = [scene.compromised.restarted()?, scene.compromised.restarted()?];
    let control = async {
        for sender in &restarted {
            jump(&mut scene, sender).await?;
        }
        ensure!(scene.events.missed() == 2, "{} are missed", scene.events.missed());
        ensure!(scene.core.stats().missed == 2, "{} are missed in all", scene.core.stats().missed);
        scene.own_telemetry_arrives_next().await
    }
    .await;
    let refusal = async {
        scene.attacker.send(&restarted[0].sign(&restarted[0].telemetry())).await?;
        refused_as(&mut scene, "too_old").await
    }
    .await;
    Ok(Trial { refusal, control })
}

fn members(envelope: &mut Envelope) -> &mut Vec<BatchMember> {
    match &mut envelope.payload {
        Some(AnyPayload::Batch(Batch { members })) => members,
        _ => panic!("no batch"),
    }
}

/// As [`deliver`], of telemetry that is good but for this change.
async fn changed(reason: &str, change: fn(&mut Envelope)) -> Result<Trial> {
    deliver(reason, |sender| {
        let mut report = sender.telemetry();
        change(&mut report);
        sender.sign(&report)
    })
    .await
}

/// As [`deliver`], of a batch that is good but for this change.
async fn changed_batch(reason: &str, change: fn(&mut [BatchMember])) -> Result<Trial> {
    deliver(reason, |sender| {
        let mut batch = sender.batch(3);
        change(members(&mut batch));
        sender.sign(&batch)
    })
    .await
}

/// Sends a message as the compromised agent's telemetry between two good messages, all to one live subscription, which
/// must refuse it for this reason.
async fn deliver(reason: &str, make: impl FnOnce(&Sender) -> Message) -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.own_telemetry_arrives_next().await?;
    let refusal = async {
        scene.attacker.send(&make(&scene.compromised)).await?;
        refused_as(&mut scene, reason).await
    }
    .await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}

/// The core refuses the next message for this reason.
async fn refused_as(scene: &mut Scene, reason: &str) -> Result<Evidence> {
    let rejected = scene.next_rejection().await?;
    ensure!(rejected.reason() == reason, "it was refused as `{}`: {rejected}", rejected.reason());
    Ok(Evidence::Rejected(rejected))
}
