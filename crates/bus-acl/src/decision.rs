//! What is asked of a policy, and what it answers.

use alloc::string::String;
use core::fmt;

use bus_proto::{Destination, MessageType, Principal, SubjectRoot};

/// What a component wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Send messages.
    Publish,
    /// Receive messages.
    Subscribe,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

/// What is asked of a policy: may this principal do this?
///
/// Printed as a clause, e.g. `spiffe://ransomeye.local/agent/a1 to publish Telemetry to events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Who asks, as its certificate or signature proves.
    pub principal: &'a Principal,
    /// What it wants to do.
    pub action: Action,
    /// The type of the messages. `None`, which only a subscription can ask for, is every type at once.
    pub message_type: Option<&'a MessageType>,
    /// Where the messages go.
    pub destination: &'a Destination,
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match self.action {
            Action::Publish => "to",
            Action::Subscribe => "from",
        };
        write!(f, "{} to {} ", self.principal, self.action)?;
        match self.message_type {
            Some(message_type) => write!(f, "{message_type}")?,
            None => f.write_str("every type")?,
        }
        match self.destination {
            Destination::Events => write!(f, " {link} events"),
            Destination::Inbox(owner) => write!(f, " {link} the inbox of {owner}"),
        }
    }
}

/// Proof that a policy allows a request.
///
/// Only a [`Policy`](crate::Policy) makes one, for exactly one [`Request`], and it cannot be copied: code that takes a
/// `Permit` cannot be reached by a message that nobody authorized. It borrows from the request, so that it cannot be
/// kept and used for another one later.
///
/// ```compile_fail,E0599
/// fn twice(permit: bus_acl::Permit<'_>) -> (bus_acl::Permit<'_>, bus_acl::Permit<'_>) {
///     (permit.clone(), permit)
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit is there to be used up by what it permits"]
pub struct Permit<'a> {
    request: Request<'a>,
}

impl<'a> Permit<'a> {
    pub(crate) fn new(request: Request<'a>) -> Self {
        Self { request }
    }

    /// What is allowed.
    #[must_use]
    pub fn request(&self) -> Request<'a> {
        self.request
    }

    /// The NATS subject that this permit is for: what to publish to, or what to subscribe to.
    ///
    /// [`Policy::permissions`](crate::Policy::permissions) for the same principal makes the broker accept it.
    #[must_use]
    pub fn subject(&self, root: &SubjectRoot) -> String {
        let Request { principal, action, message_type, destination } = self.request;
        match (action, message_type, destination) {
            (Action::Publish, Some(message_type), _) => root.subject(destination, message_type, principal),
            (_, _, Destination::Events) => root.events_filter(message_type),
            (_, _, Destination::Inbox(owner)) => root.inbox_filter(owner, message_type),
        }
    }
}

/// Why a policy denies a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// No rule allows it.
    #[error("no rule of the policy allows it")]
    NoRule,
    /// A rule denies it, whatever others allow.
    #[error("rule {rule} of the policy denies it")]
    DeniedByRule {
        /// The first such rule, counted from 1 as the policy lists them.
        rule: u32,
    },
    /// It would read an inbox of somebody else, which no rule can allow.
    #[error("only its owner may read an inbox")]
    NotYourInbox,
    /// The principal is of another trust domain than the policy's own, and no rule that names it allows this.
    #[error("the principal is of a foreign trust domain, and no rule that names this domain allows it")]
    ForeignTrustDomain,
    /// The policy names trust domains but has not been told its own, so that it cannot tell which rules apply.
    #[error("the policy names trust domains and does not know its own: bind it with `Policy::for_domain`")]
    UnboundPolicy,
}

/// A policy's refusal: what was asked, and why not.
///
/// Its text names the principal and the request and nothing of the message, so that it is fit for a security log. It owns
/// what it says, as errors travel; its parts share their text with the request's, so that making one does not allocate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy does not allow {}: {why}", self.request())]
pub struct Denied {
    principal: Principal,
    action: Action,
    message_type: Option<MessageType>,
    destination: Destination,
    why: Why,
}

impl Denied {
    pub(crate) fn new(request: Request<'_>, why: Why) -> Self {
        Self {
            principal: request.principal.clone(),
            action: request.action,
            message_type: request.message_type.cloned(),
            destination: request.destination.clone(),
            why,
        }
    }

    /// What was refused.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request {
            principal: &self.principal,
            action: self.action,
            message_type: self.message_type.as_ref(),
            destination: &self.destination,
        }
    }

    /// Why it was refused.
    #[must_use]
    pub fn why(&self) -> Why {
        self.why
    }
}
