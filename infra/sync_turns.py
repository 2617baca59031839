"""Whose turn it is to sync, over all processes: an advisory lock per organisation and a row of when it syncs next."""

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Lock, Semaphore
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool

from domain.errors import Unavailable

INTERVAL_S = 15 * 60
LONGEST_S = 4 * 60 * 60
JITTER = 0.2
PATIENCE_MS = 15_000
WAITING = 2
LOCK_CLASS = 1463899221


class PostgresSyncTurns:
    """`due` names the enabled organisations whose turn has come. Turns are held on connections of their own: whoever
    has one still needs another from `pool`, which must not wait for the end of a turn."""

    def __init__(
        self,
        pool: "ConnectionPool[Connection[Any]]",
        turns: "ConnectionPool[Connection[Any]]",
        interval_s: float = INTERVAL_S,
    ):
        self._pool = pool
        self._turns = turns
        self._interval_s = interval_s
        self._doors: defaultdict[UUID, _Door] = defaultdict(_Door)

    @contextmanager
    def take(self, organization_id: UUID) -> Iterator[None]:
        # One at a time goes to the database: who waits for a slow partner must not hold all the connections of turns.
        with self._doors[organization_id].entered(), self._turn(organization_id):
            yield

    @contextmanager
    def _turn(self, organization_id: UUID) -> Iterator[None]:
        # A transaction of its own: the lock ends with it, also when this process is killed.
        with self._turns.connection() as connection, connection.transaction():
            connection.execute(
                "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', '0', true),"
                " set_config('idle_in_transaction_session_timeout', '0', true)",
                [str(PATIENCE_MS)],
            )
            try:
                connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK_CLASS, str(organization_id)))
            except psycopg.errors.LockNotAvailable:
                raise _taken() from None
            yield

    def succeeded(self, organization_id: UUID) -> None:
        self._write(
            "INSERT INTO sync_turns VALUES (%(id)s, now(), 0, now() + %(wait)s * interval '1 second')"
            " ON CONFLICT (organization_id) DO UPDATE SET last_success_at = now(), failures = 0,"
            " next_at = excluded.next_at",
            organization_id,
        )

    def failed(self, organization_id: UUID) -> None:
        self._write(
            "INSERT INTO sync_turns VALUES (%(id)s, NULL, 1, now() + %(wait)s * interval '1 second')"
            " ON CONFLICT (organization_id) DO UPDATE SET failures = sync_turns.failures + 1, next_at = now() +"
            f" least(%(wait)s * 2 ^ least(sync_turns.failures, 10), {LONGEST_S}) * interval '1 second'",
            organization_id,
        )

    def last_success(self, organization_id: UUID) -> datetime | None:
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT last_success_at FROM sync_turns WHERE organization_id = %s", [organization_id]
            ).fetchone()
        return row[0] if row else None

    def due(self) -> list[UUID]:
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT c.organization_id FROM trading_configs c LEFT JOIN sync_turns t USING (organization_id)"
                " WHERE c.status = 'ENABLED' AND coalesce(t.next_at, now()) <= now() ORDER BY t.next_at"
            ).fetchall()
        return [row[0] for row in rows]

    def _write(self, statement: str, organization_id: UUID) -> None:
        wait = self._interval_s * random.uniform(1 - JITTER, 1 + JITTER)
        with self._pool.connection() as connection:
            connection.execute(statement, {"id": organization_id, "wait": wait})


class _Door:
    """Of an organisation's turns in this process: one is inside, and few wait, since each of them holds a thread."""

    def __init__(self) -> None:
        self._inside = Lock()
        self._here = Semaphore(1 + WAITING)

    @contextmanager
    def entered(self) -> Iterator[None]:
        if not self._here.acquire(blocking=False):
            raise _taken()
        try:
            if not self._inside.acquire(timeout=PATIENCE_MS / 1000):
                raise _taken()
            try:
                yield
            finally:
                self._inside.release()
        finally:
            self._here.release()


def _taken() -> Unavailable:
    return Unavailable("Another sync of this organization is running", retry_after=5)
