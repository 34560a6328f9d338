//! What is known about the fleet.

use std::collections::BTreeMap;
use std::time::Instant;

use bus_client::{Rejected, Verified};
use bus_proto::{AnyPayload, Endpoint};
use serde_json::{Map, Value, json};

/// The most components that are told apart. More are counted together, so that no crowd can exhaust the memory.
const MAX_COMPONENTS: usize = 100_000;

/// What one component reported.
#[derive(Debug, Default)]
pub(super) struct Component {
    pub(super) cpu: Option<f64>,
    pub(super) ram: Option<f64>,
    pub(super) uptime: Option<u64>,
    pub(super) version: Option<String>,
    pub(super) last_heartbeat: Option<Instant>,
    pub(super) alerts: u64,
    pub(super) messages: u64,
    /// How many of them are sealed to others.
    pub(super) sealed: u64,
    pub(super) missed: u64,
    pub(super) rejected: u64,
    pub(super) by_type: BTreeMap<String, u64>,
}

/// The fleet.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    components: BTreeMap<Endpoint, Component>,
    total: u64,
    missed: u64,
    rejected: u64,
}

impl Fleet {
    /// A fleet of these components.
    #[cfg(test)]
    pub(super) fn of(components: impl Iterator<Item = (Endpoint, Component)>) -> Self {
        Self { components: components.collect(), ..Self::default() }
    }

    /// Takes in one message, or one refusal. `missed` is what the subscription has missed so far.
    pub(super) fn take_in(&mut self, message: &Result<Verified<AnyPayload>, Rejected>, missed: u64) {
        let newly_missed = missed.saturating_sub(self.missed);
        self.missed = missed;
        match message {
            Ok(message) => {
                self.total += 1;
                if let Some(component) = self.component(&message.sender().endpoint) {
                    component.missed += newly_missed;
                    component.take_in(message);
                }
            }
            Err(rejected) => {
                self.rejected += 1;
                if let Some(component) = named_in(rejected).and_then(|sender| self.component(&sender)) {
                    component.rejected += 1;
                }
            }
        }
    }

    fn component(&mut self, endpoint: &Endpoint) -> Option<&mut Component> {
        if self.components.len() >= MAX_COMPONENTS && !self.components.contains_key(endpoint) {
            return None;
        }
        Some(self.components.entry(endpoint.clone()).or_default())
    }

    /// The components, sorted by name.
    pub(super) fn components(&self) -> impl ExactSizeIterator<Item = (&Endpoint, &Component)> {
        self.components.iter()
    }

    /// How many messages were received.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many were missed.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// How many were refused.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// How things stand.
    pub(super) fn snapshot(&self) -> Value {
        let component = |(endpoint, component): (&Endpoint, &Component)| {
            json!({
                "component": endpoint.to_string(),
                "cpu_usage": component.cpu, "ram_usage": component.ram,
                "uptime": component.uptime, "version": component.version,
                "heartbeat_age_ms": component.last_heartbeat.map(|at| at.elapsed().as_millis()),
                "messages": component.messages, "sealed": component.sealed, "alerts": component.alerts,
                "missed": component.missed, "rejected": component.rejected,
            })
        };
        json!({
            "event": "snapshot",
            "components": self.components().map(component).collect::<Value>(),
            "total": self.total, "rejected": self.rejected, "missed": self.missed,
        })
    }

    /// The exact counts, at the end.
    pub(super) fn totals(&self) -> Value {
        let by = |value: fn(&Component) -> Value| -> Map<String, Value> {
            self.components().map(|(endpoint, component)| (endpoint.to_string(), value(component))).collect()
        };
        json!({
            "event": "final",
            "received": by(|component| component.messages.into()),
            "sealed": by(|component| component.sealed.into()),
            "types": by(|component| json!(component.by_type)),
            "total": self.total, "rejected": self.rejected, "missed": self.missed,
        })
    }
}

impl Component {
    fn take_in(&mut self, message: &Verified<AnyPayload>) {
        self.messages += 1;
        match self.by_type.get_mut(message.message_type().token()) {
            Some(count) => *count += 1,
            None => {
                self.by_type.insert(message.message_type().token().to_owned(), 1);
            }
        }
        match message.payload() {
            AnyPayload::Telemetry(event) => (self.cpu, self.ram) = (Some(event.cpu_usage), Some(event.ram_usage)),
            AnyPayload::Heartbeat(beat) => {
                self.uptime = Some(beat.uptime);
                self.version = Some(beat.version.clone());
                self.last_heartbeat = Some(Instant::now());
            }
            AnyPayload::Alert(_) => self.alerts += 1,
            AnyPayload::Sealed(_) => self.sealed += 1,
            _ => {}
        }
    }
}

/// Whose message was refused, where the refusal tells: who signed it, or else the sender that its subject names, which the
/// broker alone vouches for. A component of another trust domain has no row.
fn named_in(rejected: &Rejected) -> Option<Endpoint> {
    let principal = match rejected {
        Rejected::SenderMismatch { signer } => signer,
        Rejected::TooManySessions { sender }
        | Rejected::Unsolicited { sender }
        | Rejected::UnknownKey { sender, .. }
        | Rejected::WaitingFull { sender } => sender,
        Rejected::Denied(denied) => denied.request().principal,
        _ => return None,
    };
    Some(principal.endpoint.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_in_the_row_of_who_signed_and_otherwise_in_none() {
        let mut fleet = Fleet::default();
        let agent = || "spiffe://ransomeye.test/agent/agent-01".parse().unwrap();
        fleet.take_in(&Err(Rejected::SenderMismatch { signer: agent() }), 0);
        fleet.take_in(&Err(Rejected::Unsolicited { sender: agent() }), 0);
        // Of the same name, and yet somebody else.
        fleet.take_in(
            &Err(Rejected::ForeignTrustDomain { signer: "spiffe://x.test/agent/agent-01".parse().unwrap() }),
            0,
        );
        fleet.take_in(&Err(Rejected::Unsigned), 0);
        let rows: Vec<_> = fleet.components().map(|(name, row)| (name.to_string(), row.rejected)).collect();
        assert_eq!((rows, fleet.rejected()), (vec![("agent/agent-01".to_owned(), 2)], 4));
    }
}
