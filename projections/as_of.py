"""What the read models said at a position of the log: the same rows, folded from the events up to there."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsourcing.domain import AggregateEvent
from psycopg import AsyncConnection

from domain.errors import NotFound
from domain.plant import Plant
from domain.plant_config import PlantConfig
from domain.trading_config import TradingConfig
from projections.loading import Decode
from projections.page import ApiModel, Page, PageQuery, page_of
from projections.plants import PLANTS, PlantEntry
from projections.read_model import ReadModel
from projections.trading_configs import TRADING_CONFIGS, TradingConfigEntry

Connection = AsyncConnection[Any]


class AppliedConfig(ApiModel):
    """A plan that the ESM said it has, by our log; `version` is the ESM's version that the plan was based on."""

    version: int | None
    time_configs: list[dict[str, Any]]
    applied_at: datetime


async def position_at(connection: Connection, moment: datetime) -> int:
    """The last position that was recorded by then, 0 if none was."""
    row = await (await connection.execute("SELECT position_at(%s)", [moment])).fetchone()
    assert row is not None
    return int(row[0])


async def trading_config_as_of(
    connection: Connection, decode: Decode, organization_id: UUID, position: int
) -> TradingConfigEntry:
    """`lastSyncAt` is null: of syncs, the log has only what they changed. Raises NotFound."""
    rows = await _rows(connection, decode, TRADING_CONFIGS, [TradingConfig.create_id(organization_id)], position)
    if not rows:
        raise NotFound("There was no trading config then")
    names = TradingConfigEntry.model_fields.keys() - {"last_sync_at"}
    return TradingConfigEntry(last_sync_at=None, **{name: getattr(rows[0], name) for name in names})


async def plants_as_of(
    connection: Connection, decode: Decode, organization_id: UUID, query: PageQuery, position: int
) -> Page[PlantEntry]:
    """`lastSeenAt` is null while it was in the list then, `lastTelemetryAt` always: the log has neither."""
    total = await _plants_by(connection, organization_id, position)
    highest = total - (query.page - 1) * query.limit
    cursor = await connection.execute(
        "SELECT id FROM plants WHERE organization_id = %s AND number <= %s AND number > %s",
        (organization_id, max(highest, 0), max(highest - query.limit, 0)),
    )
    ids = [row[0] for row in await cursor.fetchall()]
    rows = await _rows(connection, decode, PLANTS, ids, position)
    shown = PlantEntry.model_fields.keys() - {"last_telemetry_at"}
    entries = [PlantEntry(**{name: getattr(row, name) for name in shown}) for row in rows]
    return page_of(entries[::-1], query, total)


async def plan_as_of(connection: Connection, decode: Decode, plant_id: UUID, position: int) -> AppliedConfig | None:
    """The plan that was in force: the last one that the ESM had applied for us."""
    config: PlantConfig | None = None
    version: int | None = None
    for event in await _events(connection, decode, [PlantConfig.create_id(plant_id)], position):
        before, in_flight = (config.applied, config.in_flight) if config else (None, None)
        config = event.mutate(config)
        if config is not None and config.applied is not before and in_flight is not None:
            version = in_flight.version
    if config is None or config.applied is None:
        return None
    blocks: list[Any] = list(config.applied.time_configs)
    return AppliedConfig(version=version, time_configs=blocks, applied_at=config.applied.at)


async def plant_as_of(connection: Connection, decode: Decode, plant_id: UUID, position: int) -> Plant | None:
    plant: Plant | None = _folded(await _events(connection, decode, [plant_id], position))
    return plant


async def recorded(connection: Connection, stream_id: UUID, topic: str) -> tuple[int, datetime] | None:
    """Where and when a stream's first event of a kind was recorded."""
    cursor = await connection.execute(
        "SELECT position, recorded_at FROM events WHERE stream_id = %s AND topic = %s ORDER BY version LIMIT 1",
        (stream_id, topic),
    )
    return await cursor.fetchone()


async def _plants_by(connection: Connection, organization_id: UUID, position: int) -> int:
    """How many an organisation had: they are numbered in the order of the log, and none ever goes."""
    cursor = await connection.execute(
        "SELECT number FROM plants JOIN events ON stream_id = id AND events.version = 1"
        " WHERE organization_id = %s AND position <= %s ORDER BY number DESC LIMIT 1",
        (organization_id, position),
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


async def _rows(
    connection: Connection, decode: Decode, model: ReadModel[Any], stream_ids: Sequence[UUID], position: int
) -> list[Any]:
    """Of streams whose events a read model folds into one row each, in the order in which they began."""
    rows: dict[UUID, Any] = {}
    for event in await _events(connection, decode, stream_ids, position):
        if model.concerns(event):
            key = model.key_of(event)
            rows[key] = model.evolve(rows.get(key), event, position)
    return list(rows.values())


async def _events(
    connection: Connection, decode: Decode, stream_ids: Sequence[UUID], position: int
) -> list[AggregateEvent]:
    cursor = await connection.execute(
        "SELECT topic, stream_id, version, state FROM events WHERE stream_id = ANY(%s) AND position <= %s"
        " ORDER BY position",
        (list(stream_ids), position),
    )
    return [decode(topic)(*row) for topic, *row in await cursor.fetchall()]


def _folded(events: Iterable[Any]) -> Any:
    aggregate = None
    for event in events:
        aggregate = event.mutate(aggregate)
    return aggregate
