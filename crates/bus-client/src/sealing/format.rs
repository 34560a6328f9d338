//! The bytes of a file of sealing keys.
//!
//! ```text
//! "ransomeye.v1 sealing keys\n" ‖ format (1) ‖ form ‖ owner's SPIFFE ID ‖ "\n" ‖ keys ‖ SHA-256 of all before
//! keys = for each one, by ascending version: version (8) ‖ created, in Unix milliseconds (8) ‖ private key (32)
//! ```
//!
//! Numbers are big-endian. The form is 0, or 1 where the keys are sealed under a passphrase, with what stands before them as
//! the context (`bus_crypto::sealing::locked`).

use std::path::Path;
use std::sync::Arc;

use bus_crypto::sealing::SealingKey;
use bus_crypto::sealing::locked::OVERHEAD;
use bus_crypto::sha256;
use bus_crypto::zeroize::Zeroizing;
use bus_proto::Principal;

use super::SealingKeysError;
use super::keys::{MAX_VERSIONS, OwnKey, Ring};
use super::passphrase::Passphrase;

const MAGIC: &[u8] = b"ransomeye.v1 sealing keys\n";
const FORMAT: u8 = 1;
const OPEN: u8 = 0;
const LOCKED: u8 = 1;
const SEED_LEN: usize = 32;
const KEY_LEN: usize = 8 + 8 + SEED_LEN;
const DIGEST_LEN: usize = 32;

/// What a file has besides its keys and its owner, and more.
const FRAME_LEN: usize = MAGIC.len() + 3 + OVERHEAD + DIGEST_LEN;

/// The longest file, in bytes. No owner's name is as long as this leaves room for.
pub(super) const MAX_LEN: usize = MAX_VERSIONS * KEY_LEN + FRAME_LEN + 2048;

/// What a file says.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) ring: Ring,
    /// Whether it is under a passphrase.
    pub(super) locked: bool,
}

/// The bytes of a file with these keys, under the passphrase if there is one.
pub(super) fn encode(
    path: &Path,
    owner: &Principal,
    ring: &Ring,
    passphrase: Option<&mut Passphrase>,
) -> Result<Zeroizing<Vec<u8>>, SealingKeysError> {
    let owner = owner.spiffe_id();
    // Room for all of it from the start, so that no reallocation leaves a copy of a key behind.
    let keys_len = ring.keys().len() * KEY_LEN;
    let mut file = Zeroizing::new(Vec::with_capacity(FRAME_LEN + owner.len() + keys_len));
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[FORMAT, if passphrase.is_some() { LOCKED } else { OPEN }]);
    file.extend_from_slice(owner.as_bytes());
    file.push(b'\n');
    match passphrase {
        Some(passphrase) => {
            let mut keys = Zeroizing::new(Vec::with_capacity(keys_len));
            put_keys(ring, &mut keys);
            passphrase.lock(path, &keys, &mut file)?;
        }
        None => put_keys(ring, &mut file),
    }
    let digest = sha256(&file);
    file.extend_from_slice(&digest);
    Ok(file)
}

/// Reads what [`encode`] wrote, for this owner. The path is for errors.
pub(super) fn decode(
    path: &Path,
    owner: &Principal,
    file: &[u8],
    passphrase: Option<&mut Passphrase>,
) -> Result<Content, SealingKeysError> {
    let damaged = || SealingKeysError::Damaged { path: path.into() };
    let (said, digest) = file.split_last_chunk::<DIGEST_LEN>().ok_or_else(damaged)?;
    if sha256(said) != *digest {
        return Err(damaged());
    }
    let (&format, rest) = said.strip_prefix(MAGIC).and_then(<[u8]>::split_first).ok_or_else(damaged)?;
    if format != FORMAT {
        return Err(SealingKeysError::Unsupported { path: path.into(), format });
    }
    let (&form, rest) = rest.split_first().ok_or_else(damaged)?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
    let (name, keys) = rest.split_at_checked(end + 1).ok_or_else(damaged)?;
    let found = name.strip_suffix(b"\n").and_then(|name| str::from_utf8(name).ok());
    let found: Principal = found.and_then(|name| name.parse().ok()).ok_or_else(damaged)?;
    if found != *owner {
        let (found, owner) = (Box::new(found), Box::new(owner.clone()));
        return Err(SealingKeysError::OtherOwner { path: path.into(), found, owner });
    }
    let ring = match (form, passphrase) {
        (OPEN, _) => read_keys(keys),
        (LOCKED, None) => return Err(SealingKeysError::PassphraseNeeded { path: path.into() }),
        (LOCKED, Some(passphrase)) => {
            let context = said.strip_suffix(keys).ok_or_else(damaged)?;
            read_keys(&passphrase.unlock(path, context, keys)?)
        }
        _ => None,
    };
    Ok(Content { ring: ring.ok_or_else(damaged)?, locked: form == LOCKED })
}

fn put_keys(ring: &Ring, out: &mut Vec<u8>) {
    for key in ring.keys() {
        out.extend_from_slice(&key.version().to_be_bytes());
        out.extend_from_slice(&key.created_unix_ms().to_be_bytes());
        out.extend_from_slice(key.key().seed().as_slice());
    }
}

/// The keys, if that is what the bytes are.
fn read_keys(bytes: &[u8]) -> Option<Ring> {
    let (entries, rest) = bytes.as_chunks::<KEY_LEN>();
    if !rest.is_empty() || entries.len() > MAX_VERSIONS {
        return None;
    }
    let mut keys = Vec::with_capacity(entries.len());
    let mut last = 0;
    for entry in entries {
        let key = read_key(entry)?;
        if key.version() <= last {
            return None;
        }
        last = key.version();
        keys.push(Arc::new(key));
    }
    Ring::of(keys)
}

fn read_key(entry: &[u8; KEY_LEN]) -> Option<OwnKey> {
    let (version, rest) = entry.split_first_chunk()?;
    let (created, private) = rest.split_first_chunk()?;
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    seed.copy_from_slice(private.first_chunk::<SEED_LEN>()?);
    let key = SealingKey::from_seed(&seed).ok()?;
    Some(OwnKey::new(u64::from_be_bytes(*version), i64::from_be_bytes(*created), key))
}

#[cfg(test)]
mod tests {
    use bus_crypto::sealing::locked::Cost;
    use secrecy::SecretString;

    use super::super::keys::tests::{ring, versions};
    use super::*;

    fn owner() -> Principal {
        "spiffe://ransomeye.test/core/core-01".parse().unwrap()
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(SecretString::from(text), Cost::new(8, 1, 1).unwrap()).unwrap()
    }

    fn encoded(mut passphrase: Option<Passphrase>) -> Zeroizing<Vec<u8>> {
        encode(Path::new("x"), &owner(), &ring(&[1, 2, 9]), passphrase.as_mut()).unwrap()
    }

    fn decoded(file: &[u8], mut passphrase: Option<Passphrase>) -> Result<Content, SealingKeysError> {
        decode(Path::new("x"), &owner(), file, passphrase.as_mut())
    }

    /// With the digest that makes it look whole.
    fn resealed(mut said: Vec<u8>) -> Vec<u8> {
        let digest = sha256(&said);
        said.extend_from_slice(&digest);
        said
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (written, read) in [(None, None), (Some("p"), Some("p")), (None, Some("p"))] {
            let file = encoded(written.map(passphrase));
            let content = decoded(&file, read.map(passphrase)).unwrap();
            assert_eq!((versions(&content.ring), content.locked), (vec![1, 2, 9], written.is_some()));
            for (key, expected) in content.ring.keys().zip(ring(&[1, 2, 9]).keys()) {
                assert_eq!(key.key().public_key(), expected.key().public_key());
                assert_eq!(key.created_unix_ms(), expected.created_unix_ms());
            }
        }
    }

    #[test]
    fn the_file_is_no_longer_than_it_may_be_and_grows_in_its_first_allocation() {
        let all: Vec<u64> = (1..=4096).collect();
        for mut passphrase in [None, Some(passphrase("p"))] {
            let file = encode(Path::new("x"), &owner(), &ring(&all), passphrase.as_mut()).unwrap();
            assert!(file.len() <= MAX_LEN && file.capacity() <= MAX_LEN, "{}", file.len());
            assert_eq!(decoded(&file, passphrase).unwrap().ring.keys().len(), 4096);
        }
    }

    #[test]
    fn damage_at_every_byte_and_every_cut_is_told() {
        for locked in [false, true] {
            let with = || locked.then(|| passphrase("p"));
            let file = encoded(with());
            for place in 0..file.len() {
                let mut altered = file.to_vec();
                altered[place] ^= 0x10;
                let error = decoded(&altered, with()).unwrap_err();
                assert!(matches!(error, SealingKeysError::Damaged { .. }), "{place}: {error}");
                let error = decoded(&file[..place], with()).unwrap_err();
                assert!(matches!(error, SealingKeysError::Damaged { .. }), "cut at {place}: {error}");
            }
        }
    }

    #[test]
    fn what_was_altered_and_given_a_new_digest_is_still_refused_under_a_passphrase() {
        let file = encoded(Some(passphrase("p")));
        let said = &file[..file.len() - DIGEST_LEN];
        for place in 0..said.len() {
            let mut altered = said.to_vec();
            altered[place] ^= 0x10;
            // A cost that is far above what the test wants to spend is refused, or changes nothing that is tested here.
            let cost = MAGIC.len() + 2 + owner().spiffe_id().len() + 1;
            if !(cost..cost + 12).contains(&place) {
                assert!(decoded(&resealed(altered), Some(passphrase("p"))).is_err(), "{place}");
            }
        }
    }

    #[test]
    fn a_wrong_passphrase_and_a_missing_one_are_told_from_damage() {
        let file = encoded(Some(passphrase("right")));
        let error = decoded(&file, Some(passphrase("wrong"))).unwrap_err();
        assert!(matches!(error, SealingKeysError::WrongPassphrase { .. }), "{error}");
        let error = decoded(&file, None).unwrap_err();
        assert!(matches!(error, SealingKeysError::PassphraseNeeded { .. }), "{error}");
    }

    #[test]
    fn a_file_that_asks_for_terabytes_is_refused() {
        let file = encoded(Some(passphrase("p")));
        let mut said = file[..file.len() - DIGEST_LEN].to_vec();
        let cost = MAGIC.len() + 2 + owner().spiffe_id().len() + 1;
        said[cost..cost + 4].fill(0xff);
        let error = decoded(&resealed(said), Some(passphrase("p"))).unwrap_err();
        assert!(matches!(error, SealingKeysError::Passphrase { .. }), "{error}");
        assert!(error.to_string().contains("1 GiB"), "{error}");
    }

    #[test]
    fn the_keys_of_another_are_refused_by_name() {
        let other: Principal = "spiffe://ransomeye.test/core/core-02".parse().unwrap();
        let file = encode(Path::new("x"), &other, &ring(&[1]), None).unwrap();
        let error = decoded(&file, None).unwrap_err().to_string();
        assert!(error.contains("core-02") && error.contains("core-01"), "{error}");
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let file = encoded(None);
        let mut said = file[..file.len() - DIGEST_LEN].to_vec();
        said[MAGIC.len()] = 2;
        let error = decoded(&resealed(said), None).unwrap_err();
        assert!(matches!(error, SealingKeysError::Unsupported { format: 2, .. }), "{error}");
    }

    #[test]
    fn keys_out_of_order_or_without_a_version_are_refused() {
        let entry = |version: u64| [&version.to_be_bytes()[..], &[0; 8], &[7; 32]].concat();
        assert!(read_keys(&[entry(1), entry(2)].concat()).is_some());
        for bad in
            [vec![], entry(0), [entry(2), entry(1)].concat(), [entry(1), entry(1)].concat(), entry(1)[1..].to_vec()]
        {
            assert!(read_keys(&bad).is_none());
        }
    }
}
