//! The rules together, and the decision.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use bus_proto::{Destination, MessageType, Principal, TrustDomain};

use crate::decision::{Action, Denied, Permit, Request, Why};
use crate::default_policy::DEFAULT_RULES;
use crate::delivery::DeliveryRule;
use crate::durable::Durable;
use crate::form::FormRule;
use crate::rule::{Effect, Rule, Space};

/// A rule and its place in the policy's text, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: u32,
    pub(crate) rule: Rule,
}

/// Who may do what, how messages travel, and how they are delivered.
///
/// A request is allowed if a rule allows it and none denies it; the order of the rules does not matter. A component reads
/// no inbox but its own, whatever the rules say. [`Policy::default`] is the bus's default policy, the one of
/// `policies/default.toml`. How messages travel, sealed or not, is told by [`Policy::form`], and whether they are kept until they
/// were handled by [`Policy::delivery`].
///
/// # Trust domains
///
/// A rule that names no trust domain is about the policy's own, the local one, which [`Policy::for_domain`] sets.
/// Principals of any other domain are *foreign*: only rules that name their domain are about them, they have no inbox
/// here, and the broker gives them nothing, as the subjects of this bus name no domain and a foreign `agent/a1` could not
/// be told from the local one. What they send arrives by federation and is judged by the receiver.
///
/// A policy that names no domain in any rule may stay unbound: then every principal counts as local. That is sound
/// wherever only the deployment's own certificates are admitted, as `bus-tls` does. A policy that does name one denies
/// everything until it is bound.
///
/// # Cost
///
/// A decision takes no lock and allocates nothing. It looks at the rules for every role and at those for the principal's
/// role in the space asked about (events or inboxes, publish or subscribe), and is linear in their number alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    // Sorted by `Rule::key`, equal keys by number.
    rules: Cow<'static, [Numbered]>,
    // One for each of `Space::ALL`.
    spaces: [Bounds; 4],
    pub(crate) local: Option<TrustDomain>,
    names_domains: bool,
    // Each in the order in which they were given.
    pub(crate) forms: Vec<FormRule>,
    pub(crate) deliveries: Vec<DeliveryRule>,
    pub(crate) durables: Vec<Durable>,
}

/// Where one space's rules stand among all: those for every role from `start`, those for one role from `named`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    start: usize,
    named: usize,
    end: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self::of_sorted(Cow::Borrowed(&DEFAULT_RULES))
    }
}

impl FromIterator<Rule> for Policy {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self::new(rules)
    }
}

impl Policy {
    /// A policy of these rules alone; the default policy's are not among them. Without rules it denies everything.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let number = |(number, rule)| Numbered { number, rule };
        let mut rules: Vec<_> = (1..).zip(rules).map(number).collect();
        rules.sort_by(|a, b| a.rule.key().cmp(&b.rule.key()));
        Self::of_sorted(Cow::Owned(rules))
    }

    fn of_sorted(rules: Cow<'static, [Numbered]>) -> Self {
        let before = |limit: (Space, bool)| {
            let key = |rule: &Rule| (rule.right.space(), rule.who.role.is_some());
            rules.partition_point(|numbered| key(&numbered.rule) < limit)
        };
        let spaces = Space::ALL.map(|space| Bounds {
            start: before((space, false)),
            named: before((space, true)),
            end: rules.partition_point(|numbered| numbered.rule.right.space() <= space),
        });
        let names_domains = rules.iter().any(|numbered| numbered.rule.who.trust_domain.is_some());
        let (forms, deliveries, durables) = (Vec::new(), Vec::new(), Vec::new());
        Self { rules, spaces, local: None, names_domains, forms, deliveries, durables }
    }

    /// Binds the policy to the trust domain of the deployment, which rules without a trust domain are about.
    #[must_use]
    pub fn for_domain(mut self, local: TrustDomain) -> Self {
        self.local = Some(local);
        self
    }

    /// Decides whether `who` may publish or receive messages of this type there.
    ///
    /// # Errors
    ///
    /// [`Denied`], which says why.
    pub fn authorize<'a>(
        &self,
        who: &'a Principal,
        action: Action,
        message_type: &'a MessageType,
        destination: &'a Destination,
    ) -> Result<Permit<'a>, Denied> {
        self.decide(Request { principal: who, action, message_type: Some(message_type), destination })
    }

    /// Decides whether `who` may subscribe to messages of this type, or with `None` to all types at once, at `source`.
    ///
    /// `Some` is [`Policy::authorize`] for [`Action::Subscribe`]. `None` needs a rule for every type. If other rules deny
    /// single types, the subscription is allowed nevertheless: the broker leaves those messages out, and the receiver,
    /// which authorizes each message that arrives, refuses them.
    ///
    /// # Errors
    ///
    /// [`Denied`], which says why.
    pub fn authorize_subscription<'a>(
        &self,
        who: &'a Principal,
        message_type: Option<&'a MessageType>,
        source: &'a Destination,
    ) -> Result<Permit<'a>, Denied> {
        self.decide(Request { principal: who, action: Action::Subscribe, message_type, destination: source })
    }

    fn decide<'a>(&self, request: Request<'a>) -> Result<Permit<'a>, Denied> {
        match self.judge(request) {
            Ok(_) => Ok(Permit::new(request)),
            Err(why) => Err(Denied::new(request, why)),
        }
    }

    /// The number of the first rule that allows the request, or why it is denied.
    pub(crate) fn judge(&self, request: Request<'_>) -> Result<u32, Why> {
        self.check_without_rules(request)?;
        let (mut allowed_by, mut denied_by) = (None::<u32>, None::<u32>);
        for Numbered { number, rule } in self.matching(request) {
            let first = match rule.effect {
                Effect::Allow => &mut allowed_by,
                Effect::Deny => &mut denied_by,
            };
            *first = Some(first.map_or(*number, |first| first.min(*number)));
        }
        match (denied_by, allowed_by) {
            (Some(rule), _) => Err(Why::DeniedByRule { rule }),
            (None, Some(rule)) => Ok(rule),
            (None, None) if self.is_foreign(request.principal) => Err(Why::ForeignTrustDomain),
            (None, None) => Err(Why::NoRule),
        }
    }

    fn check_without_rules(&self, request: Request<'_>) -> Result<(), Why> {
        if self.is_unbound() {
            return Err(Why::UnboundPolicy);
        }
        if let (Action::Subscribe, Destination::Inbox(owner)) = (request.action, request.destination)
            && (*owner != request.principal.endpoint || self.is_foreign(request.principal))
        {
            return Err(Why::NotYourInbox);
        }
        Ok(())
    }

    /// The rules that match the request: first those for every role, then those for its own.
    pub(crate) fn matching<'a>(&'a self, request: Request<'a>) -> impl Iterator<Item = &'a Numbered> {
        let role = Some(request.principal.role().as_str());
        let Bounds { start, named, end } = self.spaces[Space::of(&request) as usize];
        let every_role = self.rules.get(start..named).unwrap_or_default();
        let named = self.rules.get(named..end).unwrap_or_default();
        let own_role = named.split_at(named.partition_point(|numbered| numbered.rule.who.role.as_deref() < role)).1;
        let own_role = own_role.iter().take_while(move |numbered| numbered.rule.who.role.as_deref() == role);
        every_role.iter().chain(own_role).filter(move |numbered| numbered.rule.matches(&request, self.local.as_ref()))
    }

    /// Every rule that is about `who`, in no particular order.
    pub(crate) fn rules_about<'a>(&'a self, who: &'a Principal) -> impl Iterator<Item = &'a Rule> {
        let about = |rule: &&Rule| rule.who.includes(who, self.local.as_ref());
        self.rules.iter().map(|numbered| &numbered.rule).filter(about)
    }

    /// The trust domains that rules name, each as often as it is named.
    pub(crate) fn named_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.rules.iter().filter_map(|numbered| numbered.rule.who.trust_domain.as_ref())
    }

    /// Whether the policy cannot tell local principals from foreign ones although it has to.
    pub(crate) fn is_unbound(&self) -> bool {
        self.names_domains && self.local.is_none()
    }

    /// The trust domain of the deployment, if the policy is bound to it.
    pub(crate) fn local(&self) -> Option<&TrustDomain> {
        self.local.as_ref()
    }

    pub(crate) fn is_foreign(&self, who: &Principal) -> bool {
        self.local.as_ref().is_some_and(|local| *local != who.trust_domain)
    }
}
