//! A compromised component sends, where it may publish, frames that are well delimited and malformed within. The server
//! forwards them as they are. The receiver's connection survives them, and its checks judge what they carry.

use anyhow::{Context as _, Result, ensure};
use bus_client::{Rejected, Status};

use super::broker::Message;
use super::raw::{Attacker, Session, telemetry};
use super::scene::{COMPROMISED, OTHER, Scene};
use super::sender::Sender;
use super::{Evidence, Trial};

const GOOD_HEADERS: &[u8] = b"NATS/1.0\r\nname: value\r\n\r\n";

const GOOD_REPLY: &[u8] = b"answers.here";

/// What is no block of headers.
const MALFORMED_HEADERS: &[(&str, &[u8])] = &[
    ("without a byte", b""),
    ("without a version", b"xx\r\n"),
    ("of another version", b"NATS/2.0\r\n\r\n"),
    ("with a status that is no number", b"NATS/1.0 abc\r\n\r\n"),
    ("with a status that is out of range", b"NATS/1.0 1000\r\n\r\n"),
    ("with a line without a colon", b"NATS/1.0\r\nname\r\n\r\n"),
    ("with a name that holds a space", b"NATS/1.0\r\na name: value\r\n\r\n"),
    ("with a name that is not ASCII", "NATS/1.0\r\nn\u{e4}me: value\r\n\r\n".as_bytes()),
    ("with a value that is not UTF-8", b"NATS/1.0\r\nname: \xff\xfe\r\n\r\n"),
    ("with a carriage return in a value", b"NATS/1.0\r\nname: a\rb\r\n\r\n"),
    ("with a carriage return in a continued value", b"NATS/1.0\r\nname: a\r\n \rb\r\n\r\n"),
];

/// What is no reply subject, or looks like two words to some.
const MALFORMED_REPLIES: &[(&str, &[u8])] = &[
    ("that is not UTF-8", b"\xff\xfe"),
    ("that breaks off within a character", b"answers.\xc3"),
    ("with a carriage return", b"a\rb"),
    ("with a vertical tab", b"a\x0bb"),
    ("with a no-break space", "a\u{a0}b".as_bytes()),
    ("with a line separator", "a\u{2028}b".as_bytes()),
    ("that looks like a size", b"1"),
];

pub(super) async fn malformed_headers() -> Result<Trial> {
    survive(|carried| {
        let frame = |(what, headers): &(&str, &[u8])| (format!("headers {what}"), with_headers(carried, None, headers));
        MALFORMED_HEADERS.iter().map(frame).collect()
    })
    .await
}

pub(super) async fn malformed_replies() -> Result<Trial> {
    survive(|carried| {
        let frames = MALFORMED_REPLIES.iter().flat_map(|(what, reply)| {
            let plain = without_headers(carried, reply);
            let full = with_headers(carried, Some(reply), GOOD_HEADERS);
            [(format!("a reply subject {what}"), plain), (format!("headers and a reply subject {what}"), full)]
        });
        frames.collect()
    })
    .await
}

/// What the frames carry: no envelope, but signed, so that the receiver reads it.
fn no_envelope(sender: &Sender) -> Message {
    sender.sign_prefix(&telemetry(COMPROMISED).subject, vec![0xff; 8])
}

/// Sends each frame around a message as the compromised agent, to one live subscription, and lets the other agent speak
/// after each.
async fn survive(frames: impl FnOnce(&Message) -> Vec<(String, Vec<u8>)>) -> Result<Trial> {
    let mut scene = Scene::set().await?;
    let mut session = Session::agent(&scene.deployment, COMPROMISED).await?;
    let honest = Attacker::agent(&scene.deployment, OTHER).await?;
    let control = well_formed_arrive_next(&mut scene, &mut session).await;
    let connects = scene.core.stats().connects;
    let refusal = async {
        let mut refusal = None;
        for (what, frame) in frames(&no_envelope(&scene.compromised)) {
            let rejected =
                refused_next(&mut scene, &mut session, &honest, &frame).await.with_context(|| what.clone())?;
            refusal = Some(rejected);
            ensure!(scene.core.stats().connects == connects, "{what}: the core lost its connection");
        }
        ensure!(*scene.core.status().borrow() == Status::Connected, "the core is not connected");
        refusal.map(Evidence::Rejected).context("no frame was sent")
    }
    .await;
    Ok(Trial { refusal, control })
}

/// The core refuses what the frame carries, and receives what the honest agent sends after it.
async fn refused_next(scene: &mut Scene, session: &mut Session, honest: &Attacker, frame: &[u8]) -> Result<Rejected> {
    session.write(frame).await?;
    session.write(b"PING\r\n").await?;
    session.expect("PONG").await.context("the server does not take it")?;
    let rejected = scene.next_rejection().await?;
    // A reply subject that cannot be read counts as a header.
    ensure!(matches!(rejected.reason(), "encoding" | "headers"), "it was refused for another reason: {rejected}");
    let report = scene.other.telemetry();
    honest.send(&scene.other.sign(&report)).await?;
    scene.arrives_next(&report).await?;
    Ok(rejected)
}

/// The control: the same session's good messages arrive, with a good reply subject, and as long as they have no headers.
async fn well_formed_arrive_next(scene: &mut Scene, session: &mut Session) -> Result<()> {
    for reply in [None, Some(GOOD_REPLY)] {
        let message = scene.compromised.sign(&scene.compromised.telemetry());
        session.write(&with_headers(&message, reply, GOOD_HEADERS)).await?;
        let rejected = scene.next_rejection().await?;
        ensure!(rejected.reason() == "headers", "it was refused for another reason: {rejected}");
    }
    let report = scene.compromised.telemetry();
    session.write(&without_headers(&scene.compromised.sign(&report), GOOD_REPLY)).await?;
    scene.arrives_next(&report).await
}

/// A publication with a reply subject.
fn without_headers(Message { subject, payload, .. }: &Message, reply: &[u8]) -> Vec<u8> {
    let size = payload.len().to_string();
    [b"PUB ", subject.as_bytes(), b" ", reply, b" ", size.as_bytes(), b"\r\n", payload, b"\r\n"].concat()
}

/// A publication with headers, and perhaps with a reply subject.
fn with_headers(Message { subject, payload, .. }: &Message, reply: Option<&[u8]>, headers: &[u8]) -> Vec<u8> {
    let sizes = format!(" {} {}\r\n", headers.len(), headers.len() + payload.len());
    let space: &[u8] = if reply.is_some() { b" " } else { b"" };
    let reply = reply.unwrap_or_default();
    [b"HPUB ", subject.as_bytes(), space, reply, sizes.as_bytes(), headers, payload, b"\r\n"].concat()
}
