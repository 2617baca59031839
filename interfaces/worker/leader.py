"""Which of all workers runs the scheduled jobs: the one that holds a session's advisory lock."""

import threading
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import Connection

from projections.follower import Connect

LOCK_CLASS = 1463899223


class Leader:
    """The lock ends with its connection, so a worker that dies is followed by another at once."""

    def __init__(self, connect: Connect, name: str = "scheduler") -> None:
        self._connect = connect
        self._name = name
        self._connection: Connection[Any] | None = None
        self._leads = False
        self._lock = threading.Lock()

    @property
    def leads(self) -> bool:
        return self._leads

    def connection(self) -> Connection[Any] | None:
        """The live connection that holds the lock, for short statements; None while another worker leads."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._leads = self._holds(self._connection)
            except psycopg.Error:
                self._drop()
                raise
            return self._connection if self._leads else None

    def resign(self) -> None:
        with self._lock, suppress(psycopg.Error):
            if self._connection is not None:
                self._connection.execute("SELECT pg_advisory_unlock_all()")  # waits for a statement that is at work
        with self._lock:
            self._drop()

    def _holds(self, connection: Connection[Any]) -> bool:
        if self._leads:
            connection.execute("SELECT 1")
            return True
        row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (LOCK_CLASS, self._name)).fetchone()
        return bool(row and row[0])

    def _drop(self) -> None:
        connection, self._connection, self._leads = self._connection, None, False
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
