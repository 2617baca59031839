"""An export takes the memory of a page, however long it is."""

import asyncio
import time
import tracemalloc
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import psutil
import psycopg
import pytest

from projections import partitions
from projections.exports import Export, Span
from projections.formats import Format, encoded
from tests.measurements.conftest import START

PLANT = UUID(int=9)
FILL = """
INSERT INTO telemetry (plant_id, time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg)
SELECT %s, %s + n * interval '1 second', n / 7.0, -n / 3.0, n, n, n, 100 FROM generate_series(0, %s) n
"""


def fill(database_url: str, rows: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        days = rows // 86_400 + 2
        first = date(START.year, START.month, START.day)
        partitions.cover(connection, [first + timedelta(days=n) for n in range(days)], ("telemetry",))
        connection.execute(FILL, (PLANT, START, rows - 1))


def export(database_url: str, rows: int, form: Format) -> list[int]:
    """The lengths of the pieces."""

    async def run() -> list[int]:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:

            async def ask(question: Any) -> Any:
                return await question(connection)

            span = Span(START, START + timedelta(seconds=rows))
            return [len(piece) async for piece in encoded(Export("telemetry", PLANT, span), form, ask)]

    return asyncio.run(run())


def test_ten_pages_take_the_memory_of_two(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.formats.CsvEncoder.rows", 2_000)
    fill(database_url, 20_000)
    peaks = []
    for rows in (2_000, 4_000, 20_000):  # the first one imports what all need
        tracemalloc.start()
        pieces = export(database_url, rows, "csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(pieces) >= rows // 2_000
    assert peaks[2] < 1.5 * peaks[1]


@pytest.mark.bench
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_million_rows(database_url: str, form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """What a process gains by them, after one day has warmed it up; printed, with the rate."""
    fill(database_url, 1_000_000)
    export(database_url, 86_400, form)
    process = psutil.Process()
    before, began = process.memory_info().rss, time.perf_counter()
    size = sum(export(database_url, 1_000_000, form))
    seconds, grown = time.perf_counter() - began, process.memory_info().rss - before
    with capsys.disabled():
        print(f"\n{form}: {size / 1e6:.0f} MB, {1e6 / seconds:,.0f} rows/s, RSS {grown / 2**20:+.1f} MiB")  # noqa: T201
    assert grown < 64 * 2**20
