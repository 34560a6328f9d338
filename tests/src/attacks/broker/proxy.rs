//! The proxy: TLS on both sides, and a hook on what passes.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use bus_proto::Endpoint;
use bus_proto::prost::bytes::{Buf as _, BytesMut};
use bus_tls::pki::{Authority, Profile};
use bus_tls::{TlsIdentity, TlsOptions, TlsServerIdentity};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::wire::{self, Content, Direction, Message};
use crate::attacks::raw::{soon, tls};
use crate::deployment::Deployment;

/// What becomes of a message that a hook was given. A hook that does nothing with it drops the message.
#[derive(Debug, Default)]
pub struct Fate {
    onward: Vec<Message>,
    back: Vec<Message>,
}

impl Fate {
    /// Sends a message on: the one that arrived, another, or several.
    pub fn forward(&mut self, message: Message) {
        self.onward.push(message);
    }

    /// Sends a message back to where the other came from. One to the client goes to its fitting subscriptions.
    pub fn answer(&mut self, message: Message) {
        self.back.push(message);
    }
}

type Hook = Arc<Mutex<dyn FnMut(Message, &mut Fate) + Send>>;
type Outlet = tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>;

/// A broker with a good certificate and bad intentions.
///
/// It stands between clients and a real nats-server. Towards a client it is the broker: it has the broker's certificate and
/// key. Towards the server it is the client: it has a certificate of the same component. Without hooks every byte passes
/// as it is.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.cut(|_| true);
    }
}

struct Shared {
    identity: TlsServerIdentity,
    server_port: u16,
    authority: PathBuf,
    /// How to connect as each component, once it has been needed.
    credentials: Mutex<HashMap<Endpoint, Arc<ClientConfig>>>,
    hooks: Mutex<HashMap<(Endpoint, Direction), Hook>>,
    links: Mutex<Vec<Arc<Link>>>,
    accepted: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("server_port", &self.server_port).finish_non_exhaustive()
    }
}

/// One client's connection, and the one to the server that was made for it.
struct Link {
    number: u64,
    who: Endpoint,
    subscriptions: Mutex<HashMap<String, String>>,
    to_client: Outlet,
    to_server: Outlet,
    ended: Notify,
}

/// The value, also after a panic elsewhere: the test fails for that.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// Stands in front of a deployment's server.
    ///
    /// # Errors
    ///
    /// When the broker's files cannot be read, or no port can be had.
    pub async fn before(deployment: &Deployment) -> Result<Self> {
        let files = &deployment.server.config().tls;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            identity: TlsIdentity::load_server(TlsOptions::new(&files.cert, &files.key, &files.trust_root))?,
            server_port: deployment.server.port(),
            authority: deployment.authority.dir().to_owned(),
            credentials: Mutex::default(),
            hooks: Mutex::default(),
            links: Mutex::default(),
            accepted: AtomicU64::new(0),
        });
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, accepting })
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// How many connections it has taken so far. The latest one has this number.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Decides with `hook` over all messages of a component in one direction from now on, in place of a former hook.
    ///
    /// # Panics
    ///
    /// When `who` is no `role/component`.
    pub fn intercept(&self, who: &str, direction: Direction, hook: impl FnMut(Message, &mut Fate) + Send + 'static) {
        let key = (who.parse().expect("a role and a component"), direction);
        lock(&self.shared.hooks).insert(key, Arc::new(Mutex::new(hook)));
    }

    /// Keeps back the messages for which `wanted` holds, and lets the others pass. What it keeps back is given to the
    /// caller, who may deliver it later.
    ///
    /// # Panics
    ///
    /// As [`Broker::intercept`].
    #[must_use]
    pub fn hold(
        &self,
        who: &str,
        direction: Direction,
        wanted: impl Fn(&Message) -> bool + Send + 'static,
    ) -> mpsc::UnboundedReceiver<Message> {
        let (sender, held) = mpsc::unbounded_channel();
        self.intercept(who, direction, move |message, fate| {
            if wanted(&message) {
                // Nobody wants it any more when the attack is over.
                let _ = sender.send(message);
            } else {
                fate.forward(message);
            }
        });
        held
    }

    /// Lets every message pass, and gives a copy of those for which `wanted` holds to the caller.
    ///
    /// # Panics
    ///
    /// As [`Broker::intercept`].
    #[must_use]
    pub fn record(
        &self,
        who: &str,
        direction: Direction,
        wanted: impl Fn(&Message) -> bool + Send + 'static,
    ) -> mpsc::UnboundedReceiver<Message> {
        let (sender, recorded) = mpsc::unbounded_channel();
        self.intercept(who, direction, move |message, fate| {
            if wanted(&message) {
                // As above.
                let _ = sender.send(message.clone());
            }
            fate.forward(message);
        });
        recorded
    }

    /// Lets all messages of a component pass again, in both directions.
    ///
    /// # Panics
    ///
    /// As [`Broker::intercept`].
    pub fn behave(&self, who: &str) {
        let who: Endpoint = who.parse().expect("a role and a component");
        lock(&self.shared.hooks).retain(|(endpoint, _), _| *endpoint != who);
    }

    /// Delivers a message to every fitting subscription of a component, in all its processes.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub async fn deliver(&self, who: &str, message: &Message) -> Result<()> {
        self.deliver_where(who, message, |_| true).await
    }

    /// As [`Broker::deliver`], to the process with the connection of that number alone.
    ///
    /// # Errors
    ///
    /// As [`Broker::deliver`].
    pub async fn deliver_to(&self, who: &str, connection: u64, message: &Message) -> Result<()> {
        self.deliver_where(who, message, |link| link.number == connection).await
    }

    async fn deliver_where(&self, who: &str, message: &Message, wanted: impl Fn(&Link) -> bool) -> Result<()> {
        let who: Endpoint = who.parse()?;
        let links: Vec<_> =
            lock(&self.shared.links).iter().filter(|link| link.who == who && wanted(link)).cloned().collect();
        let mut delivered = false;
        for link in links {
            let frames = link.frames_to_client(message);
            delivered |= !frames.is_empty();
            soon("a delivery", link.write(Direction::ToClient, &frames)).await??;
        }
        ensure!(delivered, "{who} has no subscription that fits {}", message.subject);
        Ok(())
    }

    /// Delivers a message on the subscription with this filter, whatever the message's subject.
    ///
    /// # Errors
    ///
    /// When the component has no such subscription.
    pub async fn deliver_on(&self, who: &str, filter: &str, message: &Message) -> Result<()> {
        let who: Endpoint = who.parse()?;
        let links: Vec<_> = lock(&self.shared.links).iter().filter(|link| link.who == who).cloned().collect();
        let mut delivered = false;
        for link in links {
            let mut frames = Vec::new();
            for (subscription, _) in lock(&link.subscriptions).iter().filter(|(_, known)| *known == filter) {
                Message { subscription: subscription.clone(), ..message.clone() }
                    .encode(Direction::ToClient, &mut frames);
            }
            delivered |= !frames.is_empty();
            soon("a delivery", link.write(Direction::ToClient, &frames)).await??;
        }
        ensure!(delivered, "{who} has no subscription to {filter}");
        Ok(())
    }

    /// Ends the connections of a component.
    ///
    /// # Panics
    ///
    /// As [`Broker::intercept`].
    pub fn hang_up(&self, who: &str) {
        let who: Endpoint = who.parse().expect("a role and a component");
        self.shared.cut(|link| link.who == who);
    }
}

impl Shared {
    fn cut(&self, which: impl Fn(&Link) -> bool) {
        for link in lock(&self.links).iter().filter(|link| which(link)) {
            link.ended.notify_one();
        }
    }

    /// How to connect to the server as this component.
    fn credentials(&self, who: &Endpoint) -> Result<Arc<ClientConfig>> {
        let mut known = lock(&self.credentials);
        if let Some(credentials) = known.get(who) {
            return Ok(Arc::clone(credentials));
        }
        let authority = Authority::open(&self.authority)?;
        let profile = Profile::component(who.role.clone(), who.component.clone())?.despite_revocation();
        let folder = self.authority.join("stolen").join(who.role.as_str());
        let files = authority.issue(&profile)?.write(folder, true)?;
        let credentials = Arc::new(tls(&authority.ca_path(), Some(&files))?);
        known.insert(who.clone(), Arc::clone(&credentials));
        Ok(credentials)
    }
}

impl Link {
    async fn write(&self, direction: Direction, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut outlet = match direction {
            Direction::ToServer => self.to_server.lock().await,
            Direction::ToClient => self.to_client.lock().await,
        };
        outlet.write_all(bytes).await?;
        outlet.flush().await
    }

    /// One frame for each subscription of the client that fits.
    fn frames_to_client(&self, message: &Message) -> Vec<u8> {
        let mut frames = Vec::new();
        for (subscription, _) in
            lock(&self.subscriptions).iter().filter(|(_, filter)| wire::fits(filter, &message.subject))
        {
            Message { subscription: subscription.clone(), ..message.clone() }.encode(Direction::ToClient, &mut frames);
        }
        frames
    }

    /// What a frame says about the client's subscriptions.
    fn note(&self, content: &Content<'_>) {
        match *content {
            Content::Subscribe { filter, subscription } => {
                lock(&self.subscriptions).insert(subscription.to_owned(), filter.to_owned());
            }
            Content::Unsubscribe { subscription } => {
                lock(&self.subscriptions).remove(subscription);
            }
            Content::Message(_) | Content::Other => {}
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // An error ends the client's connection, which the client notices.
            if let Err(error) = serve(socket, &shared).await {
                tracing::debug!(%error, "a connection through the malicious broker ended");
            }
        });
    }
}

async fn serve(socket: TcpStream, shared: &Arc<Shared>) -> Result<()> {
    socket.set_nodelay(true)?;
    let client =
        soon("a client's handshake", TlsAcceptor::from(shared.identity.server_config()).accept(socket)).await??;
    let chain = client.get_ref().1.peer_certificates().context("a client without a certificate")?;
    let who = shared.identity.verify_peer(chain)?.principal().endpoint.clone();
    let connector = TlsConnector::from(shared.credentials(&who)?);
    let socket = TcpStream::connect(("127.0.0.1", shared.server_port)).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let server = soon("the server's handshake", connector.connect(name, socket)).await??;
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let link = Arc::new(Link {
        number: shared.accepted.fetch_add(1, Ordering::AcqRel) + 1,
        who,
        subscriptions: Mutex::default(),
        to_client: tokio::sync::Mutex::new(Box::new(to_client)),
        to_server: tokio::sync::Mutex::new(Box::new(to_server)),
        ended: Notify::new(),
    });
    lock(&shared.links).push(Arc::clone(&link));
    let ended = tokio::select! {
        ended = relay(from_client, Direction::ToServer, &link, shared) => ended,
        ended = relay(from_server, Direction::ToClient, &link, shared) => ended,
        () = link.ended.notified() => Ok(()),
    };
    lock(&shared.links).retain(|other| other.number != link.number);
    // Whoever is still there is told; whoever is gone is not.
    let _ = link.to_client.lock().await.shutdown().await;
    let _ = link.to_server.lock().await.shutdown().await;
    Ok(ended?)
}

/// Reads frames until the connection ends, and does with each what the hook says.
async fn relay(mut from: impl AsyncRead + Unpin, direction: Direction, link: &Link, shared: &Shared) -> io::Result<()> {
    let key = (link.who.clone(), direction);
    let mut arrived = BytesMut::with_capacity(64 * 1024);
    let (mut onward, mut back) = (Vec::new(), Vec::new());
    while from.read_buf(&mut arrived).await? > 0 {
        let hook = lock(&shared.hooks).get(&key).cloned();
        let mut done = 0;
        while let Some((length, content)) = wire::next_frame(&arrived[done..])? {
            let frame = &arrived[done..done + length];
            done += length;
            if direction == Direction::ToServer {
                link.note(&content);
            }
            let message = match content {
                Content::Message(raw) if hook.is_some() => raw.message(direction),
                _ => None,
            };
            let (Some(hook), Some(message)) = (&hook, message) else {
                onward.extend_from_slice(frame);
                continue;
            };
            let mut fate = Fate::default();
            (*lock(hook))(message, &mut fate);
            fate.onward.iter().for_each(|message| message.encode(direction, &mut onward));
            for message in &fate.back {
                match direction.back() {
                    Direction::ToClient => back.extend(link.frames_to_client(message)),
                    Direction::ToServer => message.encode(Direction::ToServer, &mut back),
                }
            }
        }
        arrived.advance(done);
        link.write(direction, &onward).await?;
        link.write(direction.back(), &back).await?;
        onward.clear();
        back.clear();
    }
    Ok(())
}
