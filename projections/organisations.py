"""The organisations."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from domain.organisation import Organisation
from projections.page import ApiModel
from projections.read_model import ReadModel


class OrganisationEntry(ApiModel):
    id: UUID
    slug: str
    name: str
    created_at: datetime


@dataclass(slots=True)
class _Row:
    id: UUID
    slug: str
    name: str
    created_at: datetime


def _evolve(_: _Row | None, event: Any, __: int) -> _Row:
    return _Row(event.originator_id, event.slug, event.name, event.timestamp)


ORGANISATIONS = ReadModel("organisations", _Row, events=(Organisation.Created,), evolve=_evolve)


def organisations(connection: Connection[Any]) -> list[OrganisationEntry]:
    with connection.cursor(row_factory=class_row(OrganisationEntry)) as cursor:
        return cursor.execute("SELECT id, slug, name, created_at FROM organisations ORDER BY slug").fetchall()


def organisation_by_slug(connection: Connection[Any], slug: str) -> OrganisationEntry | None:
    return next((row for row in organisations(connection) if row.slug == slug), None)
