//! What the benchmark came to: for people as a table, for programs as JSON.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::cpu;
use super::load::Run;
use super::requests::Answered;
use super::sealing::{ByRecipients, Sealing};
use super::senders::Memory;
use super::stats::Spread;
use super::thresholds::Threshold;
use super::verification::Cost;

/// Everything, with how it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The size of every payload.
    pub payload_bytes: usize,
    /// The most payloads of a batch.
    pub batch: usize,
    /// How many messages a sender may be ahead of its receiver.
    pub window: u64,
    /// How often each contender ran.
    pub rounds: usize,
    /// What it ran on.
    pub host: Host,
    /// The contenders that send messages. The first is the baseline.
    pub messages: Vec<Contender>,
    /// Requests, one after the other.
    pub requests: Requests,
    /// What verification costs: a single message, and a member of a full batch.
    pub verification: [Cost; 2],
    /// What sealing adds.
    pub sealing: Sealing,
    /// What a receiver's memory holds for each sender.
    pub memory: Memory,
    /// What all this must show, and whether it does.
    pub thresholds: Vec<Threshold>,
}

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// How many processors the program may use.
    pub processors: usize,
    /// Which, where the system tells.
    pub model: Option<String>,
}

impl Host {
    /// This machine.
    pub(crate) fn this() -> Self {
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        Self { processors, model: cpu::model() }
    }
}

/// One way of sending messages.
#[derive(Debug, Clone, Serialize)]
pub struct Contender {
    /// What it is.
    pub name: &'static str,
    /// Messages received a second.
    pub messages_per_second: Spread,
    /// That, over what the baseline had in the same round.
    pub ratio: Spread,
    /// That, over what async-nats with the same batches had in the same round.
    pub ratio_to_batched: Spread,
    /// From the call of publish to the message at its receiver, in microseconds: the median.
    pub p50_us: Spread,
    /// The same: what one in a hundred exceeds.
    pub p99_us: Spread,
    /// Processor time of both clients a message, in microseconds, where the system tells.
    pub clients_cpu_us: Option<Spread>,
    /// Processor time of the server a message, in microseconds, where the system tells.
    pub server_cpu_us: Option<Spread>,
    /// Every run, in order.
    pub runs: Vec<Run>,
}

impl Contender {
    /// Compares contenders round by round. The first is the baseline, the second has the same batches.
    pub(crate) fn compare(contenders: &[(&'static str, Vec<Run>)]) -> Vec<Self> {
        let rates =
            |place: usize| -> Vec<f64> { contenders[place].1.iter().map(|run| run.messages_per_second).collect() };
        let (baseline, batched) = (rates(0), rates(1));
        let against = |runs: &[Run], others: &[f64]| {
            Spread::of(runs.iter().zip(others).map(|(run, other)| run.messages_per_second / other))
        };
        let summarised = contenders.iter().map(|(name, runs)| {
            let known = |figure: fn(&Run) -> Option<f64>| runs.iter().map(figure).collect::<Option<Vec<_>>>();
            Self {
                name,
                messages_per_second: Spread::of(runs.iter().map(|run| run.messages_per_second)),
                ratio: against(runs, &baseline),
                ratio_to_batched: against(runs, &batched),
                p50_us: Spread::of(runs.iter().map(|run| run.p50_us)),
                p99_us: Spread::of(runs.iter().map(|run| run.p99_us)),
                clients_cpu_us: known(|run| run.clients_cpu_us).map(Spread::of),
                server_cpu_us: known(|run| run.server_cpu_us).map(Spread::of),
                runs: runs.clone(),
            }
        });
        summarised.collect()
    }
}

/// Requests, one after the other, each answered before the next.
#[derive(Debug, Clone, Serialize)]
pub struct Requests {
    /// async-nats: the median delay of each run, in microseconds.
    pub raw_p50_us: Spread,
    /// async-nats: what one in a hundred exceeds, in microseconds.
    pub raw_p99_us: Spread,
    /// This bus: the median delay of each run, in microseconds.
    pub ours_p50_us: Spread,
    /// This bus: what one in a hundred exceeds, in microseconds.
    pub ours_p99_us: Spread,
    /// The medians' ratio, round by round.
    pub ratio: Spread,
    /// What this bus takes longer, in microseconds, round by round.
    pub longer_us: Spread,
    /// The same, beyond two signatures and two verifications.
    pub beyond_crypto_us: Option<Spread>,
    /// This bus, both sealed: the median delay of each run, in microseconds.
    pub sealed_p50_us: Spread,
    /// The medians' ratio to what is not sealed, round by round.
    pub sealed_ratio: Spread,
}

impl Requests {
    /// Compares the runs round by round.
    pub(crate) fn compare(raw: &[Answered], ours: &[Answered], sealed: &[Answered]) -> Self {
        let pairs = || raw.iter().zip(ours);
        Self {
            raw_p50_us: Spread::of(raw.iter().map(|run| run.p50_us)),
            raw_p99_us: Spread::of(raw.iter().map(|run| run.p99_us)),
            ours_p50_us: Spread::of(ours.iter().map(|run| run.p50_us)),
            ours_p99_us: Spread::of(ours.iter().map(|run| run.p99_us)),
            ratio: Spread::of(pairs().map(|(raw, ours)| ours.p50_us / raw.p50_us)),
            longer_us: Spread::of(pairs().map(|(raw, ours)| ours.p50_us - raw.p50_us)),
            beyond_crypto_us: None,
            sealed_p50_us: Spread::of(sealed.iter().map(|run| run.p50_us)),
            sealed_ratio: Spread::of(ours.iter().zip(sealed).map(|(ours, sealed)| sealed.p50_us / ours.p50_us)),
        }
    }

    /// With what is left when the cost of two signatures and two verifications of single messages is taken off.
    pub(crate) fn beyond_crypto(mut self, single: &Cost) -> Self {
        let crypto = 2.0 * (single.sign_us.median + single.ed25519_us.median);
        let Spread { median, min, max } = self.longer_us;
        self.beyond_crypto_us = Some(Spread { median: median - crypto, min: min - crypto, max: max - crypto });
        self
    }
}

impl Report {
    /// The report as JSON, indented, with a line feed at its end.
    ///
    /// # Errors
    ///
    /// When a figure is none.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Host { processors, model } = &self.host;
        let model = model.as_deref().unwrap_or("of an unknown kind");
        writeln!(
            f,
            "{} B payloads, at most {} unreceived, none missing; medians of {} paired rounds (least–most)",
            self.payload_bytes, self.window, self.rounds
        )?;
        writeln!(
            f,
            "one nats-server, mutual TLS 1.3, both clients in one process; {processors} processors, {model}\n"
        )?;
        let header = ["", "messages/s", "ratio", "to batched", "p50 ms", "p99 ms", "CPU µs clients", "server"];
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(self.messages.iter().map(|contender| {
            let figure =
                |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| format!("{:.2}", spread.median));
            [
                contender.name.to_owned(),
                format!("{:.0}", contender.messages_per_second.median),
                with_range(contender.ratio),
                format!("{:.2}", contender.ratio_to_batched.median),
                format!("{:.1}", contender.p50_us.median / 1e3),
                format!("{:.1}", contender.p99_us.median / 1e3),
                figure(contender.clients_cpu_us),
                figure(contender.server_cpu_us),
            ]
        }));
        f.write_str(&aligned(&rows))?;
        self.write_others(f)
    }
}

impl Report {
    fn write_others(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requests { raw_p50_us, raw_p99_us, ours_p50_us, ours_p99_us, ratio, .. } = self.requests;
        writeln!(f, "\nrequest and answer, one after the other, µs")?;
        writeln!(f, "  async-nats   p50 {:.0}   p99 {:.0}", raw_p50_us.median, raw_p99_us.median)?;
        writeln!(f, "  this bus     p50 {:.0}   p99 {:.0}", ours_p50_us.median, ours_p99_us.median)?;
        let Requests { sealed_p50_us, sealed_ratio, .. } = self.requests;
        writeln!(f, "  sealed       p50 {:.0}   {} of it unsealed", sealed_p50_us.median, with_range(sealed_ratio))?;
        write!(f, "  ratio        {}", with_range(ratio))?;
        if let Some(beyond) = self.requests.beyond_crypto_us {
            write!(f, "; beyond two signatures and two verifications {:.0} µs", beyond.median)?;
        }
        writeln!(f, "\n\nverification, from the bytes to decoded payloads, µs a payload")?;
        for cost in &self.verification {
            let (rest, ed25519, whole) = (cost.rest_us.median, cost.ed25519_us.median, cost.whole_us.median);
            let (name, sign) = (cost.name, cost.sign_us.median);
            writeln!(
                f,
                "  {name:7}  whole {whole:.2}   Ed25519 {ed25519:.2}   the rest {rest:.2}   (signing {sign:.2})"
            )?;
        }
        self.write_sealing(f)?;
        let Memory { senders, allocated_bytes, resident_bytes } = self.memory;
        writeln!(f, "\nmemory of a receiver for each of {senders} known senders")?;
        write!(f, "  allocated {allocated_bytes:.0} B")?;
        resident_bytes.map_or(Ok(()), |resident| write!(f, "   resident {resident:.0} B"))?;
        writeln!(f, "\n\nthresholds")?;
        let row = |threshold: &Threshold| {
            let Threshold { name, bound, found, .. } = threshold;
            [name.to_string(), bound.to_string(), format!("{found:.2}"), threshold.verdict().to_owned()]
        };
        let rows: Vec<_> = self.thresholds.iter().map(row).collect();
        f.write_str(&aligned(&rows))
    }

    fn write_sealing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sealing { added, recipients } = &self.sealing;
        let (seal, open) = (added.sealing_us.median, added.opening_us.median);
        writeln!(f, "\nsealing, µs")?;
        writeln!(
            f,
            "  added for each of {} payloads of a batch   sealing {seal:.2}   opening {open:.2}",
            added.payloads
        )?;
        for ByRecipients { recipients, first_us, later_us, with_keys_us } in recipients {
            let (first, later, keys) = (first_us.median, later_us.median, with_keys_us.median);
            writeln!(
                f,
                "  {recipients:3} recipients   first {first:.0}   later {later:.2}   with the wrapped keys {keys:.2}"
            )?;
        }
        Ok(())
    }
}

fn with_range(Spread { median, min, max }: Spread) -> String {
    format!("{median:.2} ({min:.2}–{max:.2})")
}

/// The first column to the left, the others to the right.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        for (place, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if place == 0 { write!(text, "{cell:width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(messages_per_second: f64) -> Run {
        Run { messages_per_second, messages: 1, p50_us: 1.0, p99_us: 2.0, clients_cpu_us: None, server_cpu_us: None }
    }

    #[test]
    fn a_ratio_is_of_two_runs_of_one_round() {
        let runs = |rates: [f64; 3]| rates.map(run).to_vec();
        // The machine is twice as fast in the second round and four times in the third.
        let contenders = [("a", runs([10.0, 20.0, 40.0])), ("b", runs([30.0, 60.0, 80.0]))];
        let compared = Contender::compare(&contenders);
        assert_eq!(compared[0].ratio, Spread { median: 1.0, min: 1.0, max: 1.0 });
        assert_eq!(compared[1].ratio, Spread { median: 3.0, min: 2.0, max: 3.0 });
        assert_eq!(compared[0].ratio_to_batched.median, 1.0 / 3.0);
    }
}
