"""The database schema: numbered SQL files, each applied once, in order."""

import hashlib
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

FOLDER = Path(__file__).parent / "migrations"
NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
# Any constant will do, as long as every version of this program takes the same one.
LOCK = 0x57A77_5C4E3A
# Whoever comes after a statement that waits for a table waits, too: so it waits shortly, and tries again.
LOCK_TIMEOUT = "1s"
RETRY_S = 1.0
ATTEMPTS = 300


class SchemaError(Exception):
    """The migrations do not fit together, or not with what the database has applied"""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        # A checkout that turned line endings is the same migration.
        return hashlib.sha256("\n".join(self.text.splitlines()).encode()).hexdigest()


def migrate(connection: psycopg.Connection, folder: Path = FOLDER) -> list[str]:
    """Apply what is pending, a transaction each, and return the names applied.

    Several processes may start at once: one migrates, the others wait and find nothing to do.
    """
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise SchemaError("migrate() commits as it goes and cannot run inside a transaction")
    migrations = read(folder)
    with connection.transaction():
        _lock(connection)
        connection.execute(
            """CREATE TABLE IF NOT EXISTS schema_migrations (
                 number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
                 applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"""
        )
    return [each.name for each in migrations if _apply_patiently(connection, each)]


def pending(connection: psycopg.Connection, folder: Path = FOLDER) -> list[str]:
    """The names that migrate() would apply; changes nothing."""
    row = connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    migrations = read(folder)
    if row is None or not row[0]:
        return [each.name for each in migrations]
    return [each.name for each in migrations if not _is_applied(connection, each)]


def read(folder: Path = FOLDER) -> list[Migration]:
    """The migrations in the folder, by number."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise SchemaError(f"{path.name} is not named NNNN_name.sql")
        number = int(match[1])
        if number in found:
            raise SchemaError(f"{path.name} and {found[number].name} have the same number")
        found[number] = Migration(number, path.name, path.read_text(encoding="utf-8"))
    return list(found.values())


def _apply_patiently(connection: psycopg.Connection, migration: Migration) -> bool:
    """Everything goes on meanwhile: none of its statements waits long for a table that others read."""
    for _ in range(ATTEMPTS):
        with suppress(psycopg.errors.LockNotAvailable):
            return _apply(connection, migration)
        time.sleep(RETRY_S)
    raise SchemaError(f"{migration.name} waits for a table that others don't let go of: end what runs so long there")


def _apply(connection: psycopg.Connection, migration: Migration) -> bool:
    with connection.transaction():
        # The lock ends with the transaction, so it cannot outlive a crash or a pooled session.
        _lock(connection)
        if _is_applied(connection, migration):
            return False
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'".encode())
        # No parameters, so that a file may hold several statements and any % sign.
        connection.execute(migration.text.encode())
        connection.execute(
            "INSERT INTO schema_migrations (number, name, checksum) VALUES (%s, %s, %s)",
            (migration.number, migration.name, migration.checksum),
        )
    return True


def _is_applied(connection: psycopg.Connection, migration: Migration) -> bool:
    row = connection.execute(
        "SELECT name, checksum FROM schema_migrations WHERE number = %s", (migration.number,)
    ).fetchone()
    if row is None:
        return False
    if row != (migration.name, migration.checksum):
        raise SchemaError(
            f"{migration.name} differs from what was applied as {row[0]}: "
            "put the applied file back, and make the change in a new migration"
        )
    return True


def _lock(connection: psycopg.Connection) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
