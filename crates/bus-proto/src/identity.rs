//! Who speaks: the identity that a certificate states, and its parts.
//!
//! A component's certificate carries one SPIFFE ID, `spiffe://<trust-domain>/<role>/<component>`, as its only URI
//! subject alternative name. Role and component obey one grammar, so that each is exactly one NATS subject token.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

/// The longest role or component, in bytes.
pub const MAX_TOKEN_LEN: usize = 63;

/// The longest trust domain name, in bytes (SPIFFE ID specification, section 2.3 allows 255).
pub const MAX_TRUST_DOMAIN_LEN: usize = 255;

/// Why a text is not an identity, or not a part of one.
///
/// The offending text is shown shortened and with control characters escaped, so that it is safe to log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which part of an identity it was to be.
        what: &'static str,
    },
    /// The text is longer than the grammar allows.
    #[error("{what} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Which part of an identity it was to be.
        what: &'static str,
        /// How long it is, in bytes.
        len: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// The text holds something outside the grammar.
    #[error("{what} `{text}` is malformed: {rule}")]
    Malformed {
        /// Which part of an identity it was to be.
        what: &'static str,
        /// The text, shortened and escaped.
        text: String,
        /// The grammar that it breaks.
        rule: &'static str,
    },
    /// The text is a SPIFFE ID of another shape than `spiffe://<trust-domain>/<role>/<component>`.
    #[error("`{text}` is not a SPIFFE ID of the form spiffe://<trust-domain>/<role>/<component>")]
    NotSpiffe {
        /// The text, shortened and escaped.
        text: String,
    },
}

/// Shortens and escapes untrusted text for an error message.
pub(crate) fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

const TOKEN_RULE: &str = "it must be 1 to 63 of a-z, 0-9 and inner `-`";

/// Checks the grammar `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
pub(crate) fn check_token(what: &'static str, text: &str) -> Result<(), IdentityError> {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(IdentityError::Empty { what });
    };
    if bytes.len() > MAX_TOKEN_LEN {
        return Err(IdentityError::TooLong { what, len: bytes.len(), max: MAX_TOKEN_LEN });
    }
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    if *first == b'-' || *last == b'-' || !bytes.iter().all(inner) {
        return Err(IdentityError::Malformed { what, text: printable(text), rule: TOKEN_RULE });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses and checks the text.
            ///
            /// # Errors
            ///
            /// When the text breaks the grammar; the error names the rule.
            pub fn new(text: &str) -> Result<Self, IdentityError> {
                $check($what, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

name!(
    /// What a component is for, e.g. `agent` or `core`. The policy speaks of roles.
    ///
    /// ```
    /// use bus_proto::Role;
    ///
    /// assert!(Role::new("agent").is_ok());
    /// assert!(Role::new("Agent").is_err());
    /// assert!(Role::new("agent.*").is_err());
    /// ```
    Role, "role", check_token
);

/// The roles of the bus's own infrastructure. No component has one: it could neither sign nor be told what it may do.
pub const RESERVED_ROLES: [&str; 2] = ["broker", "relay"];

impl Role {
    /// Whether this is one of [`RESERVED_ROLES`].
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED_ROLES.contains(&self.as_str())
    }
}

name!(
    /// Which component of its role this is, e.g. `agent-linux-01`.
    ///
    /// ```
    /// use bus_proto::ComponentId;
    ///
    /// assert!(ComponentId::new("agent-linux-01").is_ok());
    /// assert!(ComponentId::new("-agent").is_err());
    /// ```
    ComponentId, "component", check_token
);

name!(
    /// What a component calls one of its readers of a stream, e.g. `alerts`. No two of one component share a name.
    ///
    /// ```
    /// use bus_proto::ConsumerName;
    ///
    /// assert!(ConsumerName::new("alerts").is_ok());
    /// assert!(ConsumerName::new("alerts.*").is_err());
    /// ```
    ConsumerName, "consumer name", check_token
);

name!(
    /// The deployment that an identity belongs to, e.g. `ransomeye.local`. Each has its own certificate authorities.
    ///
    /// ```
    /// use bus_proto::TrustDomain;
    ///
    /// assert!(TrustDomain::new("ransomeye.local").is_ok());
    /// assert!(TrustDomain::new("Ransomeye").is_err());
    /// ```
    TrustDomain, "trust domain", check_trust_domain
);

fn check_trust_domain(what: &'static str, text: &str) -> Result<(), IdentityError> {
    if text.is_empty() {
        return Err(IdentityError::Empty { what });
    }
    if text.len() > MAX_TRUST_DOMAIN_LEN {
        return Err(IdentityError::TooLong { what, len: text.len(), max: MAX_TRUST_DOMAIN_LEN });
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if !text.bytes().all(allowed) {
        return Err(IdentityError::Malformed {
            what,
            text: printable(text),
            rule: "it must be a-z, 0-9, `.`, `-` and `_` (SPIFFE ID, section 2.1)",
        });
    }
    Ok(())
}

impl TrustDomain {
    /// Parses the SPIFFE ID of the trust domain itself, `spiffe://<trust-domain>`, as a CA certificate carries it.
    ///
    /// # Errors
    ///
    /// When the text is not such an ID.
    pub fn from_spiffe_id(text: &str) -> Result<Self, IdentityError> {
        match text.strip_prefix("spiffe://") {
            Some(name) => Self::new(name),
            None => Err(IdentityError::NotSpiffe { text: printable(text) }),
        }
    }
}

/// A role and a component within one trust domain, printed as `<role>/<component>`.
///
/// ```
/// use bus_proto::Endpoint;
///
/// let endpoint: Endpoint = "core/core-01".parse()?;
/// assert_eq!(endpoint.role.as_str(), "core");
/// assert_eq!(endpoint.to_string(), "core/core-01");
/// # Ok::<(), bus_proto::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// What it is for.
    pub role: Role,
    /// Which one it is.
    pub component: ComponentId,
}

impl FromStr for Endpoint {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((role, component)) = text.split_once('/') else {
            return Err(IdentityError::Malformed {
                what: "component address",
                text: printable(text),
                rule: "it must be <role>/<component>",
            });
        };
        Ok(Self { role: Role::new(role)?, component: ComponentId::new(component)? })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.component)
    }
}

/// A component's full identity: the one SPIFFE ID of its certificate.
///
/// ```
/// use bus_proto::Principal;
///
/// let principal: Principal = "spiffe://ransomeye.local/agent/agent-linux-01".parse()?;
/// assert_eq!(principal.role().as_str(), "agent");
/// assert_eq!(principal.to_string(), "spiffe://ransomeye.local/agent/agent-linux-01");
/// assert!("spiffe://ransomeye.local/agent".parse::<Principal>().is_err());
/// # Ok::<(), bus_proto::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// The deployment that it belongs to.
    pub trust_domain: TrustDomain,
    /// Its role and component there.
    pub endpoint: Endpoint,
}

impl Principal {
    /// Puts an identity together.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, role: Role, component: ComponentId) -> Self {
        Self { trust_domain, endpoint: Endpoint { role, component } }
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.endpoint.role
    }

    /// Which one of its role it is.
    #[must_use]
    pub fn component(&self) -> &ComponentId {
        &self.endpoint.component
    }

    /// The SPIFFE ID, as it stands in the certificate.
    #[must_use]
    pub fn spiffe_id(&self) -> String {
        self.to_string()
    }
}

impl FromStr for Principal {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_spiffe = || IdentityError::NotSpiffe { text: printable(text) };
        let rest = text.strip_prefix("spiffe://").ok_or_else(not_spiffe)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some(role), Some(component), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(not_spiffe());
        };
        Ok(Self::new(TrustDomain::new(domain)?, Role::new(role)?, ComponentId::new(component)?))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = "a".repeat(10_000);
        for name in
            ["", ".", "a.b", "*", ">", "a b", "ä", "a\n", "a/b", "-a", "a-", "A", "a\0", "$SYS", "_INBOX", &long]
        {
            assert!(Role::new(name).is_err(), "{name:?}");
            assert!(ComponentId::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_of_63_bytes_is_accepted_and_64_refused() {
        assert!(Role::new(&"a".repeat(63)).is_ok());
        assert!(Role::new(&"a".repeat(64)).is_err());
    }

    #[test]
    fn malformed_spiffe_ids_are_refused() {
        for id in [
            "spiffe:///agent/a",
            "spiffe://td/agent",
            "spiffe://td/agent/a/b",
            "spiffe://td/agent/a/",
            "spiffe://td//a",
            "spiffe://td:1/agent/a",
            "spiffe://u@td/agent/a",
            "spiffe://td/agent/a?x",
            "spiffe://td/agent/a#x",
            "SPIFFE://td/agent/a",
            "https://td/agent/a",
            " spiffe://td/agent/a",
            "spiffe://td/agent/%61",
        ] {
            assert!(id.parse::<Principal>().is_err(), "{id}");
        }
    }

    #[test]
    fn an_error_shows_untrusted_text_shortened_and_escaped() {
        let text = IdentityError::NotSpiffe { text: printable(&"\u{1b}[31m".repeat(100)) }.to_string();
        assert!(!text.contains('\u{1b}'));
        assert!(text.len() < 1_000);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_a_principal_agree(
            domain in "[a-z0-9._-]{1,255}", role in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            component in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        ) {
            let text = alloc::format!("spiffe://{domain}/{role}/{component}");
            let principal: Principal = text.parse().unwrap();
            prop_assert_eq!(principal.to_string(), text);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC*") {
            let _ = text.parse::<Principal>();
            let _ = text.parse::<Endpoint>();
        }
    }
}
