"""The operator's keys: they come from outside and wrap the data keys, which seal the secrets (AES-256-GCM both)."""

import os
from base64 import b64decode, b64encode
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class WeakKey(Exception):
    """A secret key must be `{id}:{base64 of 32 random bytes}`: make one with `wattledger secrets generate`"""


@dataclass(frozen=True)
class OperatorKey:
    """One key of the operator's; all of a list wrap and open, the first is the one to stay."""

    id: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> "OperatorKey":
        key_id, _, encoded = text.strip().partition(":")
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            raise WeakKey(WeakKey.__doc__) from None
        # 32 random bytes are never all printable: those that are were typed.
        if not key_id or len(key) != 32 or len(set(key)) < 8 or all(0x20 <= byte < 0x7F for byte in key):
            raise WeakKey(WeakKey.__doc__)
        return cls(key_id, key)

    @classmethod
    def parse_all(cls, text: str) -> "list[OperatorKey]":
        """Comma-separated, each with an id of its own."""
        keys = [cls.parse(part) for part in text.split(",")]
        if len({key.id for key in keys}) < len(keys):
            raise WeakKey("Two of the secret keys have the same id")
        return keys

    @classmethod
    def random(cls) -> "OperatorKey":
        return cls(os.urandom(4).hex(), os.urandom(32))

    def __str__(self) -> str:
        return f"{self.id}:{b64encode(self.key).decode()}"

    def __repr__(self) -> str:
        return f"OperatorKey({self.id})"


def seal(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to)


def unseal(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """Raises InvalidTag for another key, a changed text, or one that was bound to something else."""
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
