"""Meters: every bucket has the energy that the registers counted in it, resets and late readings included."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from projections.measurements import EPOCH, Recorded, Window
from projections.meters import MeterReading, MeterRow, meters, record_meters
from tests.measurements.conftest import NOW, START, Ask

SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# Any register in any order: what falls is a reset. Some moments share a minute, some lie far apart.
moments = st.one_of(st.integers(0, 60).map(lambda n: 17 * n), st.integers(0, 20).map(lambda n: 600 * n))
readings = st.tuples(
    st.sampled_from(["main", "solar", "wallbox"]),
    moments.map(lambda seconds: START + timedelta(seconds=seconds)),
    st.integers(0, 40).map(lambda n: n / 4),
)
batches = st.lists(st.lists(readings, max_size=12), min_size=1, max_size=5)


@given(batches=batches, minutes=st.sampled_from([1, 3, 5, 7, 15, 60]))
@SHARED
def test_buckets_have_what_the_registers_counted(
    connection: psycopg.Connection, ask: Ask, batches: list[list[tuple[str, datetime, float]]], minutes: int
) -> None:
    plant_id = uuid4()
    first: dict[tuple[str, datetime], float] = {}
    for batch in batches:
        expected = {"new": 0, "repeated": 0, "conflicts": 0}
        for meter, time, kwh in batch:
            new = (meter, time) not in first
            kept = first.setdefault((meter, time), kwh)
            expected["new" if new else "repeated" if kept == kwh else "conflicts"] += 1
        sent = [MeterReading(plant_id, *each) for each in batch]
        assert record_meters(connection, sent, now=NOW) == Recorded(**expected)
    window = Window.of(START, START + timedelta(hours=4), minutes)
    assert ask(meters, plant_id, window) == counted(plant_id, first, window.bucket, f"PT{minutes}M")


@given(batches=batches, cut=st.integers(1, 239))
@SHARED
def test_the_parts_of_a_range_make_the_whole(
    connection: psycopg.Connection, ask: Ask, batches: list[list[tuple[str, datetime, float]]], cut: int
) -> None:
    plant_id = uuid4()
    for batch in batches:
        record_meters(connection, [MeterReading(plant_id, *each) for each in batch], now=NOW)
    middle, end = START + timedelta(minutes=cut), START + timedelta(hours=4)
    before, after = (ask(meters, plant_id, Window.of(*edges, 1)) for edges in ((START, middle), (middle, end)))
    whole = ask(meters, plant_id, Window.of(START, end, 60))
    assert sum(each["energy"] for each in before + after) == sum(each["energy"] for each in whole)


def test_a_late_reading_takes_its_share_from_its_successor(connection: psycopg.Connection, ask: Ask) -> None:
    plant_id = uuid4()
    days = [START - timedelta(days=40), START]
    readings = [MeterReading(plant_id, "main", time, kwh) for time, kwh in zip(days, (100.0, 180.0), strict=True)]
    record_meters(connection, readings, now=NOW)
    record_meters(connection, [MeterReading(plant_id, "main", START - timedelta(days=3), 150.0)], now=NOW)
    rows = [row for day in (days[0], START - timedelta(days=3), START) for row in ask(meters, plant_id, day_of(day))]
    assert [row["energy"] for row in rows] == [0.0, 50.0, 30.0]


def test_a_reset_starts_from_zero(connection: psycopg.Connection, ask: Ask) -> None:
    plant_id = uuid4()
    registers = (990.0, 1000.0, 4.0, 9.0)
    record_meters(
        connection,
        [MeterReading(plant_id, "main", START + timedelta(minutes=n), kwh) for n, kwh in enumerate(registers)],
        now=NOW,
    )
    assert [row["energy"] for row in ask(meters, plant_id, Window.of(START, NOW, 60))] == [19.0]


def test_a_conflict_is_listed_once_with_both_values(connection: psycopg.Connection) -> None:
    first = MeterReading(uuid4(), "main", START, 1.0)
    other = first._replace(energy_kwh=2.0)
    assert record_meters(connection, [first, other], now=NOW) == Recorded(new=1, conflicts=1)
    assert record_meters(connection, [other, first], now=NOW) == Recorded(repeated=1, conflicts=1)
    listed = connection.execute("SELECT meter_id, time, first_value, other_value FROM measurement_conflicts").fetchall()
    assert listed == [("main", START, 1.0, 2.0)]


@pytest.mark.parametrize(
    "reading",
    [
        MeterReading(UUID(int=1), "main", NOW + timedelta(minutes=6), 1.0),
        MeterReading(UUID(int=1), "main", NOW - timedelta(days=1826), 1.0),
        MeterReading(UUID(int=1), "main", START, float("nan")),
        MeterReading(UUID(int=1), "main", START, -1.0),
        MeterReading(UUID(int=1), "", START, 1.0),
        MeterReading(UUID(int=1), "ma\0in", START, 1.0),
    ],
)
def test_what_cannot_be_stored_does_not_hold_up_the_rest(connection: psycopg.Connection, reading: MeterReading) -> None:
    good = MeterReading(UUID(int=1), "good", START, 1)
    assert record_meters(connection, [reading, good], now=NOW) == Recorded(new=1, refused=1)
    assert record_meters(connection, [reading], now=NOW) == Recorded(refused=1)


def test_a_row_has_the_published_fields() -> None:
    fields = ["plant_id", "meter_id", "time", "interval", "energy"]
    assert TypeAdapter(MeterRow).json_schema()["required"] == fields


def day_of(time: datetime) -> Window:
    return Window.of(time - timedelta(hours=1), time + timedelta(hours=1), 60)


def counted(
    plant_id: UUID, first: dict[tuple[str, datetime], float], bucket: timedelta, interval: str
) -> list[MeterRow]:
    """The same from the readings, without the database."""
    energies: dict[tuple[datetime, str], float] = {}
    previous: dict[str, float] = {}
    for (meter, time), kwh in sorted(first.items()):
        before = previous.get(meter, kwh)
        key = (time - (time - EPOCH) % bucket, meter)
        energies[key] = energies.get(key, 0.0) + (kwh - before if kwh >= before else kwh)
        previous[meter] = kwh
    return [
        {"plant_id": plant_id, "meter_id": meter, "time": time, "interval": interval, "energy": energy}
        for (time, meter), energy in sorted(energies.items())
    ]
