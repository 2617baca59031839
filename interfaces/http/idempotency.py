"""Idempotency-Key: the same request again, within a day, answers what the first one answered and does nothing."""

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
import psycopg
from psycopg_pool import PoolTimeout

from application.context import IdempotencyKey
from domain.errors import IdempotencyKeyReused, Invalid, RequestInProgress
from interfaces.http.answers import to_json
from interfaces.http.credentials import Caller
from interfaces.http.services import HttpServices
from projections.idempotency import Asked, age_request, earlier_request, forget_request, remember_answer

log = logging.getLogger(__name__)

LONGEST_REQUEST_S = 60
_FORM = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Repeatable:
    """A command under its key. `run` does it and records the key with its first events; `rerun` does it without, and
    `recover` finds the answer of one that was killed, or failed, after it had recorded events at these positions."""

    services: HttpServices
    key: IdempotencyKey
    answer_headers: dict[str, str]
    has_recorded: Callable[[], bool]
    run: Callable[[], Awaitable[object]]
    rerun: Callable[[], Awaitable[object]]
    recover: Callable[[range], Awaitable[object]] | None

    async def answer(self) -> object:
        """Raises IdempotencyKeyReused and RequestInProgress."""
        async with self.services.queries.connection() as connection:
            earlier = await earlier_request(connection, self.key)
        if earlier is None:
            return await self._remembered(await self._run())
        if earlier.request_hash != self.key.request_hash:
            raise IdempotencyKeyReused
        if earlier.answer is not None:
            self.answer_headers.update(earlier.answer["headers"])
            return earlier.answer["body"]
        if earlier.age_s < LONGEST_REQUEST_S:
            raise RequestInProgress(retry_after=1)
        return await self._remembered(await self._found(earlier))

    async def _run(self) -> object:
        """Whether it failed before or after it had recorded something is nothing that its caller can know."""
        try:
            return await self.run()
        except Exception:
            if self.has_recorded():
                await self._let_repeat()
            raise

    async def _let_repeat(self) -> None:
        """At once: done again if that harms nobody, else answered by what it had recorded."""
        async with self.services.queries.connection() as connection:
            if self.recover is None:
                await forget_request(connection, self.key)
            else:
                await age_request(connection, self.key, LONGEST_REQUEST_S)

    async def _found(self, earlier: Asked) -> object:
        """Of one without an answer: done again if it had recorded nothing, or if doing it again harms nobody."""
        if self.recover is None or earlier.position is None or earlier.events is None:
            return await self.rerun()
        return await self.recover(range(earlier.position + 1, earlier.position + 1 + earlier.events))

    async def _remembered(self, answer: object) -> object:
        headers = {name: value for name, value in self.answer_headers.items() if name == "ETag"}
        stored = orjson.dumps({"headers": headers, "body": orjson.Fragment(to_json(answer))})
        try:
            async with self.services.queries.connection() as connection:
                await remember_answer(connection, self.key, stored)
        except (psycopg.OperationalError, PoolTimeout):
            # It is done, and its caller is told so; a repeat will find what was recorded.
            log.warning("an answer was not remembered under its Idempotency-Key")
        return answer


def key_of(
    given: str | None, caller: Caller, asked: tuple[str, str, bytes], invalid: type[Invalid]
) -> IdempotencyKey | None:
    """The key of a request that asked (method, path, body), None if it has none."""
    if given is None:
        return None
    if not _FORM.fullmatch(given):
        raise invalid("Validation error", errors=["Idempotency-Key: must be 1 to 255 visible ASCII characters"])
    method, path, body = asked
    digest = hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).digest()
    return IdempotencyKey(f"{caller.organization_id}:{caller.actor}", given, digest)
