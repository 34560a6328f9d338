//! What is sealed opens as what it was sealed for, and for everybody alike.

use anyhow::{Context as _, Result, ensure};
use bus_client::SealingKeys;
use bus_crypto::sealing::{Part, Recipient};
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{Envelope, Reference, References, TelemetryEvent};

use super::{CORE, SECOND, Scene, deliver, named, opens_next, payload_of};
use crate::attacks::Trial;
use crate::attacks::craft::{Bound, Seeds, any_key, carrying, content, epoch, holding, recipient, sealed};
use crate::attacks::raw::{soon, unix_ms};
use crate::deployment::principal;

type Change = fn(&mut Bound);

/// The sender seals with one value and signs another, of everything that a content is bound to.
pub(in crate::attacks) async fn altered_data() -> Result<Trial> {
    let changes: [(&str, Change); 10] = [
        ("part", |bound| bound.part = Part::References),
        ("sender", |bound| bound.sender = principal("agent/agent-02").spiffe_id()),
        ("subject", |bound| bound.subject = "ransomeye.events.telemetry.agent.agent-02".into()),
        ("subject of an inbox", |bound| {
            bound.subject = "ransomeye.inbox.core.core-01.telemetry.agent.agent-01".into();
        }),
        ("type", |bound| bound.message_type = "heartbeat".into()),
        ("sequence", |bound| bound.sequence += 1),
        ("no sequence", |bound| bound.sequence = 0),
        ("message_id", |bound| bound.message_id = "0199f1a2-0000-7000-8000-000000000000".into()),
        ("expires_at", |bound| bound.expires_at = unix_ms() + 60_000),
        ("names that run into each other", |bound| {
            let first = bound.subject.remove(0);
            bound.sender.push(first);
        }),
    ];
    deliver(Scene::set().await?, |scene| {
        let attempt = |(what, change): (&'static str, Change)| {
            let envelope = scene.compromised.telemetry();
            let mut bound = Bound::to(&scene.compromised, &envelope)?;
            change(&mut bound);
            let inside = content(envelope.payload.clone().context("no payload")?);
            let sealed = bound.seal(&mut scene.epoch()?, &inside)?;
            Ok((what, carrying(&envelope, sealed), "opening: Ciphertext"))
        };
        let mut attempts = changes.into_iter().map(attempt).collect::<Result<Vec<_>>>()?;
        // The other way round: what was sealed without an end gets one.
        let (envelope, sealed) = scene.sealed()?;
        let ends = Envelope { expires_at: envelope.timestamp_utc + 60_000, ..envelope };
        attempts.push(("an end that was not there", carrying(&ends, sealed), "opening: Ciphertext"));
        Ok(attempts)
    })
    .await
}

/// The list of recipients is another one than what was sealed says.
pub(in crate::attacks) async fn altered_recipients() -> Result<Trial> {
    deliver(Scene::set().await?, |scene| {
        let other = any_key()?;
        let both = [scene.core(), recipient(SECOND, 3, other.public_key())];
        let seal = || {
            let envelope = scene.compromised.telemetry();
            let made = sealed(&scene.compromised, &mut epoch(&scene.compromised, &both)?, &envelope)?;
            anyhow::Ok((envelope, payload_of(made)?))
        };
        let (first, mut without) = seal()?;
        without.wrapped_keys.pop();
        let (second, mut version) = seal()?;
        version.wrapped_keys[1].key_version += 1;
        let (third, mut renamed) = seal()?;
        renamed.wrapped_keys[1].recipient = principal("core/core-03").spiffe_id();
        let (fourth, mut with) = seal()?;
        let mut another = with.wrapped_keys[1].clone();
        another.recipient = principal("core/core-03").spiffe_id();
        with.wrapped_keys.push(another);
        Ok(vec![
            ("one left out", carrying(&first, without), "opening: Commitment"),
            ("another version", carrying(&second, version), "opening: Commitment"),
            ("another name", carrying(&third, renamed), "opening: Commitment"),
            ("one more", carrying(&fourth, with), "opening: Commitment"),
        ])
    })
    .await
}

/// Everything else that names an epoch is altered.
pub(in crate::attacks) async fn altered_epoch() -> Result<Trial> {
    deliver(Scene::set().await?, |scene| {
        let flip = |bytes: &Bytes, place: usize| {
            let mut bytes = bytes.to_vec();
            bytes[place] ^= 0x80;
            Bytes::from(bytes)
        };
        let mut attempts = Vec::new();
        let (envelope, mut sealed) = scene.sealed()?;
        sealed.epoch_id = flip(&sealed.epoch_id, 3);
        attempts.push(("the epoch's identifier", carrying(&envelope, sealed), "opening: WrappedKey"));
        let (envelope, mut sealed) = scene.sealed()?;
        sealed.commitment = flip(&sealed.commitment, 31);
        attempts.push(("the commitment", carrying(&envelope, sealed), "opening: Commitment"));
        let (envelope, mut sealed) = scene.sealed()?;
        sealed.counter += 1;
        attempts.push(("the counter", carrying(&envelope, sealed), "opening: Ciphertext"));
        let (envelope, mut sealed) = scene.sealed()?;
        sealed.counter = 1 << 32;
        attempts.push(("a counter beyond all", carrying(&envelope, sealed), "encoding"));
        let (envelope, mut sealed) = scene.sealed()?;
        sealed.ciphertext = flip(&sealed.ciphertext, 0);
        attempts.push(("the ciphertext", carrying(&envelope, sealed), "opening: Ciphertext"));
        let (envelope, mut sealed) = scene.sealed()?;
        sealed.ciphertext = sealed.ciphertext.slice(1..);
        attempts.push(("a shorter ciphertext", carrying(&envelope, sealed), "opening: Ciphertext"));
        let (envelope, mut sealed) = scene.sealed()?;
        sealed.ciphertext = sealed.ciphertext.slice(..16);
        attempts.push(("nothing but a tag", carrying(&envelope, sealed), "encoding"));
        Ok(attempts)
    })
    .await
}

/// One commitment, and two secrets: each recipient would read something else.
pub(in crate::attacks) async fn two_plaintexts() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let keys = SealingKeys::in_memory(&principal(SECOND))?;
    let options = scene.deployment.options(SECOND).sealing_keys(keys.clone());
    let second = bus_client::BusClient::connect(options).await?;
    let mut heard = second.subscribe::<TelemetryEvent>().await?;
    let both = [scene.core(), recipient(SECOND, keys.newest().version(), keys.newest().key().public_key())];
    let control = async {
        let envelope = scene.compromised.telemetry();
        let honest = sealed(&scene.compromised, &mut epoch(&scene.compromised, &both)?, &envelope)?;
        scene.send(&honest).await?;
        scene.opens_next(&honest).await.context("the first recipient")?;
        opens_next(&mut heard, &honest).await.context("the second recipient")
    }
    .await;
    let two_secrets = || {
        let (seeds, envelope) = (Seeds::fresh()?, scene.compromised.telemetry());
        let says = |seeds: Seeds, cpu_usage: f64| {
            let envelope = holding(&envelope, TelemetryEvent { cpu_usage, ram_usage: 50.0 });
            payload_of(sealed(&scene.compromised, &mut seeds.epoch(&scene.compromised, &both)?, &envelope)?)
        };
        anyhow::Ok((envelope.clone(), says(seeds, 1.0)?, says(seeds.another_secret()?, 99.0)?))
    };
    let (envelope, mut split, another) = two_secrets()?;
    split.wrapped_keys[1] = another.wrapped_keys[1].clone();
    let first_opens = carrying(&envelope, split);
    let (envelope, mut split, another) = two_secrets()?;
    split.wrapped_keys[1] = another.wrapped_keys[1].clone();
    split.commitment = another.commitment;
    let nobody_opens = carrying(&envelope, split);
    let refusal = async {
        scene.send(&first_opens).await?;
        scene.opens_next(&first_opens).await.context("the first recipient")?;
        let rejected = soon("a refusal", heard.next()).await?.context("the subscription ended")?;
        let evidence = named(rejected.err().context("the second recipient opens it")?, "opening: Commitment")?;
        // With the other commitment it is the first who notices, and the ciphertext is not the second's.
        scene.refuses(&nobody_opens, "opening: Commitment").await?;
        let rejected = soon("a refusal", heard.next()).await?.context("the subscription ended")?;
        named(rejected.err().context("the second recipient opens it")?, "opening: Ciphertext")?;
        Ok(evidence)
    }
    .await;
    let control = match control {
        Ok(()) => scene.own_telemetry_opens_next().await,
        failed => failed,
    };
    Ok(Trial { refusal, control })
}

/// What a message is about is sealed apart, and what holds for its payload holds for that.
pub(in crate::attacks) async fn references() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let about = |count: usize| {
        let reference = |number| Reference { kind: "case".into(), value: format!("{number}") };
        References { references: (0..count).map(reference).collect() }.encode_to_vec()
    };
    let with = |scene: &Scene, part: Part, to: &Recipient, inside: &[u8]| {
        let envelope = scene.compromised.telemetry();
        let bound = Bound { part, ..Bound::to(&scene.compromised, &envelope)? };
        let references = bound.seal(&mut epoch(&scene.compromised, std::slice::from_ref(to))?, inside)?;
        anyhow::Ok(Envelope { references: Some(references), ..envelope })
    };
    let core = scene.core();
    let honest = with(&scene, Part::References, &core, &about(64))?;
    scene.send(&honest).await?;
    let received = soon("telemetry", scene.telemetry.next()).await?.context("the subscription ended")??;
    ensure!(received.references().len() == 64, "{} references arrive", received.references().len());
    deliver(scene, |scene| {
        let of_others = recipient(SECOND, 1, any_key()?.public_key());
        let stranger = recipient(CORE, 1, any_key()?.public_key());
        let mut swapped = with(scene, Part::References, &core, &about(1))?;
        let inside = content(swapped.payload.clone().context("no payload")?);
        let payload = Bound::to(&scene.compromised, &swapped)?.seal(&mut scene.epoch()?, &inside)?;
        let references = swapped.references.replace(payload).context("no references")?;
        swapped = carrying(&swapped, references);
        let telemetry = content(TelemetryEvent { cpu_usage: 1.0, ram_usage: 1.0 }.into());
        let mut copied = scene.compromised.telemetry();
        copied.references = with(scene, Part::References, &core, &about(1))?.references;
        let part = Part::References;
        Ok(vec![
            ("sealed as a payload", with(scene, Part::Payload, &core, &about(1))?, "opening: Ciphertext"),
            ("in place of the payload", swapped, "opening: Ciphertext"),
            ("those of another message", copied, "opening: Ciphertext"),
            ("to another key", with(scene, part, &stranger, &about(1))?, "opening: WrappedKey"),
            ("too many", with(scene, part, &core, &about(65))?, "content"),
            ("a payload", with(scene, part, &core, &telemetry)?, "content"),
            ("something else", with(scene, part, &core, &[0xff; 9])?, "content"),
            (
                "with another payload's keys",
                {
                    // What is for others is no reason to refuse a message; but this one has the core's name in it.
                    let mut mixed = with(scene, part, &of_others, &about(1))?;
                    let own = with(scene, part, &core, &about(1))?.references.context("no references")?;
                    let references = mixed.references.as_mut().context("no references")?;
                    references.wrapped_keys = own.wrapped_keys;
                    mixed
                },
                "opening: WrappedKey",
            ),
        ])
    })
    .await
}
