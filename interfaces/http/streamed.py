"""Answers that are sent as they come to be, and what a process has of them."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar
from uuid import UUID

import anyio
from psycopg import AsyncConnection
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from domain.errors import TooManyStreams
from interfaces.http.queries import asked
from interfaces.http.services import HttpServices
from projections.live import Live

log = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_S = 15


class Streamed(StreamingResponse):
    """Sends the pieces until there are no more, the client is gone, or it has taken nothing for `patience_s`. Whichever
    it is, `pieces` is closed and `closed` called."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media_type: str,
        headers: Mapping[str, str],
        patience_s: float,
        closed: Callable[[], None] = lambda: None,
    ):
        super().__init__(pieces, 200, headers, media_type)
        self._pieces = pieces
        self._patience_s = patience_s
        self._closed = closed

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        self.headers.update(headers)
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                await super().__call__(scope, receive, partial(self._send, send))
        except _Stuck:
            # Returning with half an answer out makes the server end the connection.
            log.info("client takes nothing", extra={"path": scope["path"], "request_id": scope.get("request_id")})
        finally:
            self._closed()
            with anyio.CancelScope(shield=True):
                await self._pieces.aclose()

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await send(message)
        except TimeoutError:
            raise _Stuck from None


class _Stuck(Exception):
    """The client takes nothing"""


class Streams:
    """One per app: who follows the new samples, how many streams each organisation has, whose turn it is to read a page
    of an export."""

    def __init__(self, services: HttpServices):
        self.live = Live(partial(asked, services.queries), services.streaming.every_s)
        self._services = services
        self._open: Counter[UUID] = Counter()
        self._turns = asyncio.Semaphore(services.streaming.page_turns)

    def enter(self, organization_id: UUID) -> Callable[[], None]:
        """Returns what to call in the end; raises TooManyStreams."""
        if self._open[organization_id] >= self._services.streaming.per_organization:
            raise TooManyStreams(retry_after=AGAIN_S)
        self._open[organization_id] += 1
        return partial(self._leave, organization_id)

    async def ask_in_turn(self, question: "Callable[[AsyncConnection[Any]], Awaitable[T]]") -> T:
        async with self._turns:
            return await asked(self._services.queries, question)

    def _leave(self, organization_id: UUID) -> None:
        self._open[organization_id] -= 1
        if not self._open[organization_id]:
            del self._open[organization_id]
