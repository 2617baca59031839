"""The log under many writers and readers, lost connections, dry pools and maintenance."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent

from domain.errors import Unavailable
from domain.plant import Plant, PlantDescription
from infra.event_store import EventRecorder
from infra.packed_arrays import bigints, byteas, jsonbs, texts, uuids
from infra.postgres import CHECKOUT_TIMEOUT
from tests.event_log.conftest import ORGANISATION, SOMEBODY, Log, log_at
from tests.event_log.cut import Cut

WRITERS = 8
READERS = 3


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.bench)])
def test_tailing_readers_miss_nothing_and_see_everything_in_order(log: Log, seconds: int) -> None:
    end = time.monotonic() + seconds
    last: list[int] = []
    written_by = [0] * WRITERS
    seen: list[list[int]] = [[] for _ in range(READERS)]
    written = threading.Event()

    def write(number: int) -> None:
        # Half of them as if each were a process, whose single events go with no others; the rest share round trips.
        recorder = EventRecorder(log.pool) if number % 2 else log.events.recorder
        while time.monotonic() < end:
            written_by[number] += 1
            last.append(recorder.insert_events(_new(1 if number % 2 else 3), metadata=SOMEBODY)[-1])  # type: ignore[index]

    def tail(positions: list[int]) -> None:
        with log.connect() as connection:
            while not written.is_set() or positions[-1] < max(last):
                after = positions[-1] if positions else 0
                query = "SELECT position FROM events WHERE position > %s ORDER BY position"
                positions += [row[0] for row in connection.execute(query, [after])]

    readers = [threading.Thread(target=tail, args=(positions,)) for positions in seen]
    for reader in readers:
        reader.start()
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))
    written.set()
    for reader in readers:
        reader.join()

    assert min(written_by) > 0
    assert seen == [list(range(1, sum(written_by[1::2]) + sum(written_by[::2]) * 3 + 1))] * READERS
    assert log.execute("SELECT count(*) FROM (SELECT recorded_at < lag(recorded_at) OVER (ORDER BY position) AS fell"
                       " FROM events) AS times WHERE fell") == [(0,)]  # fmt: skip


def test_each_writer_gets_the_positions_of_its_own_events(log: Log) -> None:
    def write(number: int) -> list[tuple[int, Any]]:
        stored = _new(number % 4 + 1)
        positions = log.events.recorder.insert_events(stored, metadata=SOMEBODY)
        return list(zip(positions or [], [event.originator_id for event in stored], strict=True))

    with ThreadPoolExecutor(WRITERS) as writers:
        told = [each for written in writers.map(write, range(400)) for each in written]

    assert sorted(told) == log.execute("SELECT position, stream_id FROM events ORDER BY position")


def test_of_writers_that_meet_at_one_version_one_wins(log: Log) -> None:
    def write(_: int) -> int:
        event = StoredEvent(stream, 1, "plant:unlinked", b"{}")
        try:
            log.events.recorder.insert_events([event, *_new(1)], metadata=SOMEBODY)
        except IntegrityError:
            return 0
        return 1

    for _ in range(30):
        stream = uuid4()
        with ThreadPoolExecutor(WRITERS) as writers:
            assert sum(writers.map(write, range(WRITERS))) == 1
    assert log.execute("SELECT count(*), max(position) FROM events") == [(60, 60)]


@pytest.mark.parametrize("company", [0, 7])
def test_a_connection_cut_right_after_the_commit_is_a_success(log: Log, company: int) -> None:
    with Cut(log.url, b"plant:described") as cut, log_at(cut.url) as through:
        plant = through.plant()
        for _ in range(3):
            cut.armed.set()
            plant.link(PlantDescription(str(uuid4())))
            with ThreadPoolExecutor(company + 1) as writers:
                others = [writers.submit(through.plant) for _ in range(company)]
                assert through.save(plant) > 0
            for other in others:
                assert other.result().version
        stored = log.events.load(Plant, plant.id)
    assert cut.cuts == 3
    assert stored.version == plant.version == 5
    assert log.execute("SELECT count(*), max(position) FROM events") == [(5 + company * 3,) * 2]


def test_a_connection_cut_and_another_writer_first_is_a_conflict(log: Log) -> None:
    plant = log.plant()
    with Cut(log.url, b"plant:described") as cut, log_at(cut.url) as through:
        ours = through.events.load(Plant, plant.id)
        plant.link(PlantDescription("theirs"))
        log.save(plant)
        cut.armed.set()
        ours.link(PlantDescription("ours"))
        with pytest.raises(IntegrityError):
            through.save(ours)


def test_a_dry_pool_is_unavailable_soon(log: Log) -> None:
    with log_at(log.url, size=1) as narrow, narrow.pool.connection():
        begin = time.monotonic()
        with ThreadPoolExecutor(4) as writers:
            for refused in [writers.submit(narrow.plant) for _ in range(4)]:
                error = refused.exception()
                assert isinstance(error, Unavailable)
                assert error.retry_after
        # Together, not one after the other.
        assert time.monotonic() - begin < 3 * CHECKOUT_TIMEOUT


def test_appends_go_on_during_vacuum_and_index_creation(log: Log) -> None:
    log.events.recorder.insert_events(_new(1000), metadata=SOMEBODY)
    for maintenance in ("VACUUM events", "ANALYZE events", "CREATE INDEX CONCURRENTLY ON events (topic)"):
        # What these lock, for as long as the appends take.
        with log.connect() as connection, connection.transaction():
            connection.execute("LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE")
            _in_time(log.plant)
        log.execute(maintenance)
        log.plant()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_packed_arrays_are_what_postgres_reads(log: Log, count: int) -> None:
    ids, numbers = [uuid4() for _ in range(count)], [-1, 0, 2**62][:count]
    words, states = ["", "čtyři", "{,}\\\"'"][:count], [b"", b"\x00\xff", b"{}"][:count]
    documents = [b"{}", b'{"a": [1, null]}', b"[]"][:count]
    with log.connect() as connection:
        packed = (uuids(ids), bigints(numbers), texts(words), byteas(states), jsonbs(documents))
        row = connection.execute("SELECT %b, %b, %b, %b, %b", packed).fetchone()
    assert row == (ids, numbers, words, states, [json.loads(each) for each in documents])


def test_what_is_stored_beside_an_event(log: Log) -> None:
    log.plant()
    [(metadata, identified)] = log.execute("SELECT metadata, event_id IS NOT NULL FROM events")
    assert metadata == {
        "actor": "test",
        "source": "cli",
        "request_id": SOMEBODY.request_id,
        "correlation_id": SOMEBODY.request_id,
    }
    assert identified


def _new(count: int) -> list[StoredEvent]:
    state = (
        f'{{"external_plant_id":"P","name":"Plant","organization_id":"{ORGANISATION}",'
        '"timestamp":"2026-01-01T00:00:00Z"}'
    )
    return [StoredEvent(uuid4(), 1, "plant:created", state.encode()) for _ in range(count)]


def _in_time(work: Callable[[], object], seconds: float = 2.0) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()
