//! What must be accepted.

use std::fs;
use std::os::unix::fs::symlink;

use bus_tls::{CertificateInfo, KeyKind, TlsIdentity};
use rcgen::{KeyPair, RsaKeySize};

use crate::bench::{AGENT, Bench, Ca, component, now};

#[test]
fn a_good_certificate_gives_its_identity() {
    let bench = Bench::new();
    let identity = bench.identity();
    assert_eq!(identity.principal().to_string(), AGENT);
    assert_eq!(identity.leaf().principal(), &identity.principal());
    assert_eq!(identity.generation(), 1);
    let in_thirty_days = now() + 30 * 24 * 3600;
    assert!((in_thirty_days - identity.not_after()).abs() < 60);
}

#[test]
fn all_kinds_of_keys_are_accepted() {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
    for (key, kind) in [
        (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(), KeyKind::P256),
        (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(), KeyKind::P384),
        (KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), KeyKind::Ed25519),
        (rsa(RsaKeySize::_2048), KeyKind::Rsa { bits: 2048 }),
        (rsa(RsaKeySize::_3072), KeyKind::Rsa { bits: 3072 }),
    ] {
        let bench = Bench::new();
        bench.issue_for(&component(AGENT), &key);
        bench.identity();
        assert_eq!(CertificateInfo::read(bench.path("agent.crt")).unwrap()[0].key, kind);
    }
}

#[test]
fn all_kinds_of_authority_keys_are_accepted() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256] {
        Bench::with_ca(Ca::with("authority", KeyPair::generate_for(algorithm).unwrap(), |_| {})).identity();
    }
}

#[test]
fn keys_in_sec1_and_pkcs1_form_are_accepted() {
    for pem in [include_str!("fixtures/p256-sec1.pem"), include_str!("fixtures/rsa2048-pkcs1.pem")] {
        let bench = Bench::new();
        // The first block of the file may be the parameters of the curve.
        let block = pem.find("-----BEGIN EC PRIVATE KEY").unwrap_or_default();
        let key = KeyPair::from_pem(&pem[block..]).unwrap();
        bench.issue_for(&component(AGENT), &key);
        bench.write("agent.key", pem);
        bench.identity();
    }
}

#[test]
fn intermediates_in_the_certificate_file_are_accepted() {
    let bench = Bench::new();
    let middle = bench.ca.intermediate("intermediate authority");
    let lower = middle.intermediate("lower authority");
    let key = KeyPair::generate().unwrap();
    let leaf = lower.sign(&component(AGENT), &key);
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", leaf.pem() + &lower.certificate.pem() + &middle.certificate.pem());
    bench.identity();
}

#[test]
fn crlf_and_text_around_the_blocks_are_accepted() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let bench = Bench::new();
        let text = fs::read_to_string(bench.path(file)).unwrap();
        bench.write(file, format!("\u{feff}subject: CN = a\n\n{text}\nissued by hand\n").replace('\n', "\r\n"));
        bench.identity();
        bench.write(file, format!("\u{feff}{}", text.trim_end()));
        bench.identity();
    }
}

#[test]
fn a_key_and_its_certificate_in_one_file_are_accepted() {
    let bench = Bench::new();
    let both =
        fs::read_to_string(bench.path("agent.crt")).unwrap() + &fs::read_to_string(bench.path("agent.key")).unwrap();
    bench.write("agent.key", &both);
    bench.write("agent.crt", &both);
    bench.identity();
}

#[test]
fn several_trust_roots_are_accepted() {
    let bench = Bench::new();
    let other = Ca::new("next authority");
    bench.write("ca.crt", other.certificate.pem() + &bench.ca.certificate.pem());
    bench.identity();
}

#[test]
fn symlinked_directories_as_kubernetes_mounts_them_are_accepted() {
    let bench = Bench::new();
    let version = bench.path("..2026_01_01");
    fs::create_dir(&version).unwrap();
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        fs::rename(bench.path(file), version.join(file)).unwrap();
        symlink(format!("..data/{file}"), bench.path(file)).unwrap();
    }
    symlink("..2026_01_01", bench.path("..data")).unwrap();
    bench.identity();
}

#[test]
fn debug_output_shows_who_it_is_and_no_key() {
    let bench = Bench::new();
    let identity: TlsIdentity = bench.identity();
    let shown = format!("{identity:?} {:?} {:?}", identity.client_config(), bench.options());
    assert!(shown.contains("agent-01"));
    for line in fs::read_to_string(bench.path("agent.key")).unwrap().lines() {
        assert!(line.starts_with("-----") || !shown.contains(line));
    }
}
