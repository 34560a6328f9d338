//! Records of sealing keys, and secrets at rest.

use bus_crypto::bundle::certificate_digest;
use bus_crypto::sealing::locked::{Cost, LockError, LockKey, Locked, NONCE_LEN, OVERHEAD};
use bus_crypto::sealing::{MAX_RECORD_LEN, MAX_SEALING_MS, RecordError, SealingPublicKey, UnverifiedRecord};
use bus_crypto::{LeafSigner as _, Scheme};
use bus_proto::Principal;
use bus_proto::prost::Message;
use bus_proto::v1::{SealingKeyRecord, SealingKeyStatement};

use crate::fixture::{NOW, SENDER, SKEW, clock};
use crate::known::{self, FLAT};

/// The record of a sealing key, first as an outsider sends it, then with its statement signed anew by the certificate's key.
pub fn sealing_record(data: &[u8]) {
    match UnverifiedRecord::read(data) {
        Ok(unverified) => {
            let decoded = same(data, &unverified);
            if unverified.verify(&SENDER.facts, &clock()).is_ok() {
                // The signature is Ed25519's, so nobody without the key makes another record of the same statement.
                assert_eq!(resigned(&decoded.statement), data, "the signature is the signer's");
            }
        }
        Err(RecordError::Scan(_)) => {}
        Err(_) => assert!(SealingKeyRecord::decode(data).is_ok(), "what the scan accepts is a message"),
    }
    let statement = SealingKeyRecord::decode(data).map_or_else(|_| data.to_vec(), |decoded| decoded.statement.to_vec());
    insider(&statement);
}

/// What is accepted is what an encoder writes for what a decoder reads in it, and every value is the decoder's.
fn same(data: &[u8], unverified: &UnverifiedRecord<'_>) -> SealingKeyRecord {
    let decoded = SealingKeyRecord::decode(data).expect("what is accepted is a message");
    assert_eq!(decoded.encode_to_vec(), data, "there is one encoding");
    let statement = SealingKeyStatement::decode(decoded.statement.clone()).expect("and so is the statement");
    assert_eq!(known::without_unknown(&decoded.statement, &FLAT), statement.encode_to_vec(), "in one encoding");
    assert_eq!(unverified.principal().spiffe_id(), statement.principal);
    assert_eq!(unverified.version(), statement.version);
    assert_eq!(unverified.chain(), statement.chain);
    decoded
}

/// The record that the owner of the certificate makes of a statement.
fn resigned(statement: &[u8]) -> Vec<u8> {
    let sender = &*SENDER;
    let scheme = Scheme::Ed25519.code();
    let context = &b"ransomeye.v1 sealing key\0"[..];
    let message = [&[0x20; 64], context, &sender.facts.sha256, &scheme.to_be_bytes(), statement].concat();
    SealingKeyRecord {
        statement: statement.to_vec().into(),
        scheme: scheme.into(),
        leaf_signature: sender.leaf.sign(&message).unwrap_or_else(|never| match never {}).into(),
    }
    .encode_to_vec()
}

/// Whatever the owner of the certificate states is verified exactly if it is canonical and true.
fn insider(statement: &[u8]) {
    let encoded = resigned(statement);
    let verified = UnverifiedRecord::read(&encoded).and_then(|read| read.verify(&SENDER.facts, &clock()));
    assert_eq!(verified.is_ok(), encoded.len() <= MAX_RECORD_LEN && is_true(statement), "{verified:?}");
}

fn is_true(encoded: &[u8]) -> bool {
    let sender = &*SENDER;
    let Ok(statement) = SealingKeyStatement::decode(encoded) else { return false };
    let SealingKeyStatement { version, suite, not_before, not_after, ref public_key, ref chain, .. } = statement;
    let canonical = statement.encode_to_vec() == encoded || has_only_free_fields_besides(encoded, &statement);
    let principal = statement.principal.parse::<Principal>();
    let key = <[u8; 32]>::try_from(&public_key[..]).ok().and_then(|key| SealingPublicKey::from_bytes(key).ok());
    canonical
        && principal.is_ok_and(|it| it == *sender.principal() && !it.role().is_reserved())
        && version > 0
        && suite == 1
        && key.is_some()
        && not_before > 0
        && not_before <= NOW + SKEW
        && not_after > not_before
        && not_after - not_before <= MAX_SEALING_MS
        && not_after >= NOW
        && not_after <= sender.facts.chain_not_after_unix_ms
        && chain.len() <= 4
        && chain.iter().all(|certificate| !certificate.is_empty())
        && chain.first().is_some_and(|first| certificate_digest(first) == sender.facts.sha256)
}

/// Whether the encoding continues, after what an encoder writes for the statement, with fields from 1,000 on. The scan's own
/// answer, for that is all that is left of it: `same` checks the rest.
fn has_only_free_fields_besides(encoded: &[u8], statement: &SealingKeyStatement) -> bool {
    encoded.starts_with(&statement.encode_to_vec()) && UnverifiedRecord::read(&resigned(encoded)).is_ok()
}

const PASSPHRASE: &[u8] = b"the passphrase of the fuzzer";
const CONTEXT: &[u8] = b"whose it is";

/// Something sealed under a passphrase. It opens exactly if whoever knows the passphrase sealed it so; what is sealed, opens to
/// the same; and nothing costs more than is ever spent on a passphrase.
pub fn locked(data: &[u8]) {
    match Locked::read(data) {
        Ok(locked) => opens_if_it_was_sealed_so(data, &locked),
        Err(LockError::CutOff) => assert!(data.len() < OVERHEAD),
        Err(LockError::Cost { memory_kib, passes, lanes }) => {
            assert!(Cost::new(memory_kib, passes, lanes).is_err());
        }
        Err(other) => panic!("{other}"),
    }
    let key = LockKey::derive(PASSPHRASE, Cost::new(8, 1, 1).unwrap(), &[7; 16]).unwrap();
    let mut sealed = Vec::new();
    key.lock(&[9; NONCE_LEN], CONTEXT, data, &mut sealed).unwrap();
    let locked = Locked::read(&sealed).unwrap();
    assert!(key.is_for(&locked));
    assert_eq!(key.unlock(&locked, CONTEXT).unwrap().as_slice(), data);
    if data != CONTEXT {
        assert_eq!(key.unlock(&locked, data), Err(LockError::Altered), "another context");
    }
}

fn opens_if_it_was_sealed_so(data: &[u8], locked: &Locked<'_>) {
    let cost = locked.cost();
    // What is dear is not tried: a try takes the memory and the time that it names.
    let cheap = [(8, 1, 1), (8, 2, 1), (16, 1, 2)]
        .iter()
        .any(|&(kib, passes, lanes)| Cost::new(kib, passes, lanes) == Ok(cost));
    if !cheap {
        return;
    }
    let key = LockKey::derive(PASSPHRASE, cost, locked.salt()).unwrap();
    match key.unlock(locked, CONTEXT) {
        Ok(content) => {
            // Three numbers and the salt stand before the nonce.
            let nonce = data[28..28 + NONCE_LEN].try_into().unwrap();
            let mut again = Vec::new();
            key.lock(nonce, CONTEXT, &content, &mut again).unwrap();
            assert_eq!(again, data, "there is one form of it");
        }
        Err(error) => assert!(matches!(error, LockError::Passphrase | LockError::Altered), "{error}"),
    }
}
