//! A decision allocates nothing, whether it allows or denies, and neither do the form and the delivery of a message.
#![allow(unsafe_code, reason = "a counting allocator has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use bus_acl::{Action, DeliveryRule, Destinations, FormRule, Policy, Sealing, Types, can_publish};
use bus_proto::{Destination, MessageType, Principal};

/// The system's allocator, counting per thread what it is asked for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    black_box(work());
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| Box::new(1)), 1);
}

#[test]
fn a_decision_allocates_nothing() {
    let policy = Policy::default();
    let agent: Principal = "spiffe://ransomeye.local/agent/a1".parse().unwrap();
    let core = Destination::Inbox("core/c1".parse().unwrap());
    let custom: MessageType = "x-disk-usage".parse().unwrap();
    let mut permits = 0;
    for action in [Action::Publish, Action::Subscribe] {
        for message_type in MessageType::BUILT_IN.iter().chain([&custom]) {
            for destination in [&Destination::Events, &core, &Destination::Inbox(agent.endpoint.clone())] {
                let mut permitted = false;
                let count = allocations(|| {
                    let decision = policy.authorize(&agent, action, message_type, destination);
                    permitted = decision.is_ok();
                    decision
                });
                assert_eq!(count, 0, "{action} {message_type} {destination}");
                permits += usize::from(permitted);
            }
        }
    }
    // Both kinds of answer were among them.
    assert!((1..42).contains(&permits));
}

#[test]
fn how_messages_travel_is_decided_without_an_allocation() {
    let core = "core/c1".parse().unwrap();
    let rule = FormRule::seal(Types::EVERY, Destinations::Events, Sealing::On).with_recipients([core]);
    let policy = Policy::default().with_forms([rule]);
    let mut recipients = 0;
    let count = allocations(|| {
        let form = policy.form(&MessageType::Alert, &Destination::Events);
        recipients = form.recipients().count();
        (form.sealing(), form.compress())
    });
    assert_eq!((count, recipients), (0, 1));
}

#[test]
fn how_messages_are_delivered_is_decided_without_an_allocation() {
    let rule = DeliveryRule::durable(Types::EVERY, Destinations::Events, 90_000);
    let policy = Policy::default().with_deliveries([rule]).unwrap();
    let mut durable = false;
    let count = allocations(|| durable = policy.delivery(&MessageType::Alert, &Destination::Events).is_durable());
    assert_eq!((count, durable), (0, true));
}

#[test]
fn can_publish_allocates_nothing_for_the_built_in_types() {
    assert_eq!(allocations(|| can_publish("agent", "TelemetryEvent")), 0);
    assert_eq!(allocations(|| can_publish("agent", "CommandRequest")), 0);
    assert_eq!(allocations(|| can_publish("nobody", "CommandRequest")), 0);
}
