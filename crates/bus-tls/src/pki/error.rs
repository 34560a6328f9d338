//! What can go wrong in the authority.

use std::path::PathBuf;

use bus_proto::{Principal, Role};

use crate::TlsError;

/// Why the authority did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file would have been overwritten.
    #[error("`{path}` exists and is not overwritten: an authority never is, a certificate only when that is asked for")]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// A revoked certificate of the component has not expired yet.
    #[error(
        "a certificate of {principal} is revoked, and its key would be admitted again until {until}: the broker reads no \
         revocation list, and knows components by name; choose another name, or ask for this one explicitly"
    )]
    RevokedName {
        /// Whom the certificate was asked for.
        principal: Principal,
        /// The end of the revoked certificate that lasts longest, in UTC.
        until: String,
    },
    /// The files in the place of a new certificate and its key are not those of the same principal.
    #[error(
        "`{path}` does not belong to a certificate of {principal} and is not overwritten; choose another directory"
    )]
    NotReplaced {
        /// The file.
        path: PathBuf,
        /// For whom the new certificate was issued.
        principal: Principal,
    },
    /// The directory holds some of an authority's files, but not its certificate.
    #[error(
        "`{found}` is there, but `{missing}` is not; restore it from a backup, or, if `bus pki init` was interrupted \
         before it had made the authority, remove what it left and run it again"
    )]
    Incomplete {
        /// A file that is there.
        found: PathBuf,
        /// The certificate.
        missing: PathBuf,
    },
    /// The directory holds no authority.
    #[error("`{path}` holds no certificate authority; make one with `bus pki init`")]
    NoAuthority {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the authority is wrong.
    #[error(transparent)]
    File(#[from] TlsError),
    /// The authority's certificate does not name its trust domain.
    #[error("the authority's certificate `{path}` names no trust domain; use one made by `bus pki init`")]
    NoTrustDomain {
        /// The certificate.
        path: PathBuf,
    },
    /// A file could not be written or read.
    #[error("`{path}` cannot be {action} ({reason}); check the directory and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done with it.
        action: &'static str,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// The record of issued certificates is missing.
    #[error("`{path}` is missing; restore it from a backup: without it, revocations would be lost")]
    MissingRecord {
        /// The record.
        path: PathBuf,
    },
    /// The record does not know of a revocation that the authority has announced.
    #[error(
        "`{list}` revokes serial {serial}, which `{record}` does not; restore the record from a newer backup: \
         a list made from this one would take the revocation back"
    )]
    LostRevocation {
        /// The revocation list.
        list: PathBuf,
        /// The record.
        record: PathBuf,
        /// The serial number, in hexadecimal.
        serial: String,
    },
    /// The record of issued certificates is damaged.
    #[error("line {line} of `{path}` is damaged; restore the file from a backup")]
    DamagedRecord {
        /// The record.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The role belongs to the infrastructure of the bus.
    #[error("role `{role}` is reserved for the bus itself; choose another, or issue a broker's certificate")]
    ReservedRole {
        /// The role.
        role: Role,
    },
    /// A name of a server is neither a host name nor an IP address.
    #[error("`{name}` is neither a host name nor an IP address; correct it")]
    BadServerName {
        /// The name, escaped.
        name: String,
    },
    /// The certificate would end before it begins, or at a time that a certificate cannot express.
    #[error("the validity is empty or out of range; choose an end after the beginning and before the year 10000")]
    BadValidity,
    /// The certificate would outlive the authority.
    #[error(
        "the certificate would be valid until {asked}, but the authority ends at {ends}; choose a shorter lifetime"
    )]
    OutlivesAuthority {
        /// The end that was asked for, in UTC.
        asked: String,
        /// The end of the authority, in UTC.
        ends: String,
    },
    /// No certificate with this serial number was issued.
    #[error(
        "no certificate with serial {serial} was issued by this authority; see those that were with `bus pki list`"
    )]
    UnknownSerial {
        /// The serial number, escaped.
        serial: String,
    },
    /// No certificate was issued to this component.
    #[error("no certificate was issued to {principal} by this authority; check the name")]
    UnknownPrincipal {
        /// The component.
        principal: Principal,
    },
    /// The crypto library failed.
    #[error("the crypto library failed ({reason}); check that the authority's key file is intact")]
    Crypto {
        /// What it said; never key material.
        reason: String,
    },
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto { reason: error.to_string() }
    }
}
