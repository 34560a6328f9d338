//! What flags, environment and `bus.toml` say together, in this order of precedence.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bus_acl::Policy;
use bus_proto::{Endpoint, SubjectRoot, TrustDomain};
use bus_tls::{
    CLIENT_CERT_VARIABLE, CLIENT_KEY_VARIABLE, CRL_VARIABLE, KeyPermissions, TRUST_DOMAIN_VARIABLE,
    TRUST_ROOT_VARIABLE, TlsOptions,
};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::exit::Failure;
use crate::server::ServerLayer;

/// The environment variable with the path of the settings file.
pub(crate) const CONFIG_VARIABLE: &str = "BUS_CONFIG";
/// The environment variable with the address of the bus.
pub(crate) const URL_VARIABLE: &str = "RANSOMEYE_BUS_URL";
/// The environment variable with the path of the policy.
pub(crate) const POLICY_VARIABLE: &str = "RANSOMEYE_BUS_POLICY";
/// The environment variable with the root of the subjects.
pub(crate) const ROOT_VARIABLE: &str = "RANSOMEYE_BUS_ROOT";

const DEFAULT_FILE: &str = "bus.toml";
const DEFAULT_URL: &str = "tls://127.0.0.1:4222";
/// The directory that `bus pki` uses unless told otherwise.
pub(crate) const DEFAULT_PKI: &str = "pki";

/// Who may read the private key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyAccess {
    /// Its owner alone.
    OwnerOnly,
    /// Anybody, as in the mount of a Kubernetes secret.
    Shared,
}

/// What one place says: the flags, the environment, or the file. The same names everywhere.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Connection (flags, then environment, then bus.toml)")]
pub(crate) struct Layer {
    /// Address of the bus: tls://HOST:PORT, several separated by commas [env: RANSOMEYE_BUS_URL] [default:
    /// tls://127.0.0.1:4222]
    #[arg(long)]
    pub(crate) url: Option<String>,

    /// Certificate of this component, PEM [env: RANSOMEYE_TLS_CLIENT_CERT]
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// Private key of the certificate, PEM [env: RANSOMEYE_TLS_CLIENT_KEY]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Certificate of the deployment's CA, PEM [env: RANSOMEYE_TRUST_ROOT_CA]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Be this component: stands for --cert, --key and --ca in the directory of `bus pki`
    #[arg(long = "as", value_name = "ROLE/COMPONENT", conflicts_with_all = ["cert", "key"])]
    #[serde(rename = "as")]
    pub(crate) component: Option<String>,

    /// Directory of `bus pki` that --as looks in [default: pki]
    #[arg(long, value_name = "DIR")]
    pub(crate) pki: Option<PathBuf>,

    /// Revocation list to check the server against, PEM [env: RANSOMEYE_TLS_CRL]
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,

    /// Who may read the private key file [default: owner-only]
    #[arg(long, value_name = "WHO")]
    pub(crate) key_permissions: Option<KeyAccess>,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) rules: RulesLayer,
}
