//! Policies, as an operator writes them.

use bus_acl::{Action, MAX_RECIPIENTS, Permissions, Policy, Sealing};
use bus_proto::{ComponentId, Destination, Endpoint, MessageType, Principal, Role, SubjectRoot, TrustDomain};

use crate::names::{covers, harmless};

/// The most names that are taken from one text: each is asked about in every combination.
const MOST_NAMES: usize = 2;

/// The text of a policy: sender, broker and explanation agree on every request that its names suggest, and what the forms
/// say of a message is what the strictest of them says, whatever their order.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policy = match Policy::from_toml(text) {
        Ok(policy) => policy,
        Err(error) => return harmless(&error),
    };
    let asked = Asked::about(text);
    asked.forms(&policy);
    asked.ask(&policy);
    asked.ask(&policy.for_domain(asked.domains[0].clone()));
}

/// What a policy is asked about.
struct Asked {
    domains: Vec<TrustDomain>,
    endpoints: Vec<Endpoint>,
    types: Vec<MessageType>,
}

impl Asked {
    /// The names that stand in the text, and some that always exist.
    fn about(text: &str) -> Self {
        let pieces = || text.split(['"', '\'']);
        let roles = pieces().filter_map(|name| Role::new(name).ok()).take(MOST_NAMES);
        let component = pieces().filter_map(|name| ComponentId::new(name).ok()).next_back();
        let named = roles.zip(component.into_iter().cycle()).map(|(role, component)| Endpoint { role, component });
        let inboxes = pieces().filter_map(|name| name.strip_prefix("inbox:")?.parse().ok()).take(MOST_NAMES);
        let always = ["agent/a1", "core/core-01"].into_iter().map(|endpoint| endpoint.parse().unwrap());
        let types = pieces().filter_map(|name| name.parse().ok()).take(MOST_NAMES);
        let domain = |after: &str| TrustDomain::new(after.split(['"', '\'']).nth(1)?).ok();
        let domains = text.split("trust_domain").skip(1).filter_map(domain).take(1);
        Self {
            domains: std::iter::once(TrustDomain::new("td").unwrap()).chain(domains).collect(),
            endpoints: always.chain(named).chain(inboxes).collect(),
            types: [MessageType::Telemetry, MessageType::Command].into_iter().chain(types).collect(),
        }
    }

    fn destinations(&self) -> Vec<Destination> {
        let inboxes = self.endpoints.iter().cloned().map(Destination::Inbox);
        std::iter::once(Destination::Events).chain(inboxes).collect()
    }

    fn forms(&self, policy: &Policy) {
        let reversed = Policy::default().with_forms(policy.forms().iter().rev().cloned());
        for destination in self.destinations() {
            for message_type in &self.types {
                strictest(policy, message_type, &destination);
                let (form, reversed) =
                    (policy.form(message_type, &destination), reversed.form(message_type, &destination));
                assert_eq!(form.to_string(), reversed.to_string());
            }
        }
    }

    fn ask(&self, policy: &Policy) {
        let root = SubjectRoot::default();
        let destinations = self.destinations();
        for trust_domain in &self.domains {
            for endpoint in &self.endpoints {
                let who = Principal { trust_domain: trust_domain.clone(), endpoint: endpoint.clone() };
                let permissions = policy.permissions(&root, &who);
                let is_local = !permissions.publish_deny.iter().any(|subject| subject == ">");
                for destination in &destinations {
                    let requests = self.types.iter().map(|message_type| (&who, message_type, destination));
                    for (who, message_type, destination) in requests {
                        agree(policy, is_local.then_some(&permissions), who, message_type, destination);
                    }
                }
            }
        }
    }
}

fn strictest(policy: &Policy, message_type: &MessageType, destination: &Destination) {
    let form = policy.form(message_type, destination);
    let default = if *destination == Destination::Events { Sealing::Off } else { Sealing::On };
    let stated = form.matching().filter_map(|(_, rule)| rule.sealing()).max();
    assert_eq!(form.sealing(), stated.unwrap_or(default), "{form}");
    let recipients = form.all_recipients();
    assert!(recipients.len() <= MAX_RECIPIENTS, "{form}");
    assert!(form.recipients().all(|recipient| recipients.contains(&recipient)), "{form}");
    assert!(recipients.is_empty() || form.sealing() > Sealing::Off, "{form}");
}

fn agree(
    policy: &Policy,
    permissions: Option<&Permissions>,
    who: &Principal,
    message_type: &MessageType,
    destination: &Destination,
) {
    for action in [Action::Publish, Action::Subscribe] {
        let decision = policy.authorize(who, action, message_type, destination);
        let explanation = policy.explain(who, action, message_type, destination);
        assert_eq!(decision.is_ok(), explanation.is_allowed(), "{explanation}");
        assert_eq!(explanation.form(), decision.is_ok().then(|| policy.form(message_type, destination)));
        if let Err(denied) = &decision {
            assert_eq!(Some(denied.why()), explanation.why());
        }
        // The broker knows no foreign principals, whose messages come by federation.
        let Some(permissions) = permissions else { continue };
        let root = SubjectRoot::default();
        let broker = match (action, destination) {
            (Action::Publish, _) => {
                let subject = root.subject(destination, message_type, who);
                permits(&permissions.publish_allow, &permissions.publish_deny, &subject)
            }
            (Action::Subscribe, Destination::Events) => {
                let filter = root.events_filter(Some(message_type));
                permits(&permissions.subscribe_allow, &permissions.subscribe_deny, &filter)
            }
            (Action::Subscribe, Destination::Inbox(owner)) => {
                let filter = root.inbox_filter(owner, Some(message_type));
                permits(&permissions.subscribe_allow, &permissions.subscribe_deny, &filter)
            }
        };
        assert_eq!(decision.is_ok(), broker, "{explanation}\n{permissions:?}");
    }
}

/// NATS: an empty allow list allows everything, and a denial wins.
fn permits(allow: &[String], deny: &[String], subject: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, subject));
    (allow.is_empty() || any(allow)) && !any(deny)
}
