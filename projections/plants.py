"""The plants of each organisation."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection

from domain.catalogue import events_of
from domain.plant import Plant
from projections.page import ApiModel, Page, PageQuery, fetch_page
from projections.read_model import ReadModel
from projections.telemetry import last_telemetry_at


class PlantEntry(ApiModel):
    """`lastSeenAt` is the last plant list that had it, `lastTelemetryAt` the time of its newest sample; both UTC."""

    id: UUID
    external_plant_id: str
    name: str
    linked: bool
    last_seen_at: datetime | None
    last_telemetry_at: datetime | None = None


class _Row(Struct):
    id: UUID
    organization_id: UUID
    external_plant_id: str
    name: str
    created_at: datetime
    number: int = 0
    linked: bool = False
    misses: int = 0
    last_seen_at: datetime | None = None


def _evolve(row: _Row | None, event: Any, _: int) -> _Row | None:
    if isinstance(event, Plant.Created):
        return _Row(
            event.originator_id, event.organization_id, event.external_plant_id, event.name, created_at=event.timestamp
        )
    if row is None:
        return None
    match event:
        case Plant.Linked():
            row.linked, row.misses, row.last_seen_at = True, 0, None
        case Plant.Described(description=description):
            row.name = description.name
        case Plant.Missed(last_seen_at=seen):
            row.misses += 1
            row.last_seen_at = row.last_seen_at or seen
        case Plant.Unlinked():
            row.linked = False
        case Plant.SeenAgain():
            row.misses, row.last_seen_at = 0, None
    return row


PLANTS = ReadModel("plants", _Row, events=events_of(Plant), evolve=_evolve, numbering={"number": ("organization_id",)})


class ListedPlant(ApiModel):
    """What the read model knows of a plant; `misses` are the last lists in a row that came without it."""

    id: UUID
    external_plant_id: str
    name: str
    linked: bool
    misses: int
    last_seen_at: datetime | None


async def plants(connection: "AsyncConnection[Any]", organization_id: UUID, query: PageQuery) -> Page[PlantEntry]:
    page = await fetch_page(connection, ListedPlant, "plants", query, organization_id=organization_id)
    telemetry_at = await last_telemetry_at(connection, [row.id for row in page.data])
    cursor = await connection.execute(
        "SELECT last_success_at FROM sync_turns WHERE organization_id = %s", [organization_id]
    )
    last_sync = await cursor.fetchone()
    entries = [
        PlantEntry(
            id=row.id,
            external_plant_id=row.external_plant_id,
            name=row.name,
            linked=row.linked,
            last_seen_at=row.last_seen_at if row.misses or not row.linked else (last_sync[0] if last_sync else None),
            last_telemetry_at=telemetry_at.get(row.id),
        )
        for row in page.data
    ]
    return Page(data=entries, meta=page.meta)


def unveiled(page: Page[PlantEntry], unveil: Callable[[str], str]) -> Page[PlantEntry]:
    """As it is answered: until then the names are veiled."""
    for plant in page.data:
        plant.name = unveil(plant.name)
    return page


def linked_plants(connection: Connection[Any], organization_id: UUID) -> list[UUID]:
    rows = connection.execute(
        "SELECT id FROM plants WHERE organization_id = %s AND linked ORDER BY number", [organization_id]
    )
    return [row[0] for row in rows]


def plant_sites(connection: Connection[Any], organization_ids: Sequence[UUID]) -> list[tuple[UUID, UUID, str]]:
    """(organisation, plant id, external plant id) of each plant of these: who may send measurements as whom."""
    return connection.execute(
        "SELECT organization_id, id, external_plant_id FROM plants WHERE organization_id = ANY(%s)",
        [list(organization_ids)],
    ).fetchall()


def plant_counts(connection: Connection[Any]) -> dict[UUID, tuple[str, int]]:
    """Queue prefix and number of plants by organisation, but for closed ones. `plant_sites` of one differ only if its
    number does: no plant is ever removed or renamed."""
    rows = connection.execute(
        "SELECT organization_id, c.queue_prefix, count(p.id) FROM trading_configs c"
        " LEFT JOIN plants p USING (organization_id)"
        " WHERE NOT EXISTS (SELECT FROM organisations o WHERE o.id = organization_id AND closed_at IS NOT NULL)"
        " GROUP BY organization_id, c.queue_prefix"
    )
    return {organization_id: (prefix, count) for organization_id, prefix, count in rows}


def plants_by_name(connection: Connection[Any], organization_id: UUID) -> dict[str, UUID]:
    """The organisation's plants by what people call them: their ids at the ESM, and after those their own."""
    rows = connection.execute(
        "SELECT id, external_plant_id FROM plants WHERE organization_id = %s ORDER BY number", [organization_id]
    ).fetchall()
    return {external: plant_id for plant_id, external in rows} | {str(plant_id): plant_id for plant_id, _ in rows}
