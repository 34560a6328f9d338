//! Key bundles.

use bus_crypto::bundle::{MAX_SIGNING_MS, certificate_digest};
use bus_crypto::{BundleError, LeafKey, LeafSigner, Scheme, UnverifiedBundle};
use bus_proto::Principal;
use bus_proto::prost::Message;
use bus_proto::v1::{KeyBundle, KeyStatement};

use crate::fixture::{NOW, SENDER, SKEW, clock};
use crate::known::{self, FLAT};

/// A key bundle, first as an outsider sends it, then with its statement signed anew by an insider: by the signing key, and
/// by the certificate's.
pub fn bundle(data: &[u8]) {
    let sender = &*SENDER;
    match UnverifiedBundle::read(data) {
        Ok(unverified) => {
            let decoded = same(data, &unverified);
            if unverified.verify(&sender.facts, &clock()).is_ok() {
                // Both signatures are Ed25519's, so nobody without the keys makes another bundle of the same statement.
                assert_eq!(resigned(&decoded.statement), data, "the signatures are the signers'");
            }
        }
        Err(BundleError::Scan(_)) => {}
        Err(_) => assert!(KeyBundle::decode(data).is_ok(), "what the scan accepts is a message"),
    }
    let statement = KeyBundle::decode(data).map_or_else(|_| data.to_vec(), |decoded| decoded.statement.to_vec());
    insider(&statement);
}

/// What is accepted is what an encoder writes for what a decoder reads in it, and every value is the decoder's.
fn same(data: &[u8], unverified: &UnverifiedBundle<'_>) -> KeyBundle {
    let decoded = KeyBundle::decode(data).expect("what is accepted is a message");
    assert_eq!(decoded.encode_to_vec(), data, "there is one encoding");
    let statement = KeyStatement::decode(decoded.statement.clone()).expect("and so is the statement");
    assert_eq!(known::without_unknown(&decoded.statement, &FLAT), statement.encode_to_vec(), "in one encoding");
    assert_eq!(unverified.principal().spiffe_id(), statement.principal);
    assert_eq!(unverified.chain(), statement.chain);
    decoded
}

/// The bundle that the owner of both keys makes of a statement.
fn resigned(statement: &[u8]) -> Vec<u8> {
    let sender = &*SENDER;
    let possession = [b"ransomeye.v1 key possession\0", statement].concat();
    let scheme = Scheme::Ed25519.code();
    let message =
        [&[0x20; 64], &b"ransomeye.v1 key bundle\0"[..], &sender.facts.sha256, &scheme.to_be_bytes(), statement]
            .concat();
    KeyBundle {
        statement: statement.to_vec().into(),
        possession_signature: sender.pair.sign(&possession).as_ref().to_vec().into(),
        scheme: scheme.into(),
        leaf_signature: sender.leaf.sign(&message).unwrap_or_else(|never| match never {}).into(),
    }
    .encode_to_vec()
}

/// Whatever the owner of both keys states is verified exactly if it is canonical and true.
fn insider(statement: &[u8]) {
    let encoded = resigned(statement);
    let verified = UnverifiedBundle::read(&encoded).and_then(|read| read.verify(&SENDER.facts, &clock()));
    assert_eq!(verified.is_ok(), encoded.len() <= 16_384 && is_true(statement), "{verified:?}");
}

fn is_true(encoded: &[u8]) -> bool {
    let sender = &*SENDER;
    let Ok(statement) = KeyStatement::decode(encoded) else { return false };
    let KeyStatement { not_before, sign_until, verify_until, ref chain, .. } = statement;
    let canonical = statement.encode_to_vec() == encoded || has_only_free_fields_besides(encoded, &statement);
    let principal = statement.principal.parse::<Principal>();
    canonical
        && principal.is_ok_and(|it| it == *sender.principal() && !it.role().is_reserved())
        && statement.public_key == sender.key.public_key().unwrap()[..]
        && not_before > 0
        && not_before <= NOW + SKEW
        && sign_until > not_before
        && sign_until - not_before <= MAX_SIGNING_MS
        && sign_until <= verify_until
        && verify_until >= NOW
        && verify_until <= sender.facts.chain_not_after_unix_ms
        && chain.len() <= 4
        && chain.iter().all(|certificate| !certificate.is_empty())
        && chain.first().is_some_and(|first| certificate_digest(first) == sender.facts.sha256)
}

/// Whether the encoding continues, after what an encoder writes for the statement, with fields from 1,000 on in ascending
/// order and shortest form. The scan's own answer, for that is all that is left of it: `same` checks the rest.
fn has_only_free_fields_besides(encoded: &[u8], statement: &KeyStatement) -> bool {
    let known = statement.encode_to_vec();
    encoded.starts_with(&known) && UnverifiedBundle::read(&resigned(encoded)).is_ok()
}

/// The public key of a certificate, whose object identifiers decide the scheme (RFC 5480, RFC 8017, RFC 8410).
pub fn leaf_key(data: &[u8]) {
    let holds = |identifier: &[u8]| data.windows(identifier.len()).any(|bytes| bytes == identifier);
    if let Ok(key) = LeafKey::from_spki(data) {
        let identifier: &[u8] = match key.scheme() {
            Scheme::EcdsaP256Sha256 => b"\x2a\x86\x48\xce\x3d\x03\x01\x07",
            Scheme::EcdsaP384Sha384 => b"\x2b\x81\x04\x00\x22",
            Scheme::RsaPssSha256 => b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
            Scheme::Ed25519 => b"\x2b\x65\x70",
            other => panic!("what is {other}?"),
        };
        assert!(holds(identifier));
    }
}
