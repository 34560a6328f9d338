//! What is durable by random rules, what streams keep of it, and who gets it.

use bus_acl::{Class, Delivery, DeliveryRule, Destinations, Durable, Inboxes, Policy, Source, Types};
use bus_proto::{ConsumerName, Destination, MessageType, Principal, StreamConsumer, SubjectRoot};
use proptest::prelude::*;

use crate::broker::{Connection, covers};
use crate::spec::{
    self, COMPONENTS, Case, ROLES, TYPES, destinations, domain, endpoint, naive, principals, specs, types,
};

/// One rule, in the words of a policy file.
#[derive(Debug, Clone)]
struct Spec {
    /// Empty: every type.
    types: Vec<&'static str>,
    /// `None`: events.
    inbox: Option<(&'static str, &'static str)>,
    /// `None`: live.
    lifetime: Option<u64>,
}

/// One consumer, in the words of a policy file.
#[derive(Debug, Clone)]
struct Reader {
    name: &'static str,
    owner: (&'static str, &'static str),
    /// Empty: every type.
    types: Vec<&'static str>,
    inbox: bool,
}

fn some_types() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![1 => Just(Vec::new()), 2 => proptest::collection::vec(proptest::sample::select(&TYPES[..]), 1..4)]
}

fn deliveries() -> impl Strategy<Value = Vec<Spec>> {
    let role = || proptest::sample::select(&ROLES[..]);
    let component = || proptest::sample::select(&COMPONENTS[..]);
    let inbox = prop_oneof![Just(("*", "*")), role().prop_map(|role| (role, "*")), (role(), component())];
    let lifetime = prop_oneof![1 => Just(None), 4 => (1_000_u64..50_000).prop_map(Some)];
    let spec = (some_types(), proptest::option::of(inbox), lifetime);
    proptest::collection::vec(spec.prop_map(|(types, inbox, lifetime)| Spec { types, inbox, lifetime }), 0..7)
}

fn readers() -> impl Strategy<Value = Vec<Reader>> {
    let owner = (proptest::sample::select(&ROLES[..]), proptest::sample::select(&COMPONENTS[..]));
    let reader = (proptest::sample::select(&["a", "a-1", "b"][..]), owner, some_types(), any::<bool>());
    let reader = reader.prop_map(|(name, owner, types, inbox)| Reader { name, owner, types, inbox });
    proptest::collection::vec(reader, 1..12)
}

fn listed(types: &[&str]) -> Types {
    match types {
        [] => Types::EVERY,
        types => Types::only(types.iter().map(|name| name.parse().unwrap())),
    }
}

fn names(types: &[&str], message_type: &MessageType) -> bool {
    types.is_empty() || types.contains(&message_type.token())
}

impl Spec {
    fn rule(&self) -> DeliveryRule {
        let to = match self.inbox {
            None => Destinations::Events,
            Some(("*", _)) => Destinations::Inboxes(Inboxes::Any),
            Some((role, "*")) => Destinations::Inboxes(Inboxes::OfRole(role.parse().unwrap())),
            Some((role, component)) => Destinations::Inboxes(Inboxes::Of(endpoint(role, component))),
        };
        match self.lifetime {
            None => DeliveryRule::live(listed(&self.types), to),
            Some(lifetime) => DeliveryRule::durable(listed(&self.types), to, lifetime),
        }
    }

    #[cfg(feature = "toml")]
    fn toml(&self) -> String {
        let types = if self.types.is_empty() { "'*'".to_owned() } else { format!("{:?}", self.types) };
        let to = self.inbox.map_or("events".to_owned(), |(role, component)| format!("inbox:{role}/{component}"));
        let class = match self.lifetime {
            None => "class = 'live'".to_owned(),
            Some(lifetime) => format!("class = 'durable'\nmax_lifetime = '{lifetime}ms'"),
        };
        format!("[[delivery]]\ntypes = {types}\nto = {to:?}\n{class}\n")
    }

    fn matches(&self, message_type: &MessageType, destination: &Destination) -> bool {
        let place = match (destination, self.inbox) {
            (Destination::Events, None) => true,
            (Destination::Inbox(to), Some((role, component))) => {
                (role == "*" || role == to.role.as_str()) && (component == "*" || component == to.component.as_str())
            }
            _ => false,
        };
        place && names(&self.types, message_type)
    }
}

impl Reader {
    fn durable(&self) -> Durable {
        let from = if self.inbox { Source::Inbox } else { Source::Events };
        let owner = endpoint(self.owner.0, self.owner.1);
        Durable::new(ConsumerName::new(self.name).unwrap(), owner, listed(&self.types), from)
    }

    fn destination(&self) -> Destination {
        if self.inbox { Destination::Inbox(endpoint(self.owner.0, self.owner.1)) } else { Destination::Events }
    }

    fn consumer(&self, root: &SubjectRoot) -> StreamConsumer {
        let durable = self.durable();
        durable.from.stream(root).consumer(&durable.endpoint, &durable.name)
    }

    #[cfg(feature = "toml")]
    fn toml(&self) -> String {
        let types = if self.types.is_empty() { "'*'".to_owned() } else { format!("{:?}", self.types) };
        let (role, component) = self.owner;
        let from = if self.inbox { "inbox" } else { "events" };
        let owner = format!("name = {:?}\nrole = {role:?}\ncomponent = {component:?}", self.name);
        format!("[[durable]]\n{owner}\ntypes = {types}\nfrom = {from:?}\n")
    }
}

/// What rules have to say together, read as naively as can be.
fn naive_delivery(specs: &[Spec], message_type: &MessageType, destination: &Destination) -> (Class, u64) {
    let matching = specs.iter().filter(|spec| spec.matches(message_type, destination));
    let shortest = matching.filter_map(|spec| spec.lifetime).min();
    shortest.map_or((Class::Live, u64::MAX), |lifetime| (Class::Durable, lifetime))
}

fn said(delivery: Delivery) -> (Class, u64) {
    (delivery.class, delivery.max_lifetime_ms)
}

/// The types that names can make, and one that no rule names.
fn every_type() -> impl Iterator<Item = MessageType> {
    types().chain(["x-unnamed".parse().unwrap()])
}

fn cases() -> impl Iterator<Item = (MessageType, Destination)> {
    every_type().flat_map(|message_type| destinations().map(move |destination| (message_type.clone(), destination)))
}

/// The policy with these rules, unless no stream can be told them.
fn with(policy: Policy, specs: &[Spec]) -> Option<Policy> {
    policy.with_deliveries(specs.iter().map(Spec::rule)).ok()
}

/// How many of the subjects a message is published to.
fn hits(subjects: &[String], root: &SubjectRoot, message_type: &MessageType, destination: &Destination) -> usize {
    let sender: Principal = "spiffe://home/agent/a1".parse().unwrap();
    let subject = root.subject(destination, message_type, &sender);
    subjects.iter().filter(|kept| covers(kept, &subject)).count()
}

fn kept(policy: &Policy, root: &SubjectRoot) -> Vec<String> {
    [Source::Events, Source::Inbox]
        .into_iter()
        .filter_map(|from| policy.kept(root, from))
        .flat_map(|kept| kept.subjects)
        .collect()
}

/// What a component may do with a consumer, by what the broker enforces.
fn uses(connection: &Connection, consumer: &StreamConsumer) -> [bool; 3] {
    let acknowledgement = consumer.acknowledgements().replace('>', "1.7.7.1700000000000000000.0");
    [consumer.next(), consumer.info(), acknowledgement].map(|subject| connection.may_publish(&subject))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_delivery_is_what_a_naive_reading_of_the_rules_says(specs in deliveries()) {
        let Some(policy) = with(Policy::default(), &specs) else { return Ok(()) };
        for (message_type, destination) in cases() {
            let said = said(policy.delivery(&message_type, &destination));
            prop_assert_eq!(said, naive_delivery(&specs, &message_type, &destination), "{} {}", message_type, destination);
        }
    }

    #[test]
    fn the_order_of_the_rules_about_delivery_does_not_matter(
        (specs, shuffled) in deliveries().prop_flat_map(|specs| (Just(specs.clone()), Just(specs).prop_shuffle())),
    ) {
        let (policy, shuffled) = (with(Policy::default(), &specs), with(Policy::default(), &shuffled));
        prop_assert_eq!(policy.is_some(), shuffled.is_some());
        let (Some(policy), Some(shuffled)) = (policy, shuffled) else { return Ok(()) };
        for (message_type, destination) in cases() {
            let said = policy.delivery(&message_type, &destination);
            prop_assert_eq!(said, shuffled.delivery(&message_type, &destination), "{} {}", message_type, destination);
        }
        for from in [Source::Events, Source::Inbox] {
            prop_assert_eq!(policy.kept(&SubjectRoot::default(), from), shuffled.kept(&SubjectRoot::default(), from));
        }
    }

    #[test]
    fn streams_keep_what_is_durable_once_and_nothing_else_for_as_long_as_it_lives(specs in deliveries()) {
        let (Some(policy), root) = (with(Policy::default(), &specs), SubjectRoot::default()) else { return Ok(()) };
        let subjects = kept(&policy, &root);
        for (message_type, destination) in cases() {
            let delivery = policy.delivery(&message_type, &destination);
            let hits = hits(&subjects, &root, &message_type, &destination);
            prop_assert_eq!(hits, usize::from(delivery.is_durable()), "{} {} {:?}", message_type, destination, subjects);
            if delivery.is_durable() {
                let from = if destination == Destination::Events { Source::Events } else { Source::Inbox };
                let kept = policy.kept(&root, from).unwrap();
                prop_assert!(kept.max_lifetime_ms >= delivery.max_lifetime_ms);
            }
        }
    }

    #[test]
    fn a_consumer_gets_what_it_names_of_what_is_kept_once_and_nothing_else(specs in deliveries(), readers in readers()) {
        let (Some(policy), root) = (with(Policy::default(), &specs), SubjectRoot::default()) else { return Ok(()) };
        for reader in &readers {
            let subjects = policy.delivered(&root, &reader.durable());
            for (message_type, destination) in cases() {
                let wanted = naive_delivery(&specs, &message_type, &destination).0 == Class::Durable
                    && names(&reader.types, &message_type)
                    && reader.destination() == destination;
                let hits = hits(&subjects, &root, &message_type, &destination);
                prop_assert_eq!(hits, usize::from(wanted), "{:?} {} {}", reader, message_type, destination);
            }
            let kept = kept(&policy, &root);
            for subject in &subjects {
                prop_assert!(kept.iter().any(|kept| covers(kept, subject)), "{} is not kept", subject);
            }
        }
    }

    #[test]
    fn a_consumer_is_there_for_its_owner_alone_and_only_if_it_may_receive_all_of_it(
        rules in specs(true), specs in deliveries(), readers in readers(),
    ) {
        let root = SubjectRoot::default();
        let Some(policy) = with(spec::policy(&rules), &specs) else { return Ok(()) };
        for reader in &readers {
            let owner: Principal = format!("spiffe://home/{}/{}", reader.owner.0, reader.owner.1).parse().unwrap();
            let gets = |message_type: &MessageType| {
                let class = naive_delivery(&specs, message_type, &reader.destination()).0;
                class == Class::Durable && names(&reader.types, message_type)
            };
            let may_receive = |message_type: &MessageType| {
                let message_type = message_type.clone();
                let case = Case { who: owner.clone(), action: bus_acl::Action::Subscribe, message_type, destination: reader.destination() };
                naive(&rules, "home", &case)
            };
            let allowed = every_type().any(|kind| gets(&kind)) && every_type().all(|kind| !gets(&kind) || may_receive(&kind));
            let kept = every_type().any(|kind| gets(&kind)) && reader.types.iter().all(|name| gets(&name.parse().unwrap()));

            // Bound to its trust domain, the policy takes exactly what will work.
            let bound = policy.clone().for_domain(domain("home")).with_durables([reader.durable()]);
            prop_assert_eq!(bound.is_ok(), allowed && kept, "{:?} {:?}", reader, bound.err());
            // Not bound, it takes what may work, and the broker gives no more than the rules.
            let Ok(policy) = policy.clone().with_durables([reader.durable()]) else {
                prop_assert!(!(allowed && kept));
                continue;
            };
            let policy = policy.for_domain(domain("home"));
            for who in principals("home").chain(principals("abroad")) {
                let connection = Connection(policy.permissions(&root, &who));
                let expected = allowed && who == owner;
                prop_assert_eq!(uses(&connection, &reader.consumer(&root)), [expected; 3], "{} {:?}", who, reader);
            }
        }
    }

    #[test]
    fn nobody_makes_changes_or_deletes_a_stream_or_a_consumer(
        rules in specs(true), specs in deliveries(), readers in readers(),
    ) {
        let root = SubjectRoot::default();
        let Some(mut policy) = with(spec::policy(&rules).for_domain(domain("home")), &specs) else { return Ok(()) };
        for reader in &readers {
            policy = policy.clone().with_durables([reader.durable()]).unwrap_or(policy);
        }
        for who in principals("home") {
            let connection = Connection(policy.permissions(&root, &who));
            for stream in [root.events_stream().name(), root.inbox_stream().name()] {
                for operation in [
                    "STREAM.CREATE.#", "STREAM.UPDATE.#", "STREAM.INFO.#", "STREAM.DELETE.#", "STREAM.PURGE.#", "STREAM.MSG.GET.#",
                    "STREAM.MSG.DELETE.#", "DIRECT.GET.#", "CONSUMER.CREATE.#", "CONSUMER.CREATE.#.agent_a1_a",
                    "CONSUMER.DURABLE.CREATE.#.agent_a1_a", "CONSUMER.DELETE.#.agent_a1_a", "CONSUMER.LIST.#", "CONSUMER.NAMES.#",
                    "CONSUMER.PAUSE.#.agent_a1_a", "CONSUMER.UNPIN.#.agent_a1_a", "CONSUMER.MSG.NEXT.#.*", "CONSUMER.MSG.NEXT.#.>",
                    "CONSUMER.INFO.#.*",
                ] {
                    let subject = format!("$JS.API.{}", operation.replace('#', &stream));
                    prop_assert!(!connection.may_publish(&subject), "{} publishes {}", who, subject);
                    prop_assert!(!connection.may_subscribe(&subject), "{} subscribes {}", who, subject);
                }
                let acknowledgements = format!("$JS.ACK.{stream}.>");
                prop_assert!(!connection.may_publish(&acknowledgements), "{} publishes {}", who, acknowledgements);
                prop_assert!(!connection.may_publish(&root.events_stream().idle()));
            }
        }
    }

    #[test]
    fn deliveries_and_consumers_change_nothing_that_anybody_may_send_or_receive(
        rules in specs(true), specs in deliveries(), readers in readers(),
    ) {
        let root = SubjectRoot::default();
        let plain = spec::policy(&rules).for_domain(domain("home"));
        let Some(mut policy) = with(plain.clone(), &specs) else { return Ok(()) };
        for reader in &readers {
            policy = policy.clone().with_durables([reader.durable()]).unwrap_or(policy);
        }
        for who in principals("home") {
            let (mut with, without) = (policy.permissions(&root, &who), plain.permissions(&root, &who));
            with.publish_allow.retain(|subject| !subject.starts_with("$JS.") || subject.starts_with("$JS.API.DIRECT."));
            prop_assert_eq!(with, without);
        }
    }
}

#[cfg(feature = "toml")]
proptest! {
    #[test]
    fn deliveries_and_their_toml_text_are_equal(rules in specs(true), specs in deliveries(), readers in readers()) {
        let rules_text: String = rules.iter().map(spec::Spec::toml).collect();
        let text: String = specs.iter().map(Spec::toml).chain(readers.iter().map(Reader::toml)).collect();
        let read = Policy::from_toml(&format!("version = 1\n{rules_text}{text}"));
        let made = spec::policy(&rules).with_deliveries(specs.iter().map(Spec::rule));
        let made = made.and_then(|policy| policy.with_durables(readers.iter().map(Reader::durable)));
        prop_assert_eq!(read.ok(), made.ok());
    }

    #[test]
    fn no_text_makes_reading_deliveries_panic(text in "version = 1\n(\\[\\[(delivery|durable)\\]\\]\n)?\\PC*") {
        let _ = Policy::from_toml(&text);
    }
}
