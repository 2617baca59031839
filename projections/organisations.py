"""The organisations."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from domain.organisation import Organisation
from projections.page import ApiModel
from projections.read_model import ReadModel


class OrganisationEntry(ApiModel):
    """`name` is veiled. `closed_at` is when its erasure began, `erased_at` when that was done."""

    id: UUID
    slug: str
    name: str
    created_at: datetime
    closed_at: datetime | None
    erased_at: datetime | None


class _Row(Struct):
    id: UUID
    slug: str
    name: str
    created_at: datetime
    closed_at: datetime | None = None
    erased_at: datetime | None = None


def _evolve(row: _Row | None, event: Any, _: int) -> _Row | None:
    match event:
        case Organisation.Created():
            return _Row(event.originator_id, event.slug, event.name, event.timestamp)
        case Organisation.Closed(timestamp=at) if row is not None:
            row.closed_at = at
        case Organisation.Erased(timestamp=at) if row is not None:
            row.erased_at = at
    return row


ORGANISATIONS = ReadModel(
    "organisations", _Row, events=(Organisation.Created, Organisation.Closed, Organisation.Erased), evolve=_evolve
)


def organisations(connection: Connection[Any]) -> list[OrganisationEntry]:
    with connection.cursor(row_factory=class_row(OrganisationEntry)) as cursor:
        return cursor.execute(
            "SELECT id, slug, name, created_at, closed_at, erased_at FROM organisations ORDER BY slug"
        ).fetchall()


def organisation_by_slug(connection: Connection[Any], slug: str) -> OrganisationEntry | None:
    return next((row for row in organisations(connection) if row.slug == slug), None)
