//! Real handshakes, in memory.

use std::sync::Arc;

use bus_tls::{TlsError, TlsIdentity, TlsServerIdentity};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use crate::bench::{AGENT, Bench, Ca, component, dns, server, uri, valid_from_to};

pub const BROKER: &str = "spiffe://ransomeye.test/broker/n1";

/// Two ends whose handshake is done.
pub struct Connected {
    pub client: ClientConnection,
    pub server: ServerConnection,
}

/// What each end says about a handshake that failed.
#[derive(Debug)]
pub struct Failed {
    pub client: Option<Error>,
    pub server: Option<Error>,
}

/// Carries bytes between a client and a server until both are done.
pub fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Result<Connected, Failed> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut failed = Failed { client: None, server: None };
    loop {
        let mut to_server = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        let mut from_client = to_server.as_slice();
        while !from_client.is_empty() && failed.server.is_none() {
            server.read_tls(&mut from_client).unwrap();
            failed.server = server.process_new_packets().err();
        }
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let mut from_server = to_client.as_slice();
        while !from_server.is_empty() && failed.client.is_none() {
            client.read_tls(&mut from_server).unwrap();
            failed.client = client.process_new_packets().err();
        }
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
    }
    match failed {
        Failed { client: None, server: None } => {
            assert!(!client.is_handshaking() && !server.is_handshaking());
            Ok(Connected { client, server })
        }
        failed => Err(failed),
    }
}

/// The server's own error when it refuses a client.
fn server_refusal(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Error {
    connect(client, server, "localhost").err().expect("it is refused").server.expect("by the server")
}

/// The client's own error when it refuses a server.
fn client_refusal(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Error {
    connect(client, server, name).err().expect("it is refused").client.expect("by the client")
}

/// Our reason inside an error of `rustls`.
fn reason(error: &Error) -> &TlsError {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The client side and the server side of one deployment.
pub struct Deployment {
    pub agent: Bench,
    pub broker: Bench,
    pub client: TlsIdentity,
    pub server: TlsServerIdentity,
}

impl Deployment {
    pub fn new() -> Self {
        let agent = Bench::new();
        let broker = Bench { dir: tempfile::tempdir().unwrap(), ca: Ca::new("unused") };
        broker.write("ca.crt", agent.ca.certificate.pem());
        let key = KeyPair::generate().unwrap();
        broker.write("agent.key", key.serialize_pem());
        broker.write("agent.crt", agent.ca.sign(&server(BROKER), &key).pem());
        let (client, server) = (agent.identity(), TlsIdentity::load_server(broker.options()).unwrap());
        Self { agent, broker, client, server }
    }

    pub fn connect(&self) -> Result<Connected, Failed> {
        connect(&self.client.client_config(), &self.server.server_config(), "localhost")
    }
}

fn roots(ca: &Ca) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate.der().clone()).unwrap();
    Arc::new(roots)
}

fn certified(ca: &Ca, params: &CertificateParams) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate = ca.sign(params, &key);
    (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// A server that is not ours.
fn foreign_server(
    ca: &Ca,
    params: &CertificateParams,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), Arc::clone(&provider)).build().unwrap();
    let (chain, key) = certified(ca, params);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// A server that asks its clients for no certificate.
pub fn careless_server(ca: &Ca) -> Arc<ServerConfig> {
    let (chain, key) = certified(ca, &server(BROKER));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// A client that is not ours, with a certificate or without.
fn foreign_client(
    trusted: &Ca,
    certificate: Option<(&Ca, &CertificateParams)>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots(trusted));
    Arc::new(match certificate {
        Some((ca, params)) => {
            let (chain, key) = certified(ca, params);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;

#[test]
fn both_ends_are_authenticated() {
    let deployment = Deployment::new();
    let connected = deployment.connect().unwrap();
    let leaf = deployment.server.verify_peer(connected.server.peer_certificates().unwrap()).unwrap();
    assert_eq!(leaf.principal().to_string(), AGENT);
    assert_eq!(leaf, deployment.client.leaf());
    assert_eq!(leaf.serial(), "07");
}

#[test]
fn tls_1_3_with_the_post_quantum_hybrid_group_is_negotiated() {
    let connected = Deployment::new().connect().unwrap();
    assert_eq!(connected.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = connected.client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    // Without a second round trip: the client's first guess is the hybrid group.
    assert_eq!(connected.client.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn the_post_quantum_hybrid_group_is_preferred() {
    let config = Deployment::new().client.client_config();
    assert_eq!(config.crypto_provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn no_session_is_resumed_with_our_server() {
    let deployment = Deployment::new();
    let server = deployment.server.server_config();
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    let client = foreign_client(&deployment.agent.ca, Some((&deployment.agent.ca, &component(AGENT))), TLS13);
    for _ in 0..3 {
        let connected = connect(&client, &server, "localhost").unwrap();
        assert_eq!(connected.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connected.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn no_session_is_resumed_by_our_client() {
    let deployment = Deployment::new();
    let server = foreign_server(&deployment.agent.ca, &server(BROKER), TLS13);
    let client = deployment.client.client_config();
    for _ in 0..3 {
        let connected = connect(&client, &server, "localhost").unwrap();
        assert!(connected.client.tls13_tickets_received() > 0, "the server offers resumption");
        assert_eq!(connected.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_tls_1_2_client_is_refused() {
    let deployment = Deployment::new();
    let client = foreign_client(&deployment.agent.ca, Some((&deployment.agent.ca, &component(AGENT))), TLS12);
    let failed = connect(&client, &deployment.server.server_config(), "localhost").err().unwrap();
    assert!(matches!(failed.server, Some(Error::PeerIncompatible(_))), "{failed:?}");
    assert_eq!(failed.client, Some(Error::AlertReceived(AlertDescription::ProtocolVersion)));
}

#[test]
fn a_tls_1_2_server_is_refused() {
    let deployment = Deployment::new();
    let server = foreign_server(&deployment.agent.ca, &server(BROKER), TLS12);
    let failed = connect(&deployment.client.client_config(), &server, "localhost").err().unwrap();
    assert!(failed.server.is_some(), "{failed:?}");
}

#[test]
fn a_server_of_another_authority_is_refused() {
    for name in ["other authority", "test authority"] {
        let deployment = Deployment::new();
        let server = foreign_server(&Ca::new(name), &server(BROKER), TLS13);
        let error = client_refusal(&deployment.client.client_config(), &server, "localhost");
        assert!(
            matches!(
                error,
                Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
            ),
            "{error:?}"
        );
    }
}

#[test]
fn a_server_under_another_host_name_is_refused() {
    let deployment = Deployment::new();
    let server = deployment.server.server_config();
    let client = deployment.client.client_config();
    let error = client_refusal(&client, &server, "elsewhere.test");
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })), "{error:?}");
}

#[test]
fn a_component_cannot_play_the_server() {
    let deployment = Deployment::new();
    // Even when the authority gave it a host name.
    let mut params = component(AGENT);
    params.subject_alt_names.push(dns("localhost"));
    let server = foreign_server(&deployment.agent.ca, &params, TLS13);
    let error = client_refusal(&deployment.client.client_config(), &server, "localhost");
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })), "{error:?}");
}

#[test]
fn a_certificate_without_usages_cannot_play_the_server() {
    let deployment = Deployment::new();
    let mut params = server(BROKER);
    params.extended_key_usages.clear();
    let server = foreign_server(&deployment.agent.ca, &params, TLS13);
    let error = client_refusal(&deployment.client.client_config(), &server, "localhost");
    assert!(matches!(reason(&error), TlsError::NoServerAuth { .. }), "{error:?}");
}

#[test]
fn a_server_of_another_trust_domain_is_refused() {
    let deployment = Deployment::new();
    let server = foreign_server(&deployment.agent.ca, &server("spiffe://elsewhere.test/broker/n1"), TLS13);
    let error = client_refusal(&deployment.client.client_config(), &server, "localhost");
    assert!(matches!(reason(&error), TlsError::ForeignTrustDomain { .. }), "{error:?}");
}

#[test]
fn a_server_without_an_identity_is_known_by_its_host_name() {
    let deployment = Deployment::new();
    let mut params = server(BROKER);
    params.subject_alt_names = vec![dns("localhost")];
    let server = foreign_server(&deployment.agent.ca, &params, TLS13);
    connect(&deployment.client.client_config(), &server, "localhost").unwrap();
}

#[test]
fn a_server_whose_certificate_breaks_the_rules_of_identity_is_refused() {
    type Expected = fn(&TlsError) -> bool;
    let extra: Expected = |error| matches!(error, TlsError::ExtraName { .. });
    let several: Expected = |error| matches!(error, TlsError::SeveralIdentities { .. });
    let malformed: Expected = |error| matches!(error, TlsError::MalformedIdentity { .. });
    let deployment = Deployment::new();
    for (name, expected) in [
        (uri("spiffe://ransomeye.test/broker/n2"), several),
        (uri("https://ransomeye.test/"), extra),
        (SanType::Rfc822Name("n1@ransomeye.test".try_into().unwrap()), extra),
    ] {
        let mut params = server(BROKER);
        params.subject_alt_names.push(name);
        let server = foreign_server(&deployment.agent.ca, &params, TLS13);
        let error = client_refusal(&deployment.client.client_config(), &server, "localhost");
        assert!(expected(reason(&error)), "{error:?}");
    }
    let server = foreign_server(&deployment.agent.ca, &server("spiffe://ransomeye.test/broker"), TLS13);
    let error = client_refusal(&deployment.client.client_config(), &server, "localhost");
    assert!(malformed(reason(&error)), "{error:?}");
}

#[test]
fn a_server_with_a_key_of_another_kind_is_refused() {
    let deployment = Deployment::new();
    let mut params = server(BROKER);
    for names in [params.subject_alt_names.clone(), vec![dns("localhost")]] {
        params.subject_alt_names = names;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        let chain = vec![deployment.agent.ca.sign(&params, &key).der().clone()];
        let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        let error = client_refusal(&deployment.client.client_config(), &Arc::new(server), "localhost");
        assert!(matches!(reason(&error), TlsError::UnsupportedKey { .. }), "{error:?}");
    }
}

#[test]
fn a_revoked_server_is_refused() {
    let deployment = Deployment::new();
    deployment.agent.write("crl.pem", deployment.agent.ca.crl(&[8], 7));
    let options = deployment.agent.options().crl(deployment.agent.path("crl.pem"));
    let client = TlsIdentity::load(options).unwrap().client_config();
    let error = client_refusal(&client, &deployment.server.server_config(), "localhost");
    assert_eq!(error, Error::InvalidCertificate(CertificateError::Revoked));
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let deployment = Deployment::new();
    let client = foreign_client(&deployment.agent.ca, None, TLS13);
    let error = server_refusal(&client, &deployment.server.server_config());
    assert_eq!(error, Error::NoCertificatesPresented);
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let deployment = Deployment::new();
    let other = Ca::new("other authority");
    let client = foreign_client(&deployment.agent.ca, Some((&other, &component(AGENT))), TLS13);
    let failed = connect(&client, &deployment.server.server_config(), "localhost").err().unwrap();
    assert_eq!(failed.server, Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
    assert_eq!(failed.client, Some(Error::AlertReceived(AlertDescription::UnknownCA)));
}

#[test]
fn an_expired_client_is_refused_and_told() {
    let deployment = Deployment::new();
    let mut params = component(AGENT);
    valid_from_to(&mut params, -20, -10);
    let client = foreign_client(&deployment.agent.ca, Some((&deployment.agent.ca, &params)), TLS13);
    let failed = connect(&client, &deployment.server.server_config(), "localhost").err().unwrap();
    assert_eq!(failed.server, Some(Error::InvalidCertificate(CertificateError::Expired)));
    assert_eq!(failed.client, Some(Error::AlertReceived(AlertDescription::CertificateExpired)));
}

#[test]
fn a_revoked_client_is_refused_and_told() {
    let deployment = Deployment::new();
    deployment.broker.write("crl.pem", deployment.agent.ca.crl(&[7], 7));
    let options = deployment.broker.options().crl(deployment.broker.path("crl.pem"));
    let server = TlsIdentity::load_server(options).unwrap().server_config();
    let failed = connect(&deployment.client.client_config(), &server, "localhost").err().unwrap();
    assert_eq!(failed.server, Some(Error::InvalidCertificate(CertificateError::Revoked)));
    assert_eq!(failed.client, Some(Error::AlertReceived(AlertDescription::CertificateRevoked)));
}

#[test]
fn a_client_whose_certificate_breaks_the_rules_of_identity_is_refused() {
    type Change = fn(&mut CertificateParams);
    type Expected = fn(&TlsError) -> bool;
    let cases: [(Change, Expected); 6] = [
        (|params| params.subject_alt_names.clear(), |error| matches!(error, TlsError::NoIdentity { .. })),
        (
            |params| params.subject_alt_names.push(uri("spiffe://ransomeye.test/core/core-01")),
            |error| matches!(error, TlsError::SeveralIdentities { .. }),
        ),
        (|params| params.subject_alt_names.push(dns("core-01")), |error| matches!(error, TlsError::ExtraName { .. })),
        (
            |params| params.subject_alt_names = vec![uri("spiffe://elsewhere.test/agent/a")],
            |error| matches!(error, TlsError::ForeignTrustDomain { .. }),
        ),
        (|params| params.extended_key_usages.clear(), |error| matches!(error, TlsError::NoClientAuth { .. })),
        (
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            |error| matches!(error, TlsError::NoClientAuth { .. }),
        ),
    ];
    let deployment = Deployment::new();
    let server = deployment.server.server_config();
    for (change, expected) in cases {
        let mut params = component(AGENT);
        change(&mut params);
        let client = foreign_client(&deployment.agent.ca, Some((&deployment.agent.ca, &params)), TLS13);
        let error = server_refusal(&client, &server);
        assert!(expected(reason(&error)), "{error:?}");
    }
}

#[test]
fn a_peer_that_presents_nothing_is_not_verified() {
    assert!(matches!(Deployment::new().server.verify_peer(&[]), Err(TlsError::MalformedCertificate { .. })));
}

#[test]
fn tls_keys_are_not_logged() {
    let deployment = Deployment::new();
    assert!(!deployment.client.client_config().key_log.will_log("CLIENT_HANDSHAKE_TRAFFIC_SECRET"));
    assert!(!deployment.server.server_config().key_log.will_log("CLIENT_HANDSHAKE_TRAFFIC_SECRET"));
}
