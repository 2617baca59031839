"""A follower of the log: what it misses, what stops it, who takes over."""

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from application.publisher import Recorded
from domain.plant import Plant
from infra.event_mapper import EventMapper
from infra.postgres import connect
from projections.follower import Follower
from projections.read_models import READ_MODELS
from projections.rebuild import rebuild
from projections.slots import resume
from tests.event_log.conftest import Log, dying

KILLS = 3
PATIENCE_S = 120.0  # that long only where something is wrong


@dataclass
class Heard:
    """A slot that keeps what it is given, and fails at the positions it is told to."""

    name: str
    fails_at: set[int] = field(default_factory=set)
    positions: list[int] = field(default_factory=list)
    classes: tuple[type, ...] = (Plant.Created,)

    def concerns(self, event: Any) -> bool:
        return isinstance(event, self.classes)

    def apply(self, connection: "Connection[Any]", batch: Sequence[Recorded]) -> None:
        bad = [recorded.position for recorded in batch if recorded.position in self.fails_at]
        if bad:
            raise RuntimeError(f"can't apply {bad[0]}")
        self.positions += [recorded.position for recorded in batch]


@contextmanager
def running(*followers: Follower) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=follower.run, args=(stop,)) for follower in followers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def reached(log: Log, position: int, name: str = "plants") -> float:
    """The seconds until a slot had come so far."""
    begin = time.monotonic()
    with log.connect() as connection:
        while time.monotonic() < begin + PATIENCE_S:
            row = connection.execute("SELECT position FROM slots WHERE name = %s", [name]).fetchone()
            if row is not None and row[0] >= position:
                return time.monotonic() - begin
    raise AssertionError(f"{name} did not reach {position}")


def test_positions_move_over_events_that_concern_nobody(log: Log) -> None:
    slot = Heard("heard", classes=())
    follower = Follower("test", [slot], log.connect, log.decode, page=2)
    for _ in range(5):
        log.plant()
    follower.catch_up()
    assert log.slot("heard").position == log.end() == 5


def test_a_bad_event_parks_its_slot_just_before_it_and_the_others_go_on(log: Log) -> None:
    bad, good = Heard("bad", {7}), Heard("good")
    follower = Follower("test", [bad, good], log.connect, log.decode)
    for _ in range(10):
        log.plant()

    follower.catch_up()
    parked = log.slot("bad")
    assert (parked.position, parked.parked_at, parked.error) == (6, 7, "RuntimeError: can't apply 7")
    assert bad.positions == [1, 2, 3, 4, 5, 6]
    assert good.positions == list(range(1, 11))

    bad.fails_at.clear()
    with log.connect() as connection:
        assert resume(connection, "bad")
        assert not resume(connection, "good")
    follower.catch_up()
    assert bad.positions == good.positions == list(range(1, 11))
    assert log.slot("bad").parked_at is None


def test_a_slot_far_behind_holds_up_none_and_sends_none_back(log: Log) -> None:
    """Pages of the one that lags must not move the others."""
    ahead, behind = Heard("ahead"), Heard("behind", {1})
    follower = Follower("test", [ahead, behind], log.connect, log.decode, page=3)
    for _ in range(10):
        log.plant()
    follower.catch_up()
    behind.fails_at.clear()
    with log.connect() as connection:
        resume(connection, "behind")
        log.plant()
        follower.step(connection)
        assert log.slot("ahead").position == 11
        assert log.slot("behind").position == 3
    follower.catch_up()
    assert ahead.positions == behind.positions == list(range(1, 12))


@pytest.mark.parametrize(
    ("topic", "state", "parks"),
    [
        ("plant:created", b"no JSON", {"heard"}),
        ("plant:created", b"{}", {"heard"}),
        ("os:system", b"{}", {"heard", "deaf"}),
    ],
)
def test_an_event_that_cannot_be_decoded_parks_whom_it_may_concern(
    log: Log, topic: str, state: bytes, parks: set[str]
) -> None:
    follower = Follower("test", [Heard("heard"), Heard("deaf", classes=())], log.connect, log.decode)
    plant = log.plant()
    log.plant()
    log.execute("UPDATE events SET topic = %s, state = %s WHERE position = 2", topic, state)
    log.save(_relinked(plant))

    follower.catch_up()
    slots = {name: log.slot(name) for name in ("heard", "deaf")}
    assert {name for name, slot in slots.items() if slot.parked_at == 2 and slot.position == 1} == parks
    assert {name for name, slot in slots.items() if slot.position == log.end()} == {"heard", "deaf"} - parks


def test_what_postgres_cannot_keep_parks_its_slot_and_no_other(log: Log) -> None:
    """A NUL, which JSON can hold and no text column can."""
    log.plant("plant\0")
    log.plant()
    log.follower().catch_up()
    assert log.slot("plants").parked_at == 1
    assert log.slot("command_log").lag == 0


def test_a_lost_notification_is_made_up_for(log: Log) -> None:
    follower = log.follower()
    with running(follower):
        reached(log, log.save(_relinked(log.plant())))
        follower.active.wait()
        with log.connect() as connection:
            # What append_to_events does, but for the NOTIFY.
            connection.execute(
                "INSERT INTO events SELECT position + 1, gen_random_uuid(), version, topic, state, event_id, metadata,"
                " recorded_at FROM events WHERE topic = 'plant:created'"
                .replace("position + 1", "(SELECT max(position) + 1 FROM events)").encode()
            )  # fmt: skip
        reached(log, log.end())


def test_a_crash_anywhere_in_a_step_repeats_nothing_and_loses_nothing(log: Log) -> None:
    """The connection dies at each statement of a step in turn."""
    for _ in range(3):
        log.plant(renamed=2)
    for statements in range(1, 200):
        follower = Follower("projector", READ_MODELS, lambda n=statements: dying(log, n), log.decode)  # type: ignore[misc]
        try:
            follower.catch_up()
        except psycopg.OperationalError:
            log.plant(renamed=1)
        else:
            break
    live = log.rows()
    assert statements > 15
    assert len(live["plants"]) == statements + 2
    assert [each.difference for each in rebuild(log.connect, log.decode, READ_MODELS)] == [None] * len(READ_MODELS)
    assert log.rows() == live


def test_of_two_followers_one_is_active_and_the_other_takes_over(log: Log) -> None:
    first, second = log.follower(), log.follower()
    stop = threading.Event()
    thread = threading.Thread(target=first.run, args=(stop,))
    thread.start()
    first.active.wait()
    with running(second):
        reached(log, log.save(_relinked(log.plant())))
        assert not second.active.is_set()
        stop.set()
        thread.join()
        assert second.active.wait(PATIENCE_S)
        reached(log, log.save(_relinked(log.plant())))


@pytest.mark.parametrize("kills", [KILLS, pytest.param(20, marks=pytest.mark.bench)])
def test_killed_under_load_another_takes_over_in_time_and_nothing_is_lost_or_repeated(log: Log, kills: int) -> None:
    context = multiprocessing.get_context("spawn")
    stop = threading.Event()
    writers = [threading.Thread(target=_write, args=(log, stop)) for _ in range(2)]
    standing = [_start(context, log) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(kills):
            reached(log, log.end())
            active = _active(log, standing)
            active.kill()
            reached(log, log.plant().version and log.end())  # within 2 s on a machine of its own
            standing.remove(active)
            active.join()
            standing.append(_start(context, log))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
        for process in standing:
            process.kill()
            process.join()
    log.follower().catch_up()
    live = log.rows()
    assert len(live["plants"]) == log.execute("SELECT count(*) FROM events WHERE topic = 'plant:created'")[0][0]
    assert [each.difference for each in rebuild(log.connect, log.decode, READ_MODELS)] == [None] * len(READ_MODELS)
    assert log.rows() == live


def _relinked(plant: Plant) -> Plant:
    plant.link(plant.description)
    return plant


def _write(log: Log, stop: threading.Event) -> None:
    while not stop.is_set():
        log.plant(renamed=2)


def _start(context: Any, log: Log) -> Any:
    process = context.Process(target=_follow, args=(log.url,), daemon=True)
    process.start()
    return process


def _follow(url: str) -> None:
    def open_connection() -> "Connection[Any]":
        return connect(url, f"follower {multiprocessing.current_process().pid}")

    follower = Follower("projector", READ_MODELS, open_connection, EventMapper().decoder, announces=True)
    follower.run(threading.Event())


def _active(log: Log, standing: Sequence[Any]) -> Any:
    """The process whose session holds the lock."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        rows = log.execute(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND classid = 1463899222 AND objsubid = 2 AND granted"
        )
        for process in standing:
            if rows and rows[0][0].endswith(f" {process.pid}"):
                return process
    raise AssertionError("no follower is active")
