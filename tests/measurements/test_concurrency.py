"""Several writers with the same measurements: nobody deadlocks, and everything counts once."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TypeVar
from uuid import UUID, uuid4

import psycopg

from projections.measurements import Window
from projections.meters import MeterReading, meters, record_meters
from projections.samples import Sample, record_telemetry
from projections.telemetry import latest, telemetry
from tests.measurements.conftest import NOW, START, Ask

WRITERS = 4
Item = TypeVar("Item")


def test_overlapping_batches_count_once(database_url: str, ask: Ask) -> None:
    plants = [uuid4() for _ in range(5)]
    samples = [Sample(plant, START + timedelta(seconds=30 * n), float(n)) for plant in plants for n in range(60)]
    readings = [
        MeterReading(plant, "main", START + timedelta(seconds=45 * n), float(n)) for plant in plants for n in range(40)
    ]

    def write(connection: psycopg.Connection, seed: int, together: Barrier) -> int:
        own_samples, own_readings = shuffled(samples, seed), shuffled(readings, seed)
        new = 0
        for at in range(0, 60 * 5, 50):
            together.wait()
            with connection.transaction():
                new += record_telemetry(connection, own_samples[at : at + 50], now=NOW).new
                new += record_meters(connection, own_readings[at : at + 50], now=NOW).new
        return new

    assert sum(all_at_once(database_url, write)) == len(samples) + len(readings)
    window = Window.of(START, START + timedelta(minutes=30), 30)
    for plant in plants:
        # 20 samples before midnight (0..19), 40 after; both buckets of half an hour.
        assert [row["soc"] for row in ask(telemetry, plant, window)] == [9.5, 39.5]
        assert ask(latest, plant)["soc"] == 59.0
        assert sum(row["energy"] for row in ask(meters, plant, window)) == 39.0


def test_neighbouring_readings_find_each_other(database_url: str, ask: Ask) -> None:
    """Each writer has every fourth reading, so what a minute counts depends on what the others commit meanwhile."""
    plant = uuid4()

    def write(connection: psycopg.Connection, seed: int, together: Barrier) -> int:
        for first in shuffled(range(0, 80, WRITERS), 0):
            together.wait()
            record_meters(connection, [reading(plant, first + seed)], now=NOW)
        return 0

    all_at_once(database_url, write)
    rows = ask(meters, plant, Window.of(START, START + timedelta(minutes=27), 1))
    assert [row["energy"] for row in rows] == [2.0] + [3.0] * 25 + [2.0]


def reading(plant: UUID, n: int) -> MeterReading:
    return MeterReading(plant, "main", START + timedelta(seconds=20 * n), float(n))


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    return random.Random(seed).sample(items, len(items))


def all_at_once(database_url: str, write: Callable[[psycopg.Connection, int, Barrier], int]) -> list[int]:
    together = Barrier(WRITERS, timeout=120)

    def run(seed: int) -> int:
        with psycopg.connect(database_url, autocommit=True) as connection:
            try:
                return write(connection, seed, together)
            except BaseException:
                together.abort()
                raise

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))
