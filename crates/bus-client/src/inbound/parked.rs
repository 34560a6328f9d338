//! Messages that wait for the bundles of their keys, by the sender that their subject names: whoever has others wait in
//! vain takes the room of nobody else.

use std::collections::{HashMap, HashSet, VecDeque};

use async_nats::Message;
use bus_crypto::KeyId;
use bus_proto::{Endpoint, Principal};

/// The most room that they take, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a waiting message costs besides its content, in bytes.
const OVERHEAD: usize = 256;

/// The messages of one sender, in the order in which they came.
#[derive(Debug)]
struct OfOne {
    sender: Principal,
    messages: VecDeque<(KeyId, Message)>,
    /// Their keys.
    keys: HashSet<KeyId>,
    bytes: usize,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Parked {
    senders: HashMap<Endpoint, OfOne>,
    bytes: usize,
}

fn cost(message: &Message) -> usize {
    message.length.saturating_add(OVERHEAD)
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Whose messages wait, in an order that is always the same.
    pub(super) fn senders(&self) -> Vec<Principal> {
        let mut senders: Vec<Principal> = self.senders.values().map(|of_one| of_one.sender.clone()).collect();
        senders.sort_unstable();
        senders
    }

    /// The sender, if messages of it wait for this key.
    pub(super) fn waits(&self, sender: &Endpoint, key_id: &KeyId) -> Option<&Principal> {
        let of_one = self.senders.get(sender)?;
        of_one.keys.contains(key_id).then_some(&of_one.sender)
    }

    /// Has a message wait, or gives it back if there is no room. A sender may take as much room as is left for others: one alone gets half of
    /// it, and with many of them there is some for the next.
    pub(super) fn park(&mut self, key_id: KeyId, sender: &Principal, message: Message) -> Option<Message> {
        let cost = cost(&message);
        let taken = self.senders.get(&sender.endpoint).map_or(0, |of_one| of_one.bytes);
        if taken.saturating_add(cost) > MAX_BYTES.saturating_sub(self.bytes) {
            return Some(message);
        }
        let of_one = self.senders.entry(sender.endpoint.clone()).or_insert_with(|| OfOne {
            sender: sender.clone(),
            messages: VecDeque::new(),
            keys: HashSet::new(),
            bytes: 0,
        });
        of_one.keys.insert(key_id);
        of_one.messages.push_back((key_id, message));
        of_one.bytes += cost;
        self.bytes += cost;
        None
    }

    /// Takes out what waits of a sender: for this key, or for any.
    pub(super) fn take(&mut self, sender: &Endpoint, key_id: Option<&KeyId>) -> Vec<Message> {
        let Some(mut of_one) = self.senders.remove(sender) else { return Vec::new() };
        self.bytes = self.bytes.saturating_sub(of_one.bytes);
        let meant = |of: &KeyId| key_id.is_none_or(|key_id| key_id == of);
        let (go, stay): (VecDeque<_>, VecDeque<_>) = of_one.messages.into_iter().partition(|(of, _)| meant(of));
        if !stay.is_empty() {
            of_one.keys.retain(|of| !meant(of));
            of_one.bytes = stay.iter().map(|(_, message)| cost(message)).sum();
            self.bytes += of_one.bytes;
            self.senders.insert(sender.clone(), OfOne { messages: stay, ..of_one });
        }
        go.into_iter().map(|(_, message)| message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(name: &str) -> Principal {
        format!("spiffe://td/agent/{name}").parse().unwrap()
    }

    fn key(number: usize) -> KeyId {
        KeyId::of_bundle(&number.to_be_bytes())
    }

    fn message(number: usize, length: usize) -> Message {
        let subject = number.to_string().into();
        let (payload, reply, headers, status, description) = Default::default();
        Message { subject, reply, payload, headers, status, description, length }
    }

    fn fill(parked: &mut Parked, name: &str) -> usize {
        (0..).take_while(|number| parked.park(key(*number), &sender(name), message(*number, 0)).is_none()).count()
    }

    #[test]
    fn one_sender_takes_half_of_the_room_and_leaves_some_for_each_of_the_others() {
        let mut parked = Parked::default();
        assert_eq!(fill(&mut parked, "a"), MAX_BYTES / OVERHEAD / 2);
        assert!(fill(&mut parked, "b") > 4_000 && fill(&mut parked, "c") > 2_000);
        assert_eq!(parked.senders(), ["a", "b", "c"].map(sender));
        parked.take(&sender("a").endpoint, None);
        assert!(fill(&mut parked, "d") > 2_000);
    }

    #[test]
    fn what_waits_comes_out_in_its_order_and_its_room_is_free_again() {
        let mut parked = Parked::default();
        let agent = sender("a");
        for number in 0..6 {
            assert!(parked.park(key(number % 2), &agent, message(number, 10)).is_none());
        }
        let subjects =
            |messages: Vec<Message>| messages.iter().map(|next| next.subject.to_string()).collect::<Vec<_>>();
        assert_eq!(parked.waits(&agent.endpoint, &key(1)), Some(&agent));
        assert_eq!(subjects(parked.take(&agent.endpoint, Some(&key(1)))), ["1", "3", "5"]);
        assert_eq!(parked.waits(&agent.endpoint, &key(1)), None);
        assert_eq!(subjects(parked.take(&agent.endpoint, None)), ["0", "2", "4"]);
        assert!(parked.is_empty() && parked.bytes == 0);
    }
}
