//! Sealed and compressed payloads, and sealed references, as far as everybody may read them.

use super::corruptions::Subject;
use super::file::{Bytes, Reading, SealedReading};
use super::form::{bytes, number};
use super::scans::{Vectors, reading, with_payload};

/// A recipient of this name.
fn wrapped_key(component: &str) -> Vec<Vec<u8>> {
    let recipient = format!("spiffe://ransomeye.test/core/{component}");
    vec![bytes(1, recipient.as_bytes()), number(2, 3), bytes(3, &[0x77; 80])]
}

/// This many recipients, in ascending order.
fn wrapped_keys(count: usize) -> Vec<u8> {
    (0..count).flat_map(|index| bytes(5, &wrapped_key(&format!("core-{index:03}")).concat())).collect()
}

/// Something sealed for two recipients: of its fields, the last but one is the first recipient's.
pub(crate) fn sealed_fields() -> Vec<Vec<u8>> {
    vec![
        bytes(1, &[1; 16]),
        bytes(2, &[2; 32]),
        number(3, 9),
        bytes(4, b"ciphertext and tag"),
        bytes(5, &wrapped_key("core-01").concat()),
        bytes(5, &wrapped_key("core-02").concat()),
    ]
}

/// What it reads as.
pub(crate) fn sealed_reading() -> SealedReading {
    let recipient = |component: &str| (format!("spiffe://ransomeye.test/core/{component}"), "3".into());
    SealedReading {
        epoch_id: Bytes(vec![1; 16]),
        commitment: Bytes(vec![2; 32]),
        counter: "9".into(),
        ciphertext_length: 18,
        recipients: vec![recipient("core-01"), recipient("core-02")],
    }
}

pub(crate) fn add(vectors: &mut Vectors) {
    accepted(vectors);
    let in_payload = |message: &[u8]| with_payload(17, message);
    let in_references = |message: &[u8]| [with_payload(13, &[]), bytes(23, message)].concat();
    sealed(vectors, "payload", "sealed", in_payload);
    sealed(vectors, "references", "references", in_references);
    for (place, title, before) in [("wrapped key 0", "first wrapped key", 0), ("wrapped key 2", "third wrapped key", 2)]
    {
        wrapped(vectors, place, title, before, in_payload);
    }
    wrapped(vectors, "references", "wrapped key of references", 1, in_references);
    compressed(vectors);
    let both = [with_payload(17, &sealed_fields()[1..].concat()), bytes(21, &[0x80]), bytes(23, &[0x80])].concat();
    let comment = "the payload comes before the trace context, and that before the references";
    vectors.refuse("sealed: the payload comes first", comment, both, "Missing", "payload");
    let both = [with_payload(13, &[]), bytes(21, &[0x80]), bytes(23, &[0x80])].concat();
    vectors.refuse("references: the trace context comes first", comment, both, "Truncated", "trace context");
}

fn accepted(vectors: &mut Vectors) {
    let mut accept = |name: &str, comment: &str, payload: &[u8], sealed: SealedReading| {
        let prefix = with_payload(17, payload);
        let read = reading(17, prefix.len() - payload.len(), prefix.len());
        vectors.accept(name, comment, prefix, Reading { sealed: Some(sealed), ..read });
    };
    accept("sealed", "for two recipients", &sealed_fields().concat(), sealed_reading());
    let later = SealedReading { recipients: Vec::new(), ..sealed_reading() };
    let comment = "the wrapped keys came with an earlier message of the epoch";
    accept("sealed without wrapped keys", comment, &sealed_fields()[..4].concat(), later.clone());
    let shortest = [&sealed_fields()[..2], &[bytes(4, &[4; 17])]].concat().concat();
    let read = SealedReading { counter: "0".into(), ciphertext_length: 17, ..later.clone() };
    accept("sealed, shortest", "counter 0 is absent, and one byte was sealed", &shortest, read);
    let last = [&sealed_fields()[..2], &[number(3, u32::MAX.into()), bytes(4, &[4; 17])]].concat().concat();
    let read = SealedReading { counter: u32::MAX.to_string(), ciphertext_length: 17, ..later };
    accept("sealed with the last counter", "2^32 - 1", &last, read);
    let many = [sealed_fields()[..4].concat(), wrapped_keys(256)].concat();
    let name = |index| (format!("spiffe://ransomeye.test/core/core-{index:03}"), "3".into());
    let read = SealedReading { recipients: (0..256).map(name).collect(), ..sealed_reading() };
    accept("sealed for 256", "as many recipients as there may be", &many, read);
    let order = ["a", "a-", "a0", "aa", "b"];
    let keys = |(version, recipient): (u64, &&str)| {
        bytes(5, &[bytes(1, recipient.as_bytes()), number(2, version), bytes(3, &[0])].concat())
    };
    let ordered: Vec<u8> = (1..).zip(&order).flat_map(keys).collect();
    let recipients = (1..).zip(order).map(|(version, name): (u64, _)| (name.to_owned(), version.to_string())).collect();
    let read = SealedReading { recipients, ..sealed_reading() };
    let comment = "by the values of their bytes; a name comes before one that begins with it. No name is looked into";
    accept("recipients in order", comment, &[sealed_fields()[..4].concat(), ordered].concat(), read);

    for (name, length, frame) in [("compressed", 300_u32, 40), ("compressed, longest", 8_388_608, 1)] {
        let payload = [number(1, length.into()), bytes(2, &vec![0x28; frame])].concat();
        let prefix = with_payload(19, &payload);
        let read = reading(19, prefix.len() - payload.len(), prefix.len());
        let length = usize::try_from(length).expect("32 bits");
        let comment = "what the frame holds is found out later";
        vectors.accept(name, comment, prefix, Reading { compressed: Some([length, frame]), ..read });
    }
}

fn sealed(vectors: &mut Vectors, place: &'static str, title: &'static str, wrap: impl Fn(&[u8]) -> Vec<u8>) {
    let subject = Subject {
        place,
        title,
        fields: sealed_fields(),
        once: Some(3),
        closed: false,
        replacements: vec![
            ("epoch_id short", "15 bytes", 0, bytes(1, &[1; 15]), "OutOfBounds"),
            ("commitment long", "33 bytes", 1, bytes(2, &[2; 33]), "OutOfBounds"),
            ("counter 0", "0 is not encoded", 2, number(3, 0), "ExplicitDefault"),
            ("counter 2^32", "the last is 2^32 - 1", 2, number(3, 1 << 32), "OutOfBounds"),
            ("ciphertext empty", "from 17 bytes", 3, bytes(4, b""), "ExplicitDefault"),
            ("ciphertext short", "16 bytes: a tag, and nothing that was sealed", 3, bytes(4, &[4; 16]), "OutOfBounds"),
            ("257 recipients", "at most 256", 4, wrapped_keys(256), "OutOfBounds"),
            ("a wrapped key as a number", "wire type 2", 4, number(5, 1), "WrongWireType"),
        ],
        mandatory: vec![(0, "epoch_id"), (1, "commitment"), (3, "ciphertext")],
    };
    vectors.corrupt(&subject, wrap);
}

fn wrapped(
    vectors: &mut Vectors,
    place: &'static str,
    title: &'static str,
    before: usize,
    wrap: impl Fn(&[u8]) -> Vec<u8>,
) {
    let mut replacements = vec![
        ("recipient too long", "513 bytes", 0, bytes(1, &[b'r'; 513]), "OutOfBounds"),
        ("recipient not UTF-8", "not UTF-8", 0, bytes(1, &[0xff]), "NotUtf8"),
        ("recipient empty", "1 to 512 bytes", 0, bytes(1, b""), "ExplicitDefault"),
        ("key_version 0", "0 is not encoded", 1, number(2, 0), "ExplicitDefault"),
        ("key_version as bytes", "wire type 0", 1, bytes(2, b"3"), "WrongWireType"),
        ("wrapped empty", "from 1 byte", 2, bytes(3, b""), "ExplicitDefault"),
        ("wrapped too long", "2,049 bytes", 2, bytes(3, &[0x77; 2_049]), "OutOfBounds"),
    ];
    if before > 0 {
        let last = &wrapped_key(&format!("core-{:03}", before - 1))[0];
        let twice = "the recipient of the wrapped key before it";
        replacements.push(("recipient twice", twice, 0, last.clone(), "UnorderedRecipients"));
        let earlier = bytes(1, b"spiffe://ransomeye.test/agent/agent-01");
        let comment = "`agent` comes before `core`";
        replacements.push(("recipients out of order", comment, 0, earlier, "UnorderedRecipients"));
    }
    let subject = Subject {
        place,
        title,
        fields: wrapped_key("core-999"),
        once: Some(1),
        closed: false,
        replacements,
        mandatory: vec![(0, "recipient"), (1, "key_version"), (2, "wrapped")],
    };
    vectors.corrupt(&subject, |message| {
        wrap(&[sealed_fields()[..4].concat(), wrapped_keys(before), bytes(5, message)].concat())
    });
}

fn compressed(vectors: &mut Vectors) {
    let subject = Subject {
        place: "payload",
        title: "compressed",
        fields: vec![number(1, 300), bytes(2, &[0x28; 40])],
        once: Some(0),
        closed: false,
        replacements: vec![
            ("length 0", "0 is not encoded", 0, number(1, 0), "ExplicitDefault"),
            ("length too large", "one above 8,388,608", 0, number(1, 8_388_609), "OutOfBounds"),
            ("length 2^32 + 1", "a decoder would cut it off to 1", 0, number(1, (1 << 32) + 1), "OutOfBounds"),
            ("length as bytes", "wire type 0", 0, bytes(1, b"3"), "WrongWireType"),
            ("frame empty", "from 1 byte", 1, bytes(2, b""), "ExplicitDefault"),
        ],
        mandatory: vec![(0, "length"), (1, "frame")],
    };
    vectors.corrupt(&subject, |message| with_payload(19, message));
}
