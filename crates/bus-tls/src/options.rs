//! Where the credentials are, and what is demanded of them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use bus_proto::TrustDomain;

use crate::error::TlsError;
use crate::place::FileKind;

/// The environment variable with the path of the certificate file (A8).
pub const CLIENT_CERT_VARIABLE: &str = "RANSOMEYE_TLS_CLIENT_CERT";
/// The environment variable with the path of the private key file (A8).
pub const CLIENT_KEY_VARIABLE: &str = "RANSOMEYE_TLS_CLIENT_KEY";
/// The environment variable with the path of the trust root file (A8).
pub const TRUST_ROOT_VARIABLE: &str = "RANSOMEYE_TRUST_ROOT_CA";
/// The optional environment variable with the path of the revocation list file.
pub const CRL_VARIABLE: &str = "RANSOMEYE_TLS_CRL";
/// The optional environment variable with the expected trust domain.
pub const TRUST_DOMAIN_VARIABLE: &str = "RANSOMEYE_TRUST_DOMAIN";
/// The optional environment variable that says who may read the private key file: `owner-only` (the default) or `shared`.
pub const KEY_PERMISSIONS_VARIABLE: &str = "RANSOMEYE_TLS_KEY_PERMISSIONS";

/// Who may read the private key file, on systems that have permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyPermissions {
    /// Its owner alone: a key that its group or all others may read or write is refused.
    #[default]
    OwnerOnly,
    /// Anybody. For places that keep others out by other means, such as the mount of a Kubernetes secret, which is
    /// readable by all within its container.
    Shared,
}

/// Where the credentials are, and what is demanded of them.
///
/// ```
/// use bus_tls::TlsOptions;
///
/// let options = TlsOptions::new("agent-01.crt", "agent-01.key", "ca.crt").crl("crl.pem");
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct TlsOptions {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) trust_root: PathBuf,
    pub(crate) crl: Option<PathBuf>,
    pub(crate) trust_domain: Option<TrustDomain>,
    pub(crate) key_permissions: KeyPermissions,
}

impl TlsOptions {
    /// The three files that are always needed, all PEM: the certificate (followed by its intermediates, if any), its
    /// private key, and the certificates of the deployment's own authorities.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>, trust_root: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            trust_root: trust_root.into(),
            crl: None,
            trust_domain: None,
            key_permissions: KeyPermissions::default(),
        }
    }

    /// Takes the paths from the environment of the process.
    ///
    /// Needed are [`CLIENT_CERT_VARIABLE`], [`CLIENT_KEY_VARIABLE`] and [`TRUST_ROOT_VARIABLE`]; [`CRL_VARIABLE`],
    /// [`TRUST_DOMAIN_VARIABLE`] and [`KEY_PERMISSIONS_VARIABLE`] are optional.
    ///
    /// # Errors
    ///
    /// [`TlsError::MissingVariable`] when a needed variable is unset or empty,
    /// [`TlsError::BadTrustDomainVariable`] or [`TlsError::BadKeyPermissionsVariable`] when one is malformed.
    pub fn from_env() -> Result<Self, TlsError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// As [`TlsOptions::from_env`], with variables from elsewhere: `lookup` answers with the value of a variable.
    ///
    /// ```
    /// use bus_tls::{TRUST_ROOT_VARIABLE, TlsOptions};
    ///
    /// let error = TlsOptions::from_vars(|name| (name != TRUST_ROOT_VARIABLE).then(|| "file".into())).unwrap_err();
    /// assert!(error.to_string().contains("RANSOMEYE_TRUST_ROOT_CA"));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`TlsOptions::from_env`].
    pub fn from_vars(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, TlsError> {
        let optional = |name| lookup(name).filter(|value| !value.is_empty());
        let needed = |name, kind| optional(name).ok_or(TlsError::MissingVariable { name, kind });
        let mut options = Self::new(
            needed(CLIENT_CERT_VARIABLE, FileKind::Certificate)?,
            needed(CLIENT_KEY_VARIABLE, FileKind::PrivateKey)?,
            needed(TRUST_ROOT_VARIABLE, FileKind::TrustRoot)?,
        );
        options.crl = optional(CRL_VARIABLE).map(PathBuf::from);
        if let Some(value) = optional(TRUST_DOMAIN_VARIABLE) {
            let domain = TrustDomain::new(&value.to_string_lossy())
                .map_err(|reason| TlsError::BadTrustDomainVariable { name: TRUST_DOMAIN_VARIABLE, reason })?;
            options.trust_domain = Some(domain);
        }
        options.key_permissions = match optional(KEY_PERMISSIONS_VARIABLE).as_deref().map(OsStr::to_str) {
            None | Some(Some("owner-only")) => KeyPermissions::OwnerOnly,
            Some(Some("shared")) => KeyPermissions::Shared,
            Some(_) => return Err(TlsError::BadKeyPermissionsVariable { name: KEY_PERMISSIONS_VARIABLE }),
        };
        Ok(options)
    }

    /// Refuses certificates that are revoked by the lists in this file.
    ///
    /// Every certificate of a chain must then be covered by a list that is signed by its issuer and not out of date;
    /// one that is covered by none is refused as well.
    pub fn crl(mut self, path: impl Into<PathBuf>) -> Self {
        self.crl = Some(path.into());
        self
    }

    /// The trust domain that our own certificate and every peer's must belong to.
    ///
    /// Without it, the trust domain is the one that the trust root's certificate names (URI name
    /// `spiffe://<trust-domain>`); if it names none, that of our own certificate.
    pub fn trust_domain(mut self, domain: TrustDomain) -> Self {
        self.trust_domain = Some(domain);
        self
    }

    /// Who may read the private key file. Its owner alone, unless this says otherwise.
    pub fn key_permissions(mut self, permissions: KeyPermissions) -> Self {
        self.key_permissions = permissions;
        self
    }

    /// The path of the certificate file.
    #[must_use]
    pub fn certificate_path(&self) -> &Path {
        &self.certificate
    }

    /// The path of the private key file.
    #[must_use]
    pub fn key_path(&self) -> &Path {
        &self.key
    }

    /// The path of the trust root file.
    #[must_use]
    pub fn trust_root_path(&self) -> &Path {
        &self.trust_root
    }

    /// The path of the revocation list file, if there is one.
    #[must_use]
    pub fn crl_path(&self) -> Option<&Path> {
        self.crl.as_deref()
    }
}
