//! A component that was removed from the configuration keeps its certificate, which is still valid.

use anyhow::{Context as _, Result, ensure};
use bus_acl::Policy;

use super::Trial;
use super::raw::{Attacker, options, tls};
use super::scene::{OTHER, Scene};

const REMAINING: [&str; 2] = ["core/core-01", "agent/agent-02"];

pub(super) async fn stays_connected() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.own_telemetry_arrives_next().await?;
    let mut other = Attacker::agent(&scene.deployment, OTHER).await?;
    scene.deployment.reconfigure(&REMAINING, Policy::default());
    let refusal = scene.attacker.disconnected().await;
    let control = async {
        // Waits in the removed agent's client for a connection that must not come.
        let forbidden = scene.compromised.sign(&scene.compromised.telemetry());
        let _ = scene.attacker.nats.publish(forbidden.subject, forbidden.payload).await;
        let allowed = scene.other.telemetry();
        other.send(&scene.other.sign(&allowed)).await?;
        scene.arrives_next(&allowed).await?;
        ensure!(!other.was_disconnected(), "the reload disconnects the other agent");
        Ok(())
    }
    .await;
    Ok(Trial { refusal, control })
}

pub(super) async fn reconnects() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.own_telemetry_arrives_next().await?;
    let deployment = &mut scene.deployment;
    let files = deployment.issue("agent/agent-01");
    let credentials = || tls(&deployment.authority.ca_path(), Some(&files)).map(options);
    let (before, after) = (credentials()?, credentials()?);
    let connected = Attacker::connect(deployment, before).await.context("before the removal");
    deployment.reconfigure(&REMAINING, Policy::default());
    let refusal = Attacker::refused(deployment, after).await;
    let control = async {
        connected?;
        let other = Attacker::agent(&scene.deployment, OTHER).await?;
        let allowed = scene.other.telemetry();
        other.send(&scene.other.sign(&allowed)).await?;
        scene.arrives_next(&allowed).await
    }
    .await;
    Ok(Trial { refusal, control })
}
