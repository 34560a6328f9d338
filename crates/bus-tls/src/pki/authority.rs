//! [`Authority`]: the certificate authority in a directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bus_proto::{Principal, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::list::Announced;
use super::record::{Entry, Record};
use super::write::{self, Prepared, Readable};
use super::{KeyAlgorithm, PkiError, random};
use crate::error::TlsError;
use crate::place::{FileKind, Origin};
use crate::roots::{self, Roots};
use crate::{files, pem, x509};

/// How long a revocation list is good unless [`Authority::crl_lifetime`] says otherwise: 7 days.
pub const DEFAULT_CRL_LIFETIME: Duration = Duration::from_secs(7 * DAY_SECS);

const DAY_SECS: u64 = 24 * 3600;
const CERTIFICATE_FILE: &str = "ca.crt";
const KEY_FILE: &str = "ca.key";
const CRL_FILE: &str = "crl.pem";
const RECORD_FILE: &str = "record.tsv";

/// How a new authority is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaOptions {
    /// How long the authority's certificate is valid, in days. 3650 by default.
    pub lifetime_days: u32,
    /// The kind of the authority's key. P-256 by default.
    pub key_algorithm: KeyAlgorithm,
}

impl Default for CaOptions {
    fn default() -> Self {
        Self { lifetime_days: 3650, key_algorithm: KeyAlgorithm::default() }
    }
}

/// A certificate authority in a directory. See the [module](super).
pub struct Authority {
    dir: PathBuf,
    pub(super) trust_domain: TrustDomain,
    certificate: CertificateDer<'static>,
    pub(super) not_after: i64,
    key: Zeroizing<KeyPair>,
    crl_lifetime: Duration,
}

impl Authority {
    /// Makes a new authority in a directory, with an empty revocation list. The directory is made if need be, for its
    /// owner alone.
    ///
    /// Its certificate names the trust domain, may sign certificates of components but not of further authorities, and
    /// is valid from five minutes ago.
    ///
    /// # Errors
    ///
    /// [`PkiError::AlreadyExists`] when there is an authority; [`PkiError::Incomplete`] when some of its files are there
    /// without its certificate; [`PkiError::Io`] when writing fails.
    pub fn create(dir: impl Into<PathBuf>, trust_domain: TrustDomain, options: &CaOptions) -> Result<Self, PkiError> {
        let dir = dir.into();
        write::make_directory(&dir)?;
        let [certificate_path, others @ ..] =
            [CERTIFICATE_FILE, RECORD_FILE, KEY_FILE, CRL_FILE].map(|name| dir.join(name));
        if certificate_path.exists() {
            return Err(PkiError::AlreadyExists { path: certificate_path });
        }
        if let Some(found) = others.into_iter().find(|path| path.exists()) {
            return Err(PkiError::Incomplete { found, missing: certificate_path });
        }
        let key = Zeroizing::new(options.key_algorithm.generate()?);
        let now = x509::seconds(UnixTime::now());
        let not_after = now + i64::from(options.lifetime_days) * DAY_SECS.cast_signed();
        let certificate = authority_params(&trust_domain, now - 300, not_after)?.self_signed(&*key)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let prepared_key = Prepared::new(&dir.join(KEY_FILE), key_pem.as_bytes(), Readable::ByOwner)?;
        let prepared = Prepared::new(&certificate_path, certificate.pem().as_bytes(), Readable::ByAll)?;
        // The certificate is last: where it stands, the others do, but for the list, which can be made again.
        Record::create(&dir.join(RECORD_FILE))?;
        prepared_key.create()?;
        prepared.create()?;
        let certificate = certificate.into();
        let authority = Self { dir, trust_domain, certificate, not_after, key, crl_lifetime: DEFAULT_CRL_LIFETIME };
        authority.renew_crl()?;
        Ok(authority)
    }

    /// Opens an authority that was made before.
    ///
    /// # Errors
    ///
    /// [`PkiError::NoAuthority`] when the directory holds none; [`PkiError::Incomplete`] or [`PkiError::MissingRecord`]
    /// when one of its files is missing; [`PkiError::DamagedRecord`]; [`PkiError::File`] when its certificate or key is wrong;
    /// [`PkiError::NoTrustDomain`] when its certificate was made elsewhere and names none.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, PkiError> {
        let dir = dir.into();
        let (path, key_path) = (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        if !path.exists() {
            let found = [KEY_FILE, RECORD_FILE].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
            return Err(match found {
                Some(found) => PkiError::Incomplete { found, missing: path },
                None => PkiError::NoAuthority { path: dir },
            });
        }
        Record::read(&dir.join(RECORD_FILE))?;
        // Checks that it is an authority's certificate, and valid.
        Roots::load(&path, None, UnixTime::now())?;
        let contents = files::read(&path, FileKind::TrustRoot)?;
        let certificates = pem::certificates(&path, FileKind::TrustRoot, &contents.bytes)?;
        let Some(certificate) = certificates.first().cloned() else {
            return Err(PkiError::NoAuthority { path: dir });
        };
        let key = read_key(&key_path)?;
        let origin = Origin::File(path.clone());
        let parsed = x509::parse(&origin, &certificate)?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&*key) {
            return Err(TlsError::KeyMismatch { key: key_path, certificate: path }.into());
        }
        let trust_domain = roots::named_domain(&origin, &parsed)?.ok_or(PkiError::NoTrustDomain { path })?;
        let not_after = parsed.validity().not_after.timestamp();
        Ok(Self { dir, trust_domain, certificate, not_after, key, crl_lifetime: DEFAULT_CRL_LIFETIME })
    }

    /// Sets how long the revocation lists made from now on are good.
    #[must_use]
    pub fn crl_lifetime(mut self, lifetime: Duration) -> Self {
        self.crl_lifetime = lifetime;
        self
    }

    /// The trust domain that it vouches for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The directory that it is kept in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of its certificate: the trust root of everybody else.
    #[must_use]
    pub fn ca_path(&self) -> PathBuf {
        self.dir.join(CERTIFICATE_FILE)
    }

    /// The path of its revocation list.
    #[must_use]
    pub fn crl_path(&self) -> PathBuf {
        self.dir.join(CRL_FILE)
    }

    /// The last second of its certificate's validity, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// When the last of a principal's revoked certificates expires, in seconds since 1970-01-01 UTC; `None` when all have,
    /// or there are none. Until then, whoever reads no revocation list still takes their keys for the principal's.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn revoked_until(&self, principal: &Principal) -> Result<Option<i64>, PkiError> {
        let record = Record::read(&self.dir.join(RECORD_FILE))?;
        Ok(record.revoked_until(principal, x509::seconds(UnixTime::now())))
    }

    /// What was issued, oldest first.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn issued(&self) -> Result<Vec<Entry>, PkiError> {
        Ok(Record::read(&self.dir.join(RECORD_FILE))?.into_entries())
    }

    /// Revokes one certificate and writes a new revocation list. Revoking it again only renews the list.
    ///
    /// The serial number is in hexadecimal; capitals and colons, as other programs print them, are accepted.
    ///
    /// # Errors
    ///
    /// [`PkiError::UnknownSerial`] when it was not issued here; otherwise as [`Authority::renew_crl`].
    pub fn revoke_serial(&self, serial: &str) -> Result<Entry, PkiError> {
        let serial = serial.replace(':', "").to_ascii_lowercase();
        let mut revoked = self.revoke(|entry| entry.serial == serial)?;
        revoked.pop().ok_or_else(|| PkiError::UnknownSerial { serial: serial.escape_default().take(80).collect() })
    }

    /// Revokes every certificate of a component, writes a new revocation list, and returns all of its certificates.
    ///
    /// # Errors
    ///
    /// [`PkiError::UnknownPrincipal`] when it has none; otherwise as [`Authority::renew_crl`].
    pub fn revoke_principal(&self, principal: &Principal) -> Result<Vec<Entry>, PkiError> {
        let revoked = self.revoke(|entry| entry.principal == *principal)?;
        if revoked.is_empty() {
            return Err(PkiError::UnknownPrincipal { principal: principal.clone() });
        }
        Ok(revoked)
    }

    /// Writes a new revocation list with the same content, before the old one is out of date.
    ///
    /// # Errors
    ///
    /// [`PkiError::LostRevocation`] when the old one revokes what the record does not; [`PkiError::Io`] when writing
    /// fails.
    pub fn renew_crl(&self) -> Result<(), PkiError> {
        self.write_crl(&mut self.record()?)
    }

    fn revoke(&self, matches: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>, PkiError> {
        let mut record = self.record()?;
        let mut revoked: Vec<Entry> = record.entries().iter().filter(|entry| matches(entry)).cloned().collect();
        let now = x509::seconds(UnixTime::now());
        for entry in revoked.iter_mut().filter(|entry| entry.revoked_at.is_none()) {
            record.revoked(&entry.serial, now)?;
            entry.revoked_at = Some(now);
        }
        if !revoked.is_empty() {
            self.write_crl(&mut record)?;
        }
        Ok(revoked)
    }

    fn write_crl(&self, record: &mut Record) -> Result<(), PkiError> {
        let now = x509::seconds(UnixTime::now());
        let lifetime = i64::try_from(self.crl_lifetime.as_secs()).map_err(|_| PkiError::BadValidity)?;
        let next = now.checked_add(lifetime).ok_or(PkiError::BadValidity)?;
        let path = self.crl_path();
        let last = Announced::read(&path, &self.certificate);
        if let Some(serial) = last.serials.into_iter().find(|serial| !record.revokes(serial)) {
            return Err(PkiError::LostRevocation { list: path, record: self.dir.join(RECORD_FILE), serial });
        }
        let number = record.next_list(last.number, now)?;
        let revoked = record.entries().iter().filter_map(|entry| Some((entry, entry.revoked_at?)));
        let params = CertificateRevocationListParams {
            this_update: date_time(now)?,
            next_update: date_time(next)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.map(|(entry, at)| revoked_certificate(entry, at)).collect::<Result<_, _>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer()?)?;
        Prepared::new(&path, list.pem()?.as_bytes(), Readable::ByAll)?.replace()
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, PkiError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, &*self.key)?)
    }

    pub(super) fn record(&self) -> Result<Record, PkiError> {
        Record::open(&self.dir.join(RECORD_FILE))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dir, trust_domain, certificate: _, not_after, key: _, crl_lifetime } = self;
        f.debug_struct("Authority")
            .field("dir", dir)
            .field("trust_domain", trust_domain)
            .field("not_after", not_after)
            .field("crl_lifetime", crl_lifetime)
            .finish_non_exhaustive()
    }
}

fn authority_params(
    trust_domain: &TrustDomain,
    not_before: i64,
    not_after: i64,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.not_before = date_time(not_before)?;
    params.not_after = date_time(not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    // Each authority has a name of its own: certificates and revocation lists name their authority by it, and one may
    // follow another within a trust domain.
    let suffix = random::<4>()?;
    let domain: String = trust_domain.to_string().chars().take(45).collect();
    params.distinguished_name = common_name(&format!("{domain} authority {}", x509::hex(&suffix)));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

pub(super) fn common_name(name: &str) -> DistinguishedName {
    // RFC 5280, appendix A: a common name has at most 64 characters. It is for people; the identity is the URI name.
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn read_key(path: &Path) -> Result<Zeroizing<KeyPair>, PkiError> {
    let contents = files::read(path, FileKind::PrivateKey)?;
    if let Some(mode) = contents.mode.filter(|mode| mode & 0o077 != 0) {
        return Err(TlsError::ExposedKey { path: path.into(), mode }.into());
    }
    let der = pem::private_key(path, &contents.bytes)?;
    let key = KeyPair::try_from(&*der).map_err(|_| TlsError::UnusableKey { path: path.into() })?;
    Ok(Zeroizing::new(key))
}

fn revoked_certificate(entry: &Entry, at: i64) -> Result<RevokedCertParams, PkiError> {
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from(from_hex(&entry.serial)),
        revocation_time: date_time(at)?,
        reason_code: None,
        invalidity_date: None,
    })
}

/// The bytes of a serial number that this module has printed.
fn from_hex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    text.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |value, byte| value << 4 | digit(byte))).collect()
}

/// A serial number of 16 bytes, 126 of its bits random: it cannot be guessed, is positive, and has no leading zero.
pub(super) fn random_serial() -> Result<[u8; 16], PkiError> {
    let mut serial: [u8; 16] = random()?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

pub(super) fn date_time(seconds: i64) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::BadValidity)
}
