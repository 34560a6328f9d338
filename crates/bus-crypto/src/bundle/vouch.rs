//! What a certificate's key vouches for: the statements of key bundles and of sealing key records, as far as they are alike.

use alloc::vec::Vec;

use bus_proto::Principal;

use crate::bundle::{BundleError, LeafFacts, LeafSigner, MAX_CHAIN, Scheme, certificate_digest};
use crate::clock::Clock;
use crate::scan::{Field, Refusal};

/// What the certificate's key signs beside a statement, so that what is signed for one purpose is nothing for another. It ends
/// with a zero byte.
#[derive(Clone, Copy)]
pub(crate) struct Context(pub(crate) &'static [u8]);

impl Context {
    /// The bytes that the certificate's key signs for a statement.
    pub(crate) fn message(self, leaf: &LeafFacts, statement: &[u8]) -> Vec<u8> {
        let Self(context) = self;
        let scheme = leaf.key.scheme().code().to_be_bytes();
        [&[0x20; 64], context, &leaf.sha256, &scheme, statement].concat()
    }
}

/// The number of the scheme that `signer` signs with, if that is the one of the certificate's key.
pub(crate) fn scheme_of(signer: &impl LeafSigner, leaf: &LeafFacts) -> Result<u32, BundleError> {
    let scheme = u32::from(signer.scheme().code());
    check_scheme(scheme, leaf.key.scheme())?;
    Ok(scheme)
}

fn check_scheme(stated: u32, needed: Scheme) -> Result<(), BundleError> {
    if stated == u32::from(needed.code()) { Ok(()) } else { Err(BundleError::SchemeMismatch { stated, needed }) }
}

/// A statement with the signature of a certificate's key, not yet verified.
#[derive(Debug, Clone)]
pub(crate) struct Vouched<'a> {
    pub(crate) statement: &'a [u8],
    scheme: u32,
    leaf_signature: &'a [u8],
}

impl<'a> Vouched<'a> {
    /// The fields as far as they are there.
    pub(crate) fn new(
        statement: &'a [u8],
        scheme: Option<u32>,
        leaf_signature: Option<&'a [u8]>,
    ) -> Result<Self, Refusal> {
        let missing = |field| Refusal::Missing { field };
        let scheme = scheme.ok_or(missing("scheme"))?;
        Ok(Self { statement, scheme, leaf_signature: leaf_signature.ok_or(missing("leaf_signature"))? })
    }

    /// Verifies the scheme, then the signature.
    pub(crate) fn verify(&self, context: Context, leaf: &LeafFacts) -> Result<(), BundleError> {
        check_scheme(self.scheme, leaf.key.scheme())?;
        leaf.key.verify(&context.message(leaf, self.statement), self.leaf_signature)
    }
}

/// The fields of a statement that say whose it is.
pub(crate) struct OwnerFields<'a> {
    principal: &'a str,
    chain: Vec<&'a [u8]>,
}

impl<'a> OwnerFields<'a> {
    /// The fields as far as they are there.
    pub(crate) fn new(principal: Option<&'a str>, chain: Vec<&'a [u8]>) -> Result<Self, Refusal> {
        let missing = |field| Refusal::Missing { field };
        if chain.is_empty() {
            return Err(missing("chain"));
        }
        Ok(Self { principal: principal.ok_or(missing("principal"))?, chain })
    }
}

/// Whose a statement claims to be.
#[derive(Debug, Clone)]
pub(crate) struct Owner<'a> {
    pub(crate) principal: Principal,
    /// 1 to [`MAX_CHAIN`] certificates in DER, as yet unread.
    pub(crate) chain: Vec<&'a [u8]>,
}

impl<'a> Owner<'a> {
    /// Parses the principal, which may not be one of a reserved role.
    pub(crate) fn new(fields: OwnerFields<'a>) -> Result<Self, BundleError> {
        let principal: Principal = fields.principal.parse().map_err(BundleError::Principal)?;
        let role = principal.role();
        if role.is_reserved() {
            return Err(BundleError::ReservedRole { role: role.clone() });
        }
        Ok(Self { principal, chain: fields.chain })
    }

    /// Compares the first certificate, then the principal, with what the caller vouches for.
    pub(crate) fn check(&self, leaf: &LeafFacts) -> Result<(), BundleError> {
        if self.chain.first().is_none_or(|der| certificate_digest(der) != leaf.sha256) {
            return Err(BundleError::OtherLeaf);
        }
        if self.principal == leaf.principal { Ok(()) } else { Err(BundleError::OtherPrincipal) }
    }
}

/// Checks that a key whose first and last moment these are does not outlive its certificates, then that it is valid now.
pub(crate) fn check_times(first: i64, last: i64, leaf: &LeafFacts, clock: &Clock) -> Result<(), BundleError> {
    if last > leaf.chain_not_after_unix_ms {
        let excess_ms = last.saturating_sub(leaf.chain_not_after_unix_ms);
        return Err(BundleError::OutlivesChain { excess_ms });
    }
    if let Some(late_ms) = clock.late_for(last) {
        return Err(BundleError::Expired { late_ms });
    }
    clock.early_for(first).map_or(Ok(()), |early_ms| Err(BundleError::NotYetValid { early_ms }))
}

/// Reads the field `scheme`.
pub(crate) fn scheme(field: &Field<'_>) -> Result<u32, Refusal> {
    field.varint_up_to("scheme", u16::MAX.into(), "it must be at most 0xffff")
}

/// Reads the field `leaf_signature`.
pub(crate) fn leaf_signature<'a>(field: &Field<'a>) -> Result<&'a [u8], Refusal> {
    field.bytes_up_to("leaf_signature", 1_024, "it must be 1 to 1,024 bytes")
}

/// Reads the field `principal`.
pub(crate) fn principal<'a>(field: &Field<'a>) -> Result<&'a str, Refusal> {
    field.text("principal", 512, "it must be 1 to 512 bytes")
}

/// Reads one certificate of the field `chain`.
pub(crate) fn certificate<'a>(field: &Field<'a>, chain: &mut Vec<&'a [u8]>) -> Result<(), Refusal> {
    let certificate = field.element("chain")?;
    if certificate.is_empty() || chain.len() == MAX_CHAIN {
        let rule = "it must be 1 to 4 certificates, none of them empty";
        return Err(Refusal::OutOfBounds { field: "chain", rule });
    }
    chain.push(certificate);
    Ok(())
}
