//! Mutual TLS from the deployment's own certificate authority.
//!
//! From the paths of three files, or the environment variables that name them, to a checked [`TlsIdentity`], and from
//! that to `rustls` configurations: TLS 1.3 only, post-quantum hybrid key exchange preferred, no session resumption,
//! trust in the deployment's own authorities alone, and rotation without a restart.
//!
//! * [`TlsOptions`]: where the files are, and what is demanded of them.
//! * [`TlsIdentity`]: the checked credentials of a component that connects to others; [`TlsIdentity::client_config`].
//! * [`TlsServerIdentity`]: those of a service that accepts connections; [`TlsServerIdentity::server_config`].
//! * [`VerifiedLeaf`]: the proof that a certificate was verified, own or a peer's.
//! * [`OwnCredentials`]: the own certificate in use, which signs with its private key.
//! * [`TlsIdentity::verify_peer`], [`TrustState`]: the certificates of those who send messages through others.
//! * [`OfflineTrust`]: the certificates in captured evidence, as of a time in the past.
//! * [`TlsError`]: what is wrong with a file, and what to do about it.
//! * [`create_tls_config`], [`try_create_tls_config`]: the same from the environment, in one call.
//! * [`CertificateInfo`]: what a certificate says, for people.
//! * `pki` (feature `pki`): a small certificate authority.
//!
//! This crate opens no connection: it depends on neither `tokio` nor a broker's client. It does not decide who may do
//! what; it only establishes who is who. It never asks the operating system's trust store.
//!
//! # Features
//!
//! * `pki`: the module `pki`, for the `bus pki` program and for tests.
#![forbid(unsafe_code)]

mod client;
mod credentials;
mod crl;
mod env;
mod error;
mod files;
mod identity;
mod inspect;
mod leaf;
mod offline;
mod options;
mod own;
mod pem;
#[cfg(feature = "pki")]
pub mod pki;
mod place;
mod refusal;
mod roots;
mod rotation;
mod server;
mod x509;

pub use env::{create_tls_config, try_create_tls_config};
pub use error::TlsError;
pub use identity::{TlsIdentity, TlsServerIdentity};
pub use inspect::CertificateInfo;
pub use leaf::VerifiedLeaf;
pub use offline::OfflineTrust;
pub use options::{
    CLIENT_CERT_VARIABLE, CLIENT_KEY_VARIABLE, CRL_VARIABLE, KEY_PERMISSIONS_VARIABLE, KeyPermissions,
    TRUST_DOMAIN_VARIABLE, TRUST_ROOT_VARIABLE, TlsOptions,
};
pub use own::OwnCredentials;
pub use place::{FileKind, Origin};
pub use rotation::{Refresh, TrustState};
pub use x509::KeyKind;

/// The version of `rustls` whose configurations this crate makes.
pub use rustls;
