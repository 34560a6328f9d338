//! What is durable by the policy, who gets it, and what an explanation says of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::time::Duration;

use bus_acl::{
    Action, Class, DeliveryError, DeliveryRule, Destinations, Durable, Inboxes, MAX_LIFETIME_MS, Policy, Right, Rule,
    Source, Types, Warning, Who,
};
use bus_proto::{Destination, MessageType, Principal, Role, SubjectRoot};

const EVENTS: Destination = Destination::Events;
const HOUR: u64 = 3_600_000;

fn only(message_type: MessageType) -> Types {
    Types::only([message_type])
}

fn alerts(lifetime: u64) -> DeliveryRule {
    DeliveryRule::durable(only(MessageType::Alert), Destinations::Events, lifetime)
}

fn inboxes(types: Types, inboxes: Inboxes) -> DeliveryRule {
    DeliveryRule::durable(types, Destinations::Inboxes(inboxes), HOUR)
}

fn durable(types: Types, from: Source) -> Durable {
    Durable::new("all".parse().unwrap(), "core/core-01".parse().unwrap(), types, from)
}

fn core() -> Principal {
    "spiffe://ransomeye.local/core/core-01".parse().unwrap()
}

fn with(rules: impl IntoIterator<Item = DeliveryRule>) -> Policy {
    Policy::default().with_deliveries(rules).unwrap()
}

#[test]
fn without_a_rule_everything_is_live_and_nothing_is_kept() {
    let policy = Policy::default();
    for message_type in &MessageType::BUILT_IN {
        for destination in [EVENTS, Destination::Inbox("agent/a1".parse().unwrap())] {
            let delivery = policy.delivery(message_type, &destination);
            assert_eq!((delivery.class, delivery.max_lifetime_ms), (Class::Live, u64::MAX));
        }
    }
    for from in [Source::Events, Source::Inbox] {
        assert_eq!(policy.kept(&SubjectRoot::default(), from), None);
    }
}

#[test]
fn durable_beats_live_and_the_shortest_lifetime_counts() {
    let live = DeliveryRule::live(Types::EVERY, Destinations::Events);
    let policy = with([alerts(5 * HOUR), live, alerts(2 * HOUR)]);
    assert_eq!(policy.delivery(&MessageType::Alert, &EVENTS).to_string(), "durable, for at most 2h");
    assert_eq!(policy.delivery(&MessageType::Heartbeat, &EVENTS).to_string(), "live");
}

#[test]
fn a_stream_keeps_no_subject_twice() {
    let role = Inboxes::OfRole(Role::new("core").unwrap());
    let policy = with([
        inboxes(only(MessageType::Command), Inboxes::Of("core/core-01".parse().unwrap())),
        inboxes(only(MessageType::Command), role),
        inboxes(only(MessageType::Error), Inboxes::Any),
    ]);
    let kept = policy.kept(&SubjectRoot::default(), Source::Inbox).unwrap();
    assert_eq!(kept.subjects, ["ransomeye.inbox.*.*.error.*.*", "ransomeye.inbox.core.*.command.*.*"]);
    let delivered = policy.delivered(&SubjectRoot::default(), &durable(Types::EVERY, Source::Inbox));
    assert_eq!(delivered, ["ransomeye.inbox.core.core-01.command.*.*", "ransomeye.inbox.core.core-01.error.*.*"]);
}

#[test]
fn rules_that_no_stream_can_be_told_are_refused() {
    let role = Inboxes::OfRole(Role::new("core").unwrap());
    let rules = [inboxes(only(MessageType::Command), Inboxes::Any), inboxes(Types::EVERY, role)];
    assert_eq!(Policy::default().with_deliveries(rules), Err(DeliveryError::Overlap { every: 2, single: 1 }));
}

#[test]
fn a_lifetime_outside_its_bounds_is_refused() {
    for lifetime in [0, 999, MAX_LIFETIME_MS + 1, u64::MAX] {
        let refused = Policy::default().with_deliveries([alerts(HOUR), alerts(lifetime)]);
        assert_eq!(refused, Err(DeliveryError::Lifetime { delivery: 2 }), "{lifetime}");
    }
}

#[test]
fn settings_of_a_consumer_outside_their_bounds_are_refused() {
    let changes: [fn(&mut Durable); 6] = [
        |durable| durable.max_deliver = 0,
        |durable| durable.max_deliver = 1_001,
        |durable| durable.ack_wait = Duration::from_millis(999),
        |durable| durable.ack_wait = Duration::MAX,
        |durable| durable.max_ack_pending = 0,
        |durable| durable.max_ack_pending = 100_001,
    ];
    for change in changes {
        let mut durable = durable(Types::EVERY, Source::Events);
        change(&mut durable);
        let refused = with([alerts(HOUR)]).with_durables([durable]).unwrap_err();
        assert!(matches!(refused, DeliveryError::Bounds { durable: 1, .. }), "{refused}");
    }
}

#[test]
fn a_consumer_of_what_is_live_is_refused() {
    let policy = with([alerts(HOUR)]);
    for (types, from, missing) in [
        (only(MessageType::Heartbeat), Source::Events, Some(MessageType::Heartbeat)),
        (only(MessageType::Alert), Source::Inbox, Some(MessageType::Alert)),
        (Types::EVERY, Source::Inbox, None),
    ] {
        let refused = policy.clone().with_durables([durable(types, from)]).unwrap_err();
        assert_eq!(refused, DeliveryError::NotKept { durable: 1, message_type: missing, from });
    }
}

#[test]
fn a_consumer_of_what_its_owner_may_not_receive_is_refused() {
    let every = DeliveryRule::durable(Types::EVERY, Destinations::Events, HOUR);
    let core = Who::role(&Role::new("core").unwrap());
    let allow = Rule::allow(core.clone(), Right::SubscribeEvents, Types::EVERY);
    let deny = Rule::deny(core, Right::SubscribeEvents, only(MessageType::Alert));
    let all = || durable(Types::EVERY, Source::Events);
    let policy = |rules: Vec<Rule>| Policy::new(rules).with_deliveries([every.clone()]).unwrap();
    assert!(policy(vec![allow.clone()]).with_durables([all()]).is_ok());
    for rules in [vec![], vec![allow, deny]] {
        let refused = policy(rules).with_durables([all()]).unwrap_err();
        assert!(matches!(refused, DeliveryError::NotAllowed { message_type: None, .. }), "{refused}");
    }
}

#[test]
fn a_rule_that_would_give_a_consumer_what_it_may_not_have_is_refused() {
    let core = Who::role(&Role::new("core").unwrap());
    let policy = Policy::new([Rule::allow(core, Right::SubscribeEvents, only(MessageType::Alert))]);
    let policy = policy.with_deliveries([alerts(HOUR)]).unwrap();
    let policy = policy.with_durables([durable(Types::EVERY, Source::Events)]).unwrap();
    let heartbeats = DeliveryRule::durable(only(MessageType::Heartbeat), Destinations::Events, HOUR);
    let refused = policy.with_deliveries([heartbeats]).unwrap_err();
    let missing = Some(MessageType::Heartbeat);
    assert!(
        matches!(&refused, DeliveryError::NotAllowed { message_type, .. } if *message_type == missing),
        "{refused}"
    );
}

#[test]
fn a_policy_that_names_its_own_trust_domain_has_consumers() {
    let who = Who::role(&Role::new("core").unwrap()).trust_domain("ransomeye.local".parse().unwrap());
    let policy = Policy::new([Rule::allow(who, Right::SubscribeEvents, Types::EVERY)]);
    let policy = policy.with_deliveries([alerts(HOUR)]).unwrap();
    let policy = policy.with_durables([durable(Types::EVERY, Source::Events)]).unwrap();
    let [all] = policy.durables() else { panic!("one consumer") };
    assert!(!policy.may_consume(&core(), all), "it is not bound yet");
    let bound = policy.clone().for_domain("ransomeye.local".parse().unwrap());
    assert!(bound.may_consume(&core(), all));
    assert!(!policy.clone().for_domain("other.example".parse().unwrap()).may_consume(&core(), all));
}

#[test]
fn a_component_is_given_its_own_consumer_and_no_more_of_the_stream() {
    let policy = with([alerts(HOUR)]).with_durables([durable(Types::EVERY, Source::Events)]).unwrap();
    let root = SubjectRoot::default();
    let (with, without) = (policy.permissions(&root, &core()), Policy::default().permissions(&root, &core()));
    let added: Vec<_> = with.publish_allow.iter().filter(|subject| !without.publish_allow.contains(subject)).collect();
    assert_eq!(
        added,
        [
            "$JS.ACK.RANSOMEYE_EVENTS.core_core-01_all.>",
            "$JS.API.CONSUMER.INFO.RANSOMEYE_EVENTS.core_core-01_all",
            "$JS.API.CONSUMER.MSG.NEXT.RANSOMEYE_EVENTS.core_core-01_all",
        ]
    );
    assert_eq!(with.subscribe_allow, without.subscribe_allow);
}

#[test]
fn an_explanation_says_how_what_is_allowed_is_delivered_and_by_which_rules() {
    let policy = with([inboxes(only(MessageType::Command), Inboxes::Any), alerts(12 * HOUR)]);
    let policy = policy.with_durables([durable(only(MessageType::Alert), Source::Events)]).unwrap();
    let core = core();
    let explanation = policy.explain(&core, Action::Subscribe, &MessageType::Alert, &EVENTS);
    assert_eq!(explanation.delivery().unwrap().class, Class::Durable);
    assert!(
        explanation.to_string().ends_with(
            "\ndelivery: durable, for at most 12h\ndelivery 2 matches: Alert to events: durable, for at most 12h"
        ),
        "{explanation}"
    );
    let denied = policy.explain(&core, Action::Publish, &MessageType::Alert, &EVENTS);
    assert_eq!((denied.delivery(), denied.deliveries().len()), (None, 0));
    assert!(!denied.to_string().contains("delivery"), "{denied}");
}

#[test]
fn what_is_kept_for_nobody_is_warned_about() {
    let core = core();
    let policy = with([alerts(HOUR)]);
    let warnings = |policy: &Policy, message_type| {
        policy.explain(&core, Action::Subscribe, &message_type, &EVENTS).warnings().len()
    };
    let explanation = policy.explain(&core, Action::Subscribe, &MessageType::Alert, &EVENTS);
    assert_eq!(explanation.warnings(), [Warning::NotConsumed]);
    assert!(explanation.to_string().contains("\nwarning: a stream keeps these messages"), "{explanation}");
    assert_eq!(warnings(&policy, MessageType::Heartbeat), 0, "it is live");
    let consumed = policy.with_durables([durable(Types::EVERY, Source::Events)]).unwrap();
    assert_eq!(warnings(&consumed, MessageType::Alert), 0);
}

#[test]
fn a_consumer_reads_as_what_it_says() {
    assert_eq!(
        durable(only(MessageType::Alert), Source::Events).to_string(),
        "core/core-01 receives Alert from events as all, up to 10 times, each after 30s"
    );
}
