//! Runs every attack against a real nats-server and prints what came of each.
//!
//! `bus-attacks` prints a table, `bus-attacks --json` an array of `{name, layer, refused, control, evidence}`; progress
//! goes to stderr. The exit status is non-zero if any attack got through or any control failed. `bus-attacks NAME...` runs
//! the attacks of those names alone.
//!
//! `bus-attacks --without-attack [MESSAGES]` sends messages, a million unless told, through the malicious broker while it
//! attacks nothing, and prints what came of them as JSON. The exit status is non-zero if any was refused or is missing.
//! `bus-attacks --without-attack-sealed [MESSAGES]` does so with messages that are sealed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;

use anyhow::Context as _;
use bus_tests::attacks::{self, Attack, Outcome, broker};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => report(false, &every_attack()).await,
        ["--json"] => report(true, &every_attack()).await,
        ["--without-attack"] => without_an_attack(broker::without_an_attack(1_000_000).await?),
        ["--without-attack", messages] => without_an_attack(broker::without_an_attack(messages.parse()?).await?),
        ["--without-attack-sealed"] => without_an_attack(broker::without_an_attack_sealed(1_000_000).await?),
        ["--without-attack-sealed", messages] => {
            without_an_attack(broker::without_an_attack_sealed(messages.parse()?).await?)
        }
        // Not for people: one attack needs a victim in a process of its own.
        ["--as-victim", url, certificate, key, trust_root] => {
            println!("{}", attacks::as_victim(url, certificate, key, trust_root).await?);
            Ok(ExitCode::SUCCESS)
        }
        names if names.iter().all(|name| !name.starts_with('-')) => {
            let named = |name: &&str| attacks::find(name).with_context(|| format!("there is no attack `{name}`"));
            report(false, &names.iter().map(named).collect::<Result<Vec<_>, _>>()?).await
        }
        _ => {
            eprintln!(
                "usage: bus-attacks [--json | NAME... | --without-attack [MESSAGES] | --without-attack-sealed [MESSAGES]]"
            );
            Ok(ExitCode::from(2))
        }
    }
}

fn every_attack() -> Vec<Attack> {
    [attacks::all(), broker::attacks()].concat()
}

fn without_an_attack(run: broker::Run) -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string(&run)?);
    Ok(if run.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn report(json: bool, all: &[Attack]) -> anyhow::Result<ExitCode> {
    let mut outcomes = Vec::with_capacity(all.len());
    for (index, attack) in all.iter().enumerate() {
        eprintln!("attack {} of {}: {}", index + 1, all.len(), attack.name);
        outcomes.push(attack.run().await);
    }
    if json {
        println!("{}", serde_json::to_string(&outcomes)?);
    } else {
        print!("{}", table(&outcomes));
    }
    let holds = outcomes.iter().all(|outcome| outcome.refused && outcome.control);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The outcomes as aligned columns. What went wrong is shown whole, evidence of a refusal is cut short.
fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![["attack", "refused by", "control", "evidence"].map(str::to_owned)];
    rows.extend(outcomes.iter().map(|outcome| {
        let layer = if outcome.refused { outcome.layer.to_string() } else { "NOT REFUSED".to_owned() };
        let control = if outcome.control { "passed" } else { "FAILED" };
        let holds = outcome.refused && outcome.control;
        let evidence = if holds { shortened(&outcome.evidence, 72) } else { outcome.evidence.clone() };
        [outcome.name.to_owned(), layer, control.to_owned(), evidence]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let line = |[name, layer, control, evidence]: &[String; 4]| {
        format!("{name:a$}  {layer:b$}  {control:c$}  {evidence}\n", a = widths[0], b = widths[1], c = widths[2])
    };
    rows.iter().map(line).collect()
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
