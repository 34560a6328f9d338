"""Names (docs/wire.md, "Names")."""

import re

TOKEN = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN = "[a-z0-9._-]{1,255}"
_ID = re.compile(f"spiffe://({DOMAIN})/({TOKEN})/({TOKEN})")


def parse(text):
    """Trust domain, role and component of a SPIFFE ID of the bus; `None` if it is none."""
    found = _ID.fullmatch(text)
    return found.groups() if found else None
