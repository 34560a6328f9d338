//! What sealing adds to a signed message, on each side, and what it costs with many recipients.
//!
//! The sender seals an encoded batch; the receiver opens it and reads the content anew, as it does with what is not sealed as a
//! part of reading the envelope. No server is needed.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bus_crypto::sealing::{About, Epoch, OpenEpoch, Part, Recipient, SealingFailed, SealingKey};
use bus_crypto::{KeyId, scan, scan_content};
use bus_proto::prost::Message as _;
use bus_proto::v1::{self, Envelope};
use serde::Serialize;

use super::stats::Spread;
use super::verification::{NOW, members, single};

/// The members of the batch that the cost of sealing is stated for.
const MEMBERS: usize = 64;

/// The numbers of recipients that are compared.
const RECIPIENTS: [usize; 3] = [1, 10, 100];

/// How many messages are timed in a round.
const MESSAGES: u32 = 64;

/// What sealing adds for each payload of a batch, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Added {
    /// The payloads of the batch.
    pub payloads: usize,
    /// Putting the content together, and sealing it.
    pub sealing_us: Spread,
    /// Opening it, and reading what it holds.
    pub opening_us: Spread,
}

/// What sealing a single message costs the sender, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct ByRecipients {
    /// How many there are.
    pub recipients: usize,
    /// The first of an epoch: its secret is wrapped to each of them.
    pub first_us: Spread,
    /// Every later one, without the wrapped keys.
    pub later_us: Spread,
    /// The same, with the wrapped keys, which were made with the first.
    pub with_keys_us: Spread,
}

/// What was measured of sealing alone.
#[derive(Debug, Clone, Serialize)]
pub struct Sealing {
    /// What it adds in a batch.
    pub added: Added,
    /// What it costs with so many recipients.
    pub recipients: Vec<ByRecipients>,
}

const SENDER: &str = "spiffe://ransomeye.test/agent/agent-01";

fn about(sequence: u64) -> About<'static> {
    About {
        part: Part::Payload,
        sender: SENDER,
        subject: "ransomeye.events.x-telemetry.agent.agent-01",
        message_type: "x-telemetry",
        sequence,
        message_id: "0199f1a2-0000-7000-8000-000000000000",
        expires_at: 0,
    }
}

fn key_id() -> KeyId {
    KeyId::of_bundle(b"the bundle of the benchmark")
}

/// Other bytes each time, which are known, as they protect nothing.
fn fill(bytes: &mut [u8]) -> Result<(), SealingFailed> {
    static TURNS: AtomicU64 = AtomicU64::new(1);
    let turn = TURNS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    bytes.iter_mut().zip(turn.iter().cycle()).for_each(|(byte, turn)| *byte = *turn);
    Ok(())
}

/// So many recipients, with the key of the first.
fn recipients(count: usize) -> Result<(Vec<Recipient>, SealingKey)> {
    let mut keys = Vec::with_capacity(count);
    for place in 0..count {
        let mut seed = bus_crypto::zeroize::Zeroizing::new([0; 32]);
        fill(seed.as_mut_slice())?;
        keys.push((place, SealingKey::from_seed(&seed)?));
    }
    let recipient = |(place, key): &(usize, SealingKey)| -> Result<Recipient> {
        let principal = format!("spiffe://ransomeye.test/core/core-{place:03}").parse()?;
        Ok(Recipient { principal, version: 1, key: key.public_key().clone() })
    };
    let recipients = keys.iter().map(recipient).collect::<Result<Vec<_>>>()?;
    Ok((recipients, keys.swap_remove(0).1))
}

/// The encoded field of a payload, which is what is sealed.
fn content(payload: v1::envelope::Payload) -> Vec<u8> {
    Envelope { payload: Some(payload), ..Envelope::default() }.encode_to_vec()
}

/// A prefix with this sealed payload.
fn prefix(sealed: &[u8], sequence: u64) -> Result<Vec<u8>> {
    let payload = v1::envelope::Payload::Sealed(v1::Sealed::decode(sealed)?);
    let mut envelope = Envelope::new(&"agent-01".parse()?, payload, NOW, [7; 10]);
    envelope.subject = about(sequence).subject.into();
    envelope.sequence = sequence;
    Ok(envelope.encode_to_vec())
}

fn timed(count: u32, mut work: impl FnMut(u32) -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    for turn in 0..count {
        work(turn)?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}

/// Measures everything, in `rounds` rounds.
pub(crate) fn measure(rounds: usize) -> Result<Sealing> {
    let recipients = RECIPIENTS.iter().map(|count| by_recipients(*count, rounds.div_ceil(10)));
    Ok(Sealing { added: added(rounds)?, recipients: recipients.collect::<Result<_>>()? })
}

fn added(rounds: usize) -> Result<Added> {
    let (recipients, key) = recipients(1)?;
    let content = content(members(MEMBERS));
    let mut epoch = Epoch::new(key_id(), &recipients, NOW, fill)?;
    let mut sealed = Vec::new();
    epoch.seal(&about(1), &content, true, &mut sealed)?;
    let (first, mut sealed_again) = (prefix(&sealed, 1)?, Vec::new());
    epoch.seal(&about(2), &content, false, &mut sealed_again)?;
    let later = prefix(&sealed_again, 2)?;
    let (first, later) = (scan(&first)?, scan(&later)?);
    let first = first.sealed().context("it is not sealed")?;
    let wrapped = first.wrapped_keys().first().context("no keys came along")?;
    let open = OpenEpoch::unwrap(first, &key_id(), wrapped, &key)?;
    let later = later.sealed().context("it is not sealed")?;
    let (mut sealing, mut opening) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        let seal = timed(MESSAGES, |turn| {
            // The client puts the content together once more than without sealing, and the sealed field, too.
            let content = black_box(content.clone());
            let mut sealed = Vec::with_capacity(epoch.sealed_len(content.len(), false));
            epoch.seal(&about(u64::from(turn) + 3), &content, false, &mut sealed)?;
            black_box(sealed.clone());
            Ok(())
        })?;
        let open = timed(MESSAGES, |_| {
            let opened = open.open(later, &about(2))?;
            black_box(scan_content(&opened)?.members().len());
            Ok(())
        })?;
        #[expect(clippy::cast_precision_loss, reason = "there are 64")]
        let members = MEMBERS as f64;
        sealing.push(seal / members);
        opening.push(open / members);
    }
    Ok(Added { payloads: MEMBERS, sealing_us: Spread::of(sealing), opening_us: Spread::of(opening) })
}

fn by_recipients(count: usize, rounds: usize) -> Result<ByRecipients> {
    let (recipients, _) = recipients(count)?;
    let content = content(single());
    let (mut firsts, mut laters, mut with_keys) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut sealed = Vec::new();
        let mut epoch = None;
        firsts.push(timed(1, |_| {
            let fresh = epoch.insert(Epoch::new(key_id(), &recipients, NOW, fill)?);
            Ok(fresh.seal(&about(1), &content, true, &mut sealed)?)
        })?);
        let epoch = epoch.as_mut().context("there is no epoch")?;
        let mut later = |keys: bool| {
            timed(MESSAGES, |turn| {
                let mut sealed = Vec::with_capacity(epoch.sealed_len(content.len(), keys));
                epoch.seal(&about(u64::from(turn) + 2), &content, keys, &mut sealed)?;
                black_box(sealed);
                Ok(())
            })
        };
        laters.push(later(false)?);
        with_keys.push(later(true)?);
    }
    Ok(ByRecipients {
        recipients: count,
        first_us: Spread::of(firsts),
        later_us: Spread::of(laters),
        with_keys_us: Spread::of(with_keys),
    })
}
