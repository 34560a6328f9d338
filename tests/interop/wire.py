"""Trailers, key bundles, envelopes and replay windows (docs/wire.md), written from the document."""

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

import canonical
import certificates
import identity
import strict
from outcome import Refused

TRAILER_LENGTH = 106
HEAD = bytes.fromhex("faffffff0f640a20")
BETWEEN = bytes.fromhex("1240")
DAY_MS = 86_400_000
RESERVED_ROLES = ("broker", "relay")

ALGORITHMS = {
    bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107"): 0x0403,
    bytes.fromhex("301006072a8648ce3d020106052b81040022"): 0x0503,
    bytes.fromhex("300d06092a864886f70d0101010500"): 0x0804,
    bytes.fromhex("300506032b6570"): 0x0807,
}


@dataclass
class Clock:
    """Unix milliseconds now, `None` for evidence; and how far clocks may differ."""

    now: int | None
    skew: int = 30_000


def sha256(data):
    return hashlib.sha256(data).digest()


def split(message):
    """Prefix, key id and signature."""
    trailer = message[-TRAILER_LENGTH:]
    if len(trailer) < TRAILER_LENGTH or trailer[:8] != HEAD or trailer[40:42] != BETWEEN:
        raise Refused("Trailer")
    return message[:-TRAILER_LENGTH], trailer[8:40], trailer[42:]


@dataclass
class Bundle:
    """A bundle that was verified."""

    key_id: bytes
    principal: str
    public_key: bytes
    key: object
    not_before: int
    sign_until: int
    verify_until: int
    chain_not_after: int


def verify_bundle(encoded, roots, trust_domain, clock):
    """The checks of a bundle, in their order."""
    outer, statement = canonical.bundle(encoded)
    principal = statement["principal"]
    parts = identity.parse(principal)
    if parts is None:
        raise Refused("Principal")
    if parts[1] in RESERVED_ROLES:
        raise Refused("ReservedRole")
    not_before, sign_until, verify_until = (statement[name] for name in ("not_before", "sign_until", "verify_until"))
    if not (not_before < sign_until <= verify_until and sign_until - not_before <= DAY_MS):
        raise Refused("Lifetime")
    at = clock.now if clock.now is not None else not_before
    leaf = Vouching(statement["chain"], roots, trust_domain, at)
    leaf.check(principal, not_before, verify_until, clock)
    public_key = statement["public_key"].data
    key = strict.load(public_key, "SigningKey")
    possession = b"ransomeye.v1 key possession\0" + outer["statement"].data
    strict.verify(key, outer["possession_signature"].data, possession, "Possession")
    leaf.verify(b"ransomeye.v1 key bundle\0", outer)
    lifetime = not_before, sign_until, verify_until
    return Bundle(sha256(encoded), principal, public_key, key, *lifetime, leaf.leaf.chain_not_after)


class Vouching:
    """The certificate that stands behind a statement: that of a bundle or of a sealing key."""

    def __init__(self, chain, roots, trust_domain, at):
        self.first = chain[0].data
        self.leaf = certificates.validate([certificate.data for certificate in chain], roots, trust_domain, at)
        self.scheme, self.verify_leaf = _leaf_key(self.leaf.spki)

    def check(self, principal, first, last, clock):
        """The owner, and the first and last moment of what is stated."""
        if sha256(self.first) != self.leaf.sha256:
            raise Refused("OtherLeaf")
        if principal != self.leaf.principal:
            raise Refused("OtherPrincipal")
        if last > self.leaf.chain_not_after:
            raise Refused("OutlivesChain")
        if clock.now is not None and clock.now > last:
            raise Refused("Expired")
        if clock.now is not None and first > clock.now + clock.skew:
            raise Refused("NotYetValid")

    def verify(self, context, outer):
        """The scheme and the signature over the statement, in its context."""
        if outer["scheme"] != self.scheme:
            raise Refused("SchemeMismatch")
        message = b"\x20" * 64 + context + self.leaf.sha256 + self.scheme.to_bytes(2, "big") + outer["statement"].data
        self.verify_leaf(outer["leaf_signature"].data, message)


def _leaf_key(spki):
    """The scheme of a certificate's key, and what verifies with it."""
    algorithm, key = certificates.elements(certificates.elements(spki)[0][1])
    scheme = ALGORITHMS.get(algorithm[2])
    if scheme is None:
        raise Refused("UnsupportedLeafKey")
    if scheme == 0x0807:
        if len(key[1]) != 33:
            raise Refused("UnsupportedLeafKey")
        return scheme, _ed25519(strict.load(key[1][1:], "LeafKey"))
    try:
        loaded = load_der_public_key(spki)
    except ValueError:
        raise Refused("UnsupportedLeafKey") from None
    if scheme == 0x0804:
        arguments = (padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    else:
        arguments = (ec.ECDSA(hashes.SHA256() if scheme == 0x0403 else hashes.SHA384()),)

    def verify(signature, message):
        fits = scheme != 0x0804 or 2048 <= loaded.key_size <= 8192
        try:
            loaded.verify(signature, message, *arguments)
        except InvalidSignature:
            fits = False
        if not fits:
            raise Refused("LeafSignature")

    return scheme, verify


def _ed25519(key):
    def verify(signature, message):
        if len(signature) != 64:
            raise Refused("LeafSignature")
        try:
            strict.verify(key, signature, message, "Leaf")
        except Refused:
            raise Refused("LeafSignature") from None

    return verify


@dataclass
class Verified:
    """A message whose sender is proven. Not that it is new, meant for the receiver, or allowed."""

    principal: str
    key_id: bytes
    digest: bytes
    prefix: bytes
    scan: dict


def verify_envelope(message, bundle, trust_domain, clock):
    """The checks of a message that concern nothing but the message, its bundle and the time, in their order."""
    prefix, key_id, signature = split(message)
    found = canonical.scan(prefix)
    if key_id != bundle.key_id:
        raise Refused("OtherKey")
    domain, role, component = identity.parse(bundle.principal)
    if domain != trust_domain:
        raise Refused("ForeignTrustDomain")
    if "bundle" in found and sha256(found["bundle"].data) != key_id:
        raise Refused("ForeignBundle")
    if clock.now is not None and clock.now > bundle.verify_until:
        raise Refused("KeyExpired")
    if clock.now is not None and bundle.not_before > clock.now + clock.skew:
        raise Refused("KeyNotYetValid")
    if found["timestamp_utc"] < bundle.not_before - clock.skew:
        raise Refused("OlderThanKey")
    if found["timestamp_utc"] > bundle.sign_until + clock.skew:
        raise Refused("SignedTooLate")
    digest = sha256(prefix)
    strict.verify(bundle.key, signature, b"ransomeye.v1 envelope\0" + key_id + digest, "Signature")
    if found["subject"].split(".")[-2:] != [role, component]:
        raise Refused("SubjectSender")
    if found["source_component"] != component:
        raise Refused("SourceComponent")
    return Verified(bundle.principal, key_id, digest, prefix, found)


@dataclass
class _Window:
    highest: int = 0
    seen: set = field(default_factory=set)


class ReplayGuard:
    """The windows of one key. This one remembers every number; what it says is the same."""

    WIDTH = 448
    MAX_SUBJECTS = 64

    def __init__(self, key_id):
        self.key_id = key_id
        self.windows = {}

    def check(self, key_id, subject, sequence):
        """Whether a message is new."""
        if key_id != self.key_id:
            raise Refused("Replay.OtherKey")
        if sequence is None:
            raise Refused("Replay.NotCounted")
        window = self.windows.get(subject)
        if window is None:
            if len(self.windows) == self.MAX_SUBJECTS:
                raise Refused("Replay.TooManySubjects")
        elif sequence <= window.highest:
            if window.highest - sequence >= self.WIDTH:
                raise Refused("Replay.TooOld")
            if sequence in window.seen:
                raise Refused("Replay.Repeated")

    def commit(self, key_id, subject, sequence):
        """Remembers a message that was decoded. Gives the first and last number that it leaves out, or `None`."""
        self.check(key_id, subject, sequence)
        first = subject not in self.windows
        window = self.windows.setdefault(subject, _Window())
        gap = (window.highest + 1, sequence - 1) if not first and sequence > window.highest + 1 else None
        window.highest = max(window.highest, sequence)
        window.seen.add(sequence)
        return gap
