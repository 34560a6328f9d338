"""A receiver of events: the order of checks (docs/wire.md), but for policy, revocation, values, a program's own
types, and what is sealed or compressed."""

import time
from dataclasses import dataclass

import canonical
import identity
import schema
import wire
from outcome import Refused

MAX_MESSAGE = canonical.MAX_PREFIX + wire.TRAILER_LENGTH
TYPES = {10: "telemetry", 11: "alert", 12: "command", 13: "heartbeat", 14: "result", 15: "error"}


@dataclass
class Delivered:
    """One message, alone or out of a batch."""

    sender: str
    key_id: bytes
    subject: str
    sequence: int
    message_id: str
    payload: object
    gap: tuple | None = None


class Receiver:
    """What one subscription knows: verified bundles and their replay windows, kept once a message's signature has held."""

    def __init__(self, root, trust_domain, roots, skew_ms=30_000):
        self.root, self.trust_domain, self.roots, self.skew = root, trust_domain, roots, skew_ms
        self.since = int(time.time() * 1000)
        self.bundles, self.guards = {}, {}

    def receive(self, subject, message):
        """The messages that one delivery carries, refusals among them; or a refusal of all of it."""
        now = int(time.time() * 1000)
        clock = wire.Clock(now, self.skew)
        if len(message) > MAX_MESSAGE:
            raise Refused("TooLarge")
        kind, sender = self._address(subject)
        prefix, key_id, _ = wire.split(message)
        found = canonical.scan(prefix)
        if found["subject"] != subject:
            raise Refused("SubjectMismatch")
        if "destination" in found:
            raise Refused("DestinationMismatch")
        envelope = schema.message_class("Envelope").FromString(prefix)
        members = list(envelope.batch.members) if found["payload"][0] == 18 else [envelope]
        if any(TYPES.get(self._number(member)) != kind for member in members):
            raise Refused("TypeMismatch")
        self._fresh(envelope, now)
        if found["timestamp_utc"] < self.since:
            raise Refused("PredatesSubscription")
        bundle = self._bundle(key_id, found, sender, clock)
        verified = wire.verify_envelope(message, bundle, self.trust_domain, clock)
        self.bundles[key_id] = bundle
        guard = self.guards.setdefault(key_id, wire.ReplayGuard(key_id))
        sequence = found.get("sequence")
        gap = guard.commit(key_id, subject, sequence)
        delivered = []
        for member in members:
            try:
                self._fresh(member, now)
            except Refused as refusal:
                delivered.append(refusal)
                continue
            payload = getattr(member, member.WhichOneof("payload"))
            message_id = member.message_id
            delivered.append(Delivered(verified.principal, key_id, subject, sequence, message_id, payload, gap))
            gap = None
        return delivered

    def _address(self, subject):
        rest = subject.removeprefix(f"{self.root}.events.").split(".")
        sender = f"spiffe://{self.trust_domain}/" + "/".join(rest[1:])
        if len(subject) > 512 or len(rest) != 3 or rest[0] not in TYPES.values() or identity.parse(sender) is None:
            raise Refused("Subject")
        return rest[0], sender

    def _bundle(self, key_id, found, sender, clock):
        if key_id in self.bundles:
            return self.bundles[key_id]
        if "bundle" not in found:
            raise Refused("UnknownKey")
        encoded = found["bundle"].data
        if wire.sha256(encoded) != key_id:
            raise Refused("ForeignBundle")
        if canonical.bundle(encoded)[1]["principal"] != sender:
            raise Refused("SenderMismatch")
        return wire.verify_bundle(encoded, self.roots, self.trust_domain, clock)

    @staticmethod
    def _number(member):
        return member.DESCRIPTOR.fields_by_name[member.WhichOneof("payload")].number

    def _fresh(self, member, now):
        if abs(now - member.timestamp_utc) > self.skew:
            raise Refused("ClockSkew")
        if member.expires_at and member.expires_at <= now:
            raise Refused("Expired")
