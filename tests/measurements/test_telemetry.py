"""Telemetry: the roll-up says what the samples say, whatever the order and number of times they came."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from projections.measurements import EPOCH, Recorded, Window, by_days
from projections.samples import FIELDS, Sample, record_telemetry
from projections.telemetry import (
    Extremes,
    TelemetryRow,
    extremes,
    last_telemetry_at,
    latest,
    telemetry,
)
from tests.measurements.conftest import NOW, START, Ask

SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

values = st.none() | st.integers(-40, 40).map(lambda n: n / 4)
# Few moments, so that repeats and conflicts are common.
moments = st.integers(0, 40).map(lambda n: timedelta(seconds=37 * n))
samples = st.builds(lambda time, numbers: (time, *numbers), moments, st.tuples(*[values] * 6))
# A month's end, and the hours in which Europe's clocks change: to what is stored in UTC they are as any other.
starts = st.sampled_from([START, datetime(2026, 10, 25, 0, 45, tzinfo=UTC), datetime(2026, 3, 29, 0, 45, tzinfo=UTC)])
batches = st.lists(st.lists(samples, max_size=12), min_size=1, max_size=5)


@given(batches=batches, minutes=st.sampled_from([1, 2, 5, 7, 10, 13, 30, 60]), start=starts)
@SHARED
def test_buckets_are_of_the_first_samples(
    connection: psycopg.Connection, ask: Ask, batches: list[list[Any]], minutes: int, start: datetime
) -> None:
    connection.execute("SET timezone = 'Europe/Prague'")
    plant_id = uuid4()
    first: dict[datetime, Sample] = {}
    for batch in batches:
        sent = [Sample(plant_id, start + after, *numbers) for after, *numbers in batch]
        expected = {"new": 0, "repeated": 0, "conflicts": 0}
        for sample in sent:
            kept = first.setdefault(sample.time, sample)
            expected["new" if kept is sample else "repeated" if kept == sample else "conflicts"] += 1
        assert record_telemetry(connection, sent, now=NOW) == Recorded(**expected)
    window = Window.of(start, start + timedelta(hours=1), minutes)
    assert ask(telemetry, plant_id, window) == means(plant_id, list(first.values()), window.bucket)
    assert ask(extremes, plant_id, window) == least_and_greatest(list(first.values()), window.bucket)
    last = max(first.values(), key=lambda each: each.time, default=Sample(plant_id, start))
    if first:
        assert ask(latest, plant_id) == row(plant_id, last.time, last[2:8])


@given(batches=batches, cut=st.integers(1, 24))
@SHARED
def test_the_parts_of_a_range_make_the_whole(
    connection: psycopg.Connection, ask: Ask, batches: list[list[Any]], cut: int
) -> None:
    plant_id = uuid4()
    for batch in batches:
        record_telemetry(connection, [Sample(plant_id, START + after, *numbers) for after, *numbers in batch], now=NOW)
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


def test_a_backlog_of_many_days_is_stored_in_pieces(connection: psycopg.Connection) -> None:
    samples = [Sample(UUID(int=n), NOW - timedelta(days=n % 100), 1.0) for n in range(200)]
    pieces = list(by_days(samples))
    assert [len({each.time.date() for each in piece}) for piece in pieces] == [31, 31, 31, 7]
    assert [each for piece in pieces for each in piece] == sorted(samples, key=lambda each: each.time, reverse=True)
    assert sum(record_telemetry(connection, piece, now=NOW).new for piece in pieces) == 200


def test_a_roll_up_is_rewritten_past_its_index(connection: psycopg.Connection) -> None:
    """Else each sample would leave another entry in it: partitions are made with room in their pages."""
    plants = [uuid4() for _ in range(200)]
    for second in range(0, 60, 10):
        batch = [Sample(plant, START + timedelta(seconds=second), 1.0) for plant in plants]
        record_telemetry(connection, batch, now=NOW)
    connection.execute("SELECT pg_stat_force_next_flush()")
    updates = connection.execute(
        "SELECT relname, n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE n_tup_upd > 0 ORDER BY 1"
    ).fetchall()
    assert updates == [("telemetry_1m_202610", 0), ("telemetry_5m_202610", 0), ("telemetry_latest", 0)]


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
    """To 6 decimals."""
    known = [number for number in numbers if number is not None]
    return round(sum(known) / len(known) * 1e6) / 1e6 if known else None


def least_and_greatest(stored: list[Sample], bucket: timedelta) -> list[Extremes]:
    buckets: dict[datetime, list[Sample]] = {}
    for sample in stored:
        buckets.setdefault(sample.time - (sample.time - EPOCH) % bucket, []).append(sample)

    def of(least: Callable[..., float | None], time: datetime) -> dict[str, float | None]:
        known = ([getattr(each, name) for each in buckets[time]] for name in FIELDS)
        return {
            name: least((number for number in numbers if number is not None), default=None)
            for name, numbers in zip(FIELDS, known, strict=True)
        }

    return [{"time": time, "least": of(min, time), "greatest": of(max, time)} for time in sorted(buckets)]


def row(plant_id: UUID, time: datetime | None, numbers: tuple[float | None, ...]) -> TelemetryRow:
    return TypeAdapter(TelemetryRow).validate_python(
        {"plant_id": plant_id, "time": time and time.astimezone(UTC), **dict(zip(FIELDS, numbers, strict=True))}
    )
