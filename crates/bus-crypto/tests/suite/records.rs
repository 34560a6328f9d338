//! What a sealing key record has to be.

use bus_crypto::bundle::certificate_digest;
use bus_crypto::sealing::record::{self, UnverifiedRecord, VerifiedRecord};
use bus_crypto::sealing::{
    MAX_SEALING_MS, MakeRecordError, RecordError, SealingKey, SealingKeyError, SealingLifetime, SealingPublicKey,
};
use bus_crypto::{BundleError, Clock, LeafFacts, LeafSigner, Place, Refusal, ScanError, Scheme, UnverifiedBundle};
use bus_proto::prost::Message;
use bus_proto::v1::{KeyBundle, SealingKeyRecord, SealingKeyStatement};
use proptest::prelude::*;

use crate::support::{Component, HOUR, LeafPair, NOW, SKEW, clock, leaf_facts};

const DAY: i64 = 24 * HOUR;
const CONTEXT: &[u8] = b"ransomeye.v1 sealing key\0";

fn lifetime() -> SealingLifetime {
    SealingLifetime { not_before: NOW, not_after: NOW + 30 * DAY }
}

fn key() -> SealingPublicKey {
    SealingKey::from_seed(&[9; 32].into()).unwrap().public_key().clone()
}

/// A component with a record, and with a certificate that lasts long enough for it.
struct Owner {
    leaf_pair: LeafPair,
    leaf: LeafFacts,
    chain: Vec<Vec<u8>>,
    record: Vec<u8>,
}

impl Owner {
    fn new(leaf_pair: LeafPair) -> Self {
        let chain = vec![b"the certificate of core-01".to_vec(), b"an intermediate".to_vec()];
        let mut leaf = leaf_facts("spiffe://ransomeye.local/core/core-01", &leaf_pair, &chain[0]);
        leaf.chain_not_after_unix_ms = NOW + 31 * DAY;
        let record = record::make(&key(), 7, lifetime(), &chain, &leaf, &leaf_pair, &clock()).unwrap();
        Self { leaf_pair, leaf, chain, record }
    }

    fn core() -> Self {
        Self::new(LeafPair::ed25519())
    }

    fn make(&self, version: u64, lifetime: SealingLifetime) -> Result<Vec<u8>, RecordError> {
        let made = record::make(&key(), version, lifetime, &self.chain, &self.leaf, &self.leaf_pair, &clock());
        made.map_err(|error| match error {
            MakeRecordError::Refused(error) => error,
            other => panic!("{other}"),
        })
    }

    fn verify(&self, encoded: &[u8]) -> Result<VerifiedRecord, RecordError> {
        UnverifiedRecord::read(encoded)?.verify(&self.leaf, &clock())
    }

    fn leaf_message(&self, context: &[u8], statement: &[u8]) -> Vec<u8> {
        let scheme = self.leaf_pair.scheme().code().to_be_bytes();
        [&[0x20; 64], context, &self.leaf.sha256, &scheme, statement].concat()
    }

    /// A record of any statement with the signature of the certificate's key, as an insider could make it.
    fn sign(&self, context: &[u8], statement: Vec<u8>) -> Vec<u8> {
        let leaf_signature = self.leaf_pair.sign(&self.leaf_message(context, &statement)).unwrap();
        SealingKeyRecord {
            statement: statement.into(),
            scheme: self.leaf_pair.scheme().code().into(),
            leaf_signature: leaf_signature.into(),
        }
        .encode_to_vec()
    }

    fn statement(&self) -> Vec<u8> {
        SealingKeyRecord::decode(&self.record[..]).unwrap().statement.to_vec()
    }

    /// Changes the statement and signs it anew.
    fn forge(&self, change: impl FnOnce(&mut SealingKeyStatement)) -> Vec<u8> {
        let mut statement = SealingKeyStatement::decode(&self.statement()[..]).unwrap();
        change(&mut statement);
        self.sign(CONTEXT, statement.encode_to_vec())
    }

    /// Changes the record outside of its statement.
    fn alter(&self, change: impl FnOnce(&mut SealingKeyRecord)) -> Vec<u8> {
        let mut record = SealingKeyRecord::decode(&self.record[..]).unwrap();
        change(&mut record);
        record.encode_to_vec()
    }
}

#[test]
fn a_record_made_with_each_kind_of_certificate_key_is_verified() {
    let pairs = [LeafPair::p256(), LeafPair::p384(), LeafPair::Rsa(Box::new(LeafPair::rsa())), LeafPair::ed25519()];
    for pair in pairs {
        let owner = Owner::new(pair);
        let verified = owner.verify(&owner.record).unwrap();
        assert_eq!(verified.principal(), &owner.leaf.principal);
        assert_eq!(verified.version(), 7);
        assert_eq!(verified.key(), &key());
        assert_eq!(verified.lifetime(), lifetime());
        assert_eq!(verified.leaf_sha256(), &certificate_digest(&owner.chain[0]));
    }
}

#[test]
fn a_record_shows_what_to_validate_before_it_is_verified() {
    let owner = Owner::core();
    let unverified = UnverifiedRecord::read(&owner.record).unwrap();
    assert_eq!(unverified.principal(), &owner.leaf.principal);
    assert_eq!(unverified.version(), 7);
    assert_eq!(unverified.chain(), owner.chain);
}

#[test]
fn an_insider_cannot_state_what_the_rules_forbid() {
    let owner = Owner::core();
    assert!(owner.verify(&owner.forge(|_| ())).is_ok(), "the control");
    type Change = fn(&mut SealingKeyStatement);
    let excess = BundleError::OutlivesChain { excess_ms: 1 };
    let cases: [(Change, RecordError); 11] = [
        (|it| it.principal = "spiffe://ransomeye.local/core/core-02".into(), BundleError::OtherPrincipal.into()),
        (|it| it.principal = "spiffe://elsewhere/core/core-01".into(), BundleError::OtherPrincipal.into()),
        (|it| it.chain.swap(0, 1), BundleError::OtherLeaf.into()),
        (|it| it.not_after = it.not_before, RecordError::Lifetime),
        (|it| it.not_after += 1, RecordError::Lifetime),
        (|it| (it.not_before, it.not_after) = (NOW + DAY + 1, NOW + 31 * DAY + 1), excess.into()),
        (|it| it.suite = 2, RecordError::Suite { suite: 2 }),
        // The key of another suite has another length: what is unknown is the suite.
        (|it| (it.suite, it.public_key) = (2, vec![1; 1_216].into()), RecordError::Suite { suite: 2 }),
        (|it| it.public_key = vec![0; 32].into(), RecordError::Key(SealingKeyError::SmallOrder)),
        (|it| it.public_key = vec![0xff; 32].into(), RecordError::Key(SealingKeyError::NotCanonical)),
        (|it| it.not_before += SKEW + 1, BundleError::NotYetValid { early_ms: SKEW + 1 }.into()),
    ];
    for (index, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(owner.verify(&owner.forge(change)).unwrap_err(), expected, "case {index}");
    }
}

#[test]
fn the_reserved_roles_have_no_sealing_keys() {
    let owner = Owner::core();
    for role in bus_proto::RESERVED_ROLES {
        let forged = owner.forge(|it| it.principal = format!("spiffe://ransomeye.local/{role}/nats-1"));
        let error = UnverifiedRecord::read(&forged).unwrap_err();
        assert!(matches!(error, RecordError::Statement(BundleError::ReservedRole { .. })), "{role}");
    }
}

#[test]
fn a_record_of_another_certificate_is_refused() {
    let (owner, other) = (Owner::core(), LeafPair::p256());
    let unverified = UnverifiedRecord::read(&owner.record).unwrap();
    let mut leaf = LeafFacts { ..owner.leaf.clone() };
    leaf.key = bus_crypto::LeafKey::from_spki(&other.spki()).unwrap();
    let mismatch = BundleError::SchemeMismatch { stated: 0x0807, needed: Scheme::EcdsaP256Sha256 };
    assert_eq!(unverified.verify(&leaf, &clock()).unwrap_err(), mismatch.into());
    leaf.sha256 = certificate_digest(b"another certificate");
    assert_eq!(unverified.verify(&leaf, &clock()).unwrap_err(), BundleError::OtherLeaf.into());
}

#[test]
fn the_scheme_is_the_one_of_the_certificates_key() {
    let owner = Owner::core();
    for stated in [0x0401, 0x0403, 0x0804, 0xffff] {
        let expected = BundleError::SchemeMismatch { stated, needed: Scheme::Ed25519 };
        assert_eq!(owner.verify(&owner.alter(|it| it.scheme = stated)).unwrap_err(), expected.into());
    }
    let made = record::make(&key(), 1, lifetime(), &owner.chain, &owner.leaf, &LeafPair::p256(), &clock());
    let mismatch = RecordError::Statement(BundleError::SchemeMismatch { stated: 0x0403, needed: Scheme::Ed25519 });
    assert!(matches!(made, Err(MakeRecordError::Refused(error)) if error == mismatch));
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
    let owner = Owner::core();
    let made = record::make(&key(), 1, lifetime(), &owner.chain, &owner.leaf, &Gone, &clock());
    assert!(matches!(made, Err(MakeRecordError::Leaf(_))));
}

#[test]
fn a_record_that_others_would_refuse_is_not_made() {
    let owner = Owner::core();
    let at = |not_before, not_after| owner.make(7, SealingLifetime { not_before, not_after }).map(drop);
    assert_eq!(at(NOW, NOW + MAX_SEALING_MS), Ok(()));
    assert_eq!(at(NOW, NOW + MAX_SEALING_MS + 1), Err(RecordError::Lifetime));
    assert_eq!(at(NOW - DAY, NOW - 1), Err(BundleError::Expired { late_ms: 1 }.into()));
    let missing = Refusal::Missing { field: "version" };
    let missing = ScanError { place: Place::SealingStatement, refusal: missing };
    assert_eq!(owner.make(0, lifetime()).unwrap_err(), RecordError::Scan(missing));
    assert!(owner.make(u64::MAX, lifetime()).is_ok());
    let without = record::make(&key(), 1, lifetime(), &owner.chain[1..], &owner.leaf, &owner.leaf_pair, &clock());
    let other = RecordError::Statement(BundleError::OtherLeaf);
    assert!(matches!(without, Err(MakeRecordError::Refused(error)) if error == other));
}

#[test]
fn a_record_is_accepted_from_its_first_to_its_last_moment() {
    let owner = Owner::core();
    let unverified = UnverifiedRecord::read(&owner.record).unwrap();
    let at = |now| unverified.verify(&owner.leaf, &Clock::new(now, SKEW)).map(drop);
    let SealingLifetime { not_before, not_after } = lifetime();
    let early_ms = SKEW + 1;
    assert_eq!(at(not_before - SKEW - 1), Err(BundleError::NotYetValid { early_ms }.into()));
    assert_eq!(at(not_before - SKEW), Ok(()));
    assert_eq!(at(not_after), Ok(()));
    assert_eq!(at(not_after + 1), Err(BundleError::Expired { late_ms: 1 }.into()));
    for extreme in [i64::MIN, i64::MAX] {
        assert!(at(extreme).is_err());
    }
}

#[test]
fn a_key_is_stated_again_under_a_new_certificate() {
    let owner = Owner::core();
    let renewed = vec![b"the next certificate of core-01".to_vec()];
    let leaf = LeafFacts { sha256: certificate_digest(&renewed[0]), ..owner.leaf.clone() };
    let again = record::make(&key(), 7, lifetime(), &renewed, &leaf, &owner.leaf_pair, &clock()).unwrap();
    let verified = UnverifiedRecord::read(&again).unwrap().verify(&leaf, &clock()).unwrap();
    assert_eq!((verified.version(), verified.key()), (7, &key()));
    assert_eq!(owner.verify(&again).unwrap_err(), BundleError::OtherLeaf.into());
}

#[test]
fn a_bundle_is_no_record_and_a_record_no_bundle() {
    let (owner, agent) = (Owner::core(), Component::agent());
    assert!(matches!(UnverifiedRecord::read(&agent.made.encoded), Err(RecordError::Scan(_))));
    assert!(matches!(UnverifiedBundle::read(&owner.record), Err(BundleError::Scan(_))));
    let bundle = KeyBundle::decode(&agent.made.encoded[..]).unwrap();
    let moved =
        SealingKeyRecord { statement: bundle.statement, scheme: bundle.scheme, leaf_signature: bundle.leaf_signature };
    let error = UnverifiedRecord::read(&moved.encode_to_vec()).unwrap_err();
    assert!(matches!(error, RecordError::Scan(ScanError { place: Place::SealingStatement, .. })), "{error}");
}

#[test]
fn what_the_certificates_key_signs_for_another_purpose_is_no_record() {
    let owner = Owner::core();
    let contexts =
        [&b"ransomeye.v1 key bundle\0"[..], b"TLS 1.3, client CertificateVerify\0", b"ransomeye.v1 sealing key", b""];
    for context in contexts {
        let signed = owner.sign(context, owner.statement());
        assert_eq!(owner.verify(&signed).unwrap_err(), BundleError::LeafSignature.into(), "{context:?}");
    }
}

#[test]
fn a_record_in_another_encoding_is_refused() {
    let owner = Owner::core();
    let refused = |encoded: &[u8], place, refusal| {
        let error = UnverifiedRecord::read(encoded).unwrap_err();
        assert_eq!(error, RecordError::Scan(ScanError { place, refusal }));
    };
    let out_of_bounds = |field, rule| Refusal::OutOfBounds { field, rule };
    let (good, record, statement) = (&owner.record, Place::SealingRecord, Place::SealingStatement);
    refused(&[], record, Refusal::Missing { field: "statement" });
    refused(&good[..good.len() - 1], record, Refusal::Truncated);
    let swapped = [&good[good.len() - 66..], &good[..good.len() - 66]].concat();
    refused(&swapped, record, Refusal::OutOfOrder { number: 1, after: 3 });
    refused(&[good, &[0x22, 0][..]].concat(), record, Refusal::UnknownField { number: 4 });
    refused(&[good, &[0xc2, 0x3e, 0][..]].concat(), record, Refusal::UnknownField { number: 1_000 });
    refused(&vec![0; 16_385], record, Refusal::TooLong { len: 16_385, max: 16_384 });
    refused(&owner.alter(|it| it.scheme = 0x1_0000), record, out_of_bounds("scheme", "it must be at most 0xffff"));
    let long = owner.alter(|it| it.leaf_signature = vec![1; 1_025].into());
    refused(&long, record, out_of_bounds("leaf_signature", "it must be 1 to 1,024 bytes"));
    let five = owner.forge(|it| it.chain = vec![b"a".to_vec().into(); 5]);
    refused(&five, statement, out_of_bounds("chain", "it must be 1 to 4 certificates, none of them empty"));
    let short = owner.forge(|it| it.public_key = vec![1; 31].into());
    refused(&short, statement, out_of_bounds("public_key", "it must be 32 bytes"));
    let endless = owner.forge(|it| it.not_after = -1);
    refused(&endless, statement, out_of_bounds("not_after", "it must be greater than 0, in Unix milliseconds"));
    type Change = fn(&mut SealingKeyStatement);
    let absent: [(&str, Change); 7] = [
        ("principal", |it| it.principal.clear()),
        ("version", |it| it.version = 0),
        ("suite", |it| it.suite = 0),
        ("public_key", |it| it.public_key.clear()),
        ("not_before", |it| it.not_before = 0),
        ("not_after", |it| it.not_after = 0),
        ("chain", |it| it.chain.clear()),
    ];
    for (field, change) in absent {
        refused(&owner.forge(change), statement, Refusal::Missing { field });
    }
}

#[test]
fn a_signed_statement_may_say_more_than_this_version_knows() {
    let owner = Owner::core();
    let extended = [&owner.statement()[..], &[0xc2, 0x3e, 1, 7]].concat();
    assert!(owner.verify(&owner.sign(CONTEXT, extended.clone())).is_ok());
    let unsigned = owner.alter(|it| it.statement = extended.into());
    assert_eq!(owner.verify(&unsigned).unwrap_err(), BundleError::LeafSignature.into());
}

#[test]
fn no_flipped_bit_of_a_record_goes_unnoticed() {
    let owner = Owner::core();
    let mut encoded = owner.record.clone();
    for bit in 0..encoded.len() * 8 {
        encoded[bit / 8] ^= 1 << (bit % 8);
        assert!(owner.verify(&encoded).is_err(), "bit {bit}");
        encoded[bit / 8] ^= 1 << (bit % 8);
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = UnverifiedRecord::read(&bytes);
    }

    #[test]
    fn a_damaged_record_is_refused(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>()) {
        let owner = Owner::core();
        let mut encoded = owner.record.clone();
        let at = at.index(encoded.len());
        if cut { encoded.truncate(at) } else { encoded[at] = value }
        prop_assume!(encoded != owner.record);
        prop_assert!(owner.verify(&encoded).is_err());
    }
}
