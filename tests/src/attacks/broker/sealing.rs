//! The broker, and whoever listens there, has what is sealed before it: it reads, changes, keeps back and compares.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{BusClient, BusOptions, SealingKeys, Status, Subscription};
use bus_crypto::trailer::{self, TRAILER_LEN};
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{AlertEvent, CommandResult, Envelope, Reference, Sealed, Severity, TelemetryEvent};
use bus_proto::{AnyPayload, IntoOutgoing as _, MessageType};
use tokio::sync::mpsc;

use super::delivery::caught;
use super::proxy::Broker;
use super::reasons::{REPLAYED, SIGNATURE, UNKNOWN_EPOCH};
use super::stage::{AGENT, CORE, options};
use super::wire::{Direction, Message};
use crate::attacks::craft::{self, Bound, any_key, carrying, content, epoch, holding, recipient};
use crate::attacks::raw::soon;
use crate::attacks::sender::Sender;
use crate::attacks::{Evidence, Trial};
use crate::deployment::{Deployment, principal};

/// A core that may hear alerts, and is nobody's reader.
const CURIOUS: &str = "core/core-02";

/// A core that reads what an agent seals, both of them connected through the broker.
struct Scene {
    deployment: Deployment,
    broker: Broker,
    core: BusClient,
    alerts: Subscription<AlertEvent>,
    agent: BusClient,
}

fn is_alert(message: &Message) -> bool {
    message.subject.starts_with("ransomeye.events.alert.")
}

fn alert(description: &str) -> AlertEvent {
    let (threat_type, severity) = ("exfiltration".into(), Severity::High.into());
    AlertEvent { threat_type, severity, description: description.into() }
}

/// Seals alerts to the core.
fn sealing(options: BusOptions) -> Result<BusOptions> {
    Ok(options.seal_events(MessageType::Alert, [CORE.parse()?]))
}

impl Scene {
    async fn set() -> Result<Self> {
        let deployment = Deployment::start_with_key_streams(&[CORE, CURIOUS, AGENT]).await;
        let broker = Broker::before(&deployment).await?;
        let core = BusClient::connect(options(&deployment, &broker, CORE)?).await?;
        let alerts = core.subscribe().await?;
        let agent = BusClient::connect(sealing(options(&deployment, &broker, AGENT)?)?).await?;
        Ok(Self { deployment, broker, core, alerts, agent })
    }

    /// Checks that this is the next alert that the core reads.
    async fn reads_next(&mut self, description: &str) -> Result<()> {
        let received = soon("an alert", self.alerts.next()).await?.context("the subscription ended")??;
        ensure!(received.payload().description == description, "another alert arrives: {:?}", received.payload());
        ensure!(received.is_sealed(), "it is not sealed");
        Ok(())
    }

    /// Has the agent report, and checks that it is what the core reads next.
    async fn reported(&mut self, description: &str) -> Result<()> {
        self.agent.publish(alert(description)).await?;
        self.reads_next(description).await
    }

    /// The core's refusal of the next alert.
    async fn refused_next(&mut self, reason: &str) -> Result<Evidence> {
        match soon("a refusal", self.alerts.next()).await?.context("the subscription ended")? {
            Err(rejected) if rejected.reason() == reason => Ok(Evidence::Rejected(rejected)),
            Err(rejected) => bail!("it is refused as `{}`: {rejected}", rejected.reason()),
            Ok(received) => bail!("{:?} is accepted", received.payload()),
        }
    }
}

/// What is in an envelope, and what it has sealed.
fn read(message: &Message) -> Result<(Envelope, Sealed)> {
    let envelope = Envelope::decode(trailer::split(&message.payload)?.prefix)?;
    match envelope.payload.clone() {
        Some(AnyPayload::Sealed(sealed)) => Ok((envelope, sealed)),
        other => bail!("it is not sealed: {other:?}"),
    }
}

/// All that passes the broker, from and to some components.
fn tapped(broker: &Broker, who: &[&str]) -> Arc<Mutex<Vec<Message>>> {
    let tapped = Arc::<Mutex<Vec<Message>>>::default();
    for who in who {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let record = Arc::clone(&tapped);
            broker.intercept(who, direction, move |message, fate| {
                record.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
                fate.forward(message);
            });
        }
    }
    tapped
}

/// How many of these messages have the text in them, and how many there are.
fn heard(tapped: &Mutex<Vec<Message>>, text: &str) -> (usize, usize) {
    let messages = std::mem::take(&mut *tapped.lock().unwrap_or_else(PoisonError::into_inner));
    let says = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let headers = |message: &Message| message.headers.as_ref().is_some_and(|headers| says(headers));
    (messages.iter().filter(|message| says(&message.payload) || headers(message)).count(), messages.len())
}

/// Everything that passes is searched for a text: in alerts, in references, in directed messages. Somebody who may subscribe,
/// and has no key, is given nothing either.
pub(super) async fn reads_along() -> Result<Trial> {
    const TEXT: &str = "nobody else may read this text";
    let mut scene = Scene::set().await?;
    let curious = BusClient::connect(options(&scene.deployment, &scene.broker, CURIOUS)?).await?;
    let (mut shown, mut typed) = (curious.subscribe::<AnyPayload>().await?, curious.subscribe::<AlertEvent>().await?);
    let mut inbox = scene.core.subscribe_inbox::<CommandResult>().await?;
    let core = CORE.parse()?;
    let tap = tapped(&scene.broker, &[CORE, CURIOUS, AGENT]);
    let case = || Reference { kind: "case".into(), value: TEXT.into() };
    let refusal = async {
        scene.agent.publish(alert(TEXT).with_references([case()], [CORE.parse()?])).await?;
        let received = soon("an alert", scene.alerts.next()).await?.context("the subscription ended")??;
        ensure!(received.payload() == &alert(TEXT) && received.references() == [case()], "it arrives otherwise");
        scene.agent.send(&core, CommandResult::completed(TEXT)).await?;
        let received = soon("a message", inbox.next()).await?.context("the subscription ended")??;
        ensure!(received.payload().detail == TEXT, "it arrives otherwise");
        let received = soon("an alert", shown.next()).await?.context("the subscription ended")??;
        ensure!(matches!(received.payload(), AnyPayload::Sealed(_)), "{:?} is shown", received.payload());
        ensure!(received.references().is_empty() && received.has_hidden_references(), "references are shown");
        let rejected = soon("a refusal", typed.next()).await?.context("the subscription ended")?;
        let rejected = rejected.err().context("it is opened without a key")?;
        ensure!(rejected.reason() == "not_a_recipient", "it is refused as `{}`", rejected.reason());
        let (found, messages) = heard(&tap, TEXT);
        ensure!(found == 0, "{found} of {messages} messages say it");
        // The alert and the answer, each on its way in and out, and the alert once more.
        ensure!(messages >= 5, "{messages} messages passed");
        Ok(Evidence::Rejected(rejected))
    }
    .await;
    let control = async {
        // The same search finds what is not sealed.
        let plain = BusClient::connect(options(&scene.deployment, &scene.broker, AGENT)?.seal_directed(false)).await?;
        plain.publish(alert(TEXT)).await?;
        soon("an alert", scene.alerts.next()).await?.context("the subscription ended")??;
        plain.send(&core, CommandResult::completed(TEXT)).await?;
        soon("a message", inbox.next()).await?.context("the subscription ended")??;
        let (found, messages) = heard(&tap, TEXT);
        ensure!(found >= 4, "{found} of {messages} messages say what is not sealed");
        scene.broker.behave(AGENT);
        scene.reported("sealed again").await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// What the broker makes of a sealed message, without the key that signed it. The original is accepted after all of that.
pub(super) async fn changes_what_is_sealed() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    scene.reported("before").await?;
    let other = Sender::of(&scene.deployment.authority, "agent/agent-02")?;
    // So that the next alert brings its wrapped keys.
    let mut held = scene.broker.hold(CORE, Direction::ToClient, is_alert);
    let agent = BusClient::connect(sealing(options(&scene.deployment, &scene.broker, AGENT)?)?).await?;
    agent.publish(alert("the original")).await?;
    let original = caught(&mut held).await?;
    agent.publish(alert("another one")).await?;
    let another = caught(&mut held).await?;
    scene.broker.behave(CORE);
    let (envelope, sealed) = read(&original)?;
    ensure!(sealed.wrapped_keys.len() == 1, "there are {} wrapped keys", sealed.wrapped_keys.len());
    let of_another = read(&another)?.1;
    let trailer = &original.payload[original.payload.len() - TRAILER_LEN..];
    let with = |changed: Envelope| {
        let bytes = [&changed.encode_to_vec(), trailer].concat();
        Message { payload: bytes.into(), ..original.clone() }
    };
    let own = any_key()?;
    let made = |change: &dyn Fn(&mut Sealed)| {
        let mut changed = sealed.clone();
        change(&mut changed);
        with(carrying(&envelope, changed))
    };
    let resealed = {
        // With a key of its own, under the true sender's name.
        let to = [recipient(CORE, 1, own.public_key())];
        let bound = Bound { sender: principal(AGENT).spiffe_id(), ..Bound::to(&other, &envelope)? };
        bound.seal(&mut epoch(&other, &to)?, &content(alert("made up").into()))?
    };
    let mut alone = carrying(&envelope, sealed.clone());
    alone.bundle = Bytes::new();
    let forgeries = vec![
        ("the sealing is stripped", with(holding(&envelope, alert("made up")))),
        ("the wrapped keys are left out", made(&|sealed| sealed.wrapped_keys.clear())),
        ("a wrapped key is replaced", made(&|sealed| sealed.wrapped_keys.clone_from(&resealed.wrapped_keys))),
        (
            "a recipient is added",
            made(&|sealed| {
                let mut added = sealed.wrapped_keys[0].clone();
                added.recipient = added.recipient.replace("core-01", "core-02");
                sealed.wrapped_keys.push(added);
            }),
        ),
        ("another version", made(&|sealed| sealed.wrapped_keys[0].key_version += 1)),
        ("another epoch", made(&|sealed| sealed.epoch_id.clone_from(&resealed.epoch_id))),
        ("another commitment", made(&|sealed| sealed.commitment.clone_from(&resealed.commitment))),
        ("another counter", made(&|sealed| sealed.counter += 1)),
        ("the ciphertext of another message", made(&|sealed| sealed.ciphertext.clone_from(&of_another.ciphertext))),
        ("what another message has sealed", with(carrying(&envelope, of_another.clone()))),
        ("sealed anew", with(carrying(&envelope, resealed.clone()))),
        ("without its bundle", with(alone)),
    ];
    let refusal = async {
        let mut last = None;
        for (what, forgery) in forgeries {
            scene.broker.deliver(CORE, &forgery).await?;
            last = Some(scene.refused_next(SIGNATURE).await.context(what)?);
        }
        last.context("there is no forgery")
    }
    .await;
    let control = async {
        scene.broker.deliver(CORE, &original).await?;
        scene.reads_next("the original").await?;
        scene.broker.deliver(CORE, &original).await?;
        scene.refused_next(REPLAYED).await.context("the original again")?;
        scene.broker.deliver(CORE, &another).await?;
        scene.reads_next("another one").await?;
        scene.reported("after").await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// The message that brings the wrapped keys is dropped. What follows is refused by name until they come again. Each alert
/// brings them, so this is telemetry.
pub(super) async fn drops_wrapped_keys() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let mut telemetry = scene.core.subscribe::<TelemetryEvent>().await?;
    let options = options(&scene.deployment, &scene.broker, AGENT)?;
    let agent = BusClient::connect(options.seal_events(MessageType::Telemetry, [CORE.parse()?])).await?;
    let load = |cpu_usage| TelemetryEvent { cpu_usage, ram_usage: 50.0 };
    let is_telemetry = |message: &Message| message.subject.starts_with("ransomeye.events.telemetry.");
    let mut held = scene.broker.hold(CORE, Direction::ToClient, is_telemetry);
    agent.publish(load(1.0)).await?;
    let dropped = read(&caught(&mut held).await?)?.1;
    // The bundle is dropped with them. The keys stream has it.
    scene.broker.behave(CORE);
    let refusal = async {
        ensure!(dropped.wrapped_keys.len() == 1, "the first message has {} wrapped keys", dropped.wrapped_keys.len());
        agent.publish(load(2.0)).await?;
        let next = soon("a refusal", telemetry.next()).await?.context("the subscription ended")?;
        let rejected = next.err().context("it is opened without its wrapped key")?;
        ensure!(rejected.reason() == UNKNOWN_EPOCH, "it is refused as `{}`: {rejected}", rejected.reason());
        Ok(Evidence::Rejected(rejected))
    }
    .await;
    let control = async {
        // With a new connection they come again, at once.
        comes_back(&scene.broker, &agent).await?;
        agent.publish(load(3.0)).await?;
        let received = soon("telemetry", telemetry.next()).await?.context("the subscription ended")??;
        ensure!(received.payload() == &load(3.0) && received.is_sealed(), "{:?} arrives", received.payload());
        scene.reported("after").await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// Hangs up on all processes of the agent, and waits for this one.
async fn comes_back(broker: &Broker, agent: &BusClient) -> Result<()> {
    let mut status = agent.status();
    broker.hang_up(AGENT);
    soon("the end of a connection", status.wait_for(|status| *status != Status::Connected)).await??;
    soon("a new connection", status.wait_for(|status| *status == Status::Connected)).await??;
    Ok(())
}

/// The broker has a component start again and again, and come back to it again and again, in the hope that it seals two
/// messages under one key and one nonce. The former processes go on beside the new one.
pub(super) async fn waits_for_a_repeated_nonce() -> Result<Trial> {
    const PROCESSES: usize = 12;
    const CONNECTIONS: usize = 3;
    let mut scene = Scene::set().await?;
    let mut sent = scene.broker.record(AGENT, Direction::ToServer, is_alert);
    let control = async {
        let mut processes = Vec::new();
        for process in 0..PROCESSES {
            let options = sealing(options(&scene.deployment, &scene.broker, AGENT)?)?;
            let agent = BusClient::connect(options).await?;
            for connection in 0..CONNECTIONS {
                if connection > 0 {
                    comes_back(&scene.broker, &agent).await?;
                }
                let text = format!("process {process}, connection {connection}");
                agent.publish(alert(&text)).await?;
                scene.reads_next(&text).await.context(text)?;
            }
            processes.push(agent);
        }
        Ok(())
    }
    .await;
    let refusal = compare(&mut sent, PROCESSES, CONNECTIONS);
    Ok(Trial { refusal, control })
}

/// Checks that no two of these messages were sealed under one key and one nonce.
fn compare(sent: &mut mpsc::UnboundedReceiver<Message>, processes: usize, connections: usize) -> Result<Evidence> {
    let (mut nonces, mut epochs, mut commitments) = (HashSet::new(), HashMap::new(), HashSet::new());
    let mut messages = 0;
    while let Ok(message) = sent.try_recv() {
        let sealed = read(&message)?.1;
        messages += 1;
        ensure!(nonces.insert((sealed.commitment.clone(), sealed.counter)), "a key and a nonce are used again");
        let commitment = epochs.entry(sealed.epoch_id).or_insert_with(|| sealed.commitment.clone());
        ensure!(*commitment == sealed.commitment, "an epoch has two keys");
        commitments.insert(sealed.commitment);
    }
    ensure!(messages == processes * connections, "{messages} messages passed");
    let (epochs, keys) = (epochs.len(), commitments.len());
    ensure!(epochs == processes && keys == processes, "{processes} processes have {epochs} epochs and {keys} keys");
    Ok(Evidence::Noticed(format!("{processes} processes seal {messages} messages in {epochs} epochs, no nonce twice")))
}

/// The keys of a component are gone, or rolled back with their file, and what was sealed to the newer ones arrives.
pub(super) async fn delivers_to_former_keys() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let agent = Sender::of(&scene.deployment.authority, AGENT)?;
    let owner = principal(CURIOUS);
    let (newer, former) = (SealingKeys::in_memory(&owner)?, SealingKeys::in_memory(&owner)?);
    newer.rotate()?;
    let restored = options(&scene.deployment, &scene.broker, CURIOUS)?.sealing_keys(former.clone());
    let curious = BusClient::connect(restored).await?;
    let mut alerts = curious.subscribe::<AlertEvent>().await?;
    let seal = |keys: &SealingKeys, text: &str| {
        let envelope = agent.event(alert(text));
        let to = [recipient(CURIOUS, keys.newest().version(), keys.newest().key().public_key())];
        let sealed = craft::sealed(&agent, &mut epoch(&agent, &to)?, &envelope)?;
        anyhow::Ok(agent.sign(&sealed))
    };
    let refusal = async {
        scene.broker.deliver(CURIOUS, &seal(&newer, "to a key that is gone")?).await?;
        let rejected = soon("a refusal", alerts.next()).await?.context("the subscription ended")?;
        let rejected = rejected.err().context("it is opened without its key")?;
        ensure!(rejected.reason() == "unknown_sealing_key", "it is refused as `{}`: {rejected}", rejected.reason());
        Ok(Evidence::Rejected(rejected))
    }
    .await;
    let control = async {
        scene.broker.deliver(CURIOUS, &seal(&former, "to a key that is there")?).await?;
        let received = soon("an alert", alerts.next()).await?.context("the subscription ended")??;
        ensure!(received.payload().description == "to a key that is there", "another one arrives");
        scene.reported("after").await
    }
    .await;
    Ok(Trial { refusal, control })
}
