"""Telemetry as months of plants leave it, written by the server itself: interleaved, as plants send it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.sql import SQL, Composable, Composed, Identifier

from projections import partitions
from projections.samples import each
from tests.measurements.recomputed import EXTREMES, ROLLED_UP, STORED_EXTREMES, STORED_SUMS, SUMS

SAMPLES = SQL("""
INSERT INTO telemetry (plant_id, time, {fields})
SELECT plant_id, time, random() * 100, random() * 20 - 10, random() * 10, random() * 10, random() * 20 - 10, 100
FROM generate_series(%s, %s, interval '10 seconds') AS time, unnest(%s::uuid[]) AS plant_id
ORDER BY time, plant_id
""").format(fields=each("@"))
LATEST = SQL(
    "INSERT INTO telemetry_latest (plant_id, time, {fields})"
    " SELECT plant_id, time, {fields} FROM telemetry WHERE time = %(since)s"
).format(fields=each("@"))
ALL, STORED_ALL = (SQL("{}, {}").format(*both) for both in ((SUMS, EXTREMES), (STORED_SUMS, STORED_EXTREMES)))


def fill(connection: Connection[Any], plants: Sequence[UUID], start: datetime, days: int) -> None:
    """Every plant every 10 s of these days, into tables that are empty."""
    partitions.cover(connection, [(start + timedelta(days=day)).date() for day in range(days)])
    connection.execute("SET work_mem = '256MB'")
    for day in range(days):
        first = start + timedelta(days=day)
        connection.execute(SAMPLES, (first, first + timedelta(days=1, seconds=-10), list(plants)))
        table = Identifier(f"telemetry_{first:%Y%m%d}")
        connection.execute(_roll_up("telemetry_1m", "1 minute", table, ALL, STORED_ALL))
        connection.execute(_roll_up("telemetry_5m", "5 minutes", table, SUMS, STORED_SUMS))
    connection.execute(LATEST, {"since": start + timedelta(days=days, seconds=-10)})
    connection.execute("RESET work_mem")
    connection.execute("VACUUM ANALYZE")


def _roll_up(name: str, width: str, table: Identifier, values: Composable, columns: Composable) -> Composed:
    return SQL("INSERT INTO {name} (plant_id, bucket, {columns}) {rolled_up} ORDER BY 2, 1").format(
        name=Identifier(name), columns=columns, rolled_up=ROLLED_UP.format(table=table, width=width, values=values)
    )
