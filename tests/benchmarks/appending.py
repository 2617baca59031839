"""The write side: how near an append comes to a bare INSERT of the same columns, alone and in company."""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from eventsourcing.persistence import StoredEvent
from psycopg import Connection
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from application.context import Metadata, acting
from application.event_log import EventLog
from domain.plant import Plant, PlantDescription
from infra.event_mapper import EventMapper
from infra.event_store import event_log
from infra.postgres import connect, pool
from interfaces.worker.worker import GARBAGE
from projections.follower import Connect, Follower
from projections.read_models import READ_MODELS
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, percentile, rate

WHO = Metadata(actor="partner:acme", source="amqp", request_id=str(uuid4()), correlation_id="c-1")
RAW = (
    "INSERT INTO raw_events (stream_id, version, topic, state, event_id, metadata, recorded_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
SECONDS = 2.0


@benchmark("append_1", Goal(0.60, 0.70), "events/s")
def append_1(bench: Bench) -> Result:
    return _beside_raw(bench, 1)


@benchmark("append_16", Goal(0.55, 0.85), "events/s")
def append_16(bench: Bench) -> Result:
    return _beside_raw(bench, 16)


@benchmark("append_batch", Goal(0.80, 1.0), "events/s")
def append_batch(bench: Bench) -> Result:
    """100 events a save."""
    with _log(bench, 1) as (events, raw):

        def ours() -> None:
            for _ in range(30):
                events.recorder.insert_events([_stored() for _ in range(100)], metadata=WHO)

        def theirs() -> None:
            for _ in range(30):
                with raw.connection() as connection, connection.transaction():
                    connection.cursor().executemany(RAW, [_raw_row(_stored()) for _ in range(100)])

        return compare(lambda: rate(ours, 3000), lambda: rate(theirs, 3000))


@benchmark("command", Goal(0.30, 0.45), "commands/s")
def command(bench: Bench) -> Result:
    """Load an aggregate, decide, save with metadata."""
    with _log(bench, 1) as (events, raw):
        plant = Plant(organization_id=uuid4(), external_plant_id="P1", name="Plant")
        with acting(WHO):
            events.save(plant)

        def ours() -> None:
            for _ in range(500):
                loaded = events.load(Plant, plant.id)
                loaded.link(PlantDescription(str(uuid4())))
                with acting(WHO):
                    events.save(loaded)

        with acting(WHO):
            loaded = events.load(Plant, plant.id)
            loaded.link(PlantDescription("linked"))
            events.save(loaded)
        return compare(lambda: rate(ours, 500), lambda: rate(lambda: _insert(raw, 500), 500))


@benchmark("append_followed", Goal(0.90, 0.97), "events/s")
def append_followed(bench: Bench) -> Result:
    """With the projector following in a process of its own, and without."""
    with _log(bench, 2) as (events, _):

        def paced() -> float:
            return _writing(2, lambda: _append(events))

        with following(events.recorder.pool.conninfo) as alive:  # type: ignore[attr-defined]

            def ours() -> float:
                alive.send(True)
                alive.recv()
                return paced()

            def alone() -> float:
                alive.send(False)
                alive.recv()
                return paced()

            return compare(ours, alone, rounds=9, note="2 writers")


@benchmark("read_own_write", Goal(10, 4, lower=True, ms=True), "ms, p50")
def read_own_write(bench: Bench) -> Result:
    """From the save to the announcement that every read model shows it."""
    with _log(bench, 1) as (events, _):
        url = events.recorder.pool.conninfo  # type: ignore[attr-defined]
        with following(url), connect(url, "waiting") as waiting:
            waiting.execute("LISTEN projected")
            times = [_seen_after(events, waiting) for _ in range(220)][20:]
        return Result(statistics.median(times), note=f"p99 {percentile(times, 99):.1f} ms")


def projector(connect: Connect) -> Follower:
    return Follower("projector", READ_MODELS, connect, EventMapper().decoder, announces=True)


@contextmanager
def following(url: str, follower: Callable[[Connect], Any] = projector) -> Iterator[Any]:
    """A follower in a process of its own, which follows while the last word was True; answers each word."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_follow, args=(url, theirs, follower), daemon=True)
    process.start()
    ours.send(True)
    ours.recv()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def _follow(url: str, pipe: Any, make: Callable[[Connect], Any]) -> None:
    # As in a worker.
    gc.freeze()
    gc.set_threshold(GARBAGE)

    def lightly() -> Connection[Any]:
        connection = connect(url, "follower")
        connection.execute("SET synchronous_commit = off")
        return connection

    running: tuple[threading.Event, threading.Thread] | None = None
    while True:
        wanted = pipe.recv()
        if wanted and running is None:
            follower = make(lightly)
            stop = threading.Event()
            running = stop, threading.Thread(target=follower.run, args=(stop,), daemon=True)
            running[1].start()
            follower.active.wait()
        elif not wanted and running is not None:
            running[0].set()
            running[1].join()
            running = None
        pipe.send(True)


@contextmanager
def _log(bench: Bench, writers: int) -> Iterator[tuple[EventLog, "ConnectionPool[Connection[Any]]"]]:
    """Our log, and beside it a table with the same columns and indexes for the baseline."""
    with ExitStack() as stack:
        url = stack.enter_context(bench.database())
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE raw_events (LIKE events INCLUDING ALL)")
            connection.execute("ALTER TABLE raw_events ALTER position ADD GENERATED ALWAYS AS IDENTITY")
        ours, raw = (stack.enter_context(pool(url, writers, name)) for name in ("ours", "raw"))
        yield event_log(ours), raw


def _beside_raw(bench: Bench, writers: int) -> Result:
    with _log(bench, writers) as (events, raw):
        return compare(
            lambda: _writing(writers, lambda: _append(events)), lambda: _writing(writers, lambda: _insert(raw, 1))
        )


def _writing(writers: int, write: Callable[[], object]) -> float:
    """Writes a second by so many threads."""
    counts = [0] * writers
    begin = time.perf_counter()

    def work(number: int) -> None:
        while time.perf_counter() < begin + SECONDS:
            write()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def _append(events: EventLog) -> None:
    events.recorder.insert_events([_stored()], metadata=WHO)


def _insert(raw: "ConnectionPool[Connection[Any]]", count: int) -> None:
    for _ in range(count):
        with raw.connection() as connection:
            connection.execute(RAW, _raw_row(_stored()))


def _stored(stream_id: UUID | None = None) -> StoredEvent:
    """An event of which the read models keep a row."""
    state = (
        b'{"external_plant_id":"P1","name":"Plant","organization_id":"2f1f3f0e-7d3c-4a43-8a44-0a4c8f8a5b11",'
        b'"timestamp":"2026-01-01T00:00:00Z"}'
    )
    return StoredEvent(stream_id or uuid4(), 1, "plant:created", state)


def _raw_row(stored: StoredEvent) -> tuple[Any, ...]:
    metadata = {"actor": WHO.actor, "source": WHO.source, "request_id": WHO.request_id}
    identity = (stored.originator_id, stored.originator_version, stored.topic, stored.state)
    return (*identity, uuid4(), Jsonb(metadata), datetime.now(UTC))


def _seen_after(events: EventLog, waiting: "Connection[Any]") -> float:
    begin = time.perf_counter()
    position = events.recorder.insert_events([_stored()], metadata=WHO)[-1]  # type: ignore[index]
    for notify in waiting.notifies(timeout=5):
        if int(notify.payload) >= position:
            break
    return (time.perf_counter() - begin) * 1000
