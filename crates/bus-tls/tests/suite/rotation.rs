//! The files change while the program runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};

use bus_tls::{Refresh, TlsError, TlsIdentity, TlsServerIdentity};
use rcgen::{CertificateParams, KeyPair, SerialNumber};
use rustls::pki_types::CertificateDer;
use tracing::field::{Field, Visit};
use tracing::span;

use crate::bench::{AGENT, Bench, Ca, component, server, uri, valid_from_to, write};
use crate::handshakes::{BROKER, Deployment, careless_server, connect};

fn with_serial(mut params: CertificateParams, serial: u64) -> CertificateParams {
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// The serial number of the certificate that the server gets to see.
fn client_serial(deployment: &Deployment) -> String {
    let connected = deployment.connect().unwrap();
    let chain = connected.server.peer_certificates().unwrap();
    deployment.server.verify_peer(chain).unwrap().serial().to_owned()
}

#[test]
fn the_next_handshake_uses_the_new_certificate_of_the_client() {
    let deployment = Deployment::new();
    assert_eq!(client_serial(&deployment), "07");
    deployment.agent.issue(&with_serial(component(AGENT), 9));
    assert_eq!(client_serial(&deployment), "09");
    assert_eq!(deployment.client.generation(), 2);
    assert_eq!(deployment.client.leaf().serial(), "09");
}

#[test]
fn the_next_handshake_uses_the_new_certificate_of_the_server() {
    let deployment = Deployment::new();
    let before = deployment.connect().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = deployment.agent.ca.sign(&with_serial(server(BROKER), 9), &key);
    deployment.broker.write("agent.key", key.serialize_pem());
    deployment.broker.write("agent.crt", certificate.pem());
    let after = deployment.connect().unwrap();
    assert_ne!(before.client.peer_certificates(), after.client.peer_certificates());
    assert_eq!(after.client.peer_certificates().unwrap()[0], *certificate.der());
}

#[test]
fn a_configuration_made_before_follows_rotation_and_so_do_clones() {
    let deployment = Deployment::new();
    let config = Arc::new((*deployment.client.client_config()).clone());
    let twin = deployment.client.clone();
    deployment.agent.issue(&with_serial(component(AGENT), 9));
    let server = deployment.server.server_config();
    let connected = connect(&config, &server, "localhost").unwrap();
    let chain = connected.server.peer_certificates().unwrap();
    assert_eq!(deployment.server.verify_peer(chain).unwrap().serial(), "09");
    assert_eq!(twin.generation(), 2);
}

#[test]
fn unchanged_files_are_not_read_again() {
    let bench = Bench::new();
    let identity = bench.identity();
    assert_eq!(identity.refresh().unwrap(), Refresh::Unchanged);
    assert_eq!(identity.generation(), 1);
}

#[test]
fn changed_files_are_taken_on_demand() {
    let bench = Bench::new();
    let identity = bench.identity();
    bench.issue(&with_serial(component(AGENT), 9));
    assert_eq!(identity.refresh().unwrap(), Refresh::Rotated);
    assert_eq!(identity.refresh().unwrap(), Refresh::Unchanged);
    assert_eq!((identity.generation(), identity.leaf().serial()), (2, "09"));
}

#[test]
fn a_bad_file_keeps_the_good_credentials() {
    let deployment = Deployment::new();
    for bad in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        deployment.agent.write("agent.crt", bad);
        assert_eq!(client_serial(&deployment), "07");
        assert!(deployment.client.refresh().is_err());
    }
    fs::remove_file(deployment.agent.path("agent.crt")).unwrap();
    assert_eq!(client_serial(&deployment), "07");
    let error = deployment.client.refresh().unwrap_err();
    assert!(matches!(error, TlsError::Missing { .. }), "{error:?}");
    assert_eq!(deployment.client.generation(), 1);
    deployment.agent.issue(&with_serial(component(AGENT), 9));
    assert_eq!(client_serial(&deployment), "09");
}

#[test]
fn an_expired_certificate_is_not_rotated_to() {
    let bench = Bench::new();
    let identity = bench.identity();
    let mut params = component(AGENT);
    valid_from_to(&mut params, -20, -10);
    bench.issue(&params);
    assert!(matches!(identity.refresh(), Err(TlsError::Expired { .. })));
    assert_eq!(identity.generation(), 1);
}

#[test]
fn a_half_written_rotation_waits_for_the_key() {
    let bench = Bench::new();
    let identity = bench.identity();
    let key = KeyPair::generate().unwrap();
    bench.write("agent.crt", bench.ca.sign(&with_serial(component(AGENT), 9), &key).pem());
    assert!(matches!(identity.refresh(), Err(TlsError::KeyMismatch { .. })));
    assert_eq!(identity.leaf().serial(), "07");
    bench.write("agent.key", key.serialize_pem());
    assert_eq!(identity.refresh().unwrap(), Refresh::Rotated);
    assert_eq!(identity.leaf().serial(), "09");
}

#[test]
fn the_files_of_another_principal_are_refused() {
    let bench = Bench::new();
    let identity = bench.identity();
    bench.issue(&component("spiffe://ransomeye.test/core/core-01"));
    let error = identity.refresh().unwrap_err();
    assert!(matches!(error, TlsError::PrincipalChanged { .. }), "{error:?}");
    bench.check_message(&error, "agent.crt", "restart it");
    assert_eq!(identity.principal().to_string(), AGENT);
    assert_eq!(identity.leaf().principal().to_string(), AGENT);
}

#[test]
fn a_new_trust_root_is_used_by_the_next_handshake() {
    let deployment = Deployment::new();
    let next = Ca::new("next authority");
    // First both authorities, then new certificates, then only the new authority: at no time does a handshake fail.
    let both = deployment.agent.ca.certificate.pem() + &next.certificate.pem();
    deployment.agent.write("ca.crt", &both);
    deployment.broker.write("ca.crt", &both);
    deployment.connect().unwrap();
    for (bench, params) in [(&deployment.agent, component(AGENT)), (&deployment.broker, server(BROKER))] {
        let key = KeyPair::generate().unwrap();
        bench.write("agent.key", key.serialize_pem());
        bench.write("agent.crt", next.sign(&params, &key).pem());
        deployment.connect().unwrap();
        bench.write("ca.crt", next.certificate.pem() + &deployment.agent.ca.certificate.pem());
    }
    deployment.agent.write("ca.crt", next.certificate.pem());
    deployment.broker.write("ca.crt", next.certificate.pem());
    deployment.connect().unwrap();
}

#[test]
fn a_new_trust_root_is_used_even_when_the_server_asks_for_no_certificate() {
    let deployment = Deployment::new();
    let server = careless_server(&deployment.agent.ca);
    let client = deployment.client.client_config();
    connect(&client, &server, "localhost").unwrap();
    let next = Ca::new("next authority");
    let key = KeyPair::generate().unwrap();
    deployment.agent.write("agent.key", key.serialize_pem());
    deployment.agent.write("agent.crt", next.sign(&component(AGENT), &key).pem());
    deployment.agent.write("ca.crt", next.certificate.pem());
    let failed = connect(&client, &server, "localhost").err().unwrap();
    let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    assert_eq!(failed.client, Some(unknown));
}

#[test]
fn a_new_revocation_list_is_used_by_the_next_handshake() {
    let deployment = Deployment::new();
    let crl = deployment.broker.write("crl.pem", deployment.agent.ca.crl(&[], 7));
    let server = TlsIdentity::load_server(deployment.broker.options().crl(&crl)).unwrap();
    let config = server.server_config();
    let client = deployment.client.client_config();
    connect(&client, &config, "localhost").unwrap();
    write(&crl, deployment.agent.ca.crl(&[7], 7));
    let failed = connect(&client, &config, "localhost").err().unwrap();
    let revoked = rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked);
    assert_eq!(failed.server, Some(revoked));
}

/// A deployment whose server, with revocation lists, has accepted the client once.
struct Revoking {
    deployment: Deployment,
    server: TlsServerIdentity,
    chain: Vec<CertificateDer<'static>>,
}

impl Revoking {
    fn new() -> Self {
        let deployment = Deployment::new();
        let crl = deployment.broker.write("crl.pem", deployment.agent.ca.numbered_crl(5, &[], 7));
        let server = TlsIdentity::load_server(deployment.broker.options().crl(crl)).unwrap();
        let connected = connect(&deployment.client.client_config(), &server.server_config(), "localhost").unwrap();
        let chain = connected.server.peer_certificates().unwrap().to_vec();
        server.verify_peer(&chain).unwrap();
        Self { deployment, server, chain }
    }

    fn write_list(&self, number: u64, revoked: &[u64]) {
        self.deployment.broker.write("crl.pem", self.deployment.agent.ca.numbered_crl(number, revoked, 7));
    }

    fn assert_revoked(&self) {
        let error = self.server.verify_peer(&self.chain).unwrap_err();
        assert!(matches!(error, TlsError::Revoked { .. }), "{error:?}");
    }
}

#[test]
fn a_client_that_is_revoked_after_it_connected_is_no_longer_verified() {
    let revoking = Revoking::new();
    revoking.write_list(6, &[7]);
    revoking.assert_revoked();
}

#[test]
fn a_fault_of_our_own_files_does_not_keep_a_revocation_from_working() {
    type Damage = fn(&Bench);
    let damages: [Damage; 3] = [
        |broker| fs::set_permissions(broker.path("agent.key"), fs::Permissions::from_mode(0o640)).unwrap(),
        |broker| fs::remove_file(broker.path("agent.crt")).unwrap(),
        |broker| drop(broker.write("ca.crt", "not PEM")),
    ];
    for damage in damages {
        let revoking = Revoking::new();
        damage(&revoking.deployment.broker);
        revoking.server.refresh().unwrap_err();
        revoking.write_list(6, &[7]);
        let error = revoking.server.refresh().unwrap_err();
        assert!(!matches!(error, TlsError::Revoked { .. }), "{error:?}");
        assert_eq!(revoking.server.generation(), 2, "the list is in use");
        revoking.assert_revoked();
    }
}

#[test]
fn a_client_with_a_fault_of_its_own_files_refuses_a_server_that_is_revoked() {
    let deployment = Deployment::new();
    let crl = deployment.agent.write("crl.pem", deployment.agent.ca.numbered_crl(5, &[], 7));
    let client = TlsIdentity::load(deployment.agent.options().crl(&crl)).unwrap().client_config();
    let server = deployment.server.server_config();
    connect(&client, &server, "localhost").unwrap();
    fs::set_permissions(deployment.agent.path("agent.key"), fs::Permissions::from_mode(0o640)).unwrap();
    write(&crl, deployment.agent.ca.numbered_crl(6, &[8], 7));
    let failed = connect(&client, &server, "localhost").err().unwrap();
    let revoked = rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked);
    assert_eq!(failed.client, Some(revoked));
}

#[test]
fn a_fault_of_the_revocation_list_does_not_keep_other_files_from_rotating() {
    let revoking = Revoking::new();
    let broker = &revoking.deployment.broker;
    broker.write("crl.pem", "not PEM");
    let key = KeyPair::generate().unwrap();
    let certificate = revoking.deployment.agent.ca.sign(&with_serial(server(BROKER), 9), &key);
    broker.write("agent.key", key.serialize_pem());
    broker.write("agent.crt", certificate.pem());
    assert!(matches!(revoking.server.refresh(), Err(TlsError::NotPem { .. })));
    assert_eq!(revoking.server.leaf().serial(), "09");
}

#[test]
fn an_older_revocation_list_does_not_replace_the_one_in_use() {
    let revoking = Revoking::new();
    revoking.write_list(6, &[7]);
    assert_eq!(revoking.server.refresh().unwrap(), Refresh::Rotated);
    revoking.write_list(4, &[]);
    for _ in 0..2 {
        let error = revoking.server.refresh().unwrap_err();
        assert!(matches!(error, TlsError::OlderCrl { .. }), "{error:?}");
        revoking.deployment.broker.check_message(&error, "crl.pem", "fetch the current one");
    }
    assert_eq!(revoking.server.generation(), 2);
    revoking.assert_revoked();
}

#[test]
fn a_revocation_list_stays_in_use_when_its_file_goes_or_holds_anothers() {
    let revoking = Revoking::new();
    revoking.write_list(6, &[7]);
    revoking.assert_revoked();
    let crl = revoking.deployment.broker.write("crl.pem", Ca::new("other authority").crl(&[], 7));
    revoking.assert_revoked();
    fs::remove_file(crl).unwrap();
    assert!(matches!(revoking.server.refresh(), Err(TlsError::Missing { .. })));
    revoking.assert_revoked();
}

#[test]
fn a_list_that_revokes_our_own_certificate_is_in_use_and_that_is_reported() {
    let revoking = Revoking::new();
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        revoking.write_list(6, &[7, 8]);
        assert_eq!(revoking.server.refresh().unwrap(), Refresh::Rotated);
    });
    revoking.assert_revoked();
    let warnings = warnings.0.lock().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("is revoked") && warnings[0].contains(BROKER), "{warnings:?}");
}

#[test]
fn an_authority_that_leaves_the_trust_root_is_trusted_no_more() {
    let revoking = Revoking::new();
    // Our own certificate is that authority's as well.
    revoking.deployment.broker.write("ca.crt", Ca::new("next authority").certificate.pem());
    assert_eq!(revoking.server.refresh().unwrap(), Refresh::Rotated);
    let error = revoking.server.verify_peer(&revoking.chain).unwrap_err();
    assert!(matches!(error, TlsError::UnknownIssuer { .. }), "{error:?}");
}

#[test]
fn the_trust_root_of_another_trust_domain_is_not_rotated_to() {
    let bench = Bench::new();
    let identity = bench.identity();
    let other = Ca::with("other authority", KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![uri("spiffe://elsewhere.test")];
    });
    bench.write("ca.crt", other.certificate.pem());
    assert!(matches!(identity.refresh(), Err(TlsError::ForeignTrustDomain { .. })));
    assert_eq!(identity.generation(), 1);
}

#[test]
fn files_written_again_with_the_same_content_are_no_rotation() {
    let revoking = Revoking::new();
    let broker = &revoking.deployment.broker;
    for file in ["agent.crt", "agent.key", "ca.crt", "crl.pem"] {
        broker.write(file, fs::read(broker.path(file)).unwrap());
        assert_eq!(revoking.server.refresh().unwrap(), Refresh::Unchanged);
    }
    assert_eq!(revoking.server.generation(), 1);
}

#[test]
fn the_swap_of_a_symlinked_directory_is_noticed() {
    let bench = Bench::new();
    let identity_files = ["agent.crt", "agent.key", "ca.crt"];
    let version = |number: u8| {
        let dir = bench.path(&format!("..version-{number}"));
        fs::create_dir(&dir).unwrap();
        for file in identity_files {
            fs::rename(bench.path(file), dir.join(file)).unwrap();
        }
        symlink(&dir, bench.path("..data_new")).unwrap();
        fs::rename(bench.path("..data_new"), bench.path("..data")).unwrap();
    };
    version(1);
    let options = || {
        let file = |name: &str| bench.path("..data").join(name);
        bus_tls::TlsOptions::new(file("agent.crt"), file("agent.key"), file("ca.crt"))
    };
    let identity = TlsIdentity::load(options()).unwrap();
    bench.write("ca.crt", bench.ca.certificate.pem());
    bench.issue(&with_serial(component(AGENT), 9));
    assert_eq!(identity.refresh().unwrap(), Refresh::Unchanged);
    version(2);
    assert_eq!(identity.refresh().unwrap(), Refresh::Rotated);
    assert_eq!(identity.leaf().serial(), "09");
}

/// Keeps the warnings of target `bus::security`.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "bus::security" && *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn each_bad_change_is_reported_once_by_name() {
    let bench = Bench::new();
    let identity = bench.identity();
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        bench.write("agent.crt", "not PEM");
        for _ in 0..3 {
            identity.refresh().unwrap_err();
        }
        assert_eq!(warnings.0.lock().unwrap().len(), 1);
        bench.write("agent.crt", "");
        for _ in 0..3 {
            identity.refresh().unwrap_err();
        }
    });
    let warnings = warnings.0.lock().unwrap();
    assert_eq!(warnings.len(), 2);
    let path = bench.path("agent.crt").display().to_string();
    assert!(warnings[0].contains(&path) && warnings[0].contains("is not PEM") && warnings[0].contains(AGENT));
    assert!(warnings[1].contains(&path) && warnings[1].contains("is empty"));
}

#[test]
fn files_that_were_refused_are_not_read_again_by_every_handshake() {
    let deployment = Deployment::new();
    let future = Ca::with("future authority", KeyPair::generate().unwrap(), |params| valid_from_to(params, 10, 20));
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        // Each reading of this file tells of the authority that is not valid yet, and then refuses the other certificate.
        let leaf = fs::read_to_string(deployment.agent.path("agent.crt")).unwrap();
        deployment.agent.write("ca.crt", future.certificate.pem() + &leaf);
        for _ in 0..20 {
            deployment.connect().unwrap();
        }
    });
    let readings = warnings.0.lock().unwrap().iter().filter(|warning| warning.contains("left out")).count();
    // At most one each second.
    assert!((1..10).contains(&readings), "{readings} readings");
}

/// Does something at the first warning.
struct AtWarning(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl tracing::Subscriber for AtWarning {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        let action = self.0.lock().unwrap().take();
        if let Some(action) = action {
            action();
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_handshake_does_not_wait_for_another_that_reads_files() {
    let deployment = Deployment::new();
    let (client, server) = (deployment.client.client_config(), deployment.server.server_config());
    deployment.agent.write("agent.crt", "not PEM");
    let (done, is_done) = std::sync::mpsc::channel();
    // While the refusal is reported, the reading has not ended.
    let meanwhile = AtWarning(Mutex::new(Some(Box::new(move || {
        let (finished, is_finished) = std::sync::mpsc::channel();
        std::thread::spawn(move || finished.send(connect(&client, &server, "localhost").is_ok()));
        done.send(is_finished.recv_timeout(std::time::Duration::from_secs(20))).unwrap();
    }))));
    tracing::subscriber::with_default(meanwhile, || deployment.client.refresh().unwrap_err());
    assert_eq!(is_done.recv().unwrap(), Ok(true));
}

#[test]
fn many_threads_rotate_once() {
    let bench = Bench::new();
    let identity = bench.identity();
    bench.issue(&with_serial(component(AGENT), 9));
    let rotated: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| usize::from(identity.refresh().unwrap() == Refresh::Rotated))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((rotated, identity.generation()), (1, 2));
}
