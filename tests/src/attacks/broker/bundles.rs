//! The broker withholds, rolls back and makes up key bundles, and lets strangers make some.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bus_client::Rejected;
use bus_crypto::KeyId;
use bus_crypto::keys::{SIGNATURE_LEN, Signature};
use bus_crypto::trailer::{self, TRAILER_LEN};
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{CommandResult, Envelope, KeyBundle};
use bus_tls::pki::{Authority, Profile};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::delivery::caught;
use super::reasons::{
    BUNDLE, CERTIFICATE, FOREIGN_BUNDLE, KEY_TIME, POLICY, REVOKED, SENDER, SIGNATURE, STALE_LIST, UNKNOWN_KEY,
};
use super::replays::reconnected;
use super::stage::{AGENT, CORE, Stage};
use super::wire::{Direction, Message};
use crate::attacks::certificates::rogue_authority;
use crate::attacks::raw::{Attacker, PATIENCE, soon};
use crate::attacks::scene::kill;
use crate::attacks::sender::{Leaf, Sender, an_hour_long_ago};
use crate::attacks::{Evidence, Trial};

/// What subjects for reading from a stream begin with.
pub(super) const LOOK_UP: &str = "$JS.API.DIRECT.GET.";

/// Whether somebody asks for the keys of a component.
pub(super) fn is_look_up(message: &Message) -> bool {
    // A client also asks for its own latest bundle, to learn the broker's time.
    message.subject.starts_with(LOOK_UP) && message.payload.windows(12).any(|window| window == b"next_by_subj")
}

/// What the server would answer to a look-up if it had these bundles.
pub(super) fn answers(look_up: &Message, bundles: &[Vec<u8>]) -> Vec<Message> {
    let reply = look_up.reply.clone().unwrap_or_default();
    let stream = look_up.subject.rsplit('.').next().unwrap_or_default();
    let bundle = |(number, bundle): (u64, &Vec<u8>)| {
        let headers = format!(
            "NATS/1.0\r\nNats-Stream: {stream}\r\nNats-Subject: ransomeye.keys.agent.agent-01\r\n\
             Nats-Sequence: {number}\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Num-Pending: 0\r\n\r\n"
        );
        Message::new(reply.clone(), bundle.clone()).with_headers(headers)
    };
    let end = match bundles.len() {
        0 => "NATS/1.0 404 Message Not Found\r\n\r\n",
        _ => "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
    };
    let end = Message::new(reply.clone(), Bytes::new()).with_headers(end);
    (1..).zip(bundles).map(bundle).chain([end]).collect()
}

/// Answers each of the core's look-ups in the keys stream with these bundles, and tells what was asked.
fn answer_look_ups(stage: &Stage, bundles: Vec<Vec<u8>>) -> mpsc::UnboundedReceiver<String> {
    let (sender, asked) = mpsc::unbounded_channel();
    stage.broker.intercept(CORE, Direction::ToServer, move |message, fate| {
        if !is_look_up(&message) {
            return fate.forward(message);
        }
        let question = String::from_utf8_lossy(&message.payload).into_owned();
        answers(&message, &bundles).into_iter().for_each(|answer| fate.answer(answer));
        // Nobody wants to know any more when the attack is over.
        let _ = sender.send(question);
    });
    asked
}

/// Leaves the core's look-ups in the keys stream unanswered.
fn ignore_look_ups(stage: &Stage) {
    stage.broker.intercept(CORE, Direction::ToServer, |message, fate| {
        if !is_look_up(&message) {
            fate.forward(message);
        }
    });
}

/// Telemetry without a bundle, signed.
fn bare(sender: &Sender) -> (Envelope, Message) {
    let mut envelope = sender.telemetry();
    envelope.bundle = Bytes::new();
    let signed = sender.sign(&envelope);
    (envelope, signed)
}

/// A message whose first copy with the bundle never came, and whose sender's bundles are looked up: the core gets `given`.
/// It must refuse the message. The control is another sender's, whose true bundle is given beside them.
async fn looked_up(given: Vec<Vec<u8>>) -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let mut asked = answer_look_ups(&stage, given.clone());
    let (envelope, signed) = bare(&stage.agent);
    let refusal = async {
        let evidence = stage.refuses(&signed, &[UNKNOWN_KEY]).await?;
        let question = soon("a look-up", asked.recv()).await?.context("nothing was looked up")?;
        let of_sender = format!("ransomeye.keys.{AGENT}").replace('/', ".");
        ensure!(question.contains(&of_sender), "of {}, the core looks up {question}", envelope.subject);
        Ok(evidence)
    }
    .await;
    let control = async {
        let (envelope, signed) = bare(&stage.other);
        let bundles = given.into_iter().take(7).chain([stage.other.bundle.clone()]).collect();
        let _asked = answer_look_ups(&stage, bundles);
        stage.accepts(&envelope, &signed).await.context("with the true bundle")?;
        stage.broker.behave(CORE);
        stage.honest_messages_arrive().await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// One after the other; the first that got through, or whose control failed, is the outcome.
async fn each(given: Vec<(&'static str, Vec<Vec<u8>>)>) -> Result<Trial> {
    let mut last = None;
    for (what, given) in given {
        let Trial { refusal, control } = looked_up(given).await?;
        let trial = Trial { refusal: refusal.context(what), control: control.context(what) };
        if trial.refusal.is_err() || trial.control.is_err() {
            return Ok(trial);
        }
        last = Some(trial);
    }
    last.context("nothing was given")
}

pub(super) async fn withholds() -> Result<Trial> {
    looked_up(Vec::new()).await
}

pub(super) async fn ignores_look_ups() -> Result<Trial> {
    let mut stage = Stage::set_with(|options| options.operation_timeout(Duration::from_secs(2))).await?;
    ignore_look_ups(&stage);
    let (_, signed) = bare(&stage.agent);
    let refusal = stage.refuses(&signed, &[UNKNOWN_KEY]).await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

/// More messages under unknown keys than may wait for a look-up. They keep nobody else waiting.
pub(super) async fn floods_with_unknown_keys() -> Result<Trial> {
    const MESSAGES: u32 = 6_000;
    // No look-up ends before the attack does.
    let mut stage = Stage::set_with(|options| options.operation_timeout(2 * PATIENCE)).await?;
    stage.honest_messages_arrive().await?;
    ignore_look_ups(&stage);
    let (_, signed) = bare(&stage.agent);
    for number in 0..MESSAGES {
        let mut bytes = signed.payload.to_vec();
        let key_id = bytes.len() - TRAILER_LEN + 8;
        bytes[key_id..key_id + 4].copy_from_slice(&number.to_be_bytes());
        stage.broker.deliver(CORE, &Message { payload: bytes.into(), ..signed.clone() }).await?;
    }
    // Another sender's message may wait for its key nevertheless: no sender takes all places.
    let restarted = stage.other.restarted()?;
    stage.broker.deliver(CORE, &bare(&restarted).1).await?;
    let honest = stage.other.telemetry();
    stage.broker.deliver(CORE, &stage.other.sign(&honest)).await?;
    let mut refused = None;
    let arrived = async {
        loop {
            match stage.events.next().await.context("the subscription ended")? {
                Ok(message) if message.message_id() == honest.message_id => return Ok(()),
                Ok(message) => bail!("a message from {} is accepted", message.sender()),
                Err(Rejected::WaitingFull { sender }) if sender == stage.agent.leaf.principal => {
                    refused = Some(Rejected::WaitingFull { sender });
                }
                Err(rejected) => bail!("one is refused as `{}`: {rejected}", rejected.reason()),
            }
        }
    };
    let control = soon("the honest message", arrived).await?;
    Ok(Trial { refusal: refused.map(Evidence::Rejected).context("none is refused, all of them wait"), control })
}

/// A component that the core has asked knows where the core awaits answers, and has the server say there that it has no
/// keys of another component. The core, whose look-up takes a while, must not believe it.
pub(super) async fn reflected_answers() -> Result<Trial> {
    const GUESSES: usize = 16;
    let mut stage = Stage::set_with_keys_stream().await?;
    let attacker = Attacker::agent(&stage.deployment, "agent-01").await?;
    let awaits = asked_by_the_core(&stage, &attacker).await?;
    let (place, number) = awaits.rsplit_once('.').context("a reply subject without a token")?;
    let number: usize = number.split('-').next().unwrap_or_default().parse()?;
    let (envelope, signed) = bare(&stage.other);
    let mut look_ups = stage.broker.hold(CORE, Direction::ToServer, is_look_up);
    stage.broker.deliver(CORE, &signed).await?;
    let attack = async {
        let look_up = caught(&mut look_ups).await.context("nothing is looked up")?;
        let prefix = format!("{place}.");
        let mut reflected =
            stage.broker.record(CORE, Direction::ToClient, move |message| message.subject.starts_with(&prefix));
        for guess in number..number + GUESSES {
            let nothing = r#"{"last_by_subj":"ransomeye.keys.agent.nobody"}"#;
            let question = format!("{LOOK_UP}RANSOMEYE_KEYS");
            attacker.nats.publish_with_reply(question, format!("{place}.{guess}"), nothing.into()).await?;
        }
        for _ in 0..GUESSES {
            caught(&mut reflected).await.context("the server does not say it")?;
        }
        for answer in answers(&look_up, std::slice::from_ref(&stage.other.bundle)) {
            stage.broker.deliver(CORE, &answer).await?;
        }
        anyhow::Ok(())
    };
    // Whoever reads a subscription makes it look up keys.
    let (arrived, attacked) = tokio::join!(soon("a message", stage.events.next()), attack);
    attacked?;
    let refusal = async {
        let arrived = arrived?.context("the subscription ended")?.context("the core believes it")?;
        ensure!(arrived.message_id() == envelope.message_id, "another message arrives");
        Ok(Evidence::Noticed(format!("none of {GUESSES} guesses hits where the receiver awaits the answer")))
    }
    .await;
    stage.broker.behave(CORE);
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

/// The reply subject of a request of the core's to the attacker.
async fn asked_by_the_core(stage: &Stage, attacker: &Attacker) -> Result<String> {
    let mut inbox = attacker.nats.subscribe("ransomeye.inbox.agent.agent-01.>").await?;
    attacker.nats.flush().await?;
    let to = AGENT.parse()?;
    let asking = stage.core.request_within::<CommandResult>(&to, kill(1), PATIENCE);
    let asked = async { soon("a request", inbox.next()).await?.context("the subscription ended") };
    // It is not answered.
    let asked = tokio::select! {
        answer = asking => bail!("the request is answered: {answer:?}"),
        asked = asked => asked?,
    };
    Ok(asked.reply.context("a request without a reply subject")?.to_string())
}

/// A component names another's key, which the receiver does not know yet. The other one's message, which brings its
/// bundle, must not wait with the forgeries, whose key is looked up.
pub(super) async fn anothers_key_id() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    ignore_look_ups(&stage);
    let (_, signed) = bare(&stage.other);
    let mut forged = signed.payload.to_vec();
    let key_id = forged.len() - TRAILER_LEN + 8;
    forged[key_id..key_id + KeyId::LEN].copy_from_slice(stage.agent.key_id.as_bytes());
    stage.broker.deliver(CORE, &Message { payload: forged.into(), ..signed.clone() }).await?;
    // They are the next to arrive, so the forgery still waits. When the look-up has ended, the key is known.
    let control = stage.honest_messages_arrive().await;
    Ok(Trial { refusal: stage.refused_next(&signed.subject, &[SIGNATURE]).await, control })
}

pub(super) async fn rolls_back() -> Result<Trial> {
    // These come from an authority of their own, so that none of them is good by chance: each stage has another one.
    let stage = Stage::set().await?;
    let authority = &stage.deployment.authority;
    let leaf = Leaf::issue(authority, AGENT)?;
    let expired = Sender::with(leaf.clone(), an_hour_long_ago())?.bundle;
    let (older, others) = (stage.agent.restarted()?.bundle, stage.other.bundle.clone());
    let altered = {
        let mut bundle = stage.agent.bundle.clone();
        *bundle.last_mut().context("an empty bundle")? ^= 1;
        bundle
    };
    drop(stage);
    each(vec![
        ("another authority's", vec![older.clone()]),
        ("one that has expired", vec![expired.clone()]),
        ("another component's", vec![others.clone()]),
        ("an altered one", vec![altered.clone()]),
        ("something else", vec![b"none".to_vec(), Vec::new()]),
        ("all of them", vec![older, expired, others, altered]),
    ])
    .await
}

/// As [`rolls_back`], with bundles of the deployment's own authority.
pub(super) async fn rolls_back_to_former_keys() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    let former = stage.agent.restarted()?;
    let expired = Sender::with(stage.agent.leaf.clone(), an_hour_long_ago())?;
    let given = vec![expired.bundle, former.bundle.clone(), stage.other.bundle.clone()];
    let _asked = answer_look_ups(&stage, given);
    let (_, signed) = bare(&stage.agent);
    let refusal = stage.refuses(&signed, &[UNKNOWN_KEY]).await;
    let control = async {
        // The former key is good for what it signed itself.
        let (envelope, signed) = bare(&former);
        stage.accepts(&envelope, &signed).await.context("with the true bundle")?;
        stage.broker.behave(CORE);
        stage.honest_messages_arrive().await
    }
    .await;
    Ok(Trial { refusal, control })
}

/// Messages with bundles that must not hold, between honest ones.
async fn refused_bundles(
    make: impl FnOnce(&Stage) -> Result<Vec<(&'static str, Message, &'static [&'static str])>>,
) -> Result<Trial> {
    let mut stage = Stage::set().await?;
    stage.honest_messages_arrive().await?;
    let refusal = async {
        let mut last = None;
        for (what, message, reasons) in make(&stage)? {
            last = Some(stage.refuses(&message, reasons).await.context(what)?);
        }
        last.context("there is no message")
    }
    .await;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

/// A message of `sender` under the name of agent-01.
fn in_the_name_of_the_agent(sender: &Sender) -> Message {
    let mut envelope = sender.telemetry();
    envelope.subject = format!("ransomeye.events.telemetry.{AGENT}").replace('/', ".");
    envelope.source_component = "agent-01".into();
    sender.sign(&envelope)
}

pub(super) async fn anothers_public_key() -> Result<Trial> {
    refused_bundles(|stage| {
        // As if the true owner had signed: nothing is wrong but who says that the key is his.
        let thief = Sender::with_key_of(stage.other.leaf.clone(), &stage.agent)?;
        Ok(vec![
            ("in its own name", thief.sign(&thief.telemetry()), &[BUNDLE]),
            ("in the owner's name", in_the_name_of_the_agent(&thief), &[BUNDLE, SENDER]),
        ])
    })
    .await
}

/// Of a bundle under a P-256 certificate anybody can make another one that holds, with a key id of its own. Nobody signs
/// under that id.
pub(super) async fn twin() -> Result<Trial> {
    refused_bundles(|stage| {
        let twin = twin_of(&stage.agent.bundle)?;
        let key_id = KeyId::of_bundle(&twin);
        let mut envelope = stage.agent.telemetry();
        let original = stage.agent.sign(&envelope);
        let signature = original.payload.slice(original.payload.len() - SIGNATURE_LEN..);
        envelope.bundle = twin.into();
        let mut bytes = envelope.encode_to_vec();
        let signature = Signature::from_bytes(signature[..].try_into()?);
        trailer::append(&mut bytes, &key_id, &signature);
        let thief = stage.other.sign(&envelope);
        Ok(vec![
            ("with the signature under the other id", Message::new(original.subject, bytes), &[SIGNATURE]),
            ("with the signature of another component", thief, &[FOREIGN_BUNDLE]),
        ])
    })
    .await
}

/// The order of the group of P-256 (SEC 2, section 2.4.2).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same bundle with `(r, n - s)` in place of the certificate's signature `(r, s)`.
fn twin_of(bundle: &[u8]) -> Result<Vec<u8>> {
    let mut bundle = KeyBundle::decode(bundle)?;
    // SEQUENCE { INTEGER r, INTEGER s }, all of them short.
    let content = bundle.leaf_signature.get(2..).context("no signature")?;
    let (r, s) = content.split_at(2 + usize::from(content[1]));
    let mut difference = [0; 32];
    let mut borrow = 0;
    let s = &s[2..];
    for place in 0..32 {
        let subtrahend = s.len().checked_sub(place + 1).map_or(0, |index| i16::from(s[index])) + borrow;
        let digit = i16::from(P256_ORDER[31 - place]) - subtrahend;
        borrow = i16::from(digit < 0);
        difference[31 - place] = u8::try_from(digit.rem_euclid(256))?;
    }
    let zeros = difference.iter().take_while(|byte| **byte == 0).count();
    let sign: &[u8] = if difference[zeros] & 0x80 == 0 { &[] } else { &[0] };
    let integer = [sign, &difference[zeros..]].concat();
    let content = [r, &[2, u8::try_from(integer.len())?], &integer].concat();
    bundle.leaf_signature = [&[0x30, u8::try_from(content.len())?], &content[..]].concat().into();
    Ok(bundle.encode_to_vec())
}

pub(super) async fn anothers_name() -> Result<Trial> {
    refused_bundles(|stage| {
        let thief = Sender::claiming(stage.other.leaf.clone(), &stage.agent.leaf.principal)?;
        Ok(vec![("a bundle that names another principal", in_the_name_of_the_agent(&thief), &[BUNDLE])])
    })
    .await
}

pub(super) async fn foreign_authority() -> Result<Trial> {
    refused_bundles(|stage| {
        let rogue = rogue_authority(stage.deployment.path())?;
        let stranger = Sender::of(&rogue, AGENT)?;
        Ok(vec![("a certificate of another authority", stranger.sign(&stranger.telemetry()), &[CERTIFICATE])])
    })
    .await
}

pub(super) async fn brokers_certificate() -> Result<Trial> {
    refused_bundles(|stage| {
        let authority = &stage.deployment.authority;
        let issued = authority.issue(&Profile::broker("nats-1".parse()?, ["localhost"])?)?;
        let leaf = Leaf::of(&issued)?;
        let own = Sender::claiming(leaf.clone(), &leaf.principal)?;
        let thief = Sender::claiming(leaf, &stage.agent.leaf.principal)?;
        let issued = authority.issue(&Profile::relay("relay-1".parse()?, ["localhost"])?)?;
        let relay = Leaf::of(&issued)?;
        let relay = Sender::claiming(relay.clone(), &relay.principal)?;
        Ok(vec![
            ("a relay, as an agent", in_the_name_of_the_agent(&relay), &[BUNDLE, CERTIFICATE, SENDER]),
            ("in its own name", own.sign(&own.telemetry()), &[POLICY, BUNDLE, CERTIFICATE]),
            ("in its own name, as an agent", in_the_name_of_the_agent(&own), &[BUNDLE, CERTIFICATE, SENDER]),
            ("in the name of an agent", in_the_name_of_the_agent(&thief), &[BUNDLE, CERTIFICATE]),
        ])
    })
    .await
}

pub(super) async fn expired() -> Result<Trial> {
    refused_bundles(|stage| {
        let late = Sender::with(stage.agent.leaf.clone(), an_hour_long_ago())?;
        Ok(vec![("a key that has expired", late.sign(&late.telemetry()), &[BUNDLE, KEY_TIME])])
    })
    .await
}

/// A certificate is revoked while its key is in use.
pub(super) async fn revoked() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    stage.honest_messages_arrive().await.context("before the revocation")?;
    stage.deployment.authority.revoke_serial(&stage.agent.leaf.serial)?;
    // Every handshake looks at the revocation list.
    reconnected(&stage).await?;
    let refusal = async {
        let (_, known) = bare(&stage.agent);
        stage.refuses(&known, &[REVOKED]).await.context("a key that was in use")?;
        let restarted = stage.agent.restarted()?;
        stage.refuses(&restarted.sign(&restarted.telemetry()), &[REVOKED]).await.context("a new key")
    }
    .await;
    let control = async {
        let envelope = stage.other.telemetry();
        let signed = stage.other.sign(&envelope);
        stage.accepts(&envelope, &signed).await.context("a certificate that is not revoked")?;
        let renewed = Sender::of(&stage.deployment.authority, AGENT)?;
        let envelope = renewed.telemetry();
        stage.accepts(&envelope, &renewed.sign(&envelope)).await.context("a new certificate of the same component")
    }
    .await;
    Ok(Trial { refusal, control })
}

/// The broker, or whoever else distributes revocation lists, withholds the newer ones. A list that is out of date vouches
/// for nobody.
pub(super) async fn stale_list() -> Result<Trial> {
    let mut stage = Stage::set().await?;
    stage.honest_messages_arrive().await?;
    let lifetime = Duration::from_secs(2);
    let short = Authority::open(stage.deployment.authority.dir())?.crl_lifetime(lifetime);
    short.renew_crl()?;
    // Every handshake looks at the revocation list.
    reconnected(&stage).await?;
    // The attack is the delay itself. Lists are dated in whole seconds.
    sleep(lifetime + Duration::from_secs(1)).await;
    let refusal = async {
        let envelope = stage.agent.telemetry();
        stage.refuses(&stage.agent.sign(&envelope), &[STALE_LIST]).await.context("a key that was in use")?;
        let restarted = stage.agent.restarted()?;
        stage.refuses(&restarted.sign(&restarted.telemetry()), &[STALE_LIST]).await.context("a new key")
    }
    .await;
    stage.deployment.authority.renew_crl()?;
    reconnected(&stage).await?;
    Ok(Trial { refusal, control: stage.honest_messages_arrive().await })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attacks::raw::unix_ms;
    use crate::attacks::sender::SKEW_MS;
    use bus_crypto::{Clock, UnverifiedBundle};
    use bus_proto::TrustDomain;
    use bus_tls::pki::{Authority, CaOptions};

    #[test]
    fn a_bundle_and_its_twin_both_hold_under_different_ids() {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new(crate::deployment::TRUST_DOMAIN).unwrap();
        let authority = Authority::create(folder.path().join("pki"), domain, &CaOptions::default()).unwrap();
        let agent = Sender::of(&authority, AGENT).unwrap();
        let twin = twin_of(&agent.bundle).unwrap();
        let bundle = UnverifiedBundle::read(&twin).unwrap();
        bundle.verify(&agent.leaf.facts().unwrap(), &Clock::new(unix_ms(), SKEW_MS)).unwrap();
        assert_ne!(bundle.key_id(), agent.key_id);
        assert_eq!(twin_of(&twin).unwrap(), agent.bundle);
    }
}
