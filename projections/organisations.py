"""The organisations."""

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from application.publisher import Recorded
from domain.organisation import Organisation
from projections.page import ApiModel
from projections.read_model import ReadModel


class OrganisationRow(ApiModel):
    id: UUID
    slug: str
    name: str
    created_at: datetime


def _key_of(event: Any) -> UUID | None:
    return event.originator_id if isinstance(event, Organisation.Created) else None


def _evolve(row: OrganisationRow | None, recorded: Recorded) -> OrganisationRow | None:
    match recorded.event:
        case Organisation.Created(originator_id=organization_id, slug=slug, name=name, timestamp=at):
            return OrganisationRow(id=organization_id, slug=slug, name=name, created_at=at)
    return row


ORGANISATIONS = ReadModel("organisations", OrganisationRow, "id", _key_of, _evolve)


def organisations(connection: Connection[Any]) -> list[OrganisationRow]:
    with connection.cursor(row_factory=class_row(OrganisationRow)) as cursor:
        return cursor.execute("SELECT id, slug, name, created_at FROM organisations ORDER BY slug").fetchall()


def organisation_by_slug(connection: Connection[Any], slug: str) -> OrganisationRow | None:
    return next((row for row in organisations(connection) if row.slug == slug), None)


async def organisation_exists(connection: "AsyncConnection[Any]", organization_id: UUID) -> bool:
    cursor = await connection.execute("SELECT 1 FROM organisations WHERE id = %s", [organization_id])
    return await cursor.fetchone() is not None
