"""New samples are read once each, whatever the order in which transactions begin, write and end."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import partitions
from projections.live import LATE, Live, Place, recorded
from projections.samples import Sample, record_telemetry
from tests.measurements.conftest import Ask

WRITERS = 4
INSERT = "INSERT INTO telemetry (plant_id, time, soc) VALUES (%s, %s, 1)"

steps = st.lists(
    st.tuples(st.sampled_from(["write", "write in a savepoint", "commit", "roll back", "read"]), st.integers(0, 3)),
    min_size=5,
    max_size=40,
)


@pytest.fixture
def writers(database_url: str) -> Iterator[list[psycopg.Connection[Any]]]:
    with ExitStack() as stack:
        opened = [stack.enter_context(psycopg.connect(database_url)) for _ in range(WRITERS)]
        partitions.ensure(opened[0], 1, today=datetime.now(UTC).date() - timedelta(days=1))
        opened[0].commit()
        yield opened


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=steps, resumed=st.integers(0, 40))
def test_each_committed_sample_is_read_once(
    writers: list[psycopg.Connection[Any]], ask: Ask, steps: list[tuple[str, int]], resumed: int
) -> None:
    plant_id, now = uuid4(), datetime.now(UTC)
    _, place = ask(recorded, [plant_id], None)
    begin, written, committed, read = place, {n: set[datetime]() for n in range(WRITERS)}, set[datetime](), []
    for number, (step, n) in enumerate([*steps, *[("commit", n) for n in range(WRITERS)], ("read", 0)]):
        # Neither the order of times nor that of the writers is that of the transactions.
        time = now - timedelta(seconds=(number * 37) % 101, microseconds=number)
        match step:
            case "write":
                writers[n].execute(INSERT, (plant_id, time))
                written[n].add(time)
            case "write in a savepoint":
                writers[n].execute("SELECT pg_current_xact_id()")
                with writers[n].transaction():
                    writers[n].execute(INSERT, (plant_id, time))
                written[n].add(time)
            case "commit":
                writers[n].commit()
                committed |= written[n]
                written[n].clear()
            case "roll back":
                writers[n].rollback()
                written[n].clear()
            case "read":
                found, now_place = ask(recorded, [plant_id], place)
                assert place <= now_place
                place = now_place
                read += found
    times = [sample.row["time"] for sample in read]
    assert len(times) == len(set(times))
    assert set(times) == committed
    assert read == sorted(read, key=lambda sample: sample.place)
    # From any place on, in pages, come exactly those behind it.
    places = [begin, *(sample.place for sample in read)]
    at = places[resumed % len(places)]
    expected, pages = [sample for sample in read if sample.place > at], []
    while page := ask(recorded, [plant_id], at, 3)[0]:
        pages += page
        at = page[-1].place
    assert pages == expected


def test_late_samples_come_with_their_time_and_history_does_not(
    writers: list[psycopg.Connection[Any]], ask: Ask
) -> None:
    plant_id, now = uuid4(), datetime.now(UTC)
    _, place = ask(recorded, [plant_id], None)
    late, history = now - LATE + timedelta(minutes=1), now - LATE - timedelta(minutes=1)
    record_telemetry(writers[0], [Sample(plant_id, time, 1.0) for time in (now, late, history)])
    writers[0].commit()
    found, _ = ask(recorded, [plant_id], place)
    assert [sample.row["time"] for sample in found] == [late, now]


def test_a_place_is_its_text() -> None:
    place = Place(2**59, datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC))
    assert Place.parse(str(place)) == place
    for text in ("", "1", "1-", "-1-1", "1-1-1", "x-1", "9" * 19 + "-1", "1-" + "9" * 17, "\N{FULLWIDTH DIGIT ONE}-1"):
        assert Place.parse(text) is None


def test_one_reading_serves_all_and_only_while_somebody_watches(database_url: str) -> None:
    plants = [uuid4() for _ in range(20)]

    async def scenario() -> list[list[float | None]]:
        connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        writer = psycopg.connect(database_url, autocommit=True)
        readings = []

        async def question(asked: Any) -> Any:
            readings.append(asked)
            return await asked(connection)

        live = Live(question, every_s=0.01)
        running = asyncio.create_task(live.run())
        await asyncio.sleep(0.05)
        assert readings == []
        with ExitStack() as stack:
            watches = [stack.enter_context(live.watch(plant_id, 10)) for plant_id in plants for _ in range(10)]
            for watch in watches:
                await watch.moved.wait()
                watch.take()
            assert len(readings) <= 2
            now = datetime.now(UTC)
            record_telemetry(writer, [Sample(plant_id, now, float(n)) for n, plant_id in enumerate(plants)])
            for watch in watches:
                await watch.moved.wait()
            answer = [[sample.row["soc"] for sample in watch.take()] for watch in watches]
            # Too much for a buffer of ten: this one is lost, the others are not.
            record_telemetry(writer, [Sample(plants[0], now - timedelta(seconds=n), 1.0) for n in range(1, 12)])
            await watches[0].moved.wait()
            assert [watch.lost for watch in watches[:11]] == [True] * 10 + [False]
            live.end()
            assert all(watch.lost for watch in watches)
        running.cancel()
        await connection.close()
        writer.close()
        return answer

    assert asyncio.run(scenario()) == [[float(n)] for n in range(20) for _ in range(10)]


def test_what_came_while_the_database_did_not_answer_is_not_lost(database_url: str) -> None:
    plant_id = UUID(int=1)

    async def scenario() -> list[float | None]:
        connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        away = asyncio.Event()

        async def question(asked: Any) -> Any:
            if away.is_set():
                raise psycopg.OperationalError("the server is away")
            return await asked(connection)

        live = Live(question, every_s=0.01)
        running = asyncio.create_task(live.run())
        with live.watch(plant_id, 10) as watch:
            await watch.moved.wait()
            watch.take()
            away.set()
            with psycopg.connect(database_url, autocommit=True) as writer:
                record_telemetry(writer, [Sample(plant_id, datetime.now(UTC), 7.0)])
            await asyncio.sleep(0.05)
            assert watch.take() == []
            away.clear()
            await watch.moved.wait()
            found = [sample.row["soc"] for sample in watch.take()]
        running.cancel()
        await connection.close()
        return found

    assert asyncio.run(scenario()) == [7.0]
