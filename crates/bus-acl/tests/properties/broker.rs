//! A model of what nats-server does with permissions, written from its documentation and its observed behaviour.

use bus_acl::Permissions;

/// A connection, as the server sees it.
pub(crate) struct Connection(pub(crate) Permissions);

impl Connection {
    /// Whether the server takes a message that is published to `subject`.
    pub(crate) fn may_publish(&self, subject: &str) -> bool {
        permits(&self.0.publish_allow, &self.0.publish_deny, |pattern| covers(pattern, subject))
    }

    /// Whether the server accepts a subscription. One entry has to cover it whole.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        permits(&self.0.subscribe_allow, &self.0.subscribe_deny, |pattern| covers(pattern, filter))
    }

    /// Whether a message published to `subject` reaches an accepted subscription. Denials filter here once more.
    pub(crate) fn receives(&self, filter: &str, subject: &str) -> bool {
        covers(filter, subject) && !self.0.subscribe_deny.iter().any(|pattern| covers(pattern, subject))
    }
}

/// NATS: an empty allow list allows everything, and a denial wins.
fn permits(allow: &[String], deny: &[String], matches: impl Fn(&str) -> bool) -> bool {
    (allow.is_empty() || allow.iter().any(|pattern| matches(pattern))) && !deny.iter().any(|pattern| matches(pattern))
}

/// Whether every subject that `inner` matches is matched by `outer`. A concrete subject matches itself alone.
///
/// `*` stands for exactly one token, `>` for one or more at the end.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(pattern), Some(token)) if pattern == token => {}
            _ => return false,
        }
    }
}

#[test]
fn the_model_matches_subjects_as_nats_documents_it() {
    for (outer, inner) in [
        ("a", "a"),
        ("a.*", "a.b"),
        ("*.b", "a.b"),
        ("a.>", "a.b"),
        ("a.>", "a.b.c"),
        ("a.>", "a.>"),
        ("a.>", "a.*.c"),
        ("a.*", "a.*"),
        (">", ">"),
        (">", "a.*"),
    ] {
        assert!(covers(outer, inner), "{outer} covers {inner}");
    }
    for (outer, inner) in [
        ("a", "b"),
        ("a", "a.b"),
        ("a.b", "a"),
        ("a.*", "a"),
        ("a.*", "a.b.c"),
        ("a.*", "a.>"),
        ("a.b", "a.*"),
        ("a.>", "a"),
        ("a.>", ">"),
        ("a.>", "*.b"),
        ("a.b.>", "a.>"),
    ] {
        assert!(!covers(outer, inner), "{outer} does not cover {inner}");
    }
}
