//! What a certificate says, read with `x509-parser`, and the rules on single certificates.

use std::net::IpAddr;

use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;

use crate::error::TlsError;
use crate::place::Origin;

/// The shortest RSA modulus that is accepted, in bits.
const MIN_RSA_BITS: usize = 2048;

pub(crate) fn parse<'a>(origin: &Origin, der: &'a [u8]) -> Result<X509Certificate<'a>, TlsError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(malformed(origin, &"bytes follow its end")),
        Err(error) => Err(malformed(origin, &error)),
    }
}

pub(crate) fn malformed(origin: &Origin, reason: &impl ToString) -> TlsError {
    TlsError::MalformedCertificate { origin: origin.clone(), reason: reason.to_string() }
}

/// The certificate's subject alternative names; none when it has no such extension.
pub(crate) fn names<'a>(
    origin: &Origin,
    certificate: &'a X509Certificate<'_>,
) -> Result<&'a [GeneralName<'a>], TlsError> {
    let extension = certificate.subject_alternative_name().map_err(|error| malformed(origin, &error))?;
    Ok(extension.map_or(&[], |extension| extension.value.general_names.as_slice()))
}

/// A name for people, with its kind; its text is escaped.
pub(crate) fn printable_name(name: &GeneralName<'_>) -> String {
    let escaped = |kind: &str, text: &str| format!("{kind}:{}", printable(text));
    match name {
        GeneralName::URI(uri) => escaped("URI", uri),
        GeneralName::DNSName(host) => escaped("DNS", host),
        GeneralName::RFC822Name(address) => escaped("email", address),
        GeneralName::IPAddress(bytes) => {
            ip_address(bytes).map_or_else(|| "IP:malformed".to_owned(), |address| format!("IP:{address}"))
        }
        GeneralName::DirectoryName(name) => escaped("directory", &name.to_string()),
        GeneralName::OtherName(kind, _) => format!("other:{kind}"),
        GeneralName::RegisteredID(id) => format!("id:{id}"),
        _ => "of an unknown kind".to_owned(),
    }
}

/// Text of a certificate for people: escaped, so that it cannot command a terminal, and of bounded length.
pub(crate) fn printable(text: &str) -> String {
    text.escape_default().take(200).collect()
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The serial number in hexadecimal, as `bus pki` and the errors print it.
pub(crate) fn serial(certificate: &X509Certificate<'_>) -> String {
    hex(certificate.raw_serial())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses a signature made over a broken hash: two certificates could share it.
pub(crate) fn check_signature_hash(origin: &Origin, certificate: &X509Certificate<'_>) -> Result<(), TlsError> {
    let algorithm = match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.2" => "MD2",
        "1.2.840.113549.1.1.4" => "MD5",
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" => "SHA-1",
        _ => return Ok(()),
    };
    Err(TlsError::WeakSignature { origin: origin.clone(), algorithm })
}

/// Accepts P-256, P-384, Ed25519 and RSA of at least 2048 bits.
pub(crate) fn check_key(origin: &Origin, certificate: &X509Certificate<'_>) -> Result<(), TlsError> {
    match key_kind(origin, certificate)? {
        KeyKind::Rsa { bits } if bits < MIN_RSA_BITS => Err(TlsError::WeakRsaKey { origin: origin.clone(), bits }),
        KeyKind::Other(found) => Err(TlsError::UnsupportedKey { origin: origin.clone(), found }),
        KeyKind::P256 | KeyKind::P384 | KeyKind::Ed25519 | KeyKind::Rsa { .. } => Ok(()),
    }
}

/// Refuses a certificate outside of its validity.
pub(crate) fn check_dates(origin: &Origin, certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), TlsError> {
    let now = seconds(now);
    let validity = certificate.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now > not_after {
        return Err(TlsError::Expired { origin: origin.clone(), not_after: date(not_after) });
    }
    if now < not_before {
        return Err(TlsError::NotYetValid { origin: origin.clone(), not_before: date(not_before) });
    }
    Ok(())
}

/// The last second of a certificate's validity, in seconds since 1970.
pub(crate) fn not_after(certificate: &X509Certificate<'_>) -> i64 {
    certificate.validity().not_after.timestamp()
}

pub(crate) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// A date for people: `2030-01-31 12:00:00 UTC`.
pub(crate) fn date(seconds: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => format!("second {seconds} since 1970"),
    }
}

/// The kind of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa {
        /// The length of the modulus, in bits.
        bits: usize,
    },
    /// Anything else: its object identifier, and that of its curve if it has one.
    Other(String),
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
            Self::Other(oid) => f.write_str(oid),
        }
    }
}

pub(crate) fn key_kind(origin: &Origin, certificate: &X509Certificate<'_>) -> Result<KeyKind, TlsError> {
    let key = certificate.public_key();
    let algorithm = key.algorithm.algorithm.to_id_string();
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let curve = curve.map(|oid| oid.to_id_string());
    Ok(match (algorithm.as_str(), curve.as_deref()) {
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => KeyKind::P256,
        ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => KeyKind::P384,
        ("1.3.101.112", _) => KeyKind::Ed25519,
        ("1.2.840.113549.1.1.1", _) => match key.parsed() {
            Ok(PublicKey::RSA(key)) => KeyKind::Rsa { bits: bit_length(key.modulus) },
            _ => return Err(malformed(origin, &"its RSA key cannot be read")),
        },
        (algorithm, Some(curve)) => KeyKind::Other(format!("{algorithm} on {curve}")),
        (algorithm, None) => KeyKind::Other(algorithm.to_owned()),
    })
}

/// The length of a big-endian number, in bits.
fn bit_length(bytes: &[u8]) -> usize {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros).map_or(0, |first| (bytes.len() - zeros) * 8 - first.leading_zeros() as usize)
}
