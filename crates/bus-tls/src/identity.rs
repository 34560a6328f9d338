//! [`TlsIdentity`] and [`TlsServerIdentity`]: checked credentials, which follow the files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bus_proto::Principal;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{ClientConfig, ServerConfig};

use crate::credentials::Setup;
use crate::error::TlsError;
use crate::leaf::{Usage, VerifiedLeaf};
use crate::options::TlsOptions;
use crate::own::OwnCredentials;
use crate::rotation::{Refresh, Shared, TrustState};
use crate::{client, server};

/// Checked credentials of one component, which connects to others. They follow the files as they are rotated.
///
/// Every handshake first looks whether a file has changed, which costs a few system calls. New files that pass all
/// checks are used at once, for this handshake. New files that do not are reported (target `bus::security`) and what
/// is in use stays, so a half-written rotation does no harm. Three parts are judged each on its own: the certificate
/// with its key, the trust roots, and the revocation lists. So a fault of one does not keep a revocation in another
/// from working. The identity itself never changes: files of another principal are refused. Connections that are
/// already open keep the certificates that they began with.
///
/// A revocation list stays in use until a newer one of the same authority takes its place, or the program ends. A newer
/// one is taken as it is, also when it is out of date, which refuses everybody, or revokes our own certificate, which is
/// reported.
///
/// Clones share the credentials.
///
/// ```no_run
/// use bus_tls::{TlsIdentity, TlsOptions};
///
/// let identity = TlsIdentity::load(TlsOptions::from_env()?)?;
/// println!("I am {}", identity.principal());
/// let config = identity.client_config();
/// # let _ = config;
/// # Ok::<(), bus_tls::TlsError>(())
/// ```
#[derive(Clone)]
pub struct TlsIdentity {
    shared: Arc<Shared>,
    client_config: Arc<ClientConfig>,
}

impl TlsIdentity {
    /// Reads and checks the credentials of a component that connects to others.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] that says which file is wrong, how, and what to do.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let shared = load(options, Usage::Client)?;
        let client_config = Arc::new(client::config(&shared)?);
        Ok(Self { shared, client_config })
    }

    /// Reads and checks the credentials of a service that accepts connections.
    ///
    /// The certificate needs the extended key usage serverAuth, and may carry host names and addresses beside its
    /// SPIFFE identity. With those it must not connect to others: they could take it for somebody else.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] that says which file is wrong, how, and what to do.
    pub fn load_server(options: TlsOptions) -> Result<TlsServerIdentity, TlsError> {
        let shared = load(options, Usage::Server)?;
        let server_config = Arc::new(server::config(&shared)?);
        Ok(TlsServerIdentity { shared, server_config })
    }

    /// Whose credentials these are. It never changes.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.shared.principal().clone()
    }

    /// The last second of the certificate's validity, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.shared.leaf().not_after()
    }

    /// The certificate in use, as it was verified.
    #[must_use]
    pub fn leaf(&self) -> VerifiedLeaf {
        self.shared.leaf()
    }

    /// Where its private key is read from.
    #[must_use]
    pub fn key_path(&self) -> &Path {
        self.shared.key_path()
    }

    /// How many times credentials have been taken into use: 1 after loading, and one more for every rotation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// The configuration for connecting to others: TLS 1.3 only, post-quantum hybrid key exchange preferred, no session
    /// resumption, only the deployment's own authorities, our certificate presented to the server.
    ///
    /// It follows rotation, and so do its clones.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client_config)
    }

    /// Our own certificate in use, which signs with its private key.
    ///
    /// A snapshot: it stays the same when the files are rotated. It does not look at the files.
    #[must_use]
    pub fn credentials(&self) -> OwnCredentials {
        OwnCredentials::of(&self.shared.current())
    }

    /// Verifies the certificates that another component sent outside of a handshake, the leaf first, each in DER, and says
    /// who it is.
    ///
    /// They are judged as a client's in a handshake: by the trust roots and revocation lists in use, the clock of this host,
    /// our own trust domain, and the rules for a component's certificate. It does not look at the files: new ones are
    /// used once a handshake or [`TlsIdentity::refresh`] has taken them. It does not prove that the sender holds the private
    /// key: that takes a signature, which [`VerifiedLeaf::spki`] verifies.
    ///
    /// A good chain costs one signature verification for each certificate, and another for each list that must cover one. The
    /// bytes may be anything, but the caller bounds how many certificates there are, and how often it asks: with several
    /// intermediates of one name all orders of them are tried, which costs up to a millisecond for three, and some
    /// twenty for seven, before the chain is refused. How long the result may be used again,
    /// [`TlsIdentity::trust_state`] tells.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] with [`Origin::Peer`](crate::Origin::Peer) that says what is wrong with the certificate, or one about
    /// the revocation lists that it cannot be judged by.
    pub fn verify_peer(&self, chain: &[&[u8]]) -> Result<VerifiedLeaf, TlsError> {
        let chain: Vec<_> = chain.iter().copied().map(CertificateDer::from).collect();
        self.shared.current().verify_client(self.shared.provider(), &chain, UnixTime::now())
    }

    /// How long certificates that were verified stay verified. It costs some nanoseconds.
    ///
    /// What [`TlsIdentity::verify_peer`] accepted would be accepted again as long as all of this holds:
    ///
    /// * the generation is the one from *before* that call, so take it first;
    /// * the time is not past `good_until_unix_ms`;
    /// * the time is not past [`VerifiedLeaf::chain_not_after_unix_ms`].
    ///
    /// After that, verify it again. That may succeed: the generation also grows when only our own certificate is rotated, and
    /// a list that is out of date refuses only the certificates that it covers.
    ///
    /// ```no_run
    /// # fn now_unix_ms() -> i64 { 0 }
    /// # fn example(identity: &bus_tls::TlsIdentity, chain: &[&[u8]]) -> Result<(), bus_tls::TlsError> {
    /// let trusted = identity.trust_state();
    /// let leaf = identity.verify_peer(chain)?;
    /// // Later:
    /// let still_good = identity.trust_state() == trusted
    ///     && now_unix_ms() <= trusted.good_until_unix_ms.min(leaf.chain_not_after_unix_ms());
    /// # let _ = still_good;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn trust_state(&self) -> TrustState {
        self.shared.trust_state()
    }

    /// Looks now whether a file has changed, and takes the new ones into use if they are good.
    ///
    /// # Errors
    ///
    /// Why a new file was refused, as long as it is there: what it was to replace stays in use. New files of the other
    /// parts are in use nevertheless, which [`TlsIdentity::generation`] tells.
    pub fn refresh(&self) -> Result<Refresh, TlsError> {
        self.shared.refresh()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, client_config: _ } = self;
        fmt::Debug::fmt(shared, f)
    }
}

/// Checked credentials of one service, which accepts connections. As [`TlsIdentity`], they follow the files, and clones
/// share them.
///
/// ```no_run
/// use bus_tls::{TlsIdentity, TlsOptions};
///
/// let identity = TlsIdentity::load_server(TlsOptions::new("relay.crt", "relay.key", "ca.crt").crl("crl.pem"))?;
/// let config = identity.server_config();
/// # let _ = config;
/// # Ok::<(), bus_tls::TlsError>(())
/// ```
#[derive(Clone)]
pub struct TlsServerIdentity {
    shared: Arc<Shared>,
    server_config: Arc<ServerConfig>,
}

impl TlsServerIdentity {
    /// Whose credentials these are. It never changes.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.shared.principal().clone()
    }

    /// The last second of the certificate's validity, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.shared.leaf().not_after()
    }

    /// The certificate in use, as it was verified.
    #[must_use]
    pub fn leaf(&self) -> VerifiedLeaf {
        self.shared.leaf()
    }

    /// How many times credentials have been taken into use: 1 after loading, and one more for every rotation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// The configuration for accepting connections: TLS 1.3 only, post-quantum hybrid key exchange preferred, no session
    /// resumption, and every client must present a certificate of this deployment with exactly one identity.
    ///
    /// It follows rotation, and so do its clones.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server_config)
    }

    /// As [`TlsIdentity::refresh`].
    ///
    /// # Errors
    ///
    /// As [`TlsIdentity::refresh`].
    pub fn refresh(&self) -> Result<Refresh, TlsError> {
        self.shared.refresh()
    }

    /// Verifies the certificates that a client presented, as `rustls::ServerConnection::peer_certificates` returns
    /// them, and says who it is.
    ///
    /// It looks for changed files first, as a handshake does: a client that has been revoked since it connected is
    /// refused.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] with [`Origin::Peer`](crate::Origin::Peer) that says what is wrong with the certificate.
    pub fn verify_peer(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedLeaf, TlsError> {
        self.shared.newest().verify_client(self.shared.provider(), chain, UnixTime::now())
    }
}

impl fmt::Debug for TlsServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, server_config: _ } = self;
        fmt::Debug::fmt(shared, f)
    }
}

fn load(options: TlsOptions, usage: Usage) -> Result<Arc<Shared>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Shared::load(Setup { options, usage, provider })
}
