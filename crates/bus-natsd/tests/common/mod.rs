//! A certificate authority, a server and a very small NATS client, for tests.

#![allow(unreachable_pub, reason = "a module of the test alone")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bus_natsd::{ClusterLaunch, LocalCluster, NatsServer, Node, ServerConfig, TlsFiles};
use bus_proto::{Principal, TrustDomain};
use bus_tls::pki::{Authority, CaOptions, Profile};
use bus_tls::rustls::pki_types::ServerName;
use bus_tls::rustls::{ClientConnection, StreamOwned};
use bus_tls::{CertificateInfo, TlsIdentity, TlsOptions};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// The server that tests use. Never one from `PATH`, so that every machine tests the same.
pub fn server_program() -> PathBuf {
    if let Some(path) = std::env::var_os(bus_natsd::SERVER_VARIABLE) {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let program = format!("tools/nats-server-2.15.1/nats-server{}", std::env::consts::EXE_SUFFIX);
    test.ancestors()
        .map(|directory| directory.join(&program))
        .find(|path| path.is_file())
        .expect("no nats-server in the target directory: run `cargo xtask fetch`")
}

pub fn principal(role: &str, component: &str) -> Principal {
    format!("spiffe://ransomeye.local/{role}/{component}").parse().unwrap()
}

/// A deployment: its CA, and the server's certificate.
pub struct Deployment {
    directory: TempDir,
    authority: Authority,
    tls: TlsFiles,
}

impl Deployment {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trust_domain = TrustDomain::new("ransomeye.local").unwrap();
        let authority = Authority::create(directory.path().join("pki"), trust_domain, &CaOptions::default()).unwrap();
        let broker = Profile::broker("broker-01".parse().unwrap(), ["localhost", "127.0.0.1"]).unwrap();
        let files = authority.issue(&broker).unwrap().write(directory.path(), false).unwrap();
        let tls = TlsFiles { cert: files.certificate, key: files.key, trust_root: authority.ca_path() };
        Self { directory, authority, tls }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A configuration for these components on any free port.
    pub fn config(&self, components: &[&Principal]) -> ServerConfig {
        let mut config = ServerConfig::new(self.tls.clone(), components.iter().copied().cloned().collect());
        config.port = 0;
        config
    }

    pub fn start(&self, components: &[&Principal]) -> NatsServer {
        NatsServer::start(server_program(), self.config(components)).unwrap()
    }

    /// A node of this name, with a fresh certificate.
    pub fn node(&self, name: &str) -> Node {
        let profile = Profile::broker(name.parse().unwrap(), ["localhost", "127.0.0.1"]).unwrap();
        let files = self.authority.issue(&profile).unwrap().write(self.path(), false).unwrap();
        let pin = CertificateInfo::read(&files.certificate).unwrap()[0].key_fingerprint.parse().unwrap();
        let tls = TlsFiles { cert: files.certificate, key: files.key, trust_root: self.authority.ca_path() };
        Node { name: name.to_owned(), tls, pin }
    }

    /// A configuration for the nodes of a cluster with streams. They are lame ducks for a second at least.
    pub fn template(&self, components: &[&Principal]) -> ServerConfig {
        let mut config = self.config(components);
        config.jetstream_dir = Some(self.path().join("jetstream"));
        config.lame_duck_duration = Duration::from_secs(30);
        config.lame_duck_grace_period = Duration::from_secs(1);
        config
    }

    /// Starts a cluster of three nodes.
    pub fn start_cluster(&self, components: &[&Principal]) -> LocalCluster {
        let nodes = ["n1", "n2", "n3"].map(|name| self.node(name));
        ClusterLaunch::new(server_program()).start(&self.template(components), &nodes).unwrap()
    }

    /// Connects with a fresh certificate of this principal, and returns once the server has answered a ping.
    pub fn connect(&self, server: &NatsServer, who: &Principal) -> Result<Client, String> {
        let profile = Profile::component(who.role().clone(), who.component().clone()).unwrap();
        let directory = tempfile::tempdir_in(self.path()).unwrap();
        let files = self.authority.issue(&profile).unwrap().write(directory.path(), false).unwrap();
        let options = TlsOptions::new(files.certificate, files.key, self.authority.ca_path());
        Client::connect(server.port(), &TlsIdentity::load(options).unwrap())
    }
}

/// A connection that speaks just enough NATS.
pub struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Client {
    fn connect(port: u16, identity: &TlsIdentity) -> Result<Self, String> {
        let socket = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(SOON)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(identity.client_config(), name).unwrap();
        let mut client = Self(BufReader::new(StreamOwned::new(session, socket)));
        client.send("CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"lang\":\"test\",\"version\":\"0\"}\r\nPING\r\n");
        client.expect("PONG")?;
        Ok(client)
    }

    /// Sends protocol lines. A server that has hung up is noticed when its answer is read.
    pub fn send(&mut self, text: &str) {
        let stream = self.0.get_mut();
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    /// Reads until this line; an error of the server or the end of the connection is the `Err`.
    pub fn expect(&mut self, wanted: &str) -> Result<(), String> {
        self.read_until(|line| line == wanted)
    }

    /// As [`Client::expect`], for a line that holds this.
    pub fn expect_part(&mut self, wanted: &str) -> Result<(), String> {
        self.read_until(|line| line.contains(wanted))
    }

    /// Whether a line that holds this arrives within this time.
    pub fn hears(&mut self, wanted: &str, within: Duration) -> bool {
        self.0.get_ref().sock.set_read_timeout(Some(within)).unwrap();
        let heard = self.expect_part(wanted).is_ok();
        self.0.get_ref().sock.set_read_timeout(Some(SOON)).unwrap();
        heard
    }

    fn read_until(&mut self, fits: impl Fn(&str) -> bool) -> Result<(), String> {
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) => return Err("closed".to_owned()),
                Err(error) => return Err(error.to_string()),
                Ok(_) if line.starts_with("-ERR") => return Err(line.trim_end().to_owned()),
                Ok(_) if fits(line.trim_end()) => return Ok(()),
                Ok(_) => {}
            }
        }
    }

    /// One round trip.
    pub fn ping(&mut self) -> Result<(), String> {
        self.send("PING\r\n");
        self.expect("PONG")
    }

    /// Waits until the server closes the connection.
    pub fn wait_for_close(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("still connected"),
            _ => {}
        }
    }
}

/// A sink for log lines, and what it got.
pub fn recorder() -> (impl Fn(&str) + Send + Sync + 'static, Arc<std::sync::Mutex<Vec<String>>>) {
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = lines.clone();
    (move |line: &str| sink.lock().unwrap().push(line.to_owned()), lines)
}
