//! What a connection costs on one core: a full mutual-TLS handshake in memory, both ends, and the check for rotation. And
//! what messages that prove their sender cost of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use bus_proto::TrustDomain;
use bus_tls::pki::{Authority, CaOptions, Profile};
use bus_tls::{TlsIdentity, TlsOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> ServerConnection {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut received = bytes.as_slice();
        while !received.is_empty() {
            server.read_tls(&mut received).unwrap();
            server.process_new_packets().unwrap();
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut received = bytes.as_slice();
        while !received.is_empty() {
            client.read_tls(&mut received).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    server
}

fn handshakes(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let domain = TrustDomain::new("ransomeye.test").unwrap();
    let authority = Authority::create(dir.path().join("pki"), domain, &CaOptions::default()).unwrap();
    let options = |profile: &Profile| {
        let files = authority.issue(profile).unwrap().write(dir.path(), false).unwrap();
        TlsOptions::new(files.certificate, files.key, authority.ca_path()).crl(authority.crl_path())
    };
    let agent = Profile::component("agent".parse().unwrap(), "agent-01".parse().unwrap()).unwrap();
    let broker = Profile::broker("n1".parse().unwrap(), ["localhost"]).unwrap();
    let agent_options = options(&agent);
    let listless =
        TlsOptions::new(agent_options.certificate_path(), agent_options.key_path(), agent_options.trust_root_path());
    let agent = TlsIdentity::load(agent_options).unwrap();
    let broker = TlsIdentity::load_server(options(&broker)).unwrap();
    let (client, server) = (agent.client_config(), broker.server_config());

    let mut group = criterion.benchmark_group("tls");
    group.throughput(Throughput::Elements(1));
    group.bench_function("full mutual handshake, both ends", |bencher| {
        bencher.iter(|| black_box(handshake(&client, &server)));
    });
    group.bench_function("check for rotated files", |bencher| {
        bencher.iter(|| black_box(agent.refresh().unwrap()));
    });
    group.finish();

    let credentials = agent.credentials();
    let chain: Vec<&[u8]> = credentials.chain().iter().map(AsRef::as_ref).collect();
    let mut group = criterion.benchmark_group("messages");
    group.bench_function("verify a sender's chain, P-256 below a P-256 root with a revocation list", |bencher| {
        bencher.iter(|| black_box(agent.verify_peer(black_box(&chain)).unwrap()));
    });
    group.bench_function("ask whether what was verified stays verified", |bencher| {
        bencher.iter(|| black_box(agent.trust_state()));
    });
    group.bench_function("sign with the certificate's P-256 key", |bencher| {
        bencher.iter(|| black_box(credentials.sign(0x0403, black_box(b"a statement")).unwrap()));
    });
    let listless = TlsIdentity::load(listless).unwrap();
    group.bench_function("verify a sender's chain without a revocation list", |bencher| {
        bencher.iter(|| black_box(listless.verify_peer(black_box(&chain)).unwrap()));
    });
    group.finish();
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
