//! What sealing costs: a content of 1, 64 and 256 messages of 256 bytes, and the wrapping to 1, 10 and 100 recipients.
#![allow(missing_docs, clippy::unwrap_used, reason = "the macros' code, and test code")]

use std::hint::black_box;
use std::time::Duration;

use bus_crypto::sealing::{About, Epoch, OpenEpoch, Part, Recipient, SealingKey};
use bus_crypto::{KeyId, scan};
use bus_proto::prost::Message;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Envelope, Sealed};
use bus_proto::{ComponentId, Principal};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const NOW: i64 = 1_790_000_000_000;

/// What one message of 256 bytes comes to in a batch, with its id, its time, and the tags and lengths of its fields.
const MEMBER_LEN: usize = 256 + 52;

fn key_id() -> KeyId {
    KeyId::of_bundle(b"a bundle")
}

fn about() -> About<'static> {
    About {
        part: Part::Payload,
        sender: "spiffe://ransomeye.local/agent/agent-linux-01",
        subject: "ransomeye.events.alert.agent.agent-linux-01",
        message_type: "alert",
        sequence: 70_000,
        message_id: "0199f1a2-0000-7000-8000-000000000000",
        expires_at: 0,
    }
}

fn key() -> SealingKey {
    SealingKey::from_seed(&[7; 32].into()).unwrap()
}

fn recipients(count: usize) -> Vec<Recipient> {
    let principal =
        |number: usize| -> Principal { format!("spiffe://ransomeye.local/core/core-{number:03}").parse().unwrap() };
    let key = key().public_key().clone();
    (0..count).map(|number| Recipient { principal: principal(number), version: 1, key: key.clone() }).collect()
}

fn epoch(recipients: &[Recipient]) -> Epoch {
    let mut next = 0_u8;
    let fill = |bytes: &mut [u8]| {
        next = next.wrapping_add(1);
        bytes.fill(next);
        Ok(())
    };
    Epoch::new(key_id(), recipients, NOW, fill).unwrap()
}

/// The prefix of an envelope with this sealed payload.
fn prefix(sealed: &[u8]) -> Vec<u8> {
    let payload = Payload::Sealed(Sealed::decode(sealed).unwrap());
    let mut envelope = Envelope::new(&ComponentId::new("agent-linux-01").unwrap(), payload, NOW, [7; 10]);
    envelope.subject = about().subject.into();
    envelope.encode_to_vec()
}

fn contents(criterion: &mut Criterion) {
    let recipients = recipients(1);
    for members in [1_usize, 64, 256] {
        let content = vec![0x61; if members == 1 { 256 } else { members * MEMBER_LEN }];
        for with_keys in [false, true] {
            let what = if with_keys { "with its wrapped key" } else { "warm" };
            let mut group = criterion.benchmark_group(format!("{what}, {members} of 256 B"));
            group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            group.throughput(Throughput::Elements(u64::try_from(members).unwrap()));
            let mut epoch = epoch(&recipients);
            let mut out = Vec::new();
            group.bench_function("seal", |bencher| {
                bencher.iter(|| {
                    out.clear();
                    epoch.seal(&about(), black_box(&content), with_keys, &mut out).unwrap();
                });
            });
            let mut first = Vec::new();
            epoch.seal(&about(), b"the first", true, &mut first).unwrap();
            out.clear();
            epoch.seal(&about(), &content, with_keys, &mut out).unwrap();
            let first = prefix(&first);
            let known = unwrap(&first);
            let sealed = prefix(&out);
            let scanned = scan(&sealed).unwrap();
            let view = scanned.sealed().unwrap();
            group.bench_function("open", |bencher| {
                bencher.iter(|| known.open(black_box(view), &about()).unwrap());
            });
            group.bench_function("scan", |bencher| bencher.iter(|| scan(black_box(&sealed)).is_ok()));
            group.finish();
        }
    }
}

fn unwrap(prefix: &[u8]) -> OpenEpoch {
    let scanned = scan(prefix).unwrap();
    let view = scanned.sealed().unwrap();
    let wrapped = view.wrapped_for("spiffe://ransomeye.local/core/core-000").unwrap();
    OpenEpoch::unwrap(view, &key_id(), wrapped, &key()).unwrap()
}

fn wrapping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first of an epoch");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for count in [1_usize, 10, 100] {
        let recipients = recipients(count);
        group.bench_function(BenchmarkId::new("begin", count), |bencher| bencher.iter(|| epoch(&recipients)));
        let mut out = Vec::new();
        epoch(&recipients).seal(&about(), &[0x61; 256], true, &mut out).unwrap();
        let sealed = prefix(&out);
        let scanned = scan(&sealed).unwrap();
        let view = scanned.sealed().unwrap();
        let (wrapped, key) = (view.wrapped_for("spiffe://ransomeye.local/core/core-000").unwrap(), key());
        group.bench_function(BenchmarkId::new("unwrap", count), |bencher| {
            bencher.iter(|| OpenEpoch::unwrap(view, &key_id(), wrapped, &key).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, contents, wrapping);
criterion_main!(benches);
