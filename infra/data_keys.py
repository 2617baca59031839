"""The data keys that seal secrets: one an organisation, each wrapped by every operator key that its maker knew."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from psycopg import Connection
from psycopg.rows import class_row

from domain.errors import OrgMembershipRequired
from infra.operator_keys import OperatorKey, WeakKey, seal, unseal

INSTALLATION = UUID(int=0)
"""Owns the data key that is no organisation's: the pepper of the API keys' hashes."""

LOCK_CLASS = 1463899231


@dataclass(frozen=True)
class KeyUse:
    """An operator key that wraps data keys: how many, and how many of them no other known key does."""

    key_id: str
    known: bool
    seals: bool
    data_keys: int
    needed_by: int


class DataKeys:
    """Statements run on the caller's connection; those that write take a lock of their owner until its transaction
    ends, so that an owner never gets two data keys, nor one back that is being forgotten."""

    def __init__(self, keys: Sequence[OperatorKey]):
        if not keys:
            raise WeakKey(WeakKey.__doc__)
        self.first = keys[0]
        self.oldest = keys[-1]
        self._keys = {key.id: key for key in keys}

    def find(self, connection: Connection[Any], owner: UUID) -> bytes | None:
        rows = connection.execute(
            "SELECT key_id, wrapped_key FROM organisation_keys WHERE organization_id = %s", [owner]
        ).fetchall()
        return self.unwrap(owner, dict(rows)) if rows else None

    def find_or_make(self, connection: Connection[Any], owner: UUID, new: bytes | None = None) -> bytes:
        """In a transaction; `new` is what it shall be if there is none, else it is random. Raises OrgMembershipRequired
        when it was destroyed."""
        _lock(connection, owner)
        data_key = self.find(connection, owner)
        if data_key is None:
            if connection.execute("SELECT FROM destroyed_keys WHERE owner = %s", [owner]).fetchone() is not None:
                raise OrgMembershipRequired
            data_key = new or os.urandom(32)
            for key in self._keys.values():
                _wrap(connection, key, owner, data_key)
        return data_key

    def forget(self, connection: Connection[Any], owner: UUID) -> None:
        """In a transaction: whatever it sealed can't be opened ever again."""
        _lock(connection, owner)
        connection.execute("DELETE FROM organisation_keys WHERE organization_id = %s", [owner])

    def destroy(self, connection: Connection[Any], owner: UUID) -> None:
        """In a transaction: as `forget`, and it gets no other."""
        self.forget(connection, owner)
        connection.execute("INSERT INTO destroyed_keys (owner) VALUES (%s) ON CONFLICT DO NOTHING", [owner])

    def unwrap(self, owner: UUID, wrapped: Mapping[str, bytes]) -> bytes:
        key = next((key for key in self._keys.values() if key.id in wrapped), None)
        if key is None:
            raise WeakKey(f"The secrets are sealed under the key {_told(wrapped)}, which is not among the secret keys")
        try:
            return unseal(key.key, wrapped[key.id], owner.bytes)
        except InvalidTag:
            raise WeakKey(f"The key {key.id} is not the one that the secrets are sealed under") from None

    def check(self, connection: Connection[Any]) -> None:
        """Raises WeakKey unless every data key can be opened, as far as a sample of each operator key tells."""
        samples = connection.execute(
            "SELECT DISTINCT ON (key_id) key_id, organization_id, wrapped_key FROM organisation_keys"
        )
        for key_id, owner, wrapped in samples:
            if key_id in self._keys:
                self.unwrap(owner, {key_id: wrapped})
        lost = connection.execute(
            "SELECT array_agg(DISTINCT key_id), count(DISTINCT organization_id) FROM organisation_keys k"
            " WHERE NOT EXISTS (SELECT FROM organisation_keys o"
            "  WHERE o.organization_id = k.organization_id AND o.key_id = ANY(%s))",
            [list(self._keys)],
        ).fetchone()
        if lost and lost[1]:
            raise WeakKey(f"The key {_told(lost[0])}, which {lost[1]} data keys need, is not among the secret keys")

    def uses(self, connection: Connection[Any]) -> list[KeyUse]:
        """Every operator key that is known here or wraps a data key."""
        with connection.cursor(row_factory=class_row(KeyUse)) as cursor:
            return cursor.execute(
                "SELECT key_id, key_id = ANY(%(known)s) AS known, key_id = %(first)s AS seals,"
                " count(k.organization_id) AS data_keys, count(k.organization_id) FILTER (WHERE NOT EXISTS"
                "  (SELECT FROM organisation_keys o WHERE o.organization_id = k.organization_id"
                "   AND o.key_id <> k.key_id AND o.key_id = ANY(%(known)s))) AS needed_by"
                " FROM unnest(%(known)s::text[]) key_id FULL JOIN organisation_keys k USING (key_id)"
                " GROUP BY key_id ORDER BY seals DESC, known DESC, key_id",
                {"known": list(self._keys), "first": self.first.id},
            ).fetchall()

    def rotate(self, connection: Connection[Any], progress: Callable[[int, int], None] = lambda *_: None) -> int:
        """Wraps every data key under the first operator key as well, one a transaction: it may be interrupted at any
        point and run again. Returns how many there were to do; `progress` is told how many of them are done."""
        self.check(connection)
        owners = connection.execute(
            "SELECT organization_id FROM organisation_keys EXCEPT"
            " SELECT organization_id FROM organisation_keys WHERE key_id = %s",
            [self.first.id],
        ).fetchall()
        for done, (owner,) in enumerate(owners, 1):
            with connection.transaction():
                _lock(connection, owner)
                data_key = self.find(connection, owner)
                if data_key is not None:
                    _wrap(connection, self.first, owner, data_key)
            progress(done, len(owners))
        return len(owners)

    def retire(self, connection: Connection[Any], key_id: str) -> int:
        """Drops what a key wraps: all of it or, raising WeakKey, nothing. Returns how much that was."""
        if key_id == self.first.id:
            raise WeakKey(f"The key {key_id} is the first of the secret keys: it can't be retired")
        if key_id not in {use.key_id for use in self.uses(connection)}:
            raise WeakKey(f"There is no key {key_id}: `wattledger secrets status` lists them")
        self.check(connection)
        with connection.transaction():
            dropped = connection.execute(
                "DELETE FROM organisation_keys k WHERE key_id = %s AND EXISTS (SELECT FROM organisation_keys o"
                " WHERE o.organization_id = k.organization_id AND o.key_id = %s)",
                (key_id, self.first.id),
            ).rowcount
            left = connection.execute("SELECT count(*) FROM organisation_keys WHERE key_id = %s", [key_id]).fetchone()
            if left and left[0]:
                raise WeakKey(f"The key {key_id} is still needed by {left[0]} data keys: rotate once more, then retire")
        return dropped


def _wrap(connection: Connection[Any], key: OperatorKey, owner: UUID, data_key: bytes) -> None:
    connection.execute(
        "INSERT INTO organisation_keys (organization_id, key_id, wrapped_key) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (owner, key.id, seal(key.key, data_key, owner.bytes)),
    )


def _lock(connection: Connection[Any], owner: UUID) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK_CLASS, str(owner)))


def _told(key_ids: Mapping[str, Any] | Sequence[str]) -> str:
    return " or ".join(sorted(key_ids))
