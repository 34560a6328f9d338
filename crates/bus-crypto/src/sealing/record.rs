//! Sealing key records: whose a sealing key is, and until when others seal to it, proven by a TLS certificate.
//!
//! A record carries a statement (owner, version, key, times, certificate chain) and one signature over it, by the certificate's
//! key, as a key bundle has it ([`crate::bundle`]) and with a context string of its own. A sealing key cannot sign, so nothing
//! proves that whoever states it holds it. Whoever states another's key gains nothing by it: what is sealed to it is bound to the
//! name of the one who stated it, and opens for neither of the two.
//!
//! Records outlive processes, so a component states its key again when it has a new certificate: with the same version. A key
//! that replaces another has a higher one. Whoever remembers what it has seen refuses an older version, and another key under a
//! version that it knows; one record alone says nothing of that.

use alloc::vec::Vec;

use bus_proto::prost::Message;
use bus_proto::{Principal, v1};

use crate::bundle::vouch::{self, Context, Owner, OwnerFields, Vouched};
use crate::bundle::{BundleError, LeafFacts, LeafSigner};
use crate::clock::Clock;
use crate::scan::{Place, Reader, Refusal, ScanError};
use crate::sealing::{SealingKeyError, SealingPublicKey};

/// The longest time that others seal to a key, in milliseconds: 30 days.
pub const MAX_SEALING_MS: i64 = 2_592_000_000;

/// The longest record, in bytes.
pub const MAX_RECORD_LEN: usize = 16_384;

/// The one suite of this version: HPKE (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
const SUITE: u32 = 1;

const CONTEXT: Context = Context(b"ransomeye.v1 sealing key\0");

/// When others seal to a key, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealingLifetime {
    /// The first moment, greater than 0.
    pub not_before: i64,
    /// The last moment: after `not_before`, by at most [`MAX_SEALING_MS`], and not after the end of the chain.
    pub not_after: i64,
}

impl SealingLifetime {
    fn check(&self) -> Result<(), RecordError> {
        let Self { not_before, not_after } = *self;
        let sealing_ms = not_after.saturating_sub(not_before);
        let holds = not_before > 0 && (1..=MAX_SEALING_MS).contains(&sealing_ms);
        if holds { Ok(()) } else { Err(RecordError::Lifetime) }
    }
}

/// Why a sealing key record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The encoding is not canonical, or a field is missing or out of its bounds.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The statement fails a check that a key bundle's has to pass as well: of its owner, the certificate, the end of the chain,
    /// the time, the scheme or the certificate's signature.
    #[error(transparent)]
    Statement(#[from] BundleError),
    /// The times are not in order, or others would seal to the key for more than 30 days.
    #[error("the key's times are out of order: not_before < not_after, and 30 days at most")]
    Lifetime,
    /// The key is of a suite that this version does not have.
    #[error(
        "the sealing key is of suite {suite}, and only suite 1 is known here: upgrade, or publish a key of suite 1"
    )]
    Suite {
        /// The number that the record states.
        suite: u32,
    },
    /// The sealing key is weak or malformed.
    #[error(transparent)]
    Key(SealingKeyError),
}

/// Why a sealing key record cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeRecordError<E: core::error::Error + 'static> {
    /// Others would refuse it.
    #[error(transparent)]
    Refused(#[from] RecordError),
    /// The certificate's key did not sign.
    #[error("the certificate's key did not sign the sealing key record")]
    Leaf(#[source] E),
}

/// Makes the encoded record of a sealing key with this version, from 1: `chain` in DER, the certificate that `leaf` and
/// `signer` are about first, then its intermediates, without the root.
///
/// What was made is verified before it is returned, as another component with this clock would. A key whose `not_before` is
/// still to come is stated when that has come.
///
/// ```
/// use bus_crypto::sealing::record::{self, SealingLifetime, UnverifiedRecord};
/// use bus_crypto::{Clock, LeafFacts, LeafKey, sealing::SealingKey};
/// # use bus_crypto::{LeafSigner, Scheme, SigningFailed, bundle::certificate_digest};
/// # struct Leaf(aws_lc_rs::signature::Ed25519KeyPair);
/// # impl LeafSigner for Leaf {
/// #     type Error = SigningFailed;
/// #     fn scheme(&self) -> Scheme { Scheme::Ed25519 }
/// #     fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> { Ok(self.0.sign(message).as_ref().to_vec()) }
/// # }
/// # use aws_lc_rs::{encoding::AsDer, signature::KeyPair};
/// # let leaf_signer = Leaf(aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32])?);
/// # let public_key_der = leaf_signer.0.public_key().as_der()?;
/// # let (chain, now, seed) = ([b"a certificate"], 1_790_000_000_000, [7; 32].into());
/// # let leaf = LeafFacts {
/// #     principal: "spiffe://ransomeye.local/core/core-01".parse()?,
/// #     key: LeafKey::from_spki(public_key_der.as_ref())?,
/// #     sha256: certificate_digest(chain[0]),
/// #     chain_not_after_unix_ms: now + 2_592_000_000,
/// # };
/// let clock = Clock::new(now, 30_000);
/// let key = SealingKey::from_seed(&seed)?;
/// let lifetime = SealingLifetime { not_before: now, not_after: now + 604_800_000 };
/// let encoded = record::make(key.public_key(), 1, lifetime, &chain, &leaf, &leaf_signer, &clock)?;
///
/// // Whoever wants to seal to the owner: it validates the chain, and hands in what it found out about the certificate.
/// let verified = UnverifiedRecord::read(&encoded)?.verify(&leaf, &clock)?;
/// assert_eq!((verified.version(), verified.key()), (1, key.public_key()));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # Errors
///
/// When others would refuse the record, or the certificate's key does not sign.
pub fn make<S: LeafSigner>(
    key: &SealingPublicKey,
    version: u64,
    lifetime: SealingLifetime,
    chain: &[impl AsRef<[u8]>],
    leaf: &LeafFacts,
    signer: &S,
    clock: &Clock,
) -> Result<Vec<u8>, MakeRecordError<S::Error>> {
    let scheme = vouch::scheme_of(signer, leaf).map_err(RecordError::from)?;
    let statement = v1::SealingKeyStatement {
        principal: leaf.principal.spiffe_id(),
        version,
        suite: SUITE,
        public_key: key.as_bytes().to_vec().into(),
        not_before: lifetime.not_before,
        not_after: lifetime.not_after,
        chain: chain.iter().map(|certificate| certificate.as_ref().to_vec().into()).collect(),
    }
    .encode_to_vec();
    let leaf_signature = signer.sign(&CONTEXT.message(leaf, &statement)).map_err(MakeRecordError::Leaf)?;
    let record = v1::SealingKeyRecord { statement: statement.into(), scheme, leaf_signature: leaf_signature.into() };
    let encoded = record.encode_to_vec();
    UnverifiedRecord::read(&encoded)?.verify(leaf, clock)?;
    Ok(encoded)
}

/// A record that was read and not yet verified: what it says is a claim, good for finding out what to check.
#[derive(Debug, Clone)]
pub struct UnverifiedRecord<'a> {
    vouched: Vouched<'a>,
    owner: Owner<'a>,
    version: u64,
    public_key: [u8; 32],
    lifetime: SealingLifetime,
}

impl<'a> UnverifiedRecord<'a> {
    /// Reads an encoded record.
    ///
    /// # Errors
    ///
    /// When it is not in its canonical encoding, something is missing or out of bounds, its suite is unknown, its role is
    /// reserved, or its times are out of order.
    pub fn read(encoded: &'a [u8]) -> Result<Self, RecordError> {
        let vouched = read_record(encoded).map_err(|refusal| refusal.at(Place::SealingRecord))?;
        let in_statement = |refusal: Refusal| refusal.at(Place::SealingStatement);
        let statement = Statement::read(vouched.statement).map_err(in_statement)?;
        if statement.suite != SUITE {
            return Err(RecordError::Suite { suite: statement.suite });
        }
        let rule = Refusal::OutOfBounds { field: "public_key", rule: "it must be 32 bytes" };
        let public_key = statement.public_key.try_into().map_err(|_| in_statement(rule))?;
        let owner = Owner::new(statement.owner)?;
        statement.lifetime.check()?;
        Ok(Self { vouched, owner, version: statement.version, public_key, lifetime: statement.lifetime })
    }

    /// Whose key it claims to be.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.owner.principal
    }

    /// Which of the owner's keys it claims to be, from 1.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The certificate chain in DER, as [`crate::UnverifiedBundle::chain`].
    #[must_use]
    pub fn chain(&self) -> &[&'a [u8]] {
        &self.owner.chain
    }

    /// Verifies all that the record says, given what the caller found out about the first certificate of its
    /// [`chain`](Self::chain). Whether that certificate is revoked is the caller's to say, now and as long as it keeps the
    /// result; so is whether it has seen a newer version, or another key under this one.
    ///
    /// # Errors
    ///
    /// The first of the checks that fails, in the order: certificate, principal, end of the chain, time, sealing key, scheme,
    /// certificate's signature.
    pub fn verify(&self, leaf: &LeafFacts, clock: &Clock) -> Result<VerifiedRecord, RecordError> {
        self.owner.check(leaf)?;
        vouch::check_times(self.lifetime.not_before, self.lifetime.not_after, leaf, clock)?;
        let key = SealingPublicKey::from_bytes(self.public_key).map_err(RecordError::Key)?;
        self.vouched.verify(CONTEXT, leaf)?;
        Ok(VerifiedRecord {
            principal: self.owner.principal.clone(),
            version: self.version,
            key,
            lifetime: self.lifetime,
            leaf_sha256: leaf.sha256,
        })
    }
}

/// A sealing key and its owner. Only verification makes one.
///
/// It says nothing about the time at which it is used: whoever seals to it compares the time with its
/// [`lifetime`](Self::lifetime).
#[derive(Debug, Clone)]
pub struct VerifiedRecord {
    principal: Principal,
    version: u64,
    key: SealingPublicKey,
    lifetime: SealingLifetime,
    leaf_sha256: [u8; 32],
}

impl VerifiedRecord {
    /// Whose key it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Which of the owner's keys it is, from 1.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &SealingPublicKey {
        &self.key
    }

    /// When others seal to it.
    #[must_use]
    pub fn lifetime(&self) -> SealingLifetime {
        self.lifetime
    }

    /// [`certificate_digest`](crate::bundle::certificate_digest) of the certificate that vouches for it, for finding what a
    /// revocation concerns.
    #[must_use]
    pub fn leaf_sha256(&self) -> &[u8; 32] {
        &self.leaf_sha256
    }
}

/// Reads the fields of a `SealingKeyRecord`.
fn read_record(encoded: &[u8]) -> Result<Vouched<'_>, Refusal> {
    if encoded.len() > MAX_RECORD_LEN {
        return Err(Refusal::TooLong { len: encoded.len(), max: MAX_RECORD_LEN });
    }
    let (mut statement, mut scheme, mut leaf_signature) = (None, None, None);
    let mut reader = Reader::new(encoded, 0);
    while let Some(field) = reader.next()? {
        match field.number {
            1 => statement = Some(field.bytes("statement")?),
            2 => scheme = Some(vouch::scheme(&field)?),
            3 => leaf_signature = Some(vouch::leaf_signature(&field)?),
            // No signature covers these bytes.
            number => return Err(Refusal::UnknownField { number }),
        }
    }
    Vouched::new(statement.ok_or(Refusal::Missing { field: "statement" })?, scheme, leaf_signature)
}

/// The fields of a `SealingKeyStatement`.
struct Statement<'a> {
    owner: OwnerFields<'a>,
    version: u64,
    suite: u32,
    public_key: &'a [u8],
    lifetime: SealingLifetime,
}

impl<'a> Statement<'a> {
    fn read(encoded: &'a [u8]) -> Result<Self, Refusal> {
        let (mut principal, mut version, mut suite, mut public_key) = (None, None, None, None);
        let (mut not_before, mut not_after, mut chain) = (None, None, Vec::new());
        let mut reader = Reader::new(encoded, 0);
        while let Some(field) = reader.next()? {
            match field.number {
                1 => principal = Some(vouch::principal(&field)?),
                2 => version = Some(field.varint("version")?),
                3 => suite = Some(field.varint_up_to("suite", u32::MAX, "it must be below 2^32")?),
                4 => public_key = Some(field.bytes("public_key")?),
                5 => not_before = Some(field.moment("not_before")?),
                6 => not_after = Some(field.moment("not_after")?),
                7 => vouch::certificate(&field, &mut chain)?,
                _ => field.unknown()?,
            }
        }
        let missing = |field| Refusal::Missing { field };
        Ok(Self {
            version: version.ok_or(missing("version"))?,
            suite: suite.ok_or(missing("suite"))?,
            public_key: public_key.ok_or(missing("public_key"))?,
            lifetime: SealingLifetime {
                not_before: not_before.ok_or(missing("not_before"))?,
                not_after: not_after.ok_or(missing("not_after"))?,
            },
            owner: OwnerFields::new(principal, chain)?,
        })
    }
}
