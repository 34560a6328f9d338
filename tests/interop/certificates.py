"""Certificate chains (docs/wire.md, "Certificate chains"): validated by hand, as no verifier of web sites takes Ed25519.

Name constraints are not implemented: a chain with them is refused, as any critical extension is that nobody here reads.
"""

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

import identity
from outcome import Refused

KNOWN_EXTENSIONS = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
WEAK_SIGNATURES = {SignatureAlgorithmOID.RSA_WITH_MD5, SignatureAlgorithmOID.RSA_WITH_SHA1,
                   SignatureAlgorithmOID.ECDSA_WITH_SHA1, SignatureAlgorithmOID.DSA_WITH_SHA1}
RSA = bytes.fromhex("06092a864886f70d010101")
ED25519 = bytes.fromhex("06032b6570")
P256 = bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107")
P384 = bytes.fromhex("06072a8648ce3d020106052b81040022")


@dataclass
class Leaf:
    """What a chain proves."""

    principal: str
    chain_not_after: int
    sha256: bytes
    spki: bytes


def refuse(reason):
    return Refused(f"Chain.{reason}")


def elements(der):
    """The elements that some DER consists of: tag, content, and all of it."""
    found, at = [], 0
    while at < len(der):
        start, tag, length = at, der[at], der[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[at : at + count], "big")
            at += count
        found.append((tag, der[at : at + length], der[start : at + length]))
        at += length
    return found


def _spki(certificate):
    """The SubjectPublicKeyInfo as it stands: the seventh element, or the sixth in version 1, which has none before it."""
    content = elements(elements(certificate.tbs_certificate_bytes)[0][1])
    return content[6 if content[0][0] == 0xA0 else 5][2]


def _load(der):
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise refuse("MalformedCertificate") from None
    if certificate.signature_algorithm_oid in WEAK_SIGNATURES:
        raise refuse("WeakSignature")
    return certificate


def _extension(certificate, kind):
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_key(certificate):
    algorithm, key = elements(elements(_spki(certificate))[0][1])[:2]
    if algorithm[1].startswith(RSA):
        modulus = elements(elements(key[1][1:])[0][1])[0][1]
        if int.from_bytes(modulus, "big").bit_length() < 2048:
            raise refuse("WeakRsaKey")
    elif not (algorithm[1] in (P256, P384) or algorithm[1].startswith(ED25519)):
        raise refuse("UnsupportedKey")


def _is_authority(certificate):
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _seconds(moment):
    return int(moment.timestamp())


def _in_time(certificate, now):
    return _seconds(certificate.not_valid_before_utc) <= now <= _seconds(certificate.not_valid_after_utc)


def _check_leaf(leaf, now):
    _check_key(leaf)
    if _is_authority(leaf):
        raise refuse("CaAsLeaf")
    if now > _seconds(leaf.not_valid_after_utc):
        raise refuse("Expired")
    if now < _seconds(leaf.not_valid_before_utc):
        raise refuse("NotYetValid")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise refuse("NoDigitalSignature")
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if extended is None or ExtendedKeyUsageOID.CLIENT_AUTH not in extended:
        raise refuse("NoClientAuth")


def _signed(certificate, issuer):
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _readable(certificate):
    return all(not extension.critical or extension.oid in KNOWN_EXTENSIONS for extension in certificate.extensions)


def _may_issue(authority, below):
    """Whether it is an authority above this many others (RFC 5280, section 6.1.4)."""
    if not _is_authority(authority):
        return False
    usage = _extension(authority, x509.KeyUsage)
    limit = _extension(authority, x509.BasicConstraints).path_length
    extended = _extension(authority, x509.ExtendedKeyUsage)
    return (
        (usage is None or usage.key_cert_sign)
        and (limit is None or below <= limit)
        and (extended is None or ExtendedKeyUsageOID.CLIENT_AUTH in extended)
    )


def _path(certificate, intermediates, roots, now, below=0):
    """Looks for a path to a root: `None` if there is one, else why not."""
    if not _readable(certificate):
        return "InvalidChain"
    # A root is a name and a key (RFC 5280, section 6.1.1); what else it says is for whoever installs it.
    if any(_signed(certificate, root) for root in roots):
        return None
    worst = "UnknownIssuer"
    for index, issuer in enumerate(intermediates):
        if not _signed(certificate, issuer):
            continue
        rest = intermediates[:index] + intermediates[index + 1 :]
        if not _in_time(issuer, now) or not _may_issue(issuer, below):
            worst = "InvalidChain"
            continue
        found = _path(issuer, rest, roots, now, below + 1)
        if found is None:
            return None
        if found == "InvalidChain":
            worst = found
    return worst


def _principal(leaf):
    names = _extension(leaf, x509.SubjectAlternativeName) or []
    is_id = [isinstance(name, x509.UniformResourceIdentifier) and name.value[:7].lower() == "spiffe:" for name in names]
    ids = [name.value for name, claims in zip(names, is_id) if claims]
    if not ids:
        raise refuse("NoIdentity")
    if len(ids) > 1:
        raise refuse("SeveralIdentities")
    if identity.parse(ids[0]) is None:
        raise refuse("MalformedIdentity")
    if len(is_id) > 1:
        raise refuse("ExtraName")
    return ids[0]


def validate(chain, roots, trust_domain, now_ms):
    """What a chain of DER certificates proves at a moment, by the word of these roots."""
    now = now_ms // 1000
    if not chain:
        raise refuse("MalformedCertificate")
    certificates = [_load(der) for der in chain]
    leaf, intermediates = certificates[0], certificates[1:]
    _check_leaf(leaf, now)
    anchors = [root for root in map(_load, roots) if _in_time(root, now)]
    trouble = _path(leaf, intermediates, anchors, now)
    if trouble is not None:
        alone = trouble == "UnknownIssuer" and leaf.issuer == leaf.subject
        raise refuse("SelfSigned" if alone else trouble)
    principal = _principal(leaf)
    if identity.parse(principal)[0] != trust_domain:
        raise refuse("ForeignTrustDomain")
    end = min(_seconds(certificate.not_valid_after_utc) for certificate in certificates)
    return Leaf(principal, end * 1000, hashlib.sha256(chain[0]).digest(), _spki(leaf))
