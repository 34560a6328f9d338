//! The broker meddles with the keys that others seal to: it withholds them, shows former ones, and makes some up. A sender
//! then sends nothing, and says why; nothing is ever sent unsealed instead.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::{BusClient, NoSealingKey, PublishError, SealingKeys, Status, Subscription};
use bus_crypto::Clock;
use bus_crypto::bundle::{LeafSigner as _, certificate_digest};
use bus_crypto::sealing::SealingPublicKey;
use bus_crypto::sealing::record::{self, MAX_SEALING_MS, SealingLifetime};
use bus_proto::prost::Message as _;
use bus_proto::v1::{CommandResult, SealingKeyRecord, SealingKeyStatement};
use bus_tls::pki::Profile;
use tokio::time::sleep;

use super::bundles::{answers, is_look_up};
use super::proxy::{Broker, Fate};
use super::stage::{AGENT, CORE, OTHER, options};
use super::wire::{Direction, Message};
use crate::attacks::certificates::rogue_authority;
use crate::attacks::craft::any_key;
use crate::attacks::raw::{PATIENCE, soon, unix_ms};
use crate::attacks::sender::{Leaf, SKEW_MS, Sender};
use crate::attacks::{Evidence, Trial};
use crate::deployment::{Deployment, principal};

const HOUR_MS: i64 = 3_600_000;

/// What nobody but the core may read.
const SECRET: &str = "for the core alone";

/// What the broker makes of a question for somebody's sealing keys.
#[derive(Debug, Clone)]
enum Shown {
    Records(Vec<Vec<u8>>),
    /// That there is no such stream.
    NoStream,
    /// No answer.
    Nothing,
}

/// A core, and agents that seal to it, whose look-ups the broker answers.
struct Scene {
    deployment: Deployment,
    broker: Broker,
    inbox: Subscription<CommandResult>,
    keys: SealingKeys,
    /// A certificate of the core.
    leaf: Leaf,
    shown: Arc<Mutex<Shown>>,
    /// All that agents have published.
    published: Arc<Mutex<Vec<Message>>>,
    _core: BusClient,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    async fn set() -> Result<Self> {
        let deployment = Deployment::start(&[CORE, AGENT, OTHER]);
        let broker = Broker::before(&deployment).await?;
        let keys = SealingKeys::in_memory(&principal(CORE))?;
        let core = BusClient::connect(options(&deployment, &broker, CORE)?.sealing_keys(keys.clone())).await?;
        let inbox = core.subscribe_inbox().await?;
        let leaf = Leaf::issue(&deployment.authority, CORE)?;
        let shown = Arc::new(Mutex::new(Shown::Records(Vec::new())));
        let published = Arc::<Mutex<Vec<Message>>>::default();
        let (showing, recording) = (Arc::clone(&shown), Arc::clone(&published));
        broker.intercept(AGENT, Direction::ToServer, move |message, fate| {
            lock(&recording).push(message.clone());
            if is_look_up(&message) && message.subject.ends_with("_SEALING") {
                answer(&message, lock(&showing).clone(), fate);
            } else {
                fate.forward(message);
            }
        });
        Ok(Self { deployment, broker, inbox, keys, leaf, shown, published, _core: core })
    }

    /// An agent that knows nothing yet.
    async fn agent(&self) -> Result<BusClient> {
        let options = options(&self.deployment, &self.broker, AGENT)?.operation_timeout(Duration::from_secs(1));
        Ok(BusClient::connect(options).await?)
    }

    fn shows(&self, shown: Shown) {
        *lock(&self.shown) = shown;
    }

    /// The newest key of the core.
    fn key(&self) -> SealingPublicKey {
        self.keys.newest().key().public_key().clone()
    }

    /// What the core would publish.
    fn true_record(&self) -> Result<Vec<u8>> {
        make(&self.leaf, &self.key(), self.keys.newest().version(), an_hour())
    }

    /// Nothing that agents have published since the last time says the secret, or goes to an inbox.
    fn nothing_went_out(&self) -> Result<()> {
        for message in std::mem::take(&mut *lock(&self.published)) {
            ensure!(!message.subject.starts_with("ransomeye.inbox."), "a message goes to {}", message.subject);
            let plain = message.payload.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            ensure!(!plain, "the secret is published to {}", message.subject);
        }
        Ok(())
    }

    /// This agent sends, and must fail with this name: what the error is called, and after a colon what else it says.
    async fn fails(&self, agent: &BusClient, name: &str) -> Result<Evidence> {
        let error = match agent.send(&CORE.parse()?, CommandResult::completed(SECRET)).await {
            Err(PublishError::NoSealingKey(error)) => error,
            Err(error) => return Err(error).context("it fails otherwise"),
            Ok(()) => bail!("it is sent"),
        };
        ensure!(is_named(&error, name), "it fails as {error:?}, and not as {name}");
        // What was handed over before is at the broker by now.
        agent.flush().await?;
        self.nothing_went_out()?;
        Ok(Evidence::Noticed(format!("the sender sends nothing: {error}")))
    }

    /// As [`Scene::fails`], of an agent that knows nothing but what it is shown.
    async fn refuses(&self, shown: Shown, name: &str) -> Result<Evidence> {
        self.shows(shown);
        self.fails(&self.agent().await?, name).await
    }

    /// As [`Scene::refuses`], of several, each with what was done.
    async fn refuses_each(&self, attempts: Vec<(&'static str, Vec<u8>, &'static str)>) -> Result<Evidence> {
        let mut last = None;
        for (what, record, name) in attempts {
            last = Some(self.refuses(Shown::Records(vec![record]), name).await.context(what)?);
        }
        last.context("nothing was tried")
    }

    /// The control: with these records, what is sealed to the core arrives, and was not readable on the way.
    async fn sends_with(&mut self, records: Vec<Vec<u8>>) -> Result<()> {
        self.shows(Shown::Records(records));
        let agent = self.agent().await?;
        lock(&self.published).clear();
        agent.send(&CORE.parse()?, CommandResult::completed(SECRET)).await?;
        self.arrives_next().await
    }

    async fn arrives_next(&mut self) -> Result<()> {
        let received = soon("a message", self.inbox.next()).await?.context("the subscription ended")??;
        ensure!(received.payload().detail == SECRET && received.is_sealed(), "another message arrives");
        let sent = std::mem::take(&mut *lock(&self.published));
        let sent: Vec<_> = sent.iter().filter(|sent| sent.subject.starts_with("ransomeye.inbox.")).collect();
        ensure!(sent.len() == 1, "{} messages were sent", sent.len());
        let plain = sent[0].payload.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        ensure!(!plain, "the secret can be read on the way");
        Ok(())
    }

    async fn sends_with_the_true_record(&mut self) -> Result<()> {
        let record = self.true_record()?;
        self.sends_with(vec![record]).await.context("with the true record")
    }
}

fn answer(look_up: &Message, shown: Shown, fate: &mut Fate) {
    match shown {
        Shown::Records(records) => answers(look_up, &records).into_iter().for_each(|answer| fate.answer(answer)),
        Shown::NoStream => {
            let nobody = Message::new(look_up.reply.clone().unwrap_or_default(), Vec::new());
            fate.answer(nobody.with_headers("NATS/1.0 503\r\n\r\n"));
        }
        Shown::Nothing => {}
    }
}

fn is_named(error: &NoSealingKey, name: &str) -> bool {
    let (variant, words) = name.split_once(": ").unwrap_or((name, ""));
    format!("{error:?}").starts_with(variant) && error.to_string().contains(words)
}

/// From a moment ago on.
fn an_hour() -> SealingLifetime {
    let not_before = unix_ms() - 1_000;
    SealingLifetime { not_before, not_after: not_before + HOUR_MS }
}

/// A record as it should be, made when its time began.
fn make(leaf: &Leaf, key: &SealingPublicKey, version: u64, lifetime: SealingLifetime) -> Result<Vec<u8>> {
    let clock = Clock::new(lifetime.not_before, SKEW_MS);
    Ok(record::make(key, version, lifetime, &leaf.chain, &leaf.facts()?, leaf, &clock)?)
}

/// A record that says what it should but for this change, signed as it should be.
fn forged(leaf: &Leaf, key: &SealingPublicKey, change: impl FnOnce(&mut SealingKeyStatement)) -> Result<Vec<u8>> {
    signed(leaf, key, b"ransomeye.v1 sealing key\0", change)
}

/// As [`forged`], signed as something that begins with these bytes.
fn signed(
    leaf: &Leaf,
    key: &SealingPublicKey,
    context: &[u8],
    change: impl FnOnce(&mut SealingKeyStatement),
) -> Result<Vec<u8>> {
    let SealingLifetime { not_before, not_after } = an_hour();
    let mut statement = SealingKeyStatement {
        principal: leaf.principal.spiffe_id(),
        version: 1,
        suite: 1,
        public_key: key.as_bytes().to_vec().into(),
        not_before,
        not_after,
        chain: leaf.chain.iter().map(|der| der.clone().into()).collect(),
    };
    change(&mut statement);
    let (statement, scheme) = (statement.encode_to_vec(), leaf.scheme().code());
    let digest = certificate_digest(&leaf.chain[0]);
    let message = [&[0x20; 64], context, &digest, &scheme.to_be_bytes(), &statement].concat();
    let leaf_signature = leaf.sign(&message)?.into();
    Ok(SealingKeyRecord { statement: statement.into(), scheme: scheme.into(), leaf_signature }.encode_to_vec())
}

/// Records that are none of the core's.
pub(super) async fn made_up() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let (authority, thiefs) = (&scene.deployment.authority, any_key()?);
    let thiefs = thiefs.public_key();
    let as_the_core = |statement: &mut SealingKeyStatement| statement.principal = principal(CORE).spiffe_id();
    let other = Leaf::issue(authority, OTHER)?;
    let stranger = Leaf::issue(&rogue_authority(scene.deployment.path())?, CORE)?;
    let broker = Leaf::of(&authority.issue(&Profile::broker("nats-1".parse()?, ["localhost"])?)?)?;
    let truth = scene.true_record()?;
    let flipped = |place: usize| {
        let mut record = truth.clone();
        record[place] ^= 1;
        record
    };
    let key_at = truth.windows(32).position(|window| window == scene.key().as_bytes()).context("no key in it")?;
    let leaf = &scene.leaf;
    let attempts = vec![
        ("another authority's", make(&stranger, thiefs, 1, an_hour())?, "Refused: certificate"),
        ("another component's", make(&other, thiefs, 1, an_hour())?, "Refused: it is one of"),
        ("in the core's name", forged(&other, thiefs, as_the_core)?, "Refused: another principal"),
        ("the broker's, in the core's name", forged(&broker, thiefs, as_the_core)?, "Refused"),
        (
            "another key",
            {
                let mut record = truth.clone();
                record[key_at..key_at + 32].copy_from_slice(thiefs.as_bytes());
                record
            },
            "Refused: signature",
        ),
        ("a bit of the key", flipped(key_at + 5), "Refused: signature"),
        ("a bit of the signature", flipped(truth.len() - 1), "Refused"),
        ("a bit of the frame", flipped(1), "Refused"),
        ("cut off", truth[..truth.len() - 1].to_vec(), "Refused"),
        ("with something behind it", [&truth[..], &[0x22, 0]].concat(), "Refused"),
        ("a key bundle", Sender::of(authority, CORE)?.bundle, "Refused"),
        ("signed as a bundle", signed(leaf, thiefs, b"ransomeye.v1 key bundle\0", |_| {})?, "Refused: signature"),
        ("something else", b"none".to_vec(), "Refused"),
        ("nothing", Vec::new(), "Refused"),
        (
            "a key that everybody can open",
            forged(leaf, thiefs, |statement| {
                statement.public_key = vec![0; 32].into();
            })?,
            "Refused: small order",
        ),
        ("a short key", forged(leaf, thiefs, |statement| statement.public_key.truncate(31))?, "Refused: public_key"),
        ("no version", forged(leaf, thiefs, |statement| statement.version = 0)?, "Refused: version"),
        ("another suite", forged(leaf, thiefs, |statement| statement.suite = 2)?, "Refused: suite 2"),
    ];
    let refusal = scene.refuses_each(attempts).await;
    let refusal = match refusal {
        Ok(_) => {
            let revoked = Leaf::issue(authority, CORE)?;
            let record = make(&revoked, scene.keys.newest().key().public_key(), 1, an_hour())?;
            authority.revoke_serial(&revoked.serial)?;
            scene.refuses(Shown::Records(vec![record]), "Refused: revoked").await.context("a revoked certificate")
        }
        failed => failed,
    };
    // Beside the true one, none of them counts.
    let control = async {
        let beside = [
            make(&other, thiefs, 9, an_hour())?,
            b"none".to_vec(),
            truth.clone(),
            make(&stranger, thiefs, 9, an_hour())?,
        ];
        scene.sends_with(beside.to_vec()).await.context("with the true record among them")?;
        scene.sends_with_the_true_record().await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// Times that no key may have.
pub(super) async fn times() -> Result<Trial> {
    const DAY_MS: i64 = 24 * HOUR_MS;
    let mut scene = Scene::set().await?;
    let (leaf, key, now) = (&scene.leaf, scene.key(), unix_ms());
    let lasting = |not_before: i64, not_after: i64| {
        forged(leaf, &key, |statement| (statement.not_before, statement.not_after) = (not_before, not_after))
    };
    let end = leaf.not_after_ms;
    let attempts = vec![
        ("it outlives its certificate", lasting(end - DAY_MS, end + 1)?, "Refused: longer than its certificates"),
        ("it is over", lasting(now - 2 * HOUR_MS, now - 1)?, "Expired"),
        ("it is yet to come", lasting(now + HOUR_MS, now + 2 * HOUR_MS)?, "Refused: valid"),
        ("it lasts too long", lasting(now - HOUR_MS, now - HOUR_MS + MAX_SEALING_MS + 1)?, "Refused: 30 days"),
        ("it ends before it begins", lasting(now, now - 1)?, "Refused: out of order"),
        ("it begins before all time", lasting(-1, now + 1)?, "Refused"),
        ("it has no end", lasting(now, i64::MAX)?, "Refused: 30 days"),
    ];
    let refusal = scene.refuses_each(attempts).await;
    Ok(Trial { refusal, control: scene.sends_with_the_true_record().await })
}

/// Two keys go by one version, both of them the core's own.
pub(super) async fn conflict() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let another = any_key()?;
    let renewed = Leaf::issue(&scene.deployment.authority, CORE)?;
    let (truth, twin) = (scene.true_record()?, make(&renewed, another.public_key(), 1, an_hour())?);
    let both = |records: [&Vec<u8>; 2]| Shown::Records(records.map(Clone::clone).to_vec());
    let refusal = async {
        scene.refuses(both([&truth, &twin]), "Conflict").await?;
        scene.refuses(both([&twin, &truth]), "Conflict").await
    }
    .await;
    let control = async {
        // The same key under another certificate, which it was stated with again.
        let again = make(&renewed, &scene.key(), 1, an_hour())?;
        scene.sends_with(vec![truth.clone(), again]).await.context("one key under two certificates")?;
        scene.keys.rotate()?;
        let newer = scene.true_record()?;
        scene.sends_with(vec![truth, twin, newer]).await.context("a newer version above both")
    }
    .await;
    Ok(Trial { refusal, control })
}

/// There is nothing where the core's key should be.
pub(super) async fn withholds() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let refusal = scene.refuses(Shown::Records(Vec::new()), "Unknown").await;
    Ok(Trial { refusal, control: scene.sends_with_the_true_record().await })
}

/// The broker does not answer, or denies that there is a stream.
pub(super) async fn ignores_look_ups() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let refusal = async {
        scene.refuses(Shown::NoStream, "NoStream").await.context("no stream")?;
        scene.refuses(Shown::Nothing, "TimedOut").await.context("no answer")
    }
    .await;
    Ok(Trial { refusal, control: scene.sends_with_the_true_record().await })
}

/// The broker shows a former key to who has seen a newer one, once that has ended.
pub(super) async fn rolls_back() -> Result<Trial> {
    const SHORT_MS: i64 = 1_500;
    let mut scene = Scene::set().await?;
    let core = CORE.parse()?;
    let former = scene.true_record()?;
    scene.keys.rotate()?;
    let ends = unix_ms() + SHORT_MS;
    let newer = make(&scene.leaf, &scene.key(), 2, SealingLifetime { not_before: ends - HOUR_MS, not_after: ends })?;
    scene.shows(Shown::Records(vec![former.clone(), newer]));
    let agent = scene.agent().await?;
    let seen = agent.sealing_key_of(&core).await.context("before the attack")?;
    ensure!(seen.version == 2, "version {} is found", seen.version);
    scene.shows(Shown::Records(vec![former]));
    // The attack is the delay itself.
    sleep(Duration::from_millis(u64::try_from(ends - unix_ms()).unwrap_or(0) + 50)).await;
    let refusal = scene.fails(&agent, "RolledBack: version 1, but version 2 was seen").await;
    let control = async {
        scene.keys.rotate()?;
        scene.shows(Shown::Records(vec![scene.true_record()?]));
        // That there was no key is remembered for a second.
        let sent = async {
            while let Err(error) = agent.send(&core, CommandResult::completed(SECRET)).await {
                ensure!(matches!(error, PublishError::NoSealingKey(NoSealingKey::RolledBack { .. })), "{error}");
                sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, sent).await.context("a newer key is not believed")??;
        scene.arrives_next().await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// The broker acknowledges records and throws them away. Their owner is deceived; nobody else is, as there is nothing to find.
pub(super) async fn acknowledgements() -> Result<Trial> {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let broker = Broker::before(&deployment).await?;
    broker.intercept(CORE, Direction::ToServer, |message, fate| {
        match message.reply.clone().filter(|_| message.subject.starts_with("ransomeye.sealing.")) {
            Some(reply) => fate.answer(Message::new(reply, &br#"{"stream":"RANSOMEYE_SEALING","seq":1}"#[..])),
            None => fate.forward(message),
        }
    });
    let core = BusClient::connect(options(&deployment, &broker, CORE)?).await?;
    let mut inbox = core.subscribe_inbox::<CommandResult>().await?;
    let (agent, to) = (deployment.connect(AGENT).await, CORE.parse()?);
    let refusal = match agent.send(&to, CommandResult::completed(SECRET)).await {
        Err(PublishError::NoSealingKey(error @ NoSealingKey::Unknown { .. })) => {
            Ok(Evidence::Noticed(format!("the sender sends nothing: {error}")))
        }
        Err(error) => Err(error).context("it fails otherwise"),
        Ok(()) => bail!("it is sent"),
    };
    let control = async {
        broker.behave(CORE);
        core.rotate_sealing_key().await?;
        deployment.connect(AGENT).await.send(&to, CommandResult::completed(SECRET)).await?;
        let received = soon("a message", inbox.next()).await?.context("the subscription ended")??;
        ensure!(received.payload().detail == SECRET && received.is_sealed(), "another message arrives");
        Ok(())
    }
    .await;
    Ok(Trial { refusal, control })
}

/// The core's certificate is revoked while a sender remembers the key that it vouched for.
pub(super) async fn revoked() -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let (core, authority) = (CORE.parse()?, &scene.deployment.authority);
    let lost = Leaf::issue(authority, CORE)?;
    scene.shows(Shown::Records(vec![make(&lost, &scene.key(), 1, an_hour())?]));
    let agent = scene.agent().await?;
    agent.sealing_key_of(&core).await.context("before the revocation")?;
    authority.revoke_serial(&lost.serial)?;
    // Every handshake looks at the revocation list.
    let mut status = agent.status();
    scene.broker.hang_up(AGENT);
    soon("the end of a connection", status.wait_for(|status| *status != Status::Connected)).await??;
    soon("a new connection", status.wait_for(|status| *status == Status::Connected)).await??;
    let refusal = scene.fails(&agent, "Refused: revoked").await;
    Ok(Trial { refusal, control: scene.sends_with_the_true_record().await })
}
