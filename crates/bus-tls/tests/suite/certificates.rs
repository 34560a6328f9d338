//! Faults of the certificate itself.

use bus_proto::TrustDomain;
use bus_tls::{TlsError, TlsIdentity};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo};

use crate::bench::{AGENT, Bench, Ca, assert_refused, component, dns, server, uri, valid_from_to};

#[test]
fn an_expired_certificate_is_refused_with_its_date() {
    let bench = Bench::changed(|params| {
        valid_from_to(params, -20, -10);
        params.not_after = rcgen::date_time_ymd(2021, 3, 4);
        params.not_before = rcgen::date_time_ymd(2021, 3, 1);
    });
    assert_refused!(bench, TlsError::Expired { .. }, "agent.crt", "issue a new one");
    assert!(bench.load().unwrap_err().to_string().contains("2021-03-04 00:00:00 UTC"));
}

#[test]
fn a_certificate_that_is_not_yet_valid_is_refused_with_its_date() {
    let bench = Bench::changed(|params| {
        params.not_before = rcgen::date_time_ymd(2999, 1, 2);
        params.not_after = rcgen::date_time_ymd(2999, 2, 3);
    });
    assert_refused!(bench, TlsError::NotYetValid { .. }, "agent.crt", "check this host's clock");
    assert!(bench.load().unwrap_err().to_string().contains("2999-01-02 00:00:00 UTC"));
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    // Under another name, and under the same name with another key.
    for name in ["other authority", "test authority"] {
        let bench = Bench::new();
        bench.write("ca.crt", Ca::new(name).certificate.pem());
        assert_refused!(bench, TlsError::UnknownIssuer { .. }, "agent.crt", "this deployment's own authority");
        assert!(bench.load().unwrap_err().to_string().contains("ca.crt"));
    }
}

#[test]
fn a_self_signed_certificate_is_refused() {
    let bench = Bench::new();
    let key = KeyPair::generate().unwrap();
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", component(AGENT).self_signed(&key).unwrap().pem());
    assert_refused!(bench, TlsError::SelfSigned { .. }, "agent.crt", "signed by an authority");
}

#[test]
fn a_self_signed_certificate_is_no_trust_root_of_its_own() {
    let bench = Bench::new();
    let key = KeyPair::generate().unwrap();
    let pem = component(AGENT).self_signed(&key).unwrap().pem();
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", &pem);
    bench.write("ca.crt", &pem);
    assert_refused!(bench, TlsError::NotACa { .. }, "ca.crt", "remove it");
}

#[test]
fn the_certificate_of_an_authority_is_refused_as_a_leaf() {
    let bench = Bench::new();
    bench.write("agent.key", bench.ca.key.serialize_pem());
    bench.write("agent.crt", bench.ca.certificate.pem());
    assert_refused!(bench, TlsError::CaAsLeaf { .. }, "agent.crt", "issued to the component itself");
}

#[test]
fn a_certificate_without_client_auth_is_refused() {
    for usages in [
        vec![],
        vec![ExtendedKeyUsagePurpose::ServerAuth],
        vec![ExtendedKeyUsagePurpose::Any],
        vec![ExtendedKeyUsagePurpose::CodeSigning],
    ] {
        let bench = Bench::changed(|params| params.extended_key_usages = usages);
        assert_refused!(bench, TlsError::NoClientAuth { .. }, "agent.crt", "issue one that has it");
    }
}

#[test]
fn a_certificate_without_server_auth_is_refused_for_a_server() {
    let bench = Bench::new();
    let error = TlsIdentity::load_server(bench.options()).unwrap_err();
    assert!(matches!(error, TlsError::NoServerAuth { .. }), "{error:?}");
    bench.check_message(&error, "agent.crt", "issue one that has it");
}

#[test]
fn a_key_usage_without_signatures_is_refused() {
    let bench = Bench::changed(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert_refused!(bench, TlsError::NoDigitalSignature { .. }, "agent.crt", "digitalSignature");
}

#[test]
fn a_certificate_without_an_identity_is_refused() {
    for names in [vec![], vec![uri("https://ransomeye.test/agent/agent-01")]] {
        let bench = Bench::changed(|params| params.subject_alt_names = names);
        assert_refused!(bench, TlsError::NoIdentity { .. }, "agent.crt", "spiffe://<trust-domain>/<role>/<component>");
    }
}

#[test]
fn a_common_name_is_no_identity() {
    let bench = Bench::changed(|params| {
        params.subject_alt_names = vec![];
        params.distinguished_name = crate::bench::named(AGENT);
    });
    assert_refused!(bench, TlsError::NoIdentity { .. }, "agent.crt", "issue one");
}

#[test]
fn two_identities_are_refused() {
    for second in ["spiffe://ransomeye.test/core/core-01", AGENT, "SPIFFE://ransomeye.test/core/core-01"] {
        let bench = Bench::changed(|params| params.subject_alt_names.push(uri(second)));
        assert_refused!(bench, TlsError::SeveralIdentities { count: 2, .. }, "agent.crt", "exactly one");
    }
}

#[test]
fn a_malformed_identity_is_refused() {
    for id in [
        "spiffe://ransomeye.test/agent",
        "spiffe://ransomeye.test/agent/a/b",
        "spiffe://ransomeye.test/Agent/a",
        "spiffe://ransomeye.test/agent/a.b",
        "spiffe://ransomeye.test/agent/*",
        "spiffe:ransomeye.test/agent/a",
        "SPIFFE://ransomeye.test/agent/a",
        "spiffe://ransomeye.test",
    ] {
        let bench = Bench::changed(|params| params.subject_alt_names = vec![uri(id)]);
        assert_refused!(bench, TlsError::MalformedIdentity { .. }, "agent.crt", "follows the form");
    }
}

#[test]
fn an_identity_of_another_trust_domain_than_the_trust_root_names_is_refused() {
    let bench = Bench::changed(|params| params.subject_alt_names = vec![uri("spiffe://elsewhere.test/agent/a")]);
    assert_refused!(bench, TlsError::ForeignTrustDomain { .. }, "agent.crt", "ransomeye.test");
}

#[test]
fn an_identity_of_another_trust_domain_than_the_expected_is_refused() {
    let ca = Ca::with("plain authority", KeyPair::generate().unwrap(), |params| params.subject_alt_names.clear());
    let bench = Bench::with_ca(ca);
    bench.load().unwrap();
    let options = bench.options().trust_domain(TrustDomain::new("elsewhere.test").unwrap());
    assert_refused!(bench, options, TlsError::ForeignTrustDomain { .. }, "agent.crt", "elsewhere.test");
}

#[test]
fn a_further_name_is_refused() {
    let email = SanType::Rfc822Name("core@ransomeye.test".try_into().unwrap());
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    for (name, shown) in [
        (dns("core-01"), "DNS:core-01"),
        (email, "email:core@ransomeye.test"),
        (uri("https://ransomeye.test/"), "URI:https://ransomeye.test/"),
        (address, "IP:127.0.0.1"),
    ] {
        for first in [true, false] {
            let bench = Bench::changed(|params| {
                let at = if first { 0 } else { 1 };
                params.subject_alt_names.insert(at, name.clone());
            });
            assert_refused!(bench, TlsError::ExtraName { .. }, "agent.crt", shown);
        }
    }
}

#[test]
fn a_server_may_have_host_names_but_no_other() {
    let bench = Bench::new();
    let mut params = server("spiffe://ransomeye.test/broker/n1");
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    bench.issue(&params);
    TlsIdentity::load_server(bench.options()).unwrap();
    params.subject_alt_names.push(SanType::Rfc822Name("core@ransomeye.test".try_into().unwrap()));
    bench.issue(&params);
    let error = TlsIdentity::load_server(bench.options()).unwrap_err();
    assert!(matches!(error, TlsError::ExtraName { .. }), "{error:?}");
}

#[test]
fn an_rsa_key_below_2048_bits_is_refused() {
    let bench = Bench::new();
    let key = SubjectPublicKeyInfo::from_pem(include_str!("fixtures/rsa1024-public.pem")).unwrap();
    bench.write("agent.crt", bench.ca.sign(&component(AGENT), &key).pem());
    assert_refused!(bench, TlsError::WeakRsaKey { bits: 1024, .. }, "agent.crt", "at least 2048");
}

#[test]
fn a_p521_key_is_refused() {
    let bench = Bench::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    bench.issue_for(&component(AGENT), &key);
    assert_refused!(bench, TlsError::UnsupportedKey { .. }, "agent.crt", "use P-256");
}

/// A PEM certificate whose signature claims another hash. The signature is then wrong as well, but the hash is what is
/// looked at first.
fn with_signature_hash(der: &[u8], last_arc: u8) -> String {
    const SHA256_WITH_RSA: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
    let mut der = der.to_vec();
    let places: Vec<usize> = (0..der.len()).filter(|at| der[*at..].starts_with(&SHA256_WITH_RSA)).collect();
    assert_eq!(places.len(), 2, "inside the signed part and outside");
    for at in places {
        der[at + 10] = last_arc;
    }
    pem_of("CERTIFICATE", &der)
}

/// PEM from DER, by way of a certificate library that has no function for it.
pub fn pem_of(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn a_signature_over_a_broken_hash_is_refused() {
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let bench = Bench::with_ca(Ca::with("rsa authority", key, |_| {}));
    let certificate = bench.issue(&component(AGENT));
    bench.load().unwrap();
    for (last_arc, name) in [(5, "SHA-1"), (4, "MD5")] {
        bench.write("agent.crt", with_signature_hash(certificate.der(), last_arc));
        assert_refused!(bench, TlsError::WeakSignature { .. }, "agent.crt", name);
    }
}

#[test]
fn a_certificate_that_is_no_x509_is_refused() {
    let bench = Bench::new();
    bench.write("agent.crt", pem_of("CERTIFICATE", b"\x30\x03\x02\x01\x01"));
    assert_refused!(bench, TlsError::MalformedCertificate { .. }, "agent.crt", "issue a new one");
}

#[test]
fn bytes_after_a_certificate_are_refused() {
    let bench = Bench::new();
    let mut der = bench.issue(&component(AGENT)).der().to_vec();
    der.push(0);
    bench.write("agent.crt", pem_of("CERTIFICATE", &der));
    assert_refused!(bench, TlsError::MalformedCertificate { .. }, "agent.crt", "bytes follow its end");
}

#[test]
fn a_missing_intermediate_is_refused() {
    let bench = Bench::new();
    let below = bench.ca.intermediate("intermediate authority");
    let key = KeyPair::generate().unwrap();
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", below.sign(&component(AGENT), &key).pem());
    assert_refused!(bench, TlsError::UnknownIssuer { .. }, "agent.crt", "this deployment's own authority");
}

#[test]
fn an_intermediate_that_has_expired_is_refused() {
    let bench = Bench::new();
    let mut below = bench.ca.intermediate("intermediate authority");
    valid_from_to(&mut below.params, -20, -10);
    let expired = bench.ca.sign(&below.params, &below.key);
    let key = KeyPair::generate().unwrap();
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", below.sign(&component(AGENT), &key).pem() + &expired.pem());
    assert_refused!(bench, TlsError::InvalidChain { .. }, "agent.crt", "check the intermediate certificates");
}
