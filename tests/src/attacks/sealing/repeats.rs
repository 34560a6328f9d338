//! What was sealed before, or is sealed again.

use anyhow::{Context as _, Result, ensure};
use bus_crypto::sealing::Epoch;
use bus_proto::v1::{Envelope, Heartbeat, Sealed};

use super::{SECOND, Scene, deliver, payload_of};
use crate::attacks::craft::{Seeds, any_key, carrying, content, epoch, recipient, sealed};
use crate::attacks::raw::Attacker;
use crate::attacks::scene::OTHER;
use crate::attacks::sender::Sender;
use crate::attacks::{Trial, craft};

/// What some other message had sealed, in a message of its own.
pub(in crate::attacks) async fn copied_sealed() -> Result<Trial> {
    deliver(Scene::set().await?, |scene| {
        let sealed_by = |sender: &Sender, envelope: &Envelope| {
            payload_of(sealed(sender, &mut epoch(sender, &[scene.core()])?, envelope)?)
        };
        let restarted = scene.compromised.restarted()?;
        let heartbeat = scene.compromised.event(Heartbeat { uptime: 1, version: "1".into() });
        let own = || scene.compromised.telemetry();
        Ok(vec![
            ("another sender's", carrying(&own(), sealed_by(&scene.other, &scene.other.telemetry())?), WRAPPED_KEY),
            ("under another key", carrying(&own(), sealed_by(&restarted, &restarted.telemetry())?), WRAPPED_KEY),
            ("of another subject", carrying(&own(), sealed_by(&scene.compromised, &heartbeat)?), CIPHERTEXT),
            ("of an earlier message", carrying(&own(), sealed_by(&scene.compromised, &own())?), CIPHERTEXT),
        ])
    })
    .await
}

const WRAPPED_KEY: &str = "opening: WrappedKey";
const CIPHERTEXT: &str = "opening: Ciphertext";

/// The wrapped keys of an epoch that the receiver knows, of another sender or under another key, around a ciphertext of its own.
pub(in crate::attacks) async fn copied_keys() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let (victim, restarted) = (Attacker::agent(&scene.deployment, OTHER).await?, scene.compromised.restarted()?);
    let mut known = Vec::new();
    for (connection, sender) in [(&victim, &scene.other), (&scene.attacker, &restarted)] {
        let envelope = sender.telemetry();
        let honest = sealed(sender, &mut epoch(sender, &[scene.core()])?, &envelope)?;
        connection.send(&sender.sign(&honest)).await?;
        super::opens_next(&mut scene.telemetry, &honest).await?;
        known.push(payload_of(honest)?);
    }
    deliver(scene, |scene| {
        let mut attempts = Vec::new();
        let with = |change: &dyn Fn(&mut Sealed)| {
            let (envelope, mut own) = scene.sealed()?;
            change(&mut own);
            anyhow::Ok(carrying(&envelope, own))
        };
        for theirs in &known {
            let keys = with(&|own| own.wrapped_keys.clone_from(&theirs.wrapped_keys))?;
            attempts.push(("their wrapped keys", keys, WRAPPED_KEY));
            let epoch = with(&|own| {
                own.epoch_id.clone_from(&theirs.epoch_id);
                own.commitment.clone_from(&theirs.commitment);
                own.wrapped_keys.clone_from(&theirs.wrapped_keys);
            })?;
            attempts.push(("their epoch", epoch, WRAPPED_KEY));
            let name = with(&|own| own.epoch_id.clone_from(&theirs.epoch_id))?;
            attempts.push(("their epoch's name", name, WRAPPED_KEY));
            let without = with(&|own| {
                own.clone_from(theirs);
                own.wrapped_keys.clear();
            })?;
            attempts.push(("their epoch, of which the keys came before", without, "unknown_epoch"));
        }
        Ok(attempts)
    })
    .await
}

/// Another epoch under the identifier of one that the receiver knows.
pub(in crate::attacks) async fn second_epoch() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let (to_core, seeds) = ([scene.core()], Seeds::fresh()?);
    let envelope = scene.compromised.telemetry();
    let known = sealed(&scene.compromised, &mut seeds.epoch(&scene.compromised, &to_core)?, &envelope)?;
    scene.send(&known).await?;
    scene.opens_next(&known).await?;
    deliver(scene, |scene| {
        let both = [scene.core(), recipient(SECOND, 1, any_key()?.public_key())];
        let seal = |mut epoch: Epoch| sealed(&scene.compromised, &mut epoch, &scene.compromised.telemetry());
        let secret = seal(seeds.another_secret()?.epoch(&scene.compromised, &to_core)?)?;
        let recipients = seal(seeds.epoch(&scene.compromised, &both)?)?;
        Ok(vec![
            ("another secret", secret, "opening: OtherEpoch"),
            ("other recipients", recipients, "opening: OtherEpoch"),
        ])
    })
    .await
}

/// Epoch after epoch, each with one message. The receiver opens them, keeps some, and goes on: also with who opens none that
/// holds.
pub(in crate::attacks) async fn epochs_without_end() -> Result<Trial> {
    const EPOCHS: usize = 2_000;
    let mut scene = Scene::set().await?;
    scene.own_telemetry_opens_next().await?;
    let victim = Attacker::agent(&scene.deployment, OTHER).await?;
    let stranger = [recipient(super::CORE, 1, any_key()?.public_key())];
    let mut first = None;
    for number in 0..EPOCHS {
        let envelope = scene.compromised.telemetry();
        let mut epoch = scene.epoch()?;
        let opens = sealed(&scene.compromised, &mut epoch, &envelope)?;
        scene.send(&opens).await?;
        scene.opens_next(&opens).await.with_context(|| format!("epoch {number}"))?;
        first.get_or_insert(epoch);
        let mut epoch = craft::epoch(&scene.compromised, &stranger)?;
        let closed = sealed(&scene.compromised, &mut epoch, &scene.compromised.telemetry())?;
        scene.refuses(&closed, WRAPPED_KEY).await.with_context(|| format!("closed epoch {number}"))?;
    }
    // The first of them was forgotten long ago: there is room for some, and not for all.
    let mut first = first.context("there was no epoch")?;
    let refusal = async {
        let envelope = scene.compromised.telemetry();
        let mut later = payload_of(sealed(&scene.compromised, &mut first, &envelope)?)?;
        ensure!(later.counter == 1, "it is not the second message of that epoch");
        later.wrapped_keys.clear();
        scene.refuses(&carrying(&envelope, later), "unknown_epoch").await
    }
    .await;
    let control = async {
        let envelope = scene.other.telemetry();
        let honest = sealed(&scene.other, &mut epoch(&scene.other, &[scene.core()])?, &envelope)?;
        victim.send(&scene.other.sign(&honest)).await?;
        scene.opens_next(&honest).await.context("another sender")?;
        scene.own_telemetry_opens_next().await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// A process, and its twin out of a snapshot of the machine: the same epoch, the same counter, and different messages. Whoever
/// reads along learns nothing of them by comparing, and what has the number of the other's message is refused.
pub(in crate::attacks) async fn fork() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let (to_core, seeds) = ([scene.core()], Seeds::fresh()?);
    let twins = || seeds.epoch(&scene.compromised, &to_core);
    let (mut one, mut another, mut third) = (twins()?, twins()?, twins()?);
    let first = scene.compromised.telemetry();
    let second = scene.compromised.telemetry();
    let plain = |envelope: &Envelope| anyhow::Ok(content(envelope.payload.clone().context("no payload")?));
    let [by_one, by_another] =
        [sealed(&scene.compromised, &mut one, &first)?, sealed(&scene.compromised, &mut another, &second)?];
    let control = async {
        scene.send(&by_one).await?;
        scene.opens_next(&by_one).await.context("what the process sealed")?;
        scene.send(&by_another).await?;
        scene.opens_next(&by_another).await.context("what its twin sealed")
    }
    .await;
    let refusal = async {
        let (one, another) = (payload_of(by_one)?, payload_of(by_another)?);
        ensure!(
            (&one.epoch_id, &one.commitment, one.counter) == (&another.epoch_id, &another.commitment, another.counter),
            "they do not use one key and one counter"
        );
        // Both say the same. Under one nonce, a stream cipher would show that, and how contents that differ do so.
        let (plain_one, plain_another) = (plain(&first)?, plain(&second)?);
        let xor = |one: &[u8], another: &[u8]| -> Vec<u8> {
            one.iter().zip(another).map(|(one, another)| one ^ another).collect()
        };
        let (of_plain, of_sealed) = (xor(&plain_one, &plain_another), xor(&one.ciphertext, &another.ciphertext));
        let same = of_plain.iter().zip(&of_sealed).filter(|(plain, sealed)| plain == sealed).count();
        // By chance, one byte of 256 is.
        ensure!(same < plain_one.len() / 2, "{same} of {} bytes show how the messages differ", plain_one.len());
        // The twin counts its messages as the process does.
        let repeated = Envelope { sequence: first.sequence, ..scene.compromised.telemetry() };
        let repeated = sealed(&scene.compromised, &mut third, &repeated)?;
        scene.refuses(&repeated, "replayed").await
    }
    .await;
    let control = match control {
        Ok(()) => scene.own_telemetry_opens_next().await,
        failed => failed,
    };
    Ok(Trial { refusal, control })
}
