//! From PEM text (RFC 7468) to DER. The only module that uses `rustls-pemfile`.
//!
//! Text around the blocks, CRLF line ends and a byte order mark are accepted.

use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls_pemfile::Item;
use zeroize::Zeroizing;

use crate::error::TlsError;
use crate::place::FileKind;

/// Whether a text also holds a private key.
pub(crate) fn holds_private_key(bytes: &[u8]) -> bool {
    lines(bytes).filter_map(label).any(|label| label.ends_with("PRIVATE KEY"))
}

/// The certificates in a file, at least one.
pub(crate) fn certificates(
    path: &Path,
    kind: FileKind,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let labels = labels(path, kind, bytes)?;
    let found: Vec<_> = items(path, kind, bytes)?
        .into_iter()
        .filter_map(|item| match item {
            Item::X509Certificate(certificate) => Some(certificate),
            other => {
                wipe(other);
                None
            }
        })
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let (path, found) = (path.into(), list(&labels));
    Err(match kind {
        FileKind::TrustRoot => TlsError::NoTrustRoot { path, found },
        _ => TlsError::WrongPemKind { path, kind, found },
    })
}

/// The revocation lists in a file, at least one.
pub(crate) fn revocation_lists(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let kind = FileKind::Crl;
    let labels = labels(path, kind, bytes)?;
    let found: Vec<_> = items(path, kind, bytes)?
        .into_iter()
        .filter_map(|item| match item {
            Item::Crl(list) => Some(list),
            other => {
                wipe(other);
                None
            }
        })
        .collect();
    if found.is_empty() {
        return Err(TlsError::WrongPemKind { path: path.into(), kind, found: list(&labels) });
    }
    Ok(found)
}

/// The one private key in a file: PKCS#8, PKCS#1 or SEC1, not encrypted.
pub(crate) fn private_key(path: &Path, bytes: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, TlsError> {
    let kind = FileKind::PrivateKey;
    let labels = labels(path, kind, bytes)?;
    // A key under a passphrase is a block of its own kind (PKCS#8) or has a header inside (the older form).
    let encrypted_header = |line: &[u8]| line.starts_with(b"Proc-Type:") && contains(line, b"ENCRYPTED");
    if labels.iter().any(|label| label == "ENCRYPTED PRIVATE KEY") || lines(bytes).any(encrypted_header) {
        return Err(TlsError::EncryptedKey { path: path.into() });
    }
    if labels.iter().any(|label| label == "OPENSSH PRIVATE KEY") {
        return Err(TlsError::OpenSshKey { path: path.into() });
    }
    let count = labels.iter().filter(|label| label.ends_with("PRIVATE KEY")).count();
    if count > 1 {
        return Err(TlsError::SeveralKeys { path: path.into(), count });
    }
    let key = items(path, kind, bytes)?.into_iter().find_map(|item| match item {
        Item::Pkcs8Key(key) => Some(PrivateKeyDer::Pkcs8(key)),
        Item::Pkcs1Key(key) => Some(PrivateKeyDer::Pkcs1(key)),
        Item::Sec1Key(key) => Some(PrivateKeyDer::Sec1(key)),
        _ => None,
    });
    match key {
        Some(key) => Ok(Zeroizing::new(key)),
        None => Err(TlsError::NoKey { path: path.into(), found: list(&labels) }),
    }
}

/// The labels of the blocks in a text, at least one, or why there is none.
fn labels(path: &Path, kind: FileKind, bytes: &[u8]) -> Result<Vec<String>, TlsError> {
    let bytes = without_mark(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(TlsError::Empty { path: path.into(), kind });
    }
    let labels: Vec<String> = lines(bytes).filter_map(label).collect();
    if !labels.is_empty() {
        return Ok(labels);
    }
    // Every DER file of these kinds is one long SEQUENCE: tag 0x30, then a length of two to four bytes.
    if let [0x30, 0x81..=0x84, ..] | [0x30, 0x2c..=0x7f, 0x02, ..] = bytes {
        return Err(TlsError::Der { path: path.into(), kind });
    }
    Err(TlsError::NotPem { path: path.into(), kind })
}

/// The label in a `-----BEGIN <label>-----` line.
fn label(line: &[u8]) -> Option<String> {
    let label = line.strip_prefix(b"-----BEGIN ")?;
    let label = label.strip_suffix(b"-----").unwrap_or(label);
    let shown = String::from_utf8_lossy(label);
    Some(shown.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(40).collect())
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    without_mark(bytes).split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii_end)
}

fn items(path: &Path, kind: FileKind, bytes: &[u8]) -> Result<Vec<Item>, TlsError> {
    let mut rest = without_mark(bytes);
    let mut items = Vec::new();
    loop {
        match rustls_pemfile::read_one_from_slice(rest) {
            Ok(Some((item, after))) => {
                items.push(item);
                rest = after;
            }
            Ok(None) => return Ok(items),
            Err(error) => {
                items.into_iter().for_each(wipe);
                let reason = reason(&error);
                return Err(TlsError::DamagedPem { path: path.into(), kind, reason });
            }
        }
    }
}

/// What is damaged, without a byte of the text: it may be part of a key.
fn reason(error: &rustls_pemfile::Error) -> &'static str {
    match error {
        rustls_pemfile::Error::MissingSectionEnd { .. } => "its END line is missing",
        rustls_pemfile::Error::IllegalSectionStart { .. } => "its BEGIN line is incomplete",
        rustls_pemfile::Error::Base64Decode(_) => "its text is not base64",
    }
}

/// Wipes a private key that stands in a file of another kind.
fn wipe(item: Item) {
    use zeroize::Zeroize;
    match item {
        Item::Pkcs8Key(mut key) => key.zeroize(),
        Item::Pkcs1Key(mut key) => key.zeroize(),
        Item::Sec1Key(mut key) => key.zeroize(),
        _ => {}
    }
}

/// Some editors begin a text with a UTF-8 byte order mark.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|part| part == word)
}

fn list(labels: &[String]) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for label in labels {
        if !distinct.contains(&label.as_str()) && distinct.len() < 4 {
            distinct.push(label);
        }
    }
    distinct.join(" and ")
}
