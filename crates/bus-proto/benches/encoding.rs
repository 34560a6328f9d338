//! What names and bytes cost: subjects parsed and formatted, envelopes encoded and decoded.
#![allow(missing_docs, clippy::unwrap_used, reason = "the macros' code, and test code")]

use std::hint::black_box;
use std::time::Duration;

use bus_proto::prost::Message;
use bus_proto::v1::{self, Batch, BatchMember, Envelope};
use bus_proto::{Destination, MessageType, Principal, SubjectRoot};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const NOW: i64 = 1_790_000_000_000;

fn sender() -> Principal {
    "spiffe://ransomeye.local/agent/agent-linux-01".parse().unwrap()
}

/// An alert of 256 bytes when encoded.
fn alert() -> v1::AlertEvent {
    v1::AlertEvent {
        threat_type: "ransomware.mass-rename".into(),
        severity: v1::Severity::High.into(),
        description: "a".repeat(226),
    }
}

fn envelope(members: usize) -> Envelope {
    let payload = if members == 1 {
        v1::envelope::Payload::Alert(alert())
    } else {
        let member = BatchMember {
            message_id: "0199f1a2-0000-7000-8000-000000000000".into(),
            timestamp_utc: NOW,
            payload: Some(v1::batch_member::Payload::Alert(alert())),
            ..BatchMember::default()
        };
        v1::envelope::Payload::Batch(Batch { members: vec![member; members] })
    };
    let mut envelope = Envelope::new(sender().component(), payload, NOW, [7; 10]);
    envelope.subject = "ransomeye.events.alert.agent.agent-linux-01".into();
    envelope.sequence = 70_000;
    envelope
}

fn subjects(criterion: &mut Criterion) {
    let (root, sender) = (SubjectRoot::default(), sender());
    let inbox = Destination::Inbox("core/core-01".parse().unwrap());
    let mut group = criterion.benchmark_group("subject");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, destination) in [("event", Destination::Events), ("directed", inbox)] {
        let text = root.subject(&destination, &MessageType::Alert, &sender);
        assert_eq!(root.parse(&text).unwrap().destination, destination);
        group.bench_function(BenchmarkId::new("format", name), |bencher| {
            bencher.iter(|| root.subject(black_box(&destination), &MessageType::Alert, &sender));
        });
        group.bench_function(BenchmarkId::new("parse", name), |bencher| bencher.iter(|| root.parse(black_box(&text))));
    }
    group.finish();

    criterion.bench_function("principal: parse", |bencher| {
        bencher.iter(|| black_box("spiffe://ransomeye.local/agent/agent-linux-01").parse::<Principal>().is_ok());
    });
}

fn envelopes(criterion: &mut Criterion) {
    for members in [1_usize, 256] {
        let message = envelope(members);
        let bytes = message.encode_to_vec();
        assert_eq!(Envelope::decode(bytes.as_slice()).unwrap(), message);
        let mut group = criterion.benchmark_group("envelope");
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(u64::try_from(members).unwrap()));
        let name = |what: &str| BenchmarkId::new(what, format!("{members} of 256 B, {} B in all", bytes.len()));
        group.bench_function(name("encode"), |bencher| bencher.iter(|| black_box(&message).encode_to_vec()));
        group.bench_function(name("decode"), |bencher| {
            bencher.iter(|| Envelope::decode(black_box(bytes.as_slice())).is_ok());
        });
        group.finish();
    }
    criterion.bench_function("envelope: make", |bencher| {
        let source = sender();
        bencher.iter(|| Envelope::new(source.component(), black_box(alert()), NOW, [7; 10]));
    });
}

criterion_group!(benches, subjects, envelopes);
criterion_main!(benches);
