//! [`TlsIdentity`]: checked credentials, and their rotation while the program runs.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bus_proto::{Principal, TrustDomain};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use crate::crl::RevocationLists;
use crate::error::TlsError;
use crate::files::Stamp;
use crate::leaf::{Judge, Usage, VerifiedLeaf};
use crate::options::{KeyPermissions, TlsOptions};
use crate::place::{FileKind, Origin};
use crate::roots::Roots;
use crate::{client, files, leaf, pem, server};

/// What a check for changed files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refresh {
    /// The files are those that are in use.
    Unchanged,
    /// The files had changed, were good, and are in use from the next handshake on.
    Rotated,
}

/// Checked credentials of one component, which follow the files as they are rotated.
///
/// Every handshake first looks whether a file has changed, which costs a few system calls. New files that pass all
/// checks are used at once, for this handshake. New files that do not are reported (target `bus::security`) and the
/// credentials in use stay, so a half-written rotation does no harm. The identity itself never changes: files of
/// another principal are refused. Connections that are already open keep the certificates that they began with.
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
        Self::load_for(options, Usage::Client)
    }

    /// Reads and checks the credentials of a service that accepts connections.
    ///
    /// The certificate needs the extended key usage serverAuth, and may carry host names and addresses beside its
    /// SPIFFE identity.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] that says which file is wrong, how, and what to do.
    pub fn load_server(options: TlsOptions) -> Result<Self, TlsError> {
        Self::load_for(options, Usage::Server)
    }

    fn load_for(options: TlsOptions, usage: Usage) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let credentials = Credentials::load(&options, usage, &provider, UnixTime::now(), 1)?;
        let shared = Arc::new(Shared {
            principal: credentials.leaf.principal().clone(),
            options,
            usage,
            provider,
            current: ArcSwap::from_pointee(credentials),
            reported: Mutex::new(None),
        });
        let client_config = Arc::new(client::config(&shared)?);
        Ok(Self { shared, client_config })
    }

    /// Whose credentials these are. It never changes.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.shared.principal.clone()
    }

    /// The last second of the certificate's validity, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.shared.current.load().leaf.not_after()
    }

    /// The certificate in use, as it was verified.
    #[must_use]
    pub fn leaf(&self) -> VerifiedLeaf {
        self.shared.current.load().leaf.clone()
    }

    /// How many times credentials have been taken into use: 1 after loading, and one more for every rotation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.current.load().generation
    }

    /// The configuration for connecting to others: TLS 1.3 only, post-quantum hybrid key exchange preferred, no session
    /// resumption, only the deployment's own authorities, our certificate presented to the server.
    ///
    /// It follows rotation, and so do its clones.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client_config)
    }

    /// The configuration for accepting connections: as [`TlsIdentity::client_config`], and every client must present a
    /// certificate of this deployment with exactly one identity.
    ///
    /// # Errors
    ///
    /// [`TlsError::NotAServerIdentity`] unless it was loaded with [`TlsIdentity::load_server`].
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        if self.shared.usage != Usage::Server {
            return Err(TlsError::NotAServerIdentity { path: self.shared.options.certificate.clone() });
        }
        server::config(&self.shared).map(Arc::new)
    }

    /// Looks now whether a file has changed, and takes the new ones into use if they are good.
    ///
    /// # Errors
    ///
    /// Why the new files were refused; the credentials in use stay.
    pub fn refresh(&self) -> Result<Refresh, TlsError> {
        self.shared.refresh()
    }

    /// Verifies the certificates that a client presented, as `rustls::ServerConnection::peer_certificates` returns
    /// them, and says who it is.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] with [`Origin::Peer`] that says what is wrong with the certificate.
    pub fn verify_peer(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedLeaf, TlsError> {
        let credentials = self.shared.current.load();
        credentials.verify_client(&self.shared.provider, chain, UnixTime::now())
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, client_config: _ } = self;
        fmt::Debug::fmt(shared, f)
    }
}

/// What the configurations and all clones of an identity share.
pub(crate) struct Shared {
    options: TlsOptions,
    usage: Usage,
    pub(crate) provider: Arc<CryptoProvider>,
    principal: Principal,
    current: ArcSwap<Credentials>,
    /// The state of the files that was last reported as bad, so that each is reported once. Also held while
    /// credentials are replaced, so that this happens once.
    reported: Mutex<Option<Stamps>>,
}

impl Shared {
    /// The credentials for a handshake that begins now: the newest good ones.
    pub(crate) fn newest(&self) -> Arc<Credentials> {
        // A refusal has been reported, and the credentials in use are still good.
        let _reported = self.refresh();
        self.current.load_full()
    }

    /// The credentials for a handshake that has begun.
    pub(crate) fn current(&self) -> Arc<Credentials> {
        self.current.load_full()
    }

    fn refresh(&self) -> Result<Refresh, TlsError> {
        if Stamps::of(&self.options) == self.current.load().stamps {
            return Ok(Refresh::Unchanged);
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = Stamps::of(&self.options);
        let current = self.current.load_full();
        if stamps == current.stamps {
            return Ok(Refresh::Unchanged);
        }
        let now = UnixTime::now();
        let loaded = Credentials::load(&self.options, self.usage, &self.provider, now, current.generation + 1)
            .and_then(|new| self.same_principal(new));
        match loaded {
            Ok(new) => {
                tracing::info!(
                    target: "bus::security",
                    principal = %self.principal,
                    serial = new.leaf.serial(),
                    not_after = new.leaf.not_after(),
                    "credentials rotated"
                );
                self.current.store(Arc::new(new));
                *reported = None;
                Ok(Refresh::Rotated)
            }
            Err(error) => {
                self.report(&mut reported, stamps, &error);
                Err(error)
            }
        }
    }

    fn same_principal(&self, new: Credentials) -> Result<Credentials, TlsError> {
        if *new.leaf.principal() == self.principal {
            return Ok(new);
        }
        Err(TlsError::PrincipalChanged {
            path: self.options.certificate.clone(),
            found: new.leaf.principal().clone(),
            running: self.principal.clone(),
        })
    }

    fn report(&self, reported: &mut MutexGuard<'_, Option<Stamps>>, stamps: Stamps, error: &TlsError) {
        if reported.as_ref() == Some(&stamps) {
            return;
        }
        tracing::warn!(
            target: "bus::security",
            principal = %self.principal,
            %error,
            "the new credentials were refused; those in use stay"
        );
        **reported = Some(stamps);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, usage, provider: _, principal, current, reported: _ } = self;
        let current = current.load();
        f.debug_struct("TlsIdentity")
            .field("principal", principal)
            .field("usage", usage)
            .field("options", options)
            .field("leaf", &current.leaf)
            .field("generation", &current.generation)
            .finish()
    }
}

/// The states of all files, taken before any of them is read: a change during reading is then noticed next time.
#[derive(Debug, PartialEq, Eq)]
struct Stamps([Option<Stamp>; 4]);

impl Stamps {
    fn of(options: &TlsOptions) -> Self {
        Self([
            Stamp::of(&options.certificate),
            Stamp::of(&options.key),
            Stamp::of(&options.trust_root),
            options.crl.as_deref().and_then(Stamp::of),
        ])
    }
}

/// One state of the files, read and checked.
pub(crate) struct Credentials {
    pub(crate) certified_key: Arc<CertifiedKey>,
    leaf: VerifiedLeaf,
    roots: Roots,
    crls: Option<RevocationLists>,
    pub(crate) server_verifier: Arc<WebPkiServerVerifier>,
    trust_domain: TrustDomain,
    generation: u64,
    stamps: Stamps,
}

impl Credentials {
    fn load(
        options: &TlsOptions,
        usage: Usage,
        provider: &Arc<CryptoProvider>,
        now: UnixTime,
        generation: u64,
    ) -> Result<Self, TlsError> {
        let stamps = Stamps::of(options);
        let contents = files::read(&options.certificate, FileKind::Certificate)?;
        let chain = pem::certificates(&options.certificate, FileKind::Certificate, &contents.bytes)?;
        let contents = files::read(&options.key, FileKind::PrivateKey)?;
        let exposed = contents.mode.filter(|mode| mode & 0o077 != 0);
        if let (KeyPermissions::OwnerOnly, Some(mode)) = (options.key_permissions, exposed) {
            return Err(TlsError::ExposedKey { path: options.key.clone(), mode });
        }
        let key = pem::private_key(&options.key, &contents.bytes)?;
        let roots = Roots::load(&options.trust_root, options.trust_domain.as_ref(), now)?;
        let crls = options.crl.as_deref().map(RevocationLists::load).transpose()?;
        let judge = Judge {
            algorithms: provider.signature_verification_algorithms.all,
            roots: &roots,
            crls: crls.as_ref(),
            trust_domain: roots.trust_domain(),
            now,
        };
        let leaf = judge.verify(&Origin::File(options.certificate.clone()), &chain, usage)?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|_| TlsError::UnusableKey { path: options.key.clone() })?;
        let certified_key = CertifiedKey::new(chain, key);
        certified_key.keys_match().map_err(|_| TlsError::KeyMismatch {
            key: options.key.clone(),
            certificate: options.certificate.clone(),
        })?;
        Ok(Self {
            certified_key: Arc::new(certified_key),
            trust_domain: roots.trust_domain().unwrap_or(&leaf.principal().trust_domain).clone(),
            server_verifier: client::verifier(&roots, crls.as_ref(), provider)?,
            leaf,
            roots,
            crls,
            generation,
            stamps,
        })
    }

    /// Checks a client that connects to us.
    pub(crate) fn verify_client(
        &self,
        provider: &CryptoProvider,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedLeaf, TlsError> {
        self.judge(provider, now).verify(&Origin::Peer, chain, Usage::Client)
    }

    /// Checks a server that we connect to, beyond what [`WebPkiServerVerifier`] has checked.
    pub(crate) fn check_server(&self, end_entity: &CertificateDer<'_>) -> Result<(), TlsError> {
        leaf::check_server(end_entity, &self.trust_domain)
    }

    fn judge<'a>(&'a self, provider: &'a CryptoProvider, now: UnixTime) -> Judge<'a> {
        Judge {
            algorithms: provider.signature_verification_algorithms.all,
            roots: &self.roots,
            crls: self.crls.as_ref(),
            trust_domain: Some(&self.trust_domain),
            now,
        }
    }
}
