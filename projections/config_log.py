"""The config log: every change of a plant's configuration that was sent to its ESM, and what the ESM said."""

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, Connection

from application.publisher import Recorded
from domain.plant_config import PlantConfig
from projections.page import ApiModel, Page, PageQuery, fetch_page
from projections.read_model import ReadModel


class ConfigLogEntry(ApiModel):
    """`id` is the change's position in the event log; `configSnapshot` is what was sent. Times in UTC."""

    id: int
    plant_id: UUID
    requested_by: UUID
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


class ConfigLogRow(ConfigLogEntry):
    change_id: UUID
    number: int


_EVENTS = (PlantConfig.ChangeSent, PlantConfig.ChangeAnswered)


def _key_of(event: Any) -> UUID | None:
    return event.change_id if isinstance(event, _EVENTS) else None


def _evolve(row: ConfigLogRow | None, recorded: Recorded) -> ConfigLogRow | None:
    event = recorded.event
    if isinstance(event, PlantConfig.ChangeSent):
        return ConfigLogRow(
            id=recorded.position,
            change_id=event.change_id,
            plant_id=event.plant_id,
            number=0,
            requested_by=event.requested_by,
            validate_only=event.validate_only,
            config_snapshot={"version": event.version, "timeConfigs": event.time_configs},
            request_code=None,
            result_code=None,
            message=None,
            is_error=False,
            is_terminal=False,
            sent_at=event.timestamp,
            responded_at=None,
            created_at=event.timestamp,
        )
    if row is None or not isinstance(event, PlantConfig.ChangeAnswered):
        return row
    row.request_code, row.result_code, row.message = event.request_code, event.result_code, event.message
    row.is_error, row.is_terminal, row.responded_at = event.is_error, event.is_terminal, event.timestamp
    return row


CONFIG_LOG = ReadModel("config_log", ConfigLogRow, "change_id", _key_of, _evolve, numbering={"number": ("plant_id",)})


async def config_log(connection: "AsyncConnection[Any]", plant_id: UUID, query: PageQuery) -> Page[ConfigLogEntry]:
    return await fetch_page(connection, ConfigLogEntry, "config_log", query, plant_id=plant_id)


def entry_of(events: list[tuple[int, Any]]) -> ConfigLogEntry:
    """What a command has just saved, folded as the read model will fold it."""
    row: ConfigLogRow | None = None
    for position, event in events:
        if _key_of(event) is not None:
            row = _evolve(row, Recorded(position, event, {}))
    assert row is not None
    return ConfigLogEntry.model_validate(row, from_attributes=True)


def open_changes(connection: Connection[Any]) -> list[UUID]:
    """The plants whose last change has no final answer yet."""
    rows = connection.execute("SELECT plant_id FROM config_log WHERE NOT is_terminal ORDER BY sent_at LIMIT 1000")
    return [row[0] for row in rows]
