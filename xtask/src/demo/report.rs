//! What the demo came to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::table;

/// What was seen of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// How many messages the agent itself counted as published when it ended.
    pub published: u64,
    /// How many of them core received.
    pub delivered: u64,
}

/// What the fleet did.
#[derive(Debug, Default)]
pub struct Observed {
    /// By agent.
    pub agents: BTreeMap<String, Counts>,
    /// Commands whose result came back and whose effect was seen.
    pub commands_completed: u64,
    /// What core refused. It should be nothing.
    pub rejected: u64,
    /// What was seen of the Kill, for people.
    pub kill: String,
}

/// One attack, as the attacking program reports it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Attack {
    name: String,
    layer: String,
    refused: bool,
    control: bool,
    evidence: String,
}

impl Attack {
    fn is_good(&self) -> bool {
        self.refused && self.control
    }
}

/// Everything, with its sums.
#[derive(Debug, Serialize)]
pub struct Report {
    published: u64,
    delivered: u64,
    lost: u64,
    rejected: u64,
    commands_completed: u64,
    seconds: f64,
    agents: BTreeMap<String, Counts>,
    attacks: Vec<Attack>,
    #[serde(skip)]
    kill: String,
}

/// The fewest messages that the agents must have published for the result to mean something.
const LEAST_PUBLISHED: u64 = 1_000;

/// The fewest attacks that must have been tried: the table in `tests/src/attacks/mod.rs` holds this many and more.
const LEAST_ATTACKS: usize = 30;

impl Report {
    /// Sums up.
    pub fn new(observed: Observed, attacks: Vec<Attack>, took: Duration) -> Self {
        let published = observed.agents.values().map(|counts| counts.published).sum();
        let delivered = observed.agents.values().map(|counts| counts.delivered).sum();
        // By agent: what one gained could otherwise hide what another lost.
        let lost = observed.agents.values().map(|counts| counts.published.saturating_sub(counts.delivered)).sum();
        Self {
            published,
            delivered,
            lost,
            rejected: observed.rejected,
            commands_completed: observed.commands_completed,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            agents: observed.agents,
            attacks,
            kill: observed.kill,
        }
    }

    /// Whether nothing was lost, doubled or refused, the command was carried out, and no attack got through.
    pub fn is_good(&self) -> bool {
        self.lost == 0
            && self.delivered == self.published
            && self.published >= LEAST_PUBLISHED
            && self.rejected == 0
            && self.commands_completed > 0
            && self.attacks.len() >= LEAST_ATTACKS
            && self.attacks.iter().all(Attack::is_good)
    }

    /// Prints it: a summary for people, or one JSON object.
    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        let rows: Vec<_> = self
            .agents
            .iter()
            .map(|(name, counts)| [name.clone(), counts.published.to_string(), counts.delivered.to_string()])
            .collect();
        println!();
        table::print(["agent", "published", "core received"], &rows);
        println!();
        let rows: Vec<_> = self.attacks.iter().map(attack_row).collect();
        table::print(["attack", "", "refused by", "control"], &rows);
        let refused = self.attacks.iter().filter(|attack| attack.is_good()).count();
        println!();
        println!("messages   {} published, {} delivered, {} lost", self.published, self.delivered, self.lost);
        println!("commands   {} completed: {}", self.commands_completed, self.kill);
        println!("attacks    {} tried, {refused} refused with a passing control", self.attacks.len());
        println!("result     {} in {:.1} s", if self.is_good() { "all well" } else { "FAILED" }, self.seconds);
        Ok(())
    }
}

fn attack_row(attack: &Attack) -> [String; 4] {
    let refused = if attack.refused { "refused" } else { "GOT THROUGH" };
    let control = if attack.control { "passed" } else { "FAILED" };
    [attack.name.clone(), refused.to_owned(), attack.layer.clone(), control.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attack(refused: bool, control: bool) -> Attack {
        let text = String::new;
        Attack { name: text(), layer: text(), refused, control, evidence: text() }
    }

    /// As many refused attacks as must be tried.
    fn refused() -> Vec<Attack> {
        vec![attack(true, true); LEAST_ATTACKS]
    }

    fn report(counts: &[(u64, u64)], attacks: Vec<Attack>) -> Report {
        let agents = counts.iter().enumerate().map(|(number, (published, delivered))| {
            (number.to_string(), Counts { published: *published, delivered: *delivered })
        });
        let observed = Observed { agents: agents.collect(), commands_completed: 1, ..Observed::default() };
        Report::new(observed, attacks, Duration::ZERO)
    }

    #[test]
    fn a_good_run_is_good() {
        assert!(report(&[(600, 600), (600, 600)], refused()).is_good());
    }

    #[test]
    fn a_loss_is_not_hidden_by_another_agents_gain() {
        let report = report(&[(600, 599), (600, 601)], refused());
        assert_eq!(report.lost, 1);
        assert!(!report.is_good());
    }

    #[test]
    fn an_attack_that_gets_through_or_a_control_that_fails_is_a_failure() {
        for bad in [attack(false, true), attack(true, false)] {
            let attacks = [refused(), vec![bad]].concat();
            assert!(!report(&[(1_200, 1_200)], attacks).is_good());
        }
    }

    #[test]
    fn too_few_attacks_prove_nothing() {
        assert!(!report(&[(1_200, 1_200)], refused()[1..].to_vec()).is_good());
    }

    #[test]
    fn too_few_messages_prove_nothing() {
        assert!(!report(&[(9, 9)], refused()).is_good());
    }
}
