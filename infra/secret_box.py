"""Secrets, sealed at rest with AES-256-GCM under a data key of each organisation, which the operator's keys wrap."""

import hmac
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import Connection
from psycopg_pool import ConnectionPool

from application.ports import Veil
from infra import redaction
from infra.data_keys import INSTALLATION, DataKeys
from infra.operator_keys import OperatorKey, WeakKey, seal, unseal
from infra.veil import Veils, key_owner

__all__ = ["HmacKeyHasher", "OperatorKey", "PostgresSecretBox", "WeakKey"]

FORGOTTEN = b""
"""What is left of a sealed secret, so that its version is never given to another one."""


class PostgresSecretBox:
    """Each secret is bound to its organisation, field and version: a sealed row that is moved elsewhere won't open."""

    def __init__(self, pool: "ConnectionPool[Connection[Any]]", keys: Sequence[OperatorKey]):
        self._pool = pool
        self._keys = DataKeys(keys)

    def seal(self, organization_id: UUID, field: str, secret: str) -> int:
        redaction.remember(secret)
        with self._pool.connection() as connection, connection.transaction():
            data_key = self._keys.find_or_make(connection, organization_id)
            row = connection.execute(
                "SELECT coalesce(max(version), 0) + 1 FROM secrets WHERE organization_id = %s AND field = %s",
                (organization_id, field),
            ).fetchone()
            assert row is not None
            version = int(row[0])
            sealed = seal(data_key, secret.encode(), _bound_to(organization_id, field, version))
            connection.execute("INSERT INTO secrets VALUES (%s, %s, %s, %s)", (organization_id, field, version, sealed))
        return version

    def open(self, organization_id: UUID, field: str, version: int) -> str:
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT k.key_id, k.wrapped_key, s.sealed FROM secrets s JOIN organisation_keys k"
                " USING (organization_id) WHERE s.organization_id = %s AND s.field = %s AND s.version = %s",
                (organization_id, field, version),
            ).fetchall()
        if not rows or rows[0][2] == FORGOTTEN:
            raise KeyError(f"no secret {field} {version}")
        data_key = self._keys.unwrap(organization_id, {key_id: wrapped for key_id, wrapped, _ in rows})
        secret = unseal(data_key, rows[0][2], _bound_to(organization_id, field, version)).decode()
        redaction.remember(secret)
        return secret

    def forget(self, organization_id: UUID, field: str, up_to: int) -> None:
        with self._pool.connection() as connection:
            connection.execute(
                "UPDATE secrets SET sealed = %s WHERE organization_id = %s AND field = %s AND version <= %s",
                (FORGOTTEN, organization_id, field, up_to),
            )

    def forget_all(self, organization_id: UUID) -> None:
        """Destroys their data key too: not even a backup of its secrets alone opens then. It may get others."""
        with self._pool.connection() as connection, connection.transaction():
            self._keys.forget(connection, organization_id)
            self._wipe(connection, organization_id)

    def veil(self, organization_id: UUID) -> Veil:
        owner = key_owner(organization_id)
        with self._pool.connection() as connection:
            data_key = self._keys.find(connection, owner)
            if data_key is None:
                with connection.transaction():
                    data_key = self._keys.find_or_make(connection, owner)
        return Veils(data_key).veil

    def unveil(self, organization_id: UUID) -> Veil:
        with self._pool.connection() as connection:
            try:
                data_key = self._keys.find(connection, key_owner(organization_id))
            except WeakKey:  # an auditor may have no key of the operator's
                return str
        return Veils(data_key).unveil if data_key else str

    def erase(self, organization_id: UUID) -> None:
        with self._pool.connection() as connection, connection.transaction():
            for owner in (organization_id, key_owner(organization_id)):
                self._keys.destroy(connection, owner)
            self._wipe(connection, organization_id)

    def pepper(self) -> bytes:
        """Of the API keys' hashes, made once. Where keys were minted before it had a place of its own, it is what it
        was then: derived from the oldest operator key."""
        with self._pool.connection() as connection, connection.transaction():
            found = self._keys.find(connection, INSTALLATION)
            return found or self._keys.find_or_make(connection, INSTALLATION, self._former_pepper(connection))

    def _wipe(self, connection: Connection[Any], organization_id: UUID) -> None:
        connection.execute("UPDATE secrets SET sealed = %s WHERE organization_id = %s", (FORGOTTEN, organization_id))

    def _former_pepper(self, connection: Connection[Any]) -> bytes | None:
        row = connection.execute("SELECT EXISTS (SELECT FROM secrets)").fetchone()
        if not (row and row[0]):
            return None
        return HKDF(SHA256(), 32, salt=None, info=b"wattledger api keys").derive(self._keys.oldest.key)


class HmacKeyHasher:
    """API keys are 256 random bits, so a keyed hash is enough."""

    def __init__(self, box: PostgresSecretBox):
        self._box = box

    @cached_property
    def _pepper(self) -> bytes:
        return self._box.pepper()

    def prepare(self) -> None:
        """Makes the pepper if there is none yet."""
        self._pepper  # noqa: B018 - reading it makes it

    def hash(self, secret: str) -> str:
        return hmac.digest(self._pepper, secret.encode(), "sha256").hex()

    def matches(self, secret: str, secret_hash: str) -> bool:
        return hmac.compare_digest(self.hash(secret), secret_hash)


def _bound_to(organization_id: UUID, field: str, version: int) -> bytes:
    return f"{organization_id}|{field}|{version}".encode()
