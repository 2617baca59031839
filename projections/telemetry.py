"""Telemetry of the plants: samples come in by the batch, means per bucket and the last values go out."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from projections import partitions
from projections.measurements import MAX_VALUE, RETENTION, Recorded, Staging, Window, days, limits, number


class Sample(NamedTuple):
    """What a plant measured at one moment: %, kW (+ import, + charge), kWh, °C; None is not known.

    A tuple, because thousands a second are made and COPY takes them as they are.
    """

    plant_id: UUID
    time: datetime
    soc: float | None = None
    grid_power: float | None = None
    fve_power: float | None = None
    consumption: float | None = None
    invertor_power: float | None = None
    fve_reg: float | None = None
    available_battery_energy: float | None = None
    battery_temperature: float | None = None
    operating_mode: str | None = None
    data_quality: str | None = None


class TelemetryRow(TypedDict):
    """A bucket's means, or the last values, as they are answered; `time` is in UTC.

    A dict, because orjson writes it at once: a pydantic model would cost more than its query.
    """

    plant_id: UUID
    time: datetime | None
    soc: float | None
    grid_power: float | None
    fve_power: float | None
    consumption: float | None
    invertor_power: float | None
    fve_reg: float | None


TABLES = ("telemetry", "telemetry_1m", "telemetry_5m")
FIVE_MINUTES = timedelta(minutes=5)

INCOMING = Staging(
    "telemetry_incoming",
    {
        "plant_id": "uuid",
        "time": "timestamptz",
        "soc": "float8",
        "grid_power": "float8",
        "fve_power": "float8",
        "consumption": "float8",
        "invertor_power": "float8",
        "fve_reg": "float8",
        "available_battery_energy": "float8",
        "battery_temperature": "float8",
        "operating_mode": "text",
        "data_quality": "text",
    },
)

ADD = SQL("""
    soc_sum = stored.soc_sum + excluded.soc_sum,
    grid_power_sum = stored.grid_power_sum + excluded.grid_power_sum,
    fve_power_sum = stored.fve_power_sum + excluded.fve_power_sum,
    consumption_sum = stored.consumption_sum + excluded.consumption_sum,
    invertor_power_sum = stored.invertor_power_sum + excluded.invertor_power_sum,
    fve_reg_sum = stored.fve_reg_sum + excluded.fve_reg_sum,
    soc_count = stored.soc_count + excluded.soc_count,
    grid_power_count = stored.grid_power_count + excluded.grid_power_count,
    fve_power_count = stored.fve_power_count + excluded.fve_power_count,
    consumption_count = stored.consumption_count + excluded.consumption_count,
    invertor_power_count = stored.invertor_power_count + excluded.invertor_power_count,
    fve_reg_count = stored.fve_reg_count + excluded.fve_reg_count
""")

# Each table in the order of its key, and only after the table before it: so no two batches wait for each other.
RECORD = SQL("""
WITH fresh AS (
  INSERT INTO telemetry (
    plant_id, time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg,
    available_battery_energy, battery_temperature, operating_mode, data_quality)
  SELECT
    plant_id, time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg,
    available_battery_energy, battery_temperature, operating_mode, data_quality
  FROM telemetry_incoming ORDER BY plant_id, time, place
  ON CONFLICT DO NOTHING
  RETURNING plant_id, time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg
), minutes AS (
  SELECT
    plant_id, date_trunc('minute', time) AS bucket,
    coalesce(sum(soc), 0) AS soc_sum, coalesce(sum(grid_power), 0) AS grid_power_sum,
    coalesce(sum(fve_power), 0) AS fve_power_sum, coalesce(sum(consumption), 0) AS consumption_sum,
    coalesce(sum(invertor_power), 0) AS invertor_power_sum, coalesce(sum(fve_reg), 0) AS fve_reg_sum,
    count(soc) AS soc_count, count(grid_power) AS grid_power_count, count(fve_power) AS fve_power_count,
    count(consumption) AS consumption_count, count(invertor_power) AS invertor_power_count,
    count(fve_reg) AS fve_reg_count
  FROM fresh GROUP BY plant_id, bucket
), one AS (
  INSERT INTO telemetry_1m AS stored SELECT * FROM minutes ORDER BY plant_id, bucket
  ON CONFLICT (plant_id, bucket) DO UPDATE SET {add}
  RETURNING 1
), five AS (
  INSERT INTO telemetry_5m AS stored
  SELECT
    plant_id, date_bin('5 minutes', bucket, '1970-01-01Z') AS five,
    sum(soc_sum), sum(grid_power_sum), sum(fve_power_sum), sum(consumption_sum), sum(invertor_power_sum),
    sum(fve_reg_sum), sum(soc_count), sum(grid_power_count), sum(fve_power_count), sum(consumption_count),
    sum(invertor_power_count), sum(fve_reg_count)
  FROM minutes
  -- Reading the count makes the statement before finish first, here and below.
  WHERE (SELECT count(*) FROM one) > 0 GROUP BY plant_id, five ORDER BY plant_id, five
  ON CONFLICT (plant_id, bucket) DO UPDATE SET {add}
  RETURNING 1
), last AS (
  INSERT INTO telemetry_latest AS stored (
    plant_id, time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg)
  SELECT DISTINCT ON (plant_id)
    plant_id, time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg
  FROM fresh WHERE (SELECT count(*) FROM five) > 0 ORDER BY plant_id, time DESC
  ON CONFLICT (plant_id) DO UPDATE SET
    time = excluded.time, soc = excluded.soc, grid_power = excluded.grid_power, fve_power = excluded.fve_power,
    consumption = excluded.consumption, invertor_power = excluded.invertor_power, fve_reg = excluded.fve_reg
  WHERE excluded.time > stored.time
)
SELECT count(*) FROM fresh
""").format(add=ADD)

CONFLICTS = """
WITH differing AS (
  SELECT incoming.plant_id, incoming.time,
         to_jsonb(stored) - '{plant_id,time,received_at}'::text[] AS first_value,
         to_jsonb(incoming) - '{plant_id,time,place}'::text[] AS other_value
  FROM telemetry_incoming incoming
  JOIN telemetry stored ON stored.plant_id = incoming.plant_id AND stored.time = incoming.time
  WHERE stored.time BETWEEN %s AND %s AND (
    stored.soc, stored.grid_power, stored.fve_power, stored.consumption, stored.invertor_power, stored.fve_reg,
    stored.available_battery_energy, stored.battery_temperature, stored.operating_mode, stored.data_quality
  ) IS DISTINCT FROM (
    incoming.soc, incoming.grid_power, incoming.fve_power, incoming.consumption, incoming.invertor_power,
    incoming.fve_reg, incoming.available_battery_energy, incoming.battery_temperature, incoming.operating_mode,
    incoming.data_quality)
), listed AS (
  INSERT INTO measurement_conflicts (plant_id, meter_id, time, first_value, other_value)
  SELECT DISTINCT plant_id, '', time, first_value, other_value FROM differing ORDER BY plant_id, time, other_value
  ON CONFLICT DO NOTHING
)
SELECT count(*) FROM differing
"""

MEANS = SQL("""
SELECT time AT TIME ZONE 'UTC', soc, grid_power, fve_power, consumption, invertor_power, fve_reg
FROM (
  SELECT date_bin(%(width)s, bucket, %(epoch)s) AS time,
         sum(soc_sum) / nullif(sum(soc_count), 0) AS soc,
         sum(grid_power_sum) / nullif(sum(grid_power_count), 0) AS grid_power,
         sum(fve_power_sum) / nullif(sum(fve_power_count), 0) AS fve_power,
         sum(consumption_sum) / nullif(sum(consumption_count), 0) AS consumption,
         sum(invertor_power_sum) / nullif(sum(invertor_power_count), 0) AS invertor_power,
         sum(fve_reg_sum) / nullif(sum(fve_reg_count), 0) AS fve_reg
  FROM {roll_up}
  WHERE plant_id = %(plant_id)s AND bucket >= %(start)s AND bucket < %(end)s
  GROUP BY time) bucket
ORDER BY time
""")
MEANS_OF_MINUTES = MEANS.format(roll_up=Identifier("telemetry_1m"))
# Five times fewer rows to read, for the default width and most others that people choose.
MEANS_OF_FIVES = MEANS.format(roll_up=Identifier("telemetry_5m"))

LATEST = """
SELECT time AT TIME ZONE 'UTC', soc, grid_power, fve_power, consumption, invertor_power, fve_reg
FROM telemetry_latest WHERE plant_id = %s
"""


def latest_times(connection: psycopg.Connection, plant_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """When each of these plants was measured last."""
    rows = connection.execute("SELECT plant_id, time FROM telemetry_latest WHERE plant_id = ANY(%s)", [list(plant_ids)])
    return dict(rows.fetchall())


def record_telemetry(
    connection: psycopg.Connection,
    samples: Sequence[Sample],
    *,
    now: datetime | None = None,
    retention: timedelta = RETENTION,
) -> Recorded:
    """Store a batch with its roll-up and last values; the caller's transaction, if there is one, decides.

    The first value of a (plant, time) stays, in the batch too. Hundreds to thousands of samples at once are fastest.
    A transaction that records meters as well does so after the telemetry, and each once: see RECORD.
    """
    accepted = _acceptable(samples, *limits(now, retention))
    refused = len(samples) - len(accepted)
    if not accepted:
        return Recorded(refused=refused)
    times = [sample.time for sample in accepted]
    partitions.cover(connection, days(times), TABLES)
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        INCOMING.fill(cursor, accepted)
        new = number(cursor.execute(RECORD, prepare=True))
        conflicts = 0
        if new < len(accepted):
            # Planned anew each time, so that only the partitions of these times are opened.
            conflicts = number(cursor.execute(CONFLICTS, (min(times), max(times)), prepare=False))
    return Recorded(new, len(accepted) - new - conflicts, conflicts, refused)


async def telemetry(connection: psycopg.AsyncConnection, plant_id: UUID, window: Window) -> list[TelemetryRow]:
    """The means per bucket, ascending; buckets without a sample are left out, and so are nulls from a mean."""
    statement = MEANS_OF_MINUTES if window.bucket % FIVE_MINUTES else MEANS_OF_FIVES
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(statement, window.question(plant_id), prepare=True)
        return [_row(plant_id, time, means) for time, *means in await cursor.fetchall()]


async def latest(connection: psycopg.AsyncConnection, plant_id: UUID) -> TelemetryRow:
    """The values of the plant's latest sample; all null when it has none."""
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(LATEST, (plant_id,))
        row = await cursor.fetchone()
    return _row(plant_id, row[0], row[1:]) if row else _row(plant_id, None, (None,) * 6)


async def last_telemetry_at(connection: psycopg.AsyncConnection, plant_ids: Iterable[UUID]) -> dict[UUID, datetime]:
    """When each of these plants last measured; plants without telemetry are left out."""
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(
            "SELECT plant_id, time AT TIME ZONE 'UTC' FROM telemetry_latest WHERE plant_id = ANY(%s)",
            (list(plant_ids),),
        )
        return {plant_id: time.replace(tzinfo=UTC) for plant_id, time in await cursor.fetchall()}


def _acceptable(samples: Sequence[Sample], earliest: datetime, latest: datetime) -> Sequence[Sample]:
    if not samples:
        return samples
    columns = list(zip(*samples, strict=True))
    words = {*columns[10], *columns[11]} - {None}
    # One look at all: the sum is NaN or too large if any value is. Only a batch that fails is looked through.
    if (
        earliest <= min(columns[1])
        and max(columns[1]) <= latest
        and sum(map(abs, filter(None, chain(*columns[2:10])))) <= MAX_VALUE
        and not any("\0" in word for word in words)
    ):
        return samples
    return [sample for sample in samples if earliest <= sample.time <= latest and _is_storable(sample)]


def _is_storable(sample: Sample) -> bool:
    numbers = [number for number in sample[2:10] if number is not None]
    return all(abs(number) <= MAX_VALUE for number in numbers) and not any("\0" in word for word in sample[10:] if word)


def _row(plant_id: UUID, time: datetime | None, values: Sequence[float | None]) -> TelemetryRow:
    soc, grid_power, fve_power, consumption, invertor_power, fve_reg = values
    return {
        "plant_id": plant_id,
        # In UTC whatever the session's time zone.
        "time": time.replace(tzinfo=UTC) if time else None,
        "soc": soc,
        "grid_power": grid_power,
        "fve_power": fve_power,
        "consumption": consumption,
        "invertor_power": invertor_power,
        "fve_reg": fve_reg,
    }
