//! Where a fault is: in which file of ours, or with the peer.

use std::fmt;
use std::path::PathBuf;

/// The part that a file plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// The component's certificate, followed by intermediate certificates if there are any.
    Certificate,
    /// The private key that belongs to the certificate.
    PrivateKey,
    /// The certificates of the deployment's own certificate authorities.
    TrustRoot,
    /// The certificate revocation lists of those authorities.
    Crl,
}

impl FileKind {
    /// The PEM label that such a file must hold, as RFC 7468 writes it.
    pub(crate) const fn pem_label(self) -> &'static str {
        match self {
            Self::Certificate | Self::TrustRoot => "CERTIFICATE",
            Self::PrivateKey => "PRIVATE KEY",
            Self::Crl => "X509 CRL",
        }
    }

    /// The `openssl` subcommand that converts such a file.
    pub(crate) const fn openssl(self) -> &'static str {
        match self {
            Self::Certificate | Self::TrustRoot => "x509",
            Self::PrivateKey => "pkey",
            Self::Crl => "crl",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate file",
            Self::PrivateKey => "private key file",
            Self::TrustRoot => "trust root file",
            Self::Crl => "revocation list file",
        })
    }
}

/// Where a certificate came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A file of ours.
    File(PathBuf),
    /// The other side of a connection, or the sender of a message.
    Peer,
    /// Captured evidence.
    Evidence,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Peer => f.write_str("presented by the peer"),
            Self::Evidence => f.write_str("in the evidence"),
        }
    }
}
