"""Ed25519, verified strictly (docs/wire.md, "Strict verification")."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from outcome import Refused

P = 2**255 - 19
ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
# The y-coordinates of the points whose order divides 8: 1, -1, 0 and two more; and 0 and 1 written as p and p + 1.
SMALL = {1, P - 1, 0, ORDER_8, P - ORDER_8, P, P + 1}


def _y(point):
    return int.from_bytes(point, "little") & (2**255 - 1)


def load(point, name):
    """A public key; `name` begins the reason of a refusal."""
    if _y(point) in SMALL:
        raise Refused(f"{name}.SmallOrder")
    if _y(point) >= P:
        raise Refused(f"{name}.NotCanonical")
    return Ed25519PublicKey.from_public_bytes(point)


def verify(key, signature, message, name):
    """Whether the signature holds. The provider checks the equation without the cofactor, and that S is reduced."""
    if _y(signature[:32]) in SMALL:
        raise Refused(f"{name}.SmallOrder")
    try:
        key.verify(signature, message)
    except InvalidSignature:
        raise Refused(f"{name}.Mismatch") from None
