"""Samples of the plants come in by the batch: stored once each, rolled up by minute and by five, the last one kept."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import LiteralString, NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed

from projections import partitions
from projections.measurements import MAX_VALUE, RETENTION, Recorded, Staging, days, limits, number


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


TABLES = ("telemetry", "telemetry_1m", "telemetry_5m")

# What is rolled up and answered, in the order of the published row.
FIELDS: tuple[LiteralString, ...] = ("soc", "grid_power", "fve_power", "consumption", "invertor_power", "fve_reg")
COLUMNS: dict[LiteralString, LiteralString] = {
    "plant_id": "uuid",
    "time": "timestamptz",
    **dict.fromkeys(FIELDS, "float8"),
    "available_battery_energy": "float8",
    "battery_temperature": "float8",
    "operating_mode": "text",
    "data_quality": "text",
}
INCOMING = Staging("telemetry_incoming", COLUMNS)


def each(template: LiteralString, fields: Sequence[LiteralString] = FIELDS, joiner: LiteralString = ", ") -> Composed:
    """The template for every field, whose name is written as @."""
    return SQL(joiner).join([SQL(template.replace("@", field)) for field in fields])


SUMS, COUNTS = each("@_sum = stored.@_sum + excluded.@_sum"), each("@_count = stored.@_count + excluded.@_count")

# Each table in the order of its key, and only after the table before it: so no two batches wait for each other.
RECORD = SQL("""
WITH fresh AS (
  INSERT INTO telemetry ({columns})
  SELECT {columns} FROM telemetry_incoming ORDER BY plant_id, time, place
  ON CONFLICT DO NOTHING
  RETURNING plant_id, time, {fields}
), minutes AS (
  SELECT plant_id, date_trunc('minute', time) AS bucket, {sum}, {count}, {least}, {greatest}
  FROM fresh GROUP BY plant_id, bucket
), one AS (
  INSERT INTO telemetry_1m AS stored (plant_id, bucket, {sums}, {counts}, {mins}, {maxs})
  SELECT plant_id, bucket, {sums}, {counts}, {mins}, {maxs} FROM minutes ORDER BY plant_id, bucket
  ON CONFLICT (plant_id, bucket) DO UPDATE SET {add}, {narrow}, {widen}
  RETURNING 1
), five AS (
  INSERT INTO telemetry_5m AS stored (plant_id, bucket, {sums}, {counts})
  SELECT plant_id, date_bin('5 minutes', bucket, '1970-01-01Z') AS five, {sum_of_sums}, {sum_of_counts}
  FROM minutes
  -- Reading the count makes the statement before finish first, here and below.
  WHERE (SELECT count(*) FROM one) > 0 GROUP BY plant_id, five ORDER BY plant_id, five
  ON CONFLICT (plant_id, bucket) DO UPDATE SET {add}
  RETURNING 1
), last AS (
  INSERT INTO telemetry_latest AS stored (plant_id, time, {fields})
  SELECT DISTINCT ON (plant_id) plant_id, time, {fields}
  FROM fresh WHERE (SELECT count(*) FROM five) > 0 ORDER BY plant_id, time DESC
  ON CONFLICT (plant_id) DO UPDATE SET time = excluded.time, {set}
  WHERE excluded.time > stored.time
)
SELECT count(*) FROM fresh
""").format(
    columns=each("@", tuple(COLUMNS)),
    fields=each("@"),
    sum=each("coalesce(sum(@), 0) AS @_sum"),
    count=each("count(@) AS @_count"),
    least=each("min(@) AS @_min"),
    greatest=each("max(@) AS @_max"),
    sums=each("@_sum"),
    counts=each("@_count"),
    mins=each("@_min"),
    maxs=each("@_max"),
    sum_of_sums=each("sum(@_sum)"),
    sum_of_counts=each("sum(@_count)"),
    add=SQL(", ").join([SUMS, COUNTS]),
    # Both ignore nulls.
    narrow=each("@_min = least(stored.@_min, excluded.@_min)"),
    widen=each("@_max = greatest(stored.@_max, excluded.@_max)"),
    set=each("@ = excluded.@"),
)

VALUES = tuple(COLUMNS)[2:]
CONFLICTS = SQL("""
WITH differing AS (
  SELECT incoming.plant_id, incoming.time,
         to_jsonb(stored) - '{{plant_id,time,received_at}}'::text[] AS first_value,
         to_jsonb(incoming) - '{{plant_id,time,place}}'::text[] AS other_value
  FROM telemetry_incoming incoming
  JOIN telemetry stored ON stored.plant_id = incoming.plant_id AND stored.time = incoming.time
  WHERE stored.time BETWEEN %s AND %s AND ({stored}) IS DISTINCT FROM ({incoming})
), listed AS (
  INSERT INTO measurement_conflicts (plant_id, meter_id, time, first_value, other_value)
  SELECT DISTINCT plant_id, '', time, first_value, other_value FROM differing ORDER BY plant_id, time, other_value
  ON CONFLICT DO NOTHING
)
SELECT count(*) FROM differing
""").format(stored=each("stored.@", VALUES), incoming=each("incoming.@", VALUES))


def record_telemetry(
    connection: psycopg.Connection,
    samples: Sequence[Sample],
    *,
    now: datetime | None = None,
    retention: timedelta = RETENTION,
) -> Recorded:
    """Store a batch with its roll-up and last values; the caller's transaction, if there is one, decides.

    The first value of a (plant, time) stays, in the batch too. Thousands of samples at once are fastest, of few days:
    see `by_days`. A transaction that records meters as well does so after the telemetry, and each once: see RECORD.
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
