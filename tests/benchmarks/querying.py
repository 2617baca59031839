"""Telemetry as it is asked for: buckets beside the same from raw samples, and HTTP beside the SQL behind it."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from psycopg.sql import SQL
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from infra.bootstrap import QUERY_CONNECTIONS
from infra.postgres import async_pool
from projections.measurements import Window
from projections.samples import each
from projections.telemetry import LATEST, MEANS, telemetry
from tests.benchmarks.asking import Client, request, waits
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, percentile
from tests.benchmarks.months import DAY, DAY_QUERY, MONTH, PLANTS, months_of
from tests.benchmarks.served import bare, our_api, served

RAW = SQL(
    "SELECT date_bin(%(width)s, time, %(epoch)s) AS bucket, {means} FROM telemetry"
    " WHERE plant_id = %(plant_id)s AND time >= %(start)s AND time < %(end)s GROUP BY bucket ORDER BY bucket"
).format(means=each("avg(@)"))
ASKED = 200
CLIENTS = 4
# Short and many: what else the machine does must not fall on one side alone.
ROUNDS, SECONDS = 21, 0.5


@benchmark("rollup_day", Goal(6, 8), "queries/s")
def rollup_day(bench: Bench) -> Result:
    """As they are answered, against the rows of the raw query."""
    return _beside_raw(bench, DAY, 20)


@benchmark("rollup_month", Goal(12, 19), "queries/s")
def rollup_month(bench: Bench) -> Result:
    return _beside_raw(bench, MONTH, 1)


def _beside_raw(bench: Bench, window: Window, times: int) -> Result:
    months = months_of(bench)
    with asyncio.Runner() as runner:
        connection = runner.run(AsyncConnection.connect(months.where.database_url, autocommit=True))

        def a_second(ask: Callable[[UUID], Any]) -> float:
            begin = time.perf_counter()
            for n in range(times):
                rows = runner.run(ask(months.plants[n % PLANTS]))
                assert len(rows) == (window.end - window.start) // window.bucket
            return times / (time.perf_counter() - begin)

        async def raw(plant_id: UUID) -> list[Any]:
            return await _fetch(connection, RAW.as_bytes(), window.question(plant_id))

        result = compare(
            lambda: a_second(lambda plant_id: telemetry(connection, plant_id, window)), lambda: a_second(raw)
        )
        runner.run(connection.close())
    ours, theirs = (1000 / each for each in (result.ours, result.baseline or 1))
    return Result(result.ours, result.baseline, f"{ours:.2f} ms and {theirs:.1f} ms")


async def _fetch(connection: "AsyncConnection[Any]", statement: bytes, question: dict[str, object]) -> list[Any]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(statement, question, prepare=True)
        return await cursor.fetchall()


@benchmark("http_day", Goal(3.5, 2.0, lower=True), "ms, p50")
def http_day(bench: Bench) -> Result:
    """One client that keeps its connection, and the API in a process of its own."""
    months = months_of(bench)
    requests = months.requests("/api/v1/trading/plants/{}/telemetry?" + DAY_QUERY)
    waited: list[float] = []
    with served(our_api, months.where) as url, asyncio.Runner() as runner, Client(url) as client:
        connection = runner.run(AsyncConnection.connect(months.where.database_url, autocommit=True))

        def http() -> float:
            took = [client.get(requests[n % PLANTS]) * 1000 for n in range(ASKED)]
            waited.extend(took)
            return statistics.median(took)

        async def fetch(plant: UUID) -> float:
            begin = time.perf_counter()
            await _fetch(connection, MEANS[DAY.bucket], DAY.question(plant))
            return (time.perf_counter() - begin) * 1000

        result = compare(
            http, lambda: statistics.median(runner.run(fetch(months.plants[n % PLANTS])) for n in range(ASKED))
        )
        runner.run(connection.close())
    return Result(result.ours, result.baseline, f"p99 {percentile(waited, 99):.1f}")


@benchmark("http_latest", Goal(0.80, 0.95), "requests/s")
def http_latest(bench: Bench) -> Result:
    months = months_of(bench)
    ours = months.requests("/api/v1/trading/plants/{}/telemetry/latest")
    theirs = [request(f"/{plant}", {}) for plant in months.plants]
    with served(our_api, months.where) as our_url, served(_bare, months.where.database_url) as bare_url:
        return compare(
            lambda: len(waits(our_url, ours, CLIENTS, SECONDS)) / SECONDS,
            lambda: len(waits(bare_url, theirs, CLIENTS, SECONDS)) / SECONDS,
            rounds=ROUNDS,
        )


@contextmanager
def _bare(database_url: str) -> Iterator[Starlette]:
    """Starlette, psycopg and the same SELECT, and nothing else."""
    pool = async_pool(database_url, QUERY_CONNECTIONS, "bare")

    async def latest(request: Request) -> Response:
        async with pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(LATEST, (UUID(request.path_params["plant_id"]),), prepare=True)
            row = await cursor.fetchone()
        names = ("time", *(column.name for column in cursor.description or ()))
        return Response(orjson.dumps(dict(zip(names, row or (), strict=False))), media_type="application/json")

    yield bare(pool, "/{plant_id}", latest)
