"""Rebuilds read models from the log beside the live ones, compares, and swaps them in while everything runs."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection

from application.publisher import Recorded
from projections import shadow
from projections.loading import Decode, Share, irrelevant_topics, load, no_garbage
from projections.read_model import ReadModel
from projections.shadow import Contents
from projections.slots import Connect, Filled, enter, filled_by
from projections.swaps import (
    SWAP_LOCK_TIMEOUT,
    NothingToRollBack,
    ReadModelsDiffer,
    RebuildError,
    RebuildRunning,
    only_one,
    record,
    rollback,
)
from projections.workers import WorkerFailed, load_in_parallel

__all__ = [
    "NothingToRollBack",
    "Progress",
    "ReadModelsDiffer",
    "RebuildError",
    "RebuildRunning",
    "Rebuilt",
    "WorkerFailed",
    "rebuild",
    "rollback",
]

PAGE = 2000
SWAP_ATTEMPTS = 100


@dataclass(frozen=True)
class Progress:
    """`done` of `total` events in a phase, `rate` a second, `eta` in seconds; the short phases count nothing."""

    phase: str
    done: int = 0
    total: int = 0
    rate: float = 0.0
    eta: float | None = None


@dataclass(frozen=True)
class Rebuilt:
    """A read model that was swapped at a position; `compared` with the live one, `difference` if there was one."""

    name: str
    position: int
    compared: bool
    difference: str | None
    swap_ms: float


@dataclass
class Shadow:
    """A read model being rebuilt, up to `position`."""

    model: ReadModel[Any]
    position: int
    comparable: bool
    difference: str | None = None


def rebuild(
    connect: Connect,
    decode: Decode,
    read_models: Sequence[ReadModel[Any]],
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
    force_reason: str | None = None,
) -> list[Rebuilt]:
    """Raises RebuildRunning, ReadModelsDiffer unless a reason is given, WorkerFailed. May be interrupted at any point:
    the live read models change in the last transaction only, and the next rebuild removes what is left of this one.

    With more than one worker, `connect`, `decode` and the read models must be picklable.
    """
    with rebuilding(connect, decode, workers, progress) as work:
        shadows = begin(work.connection, read_models)
        work.fill(shadows)
        work.compare([each for each in shadows if each.comparable])
        if not force_reason and any(each.difference for each in shadows):
            found = "; ".join(f"{each.model.name}: {each.difference}" for each in shadows if each.difference)
            raise ReadModelsDiffer(f"{found}. Compare the tables in the schema `{shadow.REBUILD}`, or give a reason")
        return work.swap(shadows, force_reason)


@contextmanager
def rebuilding(
    connect: Connect, decode: Decode, workers: int, progress: Callable[[Progress], None]
) -> "Iterator[Rebuilding]":
    """One at a time: raises RebuildRunning."""
    lightly = partial(_connect_lightly, connect, workers)
    with only_one(lightly) as connection, ExitStack() as stack:
        yield Rebuilding(lightly, decode, connection, stack, workers, progress)


def _connect_lightly(connect: Connect, workers: int) -> "Connection[Any]":
    """Nobody waits for the disk: what a power cut takes, the next rebuild makes anew. The swap does wait, for all."""
    connection = connect()
    # Several indexes are built, and two tables hashed, at once already. A small sample will do until autovacuum comes.
    connection.execute(
        "SET synchronous_commit = off; SET default_statistics_target = 25; SET max_parallel_maintenance_workers = 0;"
        f" SET max_parallel_workers_per_gather = {max(workers // 2 - 1, 0)}".encode()
    )
    return connection


def begin(connection: "Connection[Any]", read_models: Sequence[ReadModel[Any]]) -> list[Shadow]:
    """Each is loaded up to where its live one stands, if the two can be compared there, else to the log's end."""
    filled = {model.name: filled_by(connection, model) for model in read_models}
    enter(connection, list(filled), filled)
    end = _end(connection)
    shadows = []
    for model in read_models:
        row = connection.execute(
            "SELECT position, version, columns FROM slots WHERE name = %s", [model.name]
        ).fetchone()
        assert row is not None
        comparable = Filled(*row[1:]) == filled[model.name] and row[0] > 0
        shadows.append(Shadow(model, row[0] if comparable else end, comparable))
    return shadows


class Rebuilding:
    """The steps of one rebuild. Once they are filled, `connection` sees the shadows under the read models' names."""

    def __init__(
        self,
        connect: Connect,
        decode: Decode,
        connection: "Connection[Any]",
        stack: ExitStack,
        workers: int,
        progress: Callable[[Progress], None],
    ):
        self.connection = connection
        self._connect = connect
        self._stack = stack
        self._workers = workers
        self._others: list[Connection[Any]] = []
        self._decode = decode
        self._live = shadow.live_schema(connection)
        self._progress = progress

    def fill(self, shadows: Sequence[Shadow]) -> None:
        """Each up to its position, from the log's start."""
        for each in shadows:
            shadow.create(self.connection, self._live, each.model)
        shadow.turn_to_shadows(self.connection, self._live)
        postponed: dict[str, list[int]] = {}
        for end in sorted({each.position for each in shadows}):
            postponed |= self._load([each.model for each in shadows if each.position == end], end)
        self._progress(Progress("index"))
        shadow.index([self.connection, *self._beside(self._workers - 1)], self._live, [each.model for each in shadows])
        for each in shadows:
            self._apply_postponed(each.model, postponed[each.model.name])

    def _load(self, models: Sequence[ReadModel[Any]], end: int) -> dict[str, list[int]]:
        report = self._reporting("load", end)
        if self._workers > 1:
            return load_in_parallel(self._connect, self._decode, models, end, self._workers, report)
        with no_garbage():
            return load(self._connect, self._decode, models, Share(end), report).postponed

    def _beside(self, count: int) -> "list[Connection[Any]]":
        """Other connections, kept for the next step: a server's process that knows the tables works sooner."""
        while len(self._others) < count:
            self._others.append(self._stack.enter_context(self._connect()))
        return self._others[:count]

    def compare(self, shadows: Sequence[Shadow]) -> None:
        """Each with its live one, at the position that one snapshot shows both the slot and the table at."""
        [reader] = self._beside(1)
        with ThreadPoolExecutor(1) as thread:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            for each in shadows:
                self._progress(Progress(f"compare {each.model.name}"))
                with reader.transaction():
                    row = reader.execute("SELECT position FROM slots WHERE name = %s", [each.model.name]).fetchone()
                    if row is None or row[0] < each.position:
                        raise RebuildError(f"{each.model.name} went back meanwhile: start again")
                    there = thread.submit(shadow.contents, reader, self._live, each.model)
                    self._catch_up(each, row[0])
                    here = shadow.contents(self.connection, shadow.REBUILD, each.model)
                    each.difference = _difference(there.result(), here, each.position)

    def swap(self, shadows: Sequence[Shadow], reason: str | None) -> list[Rebuilt]:
        with self.connection.transaction():  # in one: the server looks through all its buffers for what it drops
            for each in shadows:
                shadow.drop_previous(self.connection, each.model)
        self._progress(Progress("swap"))
        for attempt in range(SWAP_ATTEMPTS):
            for each in shadows:
                self._catch_up(each, _end(self.connection))
            positions = [each.position for each in shadows]
            try:
                return self._swap(shadows, reason)
            except psycopg.errors.LockNotAvailable:
                for each, position in zip(shadows, positions, strict=True):
                    each.position = position
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 1.0)))
        raise RebuildError("readers don't let go of the tables: try again when they are less busy")

    def _swap(self, shadows: Sequence[Shadow], reason: str | None) -> list[Rebuilt]:
        """With the slots locked, so that the follower waits; readers wait for no more than the moves."""
        connection = self.connection
        names = [each.model.name for each in shadows]
        with connection.transaction():
            rows = connection.execute(
                "SELECT name, position, version, columns FROM slots WHERE name = ANY(%s) ORDER BY name FOR UPDATE",
                [names],
            )
            before = {row[0]: row[1:] for row in rows.fetchall()}
            end = _end(connection)
            for each in shadows:
                self._catch_up(each, end)
            filled = {each.model.name: filled_by(connection, each.model) for each in shadows}
            connection.execute("SET LOCAL synchronous_commit = on")
            connection.execute(f"SET LOCAL lock_timeout = '{SWAP_LOCK_TIMEOUT}'".encode())
            begin = time.perf_counter()
            for each in shadows:
                shadow.swap(connection, self._live, each.model)
            for each in shadows:
                name, why = each.model.name, reason if each.difference else None
                record(connection, name, filled[name], end, before[name], each.difference, why)
        swap_ms = (time.perf_counter() - begin) * 1000
        connection.execute("NOTIFY events")
        return [Rebuilt(each.model.name, end, each.comparable, each.difference, swap_ms) for each in shadows]

    def _catch_up(self, each: Shadow, end: int) -> None:
        """As the live follower does, on the shadow."""
        report = self._reporting(f"catch up {each.model.name}", end - each.position)
        begin = each.position
        skipped = irrelevant_topics([each.model])
        while each.position < end:
            page_end = min(each.position + PAGE, end)
            batch = self._events(
                "position > %s AND position <= %s AND topic <> ALL(%s)", each.position, page_end, skipped
            )
            self._apply(each.model, batch)
            each.position = page_end
            report(page_end - begin)

    def _apply_postponed(self, model: ReadModel[Any], positions: Sequence[int]) -> None:
        report = self._reporting(f"finish {model.name}", len(positions))
        for begin in range(0, len(positions), PAGE):
            page = list(positions[begin : begin + PAGE])
            self._apply(model, self._events("position = ANY(%s)", page))
            report(begin + len(page))

    def _apply(self, model: ReadModel[Any], batch: Sequence[Recorded]) -> None:
        with self.connection.transaction():
            model.apply(self.connection, batch)

    def _events(self, condition: str, *parameters: Any) -> list[Recorded]:
        query = f"SELECT position, topic, stream_id, version, state FROM events WHERE {condition} ORDER BY position"
        with self.connection.cursor(binary=True) as cursor:
            rows = cursor.execute(query.encode(), parameters).fetchall()
        return [Recorded(row[0], self._decode(row[1])(*row[2:]), {}) for row in rows]

    def _reporting(self, phase: str, total: int) -> Callable[[int], None]:
        begin = time.monotonic()

        def report(done: int) -> None:
            rate = done / max(time.monotonic() - begin, 1e-6)
            self._progress(Progress(phase, done, total, rate, (total - done) / rate if rate else None))

        return report


def _difference(live: Contents, rebuilt: Contents, position: int) -> str | None:
    if live == rebuilt:
        return None
    if live.rows != rebuilt.rows:
        return f"{live.rows} rows live, {rebuilt.rows} rebuilt, at position {position}"
    return f"equal row counts ({live.rows}), other contents, at position {position}"


def _end(connection: "Connection[Any]") -> int:
    row = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    assert row is not None
    return int(row[0])
