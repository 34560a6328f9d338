//! A replay window belongs to one key and takes verified messages only.

use bus_crypto::{ReplayError, ReplayGuard, VerifiedBundle, VerifiedPrefix, envelope};
use bus_proto::v1::Envelope;

use crate::support::{Component, LeafPair, clock, domain};

fn verified<'a>(message: &'a [u8], bundle: &VerifiedBundle) -> VerifiedPrefix<'a> {
    envelope::verify(message, bundle, &domain(), &clock()).unwrap()
}

fn numbered(component: &Component, sequence: u64) -> Vec<u8> {
    component.sign(&Envelope { sequence, ..component.telemetry() })
}

#[test]
fn a_verified_message_is_received_once() {
    let agent = Component::agent();
    let bundle = agent.verified();
    let mut guard = ReplayGuard::new(agent.made.key_id);
    let (seven, ten) = (numbered(&agent, 7), numbered(&agent, 10));
    let fresh = guard.check(&verified(&seven, &bundle)).unwrap();
    assert_eq!(guard.commit(fresh), Ok(None));
    assert_eq!(guard.check(&verified(&seven, &bundle)), Err(ReplayError::Repeated { sequence: 7 }));
    let fresh = guard.check(&verified(&ten, &bundle)).unwrap();
    let gap = guard.commit(fresh).unwrap().unwrap();
    assert_eq!((gap.first, gap.last, gap.count()), (8, 9, 2));
    let uncounted = numbered(&agent, 0);
    assert_eq!(guard.check(&verified(&uncounted, &bundle)), Err(ReplayError::NotCounted));
}

#[test]
fn a_guard_takes_the_messages_of_its_own_key_only() {
    let agent = Component::agent();
    let other = Component::new("spiffe://ransomeye.local/agent/agent-01", 8, LeafPair::ed25519());
    let (ours, theirs) = (agent.made.key_id, other.made.key_id);
    let (mut guard, other_guard) = (ReplayGuard::new(ours), ReplayGuard::new(theirs));
    assert_eq!(guard.key_id(), ours);
    let message = numbered(&other, u64::MAX);
    let bundle = other.verified();
    let expected = ReplayError::OtherKey { stated: theirs, guarded: ours };
    assert_eq!(guard.check(&verified(&message, &bundle)), Err(expected));
    // Nor does it remember what another key's guard has found to be new.
    let fresh = other_guard.check(&verified(&message, &bundle)).unwrap();
    assert_eq!(guard.commit(fresh), Err(expected));
    let message = numbered(&agent, 1);
    assert!(guard.check(&verified(&message, &agent.verified())).is_ok(), "no number was used up");
}
