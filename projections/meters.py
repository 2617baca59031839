"""Meters of the plants: cumulative registers come in by the batch, energy per bucket goes out."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from projections import partitions
from projections.measurements import MAX_VALUE, RETENTION, Recorded, Staging, Window, days, limits, number


class MeterReading(NamedTuple):
    """What a meter's cumulative register showed at one moment, in kWh."""

    plant_id: UUID
    meter_id: str
    time: datetime
    energy_kwh: float


class MeterRow(TypedDict):
    """The energy (kWh) that a meter counted in a bucket, as it is answered; `time` is in UTC, `interval` ISO 8601."""

    plant_id: UUID
    meter_id: str
    time: datetime
    interval: str
    energy: float


MINUTE = timedelta(minutes=1)

INCOMING = Staging(
    "meter_incoming", {"plant_id": "uuid", "meter_id": "text", "time": "timestamptz", "energy_kwh": "float8"}
)

# DO UPDATE locks the row even though WHERE false keeps it as it is. From here to its commit this transaction alone
# writes these meters, and the statements after this one see all that was committed before.
LOCK = """
INSERT INTO meters (plant_id, meter_id)
SELECT DISTINCT plant_id, meter_id FROM meter_incoming ORDER BY plant_id, meter_id
ON CONFLICT (plant_id, meter_id) DO UPDATE SET meter_id = excluded.meter_id WHERE false
"""

RECORD = """
INSERT INTO meter_readings (plant_id, meter_id, time, energy_kwh)
SELECT plant_id, meter_id, time, energy_kwh FROM meter_incoming ORDER BY plant_id, meter_id, time, place
ON CONFLICT DO NOTHING
"""

# What each minute holds in itself, from the readings: adding to what is there would be wrong for a late one.
ROLL_UP = """
WITH touched AS (
  SELECT DISTINCT plant_id, meter_id, date_trunc('minute', time) AS minute FROM meter_incoming
), reading AS (
  SELECT plant_id, meter_id, minute, stored.time, stored.energy_kwh,
         lag(stored.energy_kwh) OVER (PARTITION BY plant_id, meter_id, minute ORDER BY stored.time) AS previous_kwh
  FROM touched JOIN meter_readings stored USING (plant_id, meter_id)
  WHERE stored.time >= minute AND stored.time < minute + interval '1 minute'
    AND stored.time >= %s AND stored.time < %s
)
INSERT INTO meter_1m (plant_id, meter_id, minute, first_kwh, last_kwh, counted_kwh, energy_kwh)
SELECT plant_id, meter_id, minute,
       (array_agg(energy_kwh ORDER BY time))[1], (array_agg(energy_kwh ORDER BY time DESC))[1],
       sum(meter_energy(previous_kwh, energy_kwh)), 0
FROM reading GROUP BY plant_id, meter_id, minute ORDER BY plant_id, meter_id, minute
ON CONFLICT (plant_id, meter_id, minute) DO UPDATE SET
  first_kwh = excluded.first_kwh, last_kwh = excluded.last_kwh, counted_kwh = excluded.counted_kwh
"""

# Then what was counted on the way to each minute, from the last reading before it: of the minutes above, and of the
# ones that follow them.
LEAD_IN = """
WITH touched AS (
  SELECT DISTINCT plant_id, meter_id, date_trunc('minute', time) AS minute FROM meter_incoming
), affected AS (
  SELECT plant_id, meter_id, minute FROM touched
  UNION
  SELECT plant_id, meter_id, next.minute FROM touched CROSS JOIN LATERAL (
    SELECT minute FROM meter_1m
    WHERE plant_id = touched.plant_id AND meter_id = touched.meter_id AND minute > touched.minute
    ORDER BY minute LIMIT 1) next
)
INSERT INTO meter_1m (plant_id, meter_id, minute, first_kwh, last_kwh, counted_kwh, energy_kwh)
SELECT plant_id, meter_id, minute, this.first_kwh, this.last_kwh, this.counted_kwh,
       this.counted_kwh + meter_energy(previous.last_kwh, this.first_kwh)
FROM affected CROSS JOIN LATERAL (
  SELECT first_kwh, last_kwh, counted_kwh FROM meter_1m
  WHERE plant_id = affected.plant_id AND meter_id = affected.meter_id AND minute = affected.minute) this
LEFT JOIN LATERAL (
  SELECT last_kwh FROM meter_1m
  WHERE plant_id = affected.plant_id AND meter_id = affected.meter_id AND minute < affected.minute
  ORDER BY minute DESC LIMIT 1) previous ON true
ORDER BY plant_id, meter_id, minute
ON CONFLICT (plant_id, meter_id, minute) DO UPDATE SET energy_kwh = excluded.energy_kwh
"""

CONFLICTS = """
WITH differing AS (
  SELECT plant_id, meter_id, time, stored.energy_kwh AS first_kwh, incoming.energy_kwh AS other_kwh
  FROM meter_incoming incoming JOIN meter_readings stored USING (plant_id, meter_id, time)
  WHERE stored.time BETWEEN %s AND %s AND stored.energy_kwh <> incoming.energy_kwh
), listed AS (
  INSERT INTO measurement_conflicts (plant_id, meter_id, time, first_value, other_value)
  SELECT DISTINCT plant_id, meter_id, time, to_jsonb(first_kwh), to_jsonb(other_kwh) AS other
  FROM differing ORDER BY plant_id, meter_id, time, other
  ON CONFLICT DO NOTHING
)
SELECT count(*) FROM differing
"""

# To 6 decimals: mWh. What a difference of registers has beyond is noise.
ENERGY = """
SELECT meter_id, time, energy
FROM (
  SELECT meter_id, date_bin(%(width)s, minute, %(epoch)s) AS time, round(sum(energy_kwh) * 1e6) / 1e6 AS energy
  FROM meter_1m
  WHERE plant_id = %(plant_id)s AND minute >= %(start)s AND minute < %(end)s
  GROUP BY meter_id, time) bucket
ORDER BY time, meter_id
"""


def record_meters(
    connection: psycopg.Connection,
    readings: Sequence[MeterReading],
    *,
    now: datetime | None = None,
    retention: timedelta = RETENTION,
) -> Recorded:
    """Store a batch with its roll-up; the caller's transaction, if there is one, decides.

    The first value of a (plant, meter, time) stays, in the batch too. Late readings change what was counted up to
    the reading that follows them.
    """
    earliest, latest = limits(now, retention)
    accepted = [each for each in readings if earliest <= each.time <= latest and _is_storable(each)]
    refused = len(readings) - len(accepted)
    if not accepted:
        return Recorded(refused=refused)
    times = [each.time for each in accepted]
    partitions.cover(connection, days(times), ("meter_readings", "meter_1m"))
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        INCOMING.fill(cursor, accepted)
        cursor.execute(LOCK, prepare=True)
        new = cursor.execute(RECORD, prepare=True).rowcount
        conflicts = 0
        # Some are planned anew each time, so that only the partitions of these times are opened.
        if new < len(accepted):
            conflicts = number(cursor.execute(CONFLICTS, (min(times), max(times)), prepare=False))
        if new:
            cursor.execute(ROLL_UP, (min(times) - MINUTE, max(times) + MINUTE), prepare=False)
            cursor.execute(LEAD_IN, prepare=True)
    return Recorded(new, len(accepted) - new - conflicts, conflicts, refused)


async def meters(connection: psycopg.AsyncConnection, plant_id: UUID, window: Window) -> list[MeterRow]:
    """The energy per bucket and meter, by time, then meter; buckets without a reading are left out."""
    interval = f"PT{window.bucket // MINUTE}M"
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(ENERGY, window.question(plant_id), prepare=True)
        return [
            # In UTC whatever the session's time zone.
            {
                "plant_id": plant_id,
                "meter_id": meter,
                "time": time.astimezone(UTC),
                "interval": interval,
                "energy": kwh,
            }
            for meter, time, kwh in await cursor.fetchall()
        ]


def _is_storable(reading: MeterReading) -> bool:
    # 200 characters are more than any meter's name has, and fit an index row.
    return 0 <= reading.energy_kwh <= MAX_VALUE and 1 <= len(reading.meter_id) <= 200 and "\0" not in reading.meter_id
