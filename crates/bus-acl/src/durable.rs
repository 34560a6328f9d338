//! Who gets what streams keep.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;

use bus_proto::subject::Destination;
use bus_proto::{ConsumerName, Endpoint, MessageStream, MessageType, Principal, SubjectRoot, TrustDomain};

use crate::delivery::{DeliveryError, Millis};
use crate::kept::Areas;
use crate::policy::Policy;
use crate::rule::{Effect, Space, Types};

/// How often a message may be delivered.
pub(crate) const MAX_DELIVER: RangeInclusive<u64> = 1..=1_000;

/// How long a consumer may take to acknowledge a message, in milliseconds.
pub(crate) const ACK_WAIT_MS: RangeInclusive<u64> = 1_000..=3_600_000;

/// How many messages may be unacknowledged.
pub(crate) const MAX_ACK_PENDING: RangeInclusive<u64> = 1..=100_000;

/// Where durable messages are received from. Each has a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Events.
    Events,
    /// The component's own inbox.
    Inbox,
}

impl Source {
    /// The stream that keeps these messages.
    #[must_use]
    pub fn stream(self, root: &SubjectRoot) -> MessageStream<'_> {
        match self {
            Self::Events => root.events_stream(),
            Self::Inbox => root.inbox_stream(),
        }
    }

    /// Where the messages were sent that `owner` receives from here.
    #[must_use]
    pub fn destination(self, owner: &Endpoint) -> Destination {
        match self {
            Self::Events => Destination::Events,
            Self::Inbox => Destination::Inbox(owner.clone()),
        }
    }

    fn space(self) -> Space {
        match self {
            Self::Events => Space::SubscribeEvents,
            Self::Inbox => Space::SubscribeInbox,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Events => "events",
            Self::Inbox => "its inbox",
        })
    }
}

/// A consumer of durable messages, which one component has. Its processes share it, and each message goes to one of them.
///
/// Make one with [`Durable::new`] and set the fields that should differ. It comes into force by
/// [`Policy::with_durables`], which checks it.
///
/// Printed, it reads like `core/core-01 receives Alert from events as alerts`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Durable {
    /// What the component calls it.
    pub name: ConsumerName,
    /// Whose it is.
    pub endpoint: Endpoint,
    /// Of what types the messages are. Those that are not durable are not among them.
    pub types: Types,
    /// Where the messages come from.
    pub from: Source,
    /// How often a message is delivered, 1 to 1,000 times, before it is given up as a dead letter. Default: 10.
    ///
    /// The receiver counts, not the broker, which would give a message up without a word.
    pub max_deliver: u32,
    /// How long a message may be worked on without a sign of life until it is delivered again: one second to one hour, in
    /// whole milliseconds. Default: 30 seconds.
    pub ack_wait: Duration,
    /// How many messages may be delivered and not acknowledged, 1 to 100,000, by all processes together. Default: 1,024.
    pub max_ack_pending: u32,
}

impl Durable {
    /// A consumer with the defaults that stand at each field.
    #[must_use]
    pub const fn new(name: ConsumerName, endpoint: Endpoint, types: Types, from: Source) -> Self {
        Self { name, endpoint, types, from, max_deliver: 10, ack_wait: Duration::from_secs(30), max_ack_pending: 1_024 }
    }

    fn check_bounds(&self, durable: usize) -> Result<(), DeliveryError> {
        let ack_wait_ms = u64::try_from(self.ack_wait.as_millis()).unwrap_or(u64::MAX);
        let settings = [
            ("max_deliver", self.max_deliver.into(), MAX_DELIVER),
            ("ack_wait in milliseconds", ack_wait_ms, ACK_WAIT_MS),
            ("max_ack_pending", self.max_ack_pending.into(), MAX_ACK_PENDING),
        ];
        match settings.into_iter().find(|(_, value, bounds)| !bounds.contains(value)) {
            None => Ok(()),
            Some((setting, _, bounds)) => {
                Err(DeliveryError::Bounds { durable, setting, min: *bounds.start(), max: *bounds.end() })
            }
        }
    }
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, endpoint, types, from, .. } = self;
        write!(f, "{endpoint} receives {types} from {from} as {name}")?;
        let wait = u64::try_from(self.ack_wait.as_millis()).unwrap_or(u64::MAX);
        write!(f, ", up to {} times, each after {}", self.max_deliver, Millis(wait))
    }
}

impl Policy {
    /// Whether `who` may use this consumer of the policy: it is its own, and the rules let it receive everything that the
    /// consumer delivers. The broker gives it the right to, and to nobody else.
    #[must_use]
    pub fn may_consume(&self, who: &Principal, durable: &Durable) -> bool {
        if who.endpoint != durable.endpoint || self.is_foreign(who) {
            return false;
        }
        let areas = Areas::of(&self.deliveries);
        let types = areas.delivered(durable);
        !types.is_empty() && self.refused(who, durable, &types).is_none()
    }

    /// Whether some consumer gets these messages, if they are durable.
    pub(crate) fn is_consumed(&self, message_type: &MessageType, destination: &Destination) -> bool {
        self.durables.iter().any(|durable| {
            durable.types.contains(Some(message_type)) && durable.from.destination(&durable.endpoint) == *destination
        })
    }

    /// The first of these types that `who` may not receive without exception.
    ///
    /// What a consumer delivers, the broker does not filter by what is denied: so of every type, none may be denied.
    fn refused<'a>(
        &self,
        who: &Principal,
        durable: &Durable,
        types: &BTreeSet<Option<&'a MessageType>>,
    ) -> Option<Option<&'a MessageType>> {
        let source = durable.from.destination(&durable.endpoint);
        let space = durable.from.space();
        let denies = || self.rules_about(who).any(|rule| rule.effect == Effect::Deny && rule.right.space() == space);
        let may_receive = |message_type: Option<&MessageType>| {
            self.authorize_subscription(who, message_type, &source).is_ok() && (message_type.is_some() || !denies())
        };
        types.iter().copied().find(|message_type| !may_receive(*message_type))
    }

    /// Checks every consumer. While the policy is not bound to a trust domain, there must be one for which they hold.
    pub(crate) fn check_durables(&self) -> Result<(), DeliveryError> {
        let areas = Areas::of(&self.deliveries);
        let mut seen = BTreeSet::new();
        let mut delivered = Vec::new();
        for (number, durable) in (1..).zip(&self.durables) {
            durable.check_bounds(number)?;
            if !seen.insert((&durable.endpoint, &durable.name)) {
                return Err(DeliveryError::Repeated { durable: number, endpoint: durable.endpoint.clone() });
            }
            let types = areas.delivered(durable);
            // Of every type, whatever is durable; otherwise each that is named.
            let missing = durable.types.iter().flatten().find(|named| !types.contains(&Some(named)));
            if missing.is_some() || types.is_empty() {
                let message_type = missing.cloned();
                return Err(DeliveryError::NotKept { durable: number, message_type, from: durable.from });
            }
            delivered.push((number, durable, types));
        }
        if delivered.is_empty() { Ok(()) } else { self.check_allowed(&delivered) }
    }

    fn check_allowed(
        &self,
        delivered: &[(usize, &Durable, BTreeSet<Option<&MessageType>>)],
    ) -> Result<(), DeliveryError> {
        let mut bound = self.clone();
        let mut outcome = Ok(());
        for domain in self.possible_domains() {
            bound.local = Some(domain.clone());
            let refused = delivered.iter().find_map(|(number, durable, types)| {
                let who = Principal { trust_domain: domain.clone(), endpoint: durable.endpoint.clone() };
                Some((number, durable, bound.refused(&who, durable, types)?))
            });
            let Some((number, durable, message_type)) = refused else {
                return Ok(());
            };
            outcome = Err(DeliveryError::NotAllowed {
                durable: *number,
                endpoint: durable.endpoint.clone(),
                message_type: message_type.cloned(),
                from: durable.from,
            });
        }
        outcome
    }

    /// The policy's own trust domain; unless it has one yet, each that a rule names, and last one that none need name.
    fn possible_domains(&self) -> Vec<TrustDomain> {
        if let Some(local) = self.local() {
            return Vec::from([local.clone()]);
        }
        let named: BTreeSet<_> = self.named_domains().collect();
        named.into_iter().cloned().chain(TrustDomain::new("_").ok()).collect()
    }
}
