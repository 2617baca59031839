"""Faults on demand: the next answers of one of the sandbox's routes are spoiled in a chosen way."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

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
]  # fmt: skip
Handler = Callable[[Request], Awaitable[Response]]

# What must never be seen outside: tests look for it in errors and logs.
CANARY = "internal: partner-body-canary"
JSON = "application/json"


class Fault(BaseModel):
    """`fault` spoils the next `times` answers of `route`; `seconds` is how long a slow one takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    route: RouteName
    fault: FaultName
    times: int = Field(default=1, ge=1, le=1_000_000)
    seconds: float = Field(default=60.0, ge=0, le=600)


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

    def take(self, route: RouteName) -> Fault | None:
        """The next fault of a route, used up by this."""
        with self._lock:
            fault = next((waiting for waiting in self._waiting if waiting.route == route), None)
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
    answer = await handler(request)
    if fault.fault == "slow":
        await _wait_unless_gone(request, fault.seconds)
        return answer
    return _SPOIL[fault.fault](bytes(answer.body), fault)


async def _wait_unless_gone(request: Request, seconds: float) -> None:
    """Waits, but not for a client that has hung up, so that the server can stop at any time."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(gone(), seconds)
    except TimeoutError:
        return


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
