"""What surrounds every request: its id, security headers, one access log line, metrics, and a last resort."""

import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from random import getrandbits
from typing import Literal
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from application.context import current_request
from domain.errors import BadRequest, RequestTimeout, WattledgerError
from interfaces.http.errors import error_response

log = logging.getLogger(__name__)

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Of every answer that does not set its own."""
SECURED = frozenset(name for name, _ in SECURITY_HEADERS)

HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")
"""Of what came over TLS, to a proxy before us that says so; over plain HTTP it may not be sent."""

UNREAD: dict[Literal[400, 408], WattledgerError] = {400: BadRequest("Not HTTP"), 408: RequestTimeout()}

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_REQUEST_ID = re.compile(rb"[\x20-\x7e]{1,128}")


class HttpMetrics:
    """Requests by route template, never by path: a scanner must not make series."""

    def __init__(self, registry: CollectorRegistry):
        self._requests = Counter(
            "wattledger_http_requests", "HTTP requests", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "wattledger_http_request_seconds", "Latency of HTTP requests", ["method", "route"], registry=registry
        )
        # Finding a series by its labels costs more than counting in it.
        self._series = cache(self._find)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        requests, latency = self._series(method if method in METHODS else "OTHER", route, status)
        requests.inc()
        latency.observe(seconds)

    def _find(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, route, str(status)), self._seconds.labels(method, route)


@dataclass
class _Exchange:
    """One request and how its answer went; 499 when nobody waited for one."""

    scope: Scope
    request_id: str
    started: float = field(default_factory=time.perf_counter)
    status: int = 499

    @property
    def route(self) -> str:
        route = self.scope.get("route")
        return str(getattr(route, "path", "unmatched"))

    def mark(self, message: Message) -> None:
        self.status = message["status"]
        given = message.get("headers", [])
        names = {name for name, _ in given}
        secured: Iterable[tuple[bytes, bytes]] = SECURITY_HEADERS
        if not names.isdisjoint(SECURED):
            secured = [header for header in SECURITY_HEADERS if header[0] not in names]
        always = (HTTPS_ONLY,) if self.scope["scheme"] == "https" else ()
        message["headers"] = [*given, *secured, *always, (b"x-request-id", self.request_id.encode())]


class Edge:
    """Pure ASGI, so that it costs microseconds and sees what Starlette answers by itself."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, _request_id(scope["headers"]))
        scope["request_id"] = exchange.request_id
        current_request.set(exchange.request_id)  # each request is a task of its own

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.mark(message)
            await send(message)

        try:
            await self._app(scope, receive, marked)
        except Exception:
            log.exception("request failed", extra={"request_id": exchange.request_id, "route": exchange.route})
            if exchange.status != 499:
                raise  # half an answer is out: the server ends the connection
            await error_response(WattledgerError())(scope, receive, marked)
        finally:
            self._record(exchange)

    def _record(self, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.started
        scope = exchange.scope
        self._metrics.observe(scope["method"], exchange.route, exchange.status, seconds)
        level = logging.ERROR if exchange.status == 500 else logging.INFO
        if not log.isEnabledFor(level):
            return
        caller = scope.get("caller")
        fields = {
            "method": scope["method"],
            "path": scope["path"],
            "status": exchange.status,
            "ms": round(seconds * 1000, 2),
            "request_id": exchange.request_id,
            "actor": caller.actor if caller else None,
            "organization_id": caller.organization if caller else None,
        }
        log.log(level, "request", extra=fields)


def unread(metrics: HttpMetrics, status: Literal[400, 408]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the answer to what is no request, or was none in time: for the server to send."""
    metrics.observe("OTHER", "unread", status, 0)
    response = error_response(UNREAD[status], {"Connection": "close"})
    return [*response.raw_headers, *SECURITY_HEADERS, (b"x-request-id", _made_id().encode())], bytes(response.body)


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's own, if it can stand in a header and a log line."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return _made_id()


def _made_id() -> str:
    # Nobody has to be kept from guessing it, and asking the system for randomness costs more than all else here.
    return str(UUID(int=getrandbits(128), version=4))
