//! The certificates of those who send messages through others.

use std::fs;
use std::sync::LazyLock;

use bus_tls::{Origin, Refresh, TlsError, TlsIdentity, VerifiedLeaf};
use proptest::prelude::*;
use rcgen::{Certificate, CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SerialNumber};

use crate::bench::{AGENT, Bench, Ca, component, dns, now, uri, valid_from_to};

const OTHER: &str = "spiffe://ransomeye.test/agent/agent-02";

fn issued(ca: &Ca, params: &CertificateParams) -> Certificate {
    ca.sign(params, &KeyPair::generate().unwrap())
}

fn peer() -> CertificateParams {
    let mut params = component(OTHER);
    params.serial_number = Some(SerialNumber::from(42));
    params
}

fn verify(identity: &TlsIdentity, chain: &[&Certificate]) -> Result<VerifiedLeaf, TlsError> {
    let chain: Vec<&[u8]> = chain.iter().map(|certificate| certificate.der().as_ref()).collect();
    identity.verify_peer(&chain)
}

/// A bench with a revocation list of `valid_days`.
fn listed(revoked: &[u64], valid_days: i64) -> (Bench, TlsIdentity) {
    let bench = Bench::new();
    bench.write("crl.pem", bench.ca.crl(revoked, valid_days));
    let identity = TlsIdentity::load(bench.options().crl(bench.path("crl.pem"))).unwrap();
    (bench, identity)
}

#[test]
fn a_peers_chain_gives_its_identity() {
    let bench = Bench::new();
    let identity = bench.identity();
    let certificate = issued(&bench.ca, &peer());
    let leaf = verify(&identity, &[&certificate]).unwrap();
    assert_eq!((leaf.principal().to_string().as_str(), leaf.serial()), (OTHER, "2a"));
    let below = bench.ca.intermediate("intermediate authority");
    let certificate = issued(&below, &peer());
    assert_eq!(verify(&identity, &[&certificate, &below.certificate]).unwrap().principal(), leaf.principal());
}

#[test]
fn a_peers_certificate_is_judged_as_a_clients() {
    type Case = (fn(&mut CertificateParams), fn(&TlsError) -> bool);
    let cases: [Case; 6] = [
        (|params| valid_from_to(params, -20, -10), |error| matches!(error, TlsError::Expired { .. })),
        (|params| valid_from_to(params, 10, 20), |error| matches!(error, TlsError::NotYetValid { .. })),
        (
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            |error| matches!(error, TlsError::NoClientAuth { .. }),
        ),
        (|params| params.subject_alt_names.push(dns("localhost")), |error| matches!(error, TlsError::ExtraName { .. })),
        (|params| params.subject_alt_names.clear(), |error| matches!(error, TlsError::NoIdentity { .. })),
        (
            |params| params.subject_alt_names = vec![uri("spiffe://elsewhere.test/agent/agent-02")],
            |error| matches!(error, TlsError::ForeignTrustDomain { origin: Origin::Peer, .. }),
        ),
    ];
    let bench = Bench::new();
    let identity = bench.identity();
    for (change, expected) in cases {
        let mut params = peer();
        change(&mut params);
        let error = verify(&identity, &[&issued(&bench.ca, &params)]).unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
    for name in ["other authority", "test authority"] {
        let error = verify(&identity, &[&issued(&Ca::new(name), &peer())]).unwrap_err();
        assert!(matches!(error, TlsError::UnknownIssuer { .. }), "{error:?}");
    }
    let error = identity.verify_peer(&[]).unwrap_err();
    assert!(matches!(error, TlsError::MalformedCertificate { .. }), "{error:?}");
}

#[test]
fn a_peers_certificate_that_is_revoked_is_refused_once_the_list_is_in_use() {
    let (bench, identity) = listed(&[], 7);
    let certificate = issued(&bench.ca, &peer());
    verify(&identity, &[&certificate]).unwrap();
    let trusted = identity.trust_state();
    bench.write("crl.pem", bench.ca.numbered_crl(2, &[42], 7));
    verify(&identity, &[&certificate]).expect("it does not look at the files");
    assert_eq!(identity.trust_state(), trusted);
    assert_eq!(identity.refresh().unwrap(), Refresh::Rotated);
    assert_ne!(identity.trust_state(), trusted);
    let error = verify(&identity, &[&certificate]).unwrap_err();
    assert!(matches!(&error, TlsError::Revoked { serial, .. } if serial == "2a"), "{error:?}");
}

#[test]
fn a_peer_is_verified_when_all_files_are_gone() {
    let (bench, identity) = listed(&[], 7);
    let certificate = issued(&bench.ca, &peer());
    fs::remove_dir_all(bench.dir.path()).unwrap();
    verify(&identity, &[&certificate]).unwrap();
    assert_eq!(identity.trust_state().generation, 1);
}

#[test]
fn without_lists_trust_has_no_end_of_its_own() {
    let state = Bench::new().identity().trust_state();
    assert_eq!((state.generation, state.good_until_unix_ms), (1, i64::MAX));
}

#[test]
fn trust_ends_with_the_first_list_that_is_out_of_date() {
    let (bench, identity) = listed(&[], 7);
    let in_days = |days: i64| (now() + days * 24 * 3600) * 1000;
    let good_until = identity.trust_state().good_until_unix_ms;
    assert!((good_until - in_days(7)).abs() < 60_000);
    // The last millisecond before the second of `nextUpdate`, at which the list is refused.
    assert_eq!(good_until.rem_euclid(1000), 999);
    bench.write("crl.pem", Ca::new("another authority").crl(&[], 3) + &bench.ca.numbered_crl(2, &[], 9));
    identity.refresh().unwrap();
    assert!((identity.trust_state().good_until_unix_ms - in_days(3)).abs() < 60_000);
    bench.write("crl.pem", bench.ca.numbered_crl(3, &[], -1));
    identity.refresh().unwrap();
    assert!(identity.trust_state().good_until_unix_ms < in_days(0));
    let error = verify(&identity, &[&issued(&bench.ca, &peer())]).unwrap_err();
    assert!(matches!(error, TlsError::StaleCrl { .. }), "{error:?}");
}

#[test]
fn every_rotation_changes_the_state_of_trust() {
    let bench = Bench::new();
    let identity = bench.identity();
    assert_eq!(identity.trust_state().generation, 1);
    bench.issue(&component(AGENT));
    identity.refresh().unwrap();
    assert_eq!(identity.trust_state().generation, 2);
    let next = Ca::new("next authority");
    bench.write("ca.crt", bench.ca.certificate.pem() + &next.certificate.pem());
    identity.refresh().unwrap();
    assert_eq!(identity.trust_state().generation, identity.generation());
    assert_eq!(identity.generation(), 3);
    verify(&identity, &[&issued(&next, &peer())]).unwrap();
}

/// An identity with a revocation list, and a chain of three that it accepts.
struct Fixture {
    _bench: Bench,
    identity: TlsIdentity,
    chain: Vec<Vec<u8>>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let bench = Bench::new();
    let middle = bench.ca.intermediate("intermediate authority");
    let lower = middle.intermediate("lower authority");
    bench.write("crl.pem", bench.ca.crl(&[1], 7) + &middle.crl(&[2], 7) + &lower.crl(&[3], 7));
    let identity = TlsIdentity::load(bench.options().crl(bench.path("crl.pem"))).unwrap();
    let chain = [&issued(&lower, &peer()), &lower.certificate, &middle.certificate];
    verify(&identity, &chain).unwrap();
    let chain = chain.iter().map(|certificate| certificate.der().to_vec()).collect();
    Fixture { _bench: bench, identity, chain }
});

fn borrowed(chain: &[Vec<u8>]) -> Vec<&[u8]> {
    chain.iter().map(Vec::as_slice).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_peer(chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5)) {
        prop_assert!(FIXTURE.identity.verify_peer(&borrowed(&chain)).is_err());
    }

    #[test]
    fn a_chain_in_which_one_byte_is_changed_is_no_peer(
        which in 0_usize..3,
        at in any::<proptest::sample::Index>(),
        change in 1_u8..,
    ) {
        let mut chain = FIXTURE.chain.clone();
        let at = at.index(chain[which].len());
        chain[which][at] ^= change;
        prop_assert!(FIXTURE.identity.verify_peer(&borrowed(&chain)).is_err());
    }

    #[test]
    fn a_chain_that_is_cut_or_extended_is_no_peer(
        which in 0_usize..3,
        at in any::<proptest::sample::Index>(),
        more in proptest::collection::vec(any::<u8>(), 1..20),
        cut in any::<bool>(),
    ) {
        let mut chain = FIXTURE.chain.clone();
        if cut {
            let at = at.index(chain[which].len());
            chain[which].truncate(at);
        } else {
            chain[which].extend(more);
        }
        prop_assert!(FIXTURE.identity.verify_peer(&borrowed(&chain)).is_err());
    }
}
