"""The canonical scan (docs/wire.md, "Canonical encoding"), driven by the schema's descriptors."""

import re
import struct

import schema
from outcome import Refused

TRAILER_FIELD = 536_870_911
FIRST_FREE_FIELD = 1_000
MAX_PREFIX = 8_388_608
MAX_BUNDLE = 16_384
UUID7 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

# Bounds on lengths in bytes, where the document states any: message, field, least, most.
LENGTHS = {
    ("Envelope", "source_component"): (1, 63),
    ("Envelope", "subject"): (1, 512),
    ("Envelope", "destination"): (1, 512),
    ("Envelope", "correlation_id"): (32, 32),
    ("Envelope", "tags"): (1, 64),
    ("Envelope", "bundle"): (1, MAX_BUNDLE),
    ("BatchMember", "correlation_id"): (32, 32),
    ("Sealed", "epoch_id"): (16, 16),
    ("Sealed", "commitment"): (32, 32),
    ("Sealed", "ciphertext"): (17, None),
    ("WrappedKey", "recipient"): (1, 512),
    ("WrappedKey", "wrapped"): (1, 2_048),
    ("KeyBundle", "possession_signature"): (64, 64),
    ("KeyBundle", "leaf_signature"): (1, 1_024),
    ("KeyStatement", "principal"): (1, 512),
    ("KeyStatement", "public_key"): (32, 32),
    ("KeyStatement", "chain"): (1, MAX_BUNDLE),
    ("Reference", "kind"): (1, 64),
    ("Reference", "value"): (1, 1_024),
    ("SealingKeyRecord", "leaf_signature"): (1, 1_024),
    ("SealingKeyStatement", "principal"): (1, 512),
    ("SealingKeyStatement", "chain"): (1, MAX_BUNDLE),
}

# How often a repeated field may stand, and the reason beyond that.
COUNTS = {
    ("Envelope", "tags"): (16, "OutOfBounds"),
    ("Sealed", "wrapped_keys"): (256, "OutOfBounds"),
    ("Batch", "members"): (256, "TooManyMembers"),
    ("KeyStatement", "chain"): (4, "OutOfBounds"),
    ("SealingKeyStatement", "chain"): (4, "OutOfBounds"),
    ("References", "references"): (64, "OutOfBounds"),
}

# The largest number, where it is not the type's.
LARGEST = {
    ("Envelope", "priority"): 10,
    ("Sealed", "counter"): 2**32 - 1,
    ("Compressed", "length"): MAX_PREFIX,
    ("KeyBundle", "scheme"): 0xFFFF,
    ("SealingKeyRecord", "scheme"): 0xFFFF,
}

MANDATORY = {
    "Envelope": ("message_id", "source_component", "timestamp_utc", "subject"),
    "BatchMember": ("message_id", "timestamp_utc"),
    "Sealed": ("epoch_id", "commitment", "ciphertext"),
    "WrappedKey": ("recipient", "key_version", "wrapped"),
    "Compressed": ("length", "frame"),
    "References": ("references",),
    "Reference": ("kind", "value"),
    "KeyBundle": ("statement", "possession_signature", "scheme", "leaf_signature"),
    "KeyStatement": ("principal", "public_key", "not_before", "sign_until", "verify_until", "chain"),
    "SealingKeyRecord": ("statement", "scheme", "leaf_signature"),
    "SealingKeyStatement": ("principal", "version", "suite", "public_key", "not_before", "not_after", "chain"),
}

# The forms among the payloads.
SEALED, BATCH, COMPRESSED = 17, 18, 19


class Span:
    """Bytes, and where they begin in the prefix."""

    def __init__(self, data, start):
        self.data = data
        self.start = start

    @property
    def end(self):
        return self.start + len(self.data)


class _Bytes:
    """Reads one message from its first byte to its last."""

    def __init__(self, span):
        self.data, self.base, self.at = span.data, span.start, 0

    def varint(self):
        value = 0
        for index in range(10):
            if self.at + index >= len(self.data):
                raise Refused("Scan.Truncated")
            byte = self.data[self.at + index]
            if index == 9 and byte > 1:
                raise Refused("Scan.VarintTooLarge")
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise Refused("Scan.OverlongVarint")
                self.at += index + 1
                return value
        raise AssertionError("the tenth byte ends a varint or refuses it")

    def take(self, length):
        if length > len(self.data) - self.at:
            raise Refused("Scan.Truncated")
        span = Span(self.data[self.at : self.at + length], self.base + self.at)
        self.at += length
        return span

    def fields(self):
        """Number, wire type and value of each field."""
        previous = 0
        while self.at < len(self.data):
            key = self.varint()
            number, wire_type = key >> 3, key & 7
            if key > 0xFFFF_FFFF or number == 0:
                raise Refused("Scan.FieldNumber")
            if number == TRAILER_FIELD:
                raise Refused("Scan.SecondTrailer")
            if number < previous:
                raise Refused("Scan.OutOfOrder")
            previous = number
            if wire_type == 0:
                yield number, wire_type, self.varint()
            elif wire_type == 1:
                yield number, wire_type, self.take(8)
            elif wire_type == 2:
                yield number, wire_type, self.take(self.varint())
            elif wire_type == 5:
                yield number, wire_type, self.take(4)
            else:
                raise Refused("Scan.Group" if wire_type in (3, 4) else "Scan.WireType")


def _wire_type(field):
    if field.type == field.TYPE_DOUBLE:
        return 1
    return 2 if field.type in (field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE) else 0


def _number(message, field, value):
    """A number of the schema, which is not 0 and which no decoder cuts off."""
    if value == 0:
        raise Refused("Scan.ExplicitDefault")
    of_type = {
        field.TYPE_INT64: 2**63 - 1,
        field.TYPE_UINT64: 2**64 - 1,
        field.TYPE_UINT32: 2**32 - 1,
        field.TYPE_ENUM: 2**31 - 1,
    }
    if value > LARGEST.get((message, field.name), of_type[field.type]):
        raise Refused("Scan.OutOfBounds")
    return value


def _text_or_bytes(message, field, span):
    repeated = field.is_repeated
    if not repeated and not span.data:
        raise Refused("Scan.ExplicitDefault")
    if field.name == "message_id":
        if not UUID7.fullmatch(span.data):
            raise Refused("Scan.MessageId")
        return span.data.decode()
    least, most = LENGTHS.get((message, field.name), (0, None))
    if len(span.data) < least or (most is not None and len(span.data) > most):
        raise Refused("Scan.OutOfBounds")
    if field.type == field.TYPE_BYTES:
        return span
    try:
        return span.data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("Scan.NotUtf8") from None


def _message(name, span, place, each=None, closed=False):
    """Reads one message without those inside it. `each` gets every element of a repeated message where it stands."""
    schema_of = schema.descriptor(name)
    found = {}
    try:
        for number, wire_type, value in _Bytes(span).fields():
            field = schema_of.fields_by_number.get(number)
            in_oneof = field is not None and field.containing_oneof is not None
            if field is None:
                if name == "BatchMember" and number in (SEALED, BATCH, COMPRESSED):
                    raise Refused("Scan.NestedForm")
                if number < FIRST_FREE_FIELD or closed:
                    raise Refused("Scan.UnknownField")
                found["unknown"] = True
                continue
            if wire_type != _wire_type(field):
                raise Refused("Scan.WrongWireType")
            if in_oneof:
                if "payload" in found:
                    raise Refused("Scan.SeveralPayloads")
                found["payload"] = (number, value)
                continue
            if field.is_repeated:
                elements = found.setdefault(field.name, [])
                most, reason = COUNTS[name, field.name]
                if len(elements) == most:
                    raise Refused(f"Scan.{reason}")
            elif field.name in found:
                raise Refused("Scan.Repeated")
            if field.type == field.TYPE_MESSAGE:
                if each is not None:
                    each(len(found[field.name]), value)
            elif field.type == field.TYPE_DOUBLE:
                if struct.unpack("<d", value.data)[0] == 0.0:
                    raise Refused("Scan.ExplicitDefault")
            elif wire_type == 0:
                value = _number(name, field, value)
            else:
                value = _text_or_bytes(name, field, value)
            if field.is_repeated:
                elements.append(value)
            else:
                found[field.name] = value
        if schema_of.oneofs_by_name and "payload" not in found:
            raise Refused("Scan.NoPayload")
        for mandatory in MANDATORY.get(name, ()):
            if mandatory not in found:
                raise Refused("Scan.Missing")
    except Refused as refusal:
        if refusal.place is None:
            refusal.place = place
        raise
    return found


def _payload_type(name, number):
    return schema.descriptor(name).fields_by_number[number].message_type.name


def _batch(span):
    kinds = []
    unknown = []

    def member(index, span):
        place = f"member {index}"
        found = _message("BatchMember", span, place)
        number, payload = found["payload"]
        inside = _message(_payload_type("BatchMember", number), payload, place)
        kinds.append(number)
        unknown.extend(part.get("unknown", False) for part in (found, inside))
        if number != kinds[0]:
            raise Refused("Scan.MixedBatch", place)

    found = _message("Batch", span, "batch", each=member)
    if not kinds:
        raise Refused("Scan.EmptyBatch", "batch")
    return len(kinds), any(unknown) or found.get("unknown", False)


def _sealed(span, place, place_of_key):
    """Something sealed: its fields, and those of each wrapped key."""
    keys = []

    def wrapped_key(index, span):
        place = place_of_key(index)
        key = _message("WrappedKey", span, place)
        if keys and keys[-1]["recipient"].encode() >= key["recipient"].encode():
            raise Refused("Scan.UnorderedRecipients", place)
        keys.append(key)

    found = _message("Sealed", span, place, each=wrapped_key)
    found["wrapped_keys"] = keys
    found.setdefault("counter", 0)
    found["unknown"] = found.get("unknown", False) or any(key.get("unknown", False) for key in keys)
    return found


def _payload(number, span, found):
    """Reads a payload wherever it stands, and puts what there is to know of it into `found`."""
    found["members"], unknown = 0, False
    if number == BATCH:
        found["members"], unknown = _batch(span)
    elif number == SEALED:
        found["sealed"] = _sealed(span, "payload", "wrapped key {}".format)
        unknown = found["sealed"]["unknown"]
    else:
        inside = _message(_payload_type("Envelope", number), span, "payload")
        unknown = inside.get("unknown", False)
        if number == COMPRESSED:
            found["compressed"] = inside
    found["unknown"] = found.get("unknown", False) or unknown


def scan(prefix):
    """What the prefix of an envelope says."""
    if len(prefix) > MAX_PREFIX:
        raise Refused("Scan.TooLong", "envelope")
    found = _message("Envelope", Span(prefix, 0), "envelope")
    _payload(*found["payload"], found)
    if "trace_context" in found:
        found["unknown"] |= _message("TraceContext", found["trace_context"], "trace context").get("unknown", False)
    if "references" in found:
        found["references"] = _sealed(found["references"], "references", lambda _: "references")
        found["unknown"] |= found["references"]["unknown"]
    _agrees_with_protobuf(prefix, found, found["unknown"])
    return found


def content(encoded, forms):
    """What was opened or decompressed: one payload, which may be one of these forms."""
    if len(encoded) > MAX_PREFIX:
        raise Refused("Scan.TooLong", "content")
    found = {}
    try:
        for number, wire_type, value in _Bytes(Span(encoded, 0)).fields():
            if not 10 <= number <= COMPRESSED:
                raise Refused("Scan.UnknownField")
            if number >= SEALED and number not in forms:
                raise Refused("Scan.NestedForm")
            if wire_type != 2:
                raise Refused("Scan.WrongWireType")
            if "payload" in found:
                raise Refused("Scan.SeveralPayloads")
            found["payload"] = (number, value)
        if not found:
            raise Refused("Scan.NoPayload")
    except Refused as refusal:
        refusal.place = "content"
        raise
    _payload(*found["payload"], found)
    envelope = schema.message_class("Envelope").FromString(encoded)
    assert found["unknown"] or envelope.SerializeToString(deterministic=True) == encoded, "another encoding"
    return found


def references(encoded):
    """Kind and value of each reference in what was opened."""
    if len(encoded) > MAX_PREFIX:
        raise Refused("Scan.TooLong", "references")
    found = []

    def reference(index, span):
        fields = _message("Reference", span, f"reference {index}")
        found.append((fields["kind"], fields["value"]))

    _message("References", Span(encoded, 0), "references", each=reference)
    return found


def _agrees_with_protobuf(prefix, found, unknown):
    """What passes the scan decodes to what was read, and is the one encoding of it."""
    envelope = schema.message_class("Envelope").FromString(prefix)
    assert not envelope.HasField("authentication")
    for name in ("message_id", "source_component", "timestamp_utc", "subject", "destination", "expires_at"):
        assert getattr(envelope, name) == found.get(name, type(getattr(envelope, name))()), name
    assert envelope.WhichOneof("payload") is not None
    assert len(envelope.batch.members) == found["members"]
    assert unknown or envelope.SerializeToString(deterministic=True) == prefix, "another encoding"


def bundle(encoded):
    """The fields of a key bundle and of its statement."""
    if len(encoded) > MAX_BUNDLE:
        raise Refused("Scan.TooLong", "bundle")
    outer = _message("KeyBundle", Span(encoded, 0), "bundle", closed=True)
    return outer, _message("KeyStatement", outer["statement"], "statement")


def sealing_record(encoded):
    """The fields of the record of a sealing key, and of its statement."""
    if len(encoded) > MAX_BUNDLE:
        raise Refused("Scan.TooLong", "sealing record")
    outer = _message("SealingKeyRecord", Span(encoded, 0), "sealing record", closed=True)
    return outer, _message("SealingKeyStatement", outer["statement"], "sealing statement")
