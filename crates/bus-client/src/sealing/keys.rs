//! The keys of one component, by version.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use bus_crypto::sealing::SealingKey;
use bus_crypto::zeroize::Zeroizing;

use super::{Imported, SealingKeysError};
use crate::time::millis;

/// How long others may seal to a key after it was made, in milliseconds: 30 days.
const SEAL_FOR_MS: i64 = 30 * 86_400_000;

/// How long a private key is kept after that, in milliseconds: 30 days, the longest that a message can wait.
const KEEP_FOR_MS: i64 = 30 * 86_400_000;

/// How far in the future a key may have been made, in milliseconds, before the clock has to have been wrong then.
const CLOCK_TOLERANCE_MS: i64 = 5 * 60_000;

/// The most versions that are kept.
pub(super) const MAX_VERSIONS: usize = 4096;

/// One of the own sealing keys: a private key, to which others seal. Made by [`SealingKeys`](super::SealingKeys) alone.
pub struct OwnKey {
    version: u64,
    key: SealingKey,
    created_unix_ms: i64,
}

impl OwnKey {
    pub(super) fn new(version: u64, created_unix_ms: i64, key: SealingKey) -> Self {
        Self { version, key, created_unix_ms }
    }

    fn generate(version: u64, now_unix_ms: i64) -> Result<Self, SealingKeysError> {
        let mut seed = Zeroizing::new([0; 32]);
        rand::fill(seed.as_mut_slice()).map_err(|_| SealingKeysError::Randomness)?;
        let key = SealingKey::from_seed(&seed).map_err(SealingKeysError::Provider)?;
        Ok(Self::new(version, now_unix_ms, key))
    }

    /// Its version, from 1. A later key has a higher one.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &SealingKey {
        &self.key
    }

    /// When it was made, in Unix milliseconds.
    #[must_use]
    pub fn created_unix_ms(&self) -> i64 {
        self.created_unix_ms
    }

    /// Until when others may seal to it, in Unix milliseconds: 30 days after it was made. It opens for 30 days more.
    #[must_use]
    pub fn not_after_unix_ms(&self) -> i64 {
        self.created_unix_ms.saturating_add(SEAL_FOR_MS)
    }

    /// Whether it is time for another one: it is as old as that, or the clock was wrong when it was made.
    pub(super) fn is_due(&self, now_unix_ms: i64, max_age: Duration) -> bool {
        let yet_to_come = self.created_unix_ms > now_unix_ms.saturating_add(CLOCK_TOLERANCE_MS);
        let age = now_unix_ms.saturating_sub(self.created_unix_ms);
        yet_to_come || age >= millis(max_age).min(SEAL_FOR_MS)
    }

    /// Whether whatever was sealed to it has expired.
    fn is_over(&self, now_unix_ms: i64) -> bool {
        self.not_after_unix_ms().saturating_add(KEEP_FOR_MS) < now_unix_ms
    }

    fn is_the_same_as(&self, other: &Self) -> bool {
        self.key.public_key() == other.key.public_key()
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, key, created_unix_ms } = self;
        f.debug_struct("OwnKey")
            .field("version", version)
            .field("key", key)
            .field("created_unix_ms", created_unix_ms)
            .finish()
    }
}

/// All keys of a component, at least one.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    newest: Arc<OwnKey>,
    /// By version, ascending.
    older: Vec<Arc<OwnKey>>,
}

impl Ring {
    /// The ring with a first key.
    pub(super) fn generate(now_unix_ms: i64) -> Result<Self, SealingKeysError> {
        Ok(Self { newest: Arc::new(OwnKey::generate(1, now_unix_ms)?), older: Vec::new() })
    }

    /// The ring of these keys, whose versions ascend; `None` if there are none.
    pub(super) fn of(mut keys: Vec<Arc<OwnKey>>) -> Option<Self> {
        let newest = keys.pop()?;
        Some(Self { newest, older: keys })
    }

    pub(super) fn newest(&self) -> &Arc<OwnKey> {
        &self.newest
    }

    pub(super) fn find(&self, version: u64) -> Option<&Arc<OwnKey>> {
        if version == self.newest.version {
            return Some(&self.newest);
        }
        self.older.binary_search_by_key(&version, |key| key.version).ok().and_then(|place| self.older.get(place))
    }

    /// By version, ascending.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &Arc<OwnKey>> {
        // An exact size, which `chain` has not.
        let count = self.older.len() + 1;
        (0..count).map(|place| self.older.get(place).unwrap_or(&self.newest))
    }

    /// Adds a new key, whose version is above all others and above `floor`.
    pub(super) fn rotate(&mut self, floor: u64, now_unix_ms: i64) -> Result<(), SealingKeysError> {
        self.older.retain(|key| !key.is_over(now_unix_ms));
        if self.keys().len() >= MAX_VERSIONS {
            return Err(SealingKeysError::TooMany { max: MAX_VERSIONS });
        }
        let version = self.newest.version.max(floor).checked_add(1).ok_or(SealingKeysError::NoVersionLeft)?;
        let next = Arc::new(OwnKey::generate(version, now_unix_ms)?);
        self.older.push(std::mem::replace(&mut self.newest, next));
        Ok(())
    }

    /// The same without what nobody can need any more, but for the newest: versions never begin anew.
    pub(super) fn without_old(&self, now_unix_ms: i64) -> Self {
        let older = self.older.iter().filter(|key| !key.is_over(now_unix_ms));
        Self { newest: Arc::clone(&self.newest), older: older.map(Arc::clone).collect() }
    }

    pub(super) fn has_the_versions_of(&self, other: &Self) -> bool {
        self.keys().map(|key| key.version).eq(other.keys().map(|key| key.version))
    }

    /// Takes in the keys of `other` that are not here, and says of each whether it is new.
    pub(super) fn merge(&mut self, other: &Self) -> Result<Imported, SealingKeysError> {
        let mut imported = Imported::default();
        let mut keys: Vec<Arc<OwnKey>> = self.keys().map(Arc::clone).collect();
        for key in other.keys() {
            match self.find(key.version) {
                Some(known) if known.is_the_same_as(key) => imported.known.push(key.version),
                Some(_) => return Err(SealingKeysError::Conflict { version: key.version }),
                None => {
                    imported.added.push(key.version);
                    keys.push(Arc::clone(key));
                }
            }
        }
        if keys.len() > MAX_VERSIONS {
            return Err(SealingKeysError::TooMany { max: MAX_VERSIONS });
        }
        keys.sort_unstable_by_key(|key| key.version);
        if let Some(merged) = Self::of(keys) {
            *self = merged;
        }
        Ok(imported)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const NOW: i64 = 1_790_000_000_000;
    const DAY: i64 = 86_400_000;

    /// A key with this version, the same each time.
    pub(crate) fn key(version: u64, created: i64) -> Arc<OwnKey> {
        let seed = Zeroizing::new([u8::try_from(version % 251).unwrap() + 1; 32]);
        Arc::new(OwnKey::new(version, created, SealingKey::from_seed(&seed).unwrap()))
    }

    pub(crate) fn ring(versions: &[u64]) -> Ring {
        Ring::of(versions.iter().map(|version| key(*version, NOW)).collect()).unwrap()
    }

    pub(crate) fn versions(ring: &Ring) -> Vec<u64> {
        ring.keys().map(|key| key.version()).collect()
    }

    #[test]
    fn a_rotation_adds_a_version_above_all_others() {
        let mut ring = Ring::generate(NOW).unwrap();
        ring.rotate(0, NOW).unwrap();
        ring.rotate(7, NOW).unwrap();
        ring.rotate(3, NOW).unwrap();
        assert_eq!(versions(&ring), [1, 2, 8, 9]);
        assert_eq!(ring.newest().version(), 9);
        for version in [1, 2, 8, 9] {
            assert_eq!(ring.find(version).unwrap().version(), version);
        }
        assert!(ring.find(3).is_none() && ring.find(10).is_none());
        assert!(matches!(ring.rotate(u64::MAX, NOW), Err(SealingKeysError::NoVersionLeft)));
    }

    #[test]
    fn a_key_is_kept_until_nothing_sealed_to_it_can_be_unexpired() {
        let keys = vec![key(1, NOW), key(2, NOW + DAY), key(3, NOW + 2 * DAY)];
        let ring = Ring::of(keys).unwrap();
        assert_eq!(ring.newest().not_after_unix_ms(), NOW + 32 * DAY);
        let kept = |now| versions(&ring.without_old(now));
        assert_eq!(kept(NOW + 60 * DAY), [1, 2, 3]);
        assert_eq!(kept(NOW + 60 * DAY + 1), [2, 3]);
        assert_eq!(kept(NOW + 1000 * DAY), [3], "the newest stays, so that versions go on from it");
        let mut rotated = ring.clone();
        rotated.rotate(0, NOW + 61 * DAY).unwrap();
        assert_eq!(versions(&rotated), [2, 3, 4]);
    }

    #[test]
    fn a_key_is_due_when_it_is_old_or_from_the_future() {
        let key = key(1, NOW);
        let week = Duration::from_secs(7 * 86_400);
        assert!(!key.is_due(NOW, week) && !key.is_due(NOW + 7 * DAY - 1, week));
        assert!(key.is_due(NOW + 7 * DAY, week));
        assert!(key.is_due(NOW + 30 * DAY, Duration::MAX), "nobody seals to it any more");
        assert!(!key.is_due(NOW - CLOCK_TOLERANCE_MS, week) && key.is_due(NOW - CLOCK_TOLERANCE_MS - 1, week));
    }

    #[test]
    fn so_many_versions_are_kept_and_no_more() {
        let all: Vec<u64> = (1..=4096).collect();
        let mut full = ring(&all);
        assert!(matches!(full.rotate(0, NOW), Err(SealingKeysError::TooMany { max: 4096 })));
        assert!(matches!(full.merge(&ring(&[5000])), Err(SealingKeysError::TooMany { max: 4096 })));
        full.rotate(0, NOW + 61 * DAY).unwrap();
        assert_eq!(versions(&full), [4096, 4097], "what is over makes room");
    }

    #[test]
    fn rings_are_merged_by_version_and_a_conflict_is_refused_by_name() {
        let mut own = ring(&[1, 3, 5]);
        let imported = own.merge(&ring(&[2, 3, 9])).unwrap();
        assert_eq!((imported.added, imported.known), (vec![2, 9], vec![3]));
        assert_eq!(versions(&own), [1, 2, 3, 5, 9]);

        let mut other = ring(&[4]);
        other.rotate(4, NOW).unwrap();
        let error = own.merge(&other).unwrap_err();
        assert!(matches!(error, SealingKeysError::Conflict { version: 5 }), "{error}");
        assert_eq!(versions(&own), [1, 2, 3, 5, 9], "nothing was taken in");
    }

    #[test]
    fn a_key_is_printed_without_its_private_half() {
        let text = format!("{:?}", key(1, NOW));
        assert!(text.starts_with("OwnKey { version: 1, key: SealingKey { public_key: "), "{text}");
        assert!(text.ends_with(", .. }, created_unix_ms: 1790000000000 }"), "{text}");
        assert!(!text.contains("0202020202"), "{text}");
    }
}
