//! A compromised component stores messages where key bundles belong, and asks the server for them on behalf of others: the
//! server itself then publishes them where the component must not, as nobody limits where answers go.

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;

use super::broker::Message;
use super::raw::soon;
use super::scene::{COMPROMISED, OTHER, Scene};
use super::{Evidence, Trial};

/// The core hears the other agent, and then what the server publishes in that one's name.
pub(super) async fn through_the_keys_stream() -> Result<Trial> {
    let mut scene = Scene::set_with_keys_stream().await?;
    let control = async {
        // What it has signed itself is good on every way.
        let own = scene.compromised.telemetry();
        reflect(&scene, &scene.compromised.sign(&own)).await?;
        scene.arrives_next(&own).await
    }
    .await;
    let honest = scene.other.telemetry();
    let heard = scene.other.sign(&honest);
    let mut forged = scene.compromised.telemetry();
    forged.subject.clone_from(&honest.subject);
    forged.source_component = OTHER.into();
    let forged = scene.compromised.sign(&forged);
    let unsigned = Message::new(heard.subject.clone(), &b"{}"[..]);
    let refusal = async {
        // It may be heard as well as anybody.
        reflect(&scene, &heard).await?;
        scene.arrives_next(&honest).await?;
        let mut last = None;
        for (reason, message) in [("replayed", heard), ("unsigned", unsigned), ("sender_mismatch", forged)] {
            reflect(&scene, &message).await?;
            let rejected = scene.next_rejection().await.context(reason)?;
            ensure!(rejected.reason() == reason, "it is refused as `{}`: {rejected}", rejected.reason());
            last = Some(rejected);
        }
        last.map(Evidence::Rejected).context("there is no message")
    }
    .await;
    let control = match control {
        Ok(()) => scene.own_telemetry_arrives_next().await,
        failed => failed,
    };
    Ok(Trial { refusal, control })
}

/// Has the server publish a message.
async fn reflect(scene: &Scene, message: &Message) -> Result<()> {
    let nats = &scene.attacker.nats;
    let stored = format!("_INBOX.agent.{COMPROMISED}.stored");
    let own_keys = format!("ransomeye.keys.agent.{COMPROMISED}");
    let mut answers = nats.subscribe(stored.clone()).await?;
    nats.publish_with_reply(own_keys.clone(), stored, message.payload.clone()).await?;
    let answer = soon("the stream's answer", answers.next()).await?.context("the subscription ended")?;
    ensure!(answer.payload.starts_with(b"{\"stream\":"), "the stream refuses it: {:?}", answer.payload);
    let question = format!(r#"{{"last_by_subj":"{own_keys}"}}"#);
    nats.publish_with_reply("$JS.API.DIRECT.GET.RANSOMEYE_KEYS", message.subject.clone(), question.into()).await?;
    Ok(soon("flushing", nats.flush()).await??)
}
