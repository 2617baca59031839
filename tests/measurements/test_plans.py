"""What PostgreSQL reads for a question: the roll-ups of its months, or the raw rows of its days; nothing else."""

import re
from collections.abc import Mapping
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from projections import partitions
from projections.exports import READINGS, SAMPLES
from projections.gaps import RECEIVED, USUAL
from projections.live import RECORDED
from projections.measurements import EPOCH, Window
from projections.meters import ENERGY
from projections.telemetry import EXTREMES, MEANS
from tests.measurements.conftest import START

ROLL_UPS = {*MEANS.values(), EXTREMES.as_bytes(), ENERGY.encode()}
OCTOBER = {"telemetry_1m_202610", "telemetry_5m_202610", "meter_1m_202610"}
HOUR = timedelta(hours=1)


@pytest.fixture
def partitioned(connection: psycopg.Connection) -> psycopg.Connection:
    """A year of months, and a week of days around the start."""
    partitions.cover(connection, [(START + timedelta(days=40 * n)).date() for n in range(-9, 1)])
    partitions.cover(connection, [(START + timedelta(days=n)).date() for n in range(-3, 4)])
    return connection


@pytest.mark.parametrize("statement", sorted(ROLL_UPS))
def test_buckets_read_one_month_of_a_roll_up_and_no_raw_row(partitioned: psycopg.Connection, statement: bytes) -> None:
    question = Window.of(START - HOUR, START).question(uuid4())
    read = scanned(partitioned, statement, question)
    assert len(read) == 1
    assert read <= OCTOBER
    # As it is when the same statement was prepared and asked often: then the plan is one for all ranges.
    assert scanned_by_any(partitioned, statement, question) == read


@pytest.mark.parametrize("statement", [SAMPLES.as_bytes(), READINGS.encode()])
def test_an_export_reads_the_raw_rows_of_one_day(partitioned: psycopg.Connection, statement: bytes) -> None:
    midnight = START.replace(hour=0, minute=0)
    question = {"plant_id": uuid4(), "start": midnight, "end": midnight + timedelta(days=1), "rows": 10}
    question |= {"time": midnight, "meter_id": ""}
    assert scanned(partitioned, statement, question) <= {"telemetry_20261031", "meter_readings_20261031"}


def test_gaps_and_streams_read_their_days_only(partitioned: psycopg.Connection) -> None:
    day = {"telemetry_20261031"}
    plant_id = uuid4()
    assert scanned(partitioned, RECEIVED.encode(), ([plant_id], START - HOUR, START)) == day
    assert scanned(partitioned, USUAL.encode(), (plant_id, START - HOUR, START, 10)) == day
    place = {"plant_ids": [plant_id], "transaction": 1, "time": EPOCH, "late": HOUR, "limit": None}
    later = {f"telemetry_202611{n:02}" for n in (1, 2, 3)}
    fresh = scanned(partitioned, RECORDED.as_bytes(), place | {"earliest": START})
    assert day | later <= fresh
    assert not {name for name in fresh if name < "telemetry_20261031"}


def scanned(connection: psycopg.Connection, statement: bytes, question: object) -> set[str]:
    """The partitions in its plan."""
    rows = connection.execute(b"EXPLAIN " + statement, question)  # type: ignore[call-overload]
    return set(re.findall(r" on (\w+_\d+)", "\n".join(line for (line,) in rows)))


def scanned_by_any(connection: psycopg.Connection, statement: bytes, question: Mapping[str, object]) -> set[str]:
    """Those that are left when a plan that was made without the values meets them."""
    names = list(question)
    numbered = re.sub(rb"%\((\w+)\)s", lambda found: b"$%d" % (names.index(found[1].decode()) + 1), statement)
    types = {"plant_id": "uuid", "width": "interval"}
    declared = ", ".join(types.get(name, "timestamptz") for name in names)
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE asked ({declared}) AS ".encode() + numbered)
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(f"EXPLAIN EXECUTE asked ({', '.join('%s' for _ in names)})", list(question.values()))
            plan = "\n".join(line for (line,) in cursor.fetchall())
        connection.execute("DEALLOCATE asked")
    assert "Subplans Removed" in plan
    return set(re.findall(r" on (\w+_\d+)", plan))
