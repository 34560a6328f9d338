//! The certificate authority.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bus_proto::{Principal, TrustDomain};
use bus_tls::pki::{Authority, CaOptions, Issued, KeyAlgorithm, PkiError, Profile};
use bus_tls::{CertificateInfo, KeyKind, TlsError, TlsIdentity, TlsOptions};
use rcgen::KeyPair;
use tempfile::TempDir;

use crate::bench::{Ca, now};
use crate::handshakes::connect;

pub struct Pki {
    pub dir: TempDir,
    pub authority: Authority,
}

impl Pki {
    pub fn new() -> Self {
        Self::with(&CaOptions::default())
    }

    fn with(options: &CaOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path().join("pki"), domain(), options).unwrap();
        Self { dir, authority }
    }

    pub fn options(&self, issued: &Issued) -> TlsOptions {
        let files = issued.write(self.dir.path(), true).unwrap();
        TlsOptions::new(files.certificate, files.key, self.authority.ca_path())
    }

    fn info(&self, issued: &Issued) -> CertificateInfo {
        let path = self.options(issued).certificate_path().to_owned();
        CertificateInfo::read(path).unwrap().remove(0)
    }
}

pub fn domain() -> TrustDomain {
    TrustDomain::new("ransomeye.test").unwrap()
}

pub fn agent() -> Profile {
    Profile::component("agent".parse().unwrap(), "agent-01".parse().unwrap()).unwrap()
}

fn broker() -> Profile {
    Profile::broker("n1".parse().unwrap(), ["localhost", "127.0.0.1", "::1"]).unwrap()
}

pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_issued_certificate_is_a_good_identity() {
    let pki = Pki::new();
    let issued = pki.authority.issue(&agent()).unwrap();
    let identity = TlsIdentity::load(pki.options(&issued).crl(pki.authority.crl_path())).unwrap();
    assert_eq!(identity.principal(), *issued.principal());
    assert_eq!(identity.principal().to_string(), "spiffe://ransomeye.test/agent/agent-01");
    assert_eq!(identity.leaf().serial(), issued.serial());
    assert_eq!(identity.not_after(), issued.not_after());
}

#[test]
fn components_and_brokers_connect() {
    let pki = Pki::new();
    let agent = TlsIdentity::load(pki.options(&pki.authority.issue(&agent()).unwrap())).unwrap();
    let broker = TlsIdentity::load_server(pki.options(&pki.authority.issue(&broker()).unwrap())).unwrap();
    for name in ["localhost", "127.0.0.1", "::1"] {
        connect(&agent.client_config(), &broker.server_config(), name).unwrap();
    }
}

#[test]
fn the_certificate_of_the_authority_is_constrained() {
    let pki = Pki::new();
    let info = CertificateInfo::read(pki.authority.ca_path()).unwrap().remove(0);
    assert!(info.is_ca);
    assert_eq!(info.names, ["URI:spiffe://ransomeye.test"]);
    assert_eq!(info.not_after, pki.authority.not_after());
    let ten_years = now() + 3650 * 24 * 3600;
    assert!((ten_years - info.not_after).abs() < 60);
    let der = pem_to_der(&pki.authority.ca_path());
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(certificate.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
}

fn pem_to_der(path: &Path) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

#[test]
fn a_component_has_one_name_and_one_usage() {
    let pki = Pki::new();
    let issued = pki.authority.issue(&agent()).unwrap();
    let info = pki.info(&issued);
    assert_eq!(info.names, ["URI:spiffe://ransomeye.test/agent/agent-01"]);
    assert_eq!(info.usages, ["clientAuth"]);
    assert_eq!(info.principal.as_ref(), Some(issued.principal()));
    assert!(!info.is_ca);
    assert_eq!(info.serial, issued.serial());
    assert_eq!((info.not_after, info.key), (issued.not_after(), KeyKind::P256));
    // Five minutes of tolerance for clocks, then thirty days.
    assert!((now() - 300 - info.not_before).abs() < 60);
    assert!((now() + 30 * 24 * 3600 - info.not_after).abs() < 60);
}

#[test]
fn a_broker_has_its_host_names_and_both_usages() {
    let pki = Pki::new();
    let info = pki.info(&pki.authority.issue(&broker()).unwrap());
    assert_eq!(info.names, ["URI:spiffe://ransomeye.test/broker/n1", "DNS:localhost", "IP:127.0.0.1", "IP:::1"]);
    assert_eq!(info.usages, ["serverAuth", "clientAuth"]);
}

#[test]
fn a_service_can_only_accept_connections() {
    let pki = Pki::new();
    let profile = Profile::service("ledger".parse().unwrap(), "l1".parse().unwrap(), ["localhost"]).unwrap();
    let issued = pki.authority.issue(&profile).unwrap();
    assert_eq!(pki.info(&issued).usages, ["serverAuth"]);
    let service = TlsIdentity::load_server(pki.options(&issued)).unwrap();
    let agent = TlsIdentity::load(pki.options(&pki.authority.issue(&agent()).unwrap())).unwrap();
    connect(&agent.client_config(), &service.server_config(), "localhost").unwrap();
    let error = TlsIdentity::load(pki.options(&issued)).unwrap_err();
    assert!(matches!(error, TlsError::NoClientAuth { .. }), "{error:?}");
}

#[test]
fn a_broker_with_host_names_cannot_be_a_client() {
    let pki = Pki::new();
    let error = TlsIdentity::load(pki.options(&pki.authority.issue(&broker()).unwrap())).unwrap_err();
    assert!(matches!(error, TlsError::ExtraName { .. }), "{error:?}");
}

#[test]
fn one_authority_can_follow_another_within_a_trust_domain() {
    let (old, new) = (Pki::new(), Pki::new());
    let both = |path: fn(&Authority) -> PathBuf, name: &str| {
        let text = [&old, &new].map(|pki| fs::read_to_string(path(&pki.authority)).unwrap()).concat();
        let file = old.dir.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let load = |options: TlsOptions| {
        let (roots, lists) = (both(Authority::ca_path, "roots.crt"), both(Authority::crl_path, "lists.pem"));
        TlsIdentity::load(TlsOptions::new(options.certificate_path(), options.key_path(), roots).crl(lists))
    };
    for pki in [&old, &new] {
        let issued = pki.authority.issue(&agent()).unwrap();
        load(pki.options(&issued)).unwrap();
        pki.authority.revoke_serial(issued.serial()).unwrap();
        assert!(matches!(load(pki.options(&issued)), Err(TlsError::Revoked { .. })));
    }
}

#[test]
fn authorities_of_one_trust_domain_have_different_names_however_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let domain = TrustDomain::new(&["ransomeye"; 10].join(".")).unwrap();
    let subjects = ["a", "b"].map(|name| {
        let authority = Authority::create(dir.path().join(name), domain.clone(), &CaOptions::default()).unwrap();
        CertificateInfo::read(authority.ca_path()).unwrap().remove(0).subject
    });
    assert_ne!(subjects[0], subjects[1]);
    assert!(subjects.iter().all(|subject| subject.len() == "CN=".len() + 64));
}

#[test]
fn names_that_would_command_a_terminal_are_escaped() {
    let ca = Ca::with("\u{1b}[2Jforged", KeyPair::generate().unwrap(), |_| {});
    let info = CertificateInfo::from_der(ca.certificate.der()).unwrap();
    assert_eq!(info.subject, "CN=\\u{1b}[2Jforged");
    assert_eq!(info.issuer, info.subject);
}

#[test]
fn all_key_algorithms_can_be_chosen() {
    for (algorithm, kind) in [
        (KeyAlgorithm::P384, KeyKind::P384),
        (KeyAlgorithm::Ed25519, KeyKind::Ed25519),
        (KeyAlgorithm::Rsa2048, KeyKind::Rsa { bits: 2048 }),
    ] {
        let pki = Pki::with(&CaOptions { key_algorithm: algorithm, ..CaOptions::default() });
        let reopened = Authority::open(pki.authority.dir()).unwrap();
        let issued = reopened.issue(&agent().key_algorithm(algorithm)).unwrap();
        TlsIdentity::load(pki.options(&issued)).unwrap();
        assert_eq!(pki.info(&issued).key, kind);
    }
}

#[test]
fn a_certificate_made_by_openssl_is_read_as_openssl_reads_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/fixtures/by-openssl.crt");
    let info = CertificateInfo::read(&path).unwrap().remove(0);
    assert_eq!(info.subject, "O=Example, CN=made by openssl");
    assert_eq!(info.issuer, info.subject);
    assert_eq!(info.serial, "63cf2c595dc6eb9bc19165ff7a32199091c78751");
    assert_eq!(info.names, ["URI:spiffe://ransomeye.test/agent/agent-01", "DNS:example.test"]);
    assert_eq!(info.usages, ["clientAuth", "1.2.3.4"]);
    assert_eq!(info.fingerprint, "5f0d305a5a9d792b15f7346888527fe4d24d8c70fb077cdef8a67f2d93901067");
    assert_eq!(info.key_fingerprint, "d3faef8431d093be977e680d0ee1c8849d6afdb25ed849e58c5c07e7d53259b0");
    assert_eq!(CertificateInfo::from_der(&pem_to_der(&path)).unwrap(), info);
}

#[test]
fn reserved_roles_are_refused() {
    for role in ["broker", "relay"] {
        let role: bus_proto::Role = role.parse().unwrap();
        let component: bus_proto::ComponentId = "a".parse().unwrap();
        let error = Profile::component(role.clone(), component.clone()).unwrap_err();
        assert!(matches!(error, PkiError::ReservedRole { .. }));
        let error = Profile::service(role, component, ["localhost"]).unwrap_err();
        assert!(error.to_string().contains("reserved"));
    }
}

#[test]
fn a_malformed_server_name_is_refused() {
    for name in ["", "a b", "*", "host:4222", "nats://host"] {
        let error = Profile::broker("n1".parse().unwrap(), [name]).unwrap_err();
        assert!(matches!(error, PkiError::BadServerName { .. }), "{name}");
    }
}

#[test]
fn an_authority_is_never_overwritten() {
    let pki = Pki::new();
    let before = fs::read(pki.authority.ca_path()).unwrap();
    let again = || Authority::create(pki.authority.dir(), domain(), &CaOptions::default());
    assert!(matches!(again(), Err(PkiError::AlreadyExists { .. })));
    fs::remove_file(pki.authority.ca_path()).unwrap();
    assert!(matches!(again(), Err(PkiError::Incomplete { .. })), "the key is left");
    assert!(!pki.authority.ca_path().exists());
    fs::write(pki.authority.ca_path(), before).unwrap();
    Authority::open(pki.authority.dir()).unwrap();
}

#[test]
fn issued_files_are_overwritten_only_on_demand() {
    let pki = Pki::new();
    let first = pki.authority.issue(&agent()).unwrap();
    let second = pki.authority.issue(&agent()).unwrap();
    let files = first.write(pki.dir.path(), false).unwrap();
    for kept in [&files.key, &files.certificate] {
        let other = if kept == &files.key { &files.certificate } else { &files.key };
        fs::remove_file(other).unwrap();
        let error = second.write(pki.dir.path(), false).unwrap_err();
        assert!(matches!(&error, PkiError::AlreadyExists { path } if path == kept));
        assert!(!other.exists(), "nothing is written then");
        fs::remove_file(kept).unwrap();
        first.write(pki.dir.path(), false).unwrap();
    }
    assert_eq!(fs::read_to_string(&files.certificate).unwrap(), first.certificate_pem());
    second.write(pki.dir.path(), true).unwrap();
    assert_eq!(fs::read_to_string(&files.certificate).unwrap(), second.certificate_pem());
    assert_eq!(fs::read_to_string(&files.key).unwrap(), second.key_pem());
    assert_eq!(mode(&files.key), 0o600);
}

#[test]
fn private_keys_are_readable_by_their_owner_alone() {
    let pki = Pki::new();
    let files = pki.authority.issue(&agent()).unwrap().write(pki.dir.path(), false).unwrap();
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(mode(&pki.authority.dir().join("ca.key")), 0o600);
}

#[test]
fn an_authority_can_be_opened_again() {
    let pki = Pki::new();
    let issued = Authority::open(pki.authority.dir()).unwrap().issue(&agent()).unwrap();
    TlsIdentity::load(pki.options(&issued)).unwrap();
    let entries = pki.authority.issued().unwrap();
    assert_eq!((entries.len(), entries[0].serial.as_str()), (1, issued.serial()));
}

#[test]
fn a_directory_without_an_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Authority::open(dir.path()), Err(PkiError::NoAuthority { .. })));
}

#[test]
fn an_exposed_or_foreign_authority_key_is_refused() {
    let pki = Pki::new();
    let key = pki.authority.dir().join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Authority::open(pki.authority.dir()).unwrap_err();
    assert!(matches!(error, PkiError::File(TlsError::ExposedKey { .. })), "{error:?}");
    fs::copy(Pki::new().authority.dir().join("ca.key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let error = Authority::open(pki.authority.dir()).unwrap_err();
    assert!(matches!(error, PkiError::File(TlsError::KeyMismatch { .. })), "{error:?}");
}

#[test]
fn a_revoked_component_is_refused() {
    let pki = Pki::new();
    let (first, second) = (pki.authority.issue(&agent()).unwrap(), pki.authority.issue(&agent()).unwrap());
    let load = |issued| TlsIdentity::load(pki.options(issued).crl(pki.authority.crl_path()));
    // As it was printed, or as openssl prints it.
    let entry = pki.authority.revoke_serial(&first.serial().to_uppercase()).unwrap();
    assert!(entry.revoked_at.is_some());
    assert!(matches!(load(&first), Err(TlsError::Revoked { .. })));
    load(&second).unwrap();
    let entries = pki.authority.revoke_principal(second.principal()).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(matches!(load(&second), Err(TlsError::Revoked { .. })));
    let revoked = Authority::open(pki.authority.dir()).unwrap().issued().unwrap();
    assert!(revoked.iter().all(|entry| entry.revoked_at.is_some()));
}

#[test]
fn what_was_never_issued_cannot_be_revoked() {
    let pki = Pki::new();
    let error = pki.authority.revoke_serial("00ff").unwrap_err();
    assert!(matches!(error, PkiError::UnknownSerial { .. }));
    assert!(error.to_string().contains("bus pki list"));
    let principal: Principal = "spiffe://ransomeye.test/agent/nobody".parse().unwrap();
    assert!(matches!(pki.authority.revoke_principal(&principal), Err(PkiError::UnknownPrincipal { .. })));
}

#[test]
fn the_numbers_of_revocation_lists_increase_and_their_lifetime_can_be_chosen() {
    let pki = Pki::new();
    let crl = |authority: &Authority| {
        use rustls::pki_types::CertificateRevocationListDer;
        use rustls::pki_types::pem::PemObject;
        let der = CertificateRevocationListDer::from_pem_file(authority.crl_path()).unwrap();
        let (_, list) = x509_parser::parse_x509_crl(&der).unwrap();
        let lifetime = list.next_update().unwrap().timestamp() - list.last_update().timestamp();
        (list.crl_number().unwrap().to_string(), lifetime)
    };
    assert_eq!(crl(&pki.authority), ("1".to_owned(), 7 * 24 * 3600));
    pki.authority.renew_crl().unwrap();
    let reopened = Authority::open(pki.authority.dir()).unwrap().crl_lifetime(Duration::from_secs(3600));
    reopened.renew_crl().unwrap();
    assert_eq!(crl(&reopened), ("3".to_owned(), 3600));
}

#[test]
fn any_validity_within_the_authoritys_can_be_chosen() {
    let pki = Pki::new();
    let expired = pki.authority.issue(&agent().not_before(now() - 200).not_after(now() - 100)).unwrap();
    assert!(matches!(TlsIdentity::load(pki.options(&expired)), Err(TlsError::Expired { .. })));
    let hour = pki.authority.issue(&agent().lifetime(Duration::from_secs(3600))).unwrap();
    assert!((now() + 3600 - hour.not_after()).abs() < 60);
    let empty = pki.authority.issue(&agent().not_before(now()).not_after(now() - 100));
    assert!(matches!(empty, Err(PkiError::BadValidity)));
    let endless = pki.authority.issue(&agent().lifetime(Duration::MAX));
    assert!(matches!(endless, Err(PkiError::BadValidity)));
    let long = pki.authority.issue(&agent().lifetime(Duration::from_secs(20 * 365 * 24 * 3600)));
    assert!(matches!(long, Err(PkiError::OutlivesAuthority { .. })));
}

#[test]
fn serial_numbers_are_long_and_differ() {
    let pki = Pki::new();
    let serials: Vec<String> = (0..8).map(|_| pki.authority.issue(&agent()).unwrap().serial().to_owned()).collect();
    for (index, serial) in serials.iter().enumerate() {
        assert_eq!(serial.len(), 32);
        assert!(!serials[..index].contains(serial));
    }
}

#[test]
fn debug_output_shows_no_key() {
    let pki = Pki::new();
    let issued = pki.authority.issue(&agent()).unwrap();
    let shown = format!("{issued:?} {:?}", pki.authority);
    for line in issued.key_pem().lines().filter(|line| !line.starts_with("-----")) {
        assert!(!shown.contains(line));
    }
    assert!(shown.contains("agent-01"));
}

#[test]
fn what_is_made_beside_the_certificates_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (pki, out) = (dir.path().join("deployment/pki"), dir.path().join("deployment/out/agent"));
    let authority = Authority::create(&pki, domain(), &CaOptions::default()).unwrap();
    authority.issue(&agent()).unwrap().write(&out, false).unwrap();
    for made in ["deployment", "deployment/pki", "deployment/out", "deployment/out/agent"] {
        assert_eq!(mode(&dir.path().join(made)), 0o700, "{made}");
    }
    assert_eq!(mode(&out.join(".bus-pki.lock")), 0o600);
}

#[test]
fn what_cannot_be_written_is_not_recorded() {
    let pki = Pki::new();
    let file = |name: &str| pki.dir.path().join(name);
    let refused = |overwrite| {
        let error = pki.authority.issue_to(pki.dir.path(), &agent(), overwrite).unwrap_err();
        assert!(pki.authority.issued().unwrap().is_empty(), "{error:?}");
        error
    };
    std::os::unix::fs::symlink("nowhere", file("agent-01.key")).unwrap();
    assert!(matches!(refused(false), PkiError::AlreadyExists { path } if path == file("agent-01.key")));
    assert!(matches!(refused(true), PkiError::NotReplaced { path, .. } if path == file("agent-01.key")));
    fs::remove_file(file("agent-01.key")).unwrap();
    fs::create_dir(file("agent-01.crt")).unwrap();
    assert!(matches!(refused(true), PkiError::NotReplaced { path, .. } if path == file("agent-01.crt")));
    fs::remove_dir(file("agent-01.crt")).unwrap();
    let (issued, files) = pki.authority.issue_to(pki.dir.path(), &agent(), false).unwrap();
    assert_eq!(pki.authority.issued().unwrap()[0].serial, issued.serial());
    TlsIdentity::load(TlsOptions::new(files.certificate, &files.key, pki.authority.ca_path())).unwrap();
    fs::remove_file(&files.key).unwrap();
    fs::create_dir(&files.key).unwrap();
    let error = pki.authority.issue_to(pki.dir.path(), &agent(), true).unwrap_err();
    assert!(matches!(error, PkiError::NotReplaced { path, .. } if path == files.key));
    assert_eq!(pki.authority.issued().unwrap().len(), 1);
}

#[test]
fn a_name_with_a_revoked_certificate_is_issued_none_until_that_expires() {
    let pki = Pki::new();
    let expired = pki.authority.issue(&agent().not_before(now() - 200).not_after(now() - 100)).unwrap();
    pki.authority.revoke_principal(expired.principal()).unwrap();
    assert_eq!(pki.authority.revoked_until(expired.principal()).unwrap(), None);
    let stolen = pki.authority.issue(&agent()).unwrap();
    pki.authority.issue(&agent()).unwrap();
    pki.authority.revoke_serial(stolen.serial()).unwrap();
    assert_eq!(pki.authority.revoked_until(stolen.principal()).unwrap(), Some(stolen.not_after()));
    let entries = pki.authority.issued().unwrap();
    let refusals = [
        pki.authority.issue(&agent()).unwrap_err(),
        pki.authority.issue_to(pki.dir.path(), &agent(), true).unwrap_err(),
    ];
    for error in refusals {
        assert!(
            matches!(&error, PkiError::RevokedName { principal, .. } if principal == stolen.principal()),
            "{error:?}"
        );
        assert!(error.to_string().contains("choose another name"), "{error}");
    }
    assert_eq!(pki.authority.issued().unwrap(), entries);
    assert!(!pki.dir.path().join("agent-01.key").exists());
    // Another name, or this one on demand.
    let other = Profile::component("agent".parse().unwrap(), "agent-02".parse().unwrap()).unwrap();
    pki.authority.issue(&other).unwrap();
    pki.authority.issue(&agent().despite_revocation()).unwrap();
}

#[test]
fn a_revoked_broker_keeps_its_name() {
    let pki = Pki::new();
    let revoked = pki.authority.issue(&broker()).unwrap();
    pki.authority.revoke_serial(revoked.serial()).unwrap();
    pki.authority.issue(&broker()).unwrap();
}
