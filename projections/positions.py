"""How far the read models have come, as one process waits for it: so that a client reads its own write."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection

from projections.read_models import READ_MODELS

log = logging.getLogger(__name__)

RECONNECT_S = 0.5
_NAMES = [model.name for model in READ_MODELS]


class Positions:
    """Listens to what the follower announces. Best effort: while the connection is lost, waits just run out."""

    def __init__(self, connect: "Callable[[], Awaitable[AsyncConnection[Any]]]"):
        self._connect = connect
        self._reached = 0
        self._moved = asyncio.Condition()

    @property
    def reached(self) -> int:
        return self._reached

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute("LISTEN projected")
                    cursor = await connection.execute(
                        "SELECT min(position) FROM slots WHERE parked_at IS NULL AND name = ANY(%s)", [_NAMES]
                    )
                    row = await cursor.fetchone()
                    await self._move(row[0] or 0 if row else 0)
                    async for notify in connection.notifies():
                        await self._move(int(notify.payload))
            except psycopg.Error as error:  # whatever it is, it must not end for good
                log.warning("no word of positions", extra={"error": str(error)})
                await asyncio.sleep(RECONNECT_S)

    async def wait_for(self, position: int, timeout_s: float) -> bool:
        """Whether every live read model has reached the position in time."""
        if self._reached >= position:
            return True
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self._reached >= position)
        except TimeoutError:
            return False
        return True

    async def _move(self, position: int) -> None:
        async with self._moved:
            self._reached = max(self._reached, position)
            self._moved.notify_all()
