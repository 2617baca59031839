"""Faults on demand: the next answers of the sandbox's routes are spoiled in a chosen way."""

import asyncio
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

RouteName = Literal["token", "list", "config", "update", "request"]
FaultName = Literal[
    "401", "403", "429", "500", "502", "503",
    "slow", "slow_body", "huge", "truncated",
    "malformed", "wrong_type", "wrong_schema", "redirect", "bad_plants",
    "reset", "refused", "tls",
]  # fmt: skip
ABOUT: dict[FaultName, str] = {
    "401": "Unauthorized: one is answered by a new token, --times 1000 by giving up",
    "403": "Forbidden",
    "429": "Too Many Requests, with Retry-After: 7",
    "500": "Internal Server Error",
    "502": "Bad Gateway",
    "503": "Service Unavailable",
    "slow": "says nothing for --seconds, then answers",
    "slow_body": "answers at once, and drips its body for --seconds",
    "huge": "an answer of 2 MB",
    "truncated": "hangs up after half of the answer",
    "malformed": "an answer that is no JSON though it says so",
    "wrong_type": "an HTML page with status 200",
    "wrong_schema": "JSON with other fields than the contract's",
    "redirect": "sends to a cloud's metadata service",
    "bad_plants": "a list with plants that can't be read",
    "reset": "cuts the connection instead of an answer",
    "refused": "answers, then closes the port for --seconds: the next call is refused",
    "tls": "answers, then fails every TLS handshake for --seconds",
}
Handler = Callable[[Request], Awaitable[Response]]

# What must never be seen outside: tests look for it in errors and logs.
CANARY = "internal: partner-body-canary"
JSON = "application/json"


class Fault(BaseModel):
    """`fault` spoils the next `times` answers of `route`, of any route when it names none; `seconds` is how long a slow
    one takes, or how long the port is away. Without a route, the port goes away at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    route: RouteName | None = None
    fault: FaultName
    times: int = Field(default=1, ge=1, le=1_000_000)
    seconds: float = Field(default=60.0, ge=0, le=600)

    @property
    def takes_the_port_away(self) -> bool:
        return self.fault in {"refused", "tls"}


class Faults:
    """The faults that wait for their requests; thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[Fault] = deque()
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.extend([fault] * fault.times)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> list[Fault]:
        """Those that were not met yet, each with how often it still waits."""
        with self._lock:
            counts = Counter(self._waiting)
        return [fault.model_copy(update={"times": times}) for fault, times in counts.items()]

    def take(self, route: RouteName) -> Fault | None:
        """The next fault of a route, used up by this."""
        with self._lock:
            fault = next((waiting for waiting in self._waiting if waiting.route in (route, None)), None)
            if fault:
                self._waiting.remove(fault)
            return fault


async def spoiled(fault: Fault, handler: Handler, request: Request) -> Response:
    """The answer with its fault. What spoils only the answer happens after the work is done, as in real life: a change
    whose answer is lost was applied all the same."""
    if fault.fault.isdigit():
        wait = {"Retry-After": "7"} if fault.fault == "429" else {}
        return Response(f"<html>{CANARY}</html>", int(fault.fault), wait, media_type="text/html")
    if fault.fault == "redirect":
        return RedirectResponse("http://169.254.169.254/latest/meta-data", 302)
    if fault.fault == "reset":
        return _Reset()
    answer = await handler(request)
    if fault.takes_the_port_away:
        answer.headers["Connection"] = "close"  # else the next call is sent on it, and cut instead of refused
        return answer
    if fault.fault == "slow":
        await _wait_unless_gone(request, fault.seconds)
        return answer
    return _SPOIL[fault.fault](bytes(answer.body), fault)


async def _wait_unless_gone(request: Request, seconds: float) -> None:
    """Waits, but not for a client that has hung up, so that the server can stop at any time."""

    try:
        await asyncio.wait_for(_gone(request.receive), seconds)
    except TimeoutError:
        return


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drip(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    """The body's first byte, then a space every few milliseconds: never silent for long, and never done in time."""
    yield body[:1]
    for _ in range(round(seconds * 50)):
        await asyncio.sleep(0.02)
        yield b" "
    yield body[1:]


class _Truncated(Response):
    """Promises its whole body, sends half, and hangs up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body[: len(self.body) // 2]), "more_body": True})
        _transport(receive).close()
        await _gone(receive)


class _Reset(Response):
    """Cuts the connection under the server that would answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _transport(receive)
        linger_not = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        transport.abort()
        await _gone(receive)


def _transport(receive: Receive) -> Any:
    """ASGI knows no way to hang up; uvicorn's receive belongs to the object that has the connection."""
    return receive.__self__.transport  # type: ignore[attr-defined]


def _with_bad_plants(body: bytes) -> Response:
    plants = from_json(body)["plants"]
    malformed = [{"plantId": 7, "name": CANARY}, CANARY, {"plantId": "no-name"}]
    return JSONResponse({"plants": [*plants, *malformed, *plants[:1]]})


_SPOIL: dict[str, Callable[[bytes, Fault], Response]] = {
    "slow_body": lambda body, fault: StreamingResponse(_drip(body, fault.seconds), media_type=JSON),
    "huge": lambda body, _: Response(body[:-1] + b" " * 2_000_000 + body[-1:], media_type=JSON),
    "truncated": lambda body, _: _Truncated(body, media_type=JSON),
    "malformed": lambda _, __: Response(b'{"' + CANARY.encode() + b'": [', media_type=JSON),
    "wrong_type": lambda _, __: Response(f"<html>{CANARY}</html>", media_type="text/html"),
    "wrong_schema": lambda _, __: JSONResponse(
        {"plants": CANARY, "version": CANARY, "isError": CANARY, "access_token": [CANARY]}
    ),
    "bad_plants": lambda body, _: _with_bad_plants(body),
}
