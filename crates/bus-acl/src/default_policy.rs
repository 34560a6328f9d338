//! The policy that holds unless another is configured, and requirement A10 as a view of it.

use bus_proto::MessageType;

use crate::decision::Action;
use crate::policy::Numbered;
use crate::rule::{Effect, Inboxes, Right, Rule, Types, Who};

const REPORTS: &[MessageType] = &[MessageType::Telemetry, MessageType::Alert, MessageType::Heartbeat];
const COMMANDS: &[MessageType] = &[MessageType::Command];
const ANSWERS: &[MessageType] = &[MessageType::CommandResult, MessageType::Error];

/// The same rules as `policies/default.toml`, which a test proves. Sorted by [`Rule::key`].
pub(crate) static DEFAULT_RULES: [Numbered; 5] = [
    allow(1, Who::constant_role("agent"), Right::PublishEvents, Types::constant(REPORTS)),
    allow(2, Who::every_role(), Right::PublishInbox(Inboxes::Any), Types::constant(ANSWERS)),
    allow(3, Who::constant_role("core"), Right::PublishInbox(Inboxes::Any), Types::constant(COMMANDS)),
    allow(4, Who::constant_role("core"), Right::SubscribeEvents, Types::EVERY),
    allow(5, Who::every_role(), Right::SubscribeOwnInbox, Types::EVERY),
];

const fn allow(number: u32, who: Who, right: Right, types: Types) -> Numbered {
    Numbered { number, rule: Rule::allow(who, right, types) }
}

/// Whether the default policy gives `role`, by its name, the right to publish messages of this type (requirement A10).
///
/// `agent` may publish Telemetry, Alert and Heartbeat, `core` may publish CommandRequest, under every name that
/// [`MessageType`] parses; anything else is `false`, text that is no role or no type included. What every role may do,
/// which is to answer, is no right of a role and does not count.
///
/// It knows neither destination nor principal. What decides on a message is [`Policy::authorize`](crate::Policy::authorize).
///
/// ```
/// use bus_acl::can_publish;
///
/// assert!(can_publish("agent", "Telemetry"));
/// assert!(!can_publish("agent", "CommandRequest"));
/// assert!(can_publish("core", "CommandRequest"));
/// ```
#[must_use]
pub fn can_publish(role: &str, message_type: &str) -> bool {
    let Ok(message_type) = message_type.parse() else {
        return false;
    };
    DEFAULT_RULES.iter().any(|Numbered { rule, .. }| {
        rule.effect == Effect::Allow
            && rule.right.action() == Action::Publish
            && rule.who.role.as_deref() == Some(role)
            && rule.types.contains(Some(&message_type))
    })
}
