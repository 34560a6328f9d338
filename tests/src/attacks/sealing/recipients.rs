//! Whom something is sealed to, and whether that is so.

use anyhow::{Context as _, Result, ensure};
use bus_crypto::sealing::Recipient;
use bus_proto::AnyPayload;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{Sealed, WrappedKey};

use super::{CORE, SECOND, Scene, deliver, payload_of};
use crate::attacks::Trial;
use crate::attacks::craft::{any_key, carrying, epoch, recipient, sealed};
use crate::attacks::raw::soon;

/// Under the receiver's name, the keys are wrapped to others: to a stranger, and to a former key of its own.
pub(in crate::attacks) async fn another_key() -> Result<Trial> {
    let scene = Scene::set().await?;
    let former = scene.core();
    scene.keys.rotate()?;
    deliver(scene, |scene| {
        let newest = scene.core();
        ensure!(newest.version != former.version, "there is no new key");
        let seal = |to: Recipient| {
            let envelope = scene.compromised.telemetry();
            sealed(&scene.compromised, &mut epoch(&scene.compromised, &[to])?, &envelope)
        };
        Ok(vec![
            ("to a stranger", seal(recipient(CORE, 1, any_key()?.public_key()))?, "opening: WrappedKey"),
            ("to a former key", seal(Recipient { version: newest.version, ..former.clone() })?, "opening: WrappedKey"),
            ("to a newer key", seal(Recipient { version: former.version, ..newest })?, "opening: WrappedKey"),
            ("to the core's key in another's name", seal(recipient(SECOND, 1, &former.key))?, "not_a_recipient"),
        ])
    })
    .await
}

/// Who is no recipient sees that a message is sealed, and nothing of what it says.
pub(in crate::attacks) async fn others_only() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let mut any = scene.core.subscribe::<AnyPayload>().await?;
    let stranger = any_key()?;
    let to_others = [recipient(SECOND, 1, stranger.public_key())];
    let envelope = scene.compromised.telemetry();
    let closed = sealed(&scene.compromised, &mut epoch(&scene.compromised, &to_others)?, &envelope)?;
    let refusal = async {
        let evidence = scene.refuses(&closed, "not_a_recipient").await?;
        let received = soon("a message", any.next()).await?.context("the subscription ended")??;
        let shown = matches!(received.payload(), AnyPayload::Sealed(_));
        ensure!(shown, "a subscriber of any type is given {:?}", received.payload());
        Ok(evidence)
    }
    .await;
    let control = async {
        scene.own_telemetry_opens_next().await?;
        let received = soon("a message", any.next()).await?.context("the subscription ended")??;
        ensure!(received.payload() == &envelope.payload.clone().context("no payload")?, "it is another one");
        Ok(())
    };
    Ok(Trial { refusal, control: control.await })
}

/// The wrapped keys change places, come from another epoch, or are damaged.
pub(in crate::attacks) async fn swapped_keys() -> Result<Trial> {
    deliver(Scene::set().await?, |scene| {
        let others = any_key()?;
        let both = [scene.core(), recipient(SECOND, 3, others.public_key())];
        let make = |change: fn(&mut Sealed, Sealed)| {
            let seal = || {
                let envelope = scene.compromised.telemetry();
                let made = sealed(&scene.compromised, &mut epoch(&scene.compromised, &both)?, &envelope)?;
                anyhow::Ok((envelope, payload_of(made)?))
            };
            let ((envelope, mut one), (_, another)) = (seal()?, seal()?);
            change(&mut one, another);
            anyhow::Ok(carrying(&envelope, one))
        };
        fn wrapped(sealed: &mut Sealed) -> &mut [WrappedKey] {
            &mut sealed.wrapped_keys
        }
        fn flip(sealed: &mut Sealed, place: usize) {
            let mut bytes = wrapped(sealed)[0].wrapped.to_vec();
            bytes[place] ^= 1;
            wrapped(sealed)[0].wrapped = bytes.into();
        }
        Ok(vec![
            (
                "swapped between recipients",
                make(|one, _| {
                    let [first, second] = wrapped(one) else { return };
                    std::mem::swap(&mut first.wrapped, &mut second.wrapped);
                })?,
                "opening: WrappedKey",
            ),
            (
                "those of another epoch",
                make(|one, another| one.wrapped_keys = another.wrapped_keys)?,
                "opening: WrappedKey",
            ),
            ("the encapsulated key altered", make(|one, _| flip(one, 0))?, "opening: WrappedKey"),
            ("the wrapped secret altered", make(|one, _| flip(one, 40))?, "opening: WrappedKey"),
            ("the tag altered", make(|one, _| flip(one, 79))?, "opening: WrappedKey"),
            (
                "cut off",
                make(|one, _| wrapped(one)[0].wrapped = wrapped(one)[0].wrapped.slice(..79))?,
                "opening: WrappedKey",
            ),
            (
                "of small order",
                make(|one, _| wrapped(one)[0].wrapped = Bytes::from(vec![0; 80]))?,
                "opening: WrappedKey",
            ),
        ])
    })
    .await
}

/// More wrapped keys than there may be, beside as many as there may be.
pub(in crate::attacks) async fn too_many_recipients() -> Result<Trial> {
    const MOST: usize = 256;
    let mut scene = Scene::set().await?;
    let key = any_key()?;
    let crowd = |count: usize| -> Vec<Recipient> {
        let others = (1..count).map(|number| recipient(&format!("core/x-{number}"), 1, key.public_key()));
        others.chain([scene.core()]).collect()
    };
    let envelope = scene.compromised.telemetry();
    let allowed = sealed(&scene.compromised, &mut epoch(&scene.compromised, &crowd(MOST))?, &envelope)?;
    let mut excess = payload_of(allowed.clone())?;
    let last = excess.wrapped_keys.last().context("no wrapped keys")?.clone();
    excess.wrapped_keys.push(WrappedKey { recipient: format!("{}-last", last.recipient), ..last });
    let control = async {
        scene.send(&allowed).await?;
        scene.opens_next(&allowed).await.context("as many as there may be")
    }
    .await;
    let refusal =
        scene.refuses(&carrying(&scene.compromised.telemetry(), excess), "encoding: there may be at most 256").await;
    let control = match control {
        Ok(()) => scene.own_telemetry_opens_next().await,
        failed => failed,
    };
    Ok(Trial { refusal, control })
}
