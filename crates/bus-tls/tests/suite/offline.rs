//! Certificates in captured evidence.

use bus_tls::{OfflineTrust, Origin, TlsError, TlsIdentity, VerifiedLeaf};
use proptest::prelude::*;
use rcgen::{Certificate, KeyPair, RevokedCertParams, SerialNumber};
use time::{Duration, OffsetDateTime};

use crate::bench::{AGENT, Bench, Ca, component, revoked_at, uri, valid_from_to};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// So many days from now, in Unix milliseconds.
fn day(days: i64) -> i64 {
    crate::bench::now() * 1000 + days * DAY_MS
}

/// A bench whose authority and component both ended some days ago: the component was valid from day -100 to day -50, its
/// authority from day -200 to day -20.
fn past() -> (Bench, Certificate) {
    let ca = Ca::with("test authority", KeyPair::generate().unwrap(), |params| valid_from_to(params, -200, -20));
    let bench = Bench::with_ca(ca);
    let mut params = component(AGENT);
    valid_from_to(&mut params, -100, -50);
    let certificate = bench.issue(&params);
    (bench, certificate)
}

fn verify(bench: &Bench, crl: Option<&str>, at: i64, chain: &[&Certificate]) -> Result<VerifiedLeaf, TlsError> {
    let crl = crl.map(|name| bench.path(name));
    let trust = OfflineTrust::load(&bench.path("ca.crt"), crl.as_deref(), at)?;
    let chain: Vec<&[u8]> = chain.iter().map(|certificate| certificate.der().as_ref()).collect();
    trust.verify(&chain)
}

#[test]
fn a_certificate_is_verified_as_of_a_time_in_the_past() {
    let (bench, certificate) = past();
    let leaf = verify(&bench, None, day(-75), &[&certificate]).unwrap();
    assert_eq!(leaf.principal().to_string(), AGENT);
    assert!(TlsIdentity::load(bench.options()).is_err(), "today it is not");
}

#[test]
fn a_certificate_that_was_not_valid_then_is_refused_with_the_reason() {
    let (bench, certificate) = past();
    for (at, reason) in [(-30, "it expired at"), (-150, "it is valid from")] {
        let error = verify(&bench, None, day(at), &[&certificate]).unwrap_err();
        assert!(matches!(error, TlsError::NotValidThen { origin: Origin::Evidence, .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn an_authority_that_was_not_valid_then_is_not_trusted() {
    let (bench, certificate) = past();
    for at in [day(-300), day(0), day(10_000), -1, i64::MIN, i64::MAX] {
        let error = verify(&bench, None, at, &[&certificate]).unwrap_err();
        assert!(matches!(error, TlsError::NoTrustRootThen { .. }), "{error:?}");
        bench.check_message(&error, "ca.crt", "of that time");
    }
}

#[test]
fn of_several_authorities_those_that_were_valid_then_count() {
    let (bench, certificate) = past();
    let present = Ca::new("present authority");
    bench.write("ca.crt", bench.ca.certificate.pem() + &present.certificate.pem());
    verify(&bench, None, day(-75), &[&certificate]).unwrap();
    let error = verify(&bench, None, day(0), &[&certificate]).unwrap_err();
    assert!(matches!(error, TlsError::NotValidThen { .. }), "{error:?}");
    let now = present.sign(&component(AGENT), &KeyPair::generate().unwrap());
    verify(&bench, None, day(0), &[&now]).unwrap();
    verify(&bench, None, day(-75), &[&now]).unwrap_err();
}

#[test]
fn a_certificate_of_another_authority_or_trust_domain_is_refused_as_evidence() {
    let bench = Bench::new();
    let other = Ca::new("other authority").sign(&component(AGENT), &KeyPair::generate().unwrap());
    let error = verify(&bench, None, day(0), &[&other]).unwrap_err();
    assert!(matches!(error, TlsError::UnknownIssuer { .. }), "{error:?}");
    assert!(error.to_string().contains("in the evidence"), "{error}");
    let mut params = component(AGENT);
    params.subject_alt_names = vec![uri("spiffe://elsewhere.test/agent/agent-01")];
    let foreign = bench.ca.sign(&params, &KeyPair::generate().unwrap());
    let error = verify(&bench, None, day(0), &[&foreign]).unwrap_err();
    assert!(matches!(error, TlsError::ForeignTrustDomain { .. }), "{error:?}");
}

#[test]
fn a_list_that_is_out_of_date_does_not_refuse_evidence() {
    let (bench, certificate) = past();
    bench.write("crl.pem", bench.ca.crl(&[1], -10));
    verify(&bench, Some("crl.pem"), day(-75), &[&certificate]).unwrap();
    let bench = Bench::new();
    let certificate = bench.issue(&component(AGENT));
    bench.write("crl.pem", bench.ca.crl(&[1], -10));
    verify(&bench, Some("crl.pem"), day(0), &[&certificate]).unwrap();
}

/// The error for evidence as of day -75 when the list, out of date for ten days, has this entry.
fn revocation(entry: RevokedCertParams) -> TlsError {
    let (bench, certificate) = past();
    bench.write("crl.pem", bench.ca.crl_of(1, vec![entry], -10));
    verify(&bench, None, day(-75), &[&certificate]).expect("without the list it is good");
    let error = verify(&bench, Some("crl.pem"), day(-75), &[&certificate]).unwrap_err();
    bench.check_message(&error, "crl.pem", "compare that with the time of the evidence");
    error
}

#[test]
fn a_revocation_counts_whatever_the_age_of_the_list_and_tells_since_when() {
    // Before and after the evidence was made.
    for days in [-80, -60] {
        let at = OffsetDateTime::now_utc() + Duration::days(days);
        let error = revocation(revoked_at(7, at));
        let TlsError::RevokedSince { serial, since_unix_ms, .. } = &error else { panic!("{error:?}") };
        assert_eq!((serial.as_str(), *since_unix_ms), ("07", at.unix_timestamp() * 1000));
        let date = at.date().to_string();
        assert!(error.to_string().contains(&format!("(serial 07) has been revoked since {date} ")), "{error}");
    }
}

#[test]
fn a_certificate_that_its_authority_held_for_invalid_earlier_is_revoked_since_then() {
    let at = OffsetDateTime::now_utc();
    for (invalid, since) in [(at - Duration::days(90), at - Duration::days(90)), (at + Duration::days(1), at)] {
        let error = revocation(RevokedCertParams { invalidity_date: Some(invalid), ..revoked_at(7, at) });
        let expected = since.unix_timestamp() * 1000;
        assert!(
            matches!(error, TlsError::RevokedSince { since_unix_ms, .. } if since_unix_ms == expected),
            "{error:?}"
        );
    }
}

#[test]
fn the_revocation_of_an_intermediate_names_the_intermediate() {
    let bench = Bench::new();
    let mut below = bench.ca.intermediate("intermediate authority");
    below.params.serial_number = Some(SerialNumber::from(99));
    below.certificate = bench.ca.sign(&below.params, &below.key);
    let certificate = below.sign(&component(AGENT), &KeyPair::generate().unwrap());
    bench.write("crl.pem", bench.ca.crl(&[99], 7) + &below.crl(&[], 7));
    let error = verify(&bench, Some("crl.pem"), day(0), &[&certificate, &below.certificate]).unwrap_err();
    assert!(matches!(&error, TlsError::RevokedSince { serial, .. } if serial == "63"), "{error:?}");
}

#[test]
fn a_list_that_says_nothing_about_the_certificate_is_refused_by_name() {
    let (bench, certificate) = past();
    bench.write("crl.pem", Ca::new("other authority").crl(&[], 7));
    let error = verify(&bench, Some("crl.pem"), day(-75), &[&certificate]).unwrap_err();
    assert!(matches!(error, TlsError::ForeignCrl { .. }), "{error:?}");
    bench.check_message(&error, "crl.pem", "own authority");
    let error = verify(&bench, Some("missing.pem"), day(-75), &[&certificate]).unwrap_err();
    assert!(matches!(error, TlsError::Missing { .. }), "{error:?}");
    bench.check_message(&error, "missing.pem", "correct the path");
}

#[test]
fn debug_output_of_offline_trust_names_its_files() {
    let bench = Bench::new();
    let trust = OfflineTrust::load(&bench.path("ca.crt"), None, day(0)).unwrap();
    assert!(format!("{trust:?}").contains("ca.crt"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_evidence(
        chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5),
        at in any::<i64>(),
    ) {
        let bench = Bench::new();
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let path = bench.path("ca.crt");
        let trust = OfflineTrust::load(&path, None, at).or_else(|_| OfflineTrust::load(&path, None, day(0))).unwrap();
        prop_assert!(trust.verify(&chain).is_err());
    }
}
