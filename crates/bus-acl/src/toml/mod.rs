//! Policies from TOML files.
//!
//! The file is read value by value, each with its place in the text, so that every error can say where it is.

mod delivery;
mod error;
mod form;
mod read;

use alloc::vec::Vec;

use bus_proto::{ComponentId, Endpoint, MessageType, Role, TrustDomain};

pub use error::{PolicyError, Position};
use read::{Document, Table, Text};

use crate::decision::Action;
use crate::form::Destinations;
use crate::policy::Policy;
use crate::rule::{Effect, Inboxes, Right, Rule, Types, Who};

/// The longest policy text, in bytes (1 MiB).
pub const MAX_POLICY_LEN: usize = 1 << 20;

/// The most rules that a policy text may hold.
pub const MAX_RULES: usize = 10_000;

/// The most rules about forms that a policy text may hold.
pub const MAX_FORMS: usize = 1_000;

/// The most rules about delivery that a policy text may hold.
pub const MAX_DELIVERIES: usize = 1_000;

/// The most consumers that a policy text may hold.
pub const MAX_DURABLES: usize = 1_000;

const RULE_KEYS: &[&str] = &["effect", "role", "component", "trust_domain", "action", "types", "to", "from"];

impl Policy {
    /// Reads a policy from TOML text of at most [`MAX_POLICY_LEN`] bytes, [`MAX_RULES`] rules, [`MAX_FORMS`] forms,
    /// [`MAX_DELIVERIES`] deliveries and [`MAX_DURABLES`] durables.
    ///
    /// `version` is 1. Each `[[rule]]` has these keys and no others:
    ///
    /// | key | value |
    /// |---|---|
    /// | `effect` | `"allow"`, which is what it is unless given, or `"deny"` |
    /// | `role` | a role, or `"*"` for every role |
    /// | `component` | a component; every one unless given |
    /// | `trust_domain` | a trust domain; the local one unless given, see [`Policy::for_domain`] |
    /// | `action` | `"publish"` or `"subscribe"` |
    /// | `types` | a list of message types, or `"*"` for every type, registered ones included |
    /// | `to` | for `publish`: `"events"`, or `"inbox:*/*"`, `"inbox:<role>/*"`, `"inbox:<role>/<component>"` |
    /// | `from` | for `subscribe`: `"events"`, or `"inbox"`, which is the component's own |
    ///
    /// Each `[[form]]` says how messages travel ([`Policy::form`]), and has these keys and no others; of `seal` and
    /// `compress` it has at least one:
    ///
    /// | key | value |
    /// |---|---|
    /// | `types` | as in a rule |
    /// | `to` | as in a rule for `publish` |
    /// | `seal` | `"off"`, `"on"`, or `"required"`, with which receivers refuse what is not sealed |
    /// | `recipients` | with `seal` on or required: a list of `"<role>/<component>"`, at most [`MAX_RECIPIENTS`](crate::MAX_RECIPIENTS) from all forms for one type and destination, the owner of the inbox included. Without any, the configuration of whoever sends these events must name some; directed messages are always sealed for their destination |
    /// | `compress` | `true` or `false` |
    ///
    /// Each `[[delivery]]` says how messages are delivered ([`Policy::delivery`]), and has these keys and no others:
    ///
    /// | key | value |
    /// |---|---|
    /// | `types` | as in a rule |
    /// | `to` | as in a rule for `publish` |
    /// | `class` | `"live"`, or `"durable"`, with which a stream keeps them until they expire |
    /// | `max_lifetime` | with `durable`, and needed there: after how long a message expires at the latest, a whole number and one of `ms`, `s`, `m`, `h` and `d`, such as `"12h"`; `"1s"` to `"7d"` |
    ///
    /// Each `[[durable]]` is a consumer of durable messages ([`Durable`](crate::Durable)), and has these keys and no others:
    ///
    /// | key | value |
    /// |---|---|
    /// | `name` | what the component calls it, in the grammar of components |
    /// | `role`, `component` | whose it is: one component, whose processes share it |
    /// | `types` | as in a rule, each of them durable; `"*"` is every type that is durable |
    /// | `from` | as in a rule for `subscribe`; rules must let the component receive all of it |
    /// | `max_deliver` | how often a message is delivered, 1 to 1,000, before it is a dead letter; 10 unless given |
    /// | `ack_wait` | how long a message may be worked on before it is delivered again, as `max_lifetime`; `"1s"` to `"1h"`, `"30s"` unless given |
    /// | `max_ack_pending` | how many may be delivered and not acknowledged, 1 to 100,000; 1,024 unless given |
    ///
    /// ```
    /// let policy = bus_acl::Policy::from_toml(
    ///     r#"
    ///     version = 1
    ///
    ///     [[rule]]
    ///     role = "agent"
    ///     action = "publish"
    ///     types = ["Telemetry", "x-disk-usage"]
    ///     to = "events"
    ///
    ///     [[form]]
    ///     types = ["x-disk-usage"]
    ///     to = "events"
    ///     seal = "required"
    ///     recipients = ["core/core-01"]
    ///
    ///     [[rule]]
    ///     role = "core"
    ///     action = "subscribe"
    ///     types = "*"
    ///     from = "events"
    ///
    ///     [[delivery]]
    ///     types = ["x-disk-usage"]
    ///     to = "events"
    ///     class = "durable"
    ///     max_lifetime = "12h"
    ///
    ///     [[durable]]
    ///     name = "disks"
    ///     role = "core"
    ///     component = "core-01"
    ///     types = ["x-disk-usage"]
    ///     from = "events"
    ///     "#,
    /// )?;
    ///
    /// let error = bus_acl::Policy::from_toml("version = 1\n[[rule]]\nrole = \"Agent\"\n").unwrap_err();
    /// assert!(error.to_string().starts_with("line 3, column 8: `role`: role `Agent` is malformed"));
    /// # Ok::<(), bus_acl::PolicyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its line and column: TOML syntax, an unknown, missing or duplicate key, a
    /// value outside its grammar, a rule that could never match, a form that says nothing, deliveries or durables that do not
    /// fit together, or a text beyond the bounds.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_LEN {
            return Err(PolicyError::TooLong { len: text.len(), max: MAX_POLICY_LEN });
        }
        let document = Document::parse(text)?;
        let top = document.table();
        top.allow_only(&["version", "rule", "form", "delivery", "durable"])?;
        top.version("version", "1")?;
        let tables = top.tables("rule")?;
        if tables.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules { count: tables.len(), max: MAX_RULES });
        }
        let rules: Vec<Rule> = tables.iter().map(rule).collect::<Result<_, _>>()?;
        let tables = top.tables("form")?;
        if tables.len() > MAX_FORMS {
            return Err(PolicyError::TooManyForms { count: tables.len(), max: MAX_FORMS });
        }
        let policy = Self::new(rules).with_forms(form::forms(&tables)?);
        let (deliveries, durables) = (top.tables("delivery")?, top.tables("durable")?);
        if deliveries.len() > MAX_DELIVERIES {
            return Err(PolicyError::TooManyDeliveries { count: deliveries.len(), max: MAX_DELIVERIES });
        }
        if durables.len() > MAX_DURABLES {
            return Err(PolicyError::TooManyDurables { count: durables.len(), max: MAX_DURABLES });
        }
        delivery::delivered(policy, &deliveries, &durables)
    }
}

fn rule(table: &Table<'_>) -> Result<Rule, PolicyError> {
    table.allow_only(RULE_KEYS)?;
    let effect = match table.text("effect")? {
        None => Effect::Allow,
        Some(text) => match text.value {
            "allow" => Effect::Allow,
            "deny" => Effect::Deny,
            _ => return Err(text.wrong("it must be \"allow\" or \"deny\"")),
        },
    };
    let who = who(table)?;
    let action = table.required_text("action")?;
    let action = match action.value {
        "publish" => Action::Publish,
        "subscribe" => Action::Subscribe,
        _ => return Err(action.wrong("it must be \"publish\" or \"subscribe\"")),
    };
    let types = types(table)?;
    let right = match action {
        Action::Publish => publish(table)?,
        Action::Subscribe => subscribe(table)?,
    };
    Ok(Rule::new(effect, who, right, types))
}

fn who(table: &Table<'_>) -> Result<Who, PolicyError> {
    let role = table.required_text("role")?;
    let mut who = match role.value {
        "*" => Who::every_role(),
        _ => Who::role(&role.parse(Role::new)?),
    };
    if let Some(component) = table.text("component")? {
        who = who.component(component.parse(ComponentId::new)?);
    }
    if let Some(trust_domain) = table.text("trust_domain")? {
        who = who.trust_domain(trust_domain.parse(TrustDomain::new)?);
    }
    Ok(who)
}

fn types(table: &Table<'_>) -> Result<Types, PolicyError> {
    const RULE: &str = "it must be a list of message types that is not empty, or \"*\"";
    if let Some(texts) = table.texts("types", RULE)? {
        let types = texts.iter().map(|text| text.parse(str::parse::<MessageType>));
        return Ok(Types::only(types.collect::<Result<Vec<_>, _>>()?));
    }
    match table.required_text("types")? {
        text if text.value == "*" => Ok(Types::EVERY),
        text => Err(text.wrong(RULE)),
    }
}

fn publish(table: &Table<'_>) -> Result<Right, PolicyError> {
    table.forbid("from", "a rule about `publish` says `to`")?;
    Ok(match destinations(table)? {
        Destinations::Events => Right::PublishEvents,
        Destinations::Inboxes(inboxes) => Right::PublishInbox(inboxes),
    })
}

fn destinations(table: &Table<'_>) -> Result<Destinations, PolicyError> {
    let to = table.required_text("to")?;
    let Some(inbox) = to.value.strip_prefix("inbox:") else {
        return match to.value {
            "events" => Ok(Destinations::Events),
            _ => {
                Err(to
                    .wrong("it must be \"events\", \"inbox:*/*\", \"inbox:<role>/*\" or \"inbox:<role>/<component>\""))
            }
        };
    };
    let inboxes = match inbox.strip_suffix("/*") {
        Some("*") => Inboxes::Any,
        Some(role) => Inboxes::OfRole(to.parse(|_| Role::new(role))?),
        None => Inboxes::Of(to.parse(|_| inbox.parse::<Endpoint>())?),
    };
    Ok(Destinations::Inboxes(inboxes))
}

fn subscribe(table: &Table<'_>) -> Result<Right, PolicyError> {
    table.forbid("to", "a rule about `subscribe` says `from`")?;
    let from: Text<'_> = table.required_text("from")?;
    match from.value {
        "events" => Ok(Right::SubscribeEvents),
        "inbox" => Ok(Right::SubscribeOwnInbox),
        _ => Err(from.wrong("it must be \"events\" or \"inbox\"; a component reads no inbox but its own")),
    }
}

#[cfg(test)]
mod tests;
