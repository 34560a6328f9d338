//! A stand-in for `rustls-native-certs` that finds nothing.
//!
//! Trust in this workspace comes from the deployment's own CA file alone (requirement A3). `async-nats` asks for the
//! operating system's certificates on every connect, even when it is handed a finished configuration, and discards
//! them. This crate answers that call without reading a file, so that the host's trust store can neither widen trust
//! nor, when it is broken, prevent a connection.

use rustls_pki_types::CertificateDer;

/// What a search for certificates found: here always nothing.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CertificateResult {
    /// Always empty.
    pub certs: Vec<CertificateDer<'static>>,
    /// Always empty.
    pub errors: Vec<std::convert::Infallible>,
}

/// Finds no certificates, and reads no file or environment variable on the way.
pub fn load_native_certs() -> CertificateResult {
    CertificateResult::default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_operating_systems_trust_store_is_never_read() {
        let found = super::load_native_certs();
        assert!(found.certs.is_empty());
        assert!(found.errors.is_empty());
    }
}
