"""How a partner signs: by amqp.md alone, with none of our server code."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any


def signed(envelope: dict[str, Any], key_hex: str) -> dict[str, Any]:
    """With the signature over the canonical JSON: sorted names, no white space (whole numbers as integers)."""
    unsigned = {**envelope, "signatureAlgo": "HMAC-SHA256"}
    canonical = json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hmac.new(bytes.fromhex(key_hex), canonical, hashlib.sha256).digest()
    return {**unsigned, "signature": urlsafe_b64encode(digest).decode()}
