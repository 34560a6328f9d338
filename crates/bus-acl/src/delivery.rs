//! What a sender and a receiver can count on: live messages are lost when nobody listens, durable ones are kept.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use bus_proto::{Destination, Endpoint, MessageType};

use crate::durable::{Durable, Source};
use crate::form::Destinations;
use crate::kept::Areas;
use crate::policy::Policy;
use crate::rule::Types;

/// The shortest [`Delivery::max_lifetime_ms`] of durable messages, in milliseconds: one second.
pub const MIN_LIFETIME_MS: u64 = 1_000;

/// The longest [`Delivery::max_lifetime_ms`] of durable messages, in milliseconds: seven days, for which the keys that they
/// were signed with can be verified after they signed for the last time.
pub const MAX_LIFETIME_MS: u64 = 7 * 24 * 3_600_000;

/// How messages are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// To whoever listens now. Nobody keeps them, and who comes late does not get them.
    Live,
    /// A stream keeps them until they expire, and each [`Durable`] gets them until it has acknowledged them.
    Durable,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Durable => "durable",
        })
    }
}

/// How messages of one type are delivered at one destination: what the policy's rules about it say together.
///
/// Printed, it reads like `durable, for at most 12h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Whether a stream keeps them.
    pub class: Class,
    /// How long after it was sent a message expires at the latest, in milliseconds. Of durable messages it is
    /// [`MIN_LIFETIME_MS`] to [`MAX_LIFETIME_MS`], and every one of them expires; the policy does not bound live ones, for
    /// which it is `u64::MAX`.
    pub max_lifetime_ms: u64,
}

impl Delivery {
    /// Live, which is what no rule makes durable.
    pub const LIVE: Self = Self { class: Class::Live, max_lifetime_ms: u64::MAX };

    /// Whether a stream keeps them.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.class == Class::Durable
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Class::Live => f.write_str("live"),
            Class::Durable => write!(f, "durable, for at most {}", Millis(self.max_lifetime_ms)),
        }
    }
}

/// A span of milliseconds in the largest unit that measures it exactly.
pub(crate) struct Millis(pub(crate) u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("d", 24 * 3_600_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let exact = units.into_iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (unit, length) = exact.unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / length)
    }
}

/// One rule about the delivery of messages. What no rule says is live.
///
/// ```
/// use bus_acl::{DeliveryRule, Destinations, Types};
/// use bus_proto::MessageType;
///
/// let rule = DeliveryRule::durable(Types::only([MessageType::Alert]), Destinations::Events, 12 * 3_600_000);
/// assert_eq!(rule.to_string(), "Alert to events: durable, for at most 12h");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryRule {
    pub(crate) types: Types,
    pub(crate) to: Destinations,
    // `None`: live.
    pub(crate) max_lifetime_ms: Option<u64>,
}

impl DeliveryRule {
    /// A rule that these types are live there, which takes effect only where no other rule says durable.
    #[must_use]
    pub const fn live(types: Types, to: Destinations) -> Self {
        Self { types, to, max_lifetime_ms: None }
    }

    /// A rule that these types are durable there, and expire after so many milliseconds at the latest:
    /// [`MIN_LIFETIME_MS`] to [`MAX_LIFETIME_MS`].
    #[must_use]
    pub const fn durable(types: Types, to: Destinations, max_lifetime_ms: u64) -> Self {
        Self { types, to, max_lifetime_ms: Some(max_lifetime_ms) }
    }

    /// What the rule says by itself.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        let durable = |max_lifetime_ms| Delivery { class: Class::Durable, max_lifetime_ms };
        self.max_lifetime_ms.map_or(Delivery::LIVE, durable)
    }

    fn matches(&self, message_type: &MessageType, destination: &Destination) -> bool {
        self.to.include(destination) && self.types.contains(Some(message_type))
    }
}

impl fmt::Display for DeliveryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}: {}", self.types, self.to, self.delivery())
    }
}

/// Why rules about delivery, or the consumers that are declared for what they keep, do not fit together.
///
/// Rules and consumers are told by their place, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// A lifetime outside its bounds.
    #[error("delivery {delivery}: durable messages live for 1s to 7d")]
    Lifetime {
        /// The rule.
        delivery: usize,
    },
    /// A rule for every type in some inboxes and one for single types in more inboxes: no stream can be told to keep both.
    #[error(
        "delivery {every} is about every type in some inboxes, and delivery {single} about single types in more inboxes: \
         name the types in both, or the same inboxes"
    )]
    Overlap {
        /// The rule for every type.
        every: usize,
        /// The rule for single types.
        single: usize,
    },
    /// A setting of a consumer outside its bounds.
    #[error("durable {durable}: {setting} must be {min} to {max}")]
    Bounds {
        /// The consumer.
        durable: usize,
        /// The setting.
        setting: &'static str,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// Two consumers of one component with one name.
    #[error("durable {durable}: {endpoint} has a durable of this name already")]
    Repeated {
        /// The second of them.
        durable: usize,
        /// The component.
        endpoint: Endpoint,
    },
    /// A consumer of messages that no stream keeps.
    #[error("durable {durable}: no delivery makes {} from {from} durable", named(message_type.as_ref()))]
    NotKept {
        /// The consumer.
        durable: usize,
        /// The type; `None`: no type at all is kept.
        message_type: Option<MessageType>,
        /// Where from.
        from: Source,
    },
    /// A consumer of messages that its component may not receive.
    #[error(
        "durable {durable}: no rule lets {endpoint} receive {} from {from}, or one denies some of it",
        named(message_type.as_ref())
    )]
    NotAllowed {
        /// The consumer.
        durable: usize,
        /// The component.
        endpoint: Endpoint,
        /// The type; `None`: every type.
        message_type: Option<MessageType>,
        /// Where from.
        from: Source,
    },
}

fn named(message_type: Option<&MessageType>) -> String {
    message_type.map_or_else(|| "any type".to_string(), ToString::to_string)
}

impl Policy {
    /// This policy and these rules about delivery besides. Their order, and which came first, do not matter.
    ///
    /// ```
    /// use bus_acl::{Class, DeliveryRule, Destinations, Policy, Types};
    /// use bus_proto::{Destination, MessageType};
    ///
    /// let alerts = Types::only([MessageType::Alert]);
    /// let policy = Policy::default().with_deliveries([DeliveryRule::durable(alerts, Destinations::Events, 90_000)])?;
    /// let delivery = policy.delivery(&MessageType::Alert, &Destination::Events);
    /// assert_eq!((delivery.class, delivery.max_lifetime_ms), (Class::Durable, 90_000));
    /// # Ok::<(), bus_acl::DeliveryError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When a lifetime is outside its bounds, when rules overlap in a way that no stream can be told, or when a consumer
    /// that is there already would get what its component may not receive.
    pub fn with_deliveries(mut self, rules: impl IntoIterator<Item = DeliveryRule>) -> Result<Self, DeliveryError> {
        self.deliveries.extend(rules);
        let bounds = MIN_LIFETIME_MS..=MAX_LIFETIME_MS;
        let mut lifetimes = (1..).zip(self.deliveries.iter().map(|rule| rule.max_lifetime_ms));
        if let Some((delivery, _)) = lifetimes.find(|(_, lifetime)| lifetime.is_some_and(|ms| !bounds.contains(&ms))) {
            return Err(DeliveryError::Lifetime { delivery });
        }
        Areas::of(&self.deliveries).check()?;
        self.check_durables()?;
        Ok(self)
    }

    /// This policy and these consumers besides. The rules about delivery that they are for must be there already.
    ///
    /// ```
    /// use bus_acl::{DeliveryRule, Destinations, Durable, Policy, Source, Types};
    /// use bus_proto::{ConsumerName, MessageType};
    ///
    /// let alerts = Types::only([MessageType::Alert]);
    /// let durable = Durable::new(ConsumerName::new("alerts")?, "core/core-01".parse()?, alerts.clone(), Source::Events);
    /// let policy = Policy::default()
    ///     .with_deliveries([DeliveryRule::durable(alerts, Destinations::Events, 90_000)])?
    ///     .with_durables([durable])?;
    /// assert_eq!(policy.durables().len(), 1);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When a setting is outside its bounds, when two consumers of one component share a name, or when a consumer is for
    /// messages that no stream keeps or that its component may not receive.
    pub fn with_durables(mut self, durables: impl IntoIterator<Item = Durable>) -> Result<Self, DeliveryError> {
        self.durables.extend(durables);
        self.check_durables()?;
        Ok(self)
    }

    /// The rules about delivery, in the order in which they were given.
    #[must_use]
    pub fn deliveries(&self) -> &[DeliveryRule] {
        &self.deliveries
    }

    /// The consumers of what streams keep, in the order in which they were given.
    #[must_use]
    pub fn durables(&self) -> &[Durable] {
        &self.durables
    }

    /// How messages of this type are delivered there. Everyone decides alike, as it does not depend on who asks.
    ///
    /// Of the rules that match, durable beats live, and the shortest lifetime counts. What no rule says is live.
    ///
    /// It takes no lock, allocates nothing, and is linear in the number of rules about delivery.
    #[must_use]
    pub fn delivery(&self, message_type: &MessageType, destination: &Destination) -> Delivery {
        let matching = self.deliveries.iter().filter(|rule| rule.matches(message_type, destination));
        let shortest = matching.map(DeliveryRule::delivery).min_by_key(|delivery| delivery.max_lifetime_ms);
        shortest.unwrap_or(Delivery::LIVE)
    }

    /// The rules about delivery that match, each with its place, counted from 1.
    pub(crate) fn deliveries_of(
        &self,
        message_type: &MessageType,
        destination: &Destination,
    ) -> Vec<(usize, &DeliveryRule)> {
        (1..).zip(&self.deliveries).filter(|(_, rule)| rule.matches(message_type, destination)).collect()
    }
}
