//! What a receiver's memory holds for each sender that it knows, over many synthetic senders.

use anyhow::Result;
use bus_crypto::{ReplayGuard, VerifiedBundle};
use serde::{Deserialize, Serialize};

use super::cpu;
use super::verification::{Sender, clock, single};

/// What a receiver remembers of one sender. This and [`remember`] are all that knows how the receiver keeps it.
struct Known {
    _bundle: VerifiedBundle,
    _guard: ReplayGuard,
}

/// All that makes a sender known: its bundle is verified, and one message of its was received.
fn remember(sender: &Sender) -> Result<Known> {
    let bundle = sender.verified()?;
    let message = sender.sign(single(), 1)?;
    let verified = bus_crypto::envelope::verify(&message, &bundle, &sender.leaf.principal.trust_domain, &clock())?;
    let mut guard = ReplayGuard::new(bundle.key_id());
    let fresh = guard.check(&verified)?;
    guard.commit(fresh)?;
    Ok(Known { _bundle: bundle, _guard: guard })
}

/// What the senders took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    /// How many there were.
    pub senders: u32,
    /// What Rust's allocator was asked for and has not been given back, in bytes a sender.
    pub allocated_bytes: f64,
    /// The growth of the resident memory, in bytes a sender: what the provider's C code allocates, and what every
    /// allocation costs besides, included. `None` where the system does not tell.
    pub resident_bytes: Option<f64>,
}

/// Makes the state of `count` senders and says what it takes. `allocated` tells how many bytes are allocated now.
///
/// # Errors
///
/// When a synthetic sender cannot be made.
pub fn measure(count: u32, allocated: impl Fn() -> usize) -> Result<Memory> {
    // What is set up once, by the provider and by the allocator, is not the senders'.
    drop((0..100).map(|number| remember(&Sender::new(number)?)).collect::<Result<Vec<_>>>()?);
    let mut all = Vec::with_capacity(usize::try_from(count)?);
    let (allocated_before, resident_before) = (allocated(), cpu::resident());
    for number in 0..count {
        all.push(remember(&Sender::new(number)?)?);
    }
    let (allocated_after, resident_after) = (allocated(), cpu::resident());
    // The table was allocated before, and becomes resident only as it fills.
    let grown = allocated_after - allocated_before + size_of_val(all.as_slice());
    let each = |bytes: u64| u32::try_from(bytes).map(|bytes| f64::from(bytes) / f64::from(count));
    let resident_bytes = match resident_before.zip(resident_after) {
        Some((before, after)) => Some(each(after.saturating_sub(before))?),
        None => None,
    };
    let allocated_bytes = each(u64::try_from(grown)?)?;
    drop(all);
    Ok(Memory { senders: count, allocated_bytes, resident_bytes })
}
