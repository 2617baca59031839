"""Secrets, sealed at rest with AES-256-GCM under a data key of each organisation, which the operator's keys wrap."""

import hmac
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import Connection
from psycopg_pool import ConnectionPool

NONCE_BYTES = 12


class WeakKey(Exception):
    """A secret key must be `{id}:{base64 of 32 random bytes}`: make one with `wattledger secrets generate`"""


@dataclass(frozen=True)
class OperatorKey:
    """One key of the operator's; the first of a list seals, all of them open."""

    id: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> "OperatorKey":
        key_id, _, encoded = text.partition(":")
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            raise WeakKey(WeakKey.__doc__) from None
        if not key_id or len(key) != 32 or len(set(key)) < 8:
            raise WeakKey(WeakKey.__doc__)
        return cls(key_id, key)

    @classmethod
    def random(cls) -> "OperatorKey":
        return cls(os.urandom(4).hex(), os.urandom(32))

    def __str__(self) -> str:
        return f"{self.id}:{b64encode(self.key).decode()}"

    def __repr__(self) -> str:
        return f"OperatorKey({self.id})"


class PostgresSecretBox:
    """Each secret is bound to its organisation, field and version: a sealed row that is moved elsewhere won't open."""

    def __init__(self, pool: "ConnectionPool[Connection[Any]]", keys: list[OperatorKey]):
        if not keys:
            raise WeakKey(WeakKey.__doc__)
        self._pool = pool
        self._keys = {key.id: key for key in keys}
        self._sealing_key = keys[0]

    def seal(self, organization_id: UUID, field: str, secret: str) -> int:
        with self._pool.connection() as connection, connection.transaction():
            data_key = self._data_key(connection, organization_id)
            connection.execute(
                "SELECT 1 FROM organisation_keys WHERE organization_id = %s FOR UPDATE", [organization_id]
            )
            row = connection.execute(
                "SELECT coalesce(max(version), 0) + 1 FROM secrets WHERE organization_id = %s AND field = %s",
                (organization_id, field),
            ).fetchone()
            assert row is not None
            version = int(row[0])
            sealed = _seal(data_key, secret.encode(), _bound_to(organization_id, field, version))
            connection.execute("INSERT INTO secrets VALUES (%s, %s, %s, %s)", (organization_id, field, version, sealed))
        return version

    def open(self, organization_id: UUID, field: str, version: int) -> str:
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT s.sealed, k.key_id, k.wrapped_key FROM secrets s JOIN organisation_keys k"
                " USING (organization_id) WHERE s.organization_id = %s AND s.field = %s AND s.version = %s",
                (organization_id, field, version),
            ).fetchone()
        if row is None:
            raise KeyError(f"no secret {field} {version}")
        data_key = self._unwrap(organization_id, row[1], row[2])
        return _open(data_key, row[0], _bound_to(organization_id, field, version)).decode()

    def _data_key(self, connection: Connection[Any], organization_id: UUID) -> bytes:
        fresh = os.urandom(32)
        wrapped = _seal(self._sealing_key.key, fresh, organization_id.bytes)
        connection.execute(
            "INSERT INTO organisation_keys VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (organization_id, self._sealing_key.id, wrapped),
        )
        row = connection.execute(
            "SELECT key_id, wrapped_key FROM organisation_keys WHERE organization_id = %s", [organization_id]
        ).fetchone()
        assert row is not None
        return self._unwrap(organization_id, row[0], row[1])

    def _unwrap(self, organization_id: UUID, key_id: str, wrapped: bytes) -> bytes:
        if key_id not in self._keys:
            raise WeakKey(f"the secrets are sealed under the key {key_id}, which is not among the secret keys")
        try:
            return _open(self._keys[key_id].key, wrapped, organization_id.bytes)
        except InvalidTag:
            raise WeakKey(f"the key {key_id} is not the one that the secrets are sealed under") from None


class HmacKeyHasher:
    """API keys are 256 random bits, so a keyed hash is enough; its key comes from the operator's oldest key."""

    def __init__(self, keys: list[OperatorKey]):
        self._pepper = HKDF(SHA256(), 32, salt=None, info=b"wattledger api keys").derive(keys[-1].key)

    def hash(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), sha256).hexdigest()

    def matches(self, secret: str, secret_hash: str) -> bool:
        return hmac.compare_digest(self.hash(secret), secret_hash)


def _bound_to(organization_id: UUID, field: str, version: int) -> bytes:
    return f"{organization_id}|{field}|{version}".encode()


def _seal(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to)


def _open(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
