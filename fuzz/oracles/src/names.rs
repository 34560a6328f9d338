//! The names that stand in certificates, configurations and subjects.

use bus_proto::{ComponentId, Destination, Endpoint, MessageType, Principal, Role, SubjectRoot, TrustDomain};

/// A SPIFFE ID and the parts of one: what is accepted is what the grammar says, and prints as it was read.
pub fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let principal = text.parse::<Principal>();
    let parts = text.strip_prefix("spiffe://").map(|rest| rest.split('/').collect::<Vec<_>>());
    let well_formed = matches!(parts.as_deref(), Some([domain, role, component])
        if is_trust_domain(domain) && is_token(role) && is_token(component));
    assert_eq!(principal.is_ok(), well_formed, "{principal:?}");
    match principal {
        Ok(principal) => {
            assert_eq!(principal.spiffe_id(), text);
            assert_eq!(principal.endpoint.to_string().parse(), Ok(principal.endpoint.clone()));
        }
        Err(error) => harmless(&error),
    }
    let domain = TrustDomain::from_spiffe_id(text);
    assert_eq!(domain.is_ok(), text.strip_prefix("spiffe://").is_some_and(is_trust_domain));
    assert_eq!(TrustDomain::new(text).is_ok(), is_trust_domain(text));
    assert_eq!(Role::new(text).is_ok(), is_token(text));
    assert_eq!(ComponentId::new(text).is_ok(), is_token(text));
    let endpoint = text.split_once('/').is_some_and(|(role, component)| is_token(role) && is_token(component));
    assert_eq!(text.parse::<Endpoint>().is_ok(), endpoint);
}

/// A subject, under the default root and, where a line break divides the input, under the one before it: it says what it was
/// built from. And what an agent may subscribe to matches exactly what it is about.
pub fn subject(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (root, text) = match text.split_once('\n') {
        None => (Ok(SubjectRoot::default()), text),
        Some((root, text)) => (SubjectRoot::new(root), text),
    };
    match text.parse::<MessageType>() {
        Ok(message_type) => {
            assert_eq!(MessageType::from_token(message_type.token()), Ok(message_type.clone()));
            assert_eq!(message_type.to_string().parse(), Ok(message_type));
        }
        Err(error) => harmless(&error),
    }
    let root = match root {
        Ok(root) => root,
        Err(error) => return harmless(&error),
    };
    assert!(root.as_str().split('.').all(is_token));
    let address = match root.parse(text) {
        Ok(address) => address,
        Err(error) => return harmless(&error),
    };
    assert!(text.split('.').all(is_token), "no token is a wildcard");
    let sender = Principal { trust_domain: TrustDomain::new("td").unwrap(), endpoint: address.sender.clone() };
    assert_eq!(root.subject(&address.destination, &address.message_type, &sender), text);
    let filters = |message_type| match &address.destination {
        Destination::Events => root.events_filter(message_type),
        Destination::Inbox(owner) => root.inbox_filter(owner, message_type),
    };
    assert!(covers(&filters(None), text) && covers(&filters(Some(&address.message_type)), text));
}

/// What is shown of a text from elsewhere is short, no terminal obeys it, and nothing in it is invisible or turns the
/// direction of writing around.
pub(crate) fn harmless(error: &dyn std::error::Error) {
    let shown = error.to_string();
    assert!(shown.len() < 2_000, "{shown}");
    let visible =
        |character: char| matches!(character, '\n' | '\'' | '"' | '\\') || character.escape_debug().len() == 1;
    assert!(shown.chars().all(visible), "{shown:?}");
}

/// `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
fn is_token(text: &str) -> bool {
    let alphanumeric = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    match text.as_bytes() {
        [only] => alphanumeric(only),
        [first, inner @ .., last] => {
            alphanumeric(first)
                && alphanumeric(last)
                && inner.len() <= 61
                && inner.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
        }
        [] => false,
    }
}

fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

/// Whether every subject that `inner` matches is matched by `outer`, as NATS defines it: `*` stands for one token, `>` for
/// one or more at the end.
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
