//! A compromised component seals: it has a good signing key and a good certificate, and what it seals, to whom, and what it
//! says about it, is up to it. The receiver refuses what does not hold and goes on.

mod binding;
mod forms;
mod keys;
mod recipients;
mod repeats;

use anyhow::{Context as _, Result, bail, ensure};
use bus_acl::{Destinations, FormRule, Inboxes, Policy, Sealing, Types};
use bus_client::{BusClient, BusOptions, Rejected, SealingKeys, Subscription};
use bus_crypto::sealing::{Epoch, Recipient};
use bus_proto::MessageType;
use bus_proto::v1::{Envelope, Sealed, TelemetryEvent};

use super::craft::{self, epoch};
use super::raw::{Attacker, soon};
use super::scene::{COMPROMISED, OTHER};
use super::sender::Sender;
use super::{Evidence, Trial};
use crate::deployment::{Deployment, principal};

pub(super) use binding::{altered_data, altered_epoch, altered_recipients, references, two_plaintexts};
pub(super) use forms::{bombs, nested, not_sealed, type_inside, unordered_recipients};
pub(super) use keys::{filled_stream, gone_version, publish_as_another};
pub(super) use recipients::{another_key, others_only, swapped_keys, too_many_recipients};
pub(super) use repeats::{copied_keys, copied_sealed, epochs_without_end, fork, second_epoch};

const CORE: &str = "core/core-01";
const SECOND: &str = "core/core-02";

/// A core that opens telemetry, and a compromised agent that seals some to it.
#[derive(Debug)]
struct Scene {
    deployment: Deployment,
    core: BusClient,
    telemetry: Subscription<TelemetryEvent>,
    /// The core's own keys, of which the compromised agent knows the public halves.
    keys: SealingKeys,
    attacker: Attacker,
    compromised: Sender,
    other: Sender,
}

impl Scene {
    async fn set() -> Result<Self> {
        Self::set_with(|options| options).await
    }

    /// As [`Scene::set`], under a policy that demands that telemetry, and whatever goes to an inbox, is sealed.
    async fn set_where_sealing_is_required() -> Result<Self> {
        let (telemetry, inboxes) = (Types::only([MessageType::Telemetry]), Destinations::Inboxes(Inboxes::Any));
        let rules = [
            FormRule::seal(telemetry, Destinations::Events, Sealing::Required).with_recipients([CORE.parse()?]),
            FormRule::seal(Types::EVERY, inboxes, Sealing::Required),
        ];
        Self::set_with(|options| options.policy(Policy::default().with_forms(rules))).await
    }

    async fn set_with(change: impl FnOnce(BusOptions) -> BusOptions) -> Result<Self> {
        let deployment = Deployment::start(&[CORE, SECOND, "agent/agent-01", "agent/agent-02"]);
        let keys = SealingKeys::in_memory(&principal(CORE))?;
        let core = BusClient::connect(change(deployment.options(CORE).sealing_keys(keys.clone()))).await?;
        let telemetry = core.subscribe().await?;
        let attacker = Attacker::agent(&deployment, COMPROMISED).await?;
        let compromised = Sender::agent(&deployment, COMPROMISED)?;
        let other = Sender::agent(&deployment, OTHER)?;
        Ok(Self { deployment, core, telemetry, keys, attacker, compromised, other })
    }

    /// The core, as whoever looks up its key would seal to it.
    fn core(&self) -> Recipient {
        let newest = self.keys.newest();
        craft::recipient(CORE, newest.version(), newest.key().public_key())
    }

    /// An epoch of the compromised agent to the core, as it should be.
    fn epoch(&self) -> Result<Epoch> {
        epoch(&self.compromised, &[self.core()])
    }

    /// Telemetry of the compromised agent, and what it is when it is sealed to the core as it should be.
    fn sealed(&self) -> Result<(Envelope, Sealed)> {
        let envelope = self.compromised.telemetry();
        let sealed = craft::sealed(&self.compromised, &mut self.epoch()?, &envelope)?;
        Ok((envelope, payload_of(sealed)?))
    }

    /// Signs and sends.
    async fn send(&self, envelope: &Envelope) -> Result<()> {
        self.attacker.send(&self.compromised.sign(envelope)).await
    }

    /// The core's refusal of the next telemetry.
    async fn next_rejection(&mut self) -> Result<Rejected> {
        match soon("a refusal", self.telemetry.next()).await?.context("the subscription ended")? {
            Err(rejected) => Ok(rejected),
            Ok(received) => bail!("{:?} from {} was accepted", received.payload(), received.sender()),
        }
    }

    /// The compromised agent sends this, and the core refuses it under this name: the reason, and after a colon what else
    /// the refusal says to the program.
    async fn refuses(&mut self, envelope: &Envelope, name: &str) -> Result<Evidence> {
        self.send(envelope).await?;
        named(self.next_rejection().await?, name)
    }

    /// As [`Scene::refuses`], of several, each of them with what was done to it.
    async fn refuses_each(&mut self, attempts: Vec<(&'static str, Envelope, &'static str)>) -> Result<Evidence> {
        let mut last = None;
        for (what, envelope, name) in attempts {
            last = Some(self.refuses(&envelope, name).await.context(what)?);
        }
        last.context("nothing was tried")
    }

    /// Checks that this is the next telemetry that the core accepts, and that it could open it.
    async fn opens_next(&mut self, envelope: &Envelope) -> Result<()> {
        opens_next(&mut self.telemetry, envelope).await
    }

    /// The control of most attacks: the same tool seals as it should. As that is the next to arrive, nothing before did.
    async fn own_telemetry_opens_next(&mut self) -> Result<()> {
        let (envelope, sealed) = self.sealed()?;
        let allowed = craft::carrying(&envelope, sealed);
        self.send(&allowed).await?;
        self.opens_next(&allowed).await
    }
}

/// Checks that this is the next telemetry that arrives there, opened.
async fn opens_next(telemetry: &mut Subscription<TelemetryEvent>, envelope: &Envelope) -> Result<()> {
    let received = soon("telemetry", telemetry.next()).await?.context("the subscription ended")?;
    let received = received.context("what is sealed as it should be is refused")?;
    ensure!(received.message_id() == envelope.message_id, "another message of {} arrives first", received.sender());
    ensure!(received.is_sealed(), "it was not sealed");
    Ok(())
}

/// The refusal, if it has this name.
fn named(rejected: Rejected, name: &str) -> Result<Evidence> {
    let (reason, detail) = name.split_once(": ").unwrap_or((name, ""));
    let fits = rejected.reason() == reason && format!("{rejected:?}").contains(detail);
    ensure!(fits, "it was refused as `{}`, and not as `{name}`: {rejected:?}", rejected.reason());
    Ok(Evidence::Rejected(rejected))
}

fn payload_of(envelope: Envelope) -> Result<Sealed> {
    match envelope.payload {
        Some(bus_proto::AnyPayload::Sealed(sealed)) => Ok(sealed),
        _ => bail!("nothing is sealed in it"),
    }
}

/// Sends what `make` makes, between two messages that are sealed as they should be.
async fn deliver(
    mut scene: Scene,
    make: impl FnOnce(&Scene) -> Result<Vec<(&'static str, Envelope, &'static str)>>,
) -> Result<Trial> {
    scene.own_telemetry_opens_next().await.context("before the attack")?;
    let attempts = make(&scene)?;
    let refusal = scene.refuses_each(attempts).await;
    Ok(Trial { refusal, control: scene.own_telemetry_opens_next().await })
}
