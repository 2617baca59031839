"""A rolling upgrade: while migrations are applied, and while old and new processes run side by side, nothing stops."""

import multiprocessing
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest

from domain.catalogue import EVENTS
from infra.event_mapper import EventMapper
from infra.postgres import connect
from projections import schema
from projections.follower import Follower
from projections.read_models import READ_MODELS
from projections.rebuild import rebuild
from tests.event_log.conftest import Log, log_at
from tests.running.conftest import Programs
from tests.worker.site import until

FIRST_RELEASE = 11
"""The last migration before there was anybody to upgrade."""

TAKES_AWAY = (
    r"\bDROP\s+(?!INDEX\b|TRIGGER\b)\w+",
    r"\bRENAME\b",
    r"\bALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE\b",
    r"\bSET\s+NOT\s+NULL\b",
    r"\bADD\s+COLUMN\s+(?:(?!,|;|\bDEFAULT\b).)*\bNOT\s+NULL\b(?!(?:(?!,|;).)*\bDEFAULT\b)",
    r"\b(TRUNCATE|DELETE\s+FROM)\b",
)
UNKNOWN_TO_OLD = "plant:linked"


def taken_away(sql: str) -> list[str]:
    """What in a migration running code could miss."""
    bare = re.sub(r"--[^\n]*", "", sql)
    return [found[0] for pattern in TAKES_AWAY for found in re.finditer(pattern, bare, re.IGNORECASE | re.DOTALL)]


def test_migrations_only_add() -> None:
    assert {each.name: taken_away(each.text) for each in schema.read()[FIRST_RELEASE:] if taken_away(each.text)} == {}


@pytest.mark.parametrize(
    ("sql", "breaks"),
    [
        ("ALTER TABLE plants ADD COLUMN note text", False),
        ("ALTER TABLE plants ADD COLUMN note text NOT NULL DEFAULT ''", False),
        ("ALTER TABLE plants ADD COLUMN note text DEFAULT '' NOT NULL", False),
        ("CREATE TABLE notes (id uuid NOT NULL); -- then DROP TABLE plants", False),
        ("ALTER TABLE plants ADD COLUMN note text NOT NULL", True),
        ("ALTER TABLE plants ADD COLUMN a int DEFAULT 0, ADD COLUMN note text NOT NULL", True),
        ("ALTER TABLE plants DROP COLUMN name", True),
        ("ALTER TABLE plants RENAME COLUMN name TO title", True),
        ("ALTER TABLE plants ALTER COLUMN name TYPE varchar", True),
        ("ALTER TABLE plants ALTER name TYPE varchar", True),
        ("ALTER TABLE plants ALTER COLUMN linked SET NOT NULL", True),
        ("drop table plants", True),
        ("DELETE FROM slots", True),
    ],
)
def test_what_takes_away_is_seen(sql: str, breaks: bool) -> None:
    assert bool(taken_away(sql)) == breaks


@pytest.fixture
def additions(tmp_path: Path) -> Path:
    """Ours, and one that adds to all that processes use."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.FOLDER, folder)
    tables = ["events", "slots", "secrets", "idempotency_keys", "telemetry", *(model.name for model in READ_MODELS)]
    added = [f"ALTER TABLE {table} ADD COLUMN added text; CREATE INDEX ON {table} (added);" for table in tables]
    (folder / "9001_additions.sql").write_text("\n".join(added))
    return folder


class Callers:
    """They change and read a config through one API, without end."""

    def __init__(self, url: str, key: str) -> None:
        self.answers: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(f"{url}/api/v1/trading/config", {"X-API-Key": key}))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.answers) + count
        until(lambda: len(self.answers) >= wanted, "calls")

    def _call(self, url: str, headers: dict[str, str]) -> None:
        with httpx.Client(headers=headers, trust_env=False, timeout=60) as client:
            while not self._stop.wait(0.005):
                name = f"client-{len(self.answers)}"
                changed = client.post(url, json={"esmClientId": name})
                read = client.get(url, headers={"X-Position-AtLeast": changed.headers.get("x-position", "0")})
                wrong = "" if read.status_code == 200 and read.json()["esmClientId"] == name else read.text
                self.answers.append("" if changed.status_code == 200 and not wrong else changed.text + wrong)


def test_migrations_are_applied_while_older_processes_work(programs: Programs, additions: Path) -> None:
    api, url = programs.serve()
    worker = programs.work()
    key = programs.organisation("acme")
    api.start()
    worker.start()
    ask = partial(httpx.get, f"{url}/api/v1/trading/config", headers={"X-API-Key": key}, trust_env=False)
    until(lambda: ask().status_code == 200, "rights")
    with Callers(url, key) as callers:
        callers.wait_for_more(20)
        # Somebody reads for long: the migration may not hold up those who come after it.
        with psycopg.connect(programs.url) as reader, psycopg.connect(programs.url) as connection:
            reader.execute("SELECT count(*) FROM events, plants, trading_configs")
            applied: list[str] = []
            migrating = threading.Thread(target=lambda: applied.extend(schema.migrate(connection, additions)))
            migrating.start()
            callers.wait_for_more(20)
            reader.rollback()
            migrating.join()
        callers.wait_for_more(20)
    assert applied == ["9001_additions.sql"]
    assert set(callers.answers) == {""}
    with connect(programs.url, "test") as connection:
        assert connection.execute("SELECT name FROM slots WHERE parked_at IS NOT NULL").fetchall() == []
    rebuilt = rebuild(partial(connect, programs.url, "rebuild"), EventMapper().decoder, READ_MODELS)
    assert {each.name: each.difference for each in rebuilt if each.difference} == {}


@pytest.fixture
def log(database_url: str) -> Iterator[Log]:
    with log_at(database_url) as opened:
        yield opened


def _follow_as_older(url: str) -> None:
    del EVENTS[UNKNOWN_TO_OLD]
    decode = EventMapper().decoder
    Follower("projector", READ_MODELS, partial(connect, url, "older"), decode, announces=True).run(threading.Event())


@pytest.fixture
def older(log: Log) -> Iterator[BaseProcess]:
    """A process that follows the log, and does not know an event that newer ones record."""
    process = multiprocessing.get_context("spawn").Process(target=_follow_as_older, args=(log.url,), daemon=True)
    process.start()
    try:
        until(lambda: log.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"))
        yield process
    finally:
        process.kill()
        process.join()


def caught_up(log: Log) -> bool:
    log.follower().catch_up()  # nothing, while the older one holds the lock
    return bool(slot(log) == (log.end(), None))


def slot(log: Log) -> Any:
    """None until a follower has entered it."""
    return next(iter(log.execute("SELECT position, parked_at FROM slots WHERE name = 'plants'")), None)


@pytest.mark.usefixtures("older")
def test_an_older_follower_stands_aside_for_a_newer_one(log: Log) -> None:
    stop, newer = threading.Event(), log.follower()
    thread = threading.Thread(target=newer.run, args=(stop,))
    thread.start()
    try:
        log.plant(renamed=1)
        until(newer.active.is_set, "the take-over")
        until(lambda: slot(log) == (log.end(), None), "what is new")
    finally:
        stop.set()
        thread.join()


def test_what_an_older_follower_parked_at_goes_on_with_a_newer_one(log: Log, older: BaseProcess) -> None:
    log.plant()
    log.plant(renamed=1)
    until(lambda: slot(log) == (2, 3), "that it parks")
    assert log.execute("SELECT error FROM slots WHERE name = 'plants'") == [
        (f"{UNKNOWN_TO_OLD} is not in the catalogue of events",)
    ]
    older.kill()
    until(lambda: caught_up(log), "what is new")
    assert [each.difference for each in rebuild(log.connect, log.decode, READ_MODELS)] == [None] * len(READ_MODELS)
