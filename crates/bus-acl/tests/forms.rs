//! How messages travel by the policy, and what an explanation says of it.
#![allow(clippy::unwrap_used, reason = "test code")]

use bus_acl::{
    Action, Destinations, Explanation, Form, FormRule, Inboxes, Policy, Right, Rule, Sealing, Types, Warning, Who,
};
use bus_proto::{Destination, Endpoint, MessageType, Principal, Role};

const EVENTS: Destination = Destination::Events;

fn endpoint(name: &str) -> Endpoint {
    name.parse().unwrap()
}

fn inbox(name: &str) -> Destination {
    Destination::Inbox(endpoint(name))
}

fn principal(name: &str) -> Principal {
    format!("spiffe://ransomeye.local/{name}").parse().unwrap()
}

fn alerts() -> Types {
    Types::only([MessageType::Alert])
}

fn sealed(sealing: Sealing, recipients: &[&str]) -> FormRule {
    FormRule::seal(alerts(), Destinations::Events, sealing)
        .with_recipients(recipients.iter().map(|name| endpoint(name)))
}

fn with(rules: impl IntoIterator<Item = FormRule>) -> Policy {
    Policy::default().with_forms(rules)
}

fn recipients(form: Form<'_>) -> Vec<String> {
    form.recipients().map(ToString::to_string).collect()
}

#[test]
fn without_a_rule_directed_messages_are_sealed_and_events_are_not_and_nothing_is_compressed() {
    let policy = Policy::default();
    for message_type in &MessageType::BUILT_IN {
        let form = policy.form(message_type, &EVENTS);
        assert_eq!((form.sealing(), form.compress(), form.recipients().count()), (Sealing::Off, None, 0));
        let inbox = inbox("agent/a1");
        let form = policy.form(message_type, &inbox);
        assert_eq!((form.sealing(), form.compress(), form.recipients().count()), (Sealing::On, None, 0));
    }
}

#[test]
fn a_rule_is_about_its_types_and_destinations_alone() {
    let agents = Destinations::Inboxes(Inboxes::OfRole(Role::new("agent").unwrap()));
    let policy = with([FormRule::seal(alerts(), agents, Sealing::Required)]);
    let sealing = |message_type, destination: &Destination| policy.form(&message_type, destination).sealing();
    assert_eq!(sealing(MessageType::Alert, &inbox("agent/a1")), Sealing::Required);
    assert_eq!(sealing(MessageType::Alert, &inbox("core/a1")), Sealing::On);
    assert_eq!(sealing(MessageType::Error, &inbox("agent/a1")), Sealing::On);
    assert_eq!(sealing(MessageType::Alert, &EVENTS), Sealing::Off);
}

#[test]
fn a_rule_turns_off_the_sealing_of_directed_messages() {
    let one = Destinations::Inboxes(Inboxes::Of(endpoint("agent/a1")));
    let policy = with([FormRule::seal(Types::EVERY, one, Sealing::Off)]);
    assert_eq!(policy.form(&MessageType::Command, &inbox("agent/a1")).sealing(), Sealing::Off);
    assert_eq!(policy.form(&MessageType::Command, &inbox("agent/a2")).sealing(), Sealing::On);
}

#[test]
fn the_strictest_rule_wins() {
    let strictest = |rules: &[Sealing]| {
        let policy = with(rules.iter().map(|sealing| sealed(*sealing, &[])));
        policy.form(&MessageType::Alert, &EVENTS).sealing()
    };
    assert_eq!(strictest(&[Sealing::Off, Sealing::On]), Sealing::On);
    assert_eq!(strictest(&[Sealing::Required, Sealing::Off]), Sealing::Required);
    assert_eq!(strictest(&[Sealing::On, Sealing::Required, Sealing::On]), Sealing::Required);
}

#[test]
fn messages_are_sealed_for_the_recipients_of_every_rule() {
    let policy = with([sealed(Sealing::On, &["core/c2", "core/c1"]), sealed(Sealing::Required, &["core/c3"])]);
    let form = policy.form(&MessageType::Alert, &EVENTS);
    assert_eq!(recipients(form), ["core/c1", "core/c2", "core/c3"]);
}

#[test]
fn a_rule_that_does_not_seal_names_no_recipients() {
    let compress = FormRule::compress(alerts(), Destinations::Events, true).with_recipients([endpoint("core/c2")]);
    let policy = with([sealed(Sealing::Off, &["core/c1"]), compress, sealed(Sealing::On, &["core/c3"])]);
    assert_eq!(recipients(policy.form(&MessageType::Alert, &EVENTS)), ["core/c3"]);
}

#[test]
fn messages_are_compressed_if_a_rule_says_so_and_none_says_not() {
    let compress = |rules: &[bool]| {
        let policy = with(rules.iter().map(|compress| FormRule::compress(alerts(), Destinations::Events, *compress)));
        policy.form(&MessageType::Alert, &EVENTS).compress()
    };
    assert_eq!(compress(&[]), None);
    assert_eq!(compress(&[true, true]), Some(true));
    assert_eq!(compress(&[true, false]), Some(false));
    assert_eq!(compress(&[false, true]), Some(false));
}

#[test]
fn a_rule_about_compression_leaves_the_sealing_as_it_is() {
    let any = Destinations::Inboxes(Inboxes::Any);
    let policy = with([FormRule::compress(Types::EVERY, any, true)]);
    assert_eq!(policy.form(&MessageType::Command, &inbox("agent/a1")).sealing(), Sealing::On);
}

#[test]
fn rules_that_are_given_later_are_rules_besides() {
    let policy = with([sealed(Sealing::On, &["core/c1"])]).with_forms([sealed(Sealing::On, &["core/c2"])]);
    assert_eq!(recipients(policy.form(&MessageType::Alert, &EVENTS)), ["core/c1", "core/c2"]);
}

#[test]
fn a_rule_reads_as_what_it_says() {
    let any = || Destinations::Inboxes(Inboxes::Any);
    let texts = [
        (sealed(Sealing::Off, &["core/c1"]), "Alert to events: not sealed"),
        (sealed(Sealing::On, &[]), "Alert to events: sealed"),
        (sealed(Sealing::Required, &["core/c2", "core/c1"]), "Alert to events: must be sealed for core/c1, core/c2"),
        (FormRule::compress(Types::EVERY, any(), false), "every type to the inbox of */*: not compressed"),
        (
            FormRule::seal(Types::EVERY, any(), Sealing::On).with_compression(true),
            "every type to the inbox of */*: sealed; compressed",
        ),
    ];
    for (rule, text) in texts {
        assert_eq!(rule.to_string(), text);
    }
}

#[test]
fn a_form_reads_as_what_becomes_of_the_message() {
    let policy = with([
        sealed(Sealing::Required, &["core/c2", "core/c1"]),
        sealed(Sealing::On, &["core/c1"]).with_compression(true),
        FormRule::seal(Types::only([MessageType::Heartbeat]), Destinations::Events, Sealing::On),
    ]);
    let text = |message_type, destination| policy.form(&message_type, &destination).to_string();
    assert_eq!(text(MessageType::Alert, EVENTS), "must be sealed for core/c1, core/c2; compressed");
    assert_eq!(text(MessageType::Telemetry, EVENTS), "not sealed; not compressed");
    assert_eq!(text(MessageType::Command, inbox("agent/a1")), "sealed for agent/a1; not compressed");
    assert_eq!(
        text(MessageType::Heartbeat, EVENTS),
        "sealed for those whom the sender's configuration names; not compressed"
    );
}

#[test]
fn an_explanation_says_how_what_is_allowed_travels_and_by_which_forms() {
    let policy = with([
        FormRule::compress(Types::only([MessageType::Error]), Destinations::Events, true),
        sealed(Sealing::On, &["core/c1"]),
    ]);
    let agent = principal("agent/a1");
    assert_eq!(
        policy.explain(&agent, Action::Publish, &MessageType::Alert, &EVENTS).to_string(),
        "ALLOWED: spiffe://ransomeye.local/agent/a1 to publish Alert to events\n\
         rule 1 decides: allow role agent to publish Telemetry, Alert, Heartbeat to events\n\
         form: sealed for core/c1; not compressed\n\
         form 2 matches: Alert to events: sealed for core/c1\n\
         delivery: live"
    );
    let denied = policy.explain(&agent, Action::Subscribe, &MessageType::Alert, &EVENTS);
    assert_eq!(denied.form(), None);
    assert!(!denied.to_string().contains("form"), "{denied}");
}

/// Who publishes or subscribes to alerts, under a policy that seals them.
fn explained<'a>(policy: &'a Policy, who: &'a Principal, action: Action) -> Explanation<'a> {
    policy.explain(who, action, &MessageType::Alert, &EVENTS)
}

#[test]
fn who_may_receive_and_cannot_open_is_warned_about() {
    let policy = with([sealed(Sealing::On, &["core/c1"])]);
    let (named, other) = (principal("core/c1"), principal("core/c2"));
    assert_eq!(explained(&policy, &named, Action::Subscribe).warnings(), []);
    let explanation = explained(&policy, &other, Action::Subscribe);
    assert_eq!(explanation.warnings(), [Warning::NoRecipient(&other)]);
    let text = explanation.to_string();
    assert!(
        text.ends_with(
            "\nwarning: spiffe://ransomeye.local/core/c2 is none of the recipients that the policy names: it receives these \
             events and cannot open them"
        ),
        "{text}"
    );
}

#[test]
fn a_namesake_of_a_recipient_in_another_trust_domain_is_warned_about() {
    let foreign: Principal = "spiffe://other.example/core/c1".parse().unwrap();
    let who = Who::role(&Role::new("core").unwrap()).trust_domain(foreign.trust_domain.clone());
    let policy = Policy::new([Rule::allow(who, Right::SubscribeEvents, Types::EVERY)])
        .with_forms([sealed(Sealing::On, &["core/c1"])])
        .for_domain("ransomeye.local".parse().unwrap());
    let explanation = explained(&policy, &foreign, Action::Subscribe);
    assert!(explanation.warnings().contains(&Warning::NoRecipient(&foreign)), "{explanation}");
}

#[test]
fn a_recipient_who_may_not_receive_is_warned_about() {
    let policy = with([sealed(Sealing::On, &["core/c1", "agent/a9"])]);
    let agent = principal("agent/a1");
    let explanation = explained(&policy, &agent, Action::Publish);
    assert_eq!(explanation.warnings(), [Warning::NotReceived(&endpoint("agent/a9"))]);
}

#[test]
fn nobody_is_warned_about_where_the_configuration_names_the_recipients() {
    let policy = with([sealed(Sealing::Required, &[])]);
    let core = principal("core/c1");
    assert_eq!(explained(&policy, &core, Action::Subscribe).warnings(), []);
}
