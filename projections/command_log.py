"""The command log: the partner's commands to each plant and how far each has come."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection, Connection
from pydantic import Field

from application.publisher import Recorded
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


class CommandLogRow(CommandLogEntry):
    command_type: str  # type: ignore[assignment]  # schedules and config requests are kept, but not shown
    plant_id: UUID | None
    number: int | None
    type_number: int | None
    expires_at: datetime | None


class CommandLogQuery(PageQuery):
    command_type: CommandType | None = Field(default=None, alias="commandType", description="Filter by command type")


def _key_of(event: Any) -> UUID | None:
    return event.originator_id if type(event).__qualname__.startswith("RelayedCommand.") else None


def _evolve(row: CommandLogRow | None, recorded: Recorded) -> CommandLogRow | None:
    event = recorded.event
    if isinstance(event, RelayedCommand.Created):
        return _received(event)
    if row is None:
        return None
    match event:
        case RelayedCommand.Rejected(reason=reason, silent=silent):
            row.status, row.rejection_reason = "REJECTED", reason
            row.ack_status = None if silent else "NACK"
        case RelayedCommand.Accepted(expires_at=expires_at):
            row.status, row.ack_status, row.expires_at = "ACCEPTED", "ACK", expires_at
        case RelayedCommand.Relayed():
            row.status = "RELAYED"
        case RelayedCommand.Executed(executed_at=executed_at):
            row.status, row.executed_at = "EXECUTED", executed_at
        case RelayedCommand.Failed():
            row.status = "FAILED"
        case RelayedCommand.Expired():
            row.status = "EXPIRED"
    return row


def _received(event: RelayedCommand.Created) -> CommandLogRow:
    return CommandLogRow(
        id=event.originator_id,
        organization_id=event.organization_id,
        plant_id=event.plant_id,
        number=None,
        type_number=None,
        command_type=event.command_type,
        message_id=event.message_id,
        correlation_id=event.correlation_id,
        routing_key=event.routing_key,
        site_id=event.site_id,
        payload=event.payload,
        status="RECEIVED",
        ack_status=None,
        rejection_reason=None,
        executed_at=None,
        expires_at=None,
        created_at=event.timestamp,
    )


COMMAND_LOG = ReadModel(
    "command_log",
    CommandLogRow,
    "id",
    _key_of,
    _evolve,
    numbering={"number": ("plant_id",), "type_number": ("plant_id", "command_type")},
    is_numbered=lambda row: row.plant_id is not None and row.command_type in SHOWN,
)


async def command_log(
    connection: "AsyncConnection[Any]", plant_id: UUID, query: CommandLogQuery
) -> Page[CommandLogEntry]:
    if query.command_type is None:
        return await fetch_page(connection, CommandLogEntry, "command_log", query, plant_id=plant_id)
    group = {"plant_id": plant_id, "command_type": query.command_type}
    return await fetch_page(connection, CommandLogEntry, "command_log", query, number="type_number", **group)


def overdue_commands(connection: Connection[Any]) -> list[UUID]:
    """Open commands whose time is over."""
    rows = connection.execute(
        "SELECT id FROM command_log WHERE status IN ('ACCEPTED', 'RELAYED') AND expires_at <= now()"
        " ORDER BY expires_at LIMIT 1000"
    )
    return [row[0] for row in rows]


def unrelayed_commands(connection: Connection[Any]) -> list[UUID]:
    """Accepted commands that no gateway took for some seconds."""
    rows = connection.execute(
        "SELECT id FROM command_log WHERE status = 'ACCEPTED' AND expires_at > now()"
        " AND created_at < now() - interval '5 seconds' ORDER BY created_at LIMIT 1000"
    )
    return [row[0] for row in rows]
