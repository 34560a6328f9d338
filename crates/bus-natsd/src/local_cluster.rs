//! A whole cluster on one machine.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{ClusterConfig, KeyPin};
use crate::config::{ServerConfig, TlsFiles};
use crate::error::{ConfigError, ServerError};
use crate::launch::Launch;
use crate::port::free_port;
use crate::server::NatsServer;

/// How long a majority may take to agree on who leads. An election takes up to some nine seconds.
const ELECTION: Duration = Duration::from_secs(30);

/// How often all ports are chosen anew because another program took one of them meanwhile.
const PORT_ATTEMPTS: usize = 5;

const PORT_TAKEN: &str = "address already in use";
/// What a node says that knows who leads, be it another or itself.
const LEADER: [&str; 2] = ["JetStream cluster new metadata leader", "new JetStream cluster metadata leader"];

type NodeSink = Arc<dyn Fn(&str, &str) + Send + Sync>;

type Started = Arc<dyn Fn(&NatsServer) + Send + Sync>;

/// A node of a cluster on this machine: its name, its certificate, and the pin of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node's name, which is also that of its directory of streams. No two nodes share one.
    pub name: String,
    /// The node's certificate, for clients and routes alike. It has to name the address that the cluster listens on.
    pub tls: TlsFiles,
    /// The pin of the certificate's key.
    pub pin: KeyPin,
}

/// How a cluster on this machine is started.
///
/// ```no_run
/// use bus_natsd::{ClusterLaunch, Node, ServerConfig};
///
/// # fn example(config: ServerConfig, nodes: Vec<Node>) -> Result<(), bus_natsd::ServerError> {
/// let mut cluster = ClusterLaunch::new(bus_natsd::find_server()?)
///     .on_log(|node, line| eprintln!("{node} {line}"))
///     .start(&config, &nodes)?;
/// println!("{}", cluster.urls().join(" "));
/// cluster.kill(0)?;
/// cluster.restart(0)?;
/// # Ok(()) }
/// ```
#[must_use = "nothing runs before `start`"]
pub struct ClusterLaunch {
    program: PathBuf,
    sink: Option<NodeSink>,
    started: Option<Started>,
}

impl ClusterLaunch {
    /// A launch of nodes that run this nats-server.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), sink: None, started: None }
    }

    /// Gives every line of a node's log to `sink`, behind the node's name, from other threads, as it arrives.
    pub fn on_log(mut self, sink: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.sink = Some(Arc::new(sink));
        self
    }

    /// Shows every node to `started` as soon as it is ready for clients, long before the cluster has a leader.
    pub fn on_start(mut self, started: impl Fn(&NatsServer) + Send + Sync + 'static) -> Self {
        self.started = Some(Arc::new(started));
        self
    }

    /// Starts the nodes, and waits until they have a leader, at most half a minute.
    ///
    /// `template` is what the nodes have in common. Its host is that of all of them. With port 0, each listens on any free
    /// one; with another, the first node listens on that and each further node on the next. Routes take free ports. Streams
    /// go to a directory of the node's name in the JetStream directory. The template's name, certificate and place in a
    /// cluster are replaced by the node's own.
    ///
    /// # Errors
    ///
    /// As for [`Launch::start`]; [`ConfigError::NoStreams`] without a JetStream directory, [`ConfigError::LoneNode`] for
    /// fewer than two nodes.
    pub fn start(self, template: &ServerConfig, nodes: &[Node]) -> Result<LocalCluster, ServerError> {
        let mut attempts = 1;
        loop {
            match self.try_start(template, nodes) {
                Err(ServerError::Ended { log }) if log.contains(PORT_TAKEN) && attempts < PORT_ATTEMPTS => {
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn try_start(&self, template: &ServerConfig, nodes: &[Node]) -> Result<LocalCluster, ServerError> {
        let mut cluster = LocalCluster { nodes: Vec::with_capacity(nodes.len()) };
        for config in configurations(template, nodes)? {
            let mut launch = Launch::new(&self.program).apart();
            if let Some(sink) = self.sink.clone() {
                let name = config.server_name.clone();
                launch = launch.on_log(move |line| sink(&name, line));
            }
            let node = launch.start(config)?;
            if let Some(started) = &self.started {
                started(&node);
            }
            cluster.nodes.push(node);
        }
        let deadline = Instant::now() + ELECTION;
        cluster.nodes.iter().try_for_each(|node| await_leader(node, 0, deadline))?;
        Ok(cluster)
    }
}

impl fmt::Debug for ClusterLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterLaunch").field("program", &self.program).finish_non_exhaustive()
    }
}

/// What each node is told.
fn configurations(template: &ServerConfig, nodes: &[Node]) -> Result<Vec<ServerConfig>, ServerError> {
    let directory = template.jetstream_dir.as_ref().ok_or(ConfigError::NoStreams)?;
    let mut taken = HashSet::new();
    let mut next = || {
        let port = free_port(template.host, &taken)?;
        taken.insert(port);
        Ok::<_, ServerError>(port)
    };
    let routes: Vec<u16> = nodes.iter().map(|_| next()).collect::<Result<_, _>>()?;
    let pins: Vec<KeyPin> = nodes.iter().map(|node| node.pin).collect();
    let host = match template.host {
        IpAddr::V6(host) => format!("[{host}]"),
        IpAddr::V4(host) => host.to_string(),
    };
    let mut configs = Vec::with_capacity(nodes.len());
    for (index, (node, port)) in nodes.iter().zip(&routes).enumerate() {
        let others = routes.iter().filter(|other| *other != port).map(|other| format!("{host}:{other}")).collect();
        let mut cluster = ClusterConfig::new(node.tls.clone(), pins.clone(), others);
        (cluster.host, cluster.port) = (template.host, *port);
        let mut config = template.clone();
        config.server_name.clone_from(&node.name);
        config.tls = node.tls.clone();
        config.jetstream_dir = Some(directory.join(&node.name));
        config.cluster = Some(cluster);
        config.port = match template.port {
            0 => next()?,
            first => u16::try_from(index)
                .ok()
                .and_then(|index| first.checked_add(index))
                .ok_or(ServerError::NoPort { host: template.host })?,
        };
        configs.push(config);
    }
    Ok(configs)
}

/// Waits until a node has said, after `position` in its log, that it knows who leads.
fn await_leader(node: &NatsServer, position: usize, deadline: Instant) -> Result<(), ServerError> {
    let says = |line: &str| LEADER.iter().any(|leader| line.contains(leader));
    let left = deadline.saturating_duration_since(Instant::now());
    node.wait_for_log_after(position, says, left).map(drop).ok_or_else(|| node.timeout("led", ELECTION))
}

/// A running cluster on this machine, with streams. Its nodes are numbered from 0, and are killed when this value is dropped;
/// [`stop`](Self::stop) ends them cleanly.
///
/// The nodes are no members of the caller's process group: an interrupt from the terminal does not reach them.
#[derive(Debug)]
pub struct LocalCluster {
    nodes: Vec<NatsServer>,
}

impl LocalCluster {
    /// The nodes, in their order.
    #[must_use]
    pub fn nodes(&self) -> &[NatsServer] {
        &self.nodes
    }

    /// The addresses that clients on this machine dial, of all nodes in their order.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(NatsServer::url).collect()
    }

    /// A node, for what concerns it alone.
    ///
    /// # Errors
    ///
    /// [`ServerError::NoSuchNode`], as everywhere here where a node is named by its number.
    pub fn node(&mut self, index: usize) -> Result<&mut NatsServer, ServerError> {
        let last = self.nodes.len().saturating_sub(1);
        self.nodes.get_mut(index).ok_or(ServerError::NoSuchNode { index, last })
    }

    /// Ends a node at once, as a crash would (SIGKILL). What it had not written to its disk, the operating system still does.
    ///
    /// # Errors
    ///
    /// As for [`NatsServer::kill`].
    pub fn kill(&mut self, index: usize) -> Result<(), ServerError> {
        self.node(index)?.kill()
    }

    /// Has a node stand still (SIGSTOP), as a machine does that is overloaded, suspended or moved.
    ///
    /// # Errors
    ///
    /// As for [`NatsServer::pause`].
    pub fn pause(&mut self, index: usize) -> Result<(), ServerError> {
        self.node(index)?.pause()
    }

    /// Has a node go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// As for [`NatsServer::resume`].
    pub fn resume(&mut self, index: usize) -> Result<(), ServerError> {
        self.node(index)?.resume()
    }

    /// Puts a node into lame duck mode, and returns once it is. It ends by itself; see [`NatsServer::lame_duck`].
    ///
    /// # Errors
    ///
    /// As for [`NatsServer::lame_duck`].
    pub fn lame_duck(&mut self, index: usize) -> Result<(), ServerError> {
        self.node(index)?.lame_duck()
    }

    /// Starts a node again on its former ports, after a clean stop if it still runs. Where a majority runs then, waits until
    /// the node knows who leads, at most half a minute.
    ///
    /// Streams catch up afterwards. A node that stands still counts as running: resume it before.
    ///
    /// # Errors
    ///
    /// As for [`Launch::start`].
    pub fn restart(&mut self, index: usize) -> Result<(), ServerError> {
        let node = self.node(index)?;
        // What it still says of leaders as it ends does not count.
        node.stop()?;
        let position = node.log_position();
        node.restart()?;
        let running = self.nodes.iter_mut().map(|node| usize::from(node.is_running())).sum::<usize>();
        if running * 2 <= self.nodes.len() {
            return Ok(());
        }
        await_leader(self.node(index)?, position, Instant::now() + ELECTION)
    }

    /// Changes the configuration of every node, and has those that run read it, one after the other. Others do when they are
    /// restarted.
    ///
    /// # Errors
    ///
    /// As for [`NatsServer::reload`], of the first node that does not take it. The nodes before it have it already.
    pub fn reconfigure(&mut self, change: impl Fn(&mut ServerConfig)) -> Result<(), ServerError> {
        self.nodes.iter_mut().try_for_each(|node| {
            let mut config = node.config().clone();
            change(&mut config);
            node.reconfigure(config)
        })
    }

    /// Ends all nodes in lame duck mode, those that stand still or do not end within `limit` otherwise. Clients are told, and
    /// leadership is not handed back and forth between nodes that end one after the other.
    ///
    /// # Errors
    ///
    /// When a process cannot be waited for.
    pub fn drain(&mut self, limit: Duration) -> Result<(), ServerError> {
        let deadline = Instant::now() + limit;
        for node in &mut self.nodes {
            // One that has ended, or cannot be told, is seen to below.
            let _ = node.begin_lame_duck();
        }
        for node in &mut self.nodes {
            node.wait_for_end(deadline.saturating_duration_since(Instant::now()))?;
        }
        self.stop()
    }

    /// Ends all nodes cleanly; those that do not end within ten seconds are killed.
    ///
    /// # Errors
    ///
    /// When a process cannot be waited for.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        self.nodes.iter_mut().try_for_each(NatsServer::stop)
    }
}
