//! What was sealed for somebody or something else, or was changed since.

use anyhow::Result;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Envelope, Sealed};

use super::super::epochs::Bound;
use super::super::identities::NOW;
use super::{
    CORE, EVENTS, INBOX, OTHER, STRANGER, Vectors, alert, bound, envelope, opened, recipient, sealed_envelope,
    sealed_with, telemetry, telemetry_said, with_sealed,
};

pub(super) fn recipients(vectors: &mut Vectors<'_>) -> Result<()> {
    let message = vectors.agent.sign(&sealed_envelope(&vectors.for_both(), EVENTS, &telemetry()))?;
    let comment = "it verifies, and is not for this receiver";
    vectors.add(STRANGER, "no recipient", comment, vec![message.refused("NotARecipient")]);
    let next = vectors.agent.epoch(5, &[recipient(CORE, 3)]);
    let comment = "the receiver has the versions 1 and 2";
    vectors.refuse(
        "a version that the receiver has not",
        comment,
        &sealed_envelope(&next, EVENTS, &telemetry()),
        "UnknownSealingKey",
    )?;
    let change = |envelope: &mut Envelope, change: &dyn Fn(&mut Sealed)| {
        if let Some(Payload::Sealed(sealed)) = &mut envelope.payload {
            change(sealed);
        }
    };
    let mut swapped = sealed_envelope(&vectors.for_both(), EVENTS, &telemetry());
    change(&mut swapped, &|it| {
        let first = it.wrapped_keys[0].wrapped.clone();
        it.wrapped_keys[0].wrapped = std::mem::replace(&mut it.wrapped_keys[1].wrapped, first);
    });
    let swapped = vectors.agent.sign(&swapped)?;
    for (receiver, name) in [(CORE, "swapped wrapped keys, the first"), (OTHER, "swapped wrapped keys, the second")] {
        let comment = "each recipient has the other's";
        vectors.add(receiver, name, comment, vec![swapped.refused("Opening.WrappedKey")]);
    }
    let mut relabelled = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
    change(&mut relabelled, &|it| it.wrapped_keys[0].key_version = 1);
    let comment = "wrapped to version 2, and called 1: the receiver has both";
    vectors.refuse("another version", comment, &relabelled, "Opening.WrappedKey")?;
    let mut fewer = sealed_envelope(&vectors.for_both(), EVENTS, &telemetry());
    change(&mut fewer, &|it| it.wrapped_keys.truncate(1));
    let comment = "the other recipient is taken away: the keys derive from all of them";
    vectors.refuse("a recipient fewer", comment, &fewer, "Opening.Commitment")?;
    let mut more = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
    change(&mut more, &|it| {
        let mut added = it.wrapped_keys[0].clone();
        added.recipient = OTHER.into();
        it.wrapped_keys.push(added);
    });
    vectors.refuse("a recipient more", "whoever it is cannot open it", &more, "Opening.Commitment")?;
    let mut renamed = sealed_envelope(&vectors.for_both(), EVENTS, &telemetry());
    change(&mut renamed, &|it| it.wrapped_keys[1].key_version = 2);
    let comment = "the version of the other recipient's key";
    vectors.refuse("another's version", comment, &renamed, "Opening.Commitment")?;
    shown_differently(vectors)
}

/// A sender wraps another secret to each of two recipients.
fn shown_differently(vectors: &mut Vectors<'_>) -> Result<()> {
    let (one, mut other) = (vectors.for_both(), vectors.for_both());
    other.secret = [0x66; 32];
    let mut envelope = sealed_envelope(&one, EVENTS, &telemetry());
    if let Some(Payload::Sealed(sealed)) = &mut envelope.payload {
        sealed.wrapped_keys[1].wrapped = other.wrap(1).into();
    }
    let message = vectors.agent.sign(&envelope)?;
    let step = message.then(opened(Some(telemetry()), vec![telemetry_said()]));
    let comment = "the commitment is to the first one's";
    vectors.add(CORE, "two secrets, the first recipient", comment, vec![step]);
    let step = message.refused("Opening.Commitment");
    vectors.add(OTHER, "two secrets, the second recipient", comment, vec![step]);
    Ok(())
}

/// A content that is bound to another message than the one around it.
pub(super) fn associated_data(vectors: &mut Vectors<'_>) -> Result<()> {
    type Change = (&'static str, fn(&mut Bound));
    let changes: [Change; 15] = [
        ("part", |it| it.part = 2),
        ("key id", |it| it.key_id[0] ^= 1),
        ("recipients", |it| it.recipients_digest[31] ^= 1),
        ("sequence", |it| it.sequence = 2),
        ("missing sequence", |it| it.sequence = 0),
        ("expiry", |it| it.expires_at = 0),
        ("later expiry", |it| it.expires_at += 1),
        ("sender", |it| it.sender = "spiffe://ransomeye.test/agent/agent-02".into()),
        ("trust domain", |it| it.sender = "spiffe://elsewhere.test/agent/agent-01".into()),
        ("subject", |it| it.subject = "ransomeye.inbox.core.core-02.alert.agent.agent-01".into()),
        ("root", |it| it.subject = it.subject.replace("ransomeye", "acme")),
        ("type", |it| it.message_type = "telemetry".into()),
        ("message_id", |it| it.message_id = "01a0f1a2-0000-7000-8000-000000000002".into()),
        ("type that runs into the subject", |it| {
            it.subject.push('a');
            it.message_type.remove(0);
        }),
        ("empty texts", |it| {
            (it.sender, it.subject) = (String::new(), String::new());
            (it.message_type, it.message_id) = (String::new(), String::new());
        }),
    ];
    let epoch = vectors.for_core();
    for (name, change) in changes {
        let envelope = Envelope { expires_at: NOW + 60_000, ..envelope(INBOX, 1) };
        let mut other = bound(&envelope, &epoch, 1);
        change(&mut other);
        let sealed = sealed_with(&epoch, 0, true, epoch.seal(0, &other.data(), &alert()));
        let envelope = with_sealed(envelope, sealed);
        let comment = "sealed for another message than the one that was signed";
        vectors.refuse(&format!("bound to another {name}"), comment, &envelope, "Opening.Ciphertext")?;
    }
    let envelope = envelope(INBOX, 1);
    let data = bound(&envelope, &epoch, 1).data();
    for (name, data) in [
        ("nothing", Vec::new()),
        ("another context", [&b"ransomeye.v2"[..], &data[12..]].concat()),
        ("a context without its zero byte", [&data[..27], &data[28..]].concat()),
    ] {
        let sealed = sealed_with(&epoch, 0, true, epoch.seal(0, &data, &alert()));
        let envelope = with_sealed(envelope.clone(), sealed);
        vectors.refuse(&format!("bound to {name}"), "another domain", &envelope, "Opening.Ciphertext")?;
    }
    Ok(())
}

pub(super) fn altered(vectors: &mut Vectors<'_>) -> Result<()> {
    type Change = (&'static str, fn(&mut Sealed), &'static str);
    let flip = |bytes: &mut prost::bytes::Bytes, place: usize| {
        let mut changed = bytes.to_vec();
        changed[place] ^= 1;
        *bytes = changed.into();
    };
    let changes: [(Change, usize); 8] = [
        (("epoch_id", |it| it.epoch_id = vec![9; 16].into(), "Opening.WrappedKey"), 0),
        (("commitment", |it| it.commitment = vec![9; 32].into(), "Opening.Commitment"), 0),
        (("counter", |it| it.counter = 1, "Opening.Ciphertext"), 0),
        (("counter of 2^32 - 1", |it| it.counter = u64::from(u32::MAX), "Opening.Ciphertext"), 0),
        (("ciphertext, cut off", |it| drop(it.ciphertext.split_off(20)), "Opening.Ciphertext"), 0),
        (
            (
                "ciphertext, longer",
                |it| it.ciphertext = [&it.ciphertext[..], &[0]].concat().into(),
                "Opening.Ciphertext",
            ),
            0,
        ),
        (("ciphertext", |_| (), "Opening.Ciphertext"), 1),
        (("tag", |_| (), "Opening.Ciphertext"), 2),
    ];
    for ((name, change, reason), flips) in changes {
        let mut envelope = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
        if let Some(Payload::Sealed(sealed)) = &mut envelope.payload {
            change(sealed);
            let last = sealed.ciphertext.len() - 1;
            match flips {
                1 => flip(&mut sealed.ciphertext, 0),
                2 => flip(&mut sealed.ciphertext, last),
                _ => {}
            }
        }
        let comment = "changed after it was sealed, and signed all the same";
        vectors.refuse(&format!("altered {name}"), comment, &envelope, reason)?;
    }
    let mut both = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
    if let Some(Payload::Sealed(sealed)) = &mut both.payload {
        sealed.commitment = vec![9; 32].into();
        sealed.counter = 1;
    }
    let comment = "nothing is opened under a key that is not committed to";
    vectors.refuse("altered commitment and counter", comment, &both, "Opening.Commitment")?;
    let good = vectors.agent.sign(&sealed_envelope(&vectors.for_core(), EVENTS, &telemetry()))?;
    let mut unsigned = good;
    let last = unsigned.message.len() - 1;
    unsigned.message[last] ^= 1;
    let comment = "nothing is opened before the signature holds";
    vectors.add(CORE, "another signature", comment, vec![unsigned.refused("Signature.Mismatch")]);
    Ok(())
}

/// What was sealed by one is sent by another.
pub(super) fn replayed(vectors: &mut Vectors<'_>) -> Result<()> {
    let stolen = sealed_envelope(&vectors.for_core(), EVENTS, &telemetry());
    let first = vectors.agent.sign(&stolen)?;
    let mine = Envelope {
        source_component: "agent-02".into(),
        subject: "ransomeye.events.telemetry.agent.agent-02".into(),
        ..stolen
    };
    let replayed = vectors.thief.sign(&mine)?;
    let comment = "an epoch of another key: what was wrapped is bound to the key id";
    vectors.add(CORE, "another's sealed payload", comment, vec![replayed.refused("Opening.WrappedKey")]);
    let mut bare = mine;
    if let Some(Payload::Sealed(sealed)) = &mut bare.payload {
        sealed.wrapped_keys.clear();
    }
    let bare = vectors.thief.sign(&bare)?;
    let steps = vec![
        first.then(opened(Some(telemetry()), vec![telemetry_said()])),
        replayed.refused("Opening.WrappedKey"),
        bare.refused("UnknownEpoch"),
    ];
    vectors.add(CORE, "another's epoch", "an epoch that the receiver knows is known under its own key id alone", steps);
    Ok(())
}
