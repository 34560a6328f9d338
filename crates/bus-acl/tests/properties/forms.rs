//! How messages travel by random rules.

use std::collections::BTreeSet;

use bus_acl::{Destinations, FormRule, Inboxes, Policy, Sealing, Types};
use bus_proto::{Destination, Endpoint, MessageType};
use proptest::prelude::*;

use crate::spec::{COMPONENTS, ROLES, TYPES, destinations, endpoint, endpoints, types};

/// One rule, in the words of a policy file.
#[derive(Debug, Clone)]
struct Spec {
    /// Empty: every type.
    types: Vec<&'static str>,
    /// `None`: events.
    inbox: Option<(&'static str, &'static str)>,
    seal: Option<&'static str>,
    recipients: Vec<(&'static str, &'static str)>,
    compress: Option<bool>,
}

/// What a policy says, as far as it can be compared.
type Said = (Sealing, BTreeSet<Endpoint>, Option<bool>);

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let role = || proptest::sample::select(&ROLES[..]);
    let component = || proptest::sample::select(&COMPONENTS[..]);
    let inbox = prop_oneof![Just(("*", "*")), role().prop_map(|role| (role, "*")), (role(), component()),];
    let spec = (
        prop_oneof![Just(Vec::new()), proptest::collection::vec(proptest::sample::select(&TYPES[..]), 1..4)],
        proptest::option::of(inbox),
        proptest::option::weighted(0.8, proptest::sample::select(&["off", "on", "required"][..])),
        proptest::collection::vec((role(), component()), 0..4),
        any::<Option<bool>>(),
    );
    let spec = spec.prop_map(|(types, inbox, seal, recipients, compress)| Spec {
        types,
        inbox,
        seal,
        recipients: if matches!(seal, Some("on" | "required")) { recipients } else { Vec::new() },
        compress: compress.or(seal.is_none().then_some(true)),
    });
    proptest::collection::vec(spec, 0..10)
}

impl Spec {
    fn rule(&self) -> FormRule {
        let types = match &self.types[..] {
            [] => Types::EVERY,
            types => Types::only(types.iter().map(|name| name.parse().unwrap())),
        };
        let to = match self.inbox {
            None => Destinations::Events,
            Some(("*", _)) => Destinations::Inboxes(Inboxes::Any),
            Some((role, "*")) => Destinations::Inboxes(Inboxes::OfRole(role.parse().unwrap())),
            Some((role, component)) => Destinations::Inboxes(Inboxes::Of(endpoint(role, component))),
        };
        let rule = match (self.sealing(), self.compress) {
            (Some(sealing), None) => FormRule::seal(types, to, sealing),
            (Some(sealing), Some(compress)) => FormRule::seal(types, to, sealing).with_compression(compress),
            (None, compress) => FormRule::compress(types, to, compress.unwrap()),
        };
        rule.with_recipients(self.recipients())
    }

    fn sealing(&self) -> Option<Sealing> {
        self.seal.map(|seal| match seal {
            "off" => Sealing::Off,
            "on" => Sealing::On,
            _ => Sealing::Required,
        })
    }

    fn recipients(&self) -> impl Iterator<Item = Endpoint> {
        self.recipients.iter().map(|(role, component)| endpoint(role, component))
    }

    #[cfg(feature = "toml")]
    fn toml(&self) -> String {
        let types = if self.types.is_empty() { "'*'".to_owned() } else { format!("{:?}", self.types) };
        let to = self.inbox.map_or("events".to_owned(), |(role, component)| format!("inbox:{role}/{component}"));
        let mut text = format!("[[form]]\ntypes = {types}\nto = {to:?}\n");
        if let Some(seal) = self.seal {
            text += &format!("seal = {seal:?}\n");
        }
        if !self.recipients.is_empty() {
            let names: Vec<_> = self.recipients().map(|recipient| recipient.to_string()).collect();
            text += &format!("recipients = {names:?}\n");
        }
        if let Some(compress) = self.compress {
            text += &format!("compress = {compress}\n");
        }
        text
    }

    fn matches(&self, message_type: &MessageType, destination: &Destination) -> bool {
        let place = match (destination, self.inbox) {
            (Destination::Events, None) => true,
            (Destination::Inbox(to), Some((role, component))) => {
                (role == "*" || role == to.role.as_str()) && (component == "*" || component == to.component.as_str())
            }
            _ => false,
        };
        place && (self.types.is_empty() || self.types.contains(&message_type.token()))
    }
}

/// What rules have to say together, read as naively as can be.
fn naive(specs: &[Spec], message_type: &MessageType, destination: &Destination) -> Said {
    let matching: Vec<_> = specs.iter().filter(|spec| spec.matches(message_type, destination)).collect();
    let says = |seal| matching.iter().any(|spec| spec.seal == Some(seal));
    let sealing = if says("required") {
        Sealing::Required
    } else if says("on") {
        Sealing::On
    } else if says("off") || *destination == Destination::Events {
        Sealing::Off
    } else {
        Sealing::On
    };
    let compress = |value| matching.iter().any(|spec| spec.compress == Some(value));
    let compress = if compress(false) { Some(false) } else { compress(true).then_some(true) };
    (sealing, matching.iter().flat_map(|spec| spec.recipients()).collect(), compress)
}

fn said(policy: &Policy, message_type: &MessageType, destination: &Destination) -> Said {
    let form = policy.form(message_type, destination);
    (form.sealing(), form.recipients().cloned().collect(), form.compress())
}

fn policy(specs: &[Spec]) -> Policy {
    Policy::default().with_forms(specs.iter().map(Spec::rule))
}

/// Every type at every destination that the names can make.
fn cases() -> impl Iterator<Item = (MessageType, Destination)> {
    types().flat_map(|message_type| destinations().map(move |destination| (message_type.clone(), destination)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_form_is_what_a_naive_reading_of_the_rules_says(specs in specs()) {
        let policy = policy(&specs);
        for (message_type, destination) in cases() {
            prop_assert_eq!(
                said(&policy, &message_type, &destination),
                naive(&specs, &message_type, &destination),
                "{} {}", message_type, destination
            );
        }
    }

    #[test]
    fn the_order_of_the_rules_about_forms_does_not_matter(
        (specs, shuffled) in specs().prop_flat_map(|specs| (Just(specs.clone()), Just(specs).prop_shuffle())),
    ) {
        let (policy, shuffled) = (policy(&specs), policy(&shuffled));
        for (message_type, destination) in cases() {
            let said = said(&policy, &message_type, &destination);
            prop_assert_eq!(said, self::said(&shuffled, &message_type, &destination), "{} {}", message_type, destination);
            prop_assert_eq!(
                policy.form(&message_type, &destination).to_string(),
                shuffled.form(&message_type, &destination).to_string()
            );
        }
    }

    #[test]
    fn more_rules_seal_no_less_unless_they_replace_a_default(base in specs(), more in specs()) {
        let stricter = policy(&[base.clone(), more].concat());
        let policy = policy(&base);
        for (message_type, destination) in cases() {
            let stated = base.iter().any(|spec| spec.seal.is_some() && spec.matches(&message_type, &destination));
            let (before, after) = (said(&policy, &message_type, &destination), said(&stricter, &message_type, &destination));
            prop_assert!(!stated || before.0 <= after.0, "{} {}", message_type, destination);
            prop_assert!(before.1.is_subset(&after.1), "{} {}", message_type, destination);
        }
    }

    #[test]
    fn forms_decide_nothing_about_who_may_do_what(specs in specs()) {
        let policy = policy(&specs);
        for who in endpoints().map(|endpoint| format!("spiffe://home/{endpoint}").parse().unwrap()) {
            let root = bus_proto::SubjectRoot::default();
            prop_assert_eq!(policy.permissions(&root, &who), Policy::default().permissions(&root, &who));
        }
    }
}

#[cfg(feature = "toml")]
proptest! {
    #[test]
    fn forms_and_their_toml_text_are_equal(specs in specs()) {
        let text: String = specs.iter().map(Spec::toml).collect();
        let read = Policy::from_toml(&format!("version = 1\n{text}")).unwrap();
        prop_assert_eq!(read, Policy::new([]).with_forms(specs.iter().map(Spec::rule)));
    }

    #[test]
    fn no_text_makes_reading_forms_panic(text in "version = 1\n(\\[\\[form\\]\\]\n)?\\PC*") {
        let _ = Policy::from_toml(&text);
    }
}
