//! How a client connects, and the bounds it keeps.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use bus_acl::Policy;
use bus_proto::prost::Name;
use bus_proto::{Endpoint, MessageType, PayloadError, SubjectRoot, TypeRegistry};
use bus_tls::TlsIdentity;
use secrecy::SecretString;

use crate::connection::COMMON_MAX_PAYLOAD;
use crate::outbound::Forms;
use crate::sealing::{KeysFile, SealingKeys};

/// How to connect, and every bound that the client keeps. Start with [`BusOptions::new`] and change what you need.
///
/// ```no_run
/// use std::time::Duration;
/// use bus_client::BusOptions;
/// use bus_tls::{TlsIdentity, TlsOptions};
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let identity = TlsIdentity::load(TlsOptions::from_env()?)?;
/// let options = BusOptions::new("tls://bus.example:4222", identity).operation_timeout(Duration::from_secs(2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct BusOptions {
    pub(crate) servers: Vec<String>,
    pub(crate) identity: TlsIdentity,
    pub(crate) policy: Policy,
    pub(crate) root: SubjectRoot,
    pub(crate) registry: TypeRegistry,
    pub(crate) max_payload: usize,
    pub(crate) clock_skew: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) reconnect_max_delay: Duration,
    pub(crate) give_up_after_refusals: u32,
    pub(crate) subscription_capacity: usize,
    pub(crate) subscription_bytes: usize,
    pub(crate) rotation_check: Duration,
    pub(crate) signing_key_age: Duration,
    pub(crate) max_batch: usize,
    pub(crate) store_bundles: bool,
    pub(crate) forms: Forms,
    pub(crate) sealing_keys: Option<SealingKeys>,
    pub(crate) sealing_keys_file: Option<KeysFile>,
    pub(crate) sealing_key_age: Duration,
    pub(crate) sealing_key_refresh: Duration,
    pub(crate) stream_replicas: Option<NonZeroU8>,
}

impl BusOptions {
    /// Options for the server at `url`, as the component that `identity` states, under the default policy.
    ///
    /// The address is `tls://host:port` or `host:port`; the host must be named in the server's certificate.
    pub fn new(url: impl Into<String>, identity: TlsIdentity) -> Self {
        Self {
            servers: vec![url.into()],
            identity,
            policy: Policy::default(),
            root: SubjectRoot::default(),
            registry: TypeRegistry::default(),
            max_payload: COMMON_MAX_PAYLOAD,
            clock_skew: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            reconnect_max_delay: Duration::from_secs(30),
            give_up_after_refusals: 10,
            subscription_capacity: 65_536,
            subscription_bytes: 64 * 1024 * 1024,
            rotation_check: Duration::from_secs(30),
            signing_key_age: Duration::from_secs(12 * 3_600),
            max_batch: 256,
            store_bundles: true,
            forms: Forms { seal_directed: true, readers: BTreeMap::new() },
            sealing_keys: None,
            sealing_keys_file: None,
            sealing_key_age: Duration::from_secs(7 * 86_400),
            sealing_key_refresh: Duration::from_secs(300),
            stream_replicas: None,
        }
    }

    /// Adds another server of the same bus, such as another node of its cluster. It is tried when the others do not answer,
    /// and when the one that the client is connected to says that it is about to shut down.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.servers.push(url.into());
        self
    }

    /// The policy to keep, instead of the default one. It must be the one that the broker was configured from.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The subject root, `ransomeye` unless set.
    pub fn root(mut self, root: SubjectRoot) -> Self {
        self.root = root;
        self
    }

    /// Registers the protobuf type `T` under `token`, which starts with `x-`. Publish and subscribe to it as
    /// [`Registered<T>`](bus_proto::Registered).
    ///
    /// # Errors
    ///
    /// When the token is malformed, or the type or the token is taken.
    pub fn register<T: Name>(mut self, token: &str) -> Result<Self, PayloadError> {
        self.registry.register::<T>(token)?;
        Ok(self)
    }

    /// The largest encoded message, in bytes; 262,144 unless set. Larger ones are refused locally, because the server
    /// answers them by closing the connection. The server's own limit applies too.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// How far a live message's timestamp may be from this clock; 30 s unless set.
    pub fn clock_skew(mut self, skew: Duration) -> Self {
        self.clock_skew = skew;
        self
    }

    /// How long one attempt to connect to one server may take, TLS handshake included; 5 s unless set. The first connect
    /// tries each server once, and may look up names for as long besides.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long each wait may take: for the connection to be up, for it to take a message, for the broker's verdict; 5 s
    /// unless set. A publish or subscribe makes at most these three waits, one after the other, and before
    /// the first message to somebody new, one more for each sixteen of those it is sealed to. A request takes no longer
    /// than this in all.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long [`BusClient::drain`](crate::BusClient::drain) may take; 10 s unless set.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// The longest pause between two attempts to reconnect; 30 s unless set. Pauses are spread at random under a
    /// ceiling that grows from 200 ms, so that a fleet does not return all at once. It also bounds the pause, of at most 5 s,
    /// before the client leaves a server that is about to shut down.
    pub fn reconnect_max_delay(mut self, delay: Duration) -> Self {
        self.reconnect_max_delay = delay;
        self
    }

    /// After how many refusals of its identity in a row the client closes for good; 10 unless set, 0 for never.
    pub fn give_up_after_refusals(mut self, refusals: u32) -> Self {
        self.give_up_after_refusals = refusals;
        self
    }

    /// How many messages wait in a subscription that is read too slowly before the newest are dropped and counted;
    /// 65,536 unless set.
    pub fn subscription_capacity(mut self, messages: usize) -> Self {
        self.subscription_capacity = messages;
        self
    }

    /// How many bytes wait in a subscription that is read too slowly before the newest messages are dropped and counted;
    /// 64 MiB unless set.
    pub fn subscription_bytes(mut self, bytes: usize) -> Self {
        self.subscription_bytes = bytes;
        self
    }

    /// How often the certificate files are looked at, to reconnect under a rotated certificate; 30 s unless set.
    pub fn rotation_check(mut self, interval: Duration) -> Self {
        self.rotation_check = interval;
        self
    }

    /// After what time the client signs with a new key; 12 hours unless set, 24 at most. Looked at as often as the
    /// certificate files are. A key also ends with its certificate. Receivers keep 16 keys of a sender apart for as long as
    /// clocks may differ (30 s): do not change them more often than every few seconds.
    pub fn signing_key_age(mut self, age: Duration) -> Self {
        self.signing_key_age = age;
        self
    }

    /// Whether the client leaves its key bundles in the keys stream, where receivers look up what they have missed; it does
    /// unless set, once it signs. The stream keeps eight bundles of a component: programs that end soon leave the room to
    /// those that go on.
    pub fn store_bundles(mut self, store: bool) -> Self {
        self.store_bundles = store;
        self
    }

    /// On how many nodes of a cluster the streams are kept that this client provisions; an odd number, at most 5, and usually
    /// 3. Unless set, a new stream is kept on one node, and one that is there stays where it is.
    pub fn stream_replicas(mut self, nodes: NonZeroU8) -> Self {
        self.stream_replicas = Some(nodes);
        self
    }

    /// How many messages of one subject may share an envelope and a signature when they are published faster than they can
    /// be sent; 256 unless set, which is also the most. 1 signs every message by itself.
    pub fn max_batch(mut self, messages: usize) -> Self {
        self.max_batch = messages;
        self
    }

    /// The keys that others seal messages for this component to. Unless set, they are in a file beside the TLS private key
    /// ([`SealingKeys::default_path`]), which is made with the first subscription, and which all processes of a component
    /// share.
    pub fn sealing_keys(mut self, keys: SealingKeys) -> Self {
        self.sealing_keys = Some(keys);
        self
    }

    /// The file with those keys, if it is another one, or under a passphrase. It is opened, and made if there is none, with the
    /// first subscription.
    pub fn sealing_keys_file(mut self, path: impl Into<PathBuf>, passphrase: Option<SecretString>) -> Self {
        self.sealing_keys_file = Some(KeysFile { path: path.into(), passphrase });
        self
    }

    /// After what time others are to seal to a new key; seven days unless set, 30 at most. Looked at as often as the
    /// certificate files are.
    pub fn sealing_key_age(mut self, age: Duration) -> Self {
        self.sealing_key_age = age;
        self
    }

    /// How long this client seals to the key of another component before it looks whether there is a newer one; five minutes
    /// unless set. Where nobody answers then, the key that is known stays in use as long as it holds.
    pub fn sealing_key_refresh(mut self, interval: Duration) -> Self {
        self.sealing_key_refresh = interval;
        self
    }

    /// Whether directed messages are sealed to their destination where the policy leaves that open; they are unless set.
    /// Without, whoever hosts the broker can read them: the client says so when it connects. What a rule of the
    /// policy has sealed (`seal = "on"` or `"required"`) is sealed nevertheless.
    pub fn seal_directed(mut self, seal: bool) -> Self {
        self.forms.seal_directed = seal;
        self
    }

    /// Seals the events of a type to these components, and to those whom the policy names. Whoever else may subscribe to
    /// them sees that they are sealed, and nothing of what they say.
    pub fn seal_events(mut self, message_type: MessageType, readers: impl IntoIterator<Item = Endpoint>) -> Self {
        self.forms.readers.entry(message_type).or_default().extend(readers);
        self
    }
}
