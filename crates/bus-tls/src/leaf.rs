//! Whether a certificate may stand for a component: its chain, and the rules that a chain alone does not enforce.
//!
//! The chain is verified by `rustls-webpki` alone. `x509-parser` reads what the certificate says: the identity, the
//! names, the dates, the key.

use std::fmt;

use aws_lc_rs::digest;
use bus_proto::{Principal, TrustDomain};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, ExpirationPolicy};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::crl::RevocationLists;
use crate::error::TlsError;
use crate::place::Origin;
use crate::roots::Roots;
use crate::x509;

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    /// To connect: extended key usage clientAuth, and no name but the SPIFFE identity.
    Client,
    /// To accept connections: extended key usage serverAuth; host names and addresses may stand beside the identity.
    Server,
}

/// A certificate that has been verified: its chain, dates, usages, revocation and identity.
///
/// Only this crate makes one, so whoever holds one knows that the deployment's authority vouches for the principal.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedLeaf {
    principal: Principal,
    serial: String,
    not_after: i64,
    spki: Box<[u8]>,
    sha256: [u8; digest::SHA256_OUTPUT_LEN],
    chain_not_after: i64,
}

impl VerifiedLeaf {
    /// Whose certificate it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The serial number, in lower-case hexadecimal without separators.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The last second of its validity, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Its public key: the `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7), in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The SHA-256 of the whole certificate, in DER.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The earliest end (`notAfter`) of the certificate and of the intermediates that came with it, in Unix milliseconds.
    ///
    /// All intermediates count, also one that is not on the path to the trust root that was found: the end may be too
    /// early, never too late. The trust root does not count. Certificates count whole seconds, so that the certificate is
    /// good up to 999 ms longer.
    #[must_use]
    pub fn chain_not_after_unix_ms(&self) -> i64 {
        self.chain_not_after.saturating_mul(1000)
    }
}

impl fmt::Debug for VerifiedLeaf {
    /// Without the key, which would fill a screen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, serial, not_after, spki: _, sha256: _, chain_not_after: _ } = self;
        f.debug_struct("VerifiedLeaf")
            .field("principal", principal)
            .field("serial", serial)
            .field("not_after", not_after)
            .finish_non_exhaustive()
    }
}

/// What a certificate is judged by.
pub(crate) struct Judge<'a> {
    pub(crate) algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
    pub(crate) roots: &'a Roots,
    pub(crate) crls: Option<&'a RevocationLists>,
    /// `None` accepts any trust domain that the roots vouch for.
    pub(crate) trust_domain: Option<&'a TrustDomain>,
    pub(crate) now: UnixTime,
    /// Whether a revocation list that is out of date refuses.
    pub(crate) expiration: ExpirationPolicy,
}

impl Judge<'_> {
    /// Checks everything: what can be told from the certificate itself first, because that gives the clearer error.
    pub(crate) fn verify(
        &self,
        origin: &Origin,
        chain: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<VerifiedLeaf, TlsError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            let reason = "there is none".to_owned();
            return Err(TlsError::MalformedCertificate { origin: origin.clone(), reason });
        };
        let certificate = x509::parse(origin, leaf)?;
        let mut chain_not_after = x509::not_after(&certificate);
        for intermediate in intermediates {
            let intermediate = x509::parse(origin, intermediate)?;
            x509::check_signature_hash(origin, &intermediate)?;
            chain_not_after = chain_not_after.min(x509::not_after(&intermediate));
        }
        x509::check_signature_hash(origin, &certificate)?;
        x509::check_key(origin, &certificate)?;
        if certificate.is_ca() {
            return Err(TlsError::CaAsLeaf { origin: origin.clone() });
        }
        x509::check_dates(origin, &certificate, self.now)?;
        check_usages(origin, &certificate, usage)?;
        self.verify_chain(origin, leaf, intermediates, &certificate, usage)?;
        let principal = identity(origin, &certificate, usage)?;
        if let Some(expected) = self.trust_domain {
            check_domain(origin, &principal, expected)?;
        }
        Ok(VerifiedLeaf {
            principal,
            serial: x509::serial(&certificate),
            not_after: x509::not_after(&certificate),
            spki: certificate.public_key().raw.into(),
            sha256: sha256(leaf),
            chain_not_after,
        })
    }

    fn verify_chain(
        &self,
        origin: &Origin,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        certificate: &X509Certificate<'_>,
        usage: Usage,
    ) -> Result<(), TlsError> {
        let usage = match usage {
            Usage::Client => webpki::KeyUsage::client_auth(),
            Usage::Server => webpki::KeyUsage::server_auth(),
        };
        let lists = self.crls.map(RevocationLists::borrowed).unwrap_or_default();
        let revocation = RevocationLists::options(&lists, self.expiration);
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                let anchors = &self.roots.store().roots;
                leaf.verify_for_usage(self.algorithms, anchors, intermediates, self.now, usage, revocation, None)
                    .map(drop)
            })
            .map_err(|error| self.explain(origin, certificate, &error))
    }

    /// The chain's error, in the words of this crate.
    fn explain(&self, origin: &Origin, certificate: &X509Certificate<'_>, error: &webpki::Error) -> TlsError {
        use webpki::Error as E;
        let (origin, trust_root) = (origin.clone(), self.roots.path().to_owned());
        let crl = self.crls.map(|lists| lists.path().to_owned()).unwrap_or_default();
        match error {
            E::UnknownIssuer | E::InvalidSignatureForPublicKey
                if certificate.issuer().as_raw() == certificate.subject().as_raw() =>
            {
                TlsError::SelfSigned { origin, trust_root }
            }
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => TlsError::UnknownIssuer { origin, trust_root },
            E::CertRevoked => TlsError::Revoked { origin, serial: x509::serial(certificate), crl },
            E::CrlExpired { .. } => TlsError::StaleCrl { path: crl },
            E::UnknownRevocationStatus | E::InvalidCrlSignatureForPublicKey | E::IssuerNotCrlSigner => {
                TlsError::ForeignCrl { path: crl }
            }
            other => TlsError::InvalidChain { origin, trust_root, reason: format!("{other:?}") },
        }
    }
}

/// The rules for the certificate of a server that we connect to, after its chain and host name have been verified.
///
/// A server needs no SPIFFE identity, because its host name tells which one it is. If it has one, the rules are those
/// for a server's own certificate, and it is of our domain.
pub(crate) fn check_server(end_entity: &CertificateDer<'_>, trust_domain: &TrustDomain) -> Result<(), TlsError> {
    let origin = &Origin::Peer;
    let certificate = x509::parse(origin, end_entity)?;
    x509::check_key(origin, &certificate)?;
    check_usages(origin, &certificate, Usage::Server)?;
    if !x509::names(origin, &certificate)?.iter().any(|name| spiffe_id(name).is_some()) {
        return Ok(());
    }
    check_domain(origin, &identity(origin, &certificate, Usage::Server)?, trust_domain)
}

fn sha256(bytes: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut output = [0; digest::SHA256_OUTPUT_LEN];
    output.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    output
}

fn check_domain(origin: &Origin, principal: &Principal, expected: &TrustDomain) -> Result<(), TlsError> {
    if principal.trust_domain == *expected {
        return Ok(());
    }
    Err(TlsError::ForeignTrustDomain {
        origin: origin.clone(),
        found: principal.trust_domain.clone(),
        expected: expected.clone(),
    })
}

fn check_usages(origin: &Origin, certificate: &X509Certificate<'_>, usage: Usage) -> Result<(), TlsError> {
    let malformed = |error| x509::malformed(origin, &error);
    // RFC 8446, section 4.4.2.2: the key usage, if there is one, must allow signatures.
    if let Some(key_usage) = certificate.key_usage().map_err(malformed)?
        && !key_usage.value.digital_signature()
    {
        return Err(TlsError::NoDigitalSignature { origin: origin.clone() });
    }
    // Without the extension a certificate may be used for anything (RFC 5280, section 4.2.1.12): too much for us, for
    // then any component could play the server.
    let extended = certificate.extended_key_usage().map_err(malformed)?;
    let allowed = extended.is_some_and(|extension| match usage {
        Usage::Client => extension.value.client_auth,
        Usage::Server => extension.value.server_auth,
    });
    match usage {
        _ if allowed => Ok(()),
        Usage::Client => Err(TlsError::NoClientAuth { origin: origin.clone() }),
        Usage::Server => Err(TlsError::NoServerAuth { origin: origin.clone() }),
    }
}

/// The one SPIFFE identity of a certificate.
///
/// A server may map a certificate to a user by any of its names (nats-server looks at e-mail addresses and host names
/// before URIs), so a client's certificate has no other. A server's needs its host names.
fn identity(origin: &Origin, certificate: &X509Certificate<'_>, usage: Usage) -> Result<Principal, TlsError> {
    let names = x509::names(origin, certificate)?;
    let ids: Vec<&str> = names.iter().filter_map(spiffe_id).collect();
    let id = match ids.as_slice() {
        [] => return Err(TlsError::NoIdentity { origin: origin.clone() }),
        [id] => *id,
        several => return Err(TlsError::SeveralIdentities { origin: origin.clone(), count: several.len() }),
    };
    let principal = id.parse().map_err(|reason| TlsError::MalformedIdentity { origin: origin.clone(), reason })?;
    let extra = names.iter().find(|name| match name {
        GeneralName::DNSName(_) | GeneralName::IPAddress(_) => usage == Usage::Client,
        other => spiffe_id(other).is_none(),
    });
    match extra {
        Some(name) => Err(TlsError::ExtraName { origin: origin.clone(), name: x509::printable_name(name) }),
        None => Ok(principal),
    }
}

/// The text of a name that claims to be a SPIFFE ID. URI schemes ignore case (RFC 3986, section 3.1); whether it has
/// the right form is decided later.
pub(crate) fn spiffe_id<'a>(name: &'a GeneralName<'_>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) if uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")) => Some(uri),
        _ => None,
    }
}
