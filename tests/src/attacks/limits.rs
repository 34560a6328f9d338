//! A compromised component sends more than the bus carries.

use anyhow::{Result, ensure};
use bus_crypto::trailer::TRAILER_LEN;
use bus_proto::prost::Message as _;
use bus_proto::v1::Envelope;

use super::Trial;
use super::broker::Message;
use super::raw::{Session, telemetry};
use super::scene::{COMPROMISED, Scene};
use super::sender::Sender;

/// A message that has exactly `size` bytes on the wire: padded with a field that no receiver knows.
pub(super) fn padded(sender: &Sender, envelope: &Envelope, size: usize) -> Message {
    // Field 1000, length-delimited, and a length that takes three bytes.
    const FRAME: usize = 2 + 3;
    let mut bytes = envelope.encode_to_vec();
    let size = size - TRAILER_LEN;
    let padding = size - bytes.len() - FRAME;
    assert!((1 << 14..1 << 21).contains(&padding), "a length of three bytes");
    bytes.extend([0xc2, 0x3e]);
    let septet = |shift: usize| u8::try_from(padding >> shift & 0x7f).expect("seven bits");
    bytes.extend([septet(0) | 0x80, septet(7) | 0x80, septet(14)]);
    bytes.resize(size, 0);
    sender.sign_prefix(&envelope.subject, bytes)
}

pub(super) async fn oversized_message() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let max = scene.deployment.server.config().max_payload;
    let control = async {
        let largest = scene.compromised.telemetry();
        let message = padded(&scene.compromised, &largest, usize::try_from(max)?);
        let mut session = Session::agent(&scene.deployment, COMPROMISED).await?;
        session.send(&message).await?;
        scene.arrives_next(&largest).await
    }
    .await;
    let refusal = async {
        let mut session = Session::agent(&scene.deployment, COMPROMISED).await?;
        // The announced size is what the server judges. It hangs up at once, so the bytes themselves may find no reader.
        session.write(format!("PUB {} {}\r\n", telemetry(COMPROMISED).subject, max + 1).as_bytes()).await?;
        let evidence = session.server_error().await?;
        scene.own_telemetry_arrives_next().await?;
        Ok(evidence)
    }
    .await;
    Ok(Trial { refusal, control })
}

pub(super) async fn too_many_subscriptions() -> Result<Trial> {
    let mut scene = Scene::set_with(|config| config.max_subscriptions = 16).await?;
    let max = scene.deployment.server.config().max_subscriptions;
    let mut session = Session::agent(&scene.deployment, COMPROMISED).await?;
    let control = async {
        for id in 1..=max {
            session.write(format!("SUB ransomeye.inbox.agent.agent-01.> {id}\r\n").as_bytes()).await?;
        }
        session.write(b"PING\r\n").await?;
        session.expect("PONG").await?;
        scene.own_telemetry_arrives_next().await
    }
    .await;
    let refusal = async {
        session.write(format!("SUB ransomeye.inbox.agent.agent-01.> {}\r\n", max + 1).as_bytes()).await?;
        let evidence = session.server_error().await?;
        ensure!(scene.core.flush().await.is_ok(), "the core suffers");
        Ok(evidence)
    }
    .await;
    Ok(Trial { refusal, control })
}
