"""Telemetry as it is asked for: buckets beside the same from raw samples, and HTTP beside the SQL behind it."""

import asyncio
import http.client
import multiprocessing
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from psycopg.sql import SQL
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from application.context import Metadata, acting
from infra.bootstrap import Where, assembled
from infra.postgres import async_pool, connect
from infra.secret_box import OperatorKey
from infra.serving import Serving
from infra.settings import Settings
from interfaces.cli.wiring import api
from projections.measurements import Window
from projections.samples import each
from projections.telemetry import LATEST, MEANS, telemetry
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, percentile
from tests.benchmarks.measured import fill
from tests.http.world import following

PLANTS = 50
DAYS = 30
# Of a month that is over: all of it lies inside one partition of the roll-ups, as in the measurement behind the goals.
START = datetime(2026, 10, 1, tzinfo=UTC)
DAY = Window.of(START + timedelta(days=14), START + timedelta(days=15), 5)
MONTH = Window.of(START, START + timedelta(days=DAYS), 5)
RAW = SQL(
    "SELECT date_bin(%(width)s, time, %(epoch)s) AS bucket, {means} FROM telemetry"
    " WHERE plant_id = %(plant_id)s AND time >= %(start)s AND time < %(end)s GROUP BY bucket ORDER BY bucket"
).format(means=each("avg(@)"))
ASKED = 200
CLIENTS = 4
SECONDS = 2.0
SETTINGS = Settings(reads_per_minute=10**9, log_level="WARNING")


@benchmark("rollup_day", Goal(6, 8), "queries/s")
def rollup_day(bench: Bench) -> Result:
    """As they are answered, against the rows of the raw query."""
    return _beside_raw(bench, DAY, 20)


@benchmark("rollup_month", Goal(12, 19), "queries/s")
def rollup_month(bench: Bench) -> Result:
    return _beside_raw(bench, MONTH, 1)


def _beside_raw(bench: Bench, window: Window, times: int) -> Result:
    months = _months(bench)
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
    months = _months(bench)
    path = "/api/v1/trading/plants/{}/telemetry?from=" + f"{DAY.start:%FT%TZ}&to={DAY.end:%FT%TZ}"
    waits: list[float] = []
    with _served(_api, months.where) as url, asyncio.Runner() as runner, _client(url) as client:
        connection = runner.run(AsyncConnection.connect(months.where.database_url, autocommit=True))

        def http() -> float:
            took = [_timed(partial(_get, client, path.format(plant), months.headers)) for plant in months.asked]
            waits.extend(took)
            return statistics.median(took)

        async def fetch(plant: UUID) -> float:
            begin = time.perf_counter()
            await _fetch(connection, MEANS[DAY.bucket], DAY.question(plant))
            return (time.perf_counter() - begin) * 1000

        result = compare(http, lambda: statistics.median(runner.run(fetch(plant)) for plant in months.asked))
        runner.run(connection.close())
    return Result(result.ours, result.baseline, f"p99 {percentile(waits, 99):.1f}")


@benchmark("http_latest", Goal(0.80, 0.95), "requests/s")
def http_latest(bench: Bench) -> Result:
    months = _months(bench)
    path = "/api/v1/trading/plants/{}/telemetry/latest"
    with _served(_api, months.where) as ours, _served(_bare, months.where.database_url) as bare:
        return compare(
            lambda: _requests_a_second(ours, months.paths(path), months.headers),
            lambda: _requests_a_second(bare, months.paths("/{}"), {}),
        )


@dataclass(frozen=True)
class _Months:
    where: Where
    plants: list[UUID]
    headers: dict[str, str]

    @property
    def asked(self) -> list[UUID]:
        return [self.plants[n % PLANTS] for n in range(ASKED)]

    def paths(self, path: str) -> list[str]:
        return [path.format(plant) for plant in self.plants]


def _months(bench: Bench) -> _Months:
    """An organisation whose plants measured every 10 s for DAYS days."""
    if "months" not in bench.shared:
        where = Where(bench.exit.enter_context(bench.database()), None, [OperatorKey.random()], [])
        with assembled(where, SETTINGS) as parts, acting(Metadata(actor="cli", source="cli")):
            organization_id = parts.organisations.create("acme").id
            key = parts.organisations.mint_key(organization_id, "bench", ["trading:read"])
            plants = [parts.plants.register(organization_id, f"esm-{n}", f"Plant {n}").id for n in range(PLANTS)]
        with connect(where.database_url, "bench") as connection:
            with following(where.database_url):
                while connection.execute("SELECT 1 FROM api_keys").fetchone() is None:
                    time.sleep(0.05)
            fill(connection, plants, START, DAYS)
        bench.shared["months"] = _Months(where, plants, {"X-API-Key": key.api_key})
    months: _Months = bench.shared["months"]
    return months


@contextmanager
def _served(app: Callable[..., Any], *arguments: object) -> Iterator[str]:
    """The URL of an application in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(app, arguments, theirs))
    process.start()
    try:
        assert ours.poll(30)
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(app: Callable[..., Any], arguments: tuple[object, ...], report: Pipe) -> None:
    with app(*arguments) as made, Serving(made, lifespan="on") as serving:
        report.send(serving.url)
        threading.Event().wait()


@contextmanager
def _api(where: Where) -> Iterator[Starlette]:
    with assembled(where, SETTINGS) as parts:
        yield api(parts, SETTINGS)


@contextmanager
def _bare(database_url: str) -> Iterator[Starlette]:
    """Starlette, psycopg and the same SELECT, and nothing else."""
    pool = async_pool(database_url, 20, "bare")

    async def latest(request: Request) -> Response:
        async with pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(LATEST, (UUID(request.path_params["plant_id"]),), prepare=True)
            row = await cursor.fetchone()
        names = ("time", *(column.name for column in cursor.description or ()))
        return Response(orjson.dumps(dict(zip(names, row or (), strict=False))), media_type="application/json")

    @asynccontextmanager
    async def opened(_: Starlette) -> AsyncIterator[None]:
        async with pool:
            yield

    yield Starlette(routes=[Route("/{plant_id}", latest)], lifespan=opened)


@contextmanager
def _client(url: str) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection(urlsplit(url).netloc)
    yield client
    client.close()


def _get(client: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> None:
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    body = answer.read()
    assert answer.status == 200, body


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _requests_a_second(url: str, paths: list[str], headers: dict[str, str]) -> float:
    """As many clients, each with a connection that it keeps."""
    end = time.perf_counter() + SECONDS

    def ask(_: int) -> int:
        count = 0
        with _client(url) as client:
            while time.perf_counter() < end:
                _get(client, paths[count % len(paths)], headers)
                count += 1
        return count

    with ThreadPoolExecutor(CLIENTS) as clients:
        return sum(clients.map(ask, range(CLIENTS))) / SECONDS
