//! What flags, environment and `bus.toml` say together, in this order of precedence.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bus_acl::Policy;
use bus_client::{SealingKeys, SecretString};
use bus_crypto::zeroize::Zeroizing;
use bus_proto::{Endpoint, SubjectRoot, TrustDomain};
use bus_tls::{
    CLIENT_CERT_VARIABLE, CLIENT_KEY_VARIABLE, CRL_VARIABLE, KEY_PERMISSIONS_VARIABLE, KeyPermissions,
    TRUST_DOMAIN_VARIABLE, TRUST_ROOT_VARIABLE, TlsOptions,
};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::exit::Failure;
use crate::server::ServerFlags;

const CONFIG_VARIABLE: &str = "BUS_CONFIG";
const URL_VARIABLE: &str = "RANSOMEYE_BUS_URL";
const POLICY_VARIABLE: &str = "RANSOMEYE_BUS_POLICY";
const ROOT_VARIABLE: &str = "RANSOMEYE_BUS_ROOT";
const SEALING_KEYS_VARIABLE: &str = "RANSOMEYE_SEALING_KEYS";
const SEAL_VARIABLE: &str = "RANSOMEYE_BUS_SEAL";

/// The passphrase that the sealing keys file is under. In the environment alone: arguments can be seen by others, and a
/// passphrase in a file beside what it protects is none.
pub(crate) const SEALING_PASSPHRASE_VARIABLE: &str = "RANSOMEYE_SEALING_PASSPHRASE";

const DEFAULT_FILE: &str = "bus.toml";
const DEFAULT_URL: &str = "tls://127.0.0.1:4222";

/// The directory that `bus pki` uses unless told otherwise.
pub(crate) const DEFAULT_PKI: &str = "pki";

/// Who may read the private key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyAccess {
    /// Its owner alone
    OwnerOnly,
    /// Anybody, as in the mount of a Kubernetes secret
    Shared,
}

/// Whether directed messages are sealed, where the policy leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Seal {
    /// To their destination
    On,
    /// Whoever hosts the broker can read them
    Off,
}

/// What one place says: the flags, the environment, or the file. Nothing is checked yet.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Connection (flags, then environment, then bus.toml)")]
pub(crate) struct Layer {
    /// Addresses of the bus, separated by commas [env: RANSOMEYE_BUS_URL] [default: tls://127.0.0.1:4222]
    #[arg(long)]
    pub(crate) url: Option<String>,

    /// Be this component: stands for --cert, --key and --ca as `bus pki` lays them out
    #[arg(long = "as", value_name = "ROLE/COMPONENT", conflicts_with_all = ["cert", "key"])]
    #[serde(rename = "as")]
    pub(crate) identity: Option<String>,

    /// The directory of `bus pki` that --as looks in [default: pki]
    #[arg(long, value_name = "DIR")]
    pub(crate) pki: Option<PathBuf>,

    /// Certificate of this component, PEM [env: RANSOMEYE_TLS_CLIENT_CERT]
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// Private key of the certificate, PEM [env: RANSOMEYE_TLS_CLIENT_KEY]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Certificate of the deployment's CA, PEM [env: RANSOMEYE_TRUST_ROOT_CA]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Revocation list that the server's certificate must not be on, PEM [env: RANSOMEYE_TLS_CRL]
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,

    /// Who may read the private key file [env: RANSOMEYE_TLS_KEY_PERMISSIONS] [default: owner-only]
    #[arg(long, value_name = "WHO")]
    pub(crate) key_permissions: Option<KeyAccess>,

    /// Trust domain that every certificate must belong to [env: RANSOMEYE_TRUST_DOMAIN] [default: the CA's]
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: Option<String>,

    /// File of this component's sealing keys, which its processes share [env: RANSOMEYE_SEALING_KEYS] [default: beside
    /// the private key, with the extension `sealing`]
    #[arg(long, value_name = "PATH")]
    pub(crate) sealing_keys: Option<PathBuf>,

    /// Whether directed messages are sealed where the policy leaves it open [env: RANSOMEYE_BUS_SEAL] [default: on]
    #[arg(long, value_name = "WHETHER")]
    pub(crate) seal: Option<Seal>,

    /// Policy to keep, TOML; the one that the server was configured from [env: RANSOMEYE_BUS_POLICY] [default: the
    /// built-in one]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// Root of all subjects [env: RANSOMEYE_BUS_ROOT] [default: ransomeye]
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) root: Option<String>,

    /// What `bus server` is told; only in the file.
    #[arg(skip)]
    pub(crate) server: ServerFlags,
}

/// The flags of commands that know the policy but do not connect.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RulesFlags {
    /// Policy, TOML [env: RANSOMEYE_BUS_POLICY] [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Trust domain of the deployment [env: RANSOMEYE_TRUST_DOMAIN]
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,

    /// Root of all subjects [env: RANSOMEYE_BUS_ROOT] [default: ransomeye]
    #[arg(long, value_name = "SUBJECT")]
    root: Option<String>,
}

/// The flags of commands that judge evidence and neither connect nor have an identity.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Trust (flags, then environment, then bus.toml)")]
pub(crate) struct TrustFlags {
    /// Certificate of the deployment's CA, PEM [env: RANSOMEYE_TRUST_ROOT_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Revocation list of the CA, PEM [env: RANSOMEYE_TLS_CRL] [default: revocation is not checked]
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,

    /// Trust domain that the signer must belong to [env: RANSOMEYE_TRUST_DOMAIN] [default: the CA's]
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,

    /// Root of all subjects [env: RANSOMEYE_BUS_ROOT] [default: ransomeye]
    #[arg(long, value_name = "SUBJECT")]
    root: Option<String>,
}

impl From<TrustFlags> for Layer {
    fn from(flags: TrustFlags) -> Self {
        let TrustFlags { ca, crl, trust_domain, root } = flags;
        Self { ca, crl, trust_domain, root, ..Self::default() }
    }
}

impl From<RulesFlags> for Layer {
    fn from(flags: RulesFlags) -> Self {
        let RulesFlags { policy, trust_domain, root } = flags;
        Self { policy, trust_domain, root, ..Self::default() }
    }
}

impl Layer {
    fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let path = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name| -> anyhow::Result<Option<String>> {
            let value = lookup(name).filter(|value| !value.is_empty()).map(OsString::into_string).transpose();
            value.map_err(|_| Failure::usage(format!("environment variable {name} is not UTF-8")))
        };
        Ok(Self {
            url: text(URL_VARIABLE)?,
            cert: path(CLIENT_CERT_VARIABLE),
            key: path(CLIENT_KEY_VARIABLE),
            ca: path(TRUST_ROOT_VARIABLE),
            crl: path(CRL_VARIABLE),
            key_permissions: text(KEY_PERMISSIONS_VARIABLE)?.map(|value| key_access(&value)).transpose()?,
            trust_domain: text(TRUST_DOMAIN_VARIABLE)?,
            sealing_keys: path(SEALING_KEYS_VARIABLE),
            seal: text(SEAL_VARIABLE)?.map(|value| seal(&value)).transpose()?,
            policy: path(POLICY_VARIABLE),
            root: text(ROOT_VARIABLE)?,
            ..Self::default()
        })
    }

    /// Reads the file. Relative paths in it are relative to its own directory.
    fn from_file(path: &Path) -> anyhow::Result<Self> {
        let unreadable = |error| Failure::usage(format!("settings `{}` cannot be read: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut layer: Self =
            toml::from_str(&text).map_err(|error| Failure::usage(format!("settings `{}`: {error}", path.display())))?;
        let base = path.parent().unwrap_or(Path::new(""));
        if layer.identity.is_some() && layer.pki.is_none() {
            // The default is relative to the file as well.
            layer.pki = Some(DEFAULT_PKI.into());
        }
        let Self { pki, cert, key, ca, crl, sealing_keys, policy, server, .. } = &mut layer;
        for relative in [pki, cert, key, ca, crl, sealing_keys, policy].into_iter().chain(server.paths()).flatten() {
            *relative = base.join(&*relative);
        }
        Ok(layer)
    }

    /// Checks what was said, so that an error names its place.
    fn check(self, place: &str) -> anyhow::Result<Settings> {
        let wrong = |key: &str, error: &dyn std::fmt::Display| Failure::usage(format!("{place}, {key}: {error}"));
        if self.identity.is_some() && (self.cert.is_some() || self.key.is_some()) {
            return Err(wrong("as", &"it stands for cert and key, so leave those out"));
        }
        let mut settings = Settings {
            url: self.url,
            identity: None,
            pki: self.pki,
            cert: self.cert,
            key: self.key,
            ca: self.ca,
            crl: self.crl,
            key_permissions: self.key_permissions,
            sealing_keys: self.sealing_keys,
            seal: self.seal,
            policy: self.policy,
            trust_domain: None,
            root: None,
            server: self.server,
        };
        if let Some(domain) = &self.trust_domain {
            settings.trust_domain = Some(TrustDomain::new(domain).map_err(|error| wrong("trust domain", &error))?);
        }
        if let Some(root) = &self.root {
            settings.root = Some(SubjectRoot::new(root).map_err(|error| wrong("root", &error))?);
        }
        if let Some(component) = &self.identity {
            settings.identity = Some(component.parse().map_err(|error| wrong("as", &error))?);
        }
        Ok(settings)
    }
}

/// The passphrase that the own sealing keys file is under, or is to be put under.
pub(crate) fn sealing_passphrase() -> anyhow::Result<Option<SecretString>> {
    let Some(value) = std::env::var_os(SEALING_PASSPHRASE_VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = value.into_string().map(Zeroizing::new);
    let text = text.map_err(|_| Failure::usage(format!("{SEALING_PASSPHRASE_VARIABLE} is not UTF-8")))?;
    Ok(Some(SecretString::from(text.as_str())))
}

fn seal(text: &str) -> anyhow::Result<Seal> {
    Seal::from_str(text, false)
        .map_err(|_| Failure::usage(format!("environment, {SEAL_VARIABLE}: it must be on or off")))
}

fn key_access(text: &str) -> anyhow::Result<KeyAccess> {
    KeyAccess::from_str(text, false).map_err(|_| {
        Failure::usage(format!("environment, {KEY_PERMISSIONS_VARIABLE}: it must be owner-only or shared"))
    })
}

/// Where `bus pki issue` puts the certificate and the key of a component.
pub(crate) fn files_of(pki: &Path, component: &Endpoint) -> [PathBuf; 2] {
    let folder = pki.join(component.role.as_str());
    ["crt", "key"].map(|kind| folder.join(format!("{}.{kind}", component.component)))
}

/// The settings in force.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    url: Option<String>,
    /// Stands for the files that are not named.
    identity: Option<Endpoint>,
    pki: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    key_permissions: Option<KeyAccess>,
    sealing_keys: Option<PathBuf>,
    seal: Option<Seal>,
    policy: Option<PathBuf>,
    pub(crate) trust_domain: Option<TrustDomain>,
    root: Option<SubjectRoot>,
    /// What the file says for `bus server`.
    pub(crate) server: ServerFlags,
}

impl Settings {
    /// Puts the flags before the environment, and that before the file: `config`, else the one that `BUS_CONFIG` names,
    /// else `bus.toml` in the current directory if there is one.
    pub(crate) fn load(config: Option<PathBuf>, flags: impl Into<Layer>) -> anyhow::Result<Self> {
        let named =
            config.or_else(|| std::env::var_os(CONFIG_VARIABLE).filter(|name| !name.is_empty()).map(Into::into));
        let file = named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
        let environment = Layer::from_env(|name| std::env::var_os(name))?.check("environment")?;
        let settings = flags.into().check("command line")?.or(environment);
        match file {
            Some(path) => Ok(settings.or(Layer::from_file(&path)?.check(&path.display().to_string())?)),
            None => Ok(settings),
        }
    }

    /// These settings, and where they say nothing, the lower ones. A component stands for its files, so that lower ones
    /// do not say what these are.
    fn or(self, lower: Self) -> Self {
        let lower = match &self.identity {
            Some(_) => Self { cert: None, key: None, ca: None, ..lower },
            None => lower,
        };
        Self {
            url: self.url.or(lower.url),
            identity: self.identity.or(lower.identity),
            pki: self.pki.or(lower.pki),
            cert: self.cert.or(lower.cert),
            key: self.key.or(lower.key),
            ca: self.ca.or(lower.ca),
            crl: self.crl.or(lower.crl),
            key_permissions: self.key_permissions.or(lower.key_permissions),
            sealing_keys: self.sealing_keys.or(lower.sealing_keys),
            seal: self.seal.or(lower.seal),
            policy: self.policy.or(lower.policy),
            trust_domain: self.trust_domain.or(lower.trust_domain),
            root: self.root.or(lower.root),
            server: self.server.or(lower.server),
        }
    }

    /// The addresses of the bus, at least one.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &str> {
        self.url.as_deref().unwrap_or(DEFAULT_URL).split(',').map(str::trim)
    }

    /// The certificate of the CA, named or next to the component's own.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.ca.clone().or_else(|| self.identity.as_ref().map(|_| self.pki().join("ca.crt")))
    }

    /// The revocation list.
    pub(crate) fn crl(&self) -> Option<&Path> {
        self.crl.as_deref()
    }

    fn pki(&self) -> &Path {
        self.pki.as_deref().unwrap_or(Path::new(DEFAULT_PKI))
    }

    /// Where the credentials are.
    pub(crate) fn tls_options(&self) -> anyhow::Result<TlsOptions> {
        let needed = |path: Option<PathBuf>, what: &str, flag: &str, variable: &str| {
            path.ok_or_else(|| {
                Failure::credentials(format!(
                    "no {what}: give --as ROLE/COMPONENT, --{flag} FILE, {variable}, or `{flag}` in bus.toml"
                ))
            })
        };
        let own = self.identity.as_ref().map(|component| files_of(self.pki(), component));
        let (own_cert, own_key) = own.map(|[cert, key]| (cert, key)).unzip();
        let mut options = TlsOptions::new(
            needed(self.cert.clone().or(own_cert), "certificate", "cert", CLIENT_CERT_VARIABLE)?,
            needed(self.key.clone().or(own_key), "private key", "key", CLIENT_KEY_VARIABLE)?,
            needed(self.ca(), "CA certificate", "ca", TRUST_ROOT_VARIABLE)?,
        );
        if let Some(crl) = &self.crl {
            options = options.crl(crl);
        }
        if let Some(domain) = &self.trust_domain {
            options = options.trust_domain(domain.clone());
        }
        Ok(options.key_permissions(self.key_permissions()))
    }

    /// Who may read private key files.
    pub(crate) fn key_permissions(&self) -> KeyPermissions {
        match self.key_permissions {
            Some(KeyAccess::Shared) => KeyPermissions::Shared,
            Some(KeyAccess::OwnerOnly) | None => KeyPermissions::OwnerOnly,
        }
    }

    /// The file of the own sealing keys, beside the private key unless it is named.
    pub(crate) fn sealing_keys(&self, tls: &TlsOptions) -> PathBuf {
        self.sealing_keys.clone().unwrap_or_else(|| SealingKeys::default_path(tls.key_path()))
    }

    /// Whether directed messages are sealed where the policy leaves it open.
    pub(crate) fn seals(&self) -> bool {
        self.seal != Some(Seal::Off)
    }

    /// The policy, read anew on each call.
    pub(crate) fn policy(&self) -> anyhow::Result<Policy> {
        let Some(path) = &self.policy else { return Ok(Policy::default()) };
        let unreadable = |error| Failure::usage(format!("policy `{}` cannot be read: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Policy::from_toml(&text).with_context(|| format!("policy `{}`", path.display()))
    }

    /// The root of all subjects.
    pub(crate) fn root(&self) -> SubjectRoot {
        self.root.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> anyhow::Result<Settings> {
        let layer: Layer = toml::from_str(text)?;
        layer.check("bus.toml")
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let flags = Layer { url: Some("tls://flag:1".into()), ..Layer::default() }.check("flags").unwrap();
        let env = |name: &str| match name {
            URL_VARIABLE => Some("tls://env:1".into()),
            CLIENT_CERT_VARIABLE => Some("env.crt".into()),
            TRUST_ROOT_VARIABLE => Some("".into()),
            _ => None,
        };
        let environment = Layer::from_env(env).unwrap().check("environment").unwrap();
        let file = file("url = 'tls://file:1'\ncert = 'file.crt'\nkey = 'file.key'\nca = 'file-ca.crt'").unwrap();
        let settings = flags.or(environment).or(file);
        assert_eq!(settings.servers().collect::<Vec<_>>(), ["tls://flag:1"]);
        let options = settings.tls_options().unwrap();
        assert_eq!(options.certificate_path(), Path::new("env.crt"));
        assert_eq!(options.key_path(), Path::new("file.key"));
        assert_eq!(options.trust_root_path(), Path::new("file-ca.crt"), "an empty variable says nothing");
    }

    #[test]
    fn a_component_stands_for_its_files() {
        let settings = file("as = 'agent/a1'\npki = 'x'").unwrap();
        let options = settings.tls_options().unwrap();
        assert_eq!(options.certificate_path(), Path::new("x/agent/a1.crt"));
        assert_eq!(options.key_path(), Path::new("x/agent/a1.key"));
        assert_eq!(options.trust_root_path(), Path::new("x/ca.crt"));
        assert!(file("as = 'agent/a1'\ncert = 'x'").unwrap_err().to_string().contains("leave those out"));
    }

    #[test]
    fn a_component_and_its_directory_may_be_said_in_different_places() {
        let flag = |arguments: Layer| arguments.check("flags").unwrap();
        let a2 = Layer { identity: Some("agent/a2".into()), ..Layer::default() };
        let settings = flag(a2).or(file("as = 'agent/a1'\npki = 'x'").unwrap());
        assert_eq!(settings.tls_options().unwrap().key_path(), Path::new("x/agent/a2.key"));
        assert_eq!(settings.ca().unwrap(), Path::new("x/ca.crt"));

        let elsewhere = Layer { pki: Some("y".into()), ..Layer::default() };
        let settings = flag(elsewhere).or(file("as = 'agent/a1'").unwrap());
        assert_eq!(settings.tls_options().unwrap().certificate_path(), Path::new("y/agent/a1.crt"));
        assert_eq!(settings.ca().unwrap(), Path::new("y/ca.crt"));
    }

    #[test]
    fn a_component_and_files_follow_the_same_precedence() {
        let files = "cert = 'file.crt'\nkey = 'file.key'\nca = 'file-ca.crt'";
        let named = Layer { identity: Some("agent/a1".into()), ..Layer::default() }.check("flags").unwrap();
        let options = named.or(file(files).unwrap()).tls_options().unwrap();
        assert_eq!(options.certificate_path(), Path::new("pki/agent/a1.crt"));
        assert_eq!(options.trust_root_path(), Path::new("pki/ca.crt"));

        let (cert, key) = (Some("flag.crt".into()), Some("flag.key".into()));
        let flags = Layer { cert, key, ..Layer::default() }.check("flags").unwrap();
        let options = flags.or(file("as = 'agent/a1'").unwrap()).tls_options().unwrap();
        assert_eq!(options.key_path(), Path::new("flag.key"));
        assert_eq!(options.trust_root_path(), Path::new("pki/ca.crt"));
    }

    #[test]
    fn the_environment_says_who_may_read_the_key() {
        let layer =
            |value: &'static str| Layer::from_env(move |name| (name == KEY_PERMISSIONS_VARIABLE).then(|| value.into()));
        assert_eq!(layer("shared").unwrap().key_permissions, Some(KeyAccess::Shared));
        assert_eq!(layer("owner-only").unwrap().key_permissions, Some(KeyAccess::OwnerOnly));
        assert_eq!(layer("").unwrap().key_permissions, None);
        let error = layer("all").unwrap_err().to_string();
        assert!(error.contains(KEY_PERMISSIONS_VARIABLE) && error.contains("shared"), "{error}");
    }

    #[test]
    fn the_sealing_keys_are_beside_the_private_key_unless_they_are_named() {
        let path = |settings: Settings| settings.sealing_keys(&settings.tls_options().unwrap());
        assert_eq!(path(file("as = 'agent/a1'\npki = 'x'").unwrap()), Path::new("x/agent/a1.sealing"));
        let named = "as = 'agent/a1'\nsealing_keys = 'file.sealing'";
        assert_eq!(path(file(named).unwrap()), Path::new("file.sealing"));
        let env = |name: &str| (name == SEALING_KEYS_VARIABLE).then(|| "env.sealing".into());
        let environment = Layer::from_env(env).unwrap().check("environment").unwrap();
        assert_eq!(path(environment.or(file(named).unwrap())), Path::new("env.sealing"));
        let flags = Layer { sealing_keys: Some("flag.sealing".into()), ..Layer::default() }.check("flags").unwrap();
        assert_eq!(path(flags.or(file(named).unwrap())), Path::new("flag.sealing"));
    }

    #[test]
    fn an_unknown_key_or_a_malformed_value_is_named() {
        assert!(file("urll = 'x'").unwrap_err().to_string().contains("urll"));
        let error = file("trust_domain = 'Ä'").unwrap_err().to_string();
        assert!(error.starts_with("bus.toml, trust domain: "), "{error}");
        assert!(file("[server]\nports = 1").unwrap_err().to_string().contains("ports"));
    }
}
