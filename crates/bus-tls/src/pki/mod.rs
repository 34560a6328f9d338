//! A small certificate authority: it makes the deployment's CA, the components' certificates and the revocation list.
//!
//! An [`Authority`] is a directory:
//!
//! | file | holds |
//! |---|---|
//! | `ca.crt` | the authority's certificate, which everybody gets as the trust root |
//! | `ca.key` | its private key, readable by its owner alone |
//! | `crl.pem` | the current revocation list |
//! | `record.tsv` | what was issued and revoked, one line each, only ever appended to; readable by its owner alone |
//!
//! All four belong into its backup.
//!
//! It serves deployments that have no other authority, and tests. It keeps its key in a file, answers no network
//! requests, and its revocation list has to be brought to those who check it.
//!
//! ```
//! use bus_proto::TrustDomain;
//! use bus_tls::pki::{Authority, CaOptions, Profile};
//! use bus_tls::{TlsIdentity, TlsOptions};
//!
//! let dir = tempfile::tempdir()?;
//! let authority = Authority::create(dir.path().join("pki"), TrustDomain::new("ransomeye.local")?, &CaOptions::default())?;
//!
//! let agent = Profile::component("agent".parse()?, "agent-linux-01".parse()?)?;
//! let (_, files) = authority.issue_to(dir.path(), &agent, false)?;
//!
//! let identity = TlsIdentity::load(TlsOptions::new(files.certificate, files.key, authority.ca_path()))?;
//! assert_eq!(identity.principal().to_string(), "spiffe://ransomeye.local/agent/agent-linux-01");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authority;
mod error;
mod issue;
mod issued;
mod list;
mod profile;
mod record;
mod write;

pub use authority::{Authority, CaOptions, DEFAULT_CRL_LIFETIME};
pub use error::PkiError;
pub use issued::{Issued, IssuedFiles};
pub use profile::{DEFAULT_LIFETIME, KeyAlgorithm, Profile};
pub use record::Entry;

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| PkiError::Crypto { reason: "no randomness".to_owned() })?;
    Ok(bytes)
}
