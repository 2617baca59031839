"""The HTTP application: the table's routes, operations, and what surrounds them."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from domain.errors import MethodNotAllowed, WattledgerError
from interfaces.http.credentials import Credentials
from interfaces.http.edge import Edge, HttpMetrics, unread
from interfaces.http.endpoint import Endpoint, Gate
from interfaces.http.endpoints import ENDPOINTS, PREFIX
from interfaces.http.errors import as_error, error_response
from interfaces.http.key_uses import KeyUses
from interfaces.http.known import Known
from interfaces.http.openapi import openapi
from interfaces.http.operations import operation_routes
from interfaces.http.partner_logins import partner_login_routes
from interfaces.http.rate_limits import Limiter
from interfaces.http.services import HttpServices
from interfaces.http.streamed import Streams


def build_app(services: HttpServices) -> Starlette:
    """Stateless but for what it remembers; its lifespan opens the queries' pool and listens for positions."""
    known, uses, metrics = (
        Known(services.trading.events, services.trading.secrets),
        KeyUses(services.queries),
        HttpMetrics(services.registry),
    )
    app = Starlette(
        routes=[
            *_routes(ENDPOINTS),
            *operation_routes(services, openapi(ENDPOINTS), ("", PREFIX)),
            *partner_login_routes(services.partner_logins, services.partner_networks, uses.note),
        ],
        middleware=[Middleware(Edge, metrics=metrics)],
        exception_handlers={HTTPException: _refused, WattledgerError: _refused},
        lifespan=_lifespan,
    )
    # A redirect of a POST loses its body in half of all clients; a 404 says what is wrong.
    app.router.redirect_slashes = False
    streams = Streams(services)
    limiter = Limiter(services.rate_limits, services.queries)
    app.state.gate = Gate(services, known, Credentials(services, known, uses), limiter, streams)
    # For the server to call when it is to end: an open stream would hold it up.
    app.state.end_streams = streams.live.end
    # What it answers where there is no request that could reach the app.
    app.state.unread = partial(unread, metrics)
    return app


@dataclass(frozen=True)
class Resource:
    """The endpoints of one path, by method."""

    endpoints: dict[str, Endpoint]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.endpoints.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if endpoint is None:
            allowed = sorted({*self.endpoints, *(["HEAD"] if "GET" in self.endpoints else [])})
            await error_response(MethodNotAllowed(), {"Allow": ", ".join(allowed)})(scope, receive, send)
        else:
            await endpoint(scope, receive, send)


def _routes(endpoints: Sequence[Endpoint]) -> list[BaseRoute]:
    by_path: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in endpoints:
        by_path[PREFIX + endpoint.path][endpoint.method] = endpoint
    # Routes are tried one after the other, and the longest ones are asked most.
    return [Route(path, Resource(by_path[path])) for path in sorted(by_path, key=len, reverse=True)]


async def _refused(_: Request, exception: Exception) -> Response:
    """Starlette's own 404 and 405, and what an operation's route raises."""
    headers = dict(getattr(exception, "headers", None) or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    return error_response(as_error(exception) or WattledgerError(), headers)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    services: HttpServices = app.state.gate.services
    anyio.to_thread.current_default_thread_limiter().total_tokens = services.threads
    # Without waiting: a database that is not up yet makes 503s, not a process that won't start.
    await services.queries.open(wait=False)
    streams: Streams = app.state.gate.streams
    tasks = [asyncio.create_task(services.positions.listen()), asyncio.create_task(streams.live.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await services.queries.close()
