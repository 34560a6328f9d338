"""Subscribes to a live bus with a plain NATS client, verifies what arrives, and prints one JSON object for each message.

    PYTHONPATH=<packages> python3 tests/interop/live.py URL CA CERTIFICATE KEY TRUST_DOMAIN FILTER COUNT

Begins with {"subscribed": FILTER}, and ends after COUNT deliveries.
"""

import asyncio
import json
import ssl
import sys

import nats
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from outcome import Refused
from receiver import Delivered, Receiver


def say(what):
    print(json.dumps(what), flush=True)


def report(item):
    if isinstance(item, Refused):
        return {"refused": item.reason, "place": item.place}
    assert isinstance(item, Delivered)
    return {
        "sender": item.sender,
        "key_id": item.key_id.hex(),
        "subject": item.subject,
        "sequence": item.sequence,
        "message_id": item.message_id,
        "gap": item.gap,
        "type": item.payload.DESCRIPTOR.name,
        **({"uptime": str(item.payload.uptime)} if item.payload.DESCRIPTOR.name == "Heartbeat" else {}),
    }


def tls(ca, certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    return context


async def main(url, ca, certificate, key, trust_domain, subjects, count):
    async def failed(error):
        print(f"the server or the connection: {error!r}", file=sys.stderr, flush=True)

    with open(ca, "rb") as file:
        roots = [root.public_bytes(Encoding.DER) for root in x509.load_pem_x509_certificates(file.read())]
    client = await nats.connect(
        url,
        tls=tls(ca, certificate, key),
        tls_handshake_first=True,
        allow_reconnect=False,
        error_cb=failed,
    )
    subscription = await client.subscribe(subjects)
    receiver = Receiver("ransomeye", trust_domain, roots)
    # The server has the subscription once it has answered.
    await client.flush()
    say({"subscribed": subjects})
    for _ in range(int(count)):
        message = await subscription.next_msg(timeout=30)
        try:
            items = receiver.receive(message.subject, message.data)
        except Refused as refusal:
            items = [refusal]
        say({"delivery": [report(item) for item in items]})
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
