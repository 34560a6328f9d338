//! Revocation lists.

use bus_tls::{TlsError, TlsIdentity};
use rcgen::KeyPair;

use crate::bench::{AGENT, Bench, Ca, assert_refused, component};
use crate::certificates::pem_of;

#[test]
fn a_certificate_that_is_not_on_the_list_is_accepted() {
    let bench = Bench::new();
    bench.write("crl.pem", bench.ca.crl(&[1, 2, 3], 7));
    TlsIdentity::load(bench.options().crl(bench.path("crl.pem"))).unwrap();
}

#[test]
fn a_revoked_certificate_is_refused() {
    let bench = Bench::new();
    bench.write("crl.pem", bench.ca.crl(&[7], 7));
    let options = bench.options().crl(bench.path("crl.pem"));
    assert_refused!(bench, options, TlsError::Revoked { .. }, "agent.crt", "issue a new one");
}

#[test]
fn a_list_that_is_out_of_date_is_refused() {
    let bench = Bench::new();
    bench.write("crl.pem", bench.ca.crl(&[], -1));
    let options = bench.options().crl(bench.path("crl.pem"));
    assert_refused!(bench, options, TlsError::StaleCrl { .. }, "crl.pem", "fetch the current one");
}

#[test]
fn a_list_of_another_authority_is_refused() {
    // Under another name, and under the same name with another key.
    for name in ["other authority", "test authority"] {
        let bench = Bench::new();
        bench.write("crl.pem", Ca::new(name).crl(&[], 7));
        let options = bench.options().crl(bench.path("crl.pem"));
        assert_refused!(bench, options, TlsError::ForeignCrl { .. }, "crl.pem", "this deployment's own authority");
    }
}

#[test]
fn a_malformed_list_is_refused() {
    let bench = Bench::new();
    bench.write("crl.pem", pem_of("X509 CRL", b"\x30\x03\x02\x01\x01"));
    let options = bench.options().crl(bench.path("crl.pem"));
    assert_refused!(bench, options, TlsError::MalformedCrl { .. }, "crl.pem", "fetch the current one");
}

#[test]
fn every_authority_of_a_chain_needs_a_list() {
    let bench = Bench::new();
    let below = bench.ca.intermediate("intermediate authority");
    let key = KeyPair::generate().unwrap();
    bench.write("agent.key", key.serialize_pem());
    bench.write("agent.crt", below.sign(&component(AGENT), &key).pem() + &below.certificate.pem());
    let options = bench.options().crl(bench.path("crl.pem"));
    bench.write("crl.pem", below.crl(&[], 7));
    assert_refused!(bench, options.clone(), TlsError::ForeignCrl { .. }, "crl.pem", "own authority");
    bench.write("crl.pem", below.crl(&[], 7) + &bench.ca.crl(&[], 7));
    TlsIdentity::load(options).unwrap();
}
