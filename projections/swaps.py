"""The swaps of rebuilds: one rebuild at a time, each swap written down, the last one undone by a rollback."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import Connection

from projections import shadow
from projections.slots import Connect, Filled
from projections.workers import LOCK_CLASS

# Readers wait behind us while we wait for those before us: shortly, and more often instead.
SWAP_LOCK_TIMEOUT = "50ms"


class RebuildError(Exception):
    """The rebuild can't go on; the live read models are as they were"""


class RebuildRunning(RebuildError):
    """Another rebuild is running"""


class ReadModelsDiffer(RebuildError):
    """The rebuilt read models differ from the live ones at the same position, though their code is the same"""


class NothingToRollBack(RebuildError):
    """No previous table is kept of that read model"""


def rollback(connect: Connect, name: str) -> int:
    """Puts the previous table back, and keeps the present one as previous. Returns the position that it stands at; the
    follower goes on from there, if its code fits. Raises RebuildRunning, NothingToRollBack."""
    with only_one(connect) as connection:
        live = shadow.live_schema(connection)
        with connection.transaction():
            now = connection.execute(
                "SELECT position, version, columns FROM slots WHERE name = %s FOR UPDATE", [name]
            ).fetchone()
            before = connection.execute(
                "SELECT previous_position, previous_version, previous_columns FROM rebuilds"
                " WHERE name = %s ORDER BY id DESC LIMIT 1",
                [name],
            ).fetchone()
            if now is None or before is None or not shadow.has_previous(connection, name):
                raise NothingToRollBack(f"no previous table is kept of {name}")
            connection.execute(f"SET LOCAL lock_timeout = '{SWAP_LOCK_TIMEOUT}'".encode())
            shadow.swap_back(connection, live, name)
            record(connection, name, Filled(*before[1:]), before[0], now, None, "rollback")
        connection.execute("NOTIFY events")
        return int(before[0])


@contextmanager
def only_one(connect: Connect) -> Iterator["Connection[Any]"]:
    with connect() as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s, 1)", [LOCK_CLASS]).fetchone()
        if row is None or not row[0]:
            raise RebuildRunning("another rebuild is running")
        # Workers whose rebuild was killed end at their next report.
        connection.execute("SELECT pg_advisory_lock(%s, 2)", [LOCK_CLASS])
        connection.execute("SELECT pg_advisory_unlock(%s, 2)", [LOCK_CLASS])
        try:
            yield connection
        finally:
            # The server's process may live on for a moment after the connection's end.
            with suppress(psycopg.Error):
                connection.execute("SELECT pg_advisory_unlock(%s, 1)", [LOCK_CLASS])


def record(
    connection: "Connection[Any]",
    name: str,
    filled: Filled,
    position: int,
    before: tuple[Any, ...],
    difference: str | None,
    reason: str | None,
) -> None:
    connection.execute(
        "UPDATE slots SET position = %s, version = %s, columns = %s, parked_at = NULL, error = NULL,"
        " updated_at = now() WHERE name = %s",
        (position, filled.version, filled.columns, name),
    )
    connection.execute(
        "INSERT INTO rebuilds (name, position, version, columns, previous_position, previous_version,"
        " previous_columns, difference, reason) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (name, position, filled.version, filled.columns, *before, difference, reason),
    )
