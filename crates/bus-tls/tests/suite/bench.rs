//! Credentials that can be made wrong in any way, and the checks on refusals.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bus_tls::{TlsError, TlsIdentity, TlsOptions};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams,
    SanType, SerialNumber,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime, Time};

pub const AGENT: &str = "spiffe://ransomeye.test/agent/agent-01";

/// A certificate authority without any rules of its own.
pub struct Ca {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub certificate: Certificate,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::with(name, KeyPair::generate().unwrap(), |_| {})
    }

    pub fn with(name: &str, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri("spiffe://ransomeye.test")];
        valid_from_to(&mut params, -1, 365);
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self { params, key, certificate }
    }

    pub fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    pub fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Certificate {
        params.signed_by(key, &self.issuer()).unwrap()
    }

    /// An authority below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let mut below = Self::new(name);
        below.certificate = self.sign(&below.params, &below.key);
        below
    }

    pub fn crl(&self, revoked: &[u64], valid_days: i64) -> String {
        self.numbered_crl(1, revoked, valid_days)
    }

    pub fn numbered_crl(&self, number: u64, revoked: &[u64], valid_days: i64) -> String {
        let now = OffsetDateTime::now_utc();
        let entries = revoked.iter().map(|serial| revoked_at(*serial, now)).collect();
        self.crl_of(number, entries, valid_days)
    }

    pub fn crl_of(&self, number: u64, revoked: Vec<RevokedCertParams>, valid_days: i64) -> String {
        let now = OffsetDateTime::now_utc();
        CertificateRevocationListParams {
            this_update: now.replace_time(Time::MIDNIGHT) - Duration::days(30),
            next_update: now + Duration::days(valid_days),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer())
        .unwrap()
        .pem()
        .unwrap()
    }
}

pub fn revoked_at(serial: u64, at: OffsetDateTime) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: at,
        reason_code: None,
        invalidity_date: None,
    }
}

pub fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

pub fn valid_from_to(params: &mut CertificateParams, first_day: i64, last_day: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::days(first_day);
    params.not_after = now + Duration::days(last_day);
}

/// What a good certificate of a component says.
pub fn component(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("component");
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(7));
    valid_from_to(&mut params, -1, 30);
    params
}

/// What a good certificate of a server says.
pub fn server(id: &str) -> CertificateParams {
    let mut params = component(id);
    params.subject_alt_names.push(dns("localhost"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(8));
    params
}

/// A directory with the three files of a component.
pub struct Bench {
    pub dir: TempDir,
    pub ca: Ca,
}

impl Bench {
    /// All files are good.
    pub fn new() -> Self {
        Self::with_ca(Ca::new("test authority"))
    }

    pub fn with_ca(ca: Ca) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), ca };
        bench.write("ca.crt", bench.ca.certificate.pem());
        bench.issue(&component(AGENT));
        bench
    }

    /// All files are good but for what `change` does to the certificate.
    pub fn changed(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let bench = Self::new();
        let mut params = component(AGENT);
        change(&mut params);
        bench.issue(&params);
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        write(&self.path(name), bytes)
    }

    /// Writes `agent.crt` and `agent.key` with a new key.
    pub fn issue(&self, params: &CertificateParams) -> Certificate {
        self.issue_for(params, &KeyPair::generate().unwrap())
    }

    pub fn issue_for(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        let certificate = self.ca.sign(params, key);
        self.write("agent.key", key.serialize_pem());
        self.write("agent.crt", certificate.pem());
        certificate
    }

    pub fn options(&self) -> TlsOptions {
        TlsOptions::new(self.path("agent.crt"), self.path("agent.key"), self.path("ca.crt"))
    }

    pub fn load(&self) -> Result<TlsIdentity, TlsError> {
        TlsIdentity::load(self.options())
    }

    pub fn identity(&self) -> TlsIdentity {
        self.load().unwrap()
    }

    /// The error of loading, whose message names the file and gives the advice, and shows nothing of the key.
    pub fn refusal(&self, file: &str, advice: &str) -> TlsError {
        self.refusal_of(self.options(), file, advice)
    }

    pub fn refusal_of(&self, options: TlsOptions, file: &str, advice: &str) -> TlsError {
        let error = TlsIdentity::load(options).expect_err("it is refused");
        self.check_message(&error, file, advice);
        error
    }

    pub fn check_message(&self, error: &TlsError, file: &str, advice: &str) {
        let message = error.to_string();
        let path = self.path(file).display().to_string();
        assert!(message.contains(&path), "`{message}` names `{path}`");
        assert!(message.contains(advice), "`{message}` says `{advice}`");
        assert!(!message.ends_with('.'), "`{message}` has no final dot");
        let shown = format!("{message} {error:?}");
        for line in fs::read_to_string(self.path("agent.key")).unwrap_or_default().lines() {
            assert!(line.starts_with("-----") || line.len() < 16 || !shown.contains(line), "no key material in it");
        }
    }
}

/// Writes a file that its owner alone can read, in one step.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> PathBuf {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&temporary, path).unwrap();
    path.to_owned()
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// Asserts that loading is refused with this variant, and that the message names the file and gives the advice.
macro_rules! assert_refused {
    ($bench:expr, $variant:pat, $file:expr, $advice:expr) => {
        let error = $bench.refusal($file, $advice);
        assert!(matches!(error, $variant), "{error:?}");
    };
    ($bench:expr, $options:expr, $variant:pat, $file:expr, $advice:expr) => {
        let error = $bench.refusal_of($options, $file, $advice);
        assert!(matches!(error, $variant), "{error:?}");
    };
}
pub(crate) use assert_refused;
