//! The files of the certificate authority, and those that it writes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Barrier;

use bus_tls::pki::{Authority, CaOptions, Issued, PkiError, Profile};
use bus_tls::{TlsError, TlsIdentity};

use crate::pki::{Pki, agent, domain, mode};

fn record(pki: &Pki) -> PathBuf {
    pki.authority.dir().join("record.tsv")
}

fn append(pki: &Pki, text: &str) {
    fs::OpenOptions::new().append(true).open(record(pki)).unwrap().write_all(text.as_bytes()).unwrap();
}

fn component(role: &str, component: &str) -> Profile {
    Profile::component(role.parse().unwrap(), component.parse().unwrap()).unwrap()
}

#[test]
fn a_damaged_record_is_refused_with_its_line() {
    let pki = Pki::new();
    let path = pki.authority.dir().join("record.tsv");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}issued\tonly this\n")).unwrap();
    let error = pki.authority.issue(&agent()).unwrap_err();
    assert!(matches!(error, PkiError::DamagedRecord { line: 2, .. }), "{error:?}");
}

#[test]
fn a_missing_record_is_refused_and_not_made_anew() {
    let pki = Pki::new();
    let serial = pki.authority.issue(&agent()).unwrap().serial().to_owned();
    pki.authority.revoke_serial(&serial).unwrap();
    fs::remove_file(record(&pki)).unwrap();
    let error = Authority::open(pki.authority.dir()).unwrap_err();
    assert!(matches!(error, PkiError::MissingRecord { .. }), "{error:?}");
    assert!(matches!(pki.authority.renew_crl(), Err(PkiError::MissingRecord { .. })));
    assert!(matches!(pki.authority.issue(&agent()), Err(PkiError::MissingRecord { .. })));
    assert!(!record(&pki).exists());
}

#[test]
fn a_record_that_has_lost_a_revocation_makes_no_list() {
    let pki = Pki::new();
    let issued = pki.authority.issue(&agent()).unwrap();
    let backup = fs::read(record(&pki)).unwrap();
    pki.authority.revoke_serial(issued.serial()).unwrap();
    let list = fs::read(pki.authority.crl_path()).unwrap();
    fs::write(record(&pki), backup).unwrap();
    let error = pki.authority.renew_crl().unwrap_err();
    assert!(matches!(&error, PkiError::LostRevocation { serial, .. } if serial == issued.serial()), "{error:?}");
    assert_eq!(fs::read(pki.authority.crl_path()).unwrap(), list);
    // The revocation once more, and all is well.
    pki.authority.revoke_serial(issued.serial()).unwrap();
}

#[test]
fn the_number_of_a_list_is_above_that_of_the_last_whatever_the_record_says() {
    let pki = Pki::new();
    let backup = fs::read(record(&pki)).unwrap();
    let number = || {
        use rustls::pki_types::CertificateRevocationListDer;
        use rustls::pki_types::pem::PemObject;
        let der = CertificateRevocationListDer::from_pem_file(pki.authority.crl_path()).unwrap();
        x509_parser::parse_x509_crl(&der).unwrap().1.crl_number().unwrap().to_string()
    };
    for _ in 0..3 {
        pki.authority.renew_crl().unwrap();
    }
    assert_eq!(number(), "4");
    fs::write(record(&pki), backup).unwrap();
    pki.authority.renew_crl().unwrap();
    assert_eq!(number(), "5");
}

#[test]
fn a_damaged_list_is_replaced() {
    let pki = Pki::new();
    for damaged in ["", "not PEM", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"] {
        fs::write(pki.authority.crl_path(), damaged).unwrap();
        pki.authority.renew_crl().unwrap();
        let issued = pki.authority.issue(&agent()).unwrap();
        TlsIdentity::load(pki.options(&issued).crl(pki.authority.crl_path())).unwrap();
    }
}

#[test]
fn a_part_of_a_line_at_the_end_of_the_record_is_cut_off() {
    let pki = Pki::new();
    let issued = pki.authority.issue(&agent()).unwrap();
    let whole = fs::read_to_string(record(&pki)).unwrap();
    for part in ["i", "issued\t0123", "revoked\t", "list\t", "list\t12", "\u{fc}"] {
        append(&pki, part);
        assert_eq!(pki.authority.issued().unwrap().len(), 1, "reading leaves it out");
        Authority::open(pki.authority.dir()).unwrap().revoke_serial(issued.serial()).unwrap();
        let text = fs::read_to_string(record(&pki)).unwrap();
        assert!(text.starts_with(&whole) && text.ends_with('\n') && !text.contains(&format!("{part}revoked")));
        assert!(pki.authority.issued().unwrap()[0].revoked_at.is_some());
    }
}

#[test]
fn a_revocation_that_lacks_only_the_end_of_its_line_counts() {
    let pki = Pki::new();
    let issued = pki.authority.issue(&agent()).unwrap();
    append(&pki, &format!("revoked\t{}\t17", issued.serial()));
    pki.authority.renew_crl().unwrap();
    assert!(pki.authority.issued().unwrap()[0].revoked_at.is_some());
    let refused = TlsIdentity::load(pki.options(&issued).crl(pki.authority.crl_path())).unwrap_err();
    assert!(matches!(refused, TlsError::Revoked { .. }), "{refused:?}");
}

#[test]
fn the_record_is_for_its_owner_alone_and_need_not_be_writable_to_be_read() {
    let pki = Pki::new();
    pki.authority.issue(&agent()).unwrap();
    assert_eq!(mode(&record(&pki)), 0o600);
    fs::set_permissions(record(&pki), fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(Authority::open(pki.authority.dir()).unwrap().issued().unwrap().len(), 1);
}

#[test]
fn what_an_interrupted_creation_left_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for left in ["record.tsv", "ca.key"] {
        let path = dir.path().join(left);
        fs::write(&path, "").unwrap();
        let create = || Authority::create(dir.path(), domain(), &CaOptions::default());
        for error in [Authority::open(dir.path()).unwrap_err(), create().unwrap_err()] {
            assert!(matches!(&error, PkiError::Incomplete { found, .. } if *found == path), "{error:?}");
            assert!(error.to_string().contains("run it again"));
        }
        fs::remove_file(path).unwrap();
    }
    Authority::create(dir.path(), domain(), &CaOptions::default()).unwrap();
}

#[test]
fn creation_leaves_no_other_files() {
    let pki = Pki::new();
    let mut names: Vec<_> = fs::read_dir(pki.authority.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["ca.crt", "ca.key", "crl.pem", "record.tsv"]);
}

#[test]
fn the_authority_itself_is_never_overwritten_by_a_certificate() {
    let pki = Pki::new();
    let before = ["ca.crt", "ca.key"].map(|name| fs::read(pki.authority.dir().join(name)).unwrap());
    let issued = pki.authority.issue(&component("agent", "ca")).unwrap();
    let error = issued.write(pki.authority.dir(), true).unwrap_err();
    assert!(matches!(error, PkiError::NotReplaced { .. }), "{error:?}");
    assert!(error.to_string().contains("choose another directory"));
    assert_eq!(["ca.crt", "ca.key"].map(|name| fs::read(pki.authority.dir().join(name)).unwrap()), before);
}

#[test]
fn the_certificate_of_another_principal_is_never_overwritten() {
    let pki = Pki::new();
    let core = pki.authority.issue(&component("core", "same")).unwrap();
    let files = core.write(pki.dir.path(), false).unwrap();
    let agent = pki.authority.issue(&component("agent", "same")).unwrap();
    let refused = || matches!(agent.write(pki.dir.path(), true), Err(PkiError::NotReplaced { .. }));
    assert!(refused());
    assert_eq!(fs::read_to_string(&files.certificate).unwrap(), core.certificate_pem());
    // Nor is a key whose certificate is not there.
    fs::remove_file(files.certificate).unwrap();
    assert!(refused());
    assert_eq!(fs::read_to_string(files.key).unwrap(), core.key_pem());
}

#[test]
fn many_writers_leave_a_certificate_and_its_own_key() {
    let pki = Pki::new();
    let all: Vec<Issued> = (0..8).map(|_| pki.authority.issue(&agent()).unwrap()).collect();
    let files = all[0].write(pki.dir.path(), false).unwrap();
    let start = Barrier::new(all.len());
    for _ in 0..50 {
        std::thread::scope(|scope| {
            for issued in &all {
                scope.spawn(|| {
                    start.wait();
                    issued.write(pki.dir.path(), true).unwrap();
                });
            }
        });
        let certificate = fs::read_to_string(&files.certificate).unwrap();
        let last = all.iter().find(|issued| issued.certificate_pem() == certificate).unwrap();
        assert_eq!(fs::read_to_string(&files.key).unwrap(), last.key_pem());
    }
    let mut left = fs::read_dir(pki.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.all(|name| !name.to_string_lossy().ends_with(".new")));
}
