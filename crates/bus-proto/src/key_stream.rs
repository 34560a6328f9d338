//! Where components leave what others need of their keys.

use alloc::format;
use alloc::string::String;

use crate::identity::Endpoint;
use crate::subject::SubjectRoot;

/// One of the JetStream streams in which components leave what vouches for their keys: [`SubjectRoot::bundles`] or
/// [`SubjectRoot::sealing_keys`].
///
/// No two roots share a stream, and the two of one root differ: a name ends with what the stream keeps, and what stands
/// before that says which root it is.
///
/// ```
/// use bus_proto::SubjectRoot;
///
/// let root = SubjectRoot::new("acme.prod")?;
/// assert_eq!(root.bundles().name(), "ACME_PROD_KEYS");
/// assert_eq!(root.sealing_keys().name(), "ACME_PROD_SEALING");
/// # Ok::<(), bus_proto::SubjectError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStream<'a> {
    root: &'a SubjectRoot,
    space: &'static str,
    suffix: &'static str,
}

impl SubjectRoot {
    /// The stream of key bundles: `<ROOT>_KEYS`, with what is published to `<root>.keys.*.*`.
    #[must_use]
    pub fn bundles(&self) -> KeyStream<'_> {
        KeyStream { root: self, space: "keys", suffix: "KEYS" }
    }

    /// The stream of sealing key records: `<ROOT>_SEALING`, with what is published to `<root>.sealing.*.*`.
    #[must_use]
    pub fn sealing_keys(&self) -> KeyStream<'_> {
        KeyStream { root: self, space: "sealing", suffix: "SEALING" }
    }
}

impl SubjectRoot {
    /// The name of a stream. No token holds a `_`, so that two names are equal only if root and suffix are.
    pub(crate) fn stream_name(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.as_str().to_ascii_uppercase().replace('.', "_"))
    }
}

impl KeyStream<'_> {
    /// Where `owner` leaves its own. Only it may publish there, and nobody may subscribe: it is read from the stream.
    #[must_use]
    pub fn subject(&self, owner: &Endpoint) -> String {
        format!("{}.{}.{}.{}", self.root, self.space, owner.role, owner.component)
    }

    /// The name of the stream: the root's tokens in upper case, joined by `_`, and behind them what it keeps.
    #[must_use]
    pub fn name(&self) -> String {
        self.root.stream_name(self.suffix)
    }

    /// What the stream keeps: everyone's [`KeyStream::subject`].
    #[must_use]
    pub fn filter(&self) -> String {
        format!("{}.{}.*.*", self.root, self.space)
    }

    /// Where to ask the broker for what the stream keeps: JetStream's direct get.
    #[must_use]
    pub fn lookup(&self) -> String {
        format!("$JS.API.DIRECT.GET.{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ComponentId, Role};
    use crate::message_type::MessageType;
    use crate::subject::Destination;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    fn owner() -> Endpoint {
        Endpoint { role: Role::new("agent").unwrap(), component: ComponentId::new("a1").unwrap() }
    }

    /// Roots that were made to be taken for one another.
    fn roots() -> Vec<SubjectRoot> {
        let tokens = ["a", "a-keys", "keys", "sealing", "events", "inbox", "control", "x-a", "agent"];
        let one = tokens.iter().map(ToString::to_string);
        let two = tokens.iter().flat_map(|first| tokens.iter().map(move |second| format!("{first}.{second}")));
        let three = tokens.iter().flat_map(|second| tokens.iter().map(move |third| format!("a.{second}.{third}")));
        one.chain(two).chain(three).map(|text| SubjectRoot::new(&text).unwrap()).collect()
    }

    /// Whether a stream of this filter keeps what is published to this subject.
    fn keeps(filter: &str, subject: &str) -> bool {
        let (wanted, found): (Vec<_>, Vec<_>) = (filter.split('.').collect(), subject.split('.').collect());
        wanted.len() == found.len()
            && wanted.iter().zip(&found).all(|(wanted, found)| wanted == &"*" || wanted == found)
    }

    #[test]
    fn the_streams_of_a_root_have_these_names_and_subjects() {
        let root = SubjectRoot::new("a.b").unwrap();
        for (stream, name, space) in
            [(root.bundles(), "A_B_KEYS", "a.b.keys"), (root.sealing_keys(), "A_B_SEALING", "a.b.sealing")]
        {
            assert_eq!(stream.name(), name);
            assert_eq!(stream.subject(&owner()), format!("{space}.agent.a1"));
            assert_eq!(stream.filter(), format!("{space}.*.*"));
            assert_eq!(stream.lookup(), format!("$JS.API.DIRECT.GET.{name}"));
        }
    }

    #[test]
    fn no_two_streams_share_a_name_whatever_their_roots() {
        let roots = roots();
        let names: BTreeSet<_> =
            roots.iter().flat_map(|root| [root.bundles().name(), root.sealing_keys().name()]).collect();
        assert_eq!(names.len(), 2 * roots.len());
    }

    #[test]
    fn a_stream_keeps_its_own_keys_and_nothing_else_of_any_root() {
        let (roots, owner) = (roots(), owner());
        let sender = "spiffe://td/agent/a1".parse().unwrap();
        let types = MessageType::BUILT_IN.into_iter().chain(["x-keys".parse().unwrap(), "x-a".parse().unwrap()]);
        let types: Vec<_> = types.collect();
        for root in &roots {
            for stream in [root.bundles(), root.sealing_keys()] {
                let (filter, own) = (stream.filter(), stream.subject(&owner));
                for other in &roots {
                    for subject in [other.bundles(), other.sealing_keys()].map(|other| other.subject(&owner)) {
                        assert_eq!(keeps(&filter, &subject), subject == own, "{filter} {subject}");
                    }
                    assert!(!keeps(&filter, &other.probe(&owner)), "{filter} under {other}");
                    assert!(other.parse(&own).is_err(), "{own} is a message under {other}");
                    for destination in [Destination::Events, Destination::Inbox(owner.clone())] {
                        for subject in types.iter().map(|kind| other.subject(&destination, kind, &sender)) {
                            assert!(!keeps(&filter, &subject), "{filter} keeps {subject}");
                        }
                    }
                }
            }
        }
    }
}
