//! Keys that are gone, and the stream in which they are published.

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{NoSealingKey, PublishError};
use bus_proto::v1::CommandResult;
use futures_util::StreamExt as _;

use super::{CORE, Scene, deliver};
use crate::attacks::craft::{any_key, epoch, recipient, sealed};
use crate::attacks::raw::{Attacker, soon};
use crate::attacks::scene::{COMPROMISED, OTHER};
use crate::attacks::{Evidence, Trial};
use crate::deployment::Deployment;

/// What is sealed to a version that the receiver has no more, or never had.
pub(in crate::attacks) async fn gone_version() -> Result<Trial> {
    let scene = Scene::set().await?;
    let former = any_key()?;
    scene.keys.rotate_above(5)?;
    deliver(scene, |scene| {
        ensure!(scene.keys.versions() == [1, 6], "the core has versions {:?}", scene.keys.versions());
        let seal = |version: u64| {
            let to = recipient(CORE, version, former.public_key());
            sealed(&scene.compromised, &mut epoch(&scene.compromised, &[to])?, &scene.compromised.telemetry())
        };
        Ok(vec![
            ("a version that is gone", seal(3)?, "unknown_sealing_key: version: 3"),
            ("a version that is yet to come", seal(7)?, "unknown_sealing_key: version: 7"),
            ("the last version of all", seal(u64::MAX)?, "unknown_sealing_key"),
        ])
    })
    .await
}

async fn key_streams() -> Result<(Deployment, Attacker)> {
    let deployment = Deployment::start_with_key_streams(&[CORE, "agent/agent-01", "agent/agent-02"]).await;
    let attacker = Attacker::agent(&deployment, COMPROMISED).await?;
    Ok((deployment, attacker))
}

/// Leaves bytes in the stream, as the owner of its own subject there, and waits for the stream's answer.
async fn leaves(attacker: &Attacker, bytes: &[u8]) -> Result<()> {
    let stored = format!("_INBOX.agent.{COMPROMISED}.stored");
    let mut answers = attacker.nats.subscribe(stored.clone()).await?;
    let own = format!("ransomeye.sealing.agent.{COMPROMISED}");
    attacker.nats.publish_with_reply(own, stored, bytes.to_vec().into()).await?;
    let answer = soon("the stream's answer", answers.next()).await?.context("the subscription ended")?;
    ensure!(answer.payload.starts_with(b"{\"stream\":"), "the stream refuses it: {:?}", answer.payload);
    Ok(())
}

pub(in crate::attacks) async fn publish_as_another() -> Result<Trial> {
    let (deployment, mut attacker) = key_streams().await?;
    let core = deployment.connect(CORE).await;
    let _inbox = core.subscribe_inbox::<CommandResult>().await?;
    let refusal = async {
        let subject = "ransomeye.sealing.core.core-01";
        attacker.publish(subject, b"a record of another key").await?;
        attacker.server_error(&format!("Publish to \"{subject}\"")).await
    }
    .await;
    let control = async {
        leaves(&attacker, b"anything").await.context("under its own name")?;
        let other = deployment.connect("agent/agent-02").await;
        other.sealing_key_of(&CORE.parse()?).await.context("the key of the core")?;
        Ok(())
    }
    .await;
    Ok(Trial { refusal, control })
}

/// A component fills the stream with what it may leave there. It pushes out its own records, and nobody else's.
pub(in crate::attacks) async fn filled_stream() -> Result<Trial> {
    const RECORDS: usize = 300;
    let (deployment, attacker) = key_streams().await?;
    let core = deployment.connect(CORE).await;
    let mut inbox = core.subscribe_inbox::<CommandResult>().await?;
    // The compromised component has published a key as it should, before.
    let component = deployment.connect(&format!("agent/{COMPROMISED}")).await;
    let _its_inbox = component.subscribe_inbox::<CommandResult>().await?;
    let other = deployment.connect(&format!("agent/{OTHER}")).await;
    let own = format!("agent/{COMPROMISED}").parse()?;
    let before = core.sealing_key_of(&own).await.context("before the attack");
    for _ in 0..RECORDS {
        leaves(&attacker, &[0x0a; 4_096]).await?;
    }
    let refusal = match other.send(&own, CommandResult::completed("to nobody")).await {
        Err(PublishError::NoSealingKey(NoSealingKey::Refused { component, reason })) => {
            Ok(Evidence::Noticed(format!("it is its own key that nobody finds any more: {component}: {reason}")))
        }
        Err(error) => Err(error).context("it fails otherwise"),
        Ok(()) => bail!("something was sealed to what is none of its keys"),
    };
    let control = async {
        before?;
        other.send(&CORE.parse()?, CommandResult::completed("to the core")).await?;
        let received = soon("a message", inbox.next()).await?.context("the subscription ended")??;
        ensure!(received.is_sealed() && received.payload().detail == "to the core", "another message arrives");
        Ok(())
    }
    .await;
    Ok(Trial { refusal, control })
}
