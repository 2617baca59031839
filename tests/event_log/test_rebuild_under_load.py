"""Rebuilds beside writers, readers and the follower: nobody fails, nobody sees the clock turned back."""

import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from projections.plants import PLANTS
from projections.read_models import READ_MODELS
from projections.rebuild import rebuild
from tests.event_log.conftest import Log


def test_while_writers_write_readers_read_and_the_follower_follows(filled: Log) -> None:
    with _under_load(filled):
        for workers in (1, 2, 1):
            rebuild(filled.connect, filled.decode, READ_MODELS, workers=workers)
    assert len(filled.rows()["plants"]) > 13


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.bench)])
def test_killed_under_load_a_rebuild_harms_nothing(filled: Log, kills: int) -> None:
    moments = random.Random(kills)
    begin = time.monotonic()
    rebuild(filled.connect, filled.decode, READ_MODELS)
    took = time.monotonic() - begin
    context = multiprocessing.get_context("spawn")
    with _under_load(filled):
        for _ in range(kills):
            begun = context.Event()
            process = context.Process(target=_rebuild_on_and_on, args=(filled.connect, filled.decode, begun))
            process.start()
            assert begun.wait(120)
            process.join(moments.uniform(0, 2 * took))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL


def test_a_slow_reader_is_waited_for_without_holding_up_the_others(filled: Log) -> None:
    with filled.connect() as slow, filled.connect() as quick:
        slow.execute("BEGIN; SELECT count(*) FROM plants")
        quick.execute("SET lock_timeout = '1s'")
        thread = threading.Thread(target=rebuild, args=(filled.connect, filled.decode, [PLANTS]))
        thread.start()
        while not filled.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'plants'::regclass"):
            assert thread.is_alive()
        for _ in range(20):
            quick.execute("SELECT count(*) FROM plants")
        slow.execute("COMMIT")
        thread.join()
    assert filled.execute("SELECT name FROM rebuilds") == [("plants",)]


def _rebuild_on_and_on(connect: Any, decode: Any, begun: Any) -> None:
    begun.set()
    while True:
        rebuild(connect, decode, READ_MODELS)


@contextmanager
def _under_load(filled: Log) -> Iterator[None]:
    """Meanwhile two write, three read, one follows; in the end nobody failed and all is as a fresh rebuild has it."""
    stop = threading.Event()
    failures: list[BaseException] = []
    threads = [threading.Thread(target=filled.follower().run, args=(stop,))]
    threads += [threading.Thread(target=_write, args=(filled, stop, failures)) for _ in range(2)]
    threads += [threading.Thread(target=_read, args=(filled, stop, failures)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    filled.follower().catch_up()
    live = filled.rows()
    rebuilt = rebuild(filled.connect, filled.decode, READ_MODELS)
    assert [each.difference for each in rebuilt] == [None] * len(READ_MODELS)
    assert filled.rows() == live


def _write(log: Log, stop: threading.Event, failures: list[BaseException]) -> None:
    try:
        while not stop.is_set():
            log.plant(renamed=2)
    except Exception as error:  # noqa: BLE001 - for the assert
        failures.append(error)


def _read(log: Log, stop: threading.Event, failures: list[BaseException]) -> None:
    """Plants only ever become more."""
    try:
        with log.connect() as connection:
            seen = 0
            while not stop.is_set():
                row = connection.execute("SELECT count(*), max(number) FROM plants", prepare=True).fetchone()
                assert row is not None
                assert row[0] >= seen
                seen = row[0]
    except (Exception, AssertionError) as error:  # noqa: BLE001 - for the assert
        failures.append(error)
