//! What a key bundle has to be.

use bus_crypto::bundle::{self, certificate_digest};
use bus_crypto::zeroize::Zeroizing;
use bus_crypto::{
    BundleError, Clock, KeyError, KeyId, LeafKey, LeafSigner, Lifetime, MakeError, Place, Refusal, Scheme,
    SignatureError,
};
use bus_crypto::{SigningKey, UnverifiedBundle, VerifiedBundle};
use bus_proto::prost::Message;
use bus_proto::v1::{KeyBundle, KeyStatement};
use proptest::prelude::*;

use crate::support::{Component, HOUR, LeafPair, NOW, SKEW, clock, domain, leaf_facts, lifetime};

fn verify(component: &Component, encoded: &[u8]) -> Result<VerifiedBundle, BundleError> {
    UnverifiedBundle::read(encoded)?.verify(&component.leaf, &clock())
}

/// The agent's key signs nothing but envelopes and its own bundle, so the provider signs with the same seed.
fn possession(statement: &[u8]) -> Vec<u8> {
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    pair.sign(&[b"ransomeye.v1 key possession\0", statement].concat()).as_ref().to_vec()
}

fn leaf_message(component: &Component, context: &[u8], scheme: u16, statement: &[u8]) -> Vec<u8> {
    [&[0x20; 64], context, &component.leaf.sha256, &scheme.to_be_bytes(), statement].concat()
}

/// Changes the statement of a bundle and signs it anew, as an insider could.
fn forge(component: &Component, change: impl FnOnce(&mut KeyStatement)) -> Vec<u8> {
    let made = KeyBundle::decode(component.made.encoded.as_slice()).unwrap();
    let mut statement = KeyStatement::decode(made.statement).unwrap();
    change(&mut statement);
    let statement = statement.encode_to_vec();
    let scheme = component.leaf_pair.scheme().code();
    let leaf_message = leaf_message(component, b"ransomeye.v1 key bundle\0", scheme, &statement);
    KeyBundle {
        possession_signature: possession(&statement).into(),
        scheme: scheme.into(),
        leaf_signature: component.leaf_pair.sign(&leaf_message).unwrap().into(),
        statement: statement.into(),
    }
    .encode_to_vec()
}

/// Changes a bundle outside of its statement.
fn alter(component: &Component, change: impl FnOnce(&mut KeyBundle)) -> Vec<u8> {
    let mut made = KeyBundle::decode(component.made.encoded.as_slice()).unwrap();
    change(&mut made);
    made.encode_to_vec()
}

#[test]
fn a_bundle_made_with_each_kind_of_certificate_key_is_verified() {
    let pairs = [LeafPair::p256(), LeafPair::p384(), LeafPair::Rsa(Box::new(LeafPair::rsa())), LeafPair::ed25519()];
    for pair in pairs {
        let agent = Component::new("spiffe://ransomeye.local/agent/agent-01", 7, pair);
        let verified = verify(&agent, &agent.made.encoded).unwrap();
        assert_eq!(verified.principal(), agent.principal());
        assert_eq!(verified.lifetime(), lifetime());
        assert_eq!(verified.key().as_bytes(), &agent.key.public_key().unwrap());
        assert_eq!(verified.leaf_sha256(), &certificate_digest(&agent.chain[0]));
        assert_eq!(verified.key_id(), KeyId::of_bundle(&agent.made.encoded));
    }
}

#[test]
fn a_bundle_shows_what_to_validate_before_it_is_verified() {
    let agent = Component::agent();
    let unverified = UnverifiedBundle::read(&agent.made.encoded).unwrap();
    assert_eq!(unverified.principal(), agent.principal());
    assert_eq!(unverified.chain(), agent.chain);
    assert_eq!(unverified.key_id(), agent.made.key_id);
}

#[test]
fn an_insider_cannot_state_what_the_rules_forbid() {
    let agent = Component::agent();
    assert!(verify(&agent, &forge(&agent, |_| ())).is_ok(), "the control");
    type Change = fn(&mut KeyStatement);
    let cases: [(Change, BundleError); 9] = [
        (|it| it.principal = "spiffe://ransomeye.local/core/core-01".into(), BundleError::OtherPrincipal),
        (|it| it.principal = "spiffe://elsewhere/agent/agent-01".into(), BundleError::OtherPrincipal),
        (|it| it.chain.swap(0, 1), BundleError::OtherLeaf),
        (|it| it.sign_until = it.not_before, BundleError::Lifetime),
        (|it| it.sign_until += 1, BundleError::Lifetime),
        (|it| it.verify_until = it.sign_until - 1, BundleError::Lifetime),
        (|it| it.verify_until = NOW + 72 * HOUR + 1, BundleError::OutlivesChain { excess_ms: 1 }),
        (|it| it.public_key = vec![0; 32].into(), BundleError::SigningKey(KeyError::SmallOrder)),
        (|it| it.public_key = vec![0xff; 32].into(), BundleError::SigningKey(KeyError::NotCanonical)),
    ];
    for (index, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(verify(&agent, &forge(&agent, change)).unwrap_err(), expected, "case {index}");
    }
}

#[test]
fn the_reserved_roles_cannot_sign() {
    let agent = Component::agent();
    for role in bus_proto::RESERVED_ROLES {
        let principal = format!("spiffe://ransomeye.local/{role}/nats-1");
        let forged = forge(&agent, |it| it.principal.clone_from(&principal));
        assert!(matches!(UnverifiedBundle::read(&forged), Err(BundleError::ReservedRole { .. })), "{role}");
        let leaf = leaf_facts(&principal, &agent.leaf_pair, &agent.chain[0]);
        let made = bundle::make(&agent.key, lifetime(), &agent.chain, &leaf, &agent.leaf_pair, &clock());
        assert!(matches!(made, Err(MakeError::Refused(BundleError::ReservedRole { .. }))), "{role}");
    }
}

#[test]
fn anothers_public_key_cannot_be_registered() {
    let agent = Component::agent();
    let victim = SigningKey::from_seed(&[8; 32].into()).unwrap().public_key().unwrap();
    let forged = forge(&agent, |it| it.public_key = victim.to_vec().into());
    assert_eq!(verify(&agent, &forged).unwrap_err(), BundleError::Possession(SignatureError::Mismatch));
}

#[test]
fn a_bundle_of_another_certificate_is_refused() {
    let (agent, other) = (Component::agent(), LeafPair::p256());
    let unverified = UnverifiedBundle::read(&agent.made.encoded).unwrap();
    let mut leaf = leaf_facts("spiffe://ransomeye.local/agent/agent-01", &other, &agent.chain[0]);
    let mismatch = BundleError::SchemeMismatch { stated: 0x0807, needed: Scheme::EcdsaP256Sha256 };
    assert_eq!(unverified.verify(&leaf, &clock()).unwrap_err(), mismatch);
    leaf.sha256 = certificate_digest(b"another certificate");
    assert_eq!(unverified.verify(&leaf, &clock()).unwrap_err(), BundleError::OtherLeaf);
}

#[test]
fn the_scheme_is_the_one_of_the_certificates_key() {
    let agent = Component::agent();
    for stated in [0x0401, 0x0403, 0x0804, 0x0809, 0xffff] {
        let altered = alter(&agent, |it| it.scheme = stated);
        let expected = BundleError::SchemeMismatch { stated, needed: Scheme::Ed25519 };
        assert_eq!(verify(&agent, &altered).unwrap_err(), expected);
    }
    let made = bundle::make(&agent.key, lifetime(), &agent.chain, &agent.leaf, &LeafPair::p256(), &clock());
    assert!(matches!(made, Err(MakeError::Refused(BundleError::SchemeMismatch { .. }))));
}

#[test]
fn an_rsa_signature_with_pkcs_1_padding_is_refused() {
    let pair = LeafPair::RsaPkcs1(Box::new(LeafPair::rsa()));
    let agent = Component::agent();
    let leaf = leaf_facts("spiffe://ransomeye.local/agent/agent-01", &pair, &agent.chain[0]);
    let made = bundle::make(&agent.key, lifetime(), &agent.chain, &leaf, &pair, &clock());
    assert!(matches!(made, Err(MakeError::Refused(BundleError::LeafSignature))));
}

#[test]
fn a_certificate_key_that_does_not_sign_is_the_makers_error() {
    /// A hardware module that was pulled out.
    struct Gone;
    impl LeafSigner for Gone {
        type Error = std::fmt::Error;

        fn scheme(&self) -> Scheme {
            Scheme::Ed25519
        }

        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Self::Error> {
            Err(std::fmt::Error)
        }
    }
    let agent = Component::agent();
    let made = bundle::make(&agent.key, lifetime(), &agent.chain, &agent.leaf, &Gone, &clock());
    assert!(matches!(made, Err(MakeError::Leaf(_))));
}

#[test]
fn a_bundle_without_its_certificate_is_not_made() {
    let agent = Component::agent();
    let make = |chain: &[Vec<u8>]| bundle::make(&agent.key, lifetime(), chain, &agent.leaf, &agent.leaf_pair, &clock());
    assert!(matches!(make(&[]), Err(MakeError::Refused(BundleError::Scan(_)))));
    assert!(matches!(make(&agent.chain[1..]), Err(MakeError::Refused(BundleError::OtherLeaf))));
}

#[test]
fn signatures_of_another_domain_are_refused() {
    let agent = Component::agent();
    let statement = KeyBundle::decode(agent.made.encoded.as_slice()).unwrap().statement;
    for context in [&b"TLS 1.3, client CertificateVerify\0"[..], b"ransomeye.v1 key bundle", b""] {
        let message = leaf_message(&agent, context, 0x0807, &statement);
        let signature = agent.leaf_pair.sign(&message).unwrap();
        let altered = alter(&agent, |it| it.leaf_signature = signature.into());
        assert_eq!(verify(&agent, &altered).unwrap_err(), BundleError::LeafSignature);
    }
    let envelope = bus_crypto::envelope::sign(statement.to_vec(), &agent.key, &agent.made.key_id).unwrap();
    let signature = envelope.bytes[envelope.bytes.len() - 64..].to_vec();
    let altered = alter(&agent, |it| it.possession_signature = signature.into());
    assert_eq!(verify(&agent, &altered).unwrap_err(), BundleError::Possession(SignatureError::Mismatch));
}

#[test]
fn a_bundle_that_nobody_would_accept_now_is_not_made() {
    let agent = Component::agent();
    let Lifetime { not_before, verify_until, .. } = lifetime();
    let make = |now| {
        let clock = Clock::new(now, SKEW);
        bundle::make(&agent.key, lifetime(), &agent.chain, &agent.leaf, &agent.leaf_pair, &clock).map(drop)
    };
    let late = make(verify_until + 1);
    assert!(matches!(late, Err(MakeError::Refused(BundleError::Expired { late_ms: 1 }))), "{late:?}");
    let early = make(not_before - SKEW - 1);
    assert!(matches!(early, Err(MakeError::Refused(BundleError::NotYetValid { .. }))), "{early:?}");
    assert!(make(not_before - SKEW).is_ok());
    assert!(make(verify_until).is_ok());
}

#[test]
fn a_seed_stays_in_the_one_place_that_is_wiped() {
    let seed = Zeroizing::new([7; 32]);
    let key = SigningKey::from_seed(&seed).unwrap();
    assert_eq!(key.public_key().unwrap(), Component::agent().key.public_key().unwrap());
}

#[test]
fn a_bundle_is_accepted_from_its_first_to_its_last_moment() {
    let agent = Component::agent();
    let at = |now| UnverifiedBundle::read(&agent.made.encoded).unwrap().verify(&agent.leaf, &Clock::new(now, SKEW));
    let Lifetime { not_before, verify_until, .. } = lifetime();
    assert_eq!(at(not_before - SKEW - 1).unwrap_err(), BundleError::NotYetValid { early_ms: SKEW + 1 });
    assert!(at(not_before - SKEW).is_ok());
    assert!(at(verify_until).is_ok());
    assert_eq!(at(verify_until + 1).unwrap_err(), BundleError::Expired { late_ms: 1 });
    for extreme in [i64::MIN, i64::MAX] {
        assert!(at(extreme).is_err());
    }
    let unverified = UnverifiedBundle::read(&agent.made.encoded).unwrap();
    assert!(unverified.verify(&agent.leaf, &Clock::dangerous_without_now(SKEW)).is_ok());
}

#[test]
fn a_bundle_in_another_encoding_is_refused() {
    let agent = Component::agent();
    let refused = |encoded: &[u8], place, refusal| {
        let error = UnverifiedBundle::read(encoded).unwrap_err();
        assert_eq!(error, BundleError::Scan(bus_crypto::ScanError { place, refusal }));
    };
    let good = &agent.made.encoded;
    refused(&[], Place::Bundle, Refusal::Missing { field: "statement" });
    refused(&good[..good.len() - 1], Place::Bundle, Refusal::Truncated);
    let swapped = [&good[good.len() - 66..], &good[..good.len() - 66]].concat();
    refused(&swapped, Place::Bundle, Refusal::OutOfOrder { number: 1, after: 4 });
    refused(&[good, &[0x2a, 0][..]].concat(), Place::Bundle, Refusal::UnknownField { number: 5 });
    refused(&vec![0; 16_385], Place::Bundle, Refusal::TooLong { len: 16_385, max: 16_384 });
    let five = forge(&agent, |it| it.chain = vec![b"a".to_vec().into(); 5]);
    let rule = "it must be 1 to 4 certificates, none of them empty";
    refused(&five, Place::Statement, Refusal::OutOfBounds { field: "chain", rule });
    refused(&forge(&agent, |it| it.chain.clear()), Place::Statement, Refusal::Missing { field: "chain" });
    let short = forge(&agent, |it| it.public_key = vec![1; 31].into());
    refused(&short, Place::Statement, Refusal::OutOfBounds { field: "public_key", rule: "it must be 32 bytes" });
    let endless = forge(&agent, |it| it.verify_until = -1);
    let rule = "it must be greater than 0, in Unix milliseconds";
    refused(&endless, Place::Statement, Refusal::OutOfBounds { field: "verify_until", rule });
}

#[test]
fn nobody_makes_another_key_id_of_a_bundle_by_adding_a_field() {
    let agent = Component::agent();
    let good = &agent.made.encoded;
    let fields: [(&[u8], u32); 5] = [
        (&[0xc2, 0x3e, 0], 1_000),
        (&[0xc0, 0x3e, 7], 1_000),
        (&[0xc5, 0x3e, 0, 0, 0, 0], 1_000),
        (&[0xc2, 0x3e, 0, 0xc2, 0x3e, 0], 1_000),
        (&[0xf0, 0xff, 0xff, 0xff, 0x0f, 1], 536_870_910),
    ];
    for (added, number) in fields {
        let error = verify(&agent, &[good, added].concat()).unwrap_err();
        let refusal = Refusal::UnknownField { number };
        assert_eq!(error, BundleError::Scan(bus_crypto::ScanError { place: Place::Bundle, refusal }), "{added:x?}");
    }
}

#[test]
fn a_signed_statement_may_say_more_than_this_version_knows() {
    let agent = Component::agent();
    let made = KeyBundle::decode(agent.made.encoded.as_slice()).unwrap();
    let statement = [&made.statement[..], &[0xc2, 0x3e, 1, 7]].concat();
    let message = leaf_message(&agent, b"ransomeye.v1 key bundle\0", 0x0807, &statement);
    let extended = KeyBundle {
        possession_signature: possession(&statement).into(),
        leaf_signature: agent.leaf_pair.sign(&message).unwrap().into(),
        statement: statement.into(),
        ..made
    };
    assert!(verify(&agent, &extended.encode_to_vec()).is_ok());
    let unsigned = alter(&agent, |it| it.statement = extended.statement);
    assert!(verify(&agent, &unsigned).is_err());
}

/// The other signature that holds where `(r, s)` does: `(r, n − s)`, for P-256.
fn twin(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let s_at = 4 + usize::from(signature[3]);
    let digits = &signature[s_at + 2..];
    let (mut difference, mut borrow) = (Vec::new(), 0);
    for place in 0..ORDER.len() {
        let digit = digits.iter().rev().nth(place).copied().unwrap_or(0);
        let left = i16::from(ORDER[31 - place]) - i16::from(digit) - borrow;
        borrow = i16::from(left < 0);
        difference.insert(0, left.rem_euclid(256) as u8);
    }
    while difference[0] == 0 {
        difference.remove(0);
    }
    if difference[0] >= 0x80 {
        difference.insert(0, 0);
    }
    let content = [&signature[2..s_at], &[2, difference.len() as u8], &difference].concat();
    [&[0x30, content.len() as u8][..], &content].concat()
}

#[test]
fn a_bundle_under_an_ecdsa_certificate_has_two_key_ids() {
    let agent = Component::new("spiffe://ransomeye.local/agent/agent-01", 7, LeafPair::p256());
    let altered = alter(&agent, |it| it.leaf_signature = twin(&it.leaf_signature).into());
    let verified = verify(&agent, &altered).unwrap();
    assert_ne!(verified.key_id(), agent.made.key_id);
    let back = alter(&agent, |it| it.leaf_signature = twin(&twin(&it.leaf_signature)).into());
    assert_eq!(back, agent.made.encoded, "the twin of the twin is the signature itself");
    // Nobody but the owner signs a message under the second id, so nothing is kept for it.
    let message = agent.sign(&agent.telemetry());
    let split = bus_crypto::trailer::split(&message).unwrap();
    let mut moved = split.prefix.to_vec();
    bus_crypto::trailer::append(&mut moved, &verified.key_id(), &split.signature);
    let refused = bus_crypto::envelope::verify(&moved, &verified, &domain(), &clock()).unwrap_err();
    assert_eq!(refused, bus_crypto::EnvelopeError::Signature(SignatureError::Mismatch));
}

#[test]
fn a_certificate_key_of_another_kind_is_refused() {
    let p256 = LeafPair::p256().spki();
    assert_eq!(LeafKey::from_spki(&p256).unwrap().scheme(), Scheme::EcdsaP256Sha256);
    let raw_point = &p256[p256.len() - 65..];
    let mut other_curve = p256.clone();
    other_curve[22] ^= 1;
    let truncated = &p256[..p256.len() - 1];
    let small_rsa =
        [&[0x30, 0x1b][..], b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00", &[0; 12]].concat();
    for spki in [&[], raw_point, &other_curve, truncated, &small_rsa, &[0x30, 0x80, 0, 0]] {
        assert!(matches!(LeafKey::from_spki(spki), Err(BundleError::UnsupportedLeafKey)), "{spki:x?}");
    }
    let mut weak = LeafPair::ed25519().spki();
    weak[12..].fill(0);
    assert_eq!(LeafKey::from_spki(&weak).unwrap_err(), BundleError::LeafKey(KeyError::SmallOrder));
}

#[test]
fn no_flipped_bit_of_a_bundle_goes_unnoticed() {
    let agent = Component::agent();
    let mut encoded = agent.made.encoded.clone();
    for bit in 0..encoded.len() * 8 {
        encoded[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&agent, &encoded).is_err(), "bit {bit}");
        encoded[bit / 8] ^= 1 << (bit % 8);
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = UnverifiedBundle::read(&bytes);
        let _ = LeafKey::from_spki(&bytes);
    }

    #[test]
    fn a_damaged_bundle_is_refused(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>()) {
        let agent = Component::agent();
        let mut encoded = agent.made.encoded.clone();
        let at = at.index(encoded.len());
        if cut { encoded.truncate(at) } else { encoded[at] = value }
        prop_assume!(encoded != agent.made.encoded);
        prop_assert!(verify(&agent, &encoded).is_err());
    }
}
