//! What a signed message has to be.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::Ed25519KeyPair;
use bus_crypto::trailer::{self, TRAILER_LEN};
use bus_crypto::{Clock, EnvelopeError, KeyId, Refusal, SignatureError, Unverified, envelope};
use bus_proto::TrustDomain;
use bus_proto::prost::Message;
use bus_proto::v1::Envelope;
use proptest::prelude::*;

use crate::support::{Component, LeafPair, NOW, SKEW, batch, clock, domain, lifetime};

fn refused(component: &Component, message: &[u8]) -> EnvelopeError {
    envelope::verify(message, &component.verified(), &domain(), &clock()).unwrap_err()
}

#[test]
fn a_signed_message_is_verified_and_decodes_to_what_was_sent() {
    let agent = Component::agent();
    let sent = agent.telemetry();
    let message = agent.sign(&sent);
    let bundle = agent.verified();
    let verified = envelope::verify(&message, &bundle, &domain(), &clock()).unwrap();
    assert_eq!(verified.principal(), agent.principal());
    assert_eq!(verified.key_id(), agent.made.key_id);
    assert_eq!(Envelope::decode(verified.prefix()).unwrap(), sent);
    assert_eq!(verified.scan().subject(), sent.subject);
    assert_eq!(verified.digest().as_slice(), digest(&SHA256, verified.prefix()).as_ref());
}

#[test]
fn sender_and_receiver_agree_on_the_digest_that_an_answer_names() {
    let agent = Component::agent();
    let signed = envelope::sign(agent.telemetry().encode_to_vec(), &agent.key, &agent.made.key_id).unwrap();
    let bundle = agent.verified();
    assert_eq!(envelope::verify(&signed.bytes, &bundle, &domain(), &clock()).unwrap().digest(), &signed.digest);
}

#[test]
fn signing_into_reserved_space_copies_nothing() {
    let agent = Component::agent();
    let sent = agent.telemetry();
    let mut prefix = Vec::with_capacity(sent.encoded_len() + TRAILER_LEN);
    sent.encode(&mut prefix).unwrap();
    let before = prefix.as_ptr();
    let signed = envelope::sign(prefix, &agent.key, &agent.made.key_id).unwrap();
    assert_eq!(signed.bytes.as_ptr(), before);
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let agent = Component::agent();
    let bundle = agent.verified();
    let mut envelope = agent.envelope(batch(2));
    envelope.bundle = agent.made.encoded.clone().into();
    for sent in [agent.telemetry(), envelope] {
        let mut message = agent.sign(&sent);
        for bit in 0..message.len() * 8 {
            message[bit / 8] ^= 1 << (bit % 8);
            assert!(envelope::verify(&message, &bundle, &domain(), &clock()).is_err(), "bit {bit}");
            message[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(envelope::verify(&message, &bundle, &domain(), &clock()).is_ok());
    }
}

#[test]
fn an_unsigned_message_is_refused() {
    let agent = Component::agent();
    let prefix = agent.telemetry().encode_to_vec();
    assert!(matches!(refused(&agent, &prefix), EnvelopeError::Trailer(_)));
    let message = agent.sign(&agent.telemetry());
    assert!(matches!(refused(&agent, &message[..message.len() - 1]), EnvelopeError::Trailer(_)));
}

#[test]
fn a_spliced_trailer_is_refused() {
    let agent = Component::agent();
    let (one, mut other) = (agent.telemetry(), agent.telemetry());
    other.sequence = 2;
    let (one, other) = (agent.sign(&one), agent.sign(&other));
    let spliced = [&one[..one.len() - TRAILER_LEN], &other[other.len() - TRAILER_LEN..]].concat();
    assert_eq!(refused(&agent, &spliced), EnvelopeError::Signature(SignatureError::Mismatch));
    let twice = [&one[..], &one[one.len() - TRAILER_LEN..]].concat();
    assert!(matches!(refused(&agent, &twice), EnvelopeError::Scan(error) if error.refusal == Refusal::SecondTrailer));
}

#[test]
fn a_truncated_batch_is_refused() {
    let agent = Component::agent();
    let trailer_of = |message: &[u8]| message[message.len() - TRAILER_LEN..].to_vec();
    let three = agent.sign(&agent.envelope(batch(3)));
    let two = [agent.envelope(batch(2)).encode_to_vec(), trailer_of(&three)].concat();
    assert_eq!(refused(&agent, &two), EnvelopeError::Signature(SignatureError::Mismatch));
}

#[test]
fn anothers_key_does_not_verify() {
    let agent = Component::agent();
    let other = Component::new("spiffe://ransomeye.local/agent/agent-02", 8, LeafPair::ed25519());
    let message = agent.sign(&agent.telemetry());
    let expected = EnvelopeError::OtherKey { stated: agent.made.key_id, given: other.made.key_id };
    assert_eq!(refused(&other, &message), expected);
    // The other's message under the agent's key id.
    let claimed = envelope::sign(agent.telemetry().encode_to_vec(), &other.key, &agent.made.key_id).unwrap();
    assert_eq!(refused(&agent, &claimed.bytes), EnvelopeError::Signature(SignatureError::Mismatch));
}

#[test]
fn the_same_key_under_two_bundles_signs_for_each_apart() {
    let agent = Component::agent();
    let elsewhere = Component::new("spiffe://ransomeye.local/agent/agent-01", 7, LeafPair::p256());
    let message = agent.sign(&agent.telemetry());
    let split = trailer::split(&message).unwrap();
    let mut moved = split.prefix.to_vec();
    trailer::append(&mut moved, &elsewhere.made.key_id, &split.signature);
    assert_eq!(refused(&elsewhere, &moved), EnvelopeError::Signature(SignatureError::Mismatch));
}

#[test]
fn a_signature_of_another_domain_is_refused() {
    let agent = Component::agent();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let prefix = agent.telemetry().encode_to_vec();
    let key_id = agent.made.key_id;
    let prefix_digest = digest(&SHA256, &prefix);
    let message = |context: &[u8], middle: &[u8], end: &[u8]| {
        let signature = pair.sign(&[context, middle, end].concat());
        let mut message = prefix.clone();
        let signature: [u8; 64] = signature.as_ref().try_into().unwrap();
        trailer::append(&mut message, &key_id, &bus_crypto::keys::Signature::from_bytes(signature));
        message
    };
    let good = message(b"ransomeye.v1 envelope\0", key_id.as_bytes(), prefix_digest.as_ref());
    assert!(envelope::verify(&good, &agent.verified(), &domain(), &clock()).is_ok(), "the control");
    for bad in [
        message(b"ransomeye.v1 envelope", key_id.as_bytes(), prefix_digest.as_ref()),
        message(b"ransomeye.v2 envelope\0", key_id.as_bytes(), prefix_digest.as_ref()),
        message(b"ransomeye.v1 key possession\0", key_id.as_bytes(), prefix_digest.as_ref()),
        message(b"ransomeye.v1 envelope\0", &[0; 32], prefix_digest.as_ref()),
        message(b"ransomeye.v1 envelope\0", &[], prefix_digest.as_ref()),
        message(b"ransomeye.v1 envelope\0", key_id.as_bytes(), &prefix),
        message(b"", &[], &prefix),
    ] {
        assert_eq!(refused(&agent, &bad), EnvelopeError::Signature(SignatureError::Mismatch));
    }
}

#[test]
fn a_signer_speaks_for_nobody_else() {
    let agent = Component::agent();
    let with = |change: fn(&mut Envelope)| {
        let mut envelope = agent.telemetry();
        change(&mut envelope);
        refused(&agent, &agent.sign(&envelope))
    };
    let signer = agent.principal().clone();
    for change in [
        (|it| it.subject = "ransomeye.events.telemetry.agent.agent-02".into()) as fn(&mut Envelope),
        |it| it.subject = "ransomeye.events.telemetry.core.agent-01".into(),
        |it| it.subject = "ransomeye.events.telemetry.agent.agent-01.".into(),
        |it| it.subject = "agent-01".into(),
        |it| it.subject = "xagent.agent-01".into(),
    ] {
        assert_eq!(with(change), EnvelopeError::SubjectSender { signer: signer.clone() });
    }
    assert_eq!(with(|it| it.source_component = "agent-02".into()), EnvelopeError::SourceComponent { signer });
}

#[test]
fn a_bundle_that_comes_along_is_the_one_of_the_key() {
    let agent = Component::agent();
    let mut envelope = agent.telemetry();
    envelope.bundle = agent.made.encoded.clone().into();
    let message = agent.sign(&envelope);
    assert!(envelope::verify(&message, &agent.verified(), &domain(), &clock()).is_ok());
    assert_eq!(Unverified::read(&message).unwrap().scan().bundle(), Some(agent.made.encoded.as_slice()));
    envelope.bundle = vec![1].into();
    assert_eq!(refused(&agent, &agent.sign(&envelope)), EnvelopeError::ForeignBundle);
}

#[test]
fn a_message_was_made_while_its_key_was_signing() {
    let agent = Component::agent();
    let bundle = agent.verified();
    let times = lifetime();
    let made_at = |timestamp_utc, now| {
        let message = agent.sign(&Envelope { timestamp_utc, ..agent.telemetry() });
        envelope::verify(&message, &bundle, &domain(), &Clock::new(now, SKEW)).map(drop)
    };
    let early = EnvelopeError::OlderThanKey { early_ms: SKEW + 1 };
    assert_eq!(made_at(times.not_before - SKEW - 1, NOW), Err(early));
    assert_eq!(made_at(times.not_before - SKEW, NOW), Ok(()));
    assert_eq!(made_at(times.sign_until + SKEW, times.sign_until), Ok(()));
    let late = EnvelopeError::SignedTooLate { late_ms: SKEW + 1 };
    assert_eq!(made_at(times.sign_until + SKEW + 1, times.sign_until), Err(late));
    assert_eq!(made_at(NOW, times.verify_until), Ok(()));
    assert_eq!(made_at(NOW, times.verify_until + 1), Err(EnvelopeError::KeyExpired { late_ms: 1 }));
    assert!(made_at(i64::MAX, i64::MIN).is_err());
    assert!(made_at(1, i64::MAX).is_err());
}

#[test]
fn a_key_from_the_future_signs_nothing_now() {
    let agent = Component::agent();
    let bundle = agent.verified();
    let message = agent.sign(&agent.telemetry());
    let at = |now| envelope::verify(&message, &bundle, &domain(), &Clock::new(now, SKEW)).map(drop);
    let not_before = lifetime().not_before;
    assert_eq!(at(not_before - SKEW), Ok(()));
    assert_eq!(at(not_before - SKEW - 1), Err(EnvelopeError::KeyNotYetValid { early_ms: SKEW + 1 }));
}

#[test]
fn a_signer_of_another_trust_domain_is_refused() {
    let agent = Component::agent();
    let stranger = Component::new("spiffe://elsewhere.example/agent/agent-01", 8, LeafPair::ed25519());
    let message = stranger.sign(&stranger.telemetry());
    let (ours, theirs) = (domain(), TrustDomain::new("elsewhere.example").unwrap());
    let expected = EnvelopeError::ForeignTrustDomain { signer: stranger.principal().clone(), expected: ours };
    assert_eq!(refused(&stranger, &message), expected);
    assert!(envelope::verify(&message, &stranger.verified(), &theirs, &clock()).is_ok());
    let message = agent.sign(&agent.telemetry());
    assert!(envelope::verify(&message, &agent.verified(), &theirs, &clock()).is_err());
}

#[test]
fn evidence_is_verified_after_its_key_has_expired() {
    let agent = Component::agent();
    let message = agent.sign(&agent.telemetry());
    let offline = Clock::dangerous_without_now(SKEW);
    assert!(envelope::verify(&message, &agent.verified(), &domain(), &offline).is_ok());
    let later = lifetime().sign_until + SKEW + 1;
    let message = agent.sign(&Envelope { timestamp_utc: later, ..agent.telemetry() });
    let refused = envelope::verify(&message, &agent.verified(), &domain(), &offline).unwrap_err();
    assert_eq!(refused, EnvelopeError::SignedTooLate { late_ms: SKEW + 1 });
}

#[test]
fn a_message_names_its_key_before_it_is_verified() {
    let agent = Component::agent();
    let message = agent.sign(&agent.telemetry());
    let unverified = Unverified::read(&message).unwrap();
    assert_eq!(unverified.key_id(), agent.made.key_id);
    assert_eq!(unverified.key_id(), KeyId::of_bundle(&agent.made.encoded));
}

proptest! {
    #[test]
    fn hostile_messages_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), trailer in any::<bool>()) {
        let agent = Component::agent();
        if trailer {
            trailer::append(&mut bytes, &agent.made.key_id, &bus_crypto::keys::Signature::from_bytes([0; 64]));
        }
        prop_assert!(envelope::verify(&bytes, &agent.verified(), &domain(), &clock()).is_err());
    }

    #[test]
    fn a_damaged_message_is_refused(
        at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), byte in any::<u8>(), edit in 0..4,
    ) {
        let agent = Component::agent();
        let message = agent.sign(&agent.envelope(batch(3)));
        let mut damaged = message.clone();
        let (at, other) = (at.index(message.len()), other.index(message.len()));
        match edit {
            0 => damaged[at] = byte,
            1 => damaged.insert(at, byte),
            2 => drop(damaged.drain(at.min(other)..at.max(other))),
            _ => damaged.swap(at, other),
        }
        prop_assume!(damaged != message);
        prop_assert!(envelope::verify(&damaged, &agent.verified(), &domain(), &clock()).is_err());
    }
}
