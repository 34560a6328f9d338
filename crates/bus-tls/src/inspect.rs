//! What a certificate says, for people.

use std::path::Path;

use bus_proto::Principal;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::certificate::X509Certificate;

use crate::error::TlsError;
use crate::place::{FileKind, Origin};
use crate::x509::{self, KeyKind};
use crate::{files, leaf, pem};

/// What a certificate says. Nothing in it has been verified: it is for display, never for decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The subject's distinguished name, escaped.
    pub subject: String,
    /// The issuer's distinguished name, escaped.
    pub issuer: String,
    /// The principal, when the certificate has exactly one well-formed SPIFFE identity of a component.
    pub principal: Option<Principal>,
    /// All subject alternative names, each with its kind and escaped, e.g. `DNS:localhost`.
    pub names: Vec<String>,
    /// The first second of its validity, in seconds since 1970-01-01 UTC.
    pub not_before: i64,
    /// The last second of its validity, in seconds since 1970-01-01 UTC.
    pub not_after: i64,
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial: String,
    /// The kind of its public key.
    pub key: KeyKind,
    /// The extended key usages, e.g. `clientAuth`; others by object identifier.
    pub usages: Vec<String>,
    /// Whether it is the certificate of a certificate authority.
    pub is_ca: bool,
    /// The SHA-256 digest of the certificate, in lower-case hexadecimal.
    pub fingerprint: String,
    /// The SHA-256 digest of its public key (the `SubjectPublicKeyInfo` of RFC 5280), in lower-case hexadecimal. This is what
    /// pins a key: nats-server's `pinned_certs`, for one.
    pub key_fingerprint: String,
}

impl CertificateInfo {
    /// Reads the certificates in a PEM file, in their order there; at least one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or does not hold well-formed certificates.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Self>, TlsError> {
        let path = path.as_ref();
        let contents = files::read(path, FileKind::Certificate)?;
        let origin = Origin::File(path.into());
        pem::certificates(path, FileKind::Certificate, &contents.bytes)?
            .iter()
            .map(|der| Self::parse(&origin, der))
            .collect()
    }

    /// Reads one certificate in DER form, as a peer presents it.
    ///
    /// # Errors
    ///
    /// [`TlsError::MalformedCertificate`] when it is not well-formed.
    pub fn from_der(der: &[u8]) -> Result<Self, TlsError> {
        Self::parse(&Origin::Peer, der)
    }

    fn parse(origin: &Origin, der: &[u8]) -> Result<Self, TlsError> {
        let certificate = x509::parse(origin, der)?;
        let names = x509::names(origin, &certificate)?;
        let ids: Vec<&str> = names.iter().filter_map(leaf::spiffe_id).collect();
        let principal = match ids.as_slice() {
            [id] => id.parse().ok(),
            _ => None,
        };
        Ok(Self {
            subject: x509::printable(&certificate.subject().to_string()),
            issuer: x509::printable(&certificate.issuer().to_string()),
            principal,
            names: names.iter().map(x509::printable_name).collect(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            serial: x509::serial(&certificate),
            key: x509::key_kind(origin, &certificate)?,
            usages: usages(origin, &certificate)?,
            is_ca: certificate.is_ca(),
            fingerprint: sha256(der),
            key_fingerprint: sha256(certificate.public_key().raw),
        })
    }
}

fn usages(origin: &Origin, certificate: &X509Certificate<'_>) -> Result<Vec<String>, TlsError> {
    let extension = certificate.extended_key_usage().map_err(|error| x509::malformed(origin, &error))?;
    let Some(usage) = extension.map(|extension| extension.value) else {
        return Ok(Vec::new());
    };
    let known = [
        (usage.any, "any"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let known = known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
    Ok(known.chain(usage.other.iter().map(ToString::to_string)).collect())
}

/// The digest of the cipher suite's hash, which is SHA-256: the crypto provider offers no other way to it.
fn sha256(bytes: &[u8]) -> String {
    match TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => x509::hex(suite.common.hash_provider.hash(bytes).as_ref()),
        #[allow(unreachable_patterns, reason = "rustls has a second variant when another crate turns TLS 1.2 on")]
        _ => String::new(),
    }
}
