"""Sealing (docs/wire.md, "Sealing" and "Sealing keys"): HPKE by hand, epochs, opening, and the records of sealing keys."""

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

import canonical
import compression
import identity
import schema
import wire
from outcome import Refused

P = 2**255 - 19
SUITE = 1
MONTH_MS = 30 * 86_400_000
# The u-coordinates that come to 0 with every private key.
SMALL = {0, 1, P - 1} | {
    int.from_bytes(bytes.fromhex(text), "little")
    for text in (
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    )
}


def load_public(data, name):
    """A public key; `name` begins the reason of a refusal."""
    u = int.from_bytes(data, "little")
    if u >= P:
        raise Refused(f"{name}.NotCanonical")
    if u in SMALL:
        raise Refused(f"{name}.SmallOrder")
    return X25519PublicKey.from_public_bytes(data)


def _extract(salt, ikm):
    return hmac.new(salt, ikm, hashlib.sha256).digest()


def _expand(prk, info, length):
    return HKDFExpand(SHA256(), length, info).derive(prk)


# RFC 9180: the labels' suites, of the KEM alone and of all three algorithms.
_KEM = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0002))


def _labeled_extract(suite, salt, label, ikm):
    return _extract(salt, b"HPKE-v1" + suite + label + ikm)


def _labeled_expand(suite, prk, label, info, length):
    return _expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def _hpke_aead(agreed, enc, recipient, info):
    """Key and nonce of a single shot in base mode."""
    prk = _labeled_extract(_KEM, b"", b"eae_prk", agreed)
    shared = _labeled_expand(_KEM, prk, b"shared_secret", enc + recipient, 32)
    context = b"\0" + _labeled_extract(_HPKE, b"", b"psk_id_hash", b"") + _labeled_extract(_HPKE, b"", b"info_hash", info)
    secret = _labeled_extract(_HPKE, shared, b"secret", b"")
    return _labeled_expand(_HPKE, secret, b"key", context, 32), _labeled_expand(_HPKE, secret, b"base_nonce", context, 12)


def hpke_seal(recipient, info, text, ephemeral):
    """What the holder of an ephemeral private key sends to a public key."""
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = private.public_key().public_bytes_raw()
    agreed = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    key, nonce = _hpke_aead(agreed, enc, recipient, info)
    return enc + AESGCM(key).encrypt(nonce, text, None)


def hpke_open(private, info, wrapped):
    """What was sealed to a private key; `None` if it does not open."""
    private = X25519PrivateKey.from_private_bytes(private)
    enc, ciphertext = wrapped[:32], wrapped[32:]
    if len(ciphertext) < 16:
        return None
    try:
        agreed = private.exchange(load_public(enc, "Enc"))
        key, nonce = _hpke_aead(agreed, enc, private.public_key().public_bytes_raw(), info)
        return AESGCM(key).decrypt(nonce, ciphertext, None)
    except (Refused, ValueError, InvalidTag):
        return None


def _be(number, length):
    return number.to_bytes(length, "big")


def _text(text):
    return _be(len(text.encode()), 2) + text.encode()


def recipients_digest(recipients):
    """Of the name and the version of each recipient."""
    return wire.sha256(b"".join(_text(name) + _be(version, 8) for name, version in recipients))


def info(key_id, epoch_id, version, recipient):
    """What a secret is bound to when it is wrapped."""
    return b"ransomeye.v1 epoch secret\0" + _be(SUITE, 2) + key_id + epoch_id + _be(version, 8) + recipient.encode()


@dataclass
class Epoch:
    """What derives from an epoch's secret."""

    key_id: bytes
    digest: bytes
    key: bytes
    nonce_base: bytes
    commitment: bytes

    @classmethod
    def derive(cls, secret, key_id, epoch_id, digest):
        prk = _extract(b"ransomeye.v1 epoch\0", secret)
        output = _expand(prk, b"ransomeye.v1 sealed\0" + key_id + epoch_id + digest, 76)
        return cls(key_id, digest, output[:32], output[32:44], output[44:])

    def open(self, counter, ciphertext, data):
        nonce = bytes(a ^ b for a, b in zip(self.nonce_base, bytes(4) + _be(counter, 8)))
        try:
            return AESGCMSIV(self.key).decrypt(nonce, ciphertext, data)
        except InvalidTag:
            raise Refused("Opening.Ciphertext") from None


PAYLOAD, REFERENCES = 1, 2


def _associated_data(part, epoch, found, sender):
    data = b"ransomeye.v1 sealed content\0" + bytes([part]) + epoch.key_id + epoch.digest
    data += _be(found.get("sequence", 0), 8) + _be(found.get("expires_at", 0), 8)
    texts = (sender, found["subject"], found["subject"].split(".")[-3], found["message_id"])
    return data + b"".join(_text(text) for text in texts)


TYPES = {10: "telemetry", 11: "alert", 12: "command", 13: "heartbeat", 14: "result", 15: "error"}


@dataclass
class Opened:
    """What a receiver reads of a message."""

    content: bytes | None
    payloads: list
    references: list | None


class Receiver:
    """A receiver with its private keys by their versions, and the epochs that it has met."""

    def __init__(self, spiffe_id, keys):
        self.spiffe_id, self.keys, self.epochs = spiffe_id, keys, {}

    def read(self, verified):
        """Opens a message that was verified."""
        found = verified.scan
        content = None
        if "sealed" in found:
            content = self._open(found["sealed"], PAYLOAD, verified)
            if content is None:
                raise Refused("NotARecipient")
            payloads = _payloads(canonical.content(content, (canonical.BATCH, canonical.COMPRESSED)), found["subject"])
        else:
            payloads = _payloads(found, found["subject"])
        references = None
        # References name their recipients in every message.
        if "references" in found and found["references"]["wrapped_keys"]:
            encoded = self._open(found["references"], REFERENCES, verified)
            references = None if encoded is None else canonical.references(encoded)
        return Opened(content, payloads, references)

    def _open(self, sealed, part, verified):
        """The content of one part, `None` if it is not for this receiver."""
        epoch_id, commitment = sealed["epoch_id"].data, sealed["commitment"].data
        keys = {key["recipient"]: key for key in sealed["wrapped_keys"]}
        digest = recipients_digest((key["recipient"], key["key_version"]) for key in sealed["wrapped_keys"])
        if keys and self.spiffe_id not in keys:
            return None
        held = self.epochs.get((verified.key_id, epoch_id))
        if held is not None:
            if held.commitment != commitment or (keys and held.digest != digest):
                raise Refused("Opening.OtherEpoch")
            epoch = held
        else:
            if not keys:
                raise Refused("UnknownEpoch")
            own = keys[self.spiffe_id]
            version = own["key_version"]
            if version not in self.keys:
                raise Refused("UnknownSealingKey")
            bound_to = info(verified.key_id, epoch_id, version, self.spiffe_id)
            secret = hpke_open(self.keys[version], bound_to, own["wrapped"].data)
            if secret is None or len(secret) != 32:
                raise Refused("Opening.WrappedKey")
            epoch = Epoch.derive(secret, verified.key_id, epoch_id, digest)
            if not hmac.compare_digest(epoch.commitment, commitment):
                raise Refused("Opening.Commitment")
        data = _associated_data(part, epoch, verified.scan, verified.principal)
        content = epoch.open(sealed["counter"], sealed["ciphertext"].data, data)
        self.epochs[verified.key_id, epoch_id] = epoch
        return content


def _payloads(found, subject):
    """Field number and decoded payload of each message in what was scanned."""
    number, span = found["payload"]
    if number == canonical.COMPRESSED:
        compressed = found["compressed"]
        content = compression.decompress(compressed["length"], compressed["frame"].data, canonical.MAX_PREFIX)
        return _payloads(canonical.content(content, (canonical.BATCH,)), subject)
    if number == canonical.BATCH:
        members = schema.message_class("Batch").FromString(span.data).members
        names = [member.WhichOneof("payload") for member in members]
        fields = schema.descriptor("BatchMember").fields_by_name
        payloads = [(fields[name].number, getattr(member, name)) for name, member in zip(names, members)]
    else:
        kind = schema.descriptor("Envelope").fields_by_number[number].message_type.name
        payloads = [(number, schema.message_class(kind).FromString(span.data))]
    kind = subject.split(".")[-3]
    for number, _ in payloads:
        if TYPES.get(number, kind if kind.startswith("x-") else None) != kind:
            raise Refused("TypeMismatch")
    return payloads


@dataclass
class Record:
    """The record of a sealing key that was verified."""

    principal: str
    version: int
    public_key: bytes
    not_before: int
    not_after: int


def verify_record(encoded, roots, trust_domain, clock):
    """The checks of a record, in their order."""
    outer, statement = canonical.sealing_record(encoded)
    if statement["suite"] != SUITE:
        raise Refused("Suite")
    public_key = statement["public_key"].data
    if len(public_key) != 32:
        raise Refused("Scan.OutOfBounds", "sealing statement")
    principal = statement["principal"]
    parts = identity.parse(principal)
    if parts is None:
        raise Refused("Principal")
    if parts[1] in wire.RESERVED_ROLES:
        raise Refused("ReservedRole")
    not_before, not_after = statement["not_before"], statement["not_after"]
    if not 1 <= not_after - not_before <= MONTH_MS:
        raise Refused("Lifetime")
    leaf = wire.Vouching(statement["chain"], roots, trust_domain, clock.now)
    leaf.check(principal, not_before, not_after, clock)
    load_public(public_key, "SealingKey")
    leaf.verify(b"ransomeye.v1 sealing key\0", outer)
    return Record(principal, statement["version"], public_key, not_before, not_after)
