//! A compromised component stores messages where key bundles or sealing keys belong, and asks the server for them on behalf of others: the
//! server itself then publishes them where the component must not, as nobody limits where answers go.

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;

use super::broker::Message;
use super::raw::soon;
use super::scene::{COMPROMISED, OTHER, Scene};
use super::{Evidence, Trial};

/// Nothing that the server publishes out of a stream is heard: not what the other agent has signed, not what was made up in
/// its name, and not what the component has signed itself. What is published in the ordinary way is.
pub(super) async fn through_the_keys_stream() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.own_telemetry_arrives_next().await?;
    let own = scene.compromised.sign(&scene.compromised.telemetry());
    let honest = scene.other.telemetry();
    let anothers = scene.other.sign(&honest);
    let mut forged = scene.compromised.telemetry();
    forged.subject.clone_from(&honest.subject);
    forged.source_component = OTHER.into();
    let forged = scene.compromised.sign(&forged);
    let unsigned = Message::new(anothers.subject.clone(), &b"{}"[..]);
    let refusal = async {
        let messages = [own, anothers, forged, unsigned];
        let mut last = None;
        for (space, stream) in [("keys", "RANSOMEYE_KEYS"), ("sealing", "RANSOMEYE_SEALING")] {
            for message in &messages {
                reflect(&scene, space, stream, message).await?;
                let rejected = scene.next_rejection().await?;
                ensure!(rejected.reason() == "headers", "it is refused as `{}`: {rejected}", rejected.reason());
                last = Some(rejected);
            }
        }
        last.map(Evidence::Rejected).context("there is no message")
    }
    .await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}

/// Has the server publish a message out of this stream.
async fn reflect(scene: &Scene, space: &str, stream: &str, message: &Message) -> Result<()> {
    let nats = &scene.attacker.nats;
    let stored = format!("_INBOX.agent.{COMPROMISED}.stored");
    let own_keys = format!("ransomeye.{space}.agent.{COMPROMISED}");
    let mut answers = nats.subscribe(stored.clone()).await?;
    nats.publish_with_reply(own_keys.clone(), stored, message.payload.clone()).await?;
    let answer = soon("the stream's answer", answers.next()).await?.context("the subscription ended")?;
    ensure!(answer.payload.starts_with(b"{\"stream\":"), "the stream refuses it: {:?}", answer.payload);
    let question = format!(r#"{{"last_by_subj":"{own_keys}"}}"#);
    nats.publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), message.subject.clone(), question.into()).await?;
    Ok(soon("flushing", nats.flush()).await??)
}
