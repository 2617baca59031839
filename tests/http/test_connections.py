"""What a connection's bytes are taken for: whole requests in their order, or no HTTP."""

import re
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.patience import LARGEST_HEAD, PIPELINED
from infra.serving import Serving
from tests.http.test_patience import opened, read_all

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: h2c\r\n"


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\n" + b"".join(headers) + b"\r\n" + body


GOOD = {
    "without a body": (GET, "GET /a b=c 0 host"),
    "with a length": (post(b"Content-Length: 3\r\n", body=b"abc"), "POST /  3 content-length,host"),
    "in chunks": (post(CHUNKED, body=b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), "POST /  5 host,transfer-encoding"),
    "with trailers": (
        post(CHUNKED, body=b"3\r\nabc\r\n0\r\nX-Api-Key: stolen\r\n\r\n"),
        "POST /  3 host,transfer-encoding",
    ),
    "after empty lines": (b"\r\n\r\n" + GET, "GET /a b=c 0 host"),
    "with an absolute address": (b"GET http://x/a?b HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a b 0 host"),
    "that asks for an upgrade": (
        GET[:-2] + UPGRADE + b"\r\n",
        "GET /a b=c 0 connection,host,http2-settings",
    ),
    "with a body that asks for an upgrade": (
        post(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", body=b"abc"),
        "POST /  3 connection,content-length,host",
    ),
    "in chunks that asks for an upgrade": (
        post(UPGRADE, CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
        "POST /  3 connection,host,http2-settings,transfer-encoding",
    ),
}
BAD = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "two kinds of length": post(b"Content-Length: 3\r\n", CHUNKED, body=b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 3\r\nContent-Length: 4\r\n", body=b"abcd"),
    "a length with a sign": post(b"Content-Length: +3\r\n", body=b"abc"),
    "another coding": post(b"Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n"),
    "a coding that is almost ours": post(b"Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "a chunk of no number": post(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk that is too long": post(CHUNKED, body=b"3\r\nabcd0\r\n\r\n"),
    "lines that end with LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "a folded header": post(b"X: a\r\n b\r\n"),
    "a space before the colon": post(b"X : a\r\n"),
    "a NUL": post(b"X: a\0b\r\n"),
}
ENDLESS = {
    "a head": b"GET / HTTP/1.1\r\nX: ",
    "trailers": post(CHUNKED, body=b"0\r\nX: "),
    "a chunk's head": post(CHUNKED, body=b"3;"),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of an app that says what it was asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        names = ",".join(sorted(request.headers.keys()))
        said = f"{request.method} {request.url.path} {request.url.query} {len(await request.body())} {names}"
        await Response(f"<{said}>")(scope, receive, send)

    with Serving(app) as serving:
        yield serving.url


def answers(url: str, *pieces: bytes) -> list[str]:
    """Statuses and what the app said, to the connection's end."""
    with opened(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it was refused before it had said all
        received = read_all(connection).decode()
    return re.findall(r"HTTP/1\.1 (\d+)", received) + re.findall(r"<([^>]*)>", received)


@pytest.mark.parametrize(("request_", "said"), GOOD.values(), ids=GOOD)
def test_a_request_is_read_and_so_is_the_next(url: str, request_: bytes, said: str) -> None:
    assert answers(url, request_ + LAST) == ["200", "200", said, "GET /last  0 connection,host"]


@pytest.mark.parametrize("said", BAD.values(), ids=BAD)
def test_no_http_is_refused(url: str, said: bytes) -> None:
    assert answers(url, said) == ["400"]


@pytest.mark.parametrize("said", ENDLESS.values(), ids=ENDLESS)
def test_what_has_no_end_is_ended(url: str, said: bytes) -> None:
    """Which the client may be told or not, as it is still sending."""
    assert answers(url, said, *[b"a" * LARGEST_HEAD] * 100) in (["400"], [])


@pytest.mark.parametrize("said", BAD.values(), ids=BAD)
def test_what_came_whole_before_it_is_answered(url: str, said: bytes) -> None:
    """As its last answer: a command that was done must not look as if it were refused."""
    assert answers(url, GET + said) == ["200", "GET /a b=c 0 host"]
    assert answers(url, GET + GET + said) == ["200", "200", "GET /a b=c 0 host", "GET /a b=c 0 host"]


def test_a_body_longer_than_its_length_leaves_its_request_an_answer(url: str) -> None:
    assert answers(url, post(b"Content-Length: 3\r\n", body=b"abcdefgh\r\n\r\n"))[-1] == "POST /  3 content-length,host"


def test_requests_may_be_sent_ahead_but_not_without_end(url: str) -> None:
    ahead = GET * PIPELINED + LAST
    assert answers(url, ahead).count("200") == PIPELINED + 1
    assert answers(url, GET * 1000).count("200") == PIPELINED + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(GOOD.values())), max_size=4), st.lists(st.integers(0, 900), max_size=5))
def test_how_bytes_are_split_changes_nothing(url: str, requests: list[tuple[bytes, str]], cuts: list[int]) -> None:
    whole = b"".join(request for request, _ in requests) + LAST
    places = [0, *sorted(cuts), len(whole)]
    pieces = [whole[begin:end] for begin, end in pairwise(places) if begin < end]

    said = [said for _, said in requests]
    assert answers(url, *pieces) == ["200"] * (len(said) + 1) + [*said, "GET /last  0 connection,host"]
