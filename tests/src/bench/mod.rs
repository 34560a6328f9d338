//! What `cargo xtask bench` measures: messages, requests, verification and memory, side by side with async-nats alone.
//!
//! Every contender runs against one real nats-server with mutual TLS 1.3 and rendered permissions. Its two clients have a
//! connection each and live in one process, this one, on one multi-threaded runtime. A sender is at most [`WINDOW`] messages
//! ahead of its receiver, which counts what it gets, so nothing may be lost; a run in which a message is missing is an error.
//!
//! Rounds are paired: in each, every contender runs once, and a ratio is one of two runs of the same round. The order
//! rotates, so that nobody always comes after the same neighbour. What is reported is the median of the rounds, with the
//! least and the most.
//!
//! * `load` is one run of messages, `flow` the window, `requests` one run of requests.
//! * `raw` and `ours` are the contenders, `scene` what they run against.
//! * [`senders`] measures a receiver's memory, in a process and with a server of its own; `crowd` makes whom it receives from.
//! * [`verification`] and [`sealing`] need no server.
//! * [`report`] is the result, as a table and as JSON; [`thresholds`] says what it must show, and [`chart`] draws it.

pub mod chart;
mod cpu;
mod crowd;
mod flow;
mod load;
mod ours;
mod raw;
pub mod report;
mod requests;
mod scene;
pub mod sealing;
pub mod senders;
mod stats;
pub mod thresholds;
pub mod verification;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub use self::load::Run;
use self::ours::{Batches, Sealing};
pub use self::report::Report;
use self::report::{Contender, Host, Requests};
pub use self::requests::Answered;
use self::scene::Scene;
pub use self::senders::Memory;
pub use self::stats::Spread;

/// The size of every payload, in bytes.
pub const PAYLOAD: usize = 256;

/// The most payloads of a batch.
pub const BATCH: usize = 256;

/// How many messages a sender may be ahead of its receiver. More makes nobody faster, and everything wait longer.
pub const WINDOW: u64 = 8_192;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How often every contender runs.
    pub rounds: usize,
    load: load::Plan,
    requests: requests::Plan,
    /// How many rounds of verification there are.
    verifications: usize,
    /// How many synthetic senders the memory is measured over.
    pub senders: u32,
}

impl Effort {
    /// What is published.
    #[must_use]
    pub fn full() -> Self {
        Self {
            rounds: 7,
            load: load::Plan { window: WINDOW, warm_up: Duration::from_secs(1), measured: Duration::from_secs(4) },
            requests: requests::Plan { warm_up: Duration::from_millis(500), measured: Duration::from_secs(2) },
            verifications: 501,
            senders: 100_000,
        }
    }

    /// For a look: the figures are rough.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            rounds: 5,
            load: load::Plan { warm_up: Duration::from_millis(300), measured: Duration::from_secs(1), window: WINDOW },
            requests: requests::Plan { warm_up: Duration::from_millis(200), measured: Duration::from_millis(500) },
            verifications: 101,
            senders: 10_000,
        }
    }
}

/// The contenders that send messages, in the order in which they are reported. The first is the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Raw,
    RawBatched,
    Ours,
    OursSealed,
    OursSingle,
}

impl Sending {
    const ALL: [Self; 5] = [Self::Raw, Self::RawBatched, Self::Ours, Self::OursSealed, Self::OursSingle];

    fn name(self) -> &'static str {
        match self {
            Self::Raw => "async-nats, one a publish",
            Self::RawBatched => "async-nats, batches of 256",
            Self::Ours => "this bus, batches on",
            Self::OursSealed => "the same, sealed",
            Self::OursSingle => "this bus, batches off",
        }
    }

    async fn run(self, scene: &Scene, plan: load::Plan) -> Result<Run> {
        let server = scene.server();
        let run = match self {
            Self::Raw => {
                let (publisher, receiver) = raw::single::open(scene).await?;
                load::run(publisher, receiver, plan, server).await
            }
            Self::RawBatched => {
                let (publisher, receiver) = raw::batched::open(scene).await?;
                load::run(publisher, receiver, plan, server).await
            }
            Self::Ours => {
                let (publisher, receiver) = ours::open(scene, Batches::On, Sealing::Off).await?;
                load::run(publisher, receiver, plan, server).await
            }
            Self::OursSealed => {
                let (publisher, receiver) = ours::open(scene, Batches::On, Sealing::On).await?;
                load::run(publisher, receiver, plan, server).await
            }
            Self::OursSingle => {
                let (publisher, receiver) = ours::open(scene, Batches::Off, Sealing::Off).await?;
                load::run(publisher, receiver, plan, server).await
            }
        };
        run.with_context(|| format!("{}, {PAYLOAD} bytes, window {}", self.name(), plan.window))
    }
}

/// Runs one contender alone, again and again, for a profiler to watch: `raw`, `batched`, `ours`, `ours-sealed`, `ours-single`,
/// `requests-raw`, `requests-ours` or `requests-sealed`. `say` is told what each run came to.
///
/// # Errors
///
/// When there is no such contender, when it fails, or when one of its messages is missing.
pub async fn only(name: &str, effort: Effort, mut say: impl FnMut(&str)) -> Result<()> {
    let scene = Scene::start().await?;
    for _ in 0..effort.rounds {
        let sending = match name {
            "raw" => Sending::Raw,
            "batched" => Sending::RawBatched,
            "ours" => Sending::Ours,
            "ours-sealed" => Sending::OursSealed,
            "ours-single" => Sending::OursSingle,
            "requests-raw" => {
                say(&format!("{:?}", requests::raw(&scene, effort.requests).await?));
                continue;
            }
            "requests-ours" => {
                say(&format!("{:?}", requests::ours(&scene, effort.requests, Sealing::Off).await?));
                continue;
            }
            "requests-sealed" => {
                say(&format!("{:?}", requests::ours(&scene, effort.requests, Sealing::On).await?));
                continue;
            }
            _ => bail!("there is no contender `{name}`"),
        };
        say(&format!("{:?}", sending.run(&scene, effort.load).await?));
    }
    Ok(())
}

/// Measures everything but memory, which needs a process of its own. `say` is told what happens now.
///
/// # Errors
///
/// When a contender fails, or one of its messages is missing.
pub async fn run(effort: Effort, memory: Memory, mut say: impl FnMut(&str)) -> Result<Report> {
    let scene = Scene::start().await?;
    let mut runs = Sending::ALL.map(|_| Vec::with_capacity(effort.rounds));
    for round in 0..effort.rounds {
        for place in 0..runs.len() {
            let turn = (place + round) % runs.len();
            let sending = Sending::ALL[turn];
            let run = sending.run(&scene, effort.load).await?;
            let (number, rate) = (round + 1, run.messages_per_second);
            say(&format!("round {number} of {}: {}: {rate:.0} messages/s", effort.rounds, sending.name()));
            runs[turn].push(run);
        }
    }
    let named: Vec<_> = Sending::ALL.into_iter().map(Sending::name).zip(runs).collect();
    let messages = Contender::compare(&named);
    let requests = requests(&scene, effort, &mut say).await?;
    say("verification, without a server");
    let verification = verification::measure(&scene.policy(), effort.verifications)?;
    let requests = requests.beyond_crypto(&verification[0]);
    say("sealing, without a server");
    let sealing = sealing::measure(effort.verifications)?;
    let ran = |sending: Sending| messages.iter().find(|contender| contender.name == sending.name());
    let ours = ran(Sending::Ours).context("this bus did not run with batches")?;
    let sealed = ran(Sending::OursSealed).context("this bus did not run sealed")?;
    let thresholds = thresholds::judge(ours, sealed, &requests, &verification, &sealing, &memory);
    Ok(Report {
        payload_bytes: PAYLOAD,
        batch: BATCH,
        window: WINDOW,
        rounds: effort.rounds,
        host: Host::this(),
        messages,
        requests,
        verification,
        sealing,
        memory,
        thresholds,
    })
}

async fn requests(scene: &Scene, effort: Effort, say: &mut impl FnMut(&str)) -> Result<Requests> {
    const NAMES: [&str; 3] = ["async-nats", "this bus", "the same, sealed"];
    let mut runs = NAMES.map(|_| Vec::with_capacity(effort.rounds));
    for round in 0..effort.rounds {
        for place in 0..NAMES.len() {
            let turn = (place + round) % NAMES.len();
            let run = match turn {
                0 => requests::raw(scene, effort.requests).await,
                1 => requests::ours(scene, effort.requests, Sealing::Off).await,
                _ => requests::ours(scene, effort.requests, Sealing::On).await,
            };
            let name = NAMES[turn];
            let run = run.with_context(|| format!("{name}, request and answer"))?;
            say(&format!("round {} of {}: {name}: answered in {:.0} µs", round + 1, effort.rounds, run.p50_us));
            runs[turn].push(run);
        }
    }
    let [raw, ours, sealed] = &runs;
    Ok(Requests::compare(raw, ours, sealed))
}
