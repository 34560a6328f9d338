//! Sender, broker and receiver agree, and the broker keeps components apart.

use bus_acl::{Action, Policy};
use bus_proto::{Destination, Principal, SubjectRoot};
use proptest::prelude::*;

use crate::broker::Connection;
use crate::spec::{
    COMPONENTS, Case, DOMAINS, ROLES, TYPES, cases, destinations, domain, policy, principals, specs, types,
};

/// The local principals, each with its connection to the broker.
fn connections(policy: &Policy, root: &SubjectRoot) -> Vec<(Principal, Connection)> {
    principals("home").map(|who| (who.clone(), Connection(policy.permissions(root, &who)))).collect()
}

/// What the receiver decides, which knows only the subject on which a message came.
fn receiver_accepts(policy: &Policy, root: &SubjectRoot, subject: &str) -> bool {
    let Ok(address) = root.parse(subject) else {
        return false;
    };
    let sender = Principal { trust_domain: domain("home"), endpoint: address.sender };
    policy.authorize(&sender, Action::Publish, &address.message_type, &address.destination).is_ok()
}

/// Subscriptions as only an attacker would write them, and some that are honest.
fn filters() -> impl Strategy<Value = String> {
    let spaces = vec!["events", "inbox", "control", "keys", "sealing", "*"];
    let names: Vec<_> = ["*", "*", ">"].into_iter().chain(ROLES).chain(COMPONENTS).chain(TYPES).collect();
    let tail = proptest::collection::vec(proptest::sample::select(names), 1..6);
    let head = prop_oneof![8 => Just("ransomeye"), 1 => Just("*"), 1 => Just("_INBOX")];
    (head, proptest::sample::select(spaces), tail).prop_map(|(head, space, mut tail)| {
        if let Some(end) = tail.iter().position(|token| *token == ">") {
            tail.truncate(end + 1);
        }
        format!("{head}.{space}.{}", tail.join("."))
    })
}

/// What a component has no business with, apart from the streams.
const FOREIGN_JETSTREAM: [&str; 6] =
    ["$JS.>", "$JS.API.>", "$JS.API.INFO", "$JS.API.DIRECT.GET.>", "$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.OTHER"];

/// What it has no business doing with a stream, of whose name `#` takes the place.
const FOREIGN_TO_STREAMS: [&str; 12] = [
    "$JS.API.*.GET.#",
    "$JS.API.DIRECT.GET.#.ransomeye.keys.agent.a1",
    "$JS.API.STREAM.INFO.#",
    "$JS.API.STREAM.CREATE.#",
    "$JS.API.STREAM.UPDATE.#",
    "$JS.API.STREAM.DELETE.#",
    "$JS.API.STREAM.PURGE.#",
    "$JS.API.STREAM.SNAPSHOT.#",
    "$JS.API.STREAM.MSG.GET.#",
    "$JS.API.STREAM.MSG.DELETE.#",
    "$JS.API.CONSUMER.CREATE.#.c",
    "$JS.ACK.#.c.1.1.1.1.1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sender_broker_and_receiver_agree_on_what_is_published(specs in specs(true)) {
        let (policy, root) = (policy(&specs).for_domain(domain("home")), SubjectRoot::default());
        let connections = connections(&policy, &root);
        for case in cases(principals("home")).filter(|case| case.action == Action::Publish) {
            let sender = case.allowed_by(&policy);
            let subject = root.subject(&case.destination, &case.message_type, &case.who);
            prop_assert_eq!(receiver_accepts(&policy, &root, &subject), sender, "{:?}", case);
            for (who, connection) in &connections {
                // The sender's tokens are its own: on everyone else's connection the broker refuses them.
                let broker = connection.may_publish(&subject);
                prop_assert_eq!(broker, sender && *who == case.who, "{} publishes {}", who, subject);
            }
        }
    }

    #[test]
    fn subscriber_and_broker_agree_on_subscriptions(specs in specs(true)) {
        let (policy, root) = (policy(&specs).for_domain(domain("home")), SubjectRoot::default());
        for (who, connection) in connections(&policy, &root) {
            for source in destinations() {
                for message_type in types().map(Some).chain([None]) {
                    let permit = policy.authorize_subscription(&who, message_type.as_ref(), &source);
                    let filter = match &source {
                        Destination::Events => root.events_filter(message_type.as_ref()),
                        Destination::Inbox(owner) => root.inbox_filter(owner, message_type.as_ref()),
                    };
                    prop_assert_eq!(connection.may_subscribe(&filter), permit.is_ok(), "{} subscribes {}", who, filter);
                    if let Ok(permit) = permit {
                        prop_assert_eq!(permit.subject(&root), filter);
                    }
                }
            }
        }
    }

    #[test]
    fn what_an_accepted_subscription_delivers_is_what_the_receiver_may_receive(specs in specs(true)) {
        let (policy, root) = (policy(&specs).for_domain(domain("home")), SubjectRoot::default());
        let sender: Principal = "spiffe://home/core/a1-1".parse().unwrap();
        for (who, connection) in connections(&policy, &root) {
            for source in [Destination::Events, Destination::Inbox(who.endpoint.clone())] {
                let Ok(permit) = policy.authorize_subscription(&who, None, &source) else {
                    continue;
                };
                for message_type in types() {
                    let subject = root.subject(&source, &message_type, &sender);
                    let delivered = connection.receives(&permit.subject(&root), &subject);
                    let case = Case { who: who.clone(), action: Action::Subscribe, message_type, destination: source.clone() };
                    prop_assert_eq!(delivered, case.allowed_by(&policy), "{:?}", case);
                }
            }
        }
    }

    #[test]
    fn no_subscription_however_it_is_written_delivers_what_the_policy_denies(
        specs in specs(true), filters in proptest::collection::vec(filters(), 40),
    ) {
        let (policy, root) = (policy(&specs).for_domain(domain("home")), SubjectRoot::default());
        let sender: Principal = "spiffe://home/agent/a1".parse().unwrap();
        for (who, connection) in connections(&policy, &root) {
            for filter in filters.iter().filter(|filter| connection.may_subscribe(filter)) {
                for (destination, message_type) in destinations().flat_map(|to| types().map(move |kind| (to.clone(), kind))) {
                    let subject = root.subject(&destination, &message_type, &sender);
                    let case = Case { who: who.clone(), action: Action::Subscribe, message_type, destination };
                    let delivered = connection.receives(filter, &subject);
                    prop_assert!(!delivered || case.allowed_by(&policy), "{} receives {}", who, subject);
                }
            }
        }
    }

    #[test]
    fn nobody_reads_replies_or_publishes_probes_of_another(specs in specs(true)) {
        let (policy, root) = (policy(&specs).for_domain(domain("home")), SubjectRoot::default());
        let connections = connections(&policy, &root);
        for (who, connection) in &connections {
            for (other, _) in &connections {
                let replies = format!("{}.>", bus_proto::subject::reply_prefix(&other.endpoint));
                prop_assert_eq!(connection.may_subscribe(&replies), who == other);
                prop_assert!(!connection.may_publish(&replies.replace('>', "1")));
                prop_assert_eq!(connection.may_publish(&root.probe(&other.endpoint)), who == other);
                prop_assert!(!connection.may_subscribe(&root.probe(&other.endpoint)));
            }
        }
    }

    #[test]
    fn nobody_publishes_keys_of_another_or_subscribes_to_any(
        specs in specs(true), filters in proptest::collection::vec(filters(), 40),
    ) {
        let (policy, root) = (policy(&specs).for_domain(domain("home")), SubjectRoot::default());
        let connections = connections(&policy, &root);
        for (stream, (who, connection)) in
            [root.bundles(), root.sealing_keys()].into_iter().flat_map(|stream| connections.iter().map(move |one| (stream, one)))
        {
            for (other, _) in &connections {
                let keys = stream.subject(&other.endpoint);
                prop_assert_eq!(connection.may_publish(&keys), who == other, "{} publishes {}", who, keys);
                prop_assert!(!connection.may_subscribe(&keys), "{} subscribes {}", who, keys);
                for filter in filters.iter().filter(|filter| connection.may_subscribe(filter)) {
                    prop_assert!(!connection.receives(filter, &keys), "{} receives {}", who, keys);
                }
            }
            prop_assert!(!connection.may_publish(&stream.filter()));
            prop_assert!(!connection.may_subscribe(&stream.filter()));
        }
    }

    #[test]
    fn of_all_that_jetstream_offers_a_component_may_only_read_the_key_streams(specs in specs(true)) {
        let (policy, root) = (policy(&specs).for_domain(domain("home")), SubjectRoot::default());
        let refused = |connection: &Connection, subject: &str| {
            !connection.may_publish(subject) && !connection.may_subscribe(subject)
        };
        let reserved = ["broker", "relay"].map(|role| format!("spiffe://home/{role}/a1").parse().unwrap());
        for who in principals("home").chain(reserved.clone()).chain(principals("abroad")) {
            let connection = Connection(policy.permissions(&root, &who));
            let reads = who.trust_domain == domain("home") && !reserved.contains(&who);
            for stream in [root.bundles(), root.sealing_keys()] {
                prop_assert_eq!(connection.may_publish(&stream.lookup()), reads, "{}", who);
                prop_assert_eq!(connection.may_publish(&stream.subject(&who.endpoint)), reads, "{}", who);
                prop_assert!(!connection.may_subscribe(&stream.lookup()), "{}", who);
                for subject in FOREIGN_TO_STREAMS.map(|subject| subject.replace('#', &stream.name())) {
                    prop_assert!(refused(&connection, &subject), "{} uses {}", who, subject);
                }
            }
            for subject in FOREIGN_JETSTREAM {
                prop_assert!(refused(&connection, subject), "{} uses {}", who, subject);
            }
        }
    }

    #[test]
    fn the_broker_never_leaves_a_side_open(specs in specs(true), bound in any::<bool>()) {
        let mut policy = policy(&specs);
        if bound {
            policy = policy.for_domain(domain("home"));
        }
        for who in DOMAINS.into_iter().flat_map(principals) {
            let permissions = policy.permissions(&SubjectRoot::default(), &who);
            prop_assert!(!permissions.publish_allow.is_empty() || permissions.publish_deny == [">"]);
            prop_assert!(!permissions.subscribe_allow.is_empty() || permissions.subscribe_deny == [">"]);
            let connection = Connection(permissions);
            for subject in [">", "*", "$SYS.>", "$JS.API.STREAM.CREATE.X", "_INBOX.>", "ransomeye.>", "ransomeye.inbox.>"] {
                prop_assert!(!connection.may_publish(subject), "{} publishes {}", who, subject);
                prop_assert!(!connection.may_subscribe(subject), "{} subscribes {}", who, subject);
            }
        }
    }
}
