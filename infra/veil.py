"""Veils what is personal: words become unreadable without their owner's key, the same words always the same way."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from uuid import UUID, uuid5

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from application.ports import VEILED

REMEMBERED = 1000


def key_owner(organization_id: UUID) -> UUID:
    """Of the data key that veils: not the one of its secrets, which may be forgotten while the organisation goes on."""
    return uuid5(organization_id, "veil")


class Veils:
    """AES-SIV (RFC 5297): deterministic, so that what is veiled can be compared and found again. It tells its length,
    and what of one organisation is equal."""

    def __init__(self, data_key: bytes):
        self._siv = AESSIV(HKDF(SHA256(), 64, salt=None, info=b"wattledger veil").derive(data_key))
        # The same names are asked for with every page. They are kept no longer than the key.
        self._unveiled = lru_cache(REMEMBERED)(self._unveil)

    def veil(self, words: str) -> str:
        if not words or words.startswith(VEILED):
            return words
        return VEILED + urlsafe_b64encode(self._siv.encrypt(words.encode(), None)).decode().rstrip("=")

    def unveil(self, veiled: str) -> str:
        """As it is when this key has not veiled it."""
        return self._unveiled(veiled) if veiled.startswith(VEILED) else veiled

    def _unveil(self, veiled: str) -> str:
        encoded = veiled.removeprefix(VEILED)
        try:
            return self._siv.decrypt(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), None).decode()
        except (InvalidTag, ValueError):
            return veiled
