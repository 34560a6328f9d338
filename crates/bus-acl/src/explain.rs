//! Why a policy decides as it does, for people.

use alloc::vec::Vec;
use core::fmt;

use bus_proto::{Destination, Endpoint, MessageType, Principal};

use crate::decision::{Action, Request, Why};
use crate::delivery::{Delivery, DeliveryRule};
use crate::form::Form;
use crate::policy::Policy;
use crate::rule::Rule;

/// Which rules match a request, what comes of it, and how what is allowed travels and is delivered.
///
/// Printed, it is a few lines of text:
///
/// ```
/// use bus_acl::{Action, Policy};
/// use bus_proto::{Destination, MessageType};
///
/// let agent = "spiffe://ransomeye.local/agent/a1".parse()?;
/// let policy = Policy::default();
/// let explanation = policy.explain(&agent, Action::Publish, &MessageType::Alert, &Destination::Events);
/// assert_eq!(
///     explanation.to_string(),
///     "ALLOWED: spiffe://ransomeye.local/agent/a1 to publish Alert to events\n\
///      rule 1 decides: allow role agent to publish Telemetry, Alert, Heartbeat to events\n\
///      form: not sealed; not compressed\n\
///      delivery: live",
/// );
/// # Ok::<(), bus_proto::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    request: Request<'a>,
    decision: Result<(), Why>,
    matched: Vec<MatchedRule<'a>>,
    form: Option<Form<'a>>,
    delivery: Option<Delivery>,
    deliveries: Vec<(usize, &'a DeliveryRule)>,
    warnings: Vec<Warning<'a>>,
}

/// What is allowed and yet is of no use, as nobody or not everybody can open what is sealed, or gets what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning<'a> {
    /// Who asks may receive these events, and they are sealed for others.
    #[error("{0} is none of the recipients that the policy names: it receives these events and cannot open them")]
    NoRecipient(&'a Principal),
    /// A form names this recipient, and no rule lets it receive these events.
    #[error("{0} is a recipient, and the policy does not let it receive these events")]
    NotReceived(&'a Endpoint),
    /// They are durable, and nobody gets them from the stream that keeps them.
    #[error("a stream keeps these messages until they expire, and no durable of the policy gets them")]
    NotConsumed,
}

/// A rule that matches a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRule<'a> {
    /// Its place in the policy, counted from 1.
    pub number: u32,
    /// The rule itself; its text reads as a sentence.
    pub rule: &'a Rule,
    /// Whether this is the rule that decided.
    pub decides: bool,
}

impl<'a> Explanation<'a> {
    /// What was asked.
    #[must_use]
    pub fn request(&self) -> Request<'a> {
        self.request
    }

    /// Whether it is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.decision.is_ok()
    }

    /// Why it is denied, if it is.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        self.decision.err()
    }

    /// The rules that match, in the policy's order. There are none where the rules were not asked.
    #[must_use]
    pub fn matched(&self) -> &[MatchedRule<'a>] {
        &self.matched
    }

    /// How these messages travel, if they may.
    #[must_use]
    pub fn form(&self) -> Option<Form<'a>> {
        self.form
    }

    /// How these messages are delivered, if they may be sent or received.
    #[must_use]
    pub fn delivery(&self) -> Option<Delivery> {
        self.delivery
    }

    /// The rules that say so, each with its place among the policy's rules about delivery, counted from 1.
    #[must_use]
    pub fn deliveries(&self) -> &[(usize, &'a DeliveryRule)] {
        &self.deliveries
    }

    /// What an operator will want to change although it is allowed.
    #[must_use]
    pub fn warnings(&self) -> &[Warning<'a>] {
        &self.warnings
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            Ok(()) => write!(f, "ALLOWED: {}", self.request)?,
            Err(why) => write!(f, "DENIED: {}: {why}", self.request)?,
        }
        for MatchedRule { number, rule, decides } in &self.matched {
            let part = if *decides { "decides" } else { "matches too" };
            write!(f, "\nrule {number} {part}: {rule}")?;
        }
        if let Some(form) = self.form {
            write!(f, "\nform: {form}")?;
            form.matching().try_for_each(|(number, rule)| write!(f, "\nform {number} matches: {rule}"))?;
        }
        if let Some(delivery) = self.delivery {
            write!(f, "\ndelivery: {delivery}")?;
            self.deliveries.iter().try_for_each(|(number, rule)| write!(f, "\ndelivery {number} matches: {rule}"))?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

impl Policy {
    /// Decides as [`Policy::authorize`] does and says which rules led there, and how the messages travel and are delivered.
    #[must_use]
    pub fn explain<'a>(
        &'a self,
        who: &'a Principal,
        action: Action,
        message_type: &'a MessageType,
        destination: &'a Destination,
    ) -> Explanation<'a> {
        let request = Request { principal: who, action, message_type: Some(message_type), destination };
        let decision = self.judge(request);
        let decisive = match decision {
            Ok(rule) | Err(Why::DeniedByRule { rule }) => Some(rule),
            Err(_) => None,
        };
        let mut matched = Vec::new();
        if !matches!(decision, Err(Why::NotYourInbox | Why::UnboundPolicy)) {
            matched.extend(self.matching(request).map(|numbered| MatchedRule {
                number: numbered.number,
                rule: &numbered.rule,
                decides: decisive == Some(numbered.number),
            }));
        }
        matched.sort_by_key(|rule| rule.number);
        let form = decision.is_ok().then(|| self.form(message_type, destination));
        let delivery = decision.is_ok().then(|| self.delivery(message_type, destination));
        let deliveries = delivery.map(|_| self.deliveries_of(message_type, destination)).unwrap_or_default();
        let mut warnings = form.map(|form| self.warnings(request, form)).unwrap_or_default();
        if delivery.is_some_and(|delivery| delivery.is_durable()) && !self.is_consumed(message_type, destination) {
            warnings.push(Warning::NotConsumed);
        }
        Explanation { request, decision: decision.map(|_| ()), matched, form, delivery, deliveries, warnings }
    }

    /// What of these events reaches whom it does not serve. An inbox is read by its owner alone, who is a recipient.
    fn warnings<'a>(&self, request: Request<'a>, form: Form<'a>) -> Vec<Warning<'a>> {
        let (Destination::Events, Some(message_type)) = (request.destination, request.message_type) else {
            return Vec::new();
        };
        let recipients = form.all_recipients();
        let mut warnings = Vec::new();
        if request.action == Action::Subscribe
            && !recipients.is_empty()
            && (self.is_foreign(request.principal) || !recipients.contains(&&request.principal.endpoint))
        {
            warnings.push(Warning::NoRecipient(request.principal));
        }
        let trust_domain = self.local().unwrap_or(&request.principal.trust_domain);
        let receives = |endpoint: &Endpoint| {
            let who = Principal { trust_domain: trust_domain.clone(), endpoint: endpoint.clone() };
            self.authorize(&who, Action::Subscribe, message_type, request.destination).is_ok()
        };
        let idle = recipients.into_iter().filter(|recipient| !receives(recipient));
        warnings.extend(idle.map(Warning::NotReceived));
        warnings
    }
}
