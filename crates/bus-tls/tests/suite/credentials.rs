//! The own certificate in use, and what it signs.

use std::fs;

use bus_tls::TlsError;
use rcgen::{KeyPair, RsaKeySize, SerialNumber};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::prelude::FromDer;

use crate::bench::{AGENT, Bench, component, now, valid_from_to};

const P256: u16 = 0x0403;
const P384: u16 = 0x0503;
const RSA_PSS: u16 = 0x0804;
const ED25519: u16 = 0x0807;

/// A bench whose component has this key.
fn with_key(key: &KeyPair) -> Bench {
    let bench = Bench::new();
    bench.issue_for(&component(AGENT), key);
    bench
}

fn holds(scheme: u16, certificate: &CertificateDer<'_>, message: &[u8], signature: &[u8]) -> bool {
    let provider = default_provider();
    let mapping = provider.signature_verification_algorithms.mapping;
    let (_, algorithms) = mapping.iter().find(|(known, _)| u16::from(*known) == scheme).unwrap();
    let leaf = EndEntityCert::try_from(certificate).unwrap();
    algorithms.iter().any(|algorithm| leaf.verify_signature(*algorithm, message, signature).is_ok())
}

#[test]
fn every_kind_of_key_signs_with_its_own_scheme_and_no_other() {
    for (key, scheme) in [
        (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(), P256),
        (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(), P384),
        (KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(), RSA_PSS),
        (KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), ED25519),
    ] {
        let credentials = with_key(&key).identity().credentials();
        let signature = credentials.sign(scheme, b"a message").unwrap();
        let certificate = &credentials.chain()[0];
        assert!(holds(scheme, certificate, b"a message", &signature));
        assert!(!holds(scheme, certificate, b"another message", &signature));
        for other in [P256, P384, RSA_PSS, ED25519, 0x0000, 0xffff].into_iter().filter(|other| *other != scheme) {
            let error = credentials.sign(other, b"a message").unwrap_err();
            assert!(matches!(error, TlsError::UnsupportedScheme { scheme } if scheme == other), "{error:?}");
            assert!(error.to_string().contains(&format!("{other:#06x}")), "{error}");
        }
    }
}

#[test]
fn the_chain_is_that_of_the_file_leaf_first() {
    let bench = Bench::new();
    let below = bench.ca.intermediate("intermediate authority");
    let key = KeyPair::generate().unwrap();
    let leaf = below.sign(&component(AGENT), &key);
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", leaf.pem() + &below.certificate.pem());
    let identity = bench.identity();
    let credentials = identity.credentials();
    assert_eq!(credentials.chain(), [leaf.der().clone(), below.certificate.der().clone()]);
    assert_eq!(credentials.leaf(), &identity.leaf());
    assert_eq!(credentials.generation(), 1);
}

#[test]
fn a_snapshot_stays_the_same_when_the_files_are_rotated() {
    let bench = Bench::new();
    let identity = bench.identity();
    let before = identity.credentials();
    let mut params = component(AGENT);
    params.serial_number = Some(SerialNumber::from(9));
    bench.issue(&params);
    assert_eq!(identity.credentials().chain(), before.chain(), "it does not look at the files");
    identity.refresh().unwrap();
    let after = identity.credentials();
    assert_eq!((before.leaf().serial(), before.generation()), ("07", 1));
    assert_eq!((after.leaf().serial(), after.generation()), ("09", 2));
    let signature = before.sign(P256, b"a message").unwrap();
    assert!(holds(P256, &before.chain()[0], b"a message", &signature));
    assert!(!holds(P256, &after.chain()[0], b"a message", &signature));
}

#[test]
fn a_leaf_tells_its_key_and_its_digest() {
    let key = KeyPair::generate().unwrap();
    let credentials = with_key(&key).identity().credentials();
    let leaf = credentials.leaf();
    let (_, read) = x509_parser::certificate::X509Certificate::from_der(&credentials.chain()[0]).unwrap();
    assert_eq!(leaf.spki(), read.public_key().raw);
    assert_eq!(leaf.spki(), rcgen::PublicKeyData::subject_public_key_info(&key));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &credentials.chain()[0]);
    assert_eq!(leaf.sha256().as_slice(), digest.as_ref());
}

#[test]
fn a_chain_ends_with_the_first_of_its_certificates_that_ends() {
    // An intermediate that ends before the leaf, and one that does not.
    for (last_day, expected) in [(10, 10), (90, 30)] {
        let bench = Bench::new();
        let mut below = bench.ca.intermediate("intermediate authority");
        valid_from_to(&mut below.params, -1, last_day);
        below.certificate = bench.ca.sign(&below.params, &below.key);
        let key = KeyPair::generate().unwrap();
        bench.write("agent.key", key.serialize_pem());
        bench.write("agent.crt", below.sign(&component(AGENT), &key).pem() + &below.certificate.pem());
        let leaf = bench.identity().leaf();
        let expected = (now() + expected * 24 * 3600) * 1000;
        assert!((leaf.chain_not_after_unix_ms() - expected).abs() < 60_000);
        assert_eq!(leaf.chain_not_after_unix_ms() % 1000, 0);
        assert!(leaf.chain_not_after_unix_ms() <= leaf.not_after() * 1000);
    }
}

#[test]
fn an_intermediate_that_is_not_needed_counts_for_the_end_of_a_chain() {
    let bench = Bench::new();
    let mut beside = bench.ca.intermediate("needless authority");
    valid_from_to(&mut beside.params, -20, -10);
    beside.certificate = bench.ca.sign(&beside.params, &beside.key);
    let leaf = fs::read_to_string(bench.path("agent.crt")).unwrap();
    bench.write("agent.crt", leaf + &beside.certificate.pem());
    assert!(bench.identity().leaf().chain_not_after_unix_ms() < now() * 1000);
}

#[test]
fn debug_output_of_credentials_shows_who_it_is_and_no_key() {
    let key = KeyPair::generate().unwrap();
    let credentials = with_key(&key).identity().credentials();
    let shown = format!("{credentials:?}");
    assert!(shown.contains("agent-01") && shown.len() < 300, "{shown}");
    let der = key.serialized_der();
    assert!(!shown.contains(&format!("{}, {}, {}", der[40], der[41], der[42])), "{shown}");
}
