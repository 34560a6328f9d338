//! The attacker's tools: async-nats, TLS and TCP, without any client of ours.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use async_nats::{ClientError, ConnectOptions, Event, ServerError};
use bus_proto::v1::{Envelope, TelemetryEvent};
use bus_proto::{AnyPayload, ComponentId};
use bus_tls::pki::IssuedFiles;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Evidence;
use super::broker::Message;
use crate::deployment::Deployment;

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for what must happen, but not for ever.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, happens).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))
}

/// The time, in Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a time that fits")
}

/// An envelope as the library would make it, for a subject, but neither counted nor with a bundle.
pub(crate) fn envelope(source: &str, subject: &str, payload: impl Into<AnyPayload>) -> Envelope {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut unique = [0; 10];
    unique[2..].copy_from_slice(&MADE.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let source = ComponentId::new(source).expect("a component");
    let mut envelope = Envelope::new(&source, payload, unix_ms(), unique);
    envelope.subject = subject.into();
    envelope
}

/// An envelope of telemetry that `agent/<component>` may publish once it is counted and signed.
pub(crate) fn telemetry(component: &str) -> Envelope {
    let subject = format!("ransomeye.events.telemetry.agent.{component}");
    envelope(component, &subject, TelemetryEvent { cpu_usage: 12.5, ram_usage: 50.0 })
}

/// A TLS configuration built by hand: this trust root, and this certificate if there is one.
pub(crate) fn tls(trust_root: &Path, files: Option<&IssuedFiles>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trust_root)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    Ok(match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(&files.certificate)?.collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?
        }
    })
}

/// How an attacker with these credentials connects with async-nats.
pub(crate) fn options(tls: ClientConfig) -> ConnectOptions {
    ConnectOptions::new().tls_client_config(tls).require_tls(true).tls_first().connection_timeout(PATIENCE)
}

/// An async-nats client, and what the server tells it.
#[derive(Debug)]
pub(crate) struct Attacker {
    pub(crate) nats: async_nats::Client,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Attacker {
    /// Connects as the component `agent/<component>`, with its own good certificate.
    pub(crate) async fn agent(deployment: &Deployment, component: &str) -> Result<Self> {
        let files = deployment.issue(&format!("agent/{component}"));
        let tls = tls(&deployment.authority.ca_path(), Some(&files))?;
        Ok(Self::connect(deployment, options(tls)).await?)
    }

    /// Connects in any other way.
    pub(crate) async fn connect(
        deployment: &Deployment,
        options: ConnectOptions,
    ) -> Result<Self, async_nats::ConnectError> {
        let (sender, events) = mpsc::unbounded_channel();
        let options = options.event_callback(move |event| {
            // Nobody listens any more when the attack is over.
            let _ = sender.send(event);
            async {}
        });
        Ok(Self { nats: options.connect(deployment.server.url()).await?, events })
    }

    /// Connects, which must fail.
    pub(crate) async fn refused(deployment: &Deployment, options: ConnectOptions) -> Result<Evidence> {
        match Self::connect(deployment, options).await {
            Ok(_) => bail!("it connects"),
            Err(error) => Evidence::of_raw_connect(&error).with_context(|| format!("another error: {error:?}")),
        }
    }

    /// Publishes bytes to a subject.
    pub(crate) async fn publish(&self, subject: &str, bytes: &[u8]) -> Result<()> {
        let bytes = bytes.to_vec().into();
        soon("publishing", self.nats.publish(subject.to_owned(), bytes)).await??;
        Ok(soon("flushing", self.nats.flush()).await??)
    }

    /// Publishes a signed message.
    pub(crate) async fn send(&self, message: &Message) -> Result<()> {
        self.publish(&message.subject, &message.payload).await
    }

    /// The next error from the server that speaks of `about`.
    pub(crate) async fn server_error(&mut self, about: &str) -> Result<Evidence> {
        let awaited = format!("a server error about {about}");
        let found = soon(&awaited, async {
            while let Some(event) = self.events.recv().await {
                if let Event::ServerError(ServerError::Other(text)) = event
                    && text.contains(about)
                {
                    return Some(text);
                }
            }
            None
        });
        found.await?.map(Evidence::ServerError).context("the client ended without a server error")
    }

    /// Waits until the server ends the connection, and for what it tells the client that comes back at once.
    pub(crate) async fn disconnected(&mut self) -> Result<Evidence> {
        let found = soon("the server's ending the connection", async {
            let mut disconnected = false;
            while let Some(event) = self.events.recv().await {
                match event {
                    Event::Disconnected => disconnected = true,
                    Event::ClientError(ClientError::Other(text)) if disconnected => return Some(text),
                    _ => {}
                }
            }
            None
        });
        found.await?.map(Evidence::ServerDisconnected).context("the client ended without being disconnected")
    }

    /// Whether it was disconnected so far.
    pub(crate) fn was_disconnected(&mut self) -> bool {
        std::iter::from_fn(|| self.events.try_recv().ok()).any(|event| matches!(event, Event::Disconnected))
    }
}

/// A connection on which the attacker writes the protocol by hand.
#[derive(Debug)]
pub(crate) struct Session(BufReader<TlsStream<TcpStream>>);

impl Session {
    /// Opens TLS, and reads the server's greeting.
    pub(crate) async fn open(port: u16, tls: ClientConfig) -> io::Result<Self> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let mut session = Self(BufReader::new(TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?));
        let greeting = session.line().await?;
        if greeting.starts_with("INFO {") {
            return Ok(session);
        }
        Err(io::Error::other(format!("the server greets with `{greeting}`")))
    }

    /// Opens TLS as `agent/<component>`, and introduces itself.
    pub(crate) async fn agent(deployment: &Deployment, component: &str) -> Result<Self> {
        Self::agent_claiming(deployment, component, "").await
    }

    /// Opens TLS as `agent/<component>`, and introduces itself with this as its user's name.
    pub(crate) async fn agent_claiming(deployment: &Deployment, component: &str, user: &str) -> Result<Self> {
        let files = deployment.issue(&format!("agent/{component}"));
        let tls = tls(&deployment.authority.ca_path(), Some(&files))?;
        let mut session = soon("a session", Self::open(deployment.server.port(), tls)).await??;
        let introduction = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"headers\":true,\"user\":\"{user}\"}}\r\n\
             PING\r\n"
        );
        session.write(introduction.as_bytes()).await?;
        session.expect("PONG").await?;
        Ok(session)
    }

    /// Publishes a signed message.
    pub(crate) async fn send(&mut self, message: &Message) -> Result<()> {
        self.publish(&message.subject, &message.payload).await
    }

    /// Publishes bytes to a subject.
    pub(crate) async fn publish(&mut self, subject: &str, bytes: &[u8]) -> Result<()> {
        let header = format!("PUB {subject} {}\r\n", bytes.len());
        self.write(&[header.as_bytes(), bytes, b"\r\n"].concat()).await
    }

    /// Writes bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        soon("writing", async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        })
        .await??;
        Ok(())
    }

    /// Waits for this line; an error of the server's instead is an error.
    pub(crate) async fn expect(&mut self, wanted: &str) -> Result<()> {
        loop {
            let line = soon(wanted, self.line()).await??;
            if line == wanted {
                return Ok(());
            }
            if line.starts_with("-ERR") {
                bail!("instead of {wanted}, the server says {line}");
            }
        }
    }

    /// Waits for an error of the server's.
    pub(crate) async fn server_error(&mut self) -> Result<Evidence> {
        loop {
            let line = soon("a server error", self.line()).await??;
            if let Some(error) = line.strip_prefix("-ERR ") {
                return Ok(Evidence::ServerError(error.trim_matches('\'').into()));
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
