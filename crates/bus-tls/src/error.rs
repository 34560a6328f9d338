//! What can be wrong with the credentials: one variant for each fault, which names the file and says what to do.

use std::path::PathBuf;

use bus_proto::{IdentityError, Principal, TrustDomain};

use crate::place::{FileKind, Origin};
use crate::x509;

/// Why credentials were refused.
///
/// Every message names the file and says what to do next. None of them shows key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    // Configuration.
    /// An environment variable that is needed is not set, or is empty.
    #[error("environment variable {name} is not set; set it to the path of the {kind}")]
    MissingVariable {
        /// The variable.
        name: &'static str,
        /// The file that it must lead to.
        kind: FileKind,
    },
    /// The environment variable with the trust domain holds something else.
    #[error("environment variable {name} is no trust domain: {reason}; set it to a name such as ransomeye.local")]
    BadTrustDomainVariable {
        /// The variable.
        name: &'static str,
        /// What is wrong with its value.
        reason: IdentityError,
    },
    /// The environment variable that says who may read the key holds something else.
    #[error("environment variable {name} must be `owner-only` or `shared`; correct it, or unset it")]
    BadKeyPermissionsVariable {
        /// The variable.
        name: &'static str,
    },
    /// The crypto provider refused the protocol settings, which no input can cause.
    #[error("the crypto provider cannot do TLS 1.3: {reason}; report this as a defect")]
    Provider {
        /// What it said.
        reason: String,
    },

    // Files.
    /// The file does not exist.
    #[error("{kind} `{path}` does not exist; correct the path, or issue one with `bus pki`")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
    },
    /// The path leads to a directory.
    #[error("{kind} `{path}` is a directory; give the path of the file in it")]
    IsDirectory {
        /// The directory.
        path: PathBuf,
        /// The part that it was to play.
        kind: FileKind,
    },
    /// The file cannot be read.
    #[error("{kind} `{path}` cannot be read ({reason}); let the user that runs this program read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// The file is larger than any such file is.
    #[error("{kind} `{path}` is larger than {max} bytes; check that the path leads to the right file")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
        /// The largest size that is read, in bytes.
        max: u64,
    },
    /// The file holds nothing.
    #[error("{kind} `{path}` is empty; write the PEM text into it again")]
    Empty {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
    },
    /// Users other than its owner may read the private key.
    #[error(
        "private key file `{path}` can be read by others (mode {mode:04o}); run `chmod 600` on it, \
         or accept it explicitly with `KeyPermissions::Shared` (RANSOMEYE_TLS_KEY_PERMISSIONS=shared)"
    )]
    ExposedKey {
        /// The private key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// A file of certificates that others may read also holds a private key.
    #[error(
        "{kind} `{path}` also holds a private key and can be read by others (mode {mode:04o}); \
         remove the key from it, or run `chmod 600` on it"
    )]
    KeyAmongCertificates {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
        /// Its permission bits.
        mode: u32,
    },

    // PEM.
    /// The file is DER, the binary form.
    #[error("{kind} `{path}` is DER, not PEM; convert it: openssl {} -inform der -in <this file> -out <new file>", .kind.openssl())]
    Der {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
    },
    /// The file holds no PEM block at all.
    #[error("{kind} `{path}` is not PEM; it must hold a block that starts with -----BEGIN {}-----", .kind.pem_label())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
    },
    /// A PEM block is damaged.
    #[error("{kind} `{path}` has a damaged PEM block ({reason}); copy the file again from where it was made")]
    DamagedPem {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
        /// What is damaged.
        reason: &'static str,
    },
    /// The file holds PEM blocks, but of another kind.
    #[error("{kind} `{path}` holds {found}, not a {} block; check that the paths are not mixed up", .kind.pem_label())]
    WrongPemKind {
        /// The file.
        path: PathBuf,
        /// The part that it plays.
        kind: FileKind,
        /// The labels of the blocks in it.
        found: String,
    },
    /// The private key file holds PEM blocks, but no private key.
    #[error("private key file `{path}` holds {found}, but no private key; check that the paths are not mixed up")]
    NoKey {
        /// The private key file.
        path: PathBuf,
        /// The labels of the blocks in it.
        found: String,
    },
    /// The private key is in the form that OpenSSH uses.
    #[error(
        "private key file `{path}` is in OpenSSH's own form; convert a copy of it: ssh-keygen -p -m PKCS8 -f <copy>"
    )]
    OpenSshKey {
        /// The private key file.
        path: PathBuf,
    },
    /// The private key file holds more than one private key.
    #[error("private key file `{path}` holds {count} private keys; leave only the one that belongs to the certificate")]
    SeveralKeys {
        /// The private key file.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// The private key is encrypted under a passphrase.
    #[error(
        "private key file `{path}` is encrypted under a passphrase; \
         decrypt it: openssl pkey -in <this file> -out <new file>"
    )]
    EncryptedKey {
        /// The private key file.
        path: PathBuf,
    },
    /// The private key is damaged or of an unsupported kind.
    #[error(
        "private key file `{path}` holds no key that can be used; make a P-256, P-384, Ed25519 or RSA (2048 bits or more) key"
    )]
    UnusableKey {
        /// The private key file.
        path: PathBuf,
    },
    /// The private key does not belong to the certificate.
    #[error(
        "private key file `{key}` does not belong to certificate file `{certificate}`; use the two that were issued together"
    )]
    KeyMismatch {
        /// The private key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },

    // The certificate.
    /// The certificate does not follow X.509.
    #[error("the certificate {origin} is malformed ({reason}); issue a new one")]
    MalformedCertificate {
        /// Where it came from.
        origin: Origin,
        /// What is malformed.
        reason: String,
    },
    /// The certificate has expired.
    #[error("the certificate {origin} expired at {not_after}; issue a new one")]
    Expired {
        /// Where it came from.
        origin: Origin,
        /// The end of its validity, in UTC.
        not_after: String,
    },
    /// The certificate is not valid yet.
    #[error("the certificate {origin} is not valid before {not_before}; check this host's clock, or wait")]
    NotYetValid {
        /// Where it came from.
        origin: Origin,
        /// The start of its validity, in UTC.
        not_before: String,
    },
    /// The certificate was signed by a certificate authority that is not in the trust root file.
    #[error(
        "the certificate {origin} was not signed by a certificate authority in `{trust_root}`; \
         use a certificate of this deployment's own authority"
    )]
    UnknownIssuer {
        /// Where it came from.
        origin: Origin,
        /// The trust root file.
        trust_root: PathBuf,
    },
    /// The certificate was signed with its own key.
    #[error("the certificate {origin} is self-signed; issue one that is signed by an authority in `{trust_root}`")]
    SelfSigned {
        /// Where it came from.
        origin: Origin,
        /// The trust root file.
        trust_root: PathBuf,
    },
    /// The certificate is that of a certificate authority.
    #[error("the certificate {origin} is that of a certificate authority; use one issued to the component itself")]
    CaAsLeaf {
        /// Where it came from.
        origin: Origin,
    },
    /// The certificate may not be used by a client.
    #[error("the certificate {origin} lacks the extended key usage clientAuth; issue one that has it")]
    NoClientAuth {
        /// Where it came from.
        origin: Origin,
    },
    /// The certificate may not be used by a server.
    #[error("the certificate {origin} lacks the extended key usage serverAuth; issue one that has it")]
    NoServerAuth {
        /// Where it came from.
        origin: Origin,
    },
    /// The certificate's key usage excludes signatures, which TLS 1.3 needs.
    #[error("the certificate {origin} lacks the key usage digitalSignature; issue one that has it")]
    NoDigitalSignature {
        /// Where it came from.
        origin: Origin,
    },
    /// The certificate names no SPIFFE identity.
    #[error(
        "the certificate {origin} has no SPIFFE identity; \
         issue one with the URI name spiffe://<trust-domain>/<role>/<component>"
    )]
    NoIdentity {
        /// Where it came from.
        origin: Origin,
    },
    /// The certificate names more than one SPIFFE identity.
    #[error("the certificate {origin} has {count} SPIFFE identities; issue one that has exactly one")]
    SeveralIdentities {
        /// Where it came from.
        origin: Origin,
        /// How many there are.
        count: usize,
    },
    /// The SPIFFE identity is malformed.
    #[error("the certificate {origin} has a malformed SPIFFE identity: {reason}; issue one that follows the form")]
    MalformedIdentity {
        /// Where it came from.
        origin: Origin,
        /// What is malformed.
        reason: IdentityError,
    },
    /// The identity belongs to another trust domain.
    #[error(
        "the certificate {origin} belongs to trust domain {found}, not to {expected}; \
         use one of this deployment, or correct the expected trust domain"
    )]
    ForeignTrustDomain {
        /// Where it came from.
        origin: Origin,
        /// The trust domain that it names.
        found: TrustDomain,
        /// The trust domain of this deployment.
        expected: TrustDomain,
    },
    /// The certificate carries a name beside its identity, by which a server could take it for somebody else.
    #[error("the certificate {origin} also carries the name {name}; issue one whose only name is the SPIFFE identity")]
    ExtraName {
        /// Where it came from.
        origin: Origin,
        /// The further name, with its kind.
        name: String,
    },
    /// The RSA key is too short.
    #[error("the certificate {origin} has an RSA key of {bits} bits; issue one with at least 2048, or with P-256")]
    WeakRsaKey {
        /// Where it came from.
        origin: Origin,
        /// The length of the modulus, in bits.
        bits: usize,
    },
    /// The public key is of a kind that is not accepted.
    #[error("the certificate {origin} has a key of an unsupported kind ({found}); use P-256, P-384, Ed25519 or RSA")]
    UnsupportedKey {
        /// Where it came from.
        origin: Origin,
        /// The kind of the key.
        found: String,
    },
    /// The certificate was signed with a broken hash.
    #[error(
        "the certificate {origin} was signed with {algorithm}, which is broken; issue one signed with SHA-256 or better"
    )]
    WeakSignature {
        /// Where it came from.
        origin: Origin,
        /// The signature algorithm.
        algorithm: &'static str,
    },
    /// The certificate has been revoked.
    #[error("the certificate {origin} (serial {serial}) is revoked by `{crl}`; issue a new one")]
    Revoked {
        /// Where it came from.
        origin: Origin,
        /// Its serial number, in hexadecimal.
        serial: String,
        /// The revocation list file.
        crl: PathBuf,
    },
    /// The chain from the certificate to a trust root breaks another rule.
    #[error(
        "the certificate {origin} has no valid chain to `{trust_root}` ({reason}); check the intermediate certificates"
    )]
    InvalidChain {
        /// Where it came from.
        origin: Origin,
        /// The trust root file.
        trust_root: PathBuf,
        /// The rule.
        reason: String,
    },

    // The revocation list.
    /// The revocation list should have been replaced by now.
    #[error("revocation list `{path}` is out of date; fetch the current one, or make it with `bus pki`")]
    StaleCrl {
        /// The revocation list file.
        path: PathBuf,
    },
    /// No revocation list in the file was signed by the authority that signed the certificate.
    #[error(
        "revocation list `{path}` was not signed by the certificate's authority; use the list of this deployment's own authority"
    )]
    ForeignCrl {
        /// The revocation list file.
        path: PathBuf,
    },
    /// The revocation list does not follow X.509.
    #[error("revocation list `{path}` is malformed ({reason}); fetch the current one, or make it with `bus pki`")]
    MalformedCrl {
        /// The revocation list file.
        path: PathBuf,
        /// What is malformed.
        reason: String,
    },
    /// Two lists in the file bear the name of one authority, and neither replaces the other: they were signed with
    /// different keys, cover different certificates, or have the same number and date.
    #[error(
        "revocation list file `{path}` holds different lists under the one name `{issuer}`; \
         leave only the current list of each authority, and give each authority a name of its own"
    )]
    AmbiguousCrl {
        /// The revocation list file.
        path: PathBuf,
        /// The name of the authority, escaped.
        issuer: String,
    },
    /// The list in the file is older than the one of the same authority that is in use.
    #[error(
        "revocation list `{path}` is older than the one of `{issuer}` that is in use, which stays; fetch the current one"
    )]
    OlderCrl {
        /// The revocation list file.
        path: PathBuf,
        /// The name of the authority, escaped.
        issuer: String,
    },

    // The trust root.
    /// The trust root file holds no certificate.
    #[error("trust root file `{path}` holds {found}, but no certificate; put the authority's certificate there")]
    NoTrustRoot {
        /// The trust root file.
        path: PathBuf,
        /// The labels of the blocks in it.
        found: String,
    },
    /// A certificate in the trust root file is not that of a certificate authority.
    #[error("trust root file `{path}` holds a certificate that is no certificate authority's ({subject}); remove it")]
    NotACa {
        /// The trust root file.
        path: PathBuf,
        /// The subject of the certificate.
        subject: String,
    },
    /// Every certificate in the trust root file has expired.
    #[error("trust root file `{path}` expired at {not_after}; make a new authority and distribute its certificate")]
    ExpiredTrustRoot {
        /// The trust root file.
        path: PathBuf,
        /// The end of its validity, in UTC.
        not_after: String,
    },

    // Signing.
    /// The own private key does not sign with this scheme.
    #[error(
        "the own private key does not sign with TLS signature scheme {scheme:#06x}; use one of the certificate's kind of key"
    )]
    UnsupportedScheme {
        /// The scheme, as TLS numbers it.
        scheme: u16,
    },
    /// The own private key did not sign.
    #[error("the own private key did not sign: {reason}; try again, or issue a new certificate")]
    Signing {
        /// What the crypto provider said.
        reason: rustls::Error,
    },

    // Evidence.
    /// The certificate was not valid at the time as of which the evidence is judged.
    #[error("the certificate {origin} was not valid at {at}: {bound}; check the time as of which it is judged")]
    NotValidThen {
        /// Where it came from.
        origin: Origin,
        /// The time as of which it was judged, in UTC.
        at: String,
        /// When its validity begins or ends, in UTC.
        bound: String,
    },
    /// No trust root was valid at the time as of which the evidence is judged.
    #[error("no certificate authority in `{path}` was valid at {at}; use the trust root file of that time")]
    NoTrustRootThen {
        /// The trust root file.
        path: PathBuf,
        /// The time as of which evidence was to be judged, in UTC.
        at: String,
    },
    /// The certificate, or an intermediate of its chain, has been revoked, before or after the evidence was made.
    #[error(
        "the certificate {origin} (serial {serial}) has been revoked since {} by `{crl}`; \
         compare that with the time of the evidence",
        x509::date(.since_unix_ms.div_euclid(1000))
    )]
    RevokedSince {
        /// Where it came from.
        origin: Origin,
        /// The serial number of the certificate that is revoked, in hexadecimal.
        serial: String,
        /// The revocation list file.
        crl: PathBuf,
        /// The time of the revocation, in Unix milliseconds, or the earlier time since when the authority holds the
        /// certificate for invalid (RFC 5280, section 5.3.2), if the list has that.
        since_unix_ms: i64,
    },

    // Rotation.
    /// The files were replaced by those of another component.
    #[error("`{path}` now belongs to {found}, but this program runs as {running}; restart it to change its identity")]
    PrincipalChanged {
        /// The certificate file.
        path: PathBuf,
        /// Whose certificate it is now.
        found: Principal,
        /// The identity that is in use.
        running: Principal,
    },
}
