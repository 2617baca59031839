"""Files out and in again: what was exported restores what was there, and repeating changes nothing."""

import asyncio
import csv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from infra.embedded import EmbeddedPostgres
from projections.exports import Export, Span, What
from projections.formats import FORMULA, Format, encoded, marked, unmarked
from projections.imports import BadFile, BadRow, Import, Imported, Rejected, Rejects, Source
from projections.measurements import Recorded
from projections.meters import MeterReading, record_meters
from projections.samples import Sample, record_telemetry
from tests.measurements.conftest import START
from tests.servers import database

TABLES = ("telemetry", "telemetry_1m", "telemetry_5m", "telemetry_latest", "meter_readings", "meter_1m", "meters")
SPAN = Span(START, START + timedelta(hours=2))
SHARED = settings(
    max_examples=15,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

moments = st.integers(0, 3_600_000_000).map(lambda n: START + timedelta(microseconds=n))
# Sums of quarters are exact, whatever the order they are added in.
values = st.none() | st.integers(-4000, 4000).map(lambda n: n / 4)
words = st.none() | st.sampled_from(
    ["", "'", "AUTO", "=1+1", "'=x", "''", "a,b;c", 'say "hi"', "two\nlines", "\r", "-", "é"]
)
samples = st.lists(st.tuples(moments, *[values] * 8, words, words), max_size=12, unique_by=lambda row: row[0])
meter_ids = st.sampled_from(["grid", "=1", "'", "'-x", "a,b", 'q"', "two\r\nlines"])
readings = st.lists(st.tuples(meter_ids, moments, values.map(lambda n: abs(n or 0.0))), max_size=12)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def elsewhere(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[psycopg.Connection]:
    """Another, empty database."""
    with database(postgres_server, migrated_template) as url, psycopg.connect(url, autocommit=True) as opened:
        yield opened


@pytest.mark.parametrize("form", ["csv", "parquet"])
@SHARED
@given(samples=samples, readings=readings)
def test_what_was_exported_restores_what_was_there(
    connection: psycopg.Connection,
    elsewhere: psycopg.Connection,
    tmp_path: Path,
    form: Format,
    samples: list[tuple[Any, ...]],
    readings: list[tuple[Any, ...]],
) -> None:
    plant_id, now = uuid4(), datetime(2026, 11, 2, tzinfo=UTC)
    record_telemetry(connection, [Sample(plant_id, *row) for row in samples], now=now)
    record_meters(connection, [MeterReading(plant_id, *row) for row in readings], now=now)
    before = contents(connection, plant_id)
    for what in ("telemetry", "meters"):
        file = exported(connection, tmp_path, what, plant_id, form)
        rows = len(before["telemetry" if what == "telemetry" else "meter_readings"])
        assert imported(connection, file, plant_id).recorded == Recorded(repeated=rows)
        assert contents(connection, plant_id) == before
        assert imported(elsewhere, file, plant_id).recorded == Recorded(new=rows)
    assert contents(elsewhere, plant_id) == before


@given(st.text(max_size=3) | st.text("='-\r@+", max_size=3))
def test_a_marked_text_is_no_formula_and_is_what_it_was(text: str) -> None:
    assert unmarked(marked(text)) == text
    assert marked(text)
    assert not marked(text).startswith(tuple(set(FORMULA) - {"'"}))


def contents(connection: psycopg.Connection, plant_id: UUID) -> dict[str, list[Any]]:
    """Every row of the plant but for when it was received."""
    return {
        table: connection.execute(
            f"SELECT to_jsonb(t) - 'received_at' FROM {table} t WHERE plant_id = %s ORDER BY 1",
            [plant_id],
        ).fetchall()
        for table in TABLES
    }


def exported(connection: psycopg.Connection, folder: Path, what: What, plant_id: UUID, form: Format) -> Path:
    async def export() -> bytes:
        async with await psycopg.AsyncConnection.connect(connection.info.dsn, autocommit=True) as own:

            async def ask(question: Any) -> Any:
                return await question(own)

            return b"".join([piece async for piece in encoded(Export(what, plant_id, SPAN), form, ask)])

    file = folder / f"{what}.{form}"
    file.write_bytes(asyncio.run(export()))
    return file


def imported(connection: psycopg.Connection, file: Path, plant_id: UUID) -> Imported:
    done, rejected = Imported(), list[Rejected]()
    Import(Source.of(file), {str(plant_id): plant_id}).run(connection, rejected.append, lambda _: None, done)
    assert rejected == []
    return done


PLANT = UUID(int=7)


def run(connection: psycopg.Connection, file: Path, **options: Any) -> tuple[Imported, list[Rejected]]:
    done, rejected = Imported(), list[Rejected]()
    wanted = Import(Source.of(file), {"esm-001": PLANT, str(PLANT): PLANT}, **options)
    wanted.run(connection, rejected.append, lambda _: None, done)
    return done, rejected


@pytest.mark.parametrize("text", [
    "time,soc\n2026-11-01T00:00:00Z,50\n2026-11-01T01:00:10+01:00,51\n",
    ("\ufeffSOC ;TIME;plant_id\r\n50;2026-11-01 00:00:00;esm-001\r\n\r\n"
    f"51;2026-11-01T00:00:10;{str(PLANT).upper()}\r\n"),
])  # fmt: skip
def test_a_file_made_by_hand(connection: psycopg.Connection, tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(text, newline="")
    done, rejected = run(connection, file, plant_id=PLANT)
    assert (done.rows, done.recorded, rejected) == (2, Recorded(new=2), [])
    stored = connection.execute("SELECT plant_id, time, soc FROM telemetry ORDER BY time").fetchall()
    start = datetime(2026, 11, 1, tzinfo=UTC)
    assert stored == [(PLANT, start, 50.0), (PLANT, start + timedelta(seconds=10), 51.0)]


BAD = {
    "soon,,50": "time: soon is no ISO 8601 date and time",
    "9999-12-31,,50": "time: 9999-12-31T00:00:00+00:00 is in the future",
    "1999-12-31,,50": "time: 1999-12-31T00:00:00+00:00 is before the retention",
    "2026-11-01,esm-404,50": "plant_id: the organisation has no plant esm-404",
    "2026-11-01,,50": "plant_id: is missing",
    '2026-11-01,esm-001,"50,5"': "soc: 50,5 is no number",
    "2026-11-01,esm-001,nan": "soc: nan is out of range",
    "2026-11-01,esm-001,1e13": "soc: 1e13 is out of range",
    "2026-11-01,esm-001": "time: a row of 2 cells under 3 columns is no ISO 8601 date and time",
    "2026-11-01,esm-001,50,1": "time: a row of 4 cells under 3 columns is no ISO 8601 date and time",
}


def test_what_is_wrong_has_its_line_and_can_be_mended(connection: psycopg.Connection, tmp_path: Path) -> None:
    file, rejects = tmp_path / "mine.csv", tmp_path / "rejects.csv"
    file.write_text("\n".join(["time,plant_id,soc", *BAD, "2026-11-01,esm-001,50"]))
    done, rejected = run(connection, file)
    assert done == Imported(len(BAD) + 1, Recorded(new=1), len(BAD))
    assert [(row.line.number, row.reason) for row in rejected] == list(enumerate(BAD.values(), 2))
    written = Rejects(rejects, ["time", "plant_id", "soc"], goes_on=False)
    for row in rejected[5:6]:
        written.add(row)
    written.close()
    with rejects.open(newline="") as opened:
        assert list(csv.reader(opened))[1] == ["7", "soc: 50,5 is no number", "2026-11-01", "esm-001", "50,5"]
    rejects.write_text(rejects.read_text().replace('"50,5"', "50.5"))
    assert run(connection, rejects)[0].recorded == Recorded(conflicts=1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no column time"),
        (b"time,colour\n", "no such column colour; telemetry has plant_id, time, soc"),
        (b"time,energy_kwh\n", "no column meter_id"),
        (b"time,soc,soc\n", "more than one column soc"),
        (b"\xff\xfe\n", "neither UTF-8 text nor Parquet"),
        (b"PAR1 but no more", "Parquet"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "mine"
    file.write_bytes(content)
    with pytest.raises(BadFile, match=says):
        _ = Source.of(file).what


def test_who_stops_at_an_error_has_whole_batches(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on after them."""
    monkeypatch.setattr("projections.imports.BATCH", 4)
    file = tmp_path / "mine.csv"
    lines = [f"2026-11-01T00:00:{n:02}Z,{n}" for n in range(10)]
    file.write_text("\n".join(["time,soc", *lines[:6], "nonsense,1", *lines[6:]]))

    def stop(row: Rejected) -> None:
        raise BadRow(row.reason)

    done = Imported()
    wanted = Import(Source.of(file), {}, PLANT)
    with pytest.raises(BadRow, match="nonsense"):
        wanted.run(connection, stop, lambda _: None, done)
    assert done == Imported(4, Recorded(new=4), 0)
    wanted.run(connection, lambda _: None, lambda _: None, done)
    assert done == Imported(11, Recorded(new=10), 1)
