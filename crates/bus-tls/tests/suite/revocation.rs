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

#[test]
fn of_two_lists_of_one_authority_the_newer_counts() {
    let bench = Bench::new();
    let (older, newer) = (bench.ca.numbered_crl(1, &[], 7), bench.ca.numbered_crl(2, &[7], 7));
    let options = bench.options().crl(bench.path("crl.pem"));
    for both in [format!("{older}{newer}"), format!("{newer}{older}")] {
        bench.write("crl.pem", both);
        assert_refused!(bench, options.clone(), TlsError::Revoked { .. }, "agent.crt", "issue a new one");
    }
    let reinstated = bench.ca.numbered_crl(3, &[], 7);
    bench.write("crl.pem", format!("{newer}{reinstated}{newer}"));
    TlsIdentity::load(options).unwrap();
}

#[test]
fn numbers_of_lists_are_compared_as_numbers() {
    let bench = Bench::new();
    bench.write("crl.pem", bench.ca.numbered_crl(9, &[], 7) + &bench.ca.numbered_crl(0x1_0000, &[7], 7));
    let options = bench.options().crl(bench.path("crl.pem"));
    assert_refused!(bench, options, TlsError::Revoked { .. }, "agent.crt", "issue a new one");
}

#[test]
fn different_lists_of_one_number_and_date_are_refused_together() {
    let bench = Bench::new();
    let (one, other) = (bench.ca.crl(&[], 7), bench.ca.crl(&[7], 7));
    let options = bench.options().crl(bench.path("crl.pem"));
    bench.write("crl.pem", format!("{one}{other}"));
    assert_refused!(bench, options.clone(), TlsError::AmbiguousCrl { .. }, "crl.pem", "leave only the current list");
    // The same list twice is one.
    bench.write("crl.pem", format!("{one}{one}"));
    TlsIdentity::load(options).unwrap();
}

#[test]
fn the_lists_of_two_authorities_of_one_name_are_refused_together() {
    let bench = Bench::new();
    bench.write("crl.pem", bench.ca.crl(&[], 7) + &Ca::new("test authority").numbered_crl(2, &[], 7));
    let options = bench.options().crl(bench.path("crl.pem"));
    assert_refused!(bench, options, TlsError::AmbiguousCrl { .. }, "crl.pem", "a name of its own");
}
