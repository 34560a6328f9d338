//! Scanning a single message allocates nothing, whether it is accepted or refused.
#![allow(unsafe_code, reason = "a counting allocator has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use bus_crypto::{scan, trailer};
use bus_proto::prost::Message;
use bus_proto::v1::{Envelope, Heartbeat, Sealed, TraceContext, WrappedKey, envelope::Payload};
use bus_proto::{ComponentId, IdentityError};

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
fn a_single_message_is_read_without_an_allocation() -> Result<(), IdentityError> {
    let beat = Heartbeat { uptime: 1, version: "0.1.0".into() };
    let mut envelope = Envelope::new(&ComponentId::new("agent-01")?, beat, 1_790_000_000_000, [7; 10]);
    envelope.subject = "ransomeye.events.heartbeat.agent.agent-01".into();
    envelope.tags = vec!["one".into(), "two".into()];
    let labelled = envelope.encode_to_vec();
    assert_eq!(allocations(|| scan(&labelled).is_ok()), 1, "the list of the tags");
    envelope.tags.clear();
    let prefix = envelope.encode_to_vec();
    assert!(scan(&prefix).is_ok());
    assert_eq!(allocations(|| scan(&prefix).is_ok()), 0);
    let mut message = prefix.clone();
    trailer::append(&mut message, &bus_crypto::KeyId::of_bundle(b"any"), &signature());
    assert!(trailer::split(&message).is_ok());
    assert_eq!(allocations(|| trailer::split(&message).is_ok()), 0);
    for length in 0..prefix.len() {
        assert_eq!(allocations(|| scan(&prefix[..length]).is_ok()), 0, "{length} bytes");
    }
    Ok(())
}

#[test]
fn of_something_sealed_only_the_list_of_its_wrapped_keys_is_allocated() -> Result<(), IdentityError> {
    let key = |recipient: usize| WrappedKey {
        recipient: format!("spiffe://ransomeye.local/core/core-{recipient:03}"),
        key_version: 1,
        wrapped: vec![9; 80].into(),
    };
    let sealed = |recipients: usize| Sealed {
        epoch_id: vec![1; 16].into(),
        commitment: vec![2; 32].into(),
        counter: 1,
        ciphertext: vec![3; 64].into(),
        wrapped_keys: (0..recipients).map(key).collect(),
    };
    // A list doubles as it grows: 4, 8, 16, 32, 64, 128, 256.
    for (recipients, lists) in [(0, 0), (1, 1), (256, 7)] {
        let payload = Payload::Sealed(sealed(recipients));
        let mut envelope = Envelope::new(&ComponentId::new("agent-01")?, payload, 1_790_000_000_000, [7; 10]);
        envelope.subject = "ransomeye.events.alert.agent.agent-01".into();
        envelope.trace_context = Some(TraceContext { traceparent: "00".into(), tracestate: "a=b".into() });
        let prefix = envelope.encode_to_vec();
        assert!(scan(&prefix).is_ok());
        assert_eq!(allocations(|| scan(&prefix).is_ok()), lists, "{recipients} recipients");
        envelope.references = Some(sealed(recipients));
        let prefix = envelope.encode_to_vec();
        assert!(scan(&prefix).is_ok());
        assert_eq!(allocations(|| scan(&prefix).is_ok()), 2 * lists, "{recipients} recipients, references");
    }
    Ok(())
}

#[test]
fn a_wrapped_key_that_is_refused_is_refused_without_an_allocation() -> Result<(), IdentityError> {
    let key = WrappedKey { recipient: "spiffe://ransomeye.local/core/core-01".into(), ..WrappedKey::default() };
    let sealed = Sealed {
        epoch_id: vec![1; 16].into(),
        commitment: vec![2; 32].into(),
        ciphertext: vec![3; 64].into(),
        wrapped_keys: vec![key; 10_000],
        ..Sealed::default()
    };
    let mut envelope =
        Envelope::new(&ComponentId::new("agent-01")?, Payload::Sealed(sealed), 1_790_000_000_000, [7; 10]);
    envelope.subject = "ransomeye.events.alert.agent.agent-01".into();
    let prefix = envelope.encode_to_vec();
    assert!(scan(&prefix).is_err());
    assert_eq!(allocations(|| scan(&prefix).is_ok()), 0);
    Ok(())
}

#[cfg(feature = "zstd")]
#[test]
fn a_frame_that_is_none_or_states_another_length_is_refused_without_an_allocation() {
    use bus_crypto::compression::{CompressionError, decompress};

    // Ten times one byte.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 10, 0x53, 0, 0, b'a'];
    assert_eq!(decompress(10, &frame, 10), Ok(vec![b'a'; 10]), "the control");
    let with_dictionary = [&frame[..4], &[0x21, 7], &frame[5..]].concat();
    let twice = frame.repeat(2);
    let cases: [(u32, &[u8], CompressionError); 5] = [
        (8_000_001, &frame, CompressionError::TooLong { length: 8_000_001, max: 8_000_000 }),
        (8_000_000, &frame, CompressionError::Length { length: 8_000_000 }),
        (8_000_000, &frame[..9], CompressionError::NotOneFrame),
        (8_000_000, &twice, CompressionError::NotOneFrame),
        (8_000_000, &with_dictionary, CompressionError::Dictionary),
    ];
    for (length, frame, expected) in cases {
        assert_eq!(decompress(length, frame, 8_000_000), Err(expected));
        assert_eq!(allocations(|| decompress(length, frame, 8_000_000)), 0, "{expected}");
    }
}

fn signature() -> bus_crypto::keys::Signature {
    bus_crypto::keys::Signature::from_bytes([0; 64])
}
