"""Telemetry of the plants as it is asked for: means and extremes per bucket from the roll-ups, and the last values."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from projections.measurements import Window
from projections.samples import FIELDS, each


class TelemetryRow(TypedDict):
    """A bucket's means, or the last values, as they are answered; `time` is in UTC.

    A dict, because it is written as JSON at once: a pydantic model would cost more than its query.
    """

    plant_id: UUID
    time: datetime | None
    soc: float | None
    grid_power: float | None
    fve_power: float | None
    consumption: float | None
    invertor_power: float | None
    fve_reg: float | None


class Extremes(TypedDict):
    """The least and the greatest sample of a bucket by field: %, kW; None where no sample has it. `time` is in UTC."""

    time: datetime
    least: dict[str, float | None]
    greatest: dict[str, float | None]


ASKED = SQL("plant_id = %(plant_id)s AND bucket >= %(start)s AND bucket < %(end)s")

# To 6 decimals: mW. What a sum of floats has beyond is noise.
OWN_WIDTH = SQL("""
SELECT bucket, {means} FROM {roll_up} WHERE {asked} ORDER BY bucket
""")
WIDER = SQL("""
SELECT time, {fields}
FROM (SELECT date_bin(%(width)s, bucket, %(epoch)s) AS time, {means} FROM {roll_up} WHERE {asked} GROUP BY time) bucket
ORDER BY time
""")
EXTREMES = SQL("""
SELECT time, {fields}
FROM (SELECT date_bin(%(width)s, bucket, %(epoch)s) AS time, {least}, {greatest}
      FROM telemetry_1m WHERE {asked} GROUP BY time) bucket
ORDER BY time
""").format(
    fields=each("@_min, @_max"),
    least=each("min(@_min) AS @_min"),
    greatest=each("max(@_max) AS @_max"),
    asked=ASKED,
)
LATEST = SQL("SELECT time, {fields} FROM telemetry_latest WHERE plant_id = %s").format(fields=each("@")).as_bytes()
LATEST_TIMES = "SELECT plant_id, time FROM telemetry_latest WHERE plant_id = ANY(%s)"


def means(bucket: timedelta) -> Composed:
    """The statement for this width: from the roll-up of fives where it can be, which has five times fewer rows."""
    name, width = ("telemetry_1m", 1) if bucket % timedelta(minutes=5) else ("telemetry_5m", 5)
    roll_up = Identifier(name)
    if bucket == timedelta(minutes=width):
        mean = each("round(@_sum / nullif(@_count, 0) * 1e6) / 1e6")
        return OWN_WIDTH.format(means=mean, roll_up=roll_up, asked=ASKED)
    mean = each("round(sum(@_sum) / nullif(sum(@_count), 0) * 1e6) / 1e6 AS @")
    return WIDER.format(fields=each("@"), means=mean, roll_up=roll_up, asked=ASKED)


MEANS = {timedelta(minutes=n): means(timedelta(minutes=n)).as_bytes() for n in range(1, 61)}


async def telemetry(connection: psycopg.AsyncConnection, plant_id: UUID, window: Window) -> list[TelemetryRow]:
    """The means of each bucket that has samples, nulls left out of account, ascending."""
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(MEANS[window.bucket], window.question(plant_id), prepare=True)
        return _rows(plant_id, await cursor.fetchall())


async def extremes(connection: psycopg.AsyncConnection, plant_id: UUID, window: Window) -> list[Extremes]:
    """The same buckets with their least and greatest samples, for charts that must not hide a peak."""
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(EXTREMES, window.question(plant_id), prepare=True)
        return [
            {
                "time": time.astimezone(UTC),
                "least": dict(zip(FIELDS, values[::2], strict=True)),
                "greatest": dict(zip(FIELDS, values[1::2], strict=True)),
            }
            for time, *values in await cursor.fetchall()
        ]


async def latest(connection: psycopg.AsyncConnection, plant_id: UUID) -> TelemetryRow:
    """The values of the plant's latest sample; all null when it has none."""
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(LATEST, (plant_id,), prepare=True)
        row = await cursor.fetchone()
    return _rows(plant_id, [row or (None,) * 7])[0]


async def last_telemetry_at(connection: psycopg.AsyncConnection, plant_ids: Iterable[UUID]) -> dict[UUID, datetime]:
    """When each of these plants last measured; plants without telemetry are left out."""
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(LATEST_TIMES, (list(plant_ids),))
        return {plant_id: time.astimezone(UTC) for plant_id, time in await cursor.fetchall()}


def latest_times(connection: psycopg.Connection, plant_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """The same, for who has no event loop."""
    rows = connection.execute(LATEST_TIMES, (list(plant_ids),)).fetchall()
    return {plant_id: time.astimezone(UTC) for plant_id, time in rows}


def _rows(plant_id: UUID, found: Iterable[Sequence[Any]]) -> list[TelemetryRow]:
    return [
        {
            "plant_id": plant_id,
            # In UTC whatever the session's time zone. That of queries is UTC, and asking costs less than converting.
            "time": time if time is None or time.tzinfo is UTC else time.astimezone(UTC),
            "soc": soc,
            "grid_power": grid_power,
            "fve_power": fve_power,
            "consumption": consumption,
            "invertor_power": invertor_power,
            "fve_reg": fve_reg,
        }
        for time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg in found
    ]
