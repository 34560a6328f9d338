//! Faults of the trust root file.

use std::fs;

use bus_proto::TrustDomain;
use bus_tls::TlsError;
use rcgen::{IsCa, KeyPair, KeyUsagePurpose};

use crate::bench::{AGENT, Bench, Ca, assert_refused, component, uri, valid_from_to};

#[test]
fn a_trust_root_without_a_certificate_is_refused() {
    let bench = Bench::new();
    bench.write("ca.crt", bench.ca.key.serialize_pem());
    assert_refused!(bench, TlsError::NoTrustRoot { .. }, "ca.crt", "put the authority's certificate there");
}

#[test]
fn a_trust_root_that_is_no_authority_is_refused() {
    let bench = Bench::new();
    bench.write("ca.crt", fs::read(bench.path("agent.crt")).unwrap());
    assert_refused!(bench, TlsError::NotACa { .. }, "ca.crt", "remove it");
}

#[test]
fn one_certificate_among_the_trust_roots_that_is_no_authority_is_refused() {
    let bench = Bench::new();
    let leaf = fs::read_to_string(bench.path("agent.crt")).unwrap();
    bench.write("ca.crt", bench.ca.certificate.pem() + &leaf);
    assert_refused!(bench, TlsError::NotACa { .. }, "ca.crt", "remove it");
}

#[test]
fn a_trust_root_that_may_not_sign_certificates_is_refused() {
    let ca = Ca::with("test authority", KeyPair::generate().unwrap(), |params| {
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
    });
    assert_refused!(Bench::with_ca(ca), TlsError::NotACa { .. }, "ca.crt", "remove it");
}

#[test]
fn an_explicit_non_authority_is_refused_as_trust_root() {
    let ca = Ca::with("test authority", KeyPair::generate().unwrap(), |params| params.is_ca = IsCa::ExplicitNoCa);
    assert_refused!(Bench::with_ca(ca), TlsError::NotACa { .. }, "ca.crt", "remove it");
}

#[test]
fn an_expired_trust_root_is_refused_with_its_date() {
    let ca = Ca::with("test authority", KeyPair::generate().unwrap(), |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 3, 4);
    });
    let bench = Bench::with_ca(ca);
    assert_refused!(bench, TlsError::ExpiredTrustRoot { .. }, "ca.crt", "make a new authority");
    assert!(bench.load().unwrap_err().to_string().contains("2021-03-04"));
}

#[test]
fn an_expired_trust_root_beside_a_valid_one_is_left_out() {
    let bench = Bench::new();
    let expired = Ca::with("old authority", KeyPair::generate().unwrap(), |params| valid_from_to(params, -20, -10));
    bench.write("ca.crt", expired.certificate.pem() + &bench.ca.certificate.pem());
    bench.load().unwrap();
    let key = KeyPair::generate().unwrap();
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", expired.sign(&component(AGENT), &key).pem());
    assert_refused!(bench, TlsError::UnknownIssuer { .. }, "agent.crt", "own authority");
}

#[test]
fn a_trust_root_that_is_not_valid_yet_beside_a_valid_one_is_left_out() {
    let bench = Bench::new();
    let future = Ca::with("next authority", KeyPair::generate().unwrap(), |params| valid_from_to(params, 10, 20));
    bench.write("ca.crt", future.certificate.pem() + &bench.ca.certificate.pem());
    bench.load().unwrap();
    bench.write("ca.crt", future.certificate.pem());
    assert_refused!(bench, TlsError::NotYetValid { .. }, "ca.crt", "check this host's clock, or wait");
}

#[test]
fn trust_roots_of_two_trust_domains_are_refused() {
    let bench = Bench::new();
    let other = Ca::with("other authority", KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![uri("spiffe://elsewhere.test")];
    });
    bench.write("ca.crt", bench.ca.certificate.pem() + &other.certificate.pem());
    assert_refused!(bench, TlsError::ForeignTrustDomain { .. }, "ca.crt", "elsewhere.test");
}

#[test]
fn a_trust_root_of_another_trust_domain_than_the_expected_is_refused() {
    let bench = Bench::new();
    let options = bench.options().trust_domain(TrustDomain::new("elsewhere.test").unwrap());
    assert_refused!(bench, options, TlsError::ForeignTrustDomain { .. }, "ca.crt", "elsewhere.test");
}

#[test]
fn a_trust_root_with_a_malformed_identity_is_refused() {
    let ca = Ca::with("test authority", KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![uri("spiffe://ransomeye.test/with/path")];
    });
    assert_refused!(Bench::with_ca(ca), TlsError::MalformedIdentity { .. }, "ca.crt", "follows the form");
}
