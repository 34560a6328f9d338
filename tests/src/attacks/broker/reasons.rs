//! The names under which a receiver counts its refusals: what `Rejected::reason` says.

pub(super) const TOO_LARGE: &str = "too_large";
pub(super) const SUBJECT: &str = "subject";
pub(super) const UNSIGNED: &str = "unsigned";
pub(super) const ENCODING: &str = "encoding";
pub(super) const SUBJECT_MISMATCH: &str = "subject_mismatch";
pub(super) const DESTINATION_MISMATCH: &str = "destination_mismatch";
pub(super) const STALE: &str = "clock_skew";
pub(super) const PREDATES: &str = "predates_subscription";
pub(super) const SIGNATURE: &str = "signature";
pub(super) const TYPE_MISMATCH: &str = "type_mismatch";
pub(super) const POLICY: &str = "policy";
pub(super) const SENDER: &str = "sender_mismatch";
pub(super) const REPLAYED: &str = "replayed";
/// Nobody can tell any more whether it was received before.
pub(super) const TOO_OLD: &str = "too_old";
/// The bundle that came along is of another key.
pub(super) const FOREIGN_BUNDLE: &str = "foreign_bundle";
/// The bundle does not hold, for whatever reason of its own.
pub(super) const BUNDLE: &str = "bundle";
/// The certificate under the bundle does not hold, for whatever reason of its own.
pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const REVOKED: &str = "revoked";
pub(super) const STALE_LIST: &str = "stale_revocation_list";
/// No bundle of the key could be had.
pub(super) const UNKNOWN_KEY: &str = "unknown_key";
/// An answer that nobody waits for.
pub(super) const UNSOLICITED: &str = "unsolicited";
/// The key may not be used now.
pub(super) const KEY_TIME: &str = "key_time";
/// The wrapped keys of what was sealed did not come.
pub(super) const UNKNOWN_EPOCH: &str = "unknown_epoch";
