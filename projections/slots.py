"""The slots' rows: how far each has come, what stopped it, and the code that its read model was filled by."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import class_row

from domain.catalogue import UNKNOWN
from projections.read_model import ReadModel

Connect = Callable[[], "Connection[Any]"]

CHANGED = "changed: run `wattledger projections rebuild {}`"


@dataclass(frozen=True)
class SlotStatus:
    """How a slot stands: `lag` in events, `lag_s` the age of the oldest of them; `parked_at` is the event that it could
    not apply."""

    name: str
    position: int
    lag: int
    lag_s: float
    parked_at: int | None
    error: str | None


@dataclass(frozen=True)
class Filled:
    """What a read model was filled by: the version of its code, and its table's columns as that code saw them."""

    version: int
    columns: str | None


def slot_statuses(connection: "Connection[Any]") -> list[SlotStatus]:
    with connection.cursor(row_factory=class_row(SlotStatus)) as cursor:
        return cursor.execute(
            "SELECT name, slots.position, greatest(coalesce((SELECT max(position) FROM events), 0) - slots.position, 0)"
            " AS lag, coalesce(round(extract(epoch FROM clock_timestamp() - recorded_at), 1), 0)::float8 AS lag_s,"
            " parked_at, error FROM slots LEFT JOIN events next ON next.position = slots.position + 1 ORDER BY name"
        ).fetchall()


def resume(connection: "Connection[Any]", name: str) -> bool:
    """Lets a parked slot try its bad event again; False when it is not parked."""
    cursor = connection.execute(
        "UPDATE slots SET parked_at = NULL, error = NULL WHERE name = %s AND parked_at IS NOT NULL", [name]
    )
    with suppress(psycopg.Error):
        connection.execute("NOTIFY events")
    return cursor.rowcount == 1


def resume_known(connection: "Connection[Any]", names: Sequence[str], topics: Sequence[str]) -> list[str]:
    """The slots that older code parked at an event of a kind that it did not know, and we do."""
    rows = connection.execute(
        "UPDATE slots SET parked_at = NULL, error = NULL FROM events WHERE events.position = parked_at"
        " AND name = ANY(%s) AND topic = ANY(%s) AND error = topic || %s RETURNING name",
        (list(names), list(topics), UNKNOWN),
    )
    return [name for (name,) in rows.fetchall()]


def enter(connection: "Connection[Any]", names: Sequence[str], filled: dict[str, Filled]) -> None:
    """New slots begin at the log's start. One that was parked as changed goes on when its code fits again."""
    connection.execute("INSERT INTO slots (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", [list(names)])
    for name, code in filled.items():
        parameters = {"name": name, "version": code.version, "columns": code.columns, "changed": CHANGED.format(name)}
        connection.execute(
            "UPDATE slots SET columns = %(columns)s, version = CASE position WHEN 0 THEN %(version)s ELSE version END"
            " WHERE name = %(name)s AND (columns IS NULL OR position = 0)",
            parameters,
        )
        connection.execute(
            "UPDATE slots SET parked_at = NULL, error = NULL WHERE name = %(name)s AND error = %(changed)s"
            " AND version = %(version)s AND columns = %(columns)s",
            parameters,
        )


def filled_by(connection: "Connection[Any]", model: ReadModel[Any]) -> Filled:
    """What this code and the table that the search path names would leave in the model's slot."""
    row = connection.execute(
        "SELECT string_agg(c.name || ' ' || coalesce(format_type(a.atttypid, a.atttypmod), 'is missing'), ', '"
        " ORDER BY c.place) FROM unnest(%s::text[]) WITH ORDINALITY AS c (name, place) LEFT JOIN pg_attribute a"
        " ON a.attname = c.name AND a.attrelid = to_regclass(quote_ident(%s)) AND NOT a.attisdropped",
        (model.columns, model.name),
    ).fetchone()
    assert row is not None
    return Filled(model.version, row[0])
