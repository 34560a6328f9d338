//! `bus acl`: the policy, asked and explained.

use bus_acl::{Action, Delivery, Explanation, Form};
use bus_proto::{Destination, Endpoint, MessageType, Principal, TrustDomain};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Layer, RulesFlags, Settings};

const EXAMPLES: &str = "\
Examples:
  bus acl check agent/agent-01 publish telemetry
  bus acl check agent/agent-01 publish command core/core-01       denied, exit code 3
  bus acl explain core/core-01 publish command agent/agent-01
  bus acl check core/core-01 subscribe result inbox
  bus acl render agent/agent-01";

/// The trust domain that a component is taken to be of when neither it nor the settings name one.
const ASSUMED_DOMAIN: &str = "ransomeye.local";

/// What can be asked.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum AclCommand {
    /// Say whether something is allowed: exit code 0, or 3 when it is denied; and warn of what cannot be opened
    Check {
        #[command(flatten)]
        question: Question,
        #[command(flatten)]
        rules: RulesFlags,
    },
    /// Say which rules decide, and how; and how the messages travel: sealed, for whom, compressed; live or durable
    Explain {
        #[command(flatten)]
        question: Question,
        #[command(flatten)]
        rules: RulesFlags,
    },
    /// Show what the broker lets a component publish and subscribe to
    Render {
        /// Whom it is about: ROLE/COMPONENT, or a SPIFFE ID
        who: String,
        #[command(flatten)]
        rules: RulesFlags,
    },
}

/// May this component do that?
#[derive(Debug, Args)]
pub(crate) struct Question {
    /// Whom it is about: ROLE/COMPONENT, or a SPIFFE ID
    who: String,
    /// What it wants to do
    action: Verb,
    /// The message type, e.g. telemetry or CommandRequest
    #[arg(value_name = "TYPE")]
    message_type: MessageType,
    /// Where the messages go: `events`, ROLE/COMPONENT for its inbox, or `inbox` for its own
    #[arg(value_name = "TO", default_value = "events")]
    place: String,
}

/// What a component wants to do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Verb {
    /// Send messages
    #[value(alias = "pub")]
    Publish,
    /// Receive messages
    #[value(alias = "sub")]
    Subscribe,
}

impl From<Verb> for Action {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Publish => Self::Publish,
            Verb::Subscribe => Self::Subscribe,
        }
    }
}

impl AclCommand {
    /// Answers it.
    pub(crate) fn run(
        self,
        load: impl FnOnce(Layer) -> anyhow::Result<Settings>,
        output: Output,
    ) -> anyhow::Result<Outcome> {
        match self {
            Self::Check { question, rules } => check(&question, &load(rules.into())?, output),
            Self::Explain { question, rules } => explain(&question, &load(rules.into())?, output),
            Self::Render { who, rules } => render(&who, &load(rules.into())?, output),
        }
    }
}

fn check(question: &Question, settings: &Settings, output: Output) -> anyhow::Result<Outcome> {
    let Question { who, action, message_type, place } = question;
    let (who, local) = principal(who, settings)?;
    let to = destination(place, &who)?;
    let policy = settings.policy()?.for_domain(local);
    for warning in policy.explain(&who, (*action).into(), message_type, &to).warnings() {
        tracing::warn!("{warning}");
    }
    match policy.authorize(&who, (*action).into(), message_type, &to) {
        Ok(permit) => {
            let subject = permit.subject(&settings.root());
            output.record(
                || format!("{}: {} ({subject})", output.verdict(true, "allowed"), permit.request()),
                || json!({ "allowed": true, "request": permit.request().to_string(), "subject": subject }),
            )?;
            Ok(Outcome::Done)
        }
        Err(denied) => {
            output.record(
                || format!("{}: {}: {}", output.verdict(false, "denied"), denied.request(), denied.why()),
                || {
                    json!({
                        "allowed": false,
                        "request": denied.request().to_string(),
                        "why": denied.why().to_string(),
                    })
                },
            )?;
            Ok(Outcome::Denied)
        }
    }
}

fn explain(question: &Question, settings: &Settings, output: Output) -> anyhow::Result<Outcome> {
    let Question { who, action, message_type, place } = question;
    let (who, local) = principal(who, settings)?;
    let to = destination(place, &who)?;
    let policy = settings.policy()?.for_domain(local);
    let explanation = policy.explain(&who, (*action).into(), message_type, &to);
    output.record(|| explanation.to_string(), || explained(&explanation))?;
    Ok(Outcome::Done)
}

fn explained(explanation: &Explanation<'_>) -> Value {
    let rules = explanation.matched().iter();
    let matched: Value =
        rules.map(|m| json!({ "number": m.number, "rule": m.rule.to_string(), "decides": m.decides })).collect();
    let warnings: Value = explanation.warnings().iter().map(ToString::to_string).collect();
    json!({
        "allowed": explanation.is_allowed(),
        "request": explanation.request().to_string(),
        "why": explanation.why().map(|why| why.to_string()),
        "matched": matched,
        "form": explanation.form().map(travels),
        "delivery": explanation.delivery().map(|delivery| delivered(delivery, explanation)),
        "warnings": warnings,
    })
}

/// How messages travel. The recipients are everyone whom the policy knows of, the owner of the inbox included.
fn travels(form: Form<'_>) -> Value {
    let recipients: Value = form.all_recipients().into_iter().map(ToString::to_string).collect();
    let matched: Value =
        form.matching().map(|(number, rule)| json!({ "number": number, "form": rule.to_string() })).collect();
    json!({
        "seal": form.sealing().to_string(),
        "recipients": recipients,
        "compress": form.compress() == Some(true),
        "matched": matched,
    })
}

/// How messages are delivered. Live ones have no lifetime by the policy.
fn delivered(delivery: Delivery, explanation: &Explanation<'_>) -> Value {
    let rules = explanation.deliveries().iter();
    let matched: Value =
        rules.map(|(number, rule)| json!({ "number": number, "delivery": rule.to_string() })).collect();
    json!({
        "class": delivery.class.to_string(),
        "max_lifetime_ms": delivery.is_durable().then_some(delivery.max_lifetime_ms),
        "matched": matched,
    })
}

fn render(who: &str, settings: &Settings, output: Output) -> anyhow::Result<Outcome> {
    let (who, local) = principal(who, settings)?;
    let permissions = settings.policy()?.for_domain(local).permissions(&settings.root(), &who);
    let sides = [
        ("publish", "allow", &permissions.publish_allow),
        ("publish", "deny", &permissions.publish_deny),
        ("subscribe", "allow", &permissions.subscribe_allow),
        ("subscribe", "deny", &permissions.subscribe_deny),
    ];
    output.record(
        || {
            let mut text = format!("{who}\n");
            for (action, effect, subjects) in sides {
                for subject in subjects {
                    text.push_str(&format!("  {effect:<5}  {action:<9}  {subject}\n"));
                }
            }
            text
        },
        || {
            json!({
                "principal": who.to_string(),
                "publish": { "allow": permissions.publish_allow, "deny": permissions.publish_deny },
                "subscribe": { "allow": permissions.subscribe_allow, "deny": permissions.subscribe_deny },
            })
        },
    )?;
    Ok(Outcome::Done)
}

/// Who is meant, and the policy's own trust domain.
fn principal(text: &str, settings: &Settings) -> anyhow::Result<(Principal, TrustDomain)> {
    let wrong = |error: bus_proto::IdentityError| Failure::usage(error.to_string());
    if text.starts_with("spiffe:") {
        let who: Principal = text.parse().map_err(wrong)?;
        let local = settings.trust_domain.clone().unwrap_or_else(|| who.trust_domain.clone());
        return Ok((who, local));
    }
    let endpoint: Endpoint = text.parse().map_err(wrong)?;
    let local = match &settings.trust_domain {
        Some(domain) => domain.clone(),
        None => TrustDomain::new(ASSUMED_DOMAIN).map_err(wrong)?,
    };
    Ok((Principal { trust_domain: local.clone(), endpoint }, local))
}

fn destination(text: &str, who: &Principal) -> anyhow::Result<Destination> {
    match text {
        "events" => Ok(Destination::Events),
        "inbox" => Ok(Destination::Inbox(who.endpoint.clone())),
        _ => match text.parse() {
            Ok(endpoint) => Ok(Destination::Inbox(endpoint)),
            Err(error) => Err(Failure::usage(format!("TO must be `events`, `inbox` or ROLE/COMPONENT: {error}"))),
        },
    }
}
