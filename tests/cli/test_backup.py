"""A dump taken while events come in, restored into a new database, as the README tells operators to do it."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from infra.embedded.accounts import Account, programs
from infra.postgres import connect
from tests.cli.conftest import Run
from tests.event_log.conftest import Log, log_at
from tests.measurements.recomputed import differences

KEPT = ("events", "seals", "organisation_keys", "secrets", "telemetry", "telemetry_1m", "idempotency_keys")


@contextmanager
def writing(log: Log) -> Iterator[threading.Event]:
    """Appends without end; the event is set once it has begun."""
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.plant(renamed=2)
            begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield begun
    finally:
        stop.set()
        thread.join()


def rows(connection: "psycopg.Connection[Any]", table: str) -> list[Any]:
    return connection.execute(SQL("SELECT t::text FROM {} t ORDER BY 1").format(Identifier(table))).fetchall()


def call(program: str, *words: str | Path) -> None:
    """One of PostgreSQL's own, of the server's release."""
    done = subprocess.run([programs(Account()) / program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dump_under_load_restores_to_what_was(
    run: Run, database_url: str, empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("orgs", "create", "acme")
    run("plants", "register", "acme", "plant-7")
    key = json.loads(run("keys", "mint", "acme", "--scope", "trading:read", "--json"))
    history = tmp_path / "history.csv"
    history.write_text("time,soc\n" + "".join(f"2026-11-01T00:{n:02}:00Z,{n}\n" for n in range(60)))
    run("measurements", "import", "acme", str(history), "--plant", "plant-7")
    anchor = json.loads(run("audit", "export", str(tmp_path / "bundle.zip"), "--json"))[0]["anchor"]
    with psycopg.connect(database_url) as connection:
        before = {table: rows(connection, table) for table in KEPT}
    with log_at(database_url) as log, writing(log) as begun:
        assert begun.wait(60)
        call("pg_dump", "--format=custom", "--file", tmp_path / "dump", database_url)

    call("pg_restore", "--exit-on-error", "--no-owner", "--dbname", empty_database_url, tmp_path / "dump")
    monkeypatch.setenv("WATTLEDGER_DATABASE_URL", empty_database_url)
    assert run("migrate") == "Nothing to do.\n"
    with connect(empty_database_url, "test") as connection:
        for table, was in before.items():
            assert set(was) <= set(rows(connection, table)), table
        assert not any(differences(connection).values())
    kept = tmp_path / "anchor"
    kept.write_text(anchor)
    found = json.loads(run("audit", "verify", "--anchor", str(kept), "--json"))
    assert (found["intact"], found["trust"]) == (True, "operator")
    names = [each["name"] for each in json.loads(run("projections", "rebuild", "--json"))]
    assert {"organisations", "api_keys", "plants"} <= set(names)

    # Life goes on there: positions without a gap, secrets that open, the key that was minted before.
    run("plants", "register", "acme", "plant-8")
    assert [each["id"] for each in json.loads(run("keys", "list", "acme", "--json"))] == [key["id"]]
    run("secrets", "status")
    run("audit", "export", str(tmp_path / "after.zip"))
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT max(position) - count(*) FROM events").fetchone() == (0,)
