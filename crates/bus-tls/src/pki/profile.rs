//! What a certificate is to say.

use std::net::IpAddr;
use std::time::Duration;

use bus_proto::{ComponentId, Endpoint, Role};
use rcgen::{ExtendedKeyUsagePurpose, RsaKeySize, SanType};
use rustls::pki_types::{ServerName, UnixTime};

use super::PkiError;
use crate::x509;

/// How long a certificate is valid unless its profile says otherwise: 30 days.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far the start of a validity lies in the past, so that a host whose clock is a little behind accepts it.
const BACKDATED_SECS: i64 = 5 * 60;

/// The kind of key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256, which everything understands.
    #[default]
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits. Making the key takes seconds.
    Rsa4096,
}

impl KeyAlgorithm {
    pub(super) fn generate(self) -> Result<rcgen::KeyPair, PkiError> {
        let rsa = |size| rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        Ok(match self {
            Self::P256 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Ed25519 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
        }?)
    }
}

/// What a certificate is to say: for whom, for what, for how long.
///
/// ```
/// use std::time::Duration;
/// use bus_tls::pki::Profile;
///
/// let agent = Profile::component("agent".parse()?, "agent-linux-01".parse()?)?.lifetime(Duration::from_secs(3600));
/// let broker = Profile::broker("n1".parse()?, ["localhost", "127.0.0.1"])?;
/// # let _ = (agent, broker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Profile {
    pub(super) endpoint: Endpoint,
    pub(super) server_names: Vec<SanType>,
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(super) key_algorithm: KeyAlgorithm,
    /// Whether it is issued although a revoked certificate of the same name has not expired.
    pub(super) despite_revocation: bool,
    lifetime: Duration,
    not_before: Option<i64>,
    not_after: Option<i64>,
}

impl Profile {
    /// A component that connects to the broker: extended key usage clientAuth, and no name but the SPIFFE identity.
    ///
    /// # Errors
    ///
    /// [`PkiError::ReservedRole`] for a reserved role ([`Role::is_reserved`]).
    pub fn component(role: Role, component: ComponentId) -> Result<Self, PkiError> {
        if role.is_reserved() {
            return Err(PkiError::ReservedRole { role });
        }
        Ok(Self::new(role, component, Vec::new(), vec![ExtendedKeyUsagePurpose::ClientAuth]))
    }

    /// A service of ours that accepts connections, under a role of its own choice: extended key usage serverAuth alone,
    /// with these host names and IP addresses beside the identity.
    ///
    /// It cannot connect to others with it, which could take it for somebody else by those names: for that it needs a
    /// [`Profile::component`].
    ///
    /// # Errors
    ///
    /// [`PkiError::ReservedRole`] for a reserved role ([`Role::is_reserved`]), [`PkiError::BadServerName`] for a name that is
    /// neither a host name nor an IP address.
    pub fn service<N: AsRef<str>>(
        role: Role,
        component: ComponentId,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, PkiError> {
        if role.is_reserved() {
            return Err(PkiError::ReservedRole { role });
        }
        let names = server_names(names)?;
        Ok(Self::new(role, component, names, vec![ExtendedKeyUsagePurpose::ServerAuth]))
    }

    /// A broker, identity `spiffe://<trust-domain>/broker/<component>`, with its host names and IP addresses.
    ///
    /// It gets the extended key usages serverAuth, for the components, and clientAuth, for the routes between brokers.
    ///
    /// # Errors
    ///
    /// [`PkiError::BadServerName`] for a name that is neither a host name nor an IP address.
    pub fn broker<N: AsRef<str>>(component: ComponentId, names: impl IntoIterator<Item = N>) -> Result<Self, PkiError> {
        Self::infrastructure("broker", component, names)
    }

    /// A relay that is hosted by somebody else: as [`Profile::broker`], with the role `relay`.
    ///
    /// # Errors
    ///
    /// As [`Profile::broker`].
    pub fn relay<N: AsRef<str>>(component: ComponentId, names: impl IntoIterator<Item = N>) -> Result<Self, PkiError> {
        Self::infrastructure("relay", component, names)
    }

    fn infrastructure<N: AsRef<str>>(
        role: &str,
        component: ComponentId,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, PkiError> {
        let role = Role::new(role).map_err(|error| PkiError::Crypto { reason: error.to_string() })?;
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // It is known by its host names, which a revocation list alone takes from it, and listed nowhere by this one.
        Ok(Self::new(role, component, server_names(names)?, usages).despite_revocation())
    }

    fn new(
        role: Role,
        component: ComponentId,
        server_names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Self {
        Self {
            endpoint: Endpoint { role, component },
            server_names,
            usages,
            key_algorithm: KeyAlgorithm::default(),
            despite_revocation: false,
            lifetime: DEFAULT_LIFETIME,
            not_before: None,
            not_after: None,
        }
    }

    /// How long the certificate is valid, counted from its issue. [`DEFAULT_LIFETIME`] unless set.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The first second of the validity, in seconds since 1970-01-01 UTC. Five minutes before the issue unless set, so
    /// that a host whose clock is a little behind accepts the certificate.
    pub fn not_before(mut self, seconds: i64) -> Self {
        self.not_before = Some(seconds);
        self
    }

    /// The last second of the validity, in seconds since 1970-01-01 UTC, instead of a lifetime.
    pub fn not_after(mut self, seconds: i64) -> Self {
        self.not_after = Some(seconds);
        self
    }

    /// The kind of key to make. P-256 unless set.
    pub fn key_algorithm(mut self, algorithm: KeyAlgorithm) -> Self {
        self.key_algorithm = algorithm;
        self
    }

    /// Issues it although a revoked certificate of the same component has not expired yet, which is refused unless set.
    ///
    /// nats-server reads no revocation list and knows components by name: as long as the component is listed, it admits
    /// the revoked key as well as the new one. Brokers and relays are not listed; for them, this is set already.
    pub fn despite_revocation(mut self) -> Self {
        self.despite_revocation = true;
        self
    }

    /// The first and last second of a validity that is issued now.
    pub(super) fn validity(&self, now: UnixTime) -> Result<(i64, i64), PkiError> {
        let now = x509::seconds(now);
        let not_before = self.not_before.unwrap_or(now - BACKDATED_SECS);
        let lifetime = i64::try_from(self.lifetime.as_secs()).map_err(|_| PkiError::BadValidity)?;
        let not_after = match self.not_after {
            Some(not_after) => not_after,
            None => now.checked_add(lifetime).ok_or(PkiError::BadValidity)?,
        };
        if not_after <= not_before {
            return Err(PkiError::BadValidity);
        }
        Ok((not_before, not_after))
    }
}

fn server_names<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<Vec<SanType>, PkiError> {
    names.into_iter().map(|name| server_name(name.as_ref())).collect()
}

fn server_name(name: &str) -> Result<SanType, PkiError> {
    let bad = || PkiError::BadServerName { name: name.escape_default().take(200).collect() };
    match ServerName::try_from(name).map_err(|_| bad())? {
        ServerName::IpAddress(address) => Ok(SanType::IpAddress(IpAddr::from(address))),
        ServerName::DnsName(host) => host.as_ref().try_into().map(SanType::DnsName).map_err(|_| bad()),
        _ => Err(bad()),
    }
}
