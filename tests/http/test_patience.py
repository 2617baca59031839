"""Connections that keep the server waiting, and what is no HTTP."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.patience import Patience
from infra.serving import Serving
from interfaces.http import inputs
from tests.http.world import Org, World

SOON = Patience(head_s=1, body_s=1, answer_s=1)
HUGE = 64 * 1024 * 1024


@pytest.fixture
def hasty() -> Iterator[str]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b"x" * HUGE if scope["path"] == "/huge" else b"ok"
        if scope["path"] == "/body":
            await Request(scope, receive).body()
        await Response(body)(scope, receive, send)

    with Serving(app, patience=SOON) as serving:
        yield serving.url


def opened(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname or "", place.port or 0), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return bytes(received)


@pytest.mark.parametrize(
    "said",
    [
        b"", b"GET / HT", b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    ],
)  # fmt: skip
def test_who_does_not_go_on_is_disconnected(hasty: str, said: bytes) -> None:
    """Nothing is asserted of the time but that there is an end, long before the socket's own time-out."""
    with opened(hasty) as connection:
        connection.sendall(said)
        read_all(connection)


def test_who_drips_is_disconnected(hasty: str) -> None:
    with opened(hasty) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            drip(connection)


def drip(connection: socket.socket) -> None:
    """A byte each 50 ms, for 20 s."""
    connection.settimeout(0.05)
    for _ in range(400):
        connection.sendall(b"x")
        with suppress(TimeoutError):
            connection.recv(1)


def test_who_takes_nothing_is_disconnected(hasty: str) -> None:
    with opened(hasty) as connection:
        connection.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(1)
        # Longer than its patience, by the answers to others.
        with opened(hasty) as other:
            read_all(other)
        with opened(hasty) as other:
            read_all(other)
        assert len(read_all(connection)) < HUGE


def envelope(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert json.loads(body)["code"] == code
    for header in (b"connection: close", b"x-content-type-options: nosniff", b"x-request-id: "):
        assert header in head.lower()


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\r\n\r\n", b"GET /\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_gets_the_envelope(world: World, said: bytes) -> None:
    with opened(world.url) as connection:
        connection.sendall(said)
        envelope(read_all(connection), 400, "BAD_REQUEST")


def test_a_body_that_does_not_come_is_a_408(world: World, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BODY_S", 0.1)
    headers = "".join(f"{name}: {value}\r\n" for name, value in org.jwt().items())
    with opened(world.url) as connection:
        connection.sendall(
            f"POST /api/v1/trading/config HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n{headers}\r\n{{".encode()
        )
        envelope(read_all(connection), 408, "REQUEST_TIMEOUT")
