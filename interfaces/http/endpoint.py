"""One row of the endpoint table: its route, rights, validation and errors, and the ASGI callable that it is."""

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal
from uuid import UUID

import anyio
from psycopg import AsyncConnection
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from application.context import IdempotencyKey, Metadata, acting, traceparent, with_user
from application.ports import Veil
from domain.errors import BadRequest, Invalid, PlantNotFound, TooEarly, WattledgerError
from interfaces.http import inputs
from interfaces.http.answers import JsonResponse
from interfaces.http.credentials import Caller, Credentials, Right
from interfaces.http.errors import as_error, error_response
from interfaces.http.idempotency import Repeatable, key_of
from interfaces.http.known import Known
from interfaces.http.queries import asked
from interfaces.http.rate_limits import Kind, Limiter, LimitExceeded
from interfaces.http.services import HttpServices
from interfaces.http.streamed import Streamed, Streams

OWN_WRITE_S = 0.25
AT_LEAST_S = 1.0


@dataclass(frozen=True)
class Gate:
    """What every call passes; one per app."""

    services: HttpServices
    known: Known
    credentials: Credentials
    limiter: Limiter
    streams: Streams


@dataclass
class Call:
    """A call that was let in: `headers` are the request's, `answer_headers` go with the answer, errors included."""

    gate: Gate
    caller: Caller
    headers: Headers
    request_id: str
    answer_headers: dict[str, str] = field(default_factory=dict)
    lent: "AsyncConnection[Any] | None" = None
    has_recorded: bool = False

    @property
    def services(self) -> HttpServices:
        return self.gate.services

    @property
    def organization_id(self) -> UUID:
        return self.caller.organization_id

    @property
    def connection(self) -> "AsyncConnection[Any]":
        """Lent to queries for the time of their call."""
        assert self.lent is not None
        return self.lent

    async def unveil(self) -> Veil:
        """Makes the organisation's own words readable."""
        return await self.gate.known.unveil(self.organization_id)


@dataclass(frozen=True)
class Endpoint:
    """`handler` takes the call, the ids that the path names (a plant's first), then the query or the body if the row
    has one; its return annotation is the 200. An async one is a query, whose call has a connection; a sync one may
    record events and runs in a thread.

    `invalid` is the error for whatever breaks the row's own validation, `malformed_id` the one for a bad UUID.
    One of `errors` is given itself where its sentence is not its class's own.
    `recover` finds the answer of a command that must not be done twice, by its plant and its events' positions.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[..., object]
    right: Right
    summary: str
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    invalid: type[Invalid] = BadRequest
    malformed_id: type[Invalid] = BadRequest
    errors: tuple[type[WattledgerError] | WattledgerError, ...] = ()
    limit: Kind | None = None
    headers: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    recover: Callable[..., Awaitable[object]] | None = None

    @property
    def names_plant(self) -> bool:
        return "{plant_id}" in self.path

    @cached_property
    def path_ids(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", self.path)

    @cached_property
    def is_query(self) -> bool:
        return inspect.iscoroutinefunction(self.handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, str] = {}
        try:
            body = await self._answer(Request(scope, receive), headers)
            response: Response = (
                body.with_headers(headers) if isinstance(body, Streamed) else JsonResponse(body, headers=headers)
            )
        except ClientDisconnect:
            return
        except Exception as exception:
            error = as_error(exception)
            if error is None:
                raise
            response = error_response(error, headers)
        await response(scope, receive, send)

    async def _answer(self, request: Request, headers: dict[str, str]) -> object:
        """The checks, in the contract's order, then the handler."""
        gate: Gate = request.app.state.gate
        caller = await gate.credentials.caller(request.headers)
        request.scope["caller"] = caller
        caller.require(self.right)
        await self._spend(gate.limiter, caller, headers)
        ids = self._ids(request)
        await self._await_position(gate, request.headers, headers)
        for plant_id in ids[:1]:
            if await gate.known.organization_of(plant_id) != caller.organization_id:
                raise PlantNotFound
        call = Call(gate, caller, request.headers, request.scope["request_id"], headers)
        query = self._query(request)
        if self.streams:
            return await self.handler(call, *ids, *query)  # type: ignore[misc]
        if self.is_query:
            return await self._ask(call, (*ids, *query))
        content = await inputs.content(request) if self.method == "POST" else b""
        given = (*ids, *query, *await self._body(request.headers, content))
        asked = (self.method, request.url.path, content)
        key = key_of(request.headers.get("idempotency-key"), caller, asked, self.invalid)
        if key is None or self.method == "GET":
            return await self._command(call, given)
        return await Repeatable(
            gate.services,
            key,
            headers,
            has_recorded=lambda: call.has_recorded,
            run=lambda: self._command(call, given, key),
            rerun=lambda: self._command(call, given),
            recover=partial(self._recovered, call, ids) if self.recover else None,
        ).answer()

    async def _recovered(self, call: Call, plant_ids: tuple[UUID, ...], positions: range) -> object:
        assert self.recover is not None
        async with call.services.queries.connection() as call.lent:
            return await self.recover(call, *plant_ids, positions)

    async def _body(self, headers: Headers, content: bytes) -> tuple[BaseModel, ...]:
        read = partial(self._read_body, content, headers.get("content-type"))
        return await anyio.to_thread.run_sync(read) if len(content) > inputs.LARGE else read()

    def _read_body(self, content: bytes, content_type: str | None) -> tuple[BaseModel, ...]:
        if self.body is None:
            inputs.require_no_body(content, content_type, self.invalid)
            return ()
        return (inputs.read_body(self.body, content, content_type, self.invalid),)

    async def _spend(self, limiter: Limiter, caller: Caller, headers: dict[str, str]) -> None:
        """After the rights, so that who may not call can't use up what the organisation has."""
        try:
            headers |= await limiter.spend(self.limit or ("reads" if self.method == "GET" else "writes"), caller)
        except LimitExceeded as exceeded:
            headers |= exceeded.headers
            raise

    def _ids(self, request: Request) -> tuple[UUID, ...]:
        """Those of the path, the plant's first."""
        ids = []
        for name in self.path_ids:
            parsed = inputs.parse_uuid(request.path_params[name])
            if parsed is None:
                raise self.malformed_id(f"Invalid {name.removesuffix('_id')} UUID")
            ids.append(parsed)
        return tuple(ids)

    async def _await_position(self, gate: Gate, wanted: Headers, headers: dict[str, str]) -> None:
        positions = gate.services.positions
        at_least = wanted.get("x-position-atleast")
        try:
            if at_least is not None:
                if not re.fullmatch(r"[0-9]{1,18}", at_least):
                    raise self.invalid("Validation error", errors=["X-Position-AtLeast: must be a position"])
                if not await positions.wait_for(int(at_least), AT_LEAST_S):
                    raise TooEarly(retry_after=1)
        finally:
            headers["X-Position"] = str(positions.reached)

    def _query(self, request: Request) -> tuple[BaseModel, ...]:
        given = request.scope["query_string"]
        if self.query is None and not given:
            return ()
        query = inputs.read_query(self.query or inputs.NoQuery, given, self.invalid)
        return (query,) if self.query else ()

    async def _ask(self, call: Call, given: tuple[object, ...]) -> object:
        async def question(connection: "AsyncConnection[Any]") -> object:
            call.lent = connection
            return await self.handler(call, *given)  # type: ignore[misc]

        return await asked(call.services.queries, question)

    async def _command(self, call: Call, given: tuple[object, ...], key: IdempotencyKey | None = None) -> object:
        """Whoever wrote reads its own write: the answer waits a moment for the read models."""
        try:
            return await anyio.to_thread.run_sync(_act, call, partial(self.handler, call, *given), key)
        finally:
            # Also of a command that failed after it had recorded something.
            position = int(call.answer_headers["X-Position"])
            await call.services.positions.wait_for(position, OWN_WRITE_S)


def _act(call: Call, command: Callable[[], object], key: IdempotencyKey | None) -> object:
    """Every command passes here, in its thread; what it records carries who asked, and its Idempotency-Key."""
    trace, actor = traceparent(call.headers.get("traceparent")), call.caller.actor
    if call.caller.kind == "user":
        actor = with_user(actor, call.services.trading.secrets.veil(call.organization_id))
    with acting(Metadata(actor, "http", call.request_id, traceparent=trace), key) as task:
        try:
            return command()
        finally:
            call.has_recorded = task.position > 0
            if task.position:
                call.answer_headers["X-Position"] = str(task.position)
