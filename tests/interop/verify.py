"""Reads the test vectors and says of each whether this implementation agrees with what its file expects.

    PYTHONPATH=<packages> python3 tests/interop/verify.py [DIRECTORY]

The packages are those of requirements.txt. Prints the number of vectors in each file; ends with 1 if one differs.
"""

import json
import sys
from pathlib import Path

import canonical
import certificates
import compression
import sealing
import wire
from outcome import Refused


def unhex(written):
    """Bytes: hexadecimal, or a list of parts of which some are repeated."""
    if isinstance(written, str):
        return bytes.fromhex(written)
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part["repeat"]) * part["times"] for part in written
    )


def clock_of(vector):
    now = vector["clock"]["now"]
    return wire.Clock(None if now is None else int(now), int(vector["clock"]["skew"]))


def roots_of(vector):
    return [unhex(root) for root in vector["roots"]]


def trailer(vector, _):
    prefix, key_id, signature = wire.split(unhex(vector["message"]))
    return {"prefix_length": len(prefix), "key_id": key_id.hex(), "signature": signature.hex()}


def scan(vector, _):
    found = canonical.scan(unhex(vector["prefix"]))
    number, payload = found["payload"]
    reading = {
        "message_id": found["message_id"],
        "source_component": found["source_component"],
        "timestamp_utc": str(found["timestamp_utc"]),
        "subject": found["subject"],
        "payload": [number, payload.start, payload.end],
        "members": found["members"],
    }
    for name, show in [("destination", str), ("expires_at", str), ("sequence", str), ("priority", int)]:
        if name in found:
            reading[name] = show(found[name])
    if "correlation_id" in found:
        reading["correlation_id"] = found["correlation_id"].data.hex()
    if "bundle" in found:
        reading["bundle_length"] = len(found["bundle"].data)
    for name in ("sealed", "references"):
        if name in found:
            reading[name] = sealed(found[name])
    if "compressed" in found:
        reading["compressed"] = [found["compressed"]["length"], len(found["compressed"]["frame"].data)]
    return reading


def sealed(found):
    return {
        "epoch_id": found["epoch_id"].data.hex(),
        "commitment": found["commitment"].data.hex(),
        "counter": str(found["counter"]),
        "ciphertext_length": len(found["ciphertext"].data),
        "recipients": [[key["recipient"], str(key["key_version"])] for key in found["wrapped_keys"]],
    }


def chain(vector, _):
    ders = [unhex(der) for der in vector["chain"]]
    leaf = certificates.validate(ders, roots_of(vector), vector["trust_domain"], clock_of(vector).now)
    return {"principal": leaf.principal, "chain_not_after": str(leaf.chain_not_after)}


def bundle(vector, _):
    verified = wire.verify_bundle(unhex(vector["bundle"]), roots_of(vector), vector["trust_domain"], clock_of(vector))
    return {
        "key_id": verified.key_id.hex(),
        "principal": verified.principal,
        "public_key": verified.public_key.hex(),
    }


def envelope(vector, held):
    bundle = held[vector["bundle"]]
    found = wire.verify_envelope(unhex(vector["message"]), bundle, vector["trust_domain"], clock_of(vector))
    return {
        "principal": found.principal,
        "key_id": found.key_id.hex(),
        "digest": found.digest.hex(),
        "subject": found.scan["subject"],
    }


def record(vector, _):
    verified = sealing.verify_record(unhex(vector["record"]), roots_of(vector), vector["trust_domain"], clock_of(vector))
    return {
        "principal": verified.principal,
        "version": str(verified.version),
        "public_key": verified.public_key.hex(),
        "lifetime": [str(verified.not_before), str(verified.not_after)],
    }


FORMS = {"sealed": (canonical.BATCH, canonical.COMPRESSED), "compressed": (canonical.BATCH,)}


def content(vector, _):
    encoded = unhex(vector["content"])
    if vector["of"] == "references":
        return {"references": [list(reference) for reference in canonical.references(encoded)]}
    found = canonical.content(encoded, FORMS[vector["of"]])
    number, payload = found["payload"]
    return {"payload": {"payload": [number, payload.start, payload.end], "members": found["members"]}}


def hpke(vector, _):
    key_id, epoch_id, private = (unhex(vector[name]) for name in ("key_id", "epoch_id", "private_key"))
    recipient, version = vector["recipient"], int(vector["key_version"])
    info, wrapped = unhex(vector["info"]), unhex(vector["wrapped"])
    assert sealing.info(key_id, epoch_id, version, recipient) == info, "info"
    secret = sealing.hpke_open(private, info, wrapped)
    if secret is None or len(secret) != 32:
        raise Refused("Opening.WrappedKey")
    assert sealing.hpke_seal(unhex(vector["public_key"]), info, secret, unhex(vector["ephemeral"])) == wrapped, "wrapped"
    digest = sealing.recipients_digest([(recipient, version)])
    epoch = sealing.Epoch.derive(secret, key_id, epoch_id, digest)
    return {
        "secret": secret.hex(),
        "recipients_digest": digest.hex(),
        "key": epoch.key.hex(),
        "nonce_base": epoch.nonce_base.hex(),
        "commitment": epoch.commitment.hex(),
    }


def frame(vector, _):
    return compression.decompress(vector["length"], unhex(vector["frame"]), vector["max"])


def said(number, payload):
    """What a message says: each field with its value."""
    def shown(value):
        return value.hex() if isinstance(value, bytes) else str(value)

    fields = payload.DESCRIPTOR.fields
    return {"field": number, "values": {field.name: shown(getattr(payload, field.name)) for field in fields}}


def opened(vector, held):
    """Plays a sequence of messages at one receiver; gives the first step that differs."""
    keys = {int(key["version"]): unhex(key["private_key"]) for key in vector["keys"]}
    receiver = sealing.Receiver(vector["receiver"], keys)
    for index, step in enumerate(vector["steps"]):

        def play():
            bundle = held[step["bundle"]]
            verified = wire.verify_envelope(unhex(step["message"]), bundle, vector["trust_domain"], clock_of(vector))
            read = receiver.read(verified)
            reading = {"principal": verified.principal, "messages": [said(*payload) for payload in read.payloads]}
            if read.content is not None:
                reading["content"] = read.content.hex()
            if read.references is not None:
                reading["references"] = [list(reference) for reference in read.references]
            return reading

        found = outcome_of(play)
        if found != step["outcome"]:
            return f"step {index}: expected {step['outcome']}, found {found}"
    return None


def outcome_of(check):
    """What a check gives, in the form of the files."""
    try:
        return {"accepted": check()}
    except Refused as refusal:
        refused = {"reason": refusal.reason}
        if refusal.place is not None:
            refused["place"] = refusal.place
        return {"refused": refused}


def replay(vector, _):
    """Plays a sequence; gives the first step that differs."""
    guard = wire.ReplayGuard("own")
    for index, step in enumerate(vector["steps"]):
        sequence = None if step["sequence"] is None else int(step["sequence"])
        message = (step["key"], step["subject"], sequence)

        def play():
            if step["commit"]:
                gap = guard.commit(*message)
            else:
                gap = guard.check(*message)
            return {"gap": None if gap is None else [str(number) for number in gap]}

        found = outcome_of(play)
        if found != step["outcome"]:
            return f"step {index}: expected {step['outcome']}, found {found}"
    return None


def compared(check):
    """A check whose result is compared with the outcome of a vector."""

    def compare(vector, held):
        found = outcome_of(lambda: check(vector, held))
        expected = vector["outcome"]
        if check is frame and "accepted" in expected:
            expected = {"accepted": unhex(expected["accepted"])}
        return None if found == expected else f"expected {str(expected)[:1000]}, found {str(found)[:1000]}"

    return compare


def main(directory):
    checks = {
        "trailers.json": compared(trailer),
        "scans.json": compared(scan),
        "chains.json": compared(chain),
        "bundles.json": compared(bundle),
        "envelopes.json": compared(envelope),
        "replays.json": replay,
        "records.json": compared(record),
        "contents.json": compared(content),
        "hpke.json": compared(hpke),
        "sealed.json": opened,
        "compressed.json": compared(frame),
    }
    assert {path.name for path in directory.iterdir()} == set(checks), "there are other files than these"
    differences = 0
    for name, check in checks.items():
        file = json.loads((directory / name).read_text("utf-8"))
        held = {
            name: wire.verify_bundle(unhex(entry["bundle"]), roots_of(entry), entry["trust_domain"], wire.Clock(None))
            for name, entry in file.get("bundles", {}).items()
        }
        for vector in file["vectors"]:
            difference = check(vector, held)
            if difference is not None:
                differences += 1
                print(f"{name}: {vector['name']}: {difference}", file=sys.stderr)
        print(f"{name}: {len(file['vectors'])} vectors")
    return 1 if differences else 0


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "vectors"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
