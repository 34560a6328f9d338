//! Somebody asks for less than TLS 1.3.
//!
//! The few TLS messages that this takes are written by hand: no library in this workspace can speak TLS 1.2.

use anyhow::{Context as _, Result, anyhow, ensure};
use bus_client::{BusClient, BusOptions};
use rustls::AlertDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::impersonation::victim_refuses;
use super::raw::{PATIENCE, Session, soon};
use super::{Evidence, Trial};
use crate::deployment::Deployment;

/// The protocol versions that a hello offers (RFC 8446, section 4.2.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offer {
    Tls12,
    Tls13,
}

fn with_length_u16(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short message");
    [&length.to_be_bytes(), body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length_u16(body)].concat()
}

/// A handshake message in its record.
fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0][..], &with_length_u16(body)].concat();
    [&[22, 3, 3][..], &with_length_u16(&message)].concat()
}

/// A client's hello (RFC 5246, section 7.4.1.2; RFC 8446, section 4.1.2) with the usual suites and curves.
fn client_hello(offer: Offer) -> Vec<u8> {
    let mut suites = vec![0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30];
    let mut extensions = [
        extension(10, &with_length_u16(&[0, 29, 0, 23])),
        extension(11, &[1, 0]),
        extension(13, &with_length_u16(&[4, 3, 8, 4, 4, 1, 5, 3])),
    ]
    .concat();
    if offer == Offer::Tls13 {
        suites.extend([0x13, 0x01]);
        extensions.extend(extension(43, &[2, 3, 4]));
        let share = [&[0, 29][..], &with_length_u16(&[9; 32])].concat();
        extensions.extend(extension(51, &with_length_u16(&share)));
    }
    let body =
        [&[3, 3][..], &[7; 32], &[0], &with_length_u16(&suites), &[1, 0], &with_length_u16(&extensions)].concat();
    handshake(1, &body)
}

/// A server's hello that chooses TLS 1.2.
fn server_hello_tls12() -> Vec<u8> {
    let body = [&[3, 3][..], &[8; 32], &[0], &[0xc0, 0x2f], &[0], &with_length_u16(&[])].concat();
    handshake(2, &body)
}

/// Reads one record: its type and its content.
async fn record(socket: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    soon("a TLS record", async {
        let mut header = [0; 5];
        socket.read_exact(&mut header).await?;
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        socket.read_exact(&mut content).await?;
        Ok((header[0], content))
    })
    .await?
}

/// What the server answers to a hello.
async fn greet(port: u16, offer: Offer) -> Result<(u8, Vec<u8>)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.write_all(&client_hello(offer)).await?;
    record(&mut socket).await
}

pub(super) async fn client_speaks_tls12() -> Result<Trial> {
    let deployment = Deployment::start(&["agent/agent-01"]);
    let port = deployment.server.port();
    let refusal = match greet(port, Offer::Tls12).await? {
        (21, alert) if alert.len() == 2 => Ok(Evidence::ServerAlert(AlertDescription::from(alert[1]))),
        (kind, content) => Err(anyhow!("the server answers with a record of type {kind}: {content:?}")),
    };
    let control = async {
        let (kind, content) = greet(port, Offer::Tls13).await?;
        // A hello whose chosen version, in an extension, is TLS 1.3.
        let chosen = extension(43, &[3, 4]);
        let agrees = kind == 22 && content.first() == Some(&2) && content.windows(6).any(|six| six == chosen);
        ensure!(agrees, "the server answers TLS 1.3 with a record of type {kind}: {content:?}");
        Ok(())
    }
    .await;
    Ok(Trial { refusal, control })
}

pub(super) async fn client_speaks_plaintext() -> Result<Trial> {
    // The server logs no line for this, but its monitoring page lists closed connections with the reason.
    let deployment = Deployment::start_with(&["agent/agent-01"], |config| config.monitoring_port = Some(0));
    let mut socket = TcpStream::connect(("127.0.0.1", deployment.server.port())).await?;
    socket.write_all(b"CONNECT {\"verbose\":true}\r\nPING\r\n").await?;
    let mut said = Vec::new();
    // The server hangs up, by an end or by a reset. If it does not, what it said is judged all the same.
    let _ = soon("the server's hanging up", socket.read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said);
    let refusal = async {
        ensure!(!["INFO", "PONG", "+OK"].iter().any(|word| said.contains(word)), "the server answers: {said}");
        soon("the server's record", closed(&deployment, socket.local_addr()?.port())).await?
    }
    .await;
    let control = Session::agent(&deployment, "agent-01").await;
    Ok(Trial { refusal, control: control.map(drop).context("the same words inside TLS") })
}

/// Why the server closed the connection that came from this port, once it has.
async fn closed(deployment: &Deployment, port: u16) -> Result<Evidence> {
    let fits = |line: &str| line.contains("Starting http monitor");
    let line = deployment.server.wait_for_log(fits, PATIENCE).context("there is no monitoring page")?;
    let page = line.rsplit_once(':').context("no port")?.1.parse::<u16>()?;
    loop {
        let mut socket = TcpStream::connect(("127.0.0.1", page)).await?;
        socket.write_all(b"GET /connz?state=closed HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let page: serde_json::Value = serde_json::from_str(body)?;
        let connections = page["connections"].as_array().context("no connections")?;
        if let Some(connection) = connections.iter().find(|connection| connection["port"] == port) {
            return Ok(Evidence::ServerClosed(connection["reason"].as_str().unwrap_or_default().to_owned()));
        }
    }
}

/// Lets our client dial a server of the attacker's, which answers what the client sends first with these bytes.
async fn answer_the_victim(answer: Vec<u8>) -> Result<Trial> {
    let deployment = Deployment::start(&["agent/agent-01"]);
    let identity = deployment.identity("agent/agent-01");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("tls://{}", listener.local_addr()?);
    let rogue = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let (kind, hello) = record(&mut socket).await?;
        socket.write_all(&answer).await?;
        // Keeps the connection until the client ends it.
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        anyhow::Ok((kind, hello, rest))
    });
    let refusal = async {
        let evidence = victim_refuses(BusOptions::new(url, identity.clone())).await?;
        let (kind, hello, rest) = soon("the victim's hanging up", rogue).await???;
        ensure!((kind, hello.first()) == (22, Some(&1)), "the victim does not begin with TLS");
        ensure!(rest.first().is_none_or(|kind| *kind == 21), "the victim goes on: {rest:?}");
        Ok(evidence)
    }
    .await;
    let control = BusClient::connect(BusOptions::new(deployment.server.url(), identity)).await;
    Ok(Trial { refusal, control: control.map(drop).context("the same client and the true server") })
}

pub(super) async fn server_speaks_tls12() -> Result<Trial> {
    answer_the_victim(server_hello_tls12()).await
}

pub(super) async fn server_speaks_plaintext() -> Result<Trial> {
    answer_the_victim(b"INFO {\"server_id\":\"rogue\",\"version\":\"2.15.1\",\"max_payload\":1048576}\r\n".to_vec())
        .await
}
