"""Keeps intake in step with the publisher, so that nobody's answer waits behind a log that one sender has filled."""

import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import Connection

from projections.follower import Connect

AHEAD = 1500
"""Events that intake may be ahead of the publisher: a fraction of a second's work."""
PATIENCE_S = 2.0
LOOK_S = 0.005

_LAG = (
    "SELECT coalesce((SELECT max(position) FROM events), 0) - position FROM slots"
    " WHERE name = 'publisher' AND parked_at IS NULL"
)


class Pace:
    """Called before each batch by the one thread that records it. A publisher that stands still stops no intake: what
    is recorded is safe, and goes out when it moves again."""

    def __init__(self, connect: Connect, stopping: threading.Event) -> None:
        self._connect = connect
        self._stopping = stopping
        self._connection: Connection[Any] | None = None

    def __call__(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._ahead() > AHEAD and time.monotonic() < deadline:
            if self._stopping.wait(LOOK_S):
                return

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _ahead(self) -> int:
        try:
            if self._connection is None:
                self._connection = self._connect()
            row = self._connection.execute(_LAG, prepare=True).fetchone()
        except psycopg.Error:
            self.close()
            raise
        return int(row[0]) if row else 0
