//! The policy as the broker enforces it: NATS subjects, for one component.
//!
//! Each rule becomes the subjects that it allows or denies, so that broker and policy agree rule by rule:
//!
//! * What is **published** has one concrete subject. It needs a subject in the allow list and none in the deny list. The
//!   last two tokens are always the component's own.
//! * What is **subscribed to** is one of the filters of [`SubjectRoot`]. It needs one entry of the allow list that covers it
//!   whole, and no entry of the deny list that does. An entry of the deny list that covers a part of it takes effect on
//!   delivery: the server leaves those messages out. Old servers fail to: 2.12.0 delivers what `a.b.>` denies to a
//!   subscription to `a.*.c`, 2.15.1 does not (tried). Where old servers must be used, allow types by name instead of
//!   allowing every type and denying some.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use bus_proto::subject::reply_prefix;
use bus_proto::{MessageType, Principal, SubjectRoot};

use crate::decision::Action;
use crate::policy::Policy;
use crate::rule::{Effect, Inboxes, Right, Rule};

/// What the broker lets one component publish and subscribe to, as NATS subjects, sorted and without duplicates.
///
/// Neither side is ever empty, because NATS takes an empty set for permission to do everything: each has at least one
/// entry in its allow or its deny list. Emit both lists of both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    /// What it may publish to, unless [`Permissions::publish_deny`] matches as well.
    pub publish_allow: Vec<String>,
    /// What it may not publish to, whatever is allowed.
    pub publish_deny: Vec<String>,
    /// What it may subscribe to, unless [`Permissions::subscribe_deny`] matches as well.
    pub subscribe_allow: Vec<String>,
    /// What it may not receive, whatever is allowed.
    pub subscribe_deny: Vec<String>,
}

impl Policy {
    /// Renders what the broker is to enforce for `who`.
    ///
    /// Apart from what the rules say, a component may always publish to its probe subject ([`SubjectRoot::probe`]) and
    /// receive what the broker itself answers it, under [`reply_prefix`]. Unless its role is reserved
    /// ([`Role::is_reserved`](bus_proto::Role::is_reserved)), it may also leave its own key bundles and sealing keys in
    /// their streams ([`SubjectRoot::bundles`], [`SubjectRoot::sealing_keys`]), and ask the broker for anyone's. It may use
    /// its own consumers ([`Policy::may_consume`]): ask for their next messages and for how far they are, and say what became
    /// of a message. A principal of a foreign trust domain gets nothing at all, and so does everyone while the policy names
    /// trust domains and is not bound to its own.
    ///
    /// What is durable is published to the same subjects as what is live: a stream keeps it without a right of its own.
    ///
    /// ```
    /// use bus_acl::Policy;
    /// use bus_proto::SubjectRoot;
    ///
    /// let agent = "spiffe://ransomeye.local/agent/a1".parse()?;
    /// let permissions = Policy::default().permissions(&SubjectRoot::default(), &agent);
    /// assert!(permissions.publish_allow.contains(&"ransomeye.events.alert.agent.a1".to_owned()));
    /// assert_eq!(permissions.subscribe_allow, ["_INBOX.agent.a1.>", "ransomeye.inbox.agent.a1.>"]);
    /// # Ok::<(), bus_proto::IdentityError>(())
    /// ```
    #[must_use]
    pub fn permissions(&self, root: &SubjectRoot, who: &Principal) -> Permissions {
        if self.is_unbound() || self.is_foreign(who) {
            return Permissions {
                publish_deny: vec![">".to_string()],
                subscribe_deny: vec![">".to_string()],
                ..Permissions::default()
            };
        }
        let mut publish_allow = BTreeSet::from([root.probe(&who.endpoint)]);
        if !who.role().is_reserved() {
            for stream in [root.bundles(), root.sealing_keys()] {
                publish_allow.extend([stream.subject(&who.endpoint), stream.lookup()]);
            }
        }
        for durable in self.durables.iter().filter(|durable| self.may_consume(who, durable)) {
            let consumer = durable.from.stream(root).consumer(&durable.endpoint, &durable.name);
            publish_allow.extend([consumer.next(), consumer.info(), consumer.acknowledgements()]);
        }
        let mut publish_deny = BTreeSet::new();
        let mut subscribe_allow = BTreeSet::from([format!("{}.>", reply_prefix(&who.endpoint))]);
        let mut subscribe_deny = BTreeSet::new();
        for rule in self.rules_about(who) {
            let action = rule.right.action();
            let subjects = match (action, rule.effect) {
                (Action::Publish, Effect::Allow) => &mut publish_allow,
                (Action::Publish, Effect::Deny) => &mut publish_deny,
                (Action::Subscribe, Effect::Allow) => &mut subscribe_allow,
                (Action::Subscribe, Effect::Deny) => &mut subscribe_deny,
            };
            subjects.extend(rule.types.iter().map(|message_type| subject(rule, root, who, message_type)));
        }
        Permissions {
            publish_allow: publish_allow.into_iter().collect(),
            publish_deny: publish_deny.into_iter().collect(),
            subscribe_allow: subscribe_allow.into_iter().collect(),
            subscribe_deny: subscribe_deny.into_iter().collect(),
        }
    }
}

/// The subject of one rule for one type, or with `None` for every type. Every token has passed its grammar.
fn subject(rule: &Rule, root: &SubjectRoot, who: &Principal, message_type: Option<&MessageType>) -> String {
    let sender = || {
        let token = message_type.map_or("*", MessageType::token);
        format!("{token}.{}.{}", who.role(), who.component())
    };
    match &rule.right {
        Right::PublishEvents => format!("{root}.events.{}", sender()),
        Right::PublishInbox(Inboxes::Any) => format!("{root}.inbox.*.*.{}", sender()),
        Right::PublishInbox(Inboxes::OfRole(role)) => format!("{root}.inbox.{role}.*.{}", sender()),
        Right::PublishInbox(Inboxes::Of(to)) => format!("{root}.inbox.{}.{}.{}", to.role, to.component, sender()),
        Right::SubscribeEvents => root.events_filter(message_type),
        Right::SubscribeOwnInbox => root.inbox_filter(&who.endpoint, message_type),
    }
}
