"""The Ed25519 keys that sign seals: their private halves sealed as all secrets are, each endorsed by the one before."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from psycopg import Connection, DataError
from psycopg.rows import class_row

from infra.audit.seals import EPOCH, framed, int8
from infra.data_keys import DataKeys
from infra.operator_keys import WeakKey, seal, unseal

OWNER = UUID(int=1)
"""Owns the data key that the private halves are sealed under; no organisation has this id."""


@dataclass(frozen=True)
class SealingKey:
    """`sealed_private` is None once another key has followed: nobody can sign as it any more."""

    number: int
    public_key: bytes
    endorsement: bytes
    created_at: datetime
    sealed_private: bytes | None = field(repr=False)

    @property
    def fingerprint(self) -> bytes:
        return sha256(self.public_key).digest()

    def endorsed(self) -> bytes:
        """What the key before signs of this one: (number, public key, microseconds since 1970)."""
        return framed(b"wattledger sealing key 1", int8(self.number), self.public_key, int8(self.made_at))

    @property
    def made_at(self) -> int:
        """In microseconds since 1970."""
        return (self.created_at - EPOCH) // timedelta(microseconds=1)

    def signed(self, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """The newest key, opened."""

    key: SealingKey
    private: Ed25519PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


class SealingKeys:
    """Statements run on the caller's connection."""

    def __init__(self, data_keys: DataKeys):
        self._data_keys = data_keys
        self._signer: Signer | None = None

    def signer(self, connection: "Connection[Any]") -> Signer:
        """Makes the first key if there is none. Raises WeakKey when the newest is not one that we can open."""
        known = sealing_keys(connection)
        if not known:
            return self._follow_up(connection)
        if self._signer is None or self._signer.key != known[-1]:
            self._signer = Signer(known[-1], self._open(connection, known))
        return self._signer

    def rotate(self, connection: "Connection[Any]") -> SealingKey:
        """The next key, endorsed by the newest, whose private half is destroyed."""
        return self._follow_up(connection, self.signer(connection)).key

    def opens(self, connection: "Connection[Any]") -> bool:
        """Whether the newest key is one that was sealed by somebody with our operator keys."""
        try:
            known = sealing_keys(connection)
            return bool(known) and bool(self._open(connection, known))
        except (WeakKey, DataError):  # a date that no key of ours can have
            return False

    def _follow_up(self, connection: "Connection[Any]", before: Signer | None = None) -> Signer:
        private = Ed25519PrivateKey.generate()
        number = before.key.number + 1 if before else 1
        public_key = private.public_key().public_bytes_raw()
        bound_to = _bound_to(number, public_key, before.key.public_key if before else b"")
        with connection.transaction():
            data_key = self._data_keys.find_or_make(connection, OWNER)  # it also holds off others who do the same
            if len(sealing_keys(connection)) >= number:
                return self.signer(connection)
            sealed = seal(data_key, private.private_bytes_raw(), bound_to)
            unsigned = SealingKey(number, public_key, b"", datetime.now(UTC), sealed)
            endorsement = (before.private if before else private).sign(unsigned.endorsed())
            key = SealingKey(number, public_key, endorsement, unsigned.created_at, sealed)
            connection.execute(
                "INSERT INTO sealing_keys (number, public_key, endorsement, created_at, sealed_private)"
                " VALUES (%s, %s, %s, %s, %s)",
                (key.number, key.public_key, key.endorsement, key.created_at, key.sealed_private),
            )
            connection.execute("UPDATE sealing_keys SET sealed_private = NULL WHERE number < %s", [number])
        self._signer = Signer(key, private)
        return self._signer

    def _open(self, connection: "Connection[Any]", known: Sequence[SealingKey]) -> Ed25519PrivateKey:
        newest = known[-1]
        data_key = self._data_keys.find(connection, OWNER)
        before = known[-2].public_key if len(known) > 1 else b""
        refused = WeakKey(f"The sealing key {newest.fingerprint.hex()} was not made with our secret keys")
        if data_key is None or newest.sealed_private is None:
            raise refused
        try:
            plain = unseal(data_key, newest.sealed_private, _bound_to(newest.number, newest.public_key, before))
        except InvalidTag:
            raise refused from None
        return Ed25519PrivateKey.from_private_bytes(plain)


def sealing_keys(connection: "Connection[Any]") -> list[SealingKey]:
    """From the first to the newest."""
    with connection.cursor(row_factory=class_row(SealingKey)) as cursor:
        return cursor.execute(
            "SELECT number, public_key, endorsement, created_at, sealed_private FROM sealing_keys ORDER BY number"
        ).fetchall()


def unendorsed(known: Sequence[SealingKey]) -> SealingKey | None:
    """The first key that the one before it, or the first itself, did not sign."""
    for number, key in enumerate(known, 1):
        before = known[max(number - 2, 0)]
        if key.number != number or not before.signed(key.endorsement, key.endorsed()):
            return key
    return None


def _bound_to(number: int, public_key: bytes, before: bytes) -> bytes:
    """Whoever opens a private half knows that these public keys are ours, too."""
    return framed(b"wattledger sealing key", int8(number), public_key, before)
