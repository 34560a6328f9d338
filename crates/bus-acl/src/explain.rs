//! Why a policy decides as it does, for people.

use alloc::vec::Vec;
use core::fmt;

use bus_proto::{Destination, MessageType, Principal};

use crate::decision::{Action, Request, Why};
use crate::policy::Policy;
use crate::rule::Rule;

/// Which rules match a request, and what comes of it.
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
///      rule 1 decides: allow role agent to publish Telemetry, Alert, Heartbeat to events",
/// );
/// # Ok::<(), bus_proto::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    request: Request<'a>,
    decision: Result<(), Why>,
    matched: Vec<MatchedRule<'a>>,
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
        Ok(())
    }
}

impl Policy {
    /// Decides as [`Policy::authorize`] does and says which rules led there.
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
        Explanation { request, decision: decision.map(|_| ()), matched }
    }
}
