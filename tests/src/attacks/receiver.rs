//! A compromised component sends, where it may publish, what is no good message. The receiver refuses it and goes on.

use anyhow::{Result, ensure};
use bus_client::Rejected;
use bus_proto::EnvelopeError;
use bus_proto::prost::Message as _;

use super::raw::telemetry;
use super::scene::{COMPROMISED, Scene, kill};
use super::{Evidence, Trial};

pub(super) async fn undecodable_bytes() -> Result<Trial> {
    deliver(vec![0xff; 64], |rejected| matches!(rejected, Rejected::Undecodable { .. })).await
}

pub(super) async fn another_source() -> Result<Trial> {
    let mut report = telemetry(COMPROMISED);
    report.source_component = "core-01".into();
    deliver(report.encode_to_vec(), |rejected| {
        matches!(rejected, Rejected::Envelope(EnvelopeError::SourceMismatch { .. }))
    })
    .await
}

pub(super) async fn command_as_telemetry() -> Result<Trial> {
    let mut report = telemetry(COMPROMISED);
    report.payload = Some(kill(4_242).into());
    deliver(report.encode_to_vec(), |rejected| {
        matches!(rejected, Rejected::Envelope(EnvelopeError::TypeMismatch { .. }))
    })
    .await
}

pub(super) async fn old_message() -> Result<Trial> {
    let mut report = telemetry(COMPROMISED);
    report.timestamp_utc -= 60 * 60 * 1_000;
    deliver(report.encode_to_vec(), |rejected| matches!(rejected, Rejected::Envelope(EnvelopeError::ClockSkew { .. })))
        .await
}

/// Sends bytes as the compromised agent's telemetry between two good messages, all to one live subscription.
async fn deliver(bytes: Vec<u8>, is_right: fn(&Rejected) -> bool) -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.own_telemetry_arrives_next().await?;
    let refusal = async {
        scene.attacker.publish(&telemetry(COMPROMISED).subject, bytes).await?;
        let rejected = scene.next_rejection().await?;
        ensure!(is_right(&rejected), "it was refused for another reason: {rejected}");
        Ok(Evidence::Rejected(rejected))
    }
    .await;
    Ok(Trial { refusal, control: scene.own_telemetry_arrives_next().await })
}
