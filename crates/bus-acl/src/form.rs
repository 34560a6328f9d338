//! How messages travel: sealed or not, for whom, and compressed or not.

use alloc::vec::Vec;
use core::fmt;

use bus_proto::{Destination, Endpoint, MessageType};

use crate::policy::Policy;
use crate::rule::{Inboxes, Types};

/// The most that one message can be sealed for, the owner of the inbox that it goes to included.
///
/// With feature `toml`, a text that names more for one type and destination is no policy. Rules that are made in code are not
/// checked, and the sender fails to seal for more.
pub const MAX_RECIPIENTS: usize = 256;

/// Whether messages are sealed, so that nobody but their recipients can read them.
///
/// The strictest is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sealing {
    /// The sender does not seal. Whoever hosts the broker can read these messages.
    Off,
    /// The sender seals. A receiver takes what is not sealed as well.
    On,
    /// The sender seals, and a receiver refuses what is not sealed.
    Required,
}

impl fmt::Display for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Required => "required",
        })
    }
}

/// Which destinations a rule means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destinations {
    /// Events.
    Events,
    /// These inboxes.
    Inboxes(Inboxes),
}

impl Destinations {
    /// Whether this is among them.
    #[must_use]
    pub fn include(&self, destination: &Destination) -> bool {
        match (self, destination) {
            (Self::Events, Destination::Events) => true,
            (Self::Inboxes(inboxes), Destination::Inbox(owner)) => inboxes.include(owner),
            _ => false,
        }
    }
}

impl fmt::Display for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => f.write_str("events"),
            Self::Inboxes(inboxes) => write!(f, "the inbox of {inboxes}"),
        }
    }
}

/// One rule about the form of messages. What no rule says is as [`Policy::form`] has it.
///
/// ```
/// use bus_acl::{Destinations, FormRule, Sealing, Types};
/// use bus_proto::MessageType;
///
/// let rule = FormRule::seal(Types::only([MessageType::Alert]), Destinations::Events, Sealing::Required)
///     .with_recipients(["core/core-01".parse()?])
///     .with_compression(true);
/// assert_eq!(rule.to_string(), "Alert to events: must be sealed for core/core-01; compressed");
/// # Ok::<(), bus_proto::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FormRule {
    pub(crate) types: Types,
    pub(crate) to: Destinations,
    pub(crate) sealing: Option<Sealing>,
    // Sorted, without duplicates.
    pub(crate) recipients: Vec<Endpoint>,
    pub(crate) compress: Option<bool>,
}

impl FormRule {
    /// A rule about the sealing of these types there.
    ///
    /// Events are sealed for the recipients that the rules name, and if there are none, for those that the sender's
    /// configuration names: without any, nothing can be sent. Directed messages are sealed for their destination, and for
    /// the recipients that the rules name besides.
    #[must_use]
    pub const fn seal(types: Types, to: Destinations, sealing: Sealing) -> Self {
        Self { types, to, sealing: Some(sealing), recipients: Vec::new(), compress: None }
    }

    /// A rule about the compression of these types there. It says nothing about sealing.
    #[must_use]
    pub const fn compress(types: Types, to: Destinations, compress: bool) -> Self {
        Self { types, to, sealing: None, recipients: Vec::new(), compress: Some(compress) }
    }

    /// Names who can open what this rule seals, in place of whom it named before. A rule that does not seal has no use for
    /// them.
    #[must_use]
    pub fn with_recipients(mut self, recipients: impl IntoIterator<Item = Endpoint>) -> Self {
        self.recipients = recipients.into_iter().collect();
        self.recipients.sort_unstable();
        self.recipients.dedup();
        self
    }

    /// Says of the same messages whether they are compressed.
    #[must_use]
    pub fn with_compression(mut self, compress: bool) -> Self {
        self.compress = Some(compress);
        self
    }

    /// What the rule says about sealing, if anything.
    #[must_use]
    pub fn sealing(&self) -> Option<Sealing> {
        self.sealing
    }

    /// Whom the rule names as recipients of what it seals, sorted; nobody if it does not seal.
    #[must_use]
    pub fn recipients(&self) -> &[Endpoint] {
        match self.sealing {
            Some(Sealing::On | Sealing::Required) => &self.recipients,
            Some(Sealing::Off) | None => &[],
        }
    }

    fn matches(&self, message_type: &MessageType, destination: &Destination) -> bool {
        self.to.include(destination) && self.types.contains(Some(message_type))
    }
}

impl fmt::Display for FormRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { types, to, sealing, compress, .. } = self;
        write!(f, "{types} to {to}: ")?;
        if let Some(sealing) = sealing {
            f.write_str(sealed(*sealing))?;
            list(f, self.recipients())?;
        }
        if let Some(compress) = compress {
            let separator = if sealing.is_some() { "; " } else { "" };
            write!(f, "{separator}{}", compressed(*compress))?;
        }
        Ok(())
    }
}

/// How messages of one type travel to one destination: what the policy's rules about it say together.
///
/// Printed, it reads like `sealed for core/core-01; not compressed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form<'a> {
    rules: &'a [FormRule],
    message_type: &'a MessageType,
    destination: &'a Destination,
    sealing: Sealing,
    compress: Option<bool>,
}

impl<'a> Form<'a> {
    /// Whether they are sealed.
    #[must_use]
    pub fn sealing(&self) -> Sealing {
        self.sealing
    }

    /// For whom they are sealed, by the rules. The owner of the inbox that they go to is a recipient besides, whether or
    /// not it is among these. One that several rules name is there several times.
    pub fn recipients(&self) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        self.matching().flat_map(|(_, rule)| rule.recipients())
    }

    /// Whether they are compressed, if a rule says so or says not. `None`, which no rule says, is not.
    #[must_use]
    pub fn compress(&self) -> Option<bool> {
        self.compress
    }

    /// The rules that say so, each with its place among the policy's rules about forms, counted from 1.
    pub fn matching(&self) -> impl Iterator<Item = (usize, &'a FormRule)> + use<'a> {
        let Self { rules, message_type, destination, .. } = *self;
        let matches = move |(_, rule): &(usize, &FormRule)| rule.matches(message_type, destination);
        (1..).zip(rules).filter(matches)
    }

    /// Everyone for whom they are sealed as far as the policy knows, the owner of the inbox included; sorted, without
    /// duplicates.
    #[must_use]
    pub fn all_recipients(&self) -> Vec<&'a Endpoint> {
        let owner = match self.destination {
            Destination::Inbox(owner) if self.sealing > Sealing::Off => Some(owner),
            _ => None,
        };
        let mut recipients: Vec<_> = self.recipients().chain(owner).collect();
        recipients.sort_unstable();
        recipients.dedup();
        recipients
    }
}

impl fmt::Display for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(sealed(self.sealing))?;
        let recipients = self.all_recipients();
        if recipients.is_empty() && self.sealing > Sealing::Off {
            f.write_str(" for those whom the sender's configuration names")?;
        }
        list(f, recipients)?;
        write!(f, "; {}", compressed(self.compress == Some(true)))
    }
}

impl Policy {
    /// This policy and these rules about forms besides. Their order, and which came first, do not matter.
    ///
    /// ```
    /// use bus_acl::{Destinations, FormRule, Policy, Sealing, Types};
    /// use bus_proto::{Destination, MessageType};
    ///
    /// let alerts = Types::only([MessageType::Alert]);
    /// let rule = FormRule::seal(alerts, Destinations::Events, Sealing::On).with_recipients(["core/core-01".parse()?]);
    /// let policy = Policy::default().with_forms([rule]);
    /// let form = policy.form(&MessageType::Alert, &Destination::Events);
    /// assert_eq!(form.to_string(), "sealed for core/core-01; not compressed");
    /// # Ok::<(), bus_proto::IdentityError>(())
    /// ```
    #[must_use]
    pub fn with_forms(mut self, rules: impl IntoIterator<Item = FormRule>) -> Self {
        self.forms.extend(rules);
        self
    }

    /// The rules about forms, in the order in which they were given.
    #[must_use]
    pub fn forms(&self) -> &[FormRule] {
        &self.forms
    }

    /// How messages of this type travel there. Everyone decides alike, as it does not depend on who asks.
    ///
    /// Of the rules that match, the strictest says whether messages are sealed: required beats on, and on beats off. They
    /// are sealed for the recipients of all of them. They are compressed if a rule says so and none says not, as what is
    /// compressed and sealed tells by its size something of what is in it. What no rule says is as follows: directed
    /// messages are sealed ([`Sealing::On`]) for their destination, events are not, and nothing is compressed.
    ///
    /// It takes no lock, allocates nothing, and is linear in the number of rules about forms.
    #[must_use]
    pub fn form<'a>(&'a self, message_type: &'a MessageType, destination: &'a Destination) -> Form<'a> {
        let default = match destination {
            Destination::Events => Sealing::Off,
            Destination::Inbox(_) => Sealing::On,
        };
        let (mut sealing, mut compress) = (None, None::<bool>);
        for rule in self.forms.iter().filter(|rule| rule.matches(message_type, destination)) {
            sealing = sealing.max(rule.sealing);
            if let Some(stated) = rule.compress {
                compress = Some(stated && compress != Some(false));
            }
        }
        let sealing = sealing.unwrap_or(default);
        Form { rules: &self.forms, message_type, destination, sealing, compress }
    }
}

fn sealed(sealing: Sealing) -> &'static str {
    match sealing {
        Sealing::Off => "not sealed",
        Sealing::On => "sealed",
        Sealing::Required => "must be sealed",
    }
}

fn compressed(compress: bool) -> &'static str {
    if compress { "compressed" } else { "not compressed" }
}

/// Writes for whom, if for anyone.
fn list<'e>(f: &mut fmt::Formatter<'_>, recipients: impl IntoIterator<Item = &'e Endpoint>) -> fmt::Result {
    let mut link = " for";
    for recipient in recipients {
        write!(f, "{link} {recipient}")?;
        link = ",";
    }
    Ok(())
}
