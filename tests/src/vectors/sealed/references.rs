//! Sealed references.

use anyhow::Result;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Envelope, Heartbeat, Sealed};

use super::super::epochs::Epoch;
use super::super::file::{Opened, Outcome, Said};
use super::super::form::{self, bytes, number};
use super::{
    CORE, EVENTS, OTHER, Vectors, bound, envelope, opened, recipient, seal, sealed_envelope, sealed_with, telemetry,
    telemetry_said, values, with_sealed,
};

/// References, sealed in an epoch of their own.
fn with_references(epoch: &Epoch, envelope: Envelope, with_keys: bool, content: &[u8]) -> Envelope {
    let ciphertext = epoch.seal(0, &bound(&envelope, epoch, 2).data(), content);
    Envelope { references: Some(sealed_with(epoch, 0, with_keys, ciphertext)), ..envelope }
}

fn two_references() -> Vec<u8> {
    let one = |kind: &[u8], value: &[u8]| bytes(1, &[bytes(1, kind), bytes(2, value)].concat());
    [one(b"case", b"4711"), one(b"host", b"https://cmdb.example/hosts/7")].concat()
}

fn with_two(outcome: Outcome<Opened>) -> Outcome<Opened> {
    let Outcome::Accepted(opened) = outcome else { return outcome };
    let two = [("case", "4711"), ("host", "https://cmdb.example/hosts/7")];
    let references = Some(two.map(|(kind, value)| (kind.to_owned(), value.to_owned())).to_vec());
    Outcome::Accepted(Opened { references, ..opened })
}

pub(super) fn accepted(vectors: &mut Vectors<'_>) -> Result<()> {
    let payload = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
    let said = || opened(Some(telemetry()), vec![telemetry_said()]);
    let mine = vectors.agent.epoch(6, &[recipient(CORE, 1)]);
    let both = with_references(&mine, payload.clone(), true, &two_references());
    let comment = "they have recipients and an epoch of their own";
    vectors.add_one("references", comment, &both, with_two(said()))?;
    let others = vectors.agent.epoch(7, &[recipient(OTHER, 1)]);
    let foreign = with_references(&others, payload.clone(), true, &two_references());
    let comment = "the message is for this receiver, its references are not";
    vectors.add_one("references for others", comment, &foreign, said())?;
    let plain = Envelope {
        payload: Some(Payload::Heartbeat(Heartbeat::default())),
        ..envelope("ransomeye.events.heartbeat.agent.agent-01", 1)
    };
    let beat = Said { field: 13, values: values(&[("uptime", "0"), ("version", "")]) };
    let plain = with_references(&mine, plain, true, &two_references());
    let comment = "only the references are sealed";
    vectors.add_one("references of a plain message", comment, &plain, with_two(opened(None, vec![beat])))?;
    let epoch = vectors.for_core();
    let envelope = envelope(EVENTS, 1);
    let sealed = seal(&epoch, &envelope, 1, true, &telemetry());
    let same = with_references(&epoch, with_sealed(envelope, sealed), true, &two_references());
    let comment = "both parts in one epoch, under two counters";
    vectors.add_one("references of the same epoch", comment, &same, with_two(said()))?;
    let bare = with_references(&mine, payload, false, &two_references());
    let bare = vectors.agent.sign(&bare)?;
    let known = vectors.agent.sign(&both)?;
    let comment = "references name their recipients in every message: without, they are nobody's";
    vectors.add(
        CORE,
        "references without wrapped keys",
        comment,
        vec![known.then(with_two(said())), bare.then(said())],
    );
    Ok(())
}

pub(super) fn refused(vectors: &mut Vectors<'_>) -> Result<()> {
    let payload = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
    let mine = vectors.agent.epoch(6, &[recipient(CORE, 1)]);
    let refuse = |vectors: &mut Vectors<'_>, name: &str, change: fn(&mut Sealed), reason: &str| {
        let mut envelope = with_references(&mine, payload.clone(), true, &two_references());
        envelope.references.iter_mut().for_each(change);
        let comment = "the whole message is refused by whom the references are for";
        vectors.refuse(&format!("references: {name}"), comment, &envelope, reason)
    };
    refuse(vectors, "altered commitment", |it| it.commitment = vec![9; 32].into(), "Opening.Commitment")?;
    refuse(vectors, "altered counter", |it| it.counter = 1, "Opening.Ciphertext")?;
    refuse(vectors, "another version", |it| it.wrapped_keys[0].key_version = 2, "Opening.WrappedKey")?;
    refuse(vectors, "an unknown version", |it| it.wrapped_keys[0].key_version = 3, "UnknownSealingKey")?;
    let ciphertext = mine.seal(0, &bound(&payload, &mine, 1).data(), &two_references());
    let as_payload = Envelope { references: Some(sealed_with(&mine, 0, true, ciphertext)), ..payload.clone() };
    let comment = "each part is bound to its place";
    vectors.refuse("references: sealed as a payload", comment, &as_payload, "Opening.Ciphertext")?;
    let ciphertext = mine.seal(0, &bound(&payload, &mine, 2).data(), &telemetry());
    let swapped = with_sealed(envelope(EVENTS, 1), sealed_with(&mine, 0, true, ciphertext));
    vectors.refuse("a payload sealed as references", comment, &swapped, "Opening.Ciphertext")?;
    for (name, content, reason, place) in [
        ("none", number(1_000, 1), "Scan.Missing", "references"),
        ("a payload", telemetry(), "Scan.UnknownField", "references"),
        ("an empty kind", bytes(1, &[bytes(1, b""), bytes(2, b"1")].concat()), "Scan.ExplicitDefault", "reference 0"),
        ("no value", [two_references(), bytes(1, &bytes(1, b"case"))].concat(), "Scan.Missing", "reference 2"),
    ] {
        let envelope = with_references(&mine, payload.clone(), true, &content);
        let outcome = form::refused(reason, Some(place));
        vectors.add_one(&format!("references: {name}"), "as canonical as anything", &envelope, outcome)?;
    }
    Ok(())
}
