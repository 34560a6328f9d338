//! What proof costs: a scan, a signature, a verification, with and without its Ed25519 step.
//!
//! "Without Ed25519": the message carries a signature whose second half is out of range, which the provider refuses before it
//! computes anything. All that verification does besides has happened by then, except for two comparisons of names.
#![allow(missing_docs, clippy::unwrap_used, reason = "the macros' code, and test code")]

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bus_crypto::keys::Signature;
use bus_crypto::{
    Clock, EnvelopeError, LeafFacts, LeafKey, LeafSigner, Lifetime, PayloadView, ReplayGuard, Scheme, SignatureError,
    SigningKey, UnverifiedBundle, bundle, envelope, scan, trailer,
};
use bus_proto::prost::Message;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{self, Batch, BatchMember, Envelope};
use bus_proto::{ComponentId, Principal};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const NOW: i64 = 1_790_000_000_000;

struct Leaf(Ed25519KeyPair);

impl LeafSigner for Leaf {
    type Error = std::convert::Infallible;

    fn scheme(&self) -> Scheme {
        Scheme::Ed25519
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Self::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

/// An alert of 256 bytes when encoded.
fn alert() -> v1::AlertEvent {
    v1::AlertEvent {
        threat_type: "ransomware.mass-rename".into(),
        severity: v1::Severity::High.into(),
        description: "a".repeat(226),
    }
}

fn envelope_of(principal: &Principal, payload: v1::envelope::Payload) -> Vec<u8> {
    let component: &ComponentId = principal.component();
    let mut envelope = Envelope::new(component, payload, NOW, [7; 10]);
    envelope.subject = "ransomeye.events.alert.agent.agent-linux-01".into();
    envelope.sequence = 70_000;
    let mut prefix = Vec::with_capacity(envelope.encoded_len() + trailer::TRAILER_LEN);
    envelope.encode(&mut prefix).unwrap();
    prefix
}

fn batch(members: usize) -> v1::envelope::Payload {
    let member = BatchMember {
        message_id: "0199f1a2-0000-7000-8000-000000000000".into(),
        timestamp_utc: NOW,
        payload: Some(v1::batch_member::Payload::Alert(alert())),
        ..BatchMember::default()
    };
    v1::envelope::Payload::Batch(Batch { members: vec![member; members] })
}

/// Takes an alert out of the message's buffer.
fn decode(message: &Bytes, payload: &PayloadView<'_>) {
    black_box(v1::AlertEvent::decode(message.slice(payload.range())).unwrap());
}

fn costs(criterion: &mut Criterion) {
    let principal: Principal = "spiffe://ransomeye.local/agent/agent-linux-01".parse().unwrap();
    let (chain, signer) = ([vec![7; 700]], Leaf(Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()));
    let leaf = LeafFacts {
        principal: principal.clone(),
        key: LeafKey::from_spki(signer.0.public_key().as_der().unwrap().as_ref()).unwrap(),
        sha256: bundle::certificate_digest(&chain[0]),
        chain_not_after_unix_ms: NOW + 86_400_000,
    };
    let key = SigningKey::from_seed(&[7; 32].into()).unwrap();
    let lifetime = Lifetime { not_before: NOW, sign_until: NOW + 1, verify_until: NOW + 2 };
    let clock = Clock::new(NOW, 30_000);
    let made = bundle::make(&key, lifetime, &chain, &leaf, &signer, &clock).unwrap();
    let verified = UnverifiedBundle::read(&made.encoded).unwrap().verify(&leaf, &clock).unwrap();

    for members in [1_usize, 16, 64, 256] {
        let payload = if members == 1 { alert().into() } else { batch(members) };
        let prefix = envelope_of(&principal, payload);
        let signed = envelope::sign(prefix.clone(), &key, &made.key_id).unwrap().bytes;
        let mut stubbed = prefix.clone();
        trailer::append(&mut stubbed, &made.key_id, &Signature::from_bytes([0xff; 64]));
        let refused = envelope::verify(&stubbed, &verified, &principal.trust_domain, &clock).unwrap_err();
        assert_eq!(refused, EnvelopeError::Signature(SignatureError::Mismatch));

        let mut group = criterion.benchmark_group(if members == 1 { "single message" } else { "batch" });
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(u64::try_from(members).unwrap()));
        let name = |what: &str| BenchmarkId::new(what, format!("{members} of 256 B, {} B in all", signed.len()));
        group.bench_function(name("scan"), |bencher| bencher.iter(|| scan(black_box(&prefix)).is_ok()));
        group.bench_function(name("sign"), |bencher| {
            bencher.iter_batched(
                || {
                    let mut message = Vec::with_capacity(prefix.len() + trailer::TRAILER_LEN);
                    message.extend_from_slice(&prefix);
                    message
                },
                |prefix| envelope::sign(prefix, &key, &made.key_id),
                criterion::BatchSize::SmallInput,
            );
        });
        group.bench_function(name("verify"), |bencher| {
            bencher.iter(|| envelope::verify(black_box(&signed), &verified, &principal.trust_domain, &clock).is_ok());
        });
        group.bench_function(name("verify and decode"), |bencher| {
            let signed = Bytes::from(signed.clone());
            bencher.iter(|| {
                let verified = envelope::verify(&signed, &verified, &principal.trust_domain, &clock).unwrap();
                match verified.scan().members() {
                    [] => decode(&signed, verified.scan().payload()),
                    members => members.iter().for_each(|member| decode(&signed, member.payload())),
                }
            });
        });
        group.bench_function(name("verify without Ed25519"), |bencher| {
            bencher.iter(|| envelope::verify(black_box(&stubbed), &verified, &principal.trust_domain, &clock).is_ok());
        });
        group.finish();
    }

    let signed = envelope::sign(envelope_of(&principal, alert().into()), &key, &made.key_id).unwrap().bytes;
    let message = envelope::verify(&signed, &verified, &principal.trust_domain, &clock).unwrap();
    criterion.bench_function("replay: check and commit the first of a key", |bencher| {
        bencher.iter(|| {
            let mut guard = ReplayGuard::new(made.key_id);
            let fresh = guard.check(black_box(&message)).unwrap();
            guard.commit(fresh).is_ok()
        });
    });
    criterion.bench_function("bundle: read and verify", |bencher| {
        bencher.iter(|| UnverifiedBundle::read(black_box(&made.encoded)).unwrap().verify(&leaf, &clock).is_ok());
    });
}

criterion_group!(benches, costs);
criterion_main!(benches);
