"""The config log: every change of a plant's configuration that was sent to its ESM, and what the ESM said."""

from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from domain.plant_config import PlantConfig
from projections.page import ApiModel, Page, PageQuery, fetch_page
from projections.read_model import ReadModel


class LoggedChange(ApiModel):
    """What the read model has: who asked is veiled."""

    id: int
    plant_id: UUID
    requested_by: str
    validate_only: bool
    config_snapshot: dict[str, Any]
    request_code: str | None
    result_code: str | None
    message: str | None
    is_error: bool
    is_terminal: bool
    sent_at: datetime
    responded_at: datetime | None
    created_at: datetime


class ConfigLogEntry(LoggedChange):
    """`id` is the change's position in the event log; `configSnapshot` is what was sent. Times in UTC."""

    requested_by: UUID  # type: ignore[assignment]


class _Row(Struct):
    id: int
    change_id: UUID
    plant_id: UUID
    requested_by: str
    validate_only: bool
    config_snapshot: dict[str, Any]
    sent_at: datetime
    created_at: datetime
    number: int = 0
    request_code: str | None = None
    result_code: str | None = None
    message: str | None = None
    is_error: bool = False
    is_terminal: bool = False
    responded_at: datetime | None = None


_EVENTS = (PlantConfig.ChangeSent, PlantConfig.ChangeAnswered)


def _evolve(row: _Row | None, event: Any, position: int) -> _Row | None:
    if isinstance(event, PlantConfig.ChangeSent):
        return _Row(
            id=position,
            change_id=event.change_id,
            plant_id=event.plant_id,
            requested_by=event.requested_by,
            validate_only=event.validate_only,
            config_snapshot={"version": event.version, "timeConfigs": event.time_configs},
            sent_at=event.timestamp,
            created_at=event.timestamp,
        )
    if row is None:
        return None
    row.request_code, row.result_code, row.message = event.request_code, event.result_code, event.message
    row.is_error, row.is_terminal, row.responded_at = event.is_error, event.is_terminal, event.timestamp
    return row


CONFIG_LOG = ReadModel(
    "config_log",
    _Row,
    events=_EVENTS,
    key="change_id",
    key_of=attrgetter("change_id"),
    evolve=_evolve,
    numbering={"number": ("plant_id",)},
)


async def config_log(connection: "AsyncConnection[Any]", plant_id: UUID, query: PageQuery) -> Page[LoggedChange]:
    return await fetch_page(connection, LoggedChange, "config_log", query, plant_id=plant_id)


async def change_at(connection: "AsyncConnection[Any]", plant_id: UUID, positions: range) -> LoggedChange | None:
    """A plant's change that was recorded at one of these positions."""
    columns = ", ".join(LoggedChange.model_fields)
    async with connection.cursor(row_factory=class_row(LoggedChange)) as cursor:
        await cursor.execute(
            f"SELECT {columns} FROM config_log WHERE plant_id = %s AND id >= %s AND id < %s",
            (plant_id, positions.start, positions.stop),
        )
        return await cursor.fetchone()


def entry_of(events: list[tuple[int, Any]]) -> LoggedChange:
    """What a command has just saved, folded as the read model will fold it."""
    row: _Row | None = None
    for position, event in events:
        if isinstance(event, _EVENTS):
            row = _evolve(row, event, position)
    assert row is not None
    return LoggedChange(**{name: getattr(row, name) for name in LoggedChange.model_fields})


def unveiled(change: LoggedChange, unveil: Callable[[str], str]) -> ConfigLogEntry:
    return ConfigLogEntry(**vars(change) | {"requested_by": unveil(change.requested_by)})


def open_changes(connection: Connection[Any]) -> list[UUID]:
    """The plants whose last change has no final answer yet."""
    rows = connection.execute("SELECT plant_id FROM config_log WHERE NOT is_terminal ORDER BY sent_at LIMIT 1000")
    return [row[0] for row in rows]
