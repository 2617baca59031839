"""Telemetry: the roll-up says what the samples say, whatever the order and number of times they came."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL
from pydantic import TypeAdapter

from projections.measurements import EPOCH, Recorded, Window
from projections.telemetry import (
    MEANS_OF_FIVES,
    Sample,
    TelemetryRow,
    last_telemetry_at,
    latest,
    record_telemetry,
    telemetry,
)
from tests.measurements.conftest import NOW, START, Ask

FIELDS = ("soc", "grid_power", "fve_power", "consumption", "invertor_power", "fve_reg")
SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

values = st.none() | st.integers(-40, 40).map(lambda n: n / 4)
# Few moments, so that repeats and conflicts are common.
moments = st.integers(0, 40).map(lambda n: START + timedelta(seconds=37 * n))
samples = st.builds(lambda time, numbers: (time, *numbers), moments, st.tuples(*[values] * 6))
batches = st.lists(st.lists(samples, max_size=12), min_size=1, max_size=5)


@given(batches=batches, minutes=st.sampled_from([1, 2, 5, 7, 13, 30, 60]))
@SHARED
def test_buckets_are_the_means_of_the_first_samples(
    connection: psycopg.Connection, ask: Ask, batches: list[list[tuple[datetime, float | None]]], minutes: int
) -> None:
    plant_id = uuid4()
    first: dict[datetime, Sample] = {}
    for batch in batches:
        sent = [Sample(plant_id, *each) for each in batch]
        expected = {"new": 0, "repeated": 0, "conflicts": 0}
        for sample in sent:
            kept = first.setdefault(sample.time, sample)
            expected["new" if kept is sample else "repeated" if kept == sample else "conflicts"] += 1
        assert record_telemetry(connection, sent, now=NOW) == Recorded(**expected)
    window = Window.of(START, START + timedelta(hours=1), minutes)
    assert ask(telemetry, plant_id, window) == approximately(means(plant_id, list(first.values()), window.bucket))
    last = max(first.values(), key=lambda each: each.time, default=Sample(plant_id, START))
    if first:
        assert ask(latest, plant_id) == row(plant_id, last.time, last[2:8])


@given(batches=batches, cut=st.integers(1, 24))
@SHARED
def test_the_parts_of_a_range_make_the_whole(
    connection: psycopg.Connection, ask: Ask, batches: list[list[tuple[datetime, float | None]]], cut: int
) -> None:
    plant_id = uuid4()
    for batch in batches:
        record_telemetry(connection, [Sample(plant_id, *each) for each in batch], now=NOW)
    middle, end = START + timedelta(minutes=cut), START + timedelta(minutes=30)
    before, after = (ask(telemetry, plant_id, Window.of(*edges, 1)) for edges in ((START, middle), (middle, end)))
    assert before + after == ask(telemetry, plant_id, Window.of(START, end, 1))


def test_late_samples_count_but_are_not_the_latest(connection: psycopg.Connection, ask: Ask) -> None:
    plant_id = uuid4()
    for soc, minute in ((10.0, 5), (20.0, 1), (30.0, 3)):
        record_telemetry(connection, [Sample(plant_id, START + timedelta(minutes=minute), soc)], now=NOW)
    assert ask(latest, plant_id)["soc"] == 10.0
    assert [each["soc"] for each in ask(telemetry, plant_id, Window.of(START, NOW, 60))] == [20.0]
    assert ask(last_telemetry_at, [plant_id, uuid4()]) == {plant_id: START + timedelta(minutes=5)}


def test_latest_without_data_is_nulls(ask: Ask) -> None:
    plant_id = uuid4()
    assert ask(latest, plant_id) == row(plant_id, None, (None,) * 6)


def test_a_conflict_is_listed_once_with_both_values(connection: psycopg.Connection) -> None:
    first, other = (Sample(uuid4(), START, soc=soc, operating_mode="AUTO") for soc in (1.0, 2.0))
    other = other._replace(plant_id=first.plant_id)
    assert record_telemetry(connection, [first, other, first], now=NOW) == Recorded(new=1, repeated=1, conflicts=1)
    assert record_telemetry(connection, [other], now=NOW) == Recorded(conflicts=1)
    listed = connection.execute(
        "SELECT plant_id, meter_id, time, first_value->'soc', other_value->'soc' FROM measurement_conflicts"
    ).fetchall()
    assert listed == [(first.plant_id, "", START, 1.0, 2.0)]


@pytest.mark.parametrize(
    "sample",
    [
        Sample(UUID(int=1), NOW + timedelta(minutes=5, seconds=1), 1.0),
        Sample(UUID(int=1), NOW - timedelta(days=1825, seconds=1), 1.0),
        Sample(UUID(int=1), START, float("nan")),
        Sample(UUID(int=1), START, grid_power=float("-inf")),
        Sample(UUID(int=1), START, fve_power=1e300),
        Sample(UUID(int=1), START, operating_mode="AU\0TO"),
    ],
)
def test_what_cannot_be_stored_does_not_hold_up_the_rest(connection: psycopg.Connection, sample: Sample) -> None:
    good = Sample(UUID(int=1), START, 5)
    assert record_telemetry(connection, [sample, good], now=NOW) == Recorded(new=1, refused=1)
    assert record_telemetry(connection, [sample], now=NOW) == Recorded(refused=1)
    assert record_telemetry(connection, [], now=NOW) == Recorded()


def test_late_and_slightly_early_samples_are_welcome(connection: psycopg.Connection) -> None:
    times = [NOW - timedelta(days=1825), NOW - timedelta(days=400), NOW + timedelta(minutes=5)]
    assert record_telemetry(connection, [Sample(uuid4(), time, 1.0) for time in times], now=NOW) == Recorded(new=3)


def test_a_transaction_may_record_twice_and_take_it_back(connection: psycopg.Connection, ask: Ask) -> None:
    plant_id = uuid4()
    with connection.transaction(force_rollback=True):
        for minute in (0, 11):
            batch = [Sample(plant_id, START + timedelta(minutes=minute), 1.0)]
            assert record_telemetry(connection, batch, now=NOW) == Recorded(new=1)
    assert ask(latest, plant_id)["time"] is None


def test_only_the_months_in_range_are_read(connection: psycopg.Connection) -> None:
    times = [START + timedelta(days=40 * n) for n in range(-9, 1)]
    record_telemetry(connection, [Sample(uuid4(), time, 1.0) for time in times], now=NOW)
    question = Window.of(START - timedelta(hours=1), START).question(uuid4())
    plan = "\n".join(line for (line,) in connection.execute(SQL("EXPLAIN ") + MEANS_OF_FIVES, question))
    assert set(re.findall(r"telemetry_5m_(\d{6})", plan)) == {"202610"}


def test_a_row_is_json_as_published(connection: psycopg.Connection, ask: Ask) -> None:
    plant_id = uuid4()
    record_telemetry(connection, [Sample(plant_id, START, 50.0)], now=NOW)
    body = orjson.loads(orjson.dumps(ask(telemetry, plant_id, Window.of(START, NOW)), option=orjson.OPT_UTC_Z))
    assert body == [{"plant_id": str(plant_id), "time": "2026-10-31T23:50:00Z", **dict.fromkeys(FIELDS), "soc": 50.0}]
    assert TypeAdapter(TelemetryRow).json_schema()["required"] == ["plant_id", "time", *FIELDS]


def means(plant_id: UUID, stored: list[Sample], bucket: timedelta) -> list[TelemetryRow]:
    """The same from the samples, without the database."""
    buckets: dict[datetime, list[Sample]] = {}
    for sample in stored:
        buckets.setdefault(sample.time - (sample.time - EPOCH) % bucket, []).append(sample)
    return [
        row(plant_id, time, tuple(mean(column) for column in zip(*(each[2:8] for each in buckets[time]), strict=True)))
        for time in sorted(buckets)
    ]


def mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else None


def row(plant_id: UUID, time: datetime | None, numbers: tuple[float | None, ...]) -> TelemetryRow:
    return TypeAdapter(TelemetryRow).validate_python(
        {"plant_id": plant_id, "time": time and time.astimezone(UTC), **dict(zip(FIELDS, numbers, strict=True))}
    )


def approximately(rows: list[TelemetryRow]) -> list[object]:
    return [
        {name: pytest.approx(value) if isinstance(value, float) else value for name, value in each.items()}
        for each in rows
    ]
