//! The files change while the program runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};

use bus_tls::{Refresh, TlsError, TlsIdentity};
use rcgen::{CertificateParams, KeyPair, SerialNumber};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::bench::{AGENT, Bench, Ca, component, server, write};
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
    let server = deployment.server.server_config().unwrap();
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
    crate::bench::valid_from_to(&mut params, -20, -10);
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
    let config = server.server_config().unwrap();
    let client = deployment.client.client_config();
    connect(&client, &config, "localhost").unwrap();
    write(&crl, deployment.agent.ca.crl(&[7], 7));
    let failed = connect(&client, &config, "localhost").err().unwrap();
    let revoked = rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked);
    assert_eq!(failed.server, Some(revoked));
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
