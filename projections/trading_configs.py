"""The trading configs: one row an organisation."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from domain.catalogue import events_of
from domain.trading_config import Status, TradingConfig
from projections.page import ApiModel
from projections.read_model import ReadModel


class TradingConfigEntry(ApiModel):
    """An organisation's trading config. Times in UTC; `lastSyncAt` is the last sync that succeeded."""

    id: UUID
    organization_id: UUID
    status: Status
    esm_api_url: str | None
    esm_client_id: str | None
    has_esm_credentials: bool
    queue_prefix: str
    last_sync_at: datetime | None
    last_sync_error: str | None
    created_at: datetime
    updated_at: datetime


class _Row(Struct):
    id: UUID
    organization_id: UUID
    queue_prefix: str
    created_at: datetime
    updated_at: datetime
    status: Status = "DISABLED"
    esm_api_url: str | None = None
    esm_client_id: str | None = None
    has_esm_credentials: bool = False
    has_secret: bool = False
    last_sync_error: str | None = None
    version: int = 1


def _evolve(row: _Row | None, event: Any, _: int) -> _Row | None:
    if isinstance(event, TradingConfig.Created):
        at = event.timestamp
        return _Row(event.originator_id, event.organization_id, event.queue_prefix, created_at=at, updated_at=at)
    if row is None:
        return None
    match event:
        case TradingConfig.PartnerChanged(esm_api_url=url, esm_client_id=client_id):
            row.esm_api_url, row.esm_client_id = url, client_id
        case TradingConfig.CredentialsSet():
            row.has_secret = True
        case TradingConfig.CredentialsCleared():
            row.has_secret = False
        case TradingConfig.QueuePrefixChanged(queue_prefix=prefix):
            row.queue_prefix = prefix
        case TradingConfig.Enabled():
            row.status = "ENABLED"
        case TradingConfig.Disabled():
            row.status = "DISABLED"
        case TradingConfig.Closed():
            row.esm_api_url, row.esm_client_id, row.has_secret = None, None, False
        case TradingConfig.Synced():
            row.last_sync_error = None
        case TradingConfig.SyncFailed(error=error):
            row.last_sync_error = error
    row.has_esm_credentials = row.has_secret and row.esm_client_id is not None
    row.version, row.updated_at = event.originator_version, event.timestamp
    return row


TRADING_CONFIGS = ReadModel("trading_configs", _Row, events=events_of(TradingConfig), evolve=_evolve)


async def trading_config(
    connection: "AsyncConnection[Any]", organization_id: UUID
) -> tuple[TradingConfigEntry, int] | None:
    """With its version, which is its ETag."""
    cursor = await connection.execute(
        "SELECT c.id, c.organization_id, c.status, c.esm_api_url, c.esm_client_id, c.has_esm_credentials,"
        " c.queue_prefix, t.last_success_at, c.last_sync_error, c.created_at, c.updated_at, c.version"
        " FROM trading_configs c LEFT JOIN sync_turns t USING (organization_id) WHERE c.organization_id = %s",
        [organization_id],
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    return TradingConfigEntry(**dict(zip(TradingConfigEntry.model_fields, row, strict=False))), row[-1]


async def version_recorded(connection: "AsyncConnection[Any]", config_id: UUID, positions: range) -> int | None:
    """The version that the events at these positions left a config at, None if they left it alone."""
    cursor = await connection.execute(
        "SELECT max(version) FROM events WHERE stream_id = %s AND position >= %s AND position < %s",
        (config_id, positions.start, positions.stop),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


def entry_of(config: TradingConfig, last_sync_at: datetime | None) -> TradingConfigEntry:
    """What a command has just saved, without waiting for the read model."""
    return TradingConfigEntry(
        id=config.id,
        organization_id=config.organization_id,
        status=config.status,
        esm_api_url=config.esm_api_url,
        esm_client_id=config.esm_client_id,
        has_esm_credentials=config.has_esm_credentials,
        queue_prefix=config.queue_prefix,
        last_sync_at=last_sync_at,
        last_sync_error=config.last_sync_error,
        created_at=config.created_on,
        updated_at=config.modified_on,
    )


def unveiled(entry: TradingConfigEntry, unveil: Callable[[str], str]) -> TradingConfigEntry:
    """As it is answered: until then the client's id is veiled."""
    return entry.model_copy(update={"esm_client_id": entry.esm_client_id and unveil(entry.esm_client_id)})


class EnabledPrefix(ApiModel):
    organization_id: UUID
    queue_prefix: str


def enabled_prefixes(connection: Connection[Any]) -> list[EnabledPrefix]:
    """Whose queues must exist and be consumed."""
    with connection.cursor(row_factory=class_row(EnabledPrefix)) as cursor:
        return cursor.execute(
            "SELECT organization_id, queue_prefix FROM trading_configs WHERE status = 'ENABLED' ORDER BY queue_prefix"
        ).fetchall()


def queue_prefixes(connection: Connection[Any]) -> list[tuple[str, Status]]:
    """Each queue prefix that is held, and whether trading is enabled there."""
    return connection.execute("SELECT queue_prefix, status FROM trading_configs ORDER BY queue_prefix").fetchall()
