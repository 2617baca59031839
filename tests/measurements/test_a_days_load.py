"""A day of a thousand plants, stored and asked for: `pytest -m bench tests/measurements/test_a_days_load.py -s`."""

import statistics
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from projections.measurements import Recorded, Window
from projections.samples import record_telemetry
from projections.telemetry import latest, telemetry
from tests.measurements.conftest import Ask
from tests.measurements.plant_messages import sample
from tests.measurements.recomputed import differences

PLANTS = 1_000
STEP = timedelta(seconds=10)
DAY = timedelta(days=1)
BATCH_TIMES = 4  # of all plants: as a worker takes them from a backlog
START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.bench
def test_a_day_of_a_thousand_plants_at_ten_seconds(connection: psycopg.Connection, ask: Ask) -> None:
    plants = [uuid4() for _ in range(PLANTS)]
    stored, took = 0, 0.0
    for at in range(0, DAY // STEP, BATCH_TIMES):
        times = [START + (at + n) * STEP for n in range(BATCH_TIMES)]
        batch = [sample(plant, moment) for moment in times for plant in plants]
        begin = time.perf_counter()
        assert record_telemetry(connection, batch, now=START + DAY) == Recorded(new=len(batch))
        took += time.perf_counter() - begin
        stored += len(batch)
    print(f"\n{stored:,} samples in {took:.0f} s: {stored / took:,.0f}/s")  # noqa: T201
    assert stored == 8_640_000
    window = Window.of(START, START + DAY)
    waits = []
    for plant in plants[::10]:
        begin = time.perf_counter()
        rows = ask(telemetry, plant, window)
        waits.append((time.perf_counter() - begin) * 1000)
        assert len(rows) == 288
        assert ask(latest, plant)["time"] == START + DAY - STEP
    print(f"a day's query: p50 {statistics.median(waits):.2f} ms, most {max(waits):.2f} ms")  # noqa: T201
    assert differences(connection) == {"telemetry_1m": 0, "telemetry_5m": 0, "telemetry_latest": 0}
