//! Our reasons for refusing a peer, as `rustls` errors: they choose the alert that the peer gets to see.

use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::error::TlsError;

/// The alert tells the peer the class of the fault; our own side keeps the whole reason where `rustls` has no word for it.
pub(crate) fn to_rustls(error: TlsError) -> rustls::Error {
    rustls::Error::InvalidCertificate(match error {
        TlsError::Expired { .. } => CertificateError::Expired,
        TlsError::NotYetValid { .. } => CertificateError::NotValidYet,
        TlsError::Revoked { .. } => CertificateError::Revoked,
        TlsError::UnknownIssuer { .. } | TlsError::SelfSigned { .. } => CertificateError::UnknownIssuer,
        TlsError::MalformedCertificate { .. } => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

/// TLS 1.2 is never negotiated, so nothing asks; if something did, it would be refused.
pub(crate) fn tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not accepted".to_owned())
}
