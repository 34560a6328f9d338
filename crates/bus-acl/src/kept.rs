//! What streams keep: the rules about delivery as subjects of which no two have a message in common.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use bus_proto::{MessageType, SubjectRoot};

use crate::delivery::{DeliveryError, DeliveryRule};
use crate::durable::{Durable, Source};
use crate::form::Destinations;
use crate::policy::Policy;
use crate::rule::Inboxes;

/// What one stream keeps by a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// The subjects, sorted. No two of them have a message in common, and together they are the durable messages of the
    /// stream's space and nothing else.
    pub subjects: Vec<String>,
    /// After how many milliseconds all that is kept has expired: the longest lifetime of any message.
    pub max_lifetime_ms: u64,
}

/// One type, or with `None` every type, at these destinations.
type Area<'a> = (Option<&'a MessageType>, Destinations);

/// What durable rules are about, and of each area the shortest lifetime and the rule that has it, counted from 1.
pub(crate) struct Areas<'a>(BTreeMap<Area<'a>, (u64, usize)>);

impl<'a> Areas<'a> {
    /// The areas of these rules without those that are part of another.
    pub(crate) fn of(rules: &'a [DeliveryRule]) -> Self {
        let mut areas = BTreeMap::new();
        for (number, rule) in (1..).zip(rules) {
            let Some(lifetime) = rule.max_lifetime_ms else { continue };
            for message_type in rule.types.iter() {
                let shortest = areas.entry((message_type, rule.to.clone())).or_insert((lifetime, number));
                *shortest = (*shortest).min((lifetime, number));
            }
        }
        let parts: Vec<_> =
            areas.keys().filter(|area| wider(area).any(|wider| areas.contains_key(&wider))).cloned().collect();
        for part in parts {
            areas.remove(&part);
        }
        Self(areas)
    }

    /// Refuses areas that have messages in common although none is part of the other. NATS takes no such subjects.
    pub(crate) fn check(&self) -> Result<(), DeliveryError> {
        let single = self.0.iter().filter(|((message_type, _), _)| message_type.is_some());
        let single: BTreeMap<_, _> = single.map(|((_, to), (_, number))| (to, *number)).collect();
        for ((message_type, to), (_, every)) in &self.0 {
            let crossing = || wider_destinations(to).iter().find_map(|wider| single.get(wider));
            if let (None, Some(single)) = (message_type, crossing()) {
                return Err(DeliveryError::Overlap { every: *every, single: *single });
            }
        }
        Ok(())
    }

    fn from(&self, from: Source) -> impl Iterator<Item = (&Area<'a>, u64)> {
        let is_there = move |to: &Destinations| matches!(to, Destinations::Events) == (from == Source::Events);
        self.0.iter().filter(move |((_, to), _)| is_there(to)).map(|(area, (lifetime, _))| (area, *lifetime))
    }

    /// The types that a consumer gets, each once; `None` is every type.
    pub(crate) fn delivered(&self, durable: &'a Durable) -> BTreeSet<Option<&'a MessageType>> {
        let destination = durable.from.destination(&durable.endpoint);
        let mut types = BTreeSet::new();
        for (message_type, to) in self.0.keys() {
            match message_type {
                _ if !to.include(&destination) => {}
                None => types.extend(durable.types.iter()),
                single => types.extend(durable.types.contains(*single).then_some(*single)),
            }
        }
        types
    }
}

/// The areas that this one is part of, itself excluded.
fn wider<'a>((message_type, to): &Area<'a>) -> impl Iterator<Item = Area<'a>> {
    let mut destinations = wider_destinations(to);
    destinations.push(to.clone());
    let (own, is_single) = (*message_type, message_type.is_some());
    let area = (own, to.clone());
    let every = destinations.clone().into_iter().filter(move |_| is_single).map(|to| (None, to));
    destinations.into_iter().map(move |to| (own, to)).chain(every).filter(move |wider| *wider != area)
}

/// The destinations that these are part of, themselves excluded.
fn wider_destinations(to: &Destinations) -> Vec<Destinations> {
    let wider = match to {
        Destinations::Events | Destinations::Inboxes(Inboxes::Any) => Vec::new(),
        Destinations::Inboxes(Inboxes::OfRole(_)) => Vec::from([Inboxes::Any]),
        Destinations::Inboxes(Inboxes::Of(owner)) => Vec::from([Inboxes::OfRole(owner.role.clone()), Inboxes::Any]),
    };
    wider.into_iter().map(Destinations::Inboxes).collect()
}

fn subject(root: &SubjectRoot, (message_type, to): &Area<'_>) -> String {
    match to {
        Destinations::Events => root.kept_events(*message_type),
        Destinations::Inboxes(Inboxes::Any) => root.kept_inbox(None, None, *message_type),
        Destinations::Inboxes(Inboxes::OfRole(role)) => root.kept_inbox(Some(role), None, *message_type),
        Destinations::Inboxes(Inboxes::Of(owner)) => {
            root.kept_inbox(Some(&owner.role), Some(&owner.component), *message_type)
        }
    }
}

impl Policy {
    /// What the stream of durable events, or that of durable directed messages, has to keep; `None` when there are none.
    ///
    /// ```
    /// use bus_acl::{DeliveryRule, Destinations, Policy, Source, Types};
    /// use bus_proto::{MessageType, SubjectRoot};
    ///
    /// let alerts = DeliveryRule::durable(Types::only([MessageType::Alert]), Destinations::Events, 90_000);
    /// let policy = Policy::default().with_deliveries([alerts])?;
    /// let kept = policy.kept(&SubjectRoot::default(), Source::Events).unwrap();
    /// assert_eq!((kept.subjects, kept.max_lifetime_ms), (vec!["ransomeye.events.alert.*.*".to_owned()], 90_000));
    /// # Ok::<(), bus_acl::DeliveryError>(())
    /// ```
    #[must_use]
    pub fn kept(&self, root: &SubjectRoot, from: Source) -> Option<Kept> {
        let areas = Areas::of(&self.deliveries);
        let max_lifetime_ms = areas.from(from).map(|(_, lifetime)| lifetime).max()?;
        let subjects: BTreeSet<_> = areas.from(from).map(|(area, _)| subject(root, area)).collect();
        Some(Kept { subjects: subjects.into_iter().collect(), max_lifetime_ms })
    }

    /// The subjects of the messages that a consumer of this policy gets, sorted. No two of them have a message in common.
    #[must_use]
    pub fn delivered(&self, root: &SubjectRoot, durable: &Durable) -> Vec<String> {
        let Durable { endpoint, from, .. } = durable;
        let subject = |message_type: Option<&MessageType>| match from {
            Source::Events => root.kept_events(message_type),
            Source::Inbox => root.kept_inbox(Some(&endpoint.role), Some(&endpoint.component), message_type),
        };
        let mut subjects: Vec<_> = Areas::of(&self.deliveries).delivered(durable).into_iter().map(subject).collect();
        subjects.sort_unstable();
        subjects
    }
}
