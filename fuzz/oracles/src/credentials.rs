//! The files that name a component and whom it trusts.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use bus_proto::{ComponentId, Role, TrustDomain};
use bus_tls::pki::{Authority, CaOptions, Profile};
use bus_tls::{CertificateInfo, KeyPermissions, OfflineTrust, TlsError, TlsIdentity, TlsOptions};
use tempfile::TempDir;

use crate::names::harmless;

thread_local! {
    /// Made once for each thread: tests run in several.
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// A component's files, which are fine, and one beside them for the input.
struct Desk {
    _dir: TempDir,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    crl: PathBuf,
    input: PathBuf,
    /// The component, with the files that are fine.
    identity: TlsIdentity,
    /// A moment of its certificate's validity, in Unix milliseconds.
    valid_at: i64,
    authority: Authority,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("ransomeye.local").unwrap();
        let authority = Authority::create(dir.path().join("ca"), domain, &CaOptions::default()).unwrap();
        let profile = Profile::component(Role::new("agent").unwrap(), ComponentId::new("agent-01").unwrap()).unwrap();
        let (_, files) = authority.issue_to(dir.path(), &profile, false).unwrap();
        let (ca, crl) = (authority.ca_path(), authority.crl_path());
        let identity = TlsIdentity::load(TlsOptions::new(&files.certificate, &files.key, &ca).crl(&crl)).unwrap();
        let valid_at = identity.not_after() * 1000;
        let input = dir.path().join("input");
        Self {
            _dir: dir,
            certificate: files.certificate,
            key: files.key,
            ca,
            crl,
            input,
            identity,
            valid_at,
            authority,
        }
    }

    fn load(&self, certificate: &PathBuf, key: &PathBuf, ca: &PathBuf, crl: &PathBuf) -> Result<(), TlsError> {
        let options = TlsOptions::new(certificate, key, ca).crl(crl).key_permissions(KeyPermissions::Shared);
        let loaded = TlsIdentity::load(options).map(drop);
        if let Err(error) = &loaded {
            harmless(error);
        }
        loaded
    }
}

fn with_input(input: &[u8], use_it: impl FnOnce(&Desk)) {
    DESK.with_borrow_mut(|desk| {
        let desk = desk.get_or_insert_with(Desk::new);
        fs::write(&desk.input, input).unwrap();
        use_it(desk);
    });
}

/// A text in the place of each file in turn, beside the others, which are fine.
pub fn pem(data: &[u8]) {
    with_input(data, |desk| {
        let Desk { certificate, key, ca, crl, input, .. } = desk;
        if let Err(error) = CertificateInfo::read(input) {
            harmless(&error);
        }
        let as_certificate = desk.load(input, key, ca, crl);
        let as_key = desk.load(certificate, input, ca, crl);
        let as_ca = desk.load(certificate, key, input, crl);
        let as_crl = desk.load(certificate, key, ca, input);
        for loaded in [as_certificate, as_key, as_ca, as_crl] {
            assert!(loaded.is_err(), "the keys of this run are its own");
        }
    });
}

/// A certificate in DER form, as a peer presents it or sends it in a key bundle, and wrapped in PEM in the place of the
/// component's own and of the trust root.
pub fn certificate(data: &[u8]) {
    with_input(wrapped("CERTIFICATE", data).as_bytes(), |desk| {
        let Desk { certificate, key, ca, crl, input, .. } = desk;
        let presented = CertificateInfo::from_der(data);
        let read = CertificateInfo::read(input);
        match (&presented, read) {
            (Ok(presented), Ok(read)) => assert_eq!(std::slice::from_ref(presented), read.as_slice()),
            (Err(presented), Err(read)) => {
                harmless(presented);
                harmless(&read);
            }
            (presented, read) => panic!("presented: {presented:?}, read: {read:?}"),
        }
        let credentials = desk.identity.credentials();
        let own: Vec<&[u8]> = credentials.chain().iter().map(AsRef::as_ref).collect();
        assert!(desk.identity.verify_peer(&own).is_ok(), "the control");
        for chain in [vec![data], vec![data, own[0]]] {
            let error =
                desk.identity.verify_peer(&chain).expect_err("only the authority of this run issues certificates");
            harmless(&error);
        }
        // Whatever comes along with a good certificate, it stands for nobody else.
        match desk.identity.verify_peer(&[own[0], data]) {
            Ok(leaf) => assert_eq!(*leaf.principal(), desk.identity.principal()),
            Err(error) => harmless(&error),
        }
        assert!(desk.load(input, key, ca, crl).is_err(), "nor is one in a file any better");
        assert!(desk.load(certificate, key, input, crl).is_err(), "it has not issued the component's");
    });
}

/// A revocation list in DER form, wrapped in PEM.
pub fn revocation_list(data: &[u8]) {
    with_input(wrapped("X509 CRL", data).as_bytes(), |desk| {
        let Desk { certificate, key, ca, crl, input, valid_at, .. } = desk;
        assert!(desk.load(certificate, key, ca, input).is_err(), "nobody but the authority says who is revoked");
        let credentials = desk.identity.credentials();
        let own: Vec<&[u8]> = credentials.chain().iter().map(AsRef::as_ref).collect();
        let verified_by = |list| OfflineTrust::load(ca, Some(list), *valid_at).and_then(|trust| trust.verify(&own));
        assert!(verified_by(crl).is_ok(), "the control");
        harmless(&verified_by(input).expect_err("nor who was"));
    });
}

/// The record of an authority: no line is passed over, least of all a revocation.
pub fn record(data: &[u8]) {
    with_input(&[], |desk| {
        fs::write(desk.authority.dir().join("record.tsv"), data).unwrap();
        let entries = match desk.authority.issued() {
            Ok(entries) => entries,
            Err(error) => return harmless(&error),
        };
        let text = String::from_utf8_lossy(data);
        let (whole, _torn) = text.rsplit_once('\n').unwrap_or_default();
        let lines: Vec<Vec<&str>> = whole.lines().map(|line| line.split('\t').collect()).collect();
        let of = |kind| lines.iter().filter(move |fields| fields[0] == kind);
        assert!(entries.len() >= of("issued").count());
        for (fields, entry) in of("issued").zip(&entries) {
            assert_eq!(fields[1..3], [entry.serial.as_str(), &entry.principal.spiffe_id()]);
        }
        for fields in of("revoked") {
            assert!(entries.iter().any(|entry| entry.serial == fields[1] && entry.revoked_at.is_some()));
        }
        assert!(lines.iter().all(|fields| ["issued", "revoked", "list"].contains(&fields[0])));
    });
}

/// PEM (RFC 7468).
fn wrapped(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = char::from(DIGITS[bits >> (18 - 6 * place) & 63]);
                text.push(if place <= group.len() { digit } else { '=' });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
