//! What a policy is made of.

use alloc::borrow::{Cow, ToOwned};
use alloc::vec::Vec;
use core::fmt;

use bus_proto::{ComponentId, Destination, Endpoint, MessageType, Principal, Role, TrustDomain};

use crate::decision::{Action, Request};

/// Whether a rule allows or denies what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It is allowed, unless another rule denies it.
    Allow,
    /// It is denied, whatever other rules allow.
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// Whom a rule is about.
///
/// A rule that names no trust domain is about the policy's own: see [`Policy::for_domain`](crate::Policy::for_domain).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Who {
    // Text, not `Role`, so that the default policy is a constant. It only ever comes from a `Role` or from there.
    pub(crate) role: Option<Cow<'static, str>>,
    pub(crate) component: Option<ComponentId>,
    pub(crate) trust_domain: Option<TrustDomain>,
}

impl Who {
    /// Every component of every role.
    #[must_use]
    pub const fn every_role() -> Self {
        Self { role: None, component: None, trust_domain: None }
    }

    /// Every component of one role.
    #[must_use]
    pub fn role(role: &Role) -> Self {
        Self { role: Some(Cow::Owned(role.as_str().to_owned())), ..Self::every_role() }
    }

    pub(crate) const fn constant_role(role: &'static str) -> Self {
        Self { role: Some(Cow::Borrowed(role)), component: None, trust_domain: None }
    }

    /// Only the components of this name.
    #[must_use]
    pub fn component(mut self, component: ComponentId) -> Self {
        self.component = Some(component);
        self
    }

    /// Only components of this trust domain, whether it is the policy's own or a foreign one.
    #[must_use]
    pub fn trust_domain(mut self, trust_domain: TrustDomain) -> Self {
        self.trust_domain = Some(trust_domain);
        self
    }

    /// Whether the rule is about `principal`. `local` is the policy's own trust domain; without one, every principal
    /// counts as local.
    pub(crate) fn includes(&self, principal: &Principal, local: Option<&TrustDomain>) -> bool {
        let domain = self.trust_domain.as_ref().or(local);
        self.role.as_deref().is_none_or(|role| role == principal.role().as_str())
            && self.component.as_ref().is_none_or(|component| component == principal.component())
            && domain.is_none_or(|domain| *domain == principal.trust_domain)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Some(role) => write!(f, "role {role}")?,
            None => f.write_str("every role")?,
        }
        if let Some(component) = &self.component {
            write!(f, ", component {component}")?;
        }
        if let Some(trust_domain) = &self.trust_domain {
            write!(f, ", trust domain {trust_domain}")?;
        }
        Ok(())
    }
}

/// Which message types a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Types(Listed);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Listed {
    Every,
    // Sorted, without duplicates.
    Only(Cow<'static, [MessageType]>),
}

impl Types {
    /// Every type: all built-in ones, and all that programs register now or later.
    pub const EVERY: Self = Self(Listed::Every);

    /// These types and no others. A rule without any is about nothing.
    #[must_use]
    pub fn only(types: impl IntoIterator<Item = MessageType>) -> Self {
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_unstable();
        types.dedup();
        Self(Listed::Only(Cow::Owned(types)))
    }

    /// `types` must be sorted, without duplicates.
    pub(crate) const fn constant(types: &'static [MessageType]) -> Self {
        Self(Listed::Only(Cow::Borrowed(types)))
    }

    /// Whether the rule is about this type; `None` asks whether it is about every type at once.
    #[must_use]
    pub fn contains(&self, message_type: Option<&MessageType>) -> bool {
        match (&self.0, message_type) {
            (Listed::Every, _) => true,
            (Listed::Only(types), Some(message_type)) => types.binary_search(message_type).is_ok(),
            (Listed::Only(_), None) => false,
        }
    }

    /// Each type that is listed, or once `None` for every type.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<&MessageType>> {
        let (every, listed) = match &self.0 {
            Listed::Every => (Some(None), &[][..]),
            Listed::Only(types) => (None, &types[..]),
        };
        every.into_iter().chain(listed.iter().map(Some))
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listed::Only(types) = &self.0 else {
            return f.write_str("every type");
        };
        for (place, message_type) in types.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{message_type}")?;
        }
        Ok(())
    }
}

/// Which inboxes a rule about directed messages means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inboxes {
    /// Any component's, written `*/*`.
    Any,
    /// Those of one role's components, written `<role>/*`.
    OfRole(Role),
    /// One component's, written `<role>/<component>`.
    Of(Endpoint),
}

impl Inboxes {
    pub(crate) fn include(&self, owner: &Endpoint) -> bool {
        match self {
            Self::Any => true,
            Self::OfRole(role) => *role == owner.role,
            Self::Of(endpoint) => endpoint == owner,
        }
    }
}

impl fmt::Display for Inboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*/*"),
            Self::OfRole(role) => write!(f, "{role}/*"),
            Self::Of(endpoint) => write!(f, "{endpoint}"),
        }
    }
}

/// What a rule lets components do, or keeps them from doing. To read another's inbox cannot be expressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Right {
    /// Send events.
    PublishEvents,
    /// Send directed messages.
    PublishInbox(Inboxes),
    /// Receive events.
    SubscribeEvents,
    /// Receive the messages that are directed to oneself.
    SubscribeOwnInbox,
}

/// A [`Right`] without its inboxes: the first half of the key by which a policy finds its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    PublishEvents,
    PublishInbox,
    SubscribeEvents,
    SubscribeInbox,
}

impl Right {
    /// Whether it is about sending or about receiving.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::PublishEvents | Self::PublishInbox(_) => Action::Publish,
            Self::SubscribeEvents | Self::SubscribeOwnInbox => Action::Subscribe,
        }
    }

    pub(crate) fn space(&self) -> Space {
        match self {
            Self::PublishEvents => Space::PublishEvents,
            Self::PublishInbox(_) => Space::PublishInbox,
            Self::SubscribeEvents => Space::SubscribeEvents,
            Self::SubscribeOwnInbox => Space::SubscribeInbox,
        }
    }

    /// Whether it reaches where the request goes. That an inbox is the principal's own is checked before any rule.
    fn reaches(&self, request: &Request<'_>) -> bool {
        match (self, request.destination) {
            (Self::PublishInbox(inboxes), Destination::Inbox(owner)) => inboxes.include(owner),
            _ => true,
        }
    }
}

impl Space {
    /// Every space, in order.
    pub(crate) const ALL: [Self; 4] =
        [Self::PublishEvents, Self::PublishInbox, Self::SubscribeEvents, Self::SubscribeInbox];

    pub(crate) fn of(request: &Request<'_>) -> Self {
        match (request.action, request.destination) {
            (Action::Publish, Destination::Events) => Self::PublishEvents,
            (Action::Publish, Destination::Inbox(_)) => Self::PublishInbox,
            (Action::Subscribe, Destination::Events) => Self::SubscribeEvents,
            (Action::Subscribe, Destination::Inbox(_)) => Self::SubscribeInbox,
        }
    }
}

/// One rule of a policy.
///
/// ```
/// use bus_acl::{Right, Rule, Types, Who};
/// use bus_proto::{MessageType, Role};
///
/// let rule = Rule::allow(Who::role(&Role::new("agent")?), Right::PublishEvents, Types::only([MessageType::Alert]));
/// assert_eq!(rule.to_string(), "allow role agent to publish Alert to events");
/// # Ok::<(), bus_proto::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    pub(crate) effect: Effect,
    pub(crate) who: Who,
    pub(crate) right: Right,
    pub(crate) types: Types,
}

impl Rule {
    /// A rule that allows.
    #[must_use]
    pub const fn allow(who: Who, right: Right, types: Types) -> Self {
        Self::new(Effect::Allow, who, right, types)
    }

    /// A rule that denies.
    #[must_use]
    pub const fn deny(who: Who, right: Right, types: Types) -> Self {
        Self::new(Effect::Deny, who, right, types)
    }

    /// A rule of either effect.
    #[must_use]
    pub const fn new(effect: Effect, who: Who, right: Right, types: Types) -> Self {
        Self { effect, who, right, types }
    }

    /// Whether it allows or denies.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// By what a policy sorts and finds its rules. Rules for every role come first in their space.
    pub(crate) fn key(&self) -> (Space, Option<&str>) {
        (self.right.space(), self.who.role.as_deref())
    }

    /// Whether the rule is about this request, which must be of the rule's [`Space`].
    pub(crate) fn matches(&self, request: &Request<'_>, local: Option<&TrustDomain>) -> bool {
        self.types.contains(request.message_type)
            && self.right.reaches(request)
            && self.who.includes(request.principal, local)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { effect, who, right, types } = self;
        write!(f, "{effect} {who} to ")?;
        match right {
            Right::PublishEvents => write!(f, "publish {types} to events"),
            Right::PublishInbox(inboxes) => write!(f, "publish {types} to the inbox of {inboxes}"),
            Right::SubscribeEvents => write!(f, "subscribe {types} from events"),
            Right::SubscribeOwnInbox => write!(f, "subscribe {types} from its own inbox"),
        }
    }
}
