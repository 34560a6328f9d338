//! Secrets of epochs, wrapped to one recipient.

use std::collections::BTreeMap;

use super::epochs::{Derived, Epoch, Hpke, OwnSealingKey, Recipient};
use super::file::{Bytes, File, HpkeVector, Outcome, Secret, unhex};
use super::form::refused;

const CORE: &str = "spiffe://ransomeye.test/core/core-01";

fn epoch(key: OwnSealingKey) -> Epoch {
    let recipient = Recipient { spiffe_id: CORE.into(), version: 3, key };
    Epoch { key_id: [0x1d; 32], epoch_id: [0xe1; 16], secret: [0x5e; 32], recipients: vec![recipient] }
}

/// An epoch as a vector names it; `wrapped` may be that of another.
fn vector(name: &str, comment: &str, epoch: &Epoch, wrapped: Vec<u8>, outcome: Outcome<Secret>) -> HpkeVector {
    let recipient = &epoch.recipients[0];
    let ephemeral = epoch.ephemeral(0);
    HpkeVector {
        name: name.into(),
        comment: comment.into(),
        private_key: Bytes(recipient.key.private.to_vec()),
        public_key: Bytes(recipient.key.public.to_vec()),
        ephemeral: (wrapped.get(..32) == Some(&ephemeral.public)).then(|| Bytes(ephemeral.private.to_vec())),
        key_id: Bytes(epoch.key_id.to_vec()),
        epoch_id: Bytes(epoch.epoch_id.to_vec()),
        recipient: recipient.spiffe_id.clone(),
        key_version: recipient.version.to_string(),
        info: Bytes(epoch.info(recipient)),
        wrapped: Bytes(wrapped),
        outcome,
    }
}

fn accept(name: &str, comment: &str, epoch: &Epoch) -> HpkeVector {
    let Derived { key, nonce_base, commitment } = epoch.derive();
    let secret = Secret {
        secret: Bytes(epoch.secret.to_vec()),
        recipients_digest: Bytes(epoch.recipients_digest().to_vec()),
        key: Bytes(key),
        nonce_base: Bytes(nonce_base),
        commitment: Bytes(commitment),
    };
    vector(name, comment, epoch, epoch.wrap(0), Outcome::Accepted(secret))
}

fn refuse(name: &str, comment: &str, epoch: &Epoch, wrapped: Vec<u8>) -> HpkeVector {
    vector(name, comment, epoch, wrapped, refused("Opening.WrappedKey", None))
}

pub(crate) fn file() -> File<HpkeVector> {
    let mut vectors = accepted();
    vectors.extend(others());
    vectors.extend(altered());
    vectors.extend(encapsulated());
    File {
        about: "The secret of an epoch of one recipient, wrapped with HPKE and fixed keys, and what derives from it. `info` is \
                what the fields before it make; `wrapped` is the encapsulated key and the ciphertext."
            .into(),
        bundles: BTreeMap::default(),
        vectors,
    }
}

fn accepted() -> Vec<HpkeVector> {
    let good = epoch(OwnSealingKey::new([0x11; 32]));
    let mut all = vec![accept("a secret", "a single shot", &good)];
    // Appendix A.1.1, whose KEM is ours.
    let of_rfc = |text: &str| OwnSealingKey::new(unhex(text).expect("hexadecimal").try_into().expect("32 bytes"));
    let recipient = of_rfc("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
    all.push(accept("the recipient of RFC 9180", "the key pair of its appendix A.1.1", &epoch(recipient)));
    let zeros = Epoch { key_id: [0; 32], epoch_id: [0; 16], secret: [0; 32], ..good.clone() };
    all.push(accept("zeros", "nothing has a value of its own", &zeros));
    let bits = OwnSealingKey::new([0xff; 32]);
    all.push(accept("a private key before clamping", "the bits that RFC 7748 sets and clears", &epoch(bits)));
    for (name, version) in [("the first version", 1), ("the last version", u64::MAX)] {
        let mut it = good.clone();
        it.recipients[0].version = version;
        all.push(accept(name, "8 bytes, big-endian", &it));
    }
    let mut long = good;
    long.recipients[0].spiffe_id = format!("spiffe://{}/core/core-01", "d".repeat(255));
    all.push(accept("a long name", "the name is the rest of the info", &long));
    all
}

/// What was wrapped for another purpose.
fn others() -> Vec<HpkeVector> {
    let good = epoch(OwnSealingKey::new([0x11; 32]));
    let mut all = Vec::new();
    let mut add = |name: &str, comment: &str, change: &dyn Fn(&mut Epoch)| {
        let mut other = good.clone();
        change(&mut other);
        all.push(refuse(name, comment, &good, other.wrap(0)));
    };
    add("for another key", "another recipient's", &|it| it.recipients[0].key = OwnSealingKey::new([0x12; 32]));
    add("under another key id", "another sender, or its next key", &|it| it.key_id = [0x1e; 32]);
    add("of another epoch", "the same sender", &|it| it.epoch_id = [0xe2; 16]);
    add("for another version", "of the same key", &|it| it.recipients[0].version = 2);
    add("for another name", "with the same key", &|it| {
        it.recipients[0].spiffe_id = "spiffe://ransomeye.test/core/core-02".into();
    });
    add("for a longer name", "the name is the rest of the info", &|it| it.recipients[0].spiffe_id.push('2'));
    let recipient = &good.recipients[0];
    let info = good.info(recipient);
    let (ephemeral, key) = (good.ephemeral(0), recipient.key);
    let of_info = |info: &[u8]| Hpke::new(&ephemeral, &key).seal(info, &good.secret);
    let mut other_suite = info.clone();
    other_suite[27] = 2;
    let without_zero = [&info[..25], &info[26..]].concat();
    for (name, info) in [
        ("without info", Vec::new()),
        ("with another suite in the info", other_suite),
        ("without the zero byte in the info", without_zero),
        ("with the key schedule's context", [b"ransomeye.v1 sealed\0", &info[26..]].concat()),
    ] {
        all.push(refuse(name, "another domain", &good, of_info(&info)));
    }
    all
}

fn altered() -> Vec<HpkeVector> {
    let good = epoch(OwnSealingKey::new([0x11; 32]));
    let wrapped = good.wrap(0);
    let mut all = Vec::new();
    for (name, place) in [("the encapsulated key", 0), ("the ciphertext", 40), ("the tag", 79)] {
        let mut other = wrapped.clone();
        other[place] ^= 1;
        all.push(refuse(&format!("altered in {name}"), "one bit", &good, other));
    }
    for length in [1, 31, 32, 47, 48, 79] {
        let name = format!("{length} bytes");
        all.push(refuse(&name, "cut off", &good, wrapped[..length].to_vec()));
    }
    all.push(refuse("81 bytes", "one is added", &good, [&wrapped[..], &[0]].concat()));
    let info = good.info(&good.recipients[0]);
    let (ephemeral, key) = (good.ephemeral(0), good.recipients[0].key);
    for length in [0, 31, 33] {
        let text = vec![0x5e; length];
        let comment = "HPKE opens it, and an epoch's secret has 32 bytes";
        let wrapped = Hpke::new(&ephemeral, &key).seal(&info, &text);
        all.push(refuse(&format!("a secret of {length} bytes"), comment, &good, wrapped));
    }
    all
}

/// Encapsulated keys that are none.
fn encapsulated() -> Vec<HpkeVector> {
    let good = epoch(OwnSealingKey::new([0x11; 32]));
    let ephemeral = good.ephemeral(0);
    let mut enc = ephemeral.public;
    enc[31] |= 0x80;
    let key = good.recipients[0].key;
    let info = good.info(&good.recipients[0]);
    let wrapped = Hpke { enc, ..Hpke::new(&ephemeral, &key) }.seal(&info, &good.secret);
    let comment = "a lenient implementation ignores it, and opens this";
    let mut all = vec![refuse("the encapsulated key's highest bit", comment, &good, wrapped)];
    for (name, first, rest, last) in [
        ("0", 0, 0, 0),
        ("1", 1, 0, 0),
        ("p - 1", 0xec, 0xff, 0x7f),
        ("p", 0xed, 0xff, 0x7f),
        ("p + 1", 0xee, 0xff, 0x7f),
        ("2^255 - 1", 0xff, 0xff, 0x7f),
    ] {
        let mut wrapped = vec![rest; 32];
        (wrapped[0], wrapped[31]) = (first, last);
        wrapped.extend([0x42; 48]);
        let comment = "of small order, or not canonical";
        all.push(refuse(&format!("the encapsulated key is {name}"), comment, &good, wrapped));
    }
    all
}
