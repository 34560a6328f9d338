//! Key bundles: who a signing key belongs to, proven by the key itself and by a TLS certificate.
//!
//! A bundle carries a statement (principal, key, times, certificate chain) and two signatures over it. The key's own
//! proves that whoever made the bundle holds the key, and did not put another's in. The certificate's, made like the one of
//! a TLS 1.3 handshake with a context string of its own (RFC 8446, section 4.4.3; RFC 9345), proves whose it is. So the
//! certificate's key is used once a day and process, and can live in a hardware module.

mod error;
mod leaf;
pub(crate) mod vouch;

use alloc::vec::Vec;

use bus_proto::prost::Message;
use bus_proto::{Principal, v1};

pub use error::{BundleError, MakeError};
pub use leaf::{LeafFacts, LeafKey, LeafSigner, Scheme};
use vouch::{Context, Owner, OwnerFields, Vouched};

use crate::clock::Clock;
use crate::keys::{KEY_LEN, KeyId, SIGNATURE_LEN, Signature, SigningKey, VerifyingKey, sha256};
use crate::scan::{MAX_BUNDLE_LEN, Place, Reader, Refusal};

/// The longest time that a key signs for, in milliseconds: 24 hours.
pub const MAX_SIGNING_MS: i64 = 86_400_000;

/// The most certificates of a chain: whoever holds a certificate can present others beside it, and looking for a path through
/// them costs the more the more they are.
pub const MAX_CHAIN: usize = 4;

const POSSESSION_CONTEXT: &[u8] = b"ransomeye.v1 key possession\0";
const LEAF_CONTEXT: Context = Context(b"ransomeye.v1 key bundle\0");

/// When a key may be used, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The first moment of signing, greater than 0.
    pub not_before: i64,
    /// The last moment of signing: after `not_before`, by at most [`MAX_SIGNING_MS`].
    pub sign_until: i64,
    /// The last moment at which a receiver accepts what was signed: not before `sign_until`, nor after the end of the
    /// chain.
    pub verify_until: i64,
}

impl Lifetime {
    fn check(&self) -> Result<(), BundleError> {
        let Self { not_before, sign_until, verify_until } = *self;
        let signing_ms = sign_until.saturating_sub(not_before);
        let holds = not_before > 0 && (1..=MAX_SIGNING_MS).contains(&signing_ms) && sign_until <= verify_until;
        if holds { Ok(()) } else { Err(BundleError::Lifetime) }
    }
}

/// The digest by which a bundle names its certificate: SHA-256 of the DER.
#[must_use]
pub fn certificate_digest(der: &[u8]) -> [u8; 32] {
    sha256(der)
}

/// A bundle for one's own key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBundle {
    /// The encoded bundle, at most [`MAX_BUNDLE_LEN`] bytes.
    pub encoded: Vec<u8>,
    /// Its SHA-256, which stands in the trailer of every message that the key signs.
    pub key_id: KeyId,
}

/// Makes the bundle of a signing key: `chain` in DER, the certificate that `leaf` and `signer` are about first, then its
/// intermediates, without the root.
///
/// What was made is verified before it is returned, as a receiver with this clock would, so a mistake is found here and not by
/// every receiver. A key whose `not_before` is still to come is made when that has come.
///
/// # Errors
///
/// When a receiver would refuse the bundle, or a key does not sign.
pub fn make<S: LeafSigner>(
    key: &SigningKey,
    lifetime: Lifetime,
    chain: &[impl AsRef<[u8]>],
    leaf: &LeafFacts,
    signer: &S,
    clock: &Clock,
) -> Result<MadeBundle, MakeError<S::Error>> {
    let scheme = vouch::scheme_of(signer, leaf)?;
    let statement = v1::KeyStatement {
        principal: leaf.principal.spiffe_id(),
        public_key: key.public_key()?.to_vec().into(),
        not_before: lifetime.not_before,
        sign_until: lifetime.sign_until,
        verify_until: lifetime.verify_until,
        chain: chain.iter().map(|certificate| certificate.as_ref().to_vec().into()).collect(),
    }
    .encode_to_vec();
    let possession = key.sign(&possession_message(&statement))?;
    let leaf_signature = signer.sign(&LEAF_CONTEXT.message(leaf, &statement)).map_err(MakeError::Leaf)?;
    let encoded = v1::KeyBundle {
        statement: statement.into(),
        possession_signature: possession.as_bytes().to_vec().into(),
        scheme,
        leaf_signature: leaf_signature.into(),
    }
    .encode_to_vec();
    let key_id = UnverifiedBundle::read(&encoded)?.verify(leaf, clock)?.key_id;
    Ok(MadeBundle { encoded, key_id })
}

fn possession_message(statement: &[u8]) -> Vec<u8> {
    [POSSESSION_CONTEXT, statement].concat()
}

/// A bundle that was read and not yet verified: what it says is a claim, good for finding out what to check.
#[derive(Debug, Clone)]
pub struct UnverifiedBundle<'a> {
    key_id: KeyId,
    vouched: Vouched<'a>,
    possession: Signature,
    owner: Owner<'a>,
    public_key: [u8; KEY_LEN],
    lifetime: Lifetime,
}

impl<'a> UnverifiedBundle<'a> {
    /// Reads an encoded bundle.
    ///
    /// # Errors
    ///
    /// When it is not in its canonical encoding, something is missing or out of bounds, its role is reserved, or its times
    /// are out of order.
    pub fn read(encoded: &'a [u8]) -> Result<Self, BundleError> {
        let outer = Outer::read(encoded).map_err(|refusal| refusal.at(Place::Bundle))?;
        let inner = Inner::read(outer.vouched.statement).map_err(|refusal| refusal.at(Place::Statement))?;
        let owner = Owner::new(inner.owner)?;
        inner.lifetime.check()?;
        Ok(Self {
            key_id: KeyId::of_bundle(encoded),
            vouched: outer.vouched,
            possession: outer.possession,
            owner,
            public_key: *inner.public_key,
            lifetime: inner.lifetime,
        })
    }

    /// The id of its key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Whose key it claims to be.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.owner.principal
    }

    /// The certificate chain in DER, as yet unread: 1 to 4, and according to the sender the certificate itself first, then its
    /// intermediates in order. Only that the first is the one that the caller validated is checked here.
    #[must_use]
    pub fn chain(&self) -> &[&'a [u8]] {
        &self.owner.chain
    }

    /// Verifies all that the bundle says, given what the caller found out about the first certificate of its
    /// [`chain`](Self::chain). Whether that certificate is revoked is the caller's to say, now and as long as it keeps the
    /// result.
    ///
    /// That a bundle holds does not mean that its owner uses it under this key id: an ECDSA signature has a twin that holds
    /// as well, so anybody can turn the bundle of a P-256 or P-384 certificate into a second one with an id of its own. Keep
    /// a bundle, and whatever else is kept per key, only once the signature of a *message* under its id has held
    /// ([`crate::Unverified::verify`]).
    ///
    /// # Errors
    ///
    /// The first of the checks that fails, in the order: certificate, principal, end of the chain, time, signing key, proof
    /// of possession, scheme, certificate's signature.
    pub fn verify(&self, leaf: &LeafFacts, clock: &Clock) -> Result<VerifiedBundle, BundleError> {
        self.owner.check(leaf)?;
        let Lifetime { not_before, verify_until, .. } = self.lifetime;
        vouch::check_times(not_before, verify_until, leaf, clock)?;
        let key = VerifyingKey::from_bytes(self.public_key).map_err(BundleError::SigningKey)?;
        key.verify(&possession_message(self.vouched.statement), &self.possession).map_err(BundleError::Possession)?;
        self.vouched.verify(LEAF_CONTEXT, leaf)?;
        Ok(VerifiedBundle {
            key_id: self.key_id,
            principal: self.owner.principal.clone(),
            key,
            lifetime: self.lifetime,
            leaf_sha256: leaf.sha256,
        })
    }
}

/// A key and its owner. Only verification makes one.
///
/// It says nothing about the time at which it is used: [`crate::Unverified::verify`] asks again for every message.
#[derive(Debug)]
pub struct VerifiedBundle {
    key_id: KeyId,
    principal: Principal,
    key: VerifyingKey,
    lifetime: Lifetime,
    leaf_sha256: [u8; 32],
}

impl VerifiedBundle {
    /// The id of the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Whose key it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// When the key may be used.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// [`certificate_digest`] of the certificate that vouches for it, for finding what a revocation concerns.
    #[must_use]
    pub fn leaf_sha256(&self) -> &[u8; 32] {
        &self.leaf_sha256
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }
}

/// The fields of a `KeyBundle`.
struct Outer<'a> {
    vouched: Vouched<'a>,
    possession: Signature,
}

impl<'a> Outer<'a> {
    fn read(encoded: &'a [u8]) -> Result<Self, Refusal> {
        if encoded.len() > MAX_BUNDLE_LEN {
            return Err(Refusal::TooLong { len: encoded.len(), max: MAX_BUNDLE_LEN });
        }
        let (mut statement, mut possession, mut scheme, mut leaf_signature) = (None, None, None, None);
        let mut reader = Reader::new(encoded, 0);
        while let Some(field) = reader.next()? {
            match field.number {
                1 => statement = Some(field.bytes("statement")?),
                2 => {
                    let bytes: &[u8; SIGNATURE_LEN] = field.array("possession_signature", "it must be 64 bytes")?;
                    possession = Some(Signature::from_bytes(*bytes));
                }
                3 => scheme = Some(vouch::scheme(&field)?),
                4 => leaf_signature = Some(vouch::leaf_signature(&field)?),
                // No signature covers these bytes, and the key id does: anybody could add a field and have another id.
                number => return Err(Refusal::UnknownField { number }),
            }
        }
        let missing = |field| Refusal::Missing { field };
        let statement = statement.ok_or(missing("statement"))?;
        let possession = possession.ok_or(missing("possession_signature"))?;
        Ok(Self { vouched: Vouched::new(statement, scheme, leaf_signature)?, possession })
    }
}

/// The fields of a `KeyStatement`.
struct Inner<'a> {
    owner: OwnerFields<'a>,
    public_key: &'a [u8; KEY_LEN],
    lifetime: Lifetime,
}

impl<'a> Inner<'a> {
    fn read(encoded: &'a [u8]) -> Result<Self, Refusal> {
        let (mut principal, mut public_key, mut not_before, mut sign_until) = (None, None, None, None);
        let (mut verify_until, mut chain) = (None, Vec::new());
        let mut reader = Reader::new(encoded, 0);
        while let Some(field) = reader.next()? {
            match field.number {
                1 => principal = Some(vouch::principal(&field)?),
                2 => public_key = Some(field.array("public_key", "it must be 32 bytes")?),
                3 => not_before = Some(field.moment("not_before")?),
                4 => sign_until = Some(field.moment("sign_until")?),
                5 => verify_until = Some(field.moment("verify_until")?),
                6 => vouch::certificate(&field, &mut chain)?,
                _ => field.unknown()?,
            }
        }
        let missing = |field| Refusal::Missing { field };
        let lifetime = Lifetime {
            not_before: not_before.ok_or(missing("not_before"))?,
            sign_until: sign_until.ok_or(missing("sign_until"))?,
            verify_until: verify_until.ok_or(missing("verify_until"))?,
        };
        let owner = OwnerFields::new(principal, chain)?;
        Ok(Self { owner, public_key: public_key.ok_or(missing("public_key"))?, lifetime })
    }
}
