//! Random policies as plain data, the rules made of it, and a reading of it that is as naive as can be.

use bus_acl::{Action, Effect, Inboxes, Policy, Right, Rule, Types, Who};
use bus_proto::{Destination, Endpoint, MessageType, Principal, Role, TrustDomain};
use proptest::prelude::*;

/// Names that are prefixes of each other, in hope of a mistake.
pub(crate) const ROLES: [&str; 4] = ["agent", "agent-1", "core", "a"];
pub(crate) const COMPONENTS: [&str; 4] = ["a1", "a1-1", "a", "core"];
pub(crate) const DOMAINS: [&str; 2] = ["home", "abroad"];
pub(crate) const TYPES: [&str; 8] =
    ["telemetry", "alert", "command", "heartbeat", "result", "error", "x-disk", "x-disk-1"];

/// One rule, in the words of a policy file.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) deny: bool,
    pub(crate) role: &'static str,
    pub(crate) component: Option<&'static str>,
    pub(crate) domain: Option<&'static str>,
    /// Empty: every type.
    pub(crate) types: Vec<&'static str>,
    pub(crate) subscribe: bool,
    /// `None`: events. For `subscribe`, `Some` is the component's own inbox, whatever the names.
    pub(crate) inbox: Option<(&'static str, &'static str)>,
}

/// `*` or one of `names`.
fn pattern(names: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("*"), proptest::sample::select(names)]
}

pub(crate) fn specs(domains: bool) -> impl Strategy<Value = Vec<Spec>> {
    let inbox = (pattern(&ROLES), pattern(&COMPONENTS))
        .prop_map(|(role, component)| if role == "*" { ("*", "*") } else { (role, component) });
    let domain = proptest::option::weighted(if domains { 0.4 } else { 0.0 }, proptest::sample::select(&DOMAINS[..]));
    let spec = (
        any::<bool>(),
        pattern(&ROLES),
        proptest::option::weighted(0.3, proptest::sample::select(&COMPONENTS[..])),
        domain,
        prop_oneof![Just(Vec::new()), proptest::collection::vec(proptest::sample::select(&TYPES[..]), 1..4)],
        any::<bool>(),
        proptest::option::of(inbox),
    );
    let spec = spec.prop_map(|(deny, role, component, domain, types, subscribe, inbox)| Spec {
        deny,
        role,
        component,
        domain,
        types,
        subscribe,
        inbox,
    });
    proptest::collection::vec(spec, 0..12)
}

impl Spec {
    pub(crate) fn rule(&self) -> Rule {
        let effect = if self.deny { Effect::Deny } else { Effect::Allow };
        let mut who = match self.role {
            "*" => Who::every_role(),
            role => Who::role(&Role::new(role).unwrap()),
        };
        if let Some(component) = self.component {
            who = who.component(component.parse().unwrap());
        }
        if let Some(domain) = self.domain {
            who = who.trust_domain(domain.parse().unwrap());
        }
        let right = match (self.subscribe, self.inbox) {
            (true, None) => Right::SubscribeEvents,
            (true, Some(_)) => Right::SubscribeOwnInbox,
            (false, None) => Right::PublishEvents,
            (false, Some(("*", _))) => Right::PublishInbox(Inboxes::Any),
            (false, Some((role, "*"))) => Right::PublishInbox(Inboxes::OfRole(role.parse().unwrap())),
            (false, Some((role, component))) => Right::PublishInbox(Inboxes::Of(endpoint(role, component))),
        };
        let types = match &self.types[..] {
            [] => Types::EVERY,
            types => Types::only(types.iter().map(|name| name.parse().unwrap())),
        };
        Rule::new(effect, who, right, types)
    }

    #[cfg(feature = "toml")]
    pub(crate) fn toml(&self) -> String {
        let effect = if self.deny { "deny" } else { "allow" };
        let mut text = format!("[[rule]]\neffect = {effect:?}\nrole = {:?}\n", self.role);
        for (key, value) in [("component", self.component), ("trust_domain", self.domain)] {
            if let Some(value) = value {
                text += &format!("{key} = {value:?}\n");
            }
        }
        text += &match &self.types[..] {
            [] => "types = '*'\n".to_owned(),
            types => format!("types = {types:?}\n"),
        };
        text += &match (self.subscribe, self.inbox) {
            (true, None) => "action = 'subscribe'\nfrom = 'events'\n".to_owned(),
            (true, Some(_)) => "action = 'subscribe'\nfrom = 'inbox'\n".to_owned(),
            (false, None) => "action = 'publish'\nto = 'events'\n".to_owned(),
            (false, Some((role, component))) => format!("action = 'publish'\nto = 'inbox:{role}/{component}'\n"),
        };
        text
    }

    fn matches(&self, local: &str, case: &Case) -> bool {
        let place = match (&case.destination, self.inbox) {
            (Destination::Events, None) => true,
            (Destination::Inbox(_), Some(_)) if self.subscribe => true,
            (Destination::Inbox(to), Some((role, component))) => {
                (role == "*" || role == to.role.as_str()) && (component == "*" || component == to.component.as_str())
            }
            _ => false,
        };
        let who = &case.who;
        place
            && self.subscribe == (case.action == Action::Subscribe)
            && (self.types.is_empty() || self.types.contains(&case.message_type.token()))
            && (self.role == "*" || self.role == who.role().as_str())
            && self.component.is_none_or(|component| component == who.component().as_str())
            && self.domain.unwrap_or(local) == who.trust_domain.as_str()
    }
}

/// Something that a policy is asked about.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) who: Principal,
    pub(crate) action: Action,
    pub(crate) message_type: MessageType,
    pub(crate) destination: Destination,
}

impl Case {
    pub(crate) fn allowed_by(&self, policy: &Policy) -> bool {
        policy.authorize(&self.who, self.action, &self.message_type, &self.destination).is_ok()
    }
}

/// What a policy of these rules, bound to `local`, has to decide.
pub(crate) fn naive(specs: &[Spec], local: &str, case: &Case) -> bool {
    let own =
        case.who.trust_domain.as_str() == local && case.destination == Destination::Inbox(case.who.endpoint.clone());
    if case.action == Action::Subscribe && case.destination != Destination::Events && !own {
        return false;
    }
    let any = |deny: bool| specs.iter().any(|spec| spec.deny == deny && spec.matches(local, case));
    any(false) && !any(true)
}

pub(crate) fn policy(specs: &[Spec]) -> Policy {
    specs.iter().map(Spec::rule).collect()
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

pub(crate) fn endpoint(role: &str, component: &str) -> Endpoint {
    format!("{role}/{component}").parse().unwrap()
}

/// Every endpoint that the names above can make.
pub(crate) fn endpoints() -> impl Iterator<Item = Endpoint> {
    ROLES.into_iter().flat_map(|role| COMPONENTS.into_iter().map(move |component| endpoint(role, component)))
}

pub(crate) fn principals(domain: &str) -> impl Iterator<Item = Principal> {
    endpoints().map(move |endpoint| format!("spiffe://{domain}/{endpoint}").parse().unwrap())
}

pub(crate) fn types() -> impl Iterator<Item = MessageType> {
    TYPES.into_iter().map(|name| name.parse().unwrap())
}

pub(crate) fn destinations() -> impl Iterator<Item = Destination> {
    std::iter::once(Destination::Events).chain(endpoints().map(Destination::Inbox))
}

/// Everything that these principals could ask.
pub(crate) fn cases(who: impl Iterator<Item = Principal>) -> impl Iterator<Item = Case> {
    who.flat_map(|who| {
        [Action::Publish, Action::Subscribe].into_iter().flat_map(move |action| {
            let who = who.clone();
            types().flat_map(move |message_type| {
                let who = who.clone();
                destinations().map(move |destination| Case {
                    who: who.clone(),
                    action,
                    message_type: message_type.clone(),
                    destination,
                })
            })
        })
    })
}
