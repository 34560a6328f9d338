//! The TLS certificate that a bundle hangs on, as far as signatures are concerned.

use alloc::vec::Vec;
use core::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
};
use bus_proto::Principal;

use crate::bundle::BundleError;
use crate::keys::{KEY_LEN, SIGNATURE_LEN, Signature, VerifyingKey};

/// A signature scheme of TLS 1.3 (RFC 8446, section 4.2.3) that a bundle may be signed with. PKCS#1 v1.5 is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `ecdsa_secp256r1_sha256`, the signature in DER.
    EcdsaP256Sha256,
    /// `ecdsa_secp384r1_sha384`, the signature in DER.
    EcdsaP384Sha384,
    /// `rsa_pss_rsae_sha256`, with a salt of 32 bytes, for keys of 2,048 to 8,192 bits.
    RsaPssSha256,
    /// `ed25519`.
    Ed25519,
}

impl Scheme {
    /// The number that TLS gives it.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::EcdsaP256Sha256 => 0x0403,
            Self::EcdsaP384Sha384 => 0x0503,
            Self::RsaPssSha256 => 0x0804,
            Self::Ed25519 => 0x0807,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256Sha256 => "ecdsa_secp256r1_sha256",
            Self::EcdsaP384Sha384 => "ecdsa_secp384r1_sha384",
            Self::RsaPssSha256 => "rsa_pss_rsae_sha256",
            Self::Ed25519 => "ed25519",
        })
    }
}

/// What a caller vouches for when it hands in a certificate. Nothing of it is checked again.
///
/// The caller has validated the certificate with its chain: against the roots of the principal's trust domain, its
/// dates, its usages (digitalSignature and clientAuth), its revocation. In this workspace only `bus-tls` does.
///
/// `principal`, `key` and `sha256` come from one and the same certificate, the first of the chain: taken from two, they would let
/// the key of one sign in the name of the other.
#[derive(Debug, Clone)]
pub struct LeafFacts {
    /// Whose certificate it is.
    pub principal: Principal,
    /// Its public key.
    pub key: LeafKey,
    /// [`certificate_digest`](crate::bundle::certificate_digest) of the certificate.
    pub sha256: [u8; 32],
    /// The earliest end (`notAfter`) of the certificate and its intermediates, in Unix milliseconds. Certificates count seconds.
    pub chain_not_after_unix_ms: i64,
}

/// The public key of a certificate, which decides the one scheme that it signs bundles with.
#[derive(Debug, Clone)]
pub struct LeafKey(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// Verified as strictly as the keys of messages.
    Ed25519(VerifyingKey),
    Other(Scheme, ParsedPublicKey),
}

/// DER of the `AlgorithmIdentifier` of each kind of key (RFC 5480, RFC 8017, RFC 8410), in full.
const ALGORITHMS: [(&[u8], Scheme); 4] = [
    (b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", Scheme::EcdsaP256Sha256),
    (b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22", Scheme::EcdsaP384Sha384),
    (b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00", Scheme::RsaPssSha256),
    (b"\x30\x05\x06\x03\x2b\x65\x70", Scheme::Ed25519),
];

impl LeafKey {
    /// The key in a certificate's `SubjectPublicKeyInfo`, in DER.
    ///
    /// # Errors
    ///
    /// When it is of a kind without a [`Scheme`], malformed, or a weak Ed25519 key. An RSA key of another size than 2,048 to
    /// 8,192 bits loads and verifies nothing.
    pub fn from_spki(spki: &[u8]) -> Result<Self, BundleError> {
        Self::parse(spki)?.ok_or(BundleError::UnsupportedLeafKey)
    }

    /// `None` where the bytes are malformed or of another kind.
    fn parse(spki: &[u8]) -> Result<Option<Self>, BundleError> {
        let Some((scheme, key)) = sequence(spki).and_then(algorithm) else {
            return Ok(None);
        };
        let algorithm: &'static dyn VerificationAlgorithm = match scheme {
            Scheme::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
            Scheme::EcdsaP384Sha384 => &ECDSA_P384_SHA384_ASN1,
            Scheme::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
            Scheme::Ed25519 => {
                // A BIT STRING of 33 bytes, of which the first says that no bit is unused.
                let Some(key) = key.strip_prefix(b"\x03\x21\x00").and_then(|key| <[u8; KEY_LEN]>::try_from(key).ok())
                else {
                    return Ok(None);
                };
                let key = VerifyingKey::from_bytes(key).map_err(BundleError::LeafKey)?;
                return Ok(Some(Self(Kind::Ed25519(key))));
            }
        };
        Ok(ParsedPublicKey::new(algorithm, spki).ok().map(|parsed| Self(Kind::Other(scheme, parsed))))
    }

    /// The scheme that the key signs bundles with.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self.0 {
            Kind::Ed25519(_) => Scheme::Ed25519,
            Kind::Other(scheme, _) => scheme,
        }
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BundleError> {
        let holds = match &self.0 {
            Kind::Ed25519(key) => <[u8; SIGNATURE_LEN]>::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &Signature::from_bytes(signature)).is_ok()),
            Kind::Other(_, parsed) => parsed.verify_sig(message, signature).is_ok(),
        };
        if holds { Ok(()) } else { Err(BundleError::LeafSignature) }
    }
}

/// The scheme of the `AlgorithmIdentifier` that the content begins with, and the key behind it.
fn algorithm(content: &[u8]) -> Option<(Scheme, &[u8])> {
    ALGORITHMS.iter().find_map(|(algorithm, scheme)| Some((*scheme, content.strip_prefix(*algorithm)?)))
}

/// The content of a SEQUENCE that fills `der`, whose length has at most two bytes.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let (length, content) = match der {
        [0x30, length @ 0..=0x7f, content @ ..] => (usize::from(*length), content),
        [0x30, 0x81, length, content @ ..] => (usize::from(*length), content),
        [0x30, 0x82, high, low, content @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), content),
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

/// Signs with the private key of a certificate: a file's, or one in a hardware module. The caller's, as this crate holds no
/// such keys.
pub trait LeafSigner {
    /// Why it did not sign.
    type Error: core::error::Error;

    /// The scheme that it signs with. Only the one of the certificate's key is of use.
    fn scheme(&self) -> Scheme;

    /// Signs `message`, which is not yet hashed.
    ///
    /// # Errors
    ///
    /// When it cannot.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Self::Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of 1,024 bits, made for this test by OpenSSL.
    const SPKI: &str = "30819f300d06092a864886f70d010101050003818d0030818902818100c8e306b81e5ae53376a6f98f38b1cd7c1b771b5739\
         55d824a553d17e68a8c6e26bae37247790cf0dc51143cd9a267d80df24a7180044a07f731f8a9cb83d564a5aba81610f2c1d\
         bccc0c2b47c84e65d177a3c5104bcda54086828bf3a54daab526e0143af3efa84ed129b492ea01eb7ed09409fec6a8a334bb\
         cfe7f33a55d73f0203010001";

    /// Its signature of `a message`, as `rsa_pss_rsae_sha256` says.
    const SIGNATURE: &str = "07e46aebc7f8eff150f95154e553450d81483fb13887e3f0024163e5fbf5443c1b34e76cdaa625d71d282a852026496642fe\
         edd48145bed3ca296fe741005b68cf8cc3df5c9f40310e9d0ca7b09fea51d1c03fc10f63cdbfdbf61ab5f5bcf49cd8c8f89e\
         3e483d3179475c7643a75c74fddd4341540cc8560447be96ced53b24";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_short_rsa_key_verifies_nothing() {
        let key = LeafKey::from_spki(&bytes(SPKI)).unwrap();
        let refused = BundleError::LeafSignature;
        assert_eq!(key.verify(b"a message", &bytes(SIGNATURE)), Err(refused));
    }
}
