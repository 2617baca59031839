"""Notes that API keys are used: once a minute each, many in one statement, and no call waits for it."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from projections.key_uses import note_uses

log = logging.getLogger(__name__)

EVERY_S = 60
TOGETHER_S = 0.5
REMEMBERED = 100_000


@dataclass
class KeyUses:
    """One per app. Best effort: a use that could not be written is lost, the next one is noted."""

    queries: "AsyncConnectionPool[AsyncConnection[Any]]"
    _noted: dict[UUID, float] = field(default_factory=dict)
    _fresh: set[UUID] = field(default_factory=set)
    _writing: "asyncio.Task[None] | None" = None

    def note(self, key_id: UUID) -> None:
        """Called from the event loop."""
        now = time.monotonic()
        if now - self._noted.get(key_id, -EVERY_S) < EVERY_S:
            return
        if len(self._noted) >= REMEMBERED:
            self._noted.clear()
        self._noted[key_id] = now
        self._fresh.add(key_id)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._fresh:
            await asyncio.sleep(TOGETHER_S)
            batch, self._fresh = self._fresh, set()
            try:
                async with self.queries.connection() as connection:
                    await note_uses(connection, list(batch))
            except psycopg.Error as error:
                log.warning("uses of API keys are not noted", extra={"error": type(error).__name__})
                for key_id in batch:
                    self._noted.pop(key_id, None)
