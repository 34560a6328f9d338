"""Reads the test vectors and says of each whether this implementation agrees with what its file expects.

    PYTHONPATH=<packages> python3 tests/interop/verify.py [DIRECTORY]

The packages are those of requirements.txt. Prints the number of vectors in each file; ends with 1 if one differs.
"""

import json
import sys
from pathlib import Path

import canonical
import certificates
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
    return reading


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


def outcome_of(check):
    """What a check gives, in the form of the files."""
    try:
        return {"accepted": check()}
    except Refused as refusal:
        refused = {"reason": refusal.reason}
        if refusal.place is not None:
            refused["place"] = refusal.place
        return {"refused": refused}


def replay(vector):
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


def main(directory):
    checks = {
        "trailers.json": trailer,
        "scans.json": scan,
        "chains.json": chain,
        "bundles.json": bundle,
        "envelopes.json": envelope,
        "replays.json": None,
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
            if check is None:
                difference = replay(vector)
            else:
                found = outcome_of(lambda: check(vector, held))
                expected = vector["outcome"]
                difference = None if found == expected else f"expected {expected}, found {found}"
            if difference is not None:
                differences += 1
                print(f"{name}: {vector['name']}: {difference}", file=sys.stderr)
        print(f"{name}: {len(file['vectors'])} vectors")
    return 1 if differences else 0


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "vectors"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
