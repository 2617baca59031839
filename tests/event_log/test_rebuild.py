"""A rebuild leaves every read model as it was, whatever happens meanwhile."""

import multiprocessing
import os
import signal
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from projections.plants import PLANTS
from projections.read_models import READ_MODELS
from projections.rebuild import (
    NothingToRollBack,
    Progress,
    ReadModelsDiffer,
    RebuildRunning,
    rebuild,
    rollback,
)
from projections.slots import resume
from projections.workers import WorkerFailed
from tests.benchmarks.history import fill
from tests.event_log.conftest import EVENTS, Log


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_read_model_stays_byte_for_byte_as_it_was(filled: Log, workers: int) -> None:
    before, shape = filled.rows(), _shape(filled)

    rebuilt = rebuild(filled.connect, filled.decode, READ_MODELS, workers=workers)

    assert filled.rows() == before
    assert _shape(filled) == shape
    assert [(each.name, each.position, each.compared, each.difference) for each in rebuilt] == [
        (model.name, EVENTS, True, None) for model in READ_MODELS
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_written_before_their_last_event_came_are_finished(
    filled: Log, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled.rows()
    monkeypatch.setattr("projections.loading.WAITING", 1)
    monkeypatch.setattr("projections.loading.RANGE", 50)

    rebuild(filled.connect, filled.decode, READ_MODELS, workers=workers)

    assert filled.rows() == before


def test_read_models_that_no_follower_filled_are_made(log: Log) -> None:
    with log.connect() as connection:
        fill(connection, EVENTS)
    rebuild(log.connect, log.decode, READ_MODELS, workers=2)
    rebuilt = log.rows()

    for model in READ_MODELS:
        log.execute(f"TRUNCATE {model.name}")
    log.execute("UPDATE slots SET position = 0")
    log.follower().catch_up()

    assert log.rows() == rebuilt
    assert rebuilt["command_log"]


def test_progress_tells_phase_count_rate_and_time_left(filled: Log) -> None:
    heard: list[Progress] = []

    rebuild(filled.connect, filled.decode, READ_MODELS, progress=heard.append)

    loaded = [each for each in heard if each.phase == "load"][-1]
    assert (loaded.done, loaded.total, loaded.eta) == (EVENTS, EVENTS, 0)
    assert loaded.rate > 0
    assert {each.phase for each in heard} >= {"index", "compare plants", "swap"}


def test_a_difference_at_the_same_position_is_refused_unless_told_why(filled: Log) -> None:
    filled.execute("UPDATE plants SET name = 'tampered' WHERE number = 1")
    tampered = filled.table("plants")

    with pytest.raises(ReadModelsDiffer, match="plants: equal row counts"):
        rebuild(filled.connect, filled.decode, [PLANTS])
    assert filled.table("plants") == tampered

    rebuild(filled.connect, filled.decode, [PLANTS], force_reason="repaired by hand once")
    assert filled.table("plants") != tampered
    [(difference, reason)] = filled.execute("SELECT difference, reason FROM rebuilds")
    assert "other contents" in difference
    assert reason == "repaired by hand once"


def test_rollback_puts_the_previous_table_back_and_the_follower_goes_on(filled: Log) -> None:
    before = filled.table("plants")
    rebuild(filled.connect, filled.decode, [PLANTS])
    filled.plant()

    assert rollback(filled.connect, "plants") == EVENTS
    assert filled.table("plants") == before
    filled.follower().catch_up()
    assert len(filled.table("plants")) == len(before) + 1


def test_nothing_to_roll_back(filled: Log) -> None:
    with pytest.raises(NothingToRollBack):
        rollback(filled.connect, "plants")


def test_a_second_rebuild_is_told_that_one_is_running(filled: Log) -> None:
    def start_another(progress: Progress) -> None:
        with pytest.raises(RebuildRunning):
            rebuild(filled.connect, filled.decode, [PLANTS])

    rebuild(filled.connect, filled.decode, [PLANTS], progress=start_another)


@pytest.mark.parametrize("phase", ["load", "index", "compare organisations", "swap"])
def test_an_interrupted_rebuild_changes_nothing_and_the_next_one_succeeds(filled: Log, phase: str) -> None:
    before = filled.rows()

    def interrupt(progress: Progress) -> None:
        if progress.phase == phase:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(filled.connect, filled.decode, READ_MODELS, workers=2, progress=interrupt)

    assert filled.rows() == before
    rebuild(filled.connect, filled.decode, READ_MODELS)
    assert filled.rows() == before


def test_a_killed_rebuild_changes_nothing_and_the_next_one_succeeds(filled: Log) -> None:
    before = filled.rows()
    context = multiprocessing.get_context("spawn")
    for phase in ("load", "index", "compare plants"):
        process = context.Process(target=_rebuild_until, args=(filled.connect, filled.decode, phase))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert filled.rows() == before

    rebuild(filled.connect, filled.decode, READ_MODELS, workers=2)
    assert filled.rows() == before


def test_a_killed_worker_is_said(filled: Log) -> None:
    before = filled.rows()
    with pytest.raises(WorkerFailed, match="killed"):
        rebuild(filled.connect, _die, READ_MODELS, workers=2)
    assert filled.rows() == before


def test_a_worker_that_fails_says_why(filled: Log) -> None:
    filled.execute("UPDATE events SET topic = 'os:system' WHERE position = 700")
    with pytest.raises(WorkerFailed, match="os:system is not in the catalogue"):
        rebuild(filled.connect, filled.decode, READ_MODELS, workers=2)


def test_a_changed_read_model_is_refused_until_it_is_rebuilt(filled: Log) -> None:
    changed = replace(PLANTS, version=2)
    models = [changed, *[model for model in READ_MODELS if model is not PLANTS]]
    position = filled.plant().version + EVENTS
    follower = filled.follower()
    follower.slots = {model.name: model for model in models}

    follower.catch_up()
    stopped = filled.slot()
    assert (stopped.position, stopped.error) == (EVENTS, "changed: run `wattledger projections rebuild plants`")
    assert filled.slot("command_log").position == position

    with filled.connect() as connection:
        assert resume(connection, "plants")
    follower.catch_up()
    assert filled.slot().parked_at is not None

    [rebuilt] = rebuild(filled.connect, filled.decode, [changed])
    assert (rebuilt.compared, rebuilt.position) == (False, position)
    follower.catch_up()
    assert filled.slot().parked_at is None


def test_changed_columns_are_refused_until_rebuilt(filled: Log) -> None:
    filled.execute("ALTER TABLE plants ALTER misses TYPE bigint")

    filled.plant()
    filled.follower().catch_up()
    assert "changed" in (filled.slot().error or "")
    rebuild(filled.connect, filled.decode, [PLANTS])
    filled.follower().catch_up()
    assert filled.slot().lag == 0


def _die(topic: str) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(topic)


def _rebuild_until(connect: Any, decode: Any, phase: str) -> None:
    def kill(progress: Progress) -> None:
        if progress.phase == phase:
            os.kill(os.getpid(), signal.SIGKILL)

    rebuild(connect, decode, READ_MODELS, workers=2, progress=kill)


def _shape(log: Log) -> list[tuple[Any, ...]]:
    """What the tables look like beside their rows."""
    return log.execute(
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL"
        " SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace UNION ALL"
        " SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod) || attnum || attnotnull"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relkind = 'r' AND attnum > 0"
        " AND relnamespace = 'public'::regnamespace ORDER BY 1, 2, 3"
    )
