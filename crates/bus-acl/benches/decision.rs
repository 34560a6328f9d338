//! What a decision costs. The design allows 100 ns; the figures are printed in nanoseconds.
#![allow(missing_docs, clippy::unwrap_used, reason = "the macros' code, and test code")]

use std::hint::black_box;
use std::time::Duration;

use bus_acl::{
    Action, Delivery, DeliveryRule, Destinations, FormRule, Policy, Right, Rule, Sealing, Types, Who, can_publish,
};
use bus_proto::{ComponentId, Destination, MessageType, Principal, Role};
use criterion::{Criterion, criterion_group, criterion_main};

/// A policy with this many rules, spread over roles, types and destinations, in which `agent` may publish alerts.
fn policy(rules: usize) -> Policy {
    let role = |place: usize| Who::role(&Role::new(&format!("role-{place}")).unwrap());
    let types = |place: usize| Types::only([MessageType::BUILT_IN[place % 6].clone()]);
    let rights = [Right::PublishEvents, Right::SubscribeEvents, Right::SubscribeOwnInbox];
    let filler = (1..rules).map(|place| Rule::allow(role(place % 20), rights[place % 3].clone(), types(place)));
    let agent = Who::role(&Role::new("agent").unwrap()).component(ComponentId::new("agent-linux-01").unwrap());
    filler.chain([Rule::allow(agent, Right::PublishEvents, Types::only([MessageType::Alert]))]).collect()
}

fn decisions(criterion: &mut Criterion) {
    let agent: Principal = "spiffe://ransomeye.local/agent/agent-linux-01".parse().unwrap();
    let core: Principal = "spiffe://ransomeye.local/core/core-01".parse().unwrap();
    let (events, inbox) = (Destination::Events, Destination::Inbox(agent.endpoint.clone()));
    let mut group = criterion.benchmark_group("authorize");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    let mut case = |name: &str, policy: &Policy, who, message_type, destination, allowed| {
        let decide = || {
            black_box(policy).authorize(
                black_box(who),
                Action::Publish,
                black_box(message_type),
                black_box(destination),
            )
        };
        assert_eq!(decide().is_ok(), allowed, "{name}");
        group.bench_function(name, |bencher| bencher.iter(decide));
    };
    let default = Policy::default();
    case("default policy, an event, allowed", &default, &agent, &MessageType::Telemetry, &events, true);
    case("default policy, a command, allowed", &default, &core, &MessageType::Command, &inbox, true);
    case("default policy, a command, denied", &default, &agent, &MessageType::Command, &inbox, false);
    case("50 rules, an event, allowed", &policy(50), &agent, &MessageType::Alert, &events, true);
    case("50 rules, an event, denied", &policy(50), &agent, &MessageType::Command, &events, false);
    case("10,000 rules, an event, allowed", &policy(10_000), &agent, &MessageType::Alert, &events, true);
    group.finish();

    criterion.bench_function("can_publish", |bencher| {
        bencher.iter(|| can_publish(black_box("agent"), black_box("CommandRequest")));
    });
}

fn forms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("form");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for rules in [0, 10, 1_000] {
        let types = |place: usize| Types::only([format!("x-{place}").parse().unwrap()]);
        let rule = |place| FormRule::seal(types(place), Destinations::Events, Sealing::Required);
        let policy = Policy::default().with_forms((0..rules).map(rule));
        let form = || black_box(&policy).form(black_box(&MessageType::Alert), &Destination::Events).sealing();
        assert_eq!(form(), Sealing::Off);
        group.bench_function(format!("{rules} rules, an event"), |bencher| bencher.iter(form));
    }
    group.finish();
}

fn deliveries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delivery");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for rules in [0, 10, 1_000] {
        let types = |place: usize| Types::only([format!("x-{place}").parse().unwrap()]);
        let rule = |place| DeliveryRule::durable(types(place), Destinations::Events, 90_000);
        let policy = Policy::default().with_deliveries((0..rules).map(rule)).unwrap();
        let delivery = || black_box(&policy).delivery(black_box(&MessageType::Alert), &Destination::Events);
        assert_eq!(delivery(), Delivery::LIVE);
        group.bench_function(format!("{rules} rules, an event"), |bencher| bencher.iter(delivery));
    }
    group.finish();
}

criterion_group!(benches, decisions, forms, deliveries);
criterion_main!(benches);
