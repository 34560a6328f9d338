//! What the default policy decides, how it explains it, and what it has the broker enforce.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "test code")]

use bus_acl::{Action, Denied, Inboxes, Policy, Right, Rule, Types, Who, Why};
use bus_proto::{Destination, MessageType, Principal, Role, SubjectRoot};

fn principal(endpoint: &str) -> Principal {
    format!("spiffe://ransomeye.local/{endpoint}").parse().unwrap()
}

fn inbox(endpoint: &str) -> Destination {
    Destination::Inbox(endpoint.parse().unwrap())
}

/// Why a policy denies this, or `None` if it does not.
fn why(
    policy: &Policy,
    who: &Principal,
    action: Action,
    message_type: MessageType,
    place: &Destination,
) -> Option<Why> {
    policy.authorize(who, action, &message_type, place).err().map(|denied| denied.why())
}

/// Why the default policy denies this, or `None` if it does not.
fn by_default(who: &str, action: Action, message_type: MessageType, place: &Destination) -> Option<Why> {
    why(&Policy::default(), &principal(who), action, message_type, place)
}

#[test]
fn agents_report_as_events_and_not_into_inboxes() {
    for message_type in [MessageType::Telemetry, MessageType::Alert, MessageType::Heartbeat] {
        assert_eq!(by_default("agent/a1", Action::Publish, message_type.clone(), &Destination::Events), None);
        assert_eq!(by_default("agent/a1", Action::Publish, message_type, &inbox("core/c1")), Some(Why::NoRule));
    }
}

#[test]
fn the_core_commands_into_inboxes_and_not_as_events() {
    assert_eq!(by_default("core/c1", Action::Publish, MessageType::Command, &inbox("agent/a1")), None);
    assert_eq!(by_default("core/c1", Action::Publish, MessageType::Command, &Destination::Events), Some(Why::NoRule));
}

#[test]
fn every_role_may_answer_and_only_into_inboxes() {
    for who in ["agent/a1", "core/c1", "watcher/w1"] {
        for message_type in [MessageType::CommandResult, MessageType::Error] {
            assert_eq!(by_default(who, Action::Publish, message_type.clone(), &inbox("core/c2")), None);
            assert_eq!(by_default(who, Action::Publish, message_type, &Destination::Events), Some(Why::NoRule));
        }
    }
}

#[test]
fn nobody_reads_the_inbox_of_another() {
    for (who, owner) in [("core/c1", "agent/a1"), ("agent/a1", "agent/a11"), ("agent/a1", "core/a1")] {
        let decision = by_default(who, Action::Subscribe, MessageType::Command, &inbox(owner));
        assert_eq!(decision, Some(Why::NotYourInbox));
    }
    assert_eq!(by_default("agent/a1", Action::Subscribe, MessageType::Command, &inbox("agent/a1")), None);
}

#[test]
fn only_the_core_receives_events() {
    let policy = Policy::default();
    let core = principal("core/c1");
    let all = policy.authorize_subscription(&core, None, &Destination::Events).unwrap();
    assert_eq!(all.subject(&SubjectRoot::default()), "ransomeye.events.>");
    let agent = principal("agent/a1");
    let denied = policy.authorize_subscription(&agent, None, &Destination::Events).unwrap_err();
    assert_eq!(denied.why(), Why::NoRule);
}

#[test]
fn a_permit_names_the_subject_that_it_is_for() {
    let (policy, root) = (Policy::default(), SubjectRoot::default());
    let (core, agent, own) = (principal("core/c1"), principal("agent/a1"), inbox("agent/a1"));
    let command = policy.authorize(&core, Action::Publish, &MessageType::Command, &own).unwrap();
    assert_eq!(command.subject(&root), "ransomeye.inbox.agent.a1.command.core.c1");
    assert_eq!(command.request().principal, &core);
    let alerts = policy.authorize(&core, Action::Subscribe, &MessageType::Alert, &Destination::Events).unwrap();
    assert_eq!(alerts.subject(&root), "ransomeye.events.alert.>");
    let all = policy.authorize_subscription(&agent, None, &own).unwrap();
    assert_eq!(all.subject(&root), "ransomeye.inbox.agent.a1.>");
    let commands = policy.authorize_subscription(&agent, Some(&MessageType::Command), &own).unwrap();
    assert_eq!(commands.subject(&root), "ransomeye.inbox.agent.a1.command.>");
}

#[test]
fn a_denial_says_who_what_and_why() {
    let (agent, other) = (principal("agent/a1"), inbox("agent/a2"));
    let denied: Denied =
        Policy::default().authorize(&agent, Action::Publish, &MessageType::Command, &other).unwrap_err();
    assert_eq!(denied.request().principal, &agent);
    assert_eq!(
        denied.to_string(),
        "the policy does not allow spiffe://ransomeye.local/agent/a1 to publish Command to the inbox of agent/a2: no rule \
         of the policy allows it"
    );
}

#[test]
fn an_explanation_names_the_rule_that_decides_and_those_that_match_too() {
    let agent = Role::new("agent").unwrap();
    let policy = Policy::new([
        Rule::allow(Who::role(&agent), Right::PublishEvents, Types::EVERY),
        Rule::deny(Who::every_role(), Right::PublishEvents, Types::only([MessageType::Alert])),
        Rule::deny(Who::every_role(), Right::SubscribeEvents, Types::EVERY),
    ]);
    let agent = principal("agent/a1");
    let explain = |message_type, place| policy.explain(&agent, Action::Publish, &message_type, &place).to_string();
    assert_eq!(
        explain(MessageType::Alert, Destination::Events),
        "DENIED: spiffe://ransomeye.local/agent/a1 to publish Alert to events: rule 2 of the policy denies it\n\
         rule 1 matches too: allow role agent to publish every type to events\n\
         rule 2 decides: deny every role to publish Alert to events"
    );
    assert_eq!(
        explain(MessageType::Heartbeat, Destination::Events),
        "ALLOWED: spiffe://ransomeye.local/agent/a1 to publish Heartbeat to events\n\
         rule 1 decides: allow role agent to publish every type to events\n\
         form: not sealed; not compressed\n\
         delivery: live"
    );
    assert_eq!(
        explain(MessageType::Heartbeat, inbox("core/c1")),
        "DENIED: spiffe://ransomeye.local/agent/a1 to publish Heartbeat to the inbox of core/c1: no rule of the policy \
         allows it"
    );
}

#[test]
fn an_explanation_asks_no_rule_about_the_inbox_of_another() {
    let (policy, core, other) = (Policy::default(), principal("core/c1"), inbox("agent/a1"));
    let explanation = policy.explain(&core, Action::Subscribe, &MessageType::Command, &other);
    assert_eq!(explanation.why(), Some(Why::NotYourInbox));
    assert!(explanation.matched().is_empty());
    assert_eq!(
        explanation.to_string(),
        "DENIED: spiffe://ransomeye.local/core/c1 to subscribe Command from the inbox of agent/a1: only its owner may read \
         an inbox"
    );
}

#[test]
fn the_permissions_of_an_agent_are_exactly_these() {
    let permissions = Policy::default().permissions(&SubjectRoot::default(), &principal("agent/a1"));
    assert_eq!(
        permissions.publish_allow,
        [
            "$JS.API.DIRECT.GET.RANSOMEYE_KEYS",
            "$JS.API.DIRECT.GET.RANSOMEYE_SEALING",
            "ransomeye.control.bus.ping.agent.a1",
            "ransomeye.events.alert.agent.a1",
            "ransomeye.events.heartbeat.agent.a1",
            "ransomeye.events.telemetry.agent.a1",
            "ransomeye.inbox.*.*.error.agent.a1",
            "ransomeye.inbox.*.*.result.agent.a1",
            "ransomeye.keys.agent.a1",
            "ransomeye.sealing.agent.a1",
        ]
    );
    assert_eq!(permissions.subscribe_allow, ["_INBOX.agent.a1.>", "ransomeye.inbox.agent.a1.>"]);
    assert!(permissions.publish_deny.is_empty() && permissions.subscribe_deny.is_empty());
}

#[test]
fn the_permissions_of_the_core_are_exactly_these() {
    let root = SubjectRoot::new("acme.prod").unwrap();
    let permissions = Policy::default().permissions(&root, &principal("core/c1"));
    assert_eq!(
        permissions.publish_allow,
        [
            "$JS.API.DIRECT.GET.ACME_PROD_KEYS",
            "$JS.API.DIRECT.GET.ACME_PROD_SEALING",
            "acme.prod.control.bus.ping.core.c1",
            "acme.prod.inbox.*.*.command.core.c1",
            "acme.prod.inbox.*.*.error.core.c1",
            "acme.prod.inbox.*.*.result.core.c1",
            "acme.prod.keys.core.c1",
            "acme.prod.sealing.core.c1",
        ]
    );
    assert_eq!(permissions.subscribe_allow, ["_INBOX.core.c1.>", "acme.prod.events.>", "acme.prod.inbox.core.c1.>"]);
    assert!(permissions.publish_deny.is_empty() && permissions.subscribe_deny.is_empty());
}

#[test]
fn without_rules_a_component_may_still_prove_that_it_is_connected_exchange_keys_and_nothing_else() {
    let permissions = Policy::new([]).permissions(&SubjectRoot::default(), &principal("agent/a1"));
    assert_eq!(
        permissions.publish_allow,
        [
            "$JS.API.DIRECT.GET.RANSOMEYE_KEYS",
            "$JS.API.DIRECT.GET.RANSOMEYE_SEALING",
            "ransomeye.control.bus.ping.agent.a1",
            "ransomeye.keys.agent.a1",
            "ransomeye.sealing.agent.a1",
        ]
    );
    assert_eq!(permissions.subscribe_allow, ["_INBOX.agent.a1.>"]);
}

#[test]
fn a_broker_exchanges_no_keys() {
    let permissions = Policy::new([]).permissions(&SubjectRoot::default(), &principal("broker/nats-01"));
    assert_eq!(permissions.publish_allow, ["ransomeye.control.bus.ping.broker.nats-01"]);
}

#[test]
fn a_foreign_principal_has_no_rights_unless_a_rule_names_its_domain() {
    let foreign: Principal = "spiffe://other.example/core/c1".parse().unwrap();
    let local = principal("core/c1").trust_domain;
    let place = inbox("agent/a1");
    let why = |policy: &Policy, message_type| why(policy, &foreign, Action::Publish, message_type, &place);

    let bound = Policy::default().for_domain(local.clone());
    assert_eq!(why(&bound, MessageType::Command), Some(Why::ForeignTrustDomain));

    let partner = Who::role(foreign.role()).trust_domain(foreign.trust_domain.clone());
    let answers = Types::only([MessageType::CommandResult]);
    let naming = Policy::new([Rule::allow(partner, Right::PublishInbox(Inboxes::Any), answers)]);
    assert_eq!(why(&naming, MessageType::CommandResult), Some(Why::UnboundPolicy));
    let naming = naming.for_domain(local);
    assert_eq!(why(&naming, MessageType::CommandResult), None);
    assert_eq!(why(&naming, MessageType::Command), Some(Why::ForeignTrustDomain));
}

#[test]
fn the_broker_gives_a_foreign_principal_nothing() {
    let foreign: Principal = "spiffe://other.example/core/c1".parse().unwrap();
    let policy = Policy::default().for_domain(principal("core/c1").trust_domain);
    let permissions = policy.permissions(&SubjectRoot::default(), &foreign);
    assert!(permissions.publish_allow.is_empty() && permissions.subscribe_allow.is_empty());
    assert_eq!((permissions.publish_deny, permissions.subscribe_deny), (vec![">".to_owned()], vec![">".to_owned()]));
}

#[test]
fn a_foreign_namesake_does_not_read_a_local_inbox() {
    let foreign: Principal = "spiffe://other.example/agent/a1".parse().unwrap();
    let policy = Policy::default().for_domain(principal("agent/a1").trust_domain);
    let denied = why(&policy, &foreign, Action::Subscribe, MessageType::Command, &inbox("agent/a1"));
    assert_eq!(denied, Some(Why::NotYourInbox));
}
