//! The tests that the founding document names (requirement A13), through the facade.

use ransomeye_bus::acl::can_publish;
use ransomeye_bus::mtls::{TlsIdentity, TlsOptions, try_create_tls_config};
use ransomeye_bus::protocol::prost::Message;
use ransomeye_bus::protocol::{ComponentId, Envelope, Heartbeat};

#[test]
fn the_facade_re_exports_the_four_crates() {
    use std::any::type_name;
    assert_eq!(type_name::<ransomeye_bus::client::BusClient>(), type_name::<bus_client::BusClient>());
    assert_eq!(type_name::<ransomeye_bus::mtls::VerifiedLeaf>(), type_name::<bus_tls::VerifiedLeaf>());
    assert_eq!(type_name::<ransomeye_bus::acl::Policy>(), type_name::<bus_acl::Policy>());
    assert_eq!(type_name::<ransomeye_bus::protocol::AlertEvent>(), type_name::<bus_proto::v1::AlertEvent>());
}

#[test]
fn the_facade_names_what_a_verified_message_says_of_its_key() {
    fn key(message: &ransomeye_bus::client::Verified<Heartbeat>) -> ransomeye_bus::crypto::KeyId {
        message.key_id()
    }
    let _: fn(&bus_client::Verified<Heartbeat>) -> bus_crypto::KeyId = key;
}

#[test]
fn a_heartbeat_envelope_round_trips_byte_exactly() {
    let source = ComponentId::new("agent-linux-01").unwrap();
    let beat = Heartbeat { uptime: 3_600, version: "0.1.0".into() };
    let envelope = Envelope::new(&source, beat, 1_790_000_000_000, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let bytes = envelope.encode_to_vec();
    let decoded = Envelope::decode(bytes.as_slice()).unwrap();
    assert_eq!(decoded, envelope);
    assert_eq!(decoded.encode_to_vec(), bytes);
}

#[test]
fn an_agent_cannot_publish_a_command_request() {
    assert!(!can_publish("agent", "CommandRequest"));
}

#[test]
fn core_can_publish_a_command_request() {
    assert!(can_publish("core", "CommandRequest"));
}

#[test]
fn an_identity_without_valid_certificate_paths_is_an_error() {
    let error = TlsIdentity::load(TlsOptions::new("no/such.crt", "no/such.key", "no/such-ca.crt")).unwrap_err();
    assert!(error.to_string().contains("no/such"), "{error}");
}

#[test]
#[should_panic(expected = "Security Fatal: Invalid mTLS Configuration")]
fn a_tls_configuration_without_valid_certificate_paths_panics() {
    // The environment of a test run names no certificates.
    assert!(try_create_tls_config().is_err());
    let _ = ransomeye_bus::mtls::create_tls_config();
}
