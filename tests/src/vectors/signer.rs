//! Keys that sign for the vectors, from fixed seeds and files: for tests alone, as everybody knows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;

use super::file::{hex, unhex};
use super::sha256;

/// Signatures of keys that sign with random numbers: made once and kept, so that the vectors stay the same.
const RECORDED: &str = include_str!("recorded.txt");

/// Finds recorded signatures, or makes them.
#[derive(Debug)]
pub struct Recorder {
    known: BTreeMap<String, String>,
    /// Whether signatures that are missing are made.
    records: bool,
    used: Mutex<BTreeMap<String, String>>,
}

impl Recorder {
    /// Knows what is recorded. With `records`, it makes what is missing.
    #[must_use]
    pub fn new(records: bool) -> Self {
        let known = RECORDED.lines().filter_map(|line| line.split_once(' '));
        let known = known.map(|(id, signature)| (id.to_owned(), signature.to_owned())).collect();
        Self { known, records, used: Mutex::default() }
    }

    /// What was needed, in the form of the file.
    #[must_use]
    pub fn used(&self) -> String {
        let used = self.used.lock().expect("no panic while it was locked");
        used.iter().map(|(id, signature)| format!("{id} {signature}\n")).collect()
    }

    fn sign(&self, key: &Signer, message: &[u8]) -> Result<Vec<u8>> {
        let id = hex(&sha256(&[&key.spki, message].concat()));
        let signature = match self.known.get(&id) {
            Some(known) => unhex(known).context("a recorded signature is no hexadecimal")?,
            None if self.records => key.sign_now(message)?,
            None => anyhow::bail!(
                "the signature of a {:?} key is not recorded: run `cargo run -p bus-tests --bin bus-vectors -- --record`, \
                 then `cargo xtask vectors`",
                key.scheme
            ),
        };
        self.used.lock().expect("no panic while it was locked").insert(id, hex(&signature));
        Ok(signature)
    }
}

/// A private key, and the scheme that it signs with.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    /// The public key as a `SubjectPublicKeyInfo` in DER.
    pub(crate) spki: Vec<u8>,
}

impl Signer {
    /// The Ed25519 key with this seed.
    pub(crate) fn ed25519(seed: [u8; 32]) -> Self {
        Self::new(&PrivatePkcs8KeyDer::from(pkcs8(seed)).into(), SignatureScheme::ED25519)
    }

    pub(crate) fn p256() -> Self {
        Self::from_pem(include_str!("keys/p256.pem"), SignatureScheme::ECDSA_NISTP256_SHA256)
    }

    pub(crate) fn p384() -> Self {
        Self::from_pem(include_str!("keys/p384.pem"), SignatureScheme::ECDSA_NISTP384_SHA384)
    }

    pub(crate) fn rsa() -> Self {
        Self::from_pem(include_str!("keys/rsa2048.pem"), SignatureScheme::RSA_PSS_SHA256)
    }

    /// The RSA key, signing as TLS 1.2 did.
    pub(crate) fn rsa_pkcs1() -> Self {
        Self { scheme: SignatureScheme::RSA_PKCS1_SHA256, ..Self::rsa() }
    }

    fn from_pem(pem: &str, scheme: SignatureScheme) -> Self {
        Self::new(&PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key in PEM"), scheme)
    }

    fn new(der: &PrivateKeyDer<'_>, scheme: SignatureScheme) -> Self {
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(der).expect("a key that the provider takes");
        let spki = key.public_key().expect("a public key").as_ref().to_vec();
        Self { key, scheme, spki }
    }

    /// The number that TLS gives the scheme.
    pub(crate) fn scheme(&self) -> u32 {
        u16::from(self.scheme).into()
    }

    /// The public key without its wrapping; for Ed25519, 32 bytes.
    pub(crate) fn ed25519_public(&self) -> [u8; 32] {
        self.spki[self.spki.len() - 32..].try_into().expect("32 bytes")
    }

    /// A signature that is the same every time.
    pub(crate) fn sign(&self, message: &[u8], recorder: &Recorder) -> Result<Vec<u8>> {
        match self.scheme {
            SignatureScheme::ED25519 | SignatureScheme::RSA_PKCS1_SHA256 => self.sign_now(message),
            _ => recorder.sign(self, message),
        }
    }

    fn sign_now(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signer = self.key.choose_scheme(&[self.scheme]).context("a key without its scheme")?;
        Ok(signer.sign(message)?)
    }
}

/// The private Ed25519 key with this seed, as PKCS#8 (RFC 8410).
pub(crate) fn pkcs8(seed: [u8; 32]) -> Vec<u8> {
    [&b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..], &seed].concat()
}
