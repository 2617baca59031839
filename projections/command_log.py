"""The command log: the partner's commands to each plant and how far each has come."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from pydantic import Field

from domain.catalogue import events_of
from domain.relayed_command import AckStatus, RejectionReason, RelayedCommand, Status
from projections.page import ApiModel, Page, PageQuery, fetch_page
from projections.read_model import ReadModel

CommandType = Literal["SITE_SETPOINT", "DEVICE_COMMAND", "EMERGENCY", "MODE_CHANGE"]
SHOWN: frozenset[str] = frozenset({"SITE_SETPOINT", "DEVICE_COMMAND", "EMERGENCY", "MODE_CHANGE"})


class CommandLogEntry(ApiModel):
    """`siteId` is what the partner sent, `executedAt` the plant's own time. Times in UTC."""

    id: UUID
    organization_id: UUID
    command_type: CommandType
    message_id: UUID
    correlation_id: str | None
    routing_key: str
    site_id: str
    payload: dict[str, Any]
    status: Status
    ack_status: AckStatus | None
    rejection_reason: RejectionReason | None
    executed_at: datetime | None
    created_at: datetime


class _Row(Struct):
    """Schedules and config requests are kept, but have no number and are not shown."""

    id: UUID
    organization_id: UUID
    plant_id: UUID | None
    command_type: str
    message_id: UUID
    correlation_id: str | None
    routing_key: str
    site_id: str
    payload: dict[str, Any]
    created_at: datetime
    number: int | None = None
    type_number: int | None = None
    status: Status = "RECEIVED"
    ack_status: AckStatus | None = None
    rejection_reason: RejectionReason | None = None
    executed_at: datetime | None = None
    expires_at: datetime | None = None


class CommandLogQuery(PageQuery):
    command_type: CommandType | None = Field(default=None, alias="commandType", description="Filter by command type")


def _evolve(row: _Row | None, event: Any, _: int) -> _Row | None:
    kind = type(event)
    if row is None:
        return _received(event) if kind is RelayedCommand.Created else None
    row.status = _STATUS.get(kind, row.status)
    change = _CHANGES.get(kind)
    if change is not None:
        change(row, event)
    return row


def _accepted(row: _Row, event: RelayedCommand.Accepted) -> None:
    row.ack_status, row.expires_at = "ACK", event.expires_at


def _executed(row: _Row, event: RelayedCommand.Executed) -> None:
    row.executed_at = event.executed_at


def _rejected(row: _Row, event: RelayedCommand.Rejected) -> None:
    row.rejection_reason = event.reason
    row.ack_status = None if event.silent else "NACK"


# A rebuild does this for every event, and to ask for one class after the other takes twice as long.
_STATUS: dict[type[Any], Status] = {
    RelayedCommand.Accepted: "ACCEPTED",
    RelayedCommand.Relayed: "RELAYED",
    RelayedCommand.Executed: "EXECUTED",
    RelayedCommand.Rejected: "REJECTED",
    RelayedCommand.Failed: "FAILED",
    RelayedCommand.Expired: "EXPIRED",
}
_CHANGES: dict[type[Any], Callable[[_Row, Any], None]] = {
    RelayedCommand.Accepted: _accepted,
    RelayedCommand.Executed: _executed,
    RelayedCommand.Rejected: _rejected,
}


def _received(event: RelayedCommand.Created) -> _Row:
    return _Row(
        id=event.originator_id,
        organization_id=event.organization_id,
        plant_id=event.plant_id,
        command_type=event.command_type,
        message_id=event.message_id,
        correlation_id=event.correlation_id,
        routing_key=event.routing_key,
        site_id=event.site_id,
        payload=event.payload,
        created_at=event.timestamp,
    )


def _is_numbered(row: _Row) -> bool:
    return row.plant_id is not None and row.command_type in SHOWN


COMMAND_LOG = ReadModel(
    "command_log",
    _Row,
    events=events_of(RelayedCommand),
    evolve=_evolve,
    numbering={"number": ("plant_id",), "type_number": ("plant_id", "command_type")},
    is_numbered=_is_numbered,
)


async def command_log(
    connection: "AsyncConnection[Any]", plant_id: UUID, query: CommandLogQuery
) -> Page[CommandLogEntry]:
    if query.command_type is None:
        return await fetch_page(connection, CommandLogEntry, "command_log", query, plant_id=plant_id)
    group = {"plant_id": plant_id, "command_type": query.command_type}
    return await fetch_page(connection, CommandLogEntry, "command_log", query, number="type_number", **group)


async def command_of(connection: "AsyncConnection[Any]", plant_id: UUID, command_id: UUID) -> CommandLogEntry | None:
    """One of a plant's commands that the log shows."""
    async with connection.cursor(row_factory=class_row(CommandLogEntry)) as cursor:
        columns = ", ".join(CommandLogEntry.model_fields)
        await cursor.execute(
            f"SELECT {columns} FROM command_log WHERE id = %s AND plant_id = %s AND number IS NOT NULL",
            (command_id, plant_id),
        )
        return await cursor.fetchone()


def overdue_commands(connection: Connection[Any]) -> list[UUID]:
    """Open commands whose time is over."""
    rows = connection.execute(
        "SELECT id FROM command_log WHERE status IN ('ACCEPTED', 'RELAYED') AND expires_at <= now()"
        " ORDER BY expires_at LIMIT 1000"
    )
    return [row[0] for row in rows]


def unrelayed_commands(connection: Connection[Any]) -> list[UUID]:
    """Accepted commands that no gateway took for some seconds: each plant's oldest first, so that one plant's many keep
    no other waiting."""
    rows = connection.execute(
        "SELECT id FROM command_log WHERE status = 'ACCEPTED' AND expires_at > now()"
        " AND created_at < now() - interval '5 seconds'"
        " ORDER BY row_number() OVER (PARTITION BY plant_id ORDER BY created_at), created_at LIMIT 1000"
    )
    return [row[0] for row in rows]
