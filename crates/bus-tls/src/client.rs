//! The `rustls` configuration for connecting to others.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::crl::RevocationLists;
use crate::error::TlsError;
use crate::refusal;
use crate::roots::Roots;
use crate::rotation::Shared;

/// TLS 1.3 only, no resumption (a resumed session would keep the certificates of the first), no key log.
pub(crate) fn config(shared: &Arc<Shared>) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(shared.provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Provider { reason: error.to_string() })?
        // Not a weaker verifier: it delegates to `WebPkiServerVerifier` and then demands more.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier(Arc::clone(shared))))
        .with_client_cert_resolver(Arc::new(Resolver(Arc::clone(shared))));
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What verifies a server's chain and host name.
pub(crate) fn verifier(
    roots: &Roots,
    crls: Option<&RevocationLists>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    // Revocation is checked along the whole chain, and an unknown status is refused: rustls' defaults.
    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots.store()), Arc::clone(provider))
        .with_crls(crls.into_iter().flat_map(RevocationLists::der))
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| TlsError::Provider { reason: error.to_string() })
}

/// Presents the newest good certificate.
#[derive(Debug)]
struct Resolver(Arc<Shared>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // TLS 1.3 asks for our certificate before it shows the server's: this comes before `Verifier`.
        Some(Arc::clone(&self.0.newest().own.certified_key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies servers against the newest good trust root and revocation lists.
#[derive(Debug)]
struct Verifier(Arc<Shared>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Looks for changed files as well, because a server need not have asked for our certificate.
        let credentials = self.0.newest();
        let verified = credentials.server_verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        credentials.check_server(end_entity).map_err(refusal::to_rustls)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refusal::tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.provider().signature_verification_algorithms.supported_schemes()
    }
}
