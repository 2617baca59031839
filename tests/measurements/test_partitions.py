"""Partitions: made once, ahead or on demand, next to running inserts; dropped by retention, also after a crash."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from uuid import uuid4

import psycopg
import pytest

from projections import partitions
from projections.samples import Sample, record_telemetry
from tests.measurements.conftest import NOW, START

DAY = date(2026, 10, 31)


def test_days_ahead_are_made_once(connection: psycopg.Connection) -> None:
    assert partitions.horizon(connection) is None
    made = partitions.ensure(connection, 2, today=DAY)
    assert made == sorted(
        [f"{table}_{day}" for table in partitions.DAILY for day in ("20261031", "20261101", "20261102")]
        + [f"{table}_{month}" for table in partitions.MONTHLY for month in ("202610", "202611")]
    )
    assert partitions.ensure(connection, 2, today=DAY) == []
    assert partitions.horizon(connection) == date(2026, 11, 2)


def test_a_new_day_waits_for_no_open_insert(connection: psycopg.Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        record_telemetry(other, [Sample(uuid4(), START, 1.0)], now=NOW)
        with connection.transaction():
            record_telemetry(connection, [Sample(uuid4(), START + timedelta(days=1), 1.0)], now=NOW)
            record_telemetry(other, [Sample(uuid4(), START - timedelta(days=1), 1.0)], now=NOW)
    assert count(connection) == 3


def test_many_processes_make_a_day_once(database_url: str) -> None:
    def make(_: int) -> list[str]:
        with psycopg.connect(database_url) as own:
            return partitions.ensure(own, 3, today=DAY)

    with ThreadPoolExecutor(6) as pool:
        made = [name for names in pool.map(make, range(6)) for name in names]
    assert len(made) == len(set(made)) == 2 * 4 + 3 * 2


def test_what_is_older_than_the_retention_goes(connection: psycopg.Connection) -> None:
    samples = [Sample(uuid4(), START - timedelta(days=days), 1.0) for days in (40, 30, 0)]
    record_telemetry(connection, samples, now=NOW)
    # The month of the first sample has days that are still kept.
    assert partitions.drop_expired(connection, 40, today=date(2026, 11, 1)) == ["telemetry_20260921"]
    assert count(connection) == 2
    assert partitions.drop_expired(connection, 30, today=date(2026, 11, 1)) == [
        "telemetry_1m_202609",
        "telemetry_5m_202609",
        "telemetry_20261001",
    ]
    assert partitions.drop_expired(connection, 30, today=date(2026, 11, 1)) == []


def test_an_interrupted_drop_is_finished(connection: psycopg.Connection, database_url: str) -> None:
    record_telemetry(connection, [Sample(uuid4(), START, 1.0)], now=NOW)
    with psycopg.connect(database_url) as reader:
        assert count(reader) == 1
        connection.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            partitions.drop_expired(connection, 1, today=date(2026, 11, 2))
    connection.execute("RESET statement_timeout")
    pending = connection.execute("SELECT count(*) FROM pg_inherits WHERE inhdetachpending").fetchone()
    assert pending == (1,)
    connection.execute("CREATE TABLE telemetry_20200101 (LIKE telemetry)")  # detached, and then the process died
    dropped = partitions.drop_expired(connection, 1, today=date(2026, 11, 2))
    assert dropped == ["telemetry_20200101", "telemetry_20261031"]
    assert count(connection) == 0
    assert record_telemetry(connection, [Sample(uuid4(), START, 1.0)], now=NOW).new == 1


def test_one_process_drops_at_a_time(connection: psycopg.Connection, database_url: str) -> None:
    partitions.ensure(connection, 1, today=DAY)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (partitions.DROP_LOCK,))
        assert partitions.drop_expired(connection, 1, today=date(2030, 1, 1)) == []
    with psycopg.connect(database_url) as unfit, pytest.raises(ValueError, match="autocommit"):
        partitions.drop_expired(unfit)


def count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM telemetry").fetchone()
    assert row is not None
    return int(row[0])
