//! Where messages are kept until whoever is to handle them has: streams, and who reads them.

use alloc::format;
use alloc::string::String;

use crate::identity::{ComponentId, ConsumerName, Endpoint, Role};
use crate::message_type::MessageType;
use crate::subject::SubjectRoot;

/// One of the JetStream streams that keep durable messages: [`SubjectRoot::events_stream`] or
/// [`SubjectRoot::inbox_stream`].
///
/// No two roots share a stream, and none of them is a [`KeyStream`](crate::KeyStream): a name ends with what the stream
/// keeps, and what stands before that says which root it is.
///
/// ```
/// use bus_proto::{ConsumerName, SubjectRoot};
///
/// let root = SubjectRoot::new("acme.prod")?;
/// assert_eq!(root.events_stream().name(), "ACME_PROD_EVENTS");
///
/// let consumer = root.inbox_stream().consumer(&"core/core-01".parse()?, &ConsumerName::new("results")?);
/// assert_eq!(consumer.name(), "core_core-01_results");
/// assert_eq!(consumer.acknowledgements(), "$JS.ACK.ACME_PROD_INBOX.core_core-01_results.>");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageStream<'a> {
    root: &'a SubjectRoot,
    space: &'static str,
    suffix: &'static str,
}

/// What reads a stream for one component: a durable pull consumer, and the subjects by which its owner uses it.
///
/// No two components share one, nor do two of one component: its name is made of role, component and its own name, joined by
/// `_`, which none of them can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConsumer {
    stream: String,
    name: String,
}

impl SubjectRoot {
    /// The stream of durable events: `<ROOT>_EVENTS`, with what [`SubjectRoot::kept_events`] says.
    #[must_use]
    pub fn events_stream(&self) -> MessageStream<'_> {
        MessageStream { root: self, space: "events", suffix: "EVENTS" }
    }

    /// The stream of durable directed messages: `<ROOT>_INBOX`, with what [`SubjectRoot::kept_inbox`] says.
    #[must_use]
    pub fn inbox_stream(&self) -> MessageStream<'_> {
        MessageStream { root: self, space: "inbox", suffix: "INBOX" }
    }

    /// The subjects of events of one type, or of every type, whoever sends them.
    #[must_use]
    pub fn kept_events(&self, message_type: Option<&MessageType>) -> String {
        format!("{self}.events.{}.*.*", token(message_type))
    }

    /// The subjects of directed messages of one type, or of every type, whoever sends them: into the inbox of one component,
    /// of every component of a role, or of every component.
    #[must_use]
    pub fn kept_inbox(
        &self,
        role: Option<&Role>,
        component: Option<&ComponentId>,
        message_type: Option<&MessageType>,
    ) -> String {
        let (role, component) = (role.map_or("*", Role::as_str), component.map_or("*", ComponentId::as_str));
        format!("{self}.inbox.{role}.{component}.{}.*.*", token(message_type))
    }
}

fn token(message_type: Option<&MessageType>) -> &str {
    message_type.map_or("*", MessageType::token)
}

impl MessageStream<'_> {
    /// The name of the stream: the root's tokens in upper case, joined by `_`, and behind them what it keeps.
    #[must_use]
    pub fn name(&self) -> String {
        self.root.stream_name(self.suffix)
    }

    /// What the stream keeps when nothing that it could keep is durable: a subject that nobody may publish to.
    #[must_use]
    pub fn idle(&self) -> String {
        format!("{}.control.stream.{}", self.root, self.space)
    }

    /// What reads the stream for `owner` under this name.
    #[must_use]
    pub fn consumer(&self, owner: &Endpoint, name: &ConsumerName) -> StreamConsumer {
        StreamConsumer { stream: self.name(), name: format!("{}_{}_{name}", owner.role, owner.component) }
    }
}

impl StreamConsumer {
    /// Its name in the stream.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its owner asks for the next messages.
    #[must_use]
    pub fn next(&self) -> String {
        format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name)
    }

    /// Where its owner asks how far it is.
    #[must_use]
    pub fn info(&self) -> String {
        format!("$JS.API.CONSUMER.INFO.{}.{}", self.stream, self.name)
    }

    /// Where its owner says what became of a message, one subject for each: all of them.
    #[must_use]
    pub fn acknowledgements(&self) -> String {
        format!("$JS.ACK.{}.{}.>", self.stream, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Principal;
    use crate::subject::Destination;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    /// Roots that were made to be taken for one another.
    fn roots() -> Vec<SubjectRoot> {
        let tokens = ["a", "a-events", "events", "inbox", "keys", "sealing", "control", "x-a", "agent"];
        let one = tokens.iter().map(|token| (*token).into());
        let two = tokens.iter().flat_map(|first| tokens.iter().map(move |second| format!("{first}.{second}")));
        let three = tokens.iter().flat_map(|second| tokens.iter().map(move |third| format!("a.{second}.{third}")));
        one.chain(two).chain(three).map(|text| SubjectRoot::new(&text).unwrap()).collect()
    }

    fn names_of(root: &SubjectRoot) -> [String; 4] {
        [root.bundles().name(), root.sealing_keys().name(), root.events_stream().name(), root.inbox_stream().name()]
    }

    fn endpoints() -> Vec<Endpoint> {
        let names = ["a", "a-a", "agent", "agent-1", "1", "1-agent"];
        names
            .iter()
            .flat_map(|role| names.iter().map(move |component| format!("{role}/{component}").parse().unwrap()))
            .collect()
    }

    /// Whether a stream of this filter keeps what is published to this subject.
    fn keeps(filter: &str, subject: &str) -> bool {
        let (wanted, found): (Vec<_>, Vec<_>) = (filter.split('.').collect(), subject.split('.').collect());
        wanted.len() == found.len()
            && wanted.iter().zip(&found).all(|(wanted, found)| wanted == &"*" || wanted == found)
    }

    #[test]
    fn no_two_streams_share_a_name_whatever_they_keep_and_whatever_their_roots() {
        let roots = roots();
        let names: BTreeSet<_> = roots.iter().flat_map(names_of).collect();
        assert_eq!(names.len(), 4 * roots.len());
        for name in names {
            assert!(
                name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
            );
        }
    }

    #[test]
    fn no_two_consumers_of_a_stream_share_a_name() {
        let root = SubjectRoot::default();
        let names = ["a", "a-a", "agent", "agent-1", "1"];
        let consumers: BTreeSet<_> = endpoints()
            .iter()
            .flat_map(|owner| names.map(|name| root.events_stream().consumer(owner, &name.parse().unwrap()).name))
            .collect();
        assert_eq!(consumers.len(), endpoints().len() * names.len());
    }

    #[test]
    fn the_longest_names_fit_into_what_nats_allows() {
        let (root, longest) = (SubjectRoot::new(&["a"; 64].join(".")).unwrap(), "a".repeat(63));
        let owner: Endpoint = format!("{longest}/{longest}").parse().unwrap();
        let consumer = root.events_stream().consumer(&owner, &longest.parse().unwrap());
        assert!(root.events_stream().name().len() <= 255 && consumer.name().len() <= 255);
    }

    #[test]
    fn a_stream_keeps_the_messages_of_its_space_and_nothing_else_of_its_root() {
        let root = SubjectRoot::new("a.b").unwrap();
        let sender: Principal = "spiffe://td/agent/a1".parse().unwrap();
        let owner: Endpoint = "core/c1".parse().unwrap();
        let every = [root.kept_events(None), root.kept_inbox(None, None, None)];
        for (filter, own) in every.iter().zip([Destination::Events, Destination::Inbox(owner.clone())]) {
            for message_type in &MessageType::BUILT_IN {
                for destination in [Destination::Events, Destination::Inbox(owner.clone())] {
                    let subject = root.subject(&destination, message_type, &sender);
                    assert_eq!(keeps(filter, &subject), destination == own, "{filter} {subject}");
                }
            }
            let others = [
                root.probe(&owner),
                root.bundles().subject(&owner),
                root.sealing_keys().subject(&owner),
                root.events_stream().idle(),
                root.inbox_stream().idle(),
            ];
            for subject in others {
                assert!(!keeps(filter, &subject), "{filter} keeps {subject}");
            }
        }
    }

    #[test]
    fn a_stream_can_be_told_types_and_inboxes() {
        let root = SubjectRoot::default();
        let (role, component) = ("core".parse().unwrap(), "c1".parse().unwrap());
        let alert = Some(&MessageType::Alert);
        assert_eq!(root.kept_events(alert), "ransomeye.events.alert.*.*");
        assert_eq!(root.kept_inbox(None, None, alert), "ransomeye.inbox.*.*.alert.*.*");
        assert_eq!(root.kept_inbox(Some(&role), None, alert), "ransomeye.inbox.core.*.alert.*.*");
        assert_eq!(root.kept_inbox(Some(&role), Some(&component), None), "ransomeye.inbox.core.c1.*.*.*");
    }

    #[test]
    fn nobody_can_send_a_message_to_an_idle_stream() {
        for root in roots() {
            for stream in [root.events_stream(), root.inbox_stream()] {
                assert!(root.parse(&stream.idle()).is_err());
            }
        }
    }

    #[test]
    fn a_consumer_is_used_by_these_subjects() {
        let root = SubjectRoot::default();
        let consumer = root.events_stream().consumer(&"core/c1".parse().unwrap(), &"alerts".parse().unwrap());
        assert_eq!(consumer.name(), "core_c1_alerts");
        assert_eq!(consumer.next(), "$JS.API.CONSUMER.MSG.NEXT.RANSOMEYE_EVENTS.core_c1_alerts");
        assert_eq!(consumer.info(), "$JS.API.CONSUMER.INFO.RANSOMEYE_EVENTS.core_c1_alerts");
        assert_eq!(consumer.acknowledgements(), "$JS.ACK.RANSOMEYE_EVENTS.core_c1_alerts.>");
    }
}
