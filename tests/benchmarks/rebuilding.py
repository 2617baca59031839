"""Rebuilds beside a bare read of the log, and under readers; and deep pages of what they fill."""

import asyncio
import multiprocessing
import os
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from infra.event_mapper import EventMapper
from infra.postgres import connect
from projections.command_log import CommandLogQuery, command_log
from projections.read_models import FOLDED
from projections.rebuild import Rebuilt, rebuild
from tests.benchmarks.harness import ROUNDS, Bench, Goal, Result, benchmark, compare, rate
from tests.benchmarks.history import fill

EVENTS = 300_000
DEEP_ROWS = 1_000_000
WORKERS = os.cpu_count() or 1
PLANT = UUID("44444444-4444-4444-8444-444444444444")


@benchmark("rebuild", Goal(0.30, 0.43), "events/s")
def rebuild_beside_cursor(bench: Bench) -> Result:
    """All read models, with indexes and swap, in one process."""
    return _beside_cursor(bench, 1)


@benchmark("rebuild_workers", Goal(0.60, 0.80), "events/s")
def rebuild_workers(bench: Bench) -> Result:
    return _beside_cursor(bench, WORKERS)


def _beside_cursor(bench: Bench, workers: int) -> Result:
    """In a process of its own, as a rebuild is: one that other benchmarks have filled takes longer to fork."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_compared, history(bench), workers).result()


def _compared(url: str, workers: int) -> Result:
    ours = partial(rebuild_all, url, workers)
    return compare(lambda: rate(ours, EVENTS), lambda: rate(partial(_read, url), EVENTS))


@benchmark("rebuild_swap", Goal(100, 10, lower=True, ms=True), "ms")
def rebuild_swap(bench: Bench) -> Result:
    """How long the swap held its locks, of ROUNDS rebuilds, under readers who count what failed or went back."""
    url = history(bench)
    stop = threading.Event()
    waits: list[float] = []
    wrong: list[str] = []
    readers = [threading.Thread(target=_watch, args=(url, stop, waits, wrong)) for _ in range(3)]
    for reader in readers:
        reader.start()
    swaps = [rebuild_all(url)[0].swap_ms for _ in range(ROUNDS)]
    stop.set()
    for reader in readers:
        reader.join()
    if wrong:
        raise AssertionError(f"{len(wrong)} reads failed or went back, first: {wrong[0]}")
    return Result(statistics.median(swaps), note=f"{len(waits):,} reads, 0 failed, 0 back, longest {max(waits):.0f} ms")


@benchmark("deep_page", Goal(1.5, 1.1, lower=True), "ms, p50")
def deep_page(bench: Bench) -> Result:
    """Page 10 000 of a plant's command log beside page 1."""
    with bench.database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO command_log (id, organization_id, plant_id, number, type_number, command_type, message_id,"
                " routing_key, site_id, payload, status, created_at) SELECT gen_random_uuid(), %(id)s, %(id)s, n, n,"
                " 'SITE_SETPOINT', gen_random_uuid(), 'acme.command', 'site', '{\"a\": 1}', 'EXECUTED', now()"
                " FROM generate_series(1, %(rows)s) n",
                {"id": PLANT, "rows": DEEP_ROWS},
            )
            connection.execute("VACUUM ANALYZE command_log")
        return compare(lambda: asyncio.run(_page_ms(url, 10_000)), lambda: asyncio.run(_page_ms(url, 1)))


def rebuild_all(url: str, workers: int = 1) -> list[Rebuilt]:
    return rebuild(partial(connect, url, "rebuild"), EventMapper().decoder, FOLDED, workers=workers)


def _read(url: str) -> None:
    with connect(url, "raw") as connection, connection.transaction(), connection.cursor(name="raw") as cursor:
        cursor.execute("SELECT position, stream_id, version, topic, state FROM events ORDER BY position")
        for _ in cursor:
            pass


def history(bench: Bench) -> str:
    """The URL of a database with a log of EVENTS, and its read models at the end of it."""
    name = f"history of {EVENTS}"
    if name not in bench.shared:
        bench.shared[name] = bench.exit.enter_context(bench.database())
        with psycopg.connect(bench.shared[name], autocommit=True) as connection:
            fill(connection, EVENTS)
        rebuild_all(bench.shared[name])
    url: str = bench.shared[name]
    return url


def _watch(url: str, stop: threading.Event, waits: list[float], wrong: list[str]) -> None:
    """Reads on and on what never changes; in ms."""
    with connect(url, "reader") as connection:
        rows = connection.execute("SELECT count(*) FROM command_log").fetchone()
        while not stop.is_set():
            begin = time.perf_counter()
            try:
                seen = connection.execute("SELECT count(*) FROM command_log", prepare=True).fetchone()
            except psycopg.Error as error:
                wrong.append(str(error))
                return
            if seen != rows:
                wrong.append(f"{seen} rows after {rows}")
            waits.append((time.perf_counter() - begin) * 1000)


async def _page_ms(url: str, page: int) -> float:
    times = []
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(200):
            begin = time.perf_counter()
            found = await command_log(connection, PLANT, CommandLogQuery(page=page, limit=100))
            times.append((time.perf_counter() - begin) * 1000)
            assert len(found.data) == 100
    return statistics.median(times)
