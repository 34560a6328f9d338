//! One run of one contender: messages as fast as they are received, counted and timed at the receiver.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bus_proto::prost::bytes::Bytes;
use serde::Serialize;
use tokio::task::AbortHandle;

use super::PAYLOAD;
use super::cpu;
use super::flow::Flow;
use super::stats::percentile;

/// Every so many messages one carries its number and the time. A prime, so that every place of a batch has its turn.
const SAMPLED: u64 = 61;

/// How long a run may take beyond its time. Only a lost message makes it take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the sender looks for the end of the run, in messages.
const LOOK_UP: u64 = 256;

/// The sending side of a contender.
pub(crate) trait Outgoing: Send + 'static {
    /// Sends one payload, or gathers it for a batch.
    fn publish(&mut self, payload: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Sends what was gathered, as the sender is about to wait.
    fn release(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// The receiving side of a contender.
pub(crate) trait Incoming: Send + 'static {
    /// Waits for what comes next, and gives each payload in it to `take`.
    fn receive(&mut self, take: impl FnMut(&[u8]) + Send) -> impl Future<Output = Result<()>> + Send;
}

/// How long a run takes, and how far its sender may be ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) window: u64,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What one run came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Run {
    /// Messages received a second.
    pub messages_per_second: f64,
    /// Messages received while it was measured.
    pub messages: u64,
    /// From the call of publish to the message at its receiver, in microseconds: the median of the samples.
    pub p50_us: f64,
    /// The same: what one in a hundred exceeds.
    pub p99_us: f64,
    /// Processor time of both clients a message, in microseconds, where the system tells.
    pub clients_cpu_us: Option<f64>,
    /// Processor time of the server a message, in microseconds, where the system tells.
    pub server_cpu_us: Option<f64>,
}

/// What a sampled payload begins with.
enum Mark {
    /// When it was sent, in nanoseconds.
    Sent(u64),
    /// It is the last one.
    Last,
}

/// Nanoseconds since this program first asked.
fn nanoseconds() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).expect("a short run") + 1
}

/// The payload that says which one it is and when it was sent, or that it is the last.
fn marked(number: u64, mark: &Mark) -> Bytes {
    let time = match mark {
        Mark::Sent(time) => *time,
        Mark::Last => u64::MAX,
    };
    let mut payload = vec![b'.'; PAYLOAD];
    payload[..8].copy_from_slice(&time.to_le_bytes());
    payload[8..16].copy_from_slice(&number.to_le_bytes());
    payload.into()
}

/// The number and mark of a payload, if it has any.
fn read_mark(payload: &[u8]) -> Option<(u64, Mark)> {
    let number = |range| payload.get(range).and_then(|bytes: &[u8]| bytes.try_into().ok()).map(u64::from_le_bytes);
    let mark = match number(0..8)? {
        0 => return None,
        u64::MAX => Mark::Last,
        time => Mark::Sent(time),
    };
    Some((number(8..16)?, mark))
}

/// Runs one contender: warms up, measures, and makes sure that every message has arrived, in order.
pub(crate) async fn run(
    outgoing: impl Outgoing,
    incoming: impl Incoming,
    plan: Plan,
    server: Option<u32>,
) -> Result<Run> {
    let flow = Arc::new(Flow::new(plan.window));
    let receiver = tokio::spawn(receive(incoming, Arc::clone(&flow), plan, server));
    let sender = tokio::spawn(send(outgoing, Arc::clone(&flow)));
    let abort = [receiver.abort_handle(), sender.abort_handle()];
    let limit = plan.warm_up + plan.measured + PATIENCE;
    // Both sides are dropped only here, when everything has arrived.
    let ended = tokio::time::timeout(limit, async {
        let (received, _sender) = tokio::try_join!(async { receiver.await? }, async { sender.await? })?;
        Ok(received)
    });
    let ended = ended.await;
    abort.iter().for_each(AbortHandle::abort);
    ended.context("a message is missing: the last one did not arrive")?
}

async fn send(mut outgoing: impl Outgoing, flow: Arc<Flow>) -> Result<impl Outgoing> {
    let plain = Bytes::from(vec![0; PAYLOAD]);
    let (mut sent, mut allowed) = (0_u64, 0);
    while !(sent.is_multiple_of(LOOK_UP) && flow.is_stopped()) {
        if sent == allowed {
            outgoing.release().await?;
            allowed = flow.room(sent).await;
        }
        let payload =
            if sent.is_multiple_of(SAMPLED) { marked(sent, &Mark::Sent(nanoseconds())) } else { plain.clone() };
        outgoing.publish(payload).await?;
        sent += 1;
    }
    outgoing.publish(marked(sent, &Mark::Last)).await?;
    outgoing.release().await?;
    Ok(outgoing)
}

/// A moment of a run, at the receiver.
struct Moment {
    at: Instant,
    received: u64,
    clients_cpu: Option<Duration>,
    server_cpu: Option<Duration>,
}

impl Moment {
    fn now(received: u64, server: Option<u32>) -> Self {
        let clients_cpu = cpu::used(std::process::id());
        Self { at: Instant::now(), received, clients_cpu, server_cpu: server.and_then(cpu::used) }
    }
}

/// What the receiving side has seen so far.
struct Tally {
    received: u64,
    delays: Vec<u64>,
    disordered: Option<(u64, u64)>,
    over: bool,
}

impl Tally {
    fn take(&mut self, payload: &[u8]) {
        if let Some((number, mark)) = read_mark(payload) {
            if number != self.received {
                self.disordered = self.disordered.or(Some((number, self.received)));
            }
            match mark {
                Mark::Sent(time) => self.delays.push(nanoseconds().saturating_sub(time)),
                Mark::Last => self.over = true,
            }
        }
        self.received += 1;
    }
}

async fn receive(mut incoming: impl Incoming, flow: Arc<Flow>, plan: Plan, server: Option<u32>) -> Result<Run> {
    let mut tally = Tally { received: 0, delays: Vec::with_capacity(1 << 20), disordered: None, over: false };
    let (mut begun, mut measured) = (None::<Moment>, None::<(Moment, Vec<u64>)>);
    let started = Instant::now();
    while !tally.over {
        let before = tally.received / LOOK_UP;
        incoming.receive(|payload| tally.take(payload)).await?;
        flow.count(tally.received);
        if tally.received / LOOK_UP == before {
            continue;
        }
        match &begun {
            None if started.elapsed() >= plan.warm_up => {
                tally.delays.clear();
                begun = Some(Moment::now(tally.received, server));
            }
            Some(begun) if measured.is_none() && begun.at.elapsed() >= plan.measured => {
                measured = Some((Moment::now(tally.received, server), std::mem::take(&mut tally.delays)));
                flow.stop();
            }
            _ => {}
        }
    }
    if let Some((number, place)) = tally.disordered {
        bail!("message {number} arrived in place {place}: one is missing or out of order");
    }
    let begun = begun.context("the run ended before it began")?;
    let (ended, mut delays) = measured.context("the run ended early")?;
    let messages = ended.received - begun.received;
    ensure!(messages > 0 && !delays.is_empty(), "nothing arrived while it was measured");
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let count = messages as f64;
    let each = |from: Option<Duration>, to: Option<Duration>| Some((to? - from?).as_secs_f64() * 1e6 / count);
    delays.sort_unstable();
    Ok(Run {
        messages_per_second: count / (ended.at - begun.at).as_secs_f64(),
        messages,
        p50_us: percentile(&delays, 50) / 1e3,
        p99_us: percentile(&delays, 99) / 1e3,
        clients_cpu_us: each(begun.clients_cpu, ended.clients_cpu),
        server_cpu_us: each(begun.server_cpu, ended.server_cpu),
    })
}
