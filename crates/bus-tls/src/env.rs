//! The configuration that the environment names (A8, A9).

use std::sync::Arc;

use rustls::ClientConfig;

use crate::error::TlsError;
use crate::identity::TlsIdentity;
use crate::options::TlsOptions;

/// The client configuration from the paths in the environment (A9): [`TlsOptions::from_env`], checked.
///
/// It fails closed, and is meant for programs that cannot do anything useful without credentials. Others take
/// [`try_create_tls_config`].
///
/// # Panics
///
/// When anything is wrong with the credentials, with a message that begins
/// `Security Fatal: Invalid mTLS Configuration` and goes on with the [`TlsError`].
#[must_use]
pub fn create_tls_config() -> ClientConfig {
    match try_create_tls_config() {
        Ok(config) => config,
        #[expect(clippy::panic, reason = "A9: without valid credentials the program must not go on")]
        Err(error) => panic!("Security Fatal: Invalid mTLS Configuration: {error}"),
    }
}

/// As [`create_tls_config`], but returns the error.
///
/// ```no_run
/// let config = bus_tls::try_create_tls_config()?;
/// # let _ = config;
/// # Ok::<(), bus_tls::TlsError>(())
/// ```
///
/// # Errors
///
/// A [`TlsError`] that says which variable or file is wrong, how, and what to do.
pub fn try_create_tls_config() -> Result<ClientConfig, TlsError> {
    let identity = TlsIdentity::load(TlsOptions::from_env()?)?;
    Ok(Arc::unwrap_or_clone(identity.client_config()))
}
