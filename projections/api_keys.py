"""The API keys: who calls with which scopes."""

from datetime import UTC, datetime
from math import inf
from operator import attrgetter
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from domain.organisation import Organisation
from projections.page import ApiModel
from projections.read_model import ReadModel


class ApiKeyEntry(ApiModel):
    """What is shown of a key; times in UTC."""

    id: UUID
    organization_id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = None
    """To the minute; not of the log, and only where keys are listed."""

    def is_valid(self, now: datetime | None = None) -> bool:
        return self.revoked_at is None and self.seconds_left(now) > 0

    def seconds_left(self, now: datetime | None = None) -> float:
        """Until it expires."""
        return (self.expires_at - (now or datetime.now(UTC))).total_seconds() if self.expires_at else inf


class ApiKeyRow(ApiKeyEntry):
    secret_hash: str


class _Row(Struct):
    id: UUID
    organization_id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    secret_hash: str
    revoked_at: datetime | None = None


_COLUMNS = "id, organization_id, name, scopes, created_at, expires_at, revoked_at"


def _evolve(row: _Row | None, event: Any, _: int) -> _Row | None:
    match event:
        case Organisation.KeyMinted() as minted:
            return _Row(
                id=minted.key_id,
                organization_id=minted.originator_id,
                name=minted.name,
                scopes=minted.scopes,
                created_at=minted.timestamp,
                expires_at=minted.expires_at,
                secret_hash=minted.secret_hash,
            )
        case Organisation.KeyRevoked(timestamp=at) if row is not None:
            row.revoked_at = at
    return row


API_KEYS = ReadModel(
    "api_keys",
    _Row,
    events=(Organisation.KeyMinted, Organisation.KeyRevoked),
    key_of=attrgetter("key_id"),
    evolve=_evolve,
)


def api_keys(connection: Connection[Any], organization_id: UUID) -> list[ApiKeyEntry]:
    query = f"""SELECT {_COLUMNS}, last_used_at FROM api_keys LEFT JOIN api_key_uses ON key_id = id
        WHERE organization_id = %s ORDER BY created_at"""
    with connection.cursor(row_factory=class_row(ApiKeyEntry)) as cursor:
        return cursor.execute(query, [organization_id]).fetchall()


async def api_key(connection: "AsyncConnection[Any]", key_id: UUID) -> ApiKeyRow | None:
    """For checking a caller's key."""
    async with connection.cursor(row_factory=class_row(ApiKeyRow)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS}, secret_hash FROM api_keys WHERE id = %s", [key_id])
        return await cursor.fetchone()
