"""Clients that ask over HTTP again as soon as they are answered; so cheap that it is the server which is measured."""

import re
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Self
from urllib.parse import urlsplit

PATIENCE_S = 30
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


def request(path: str, headers: dict[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Client:
    """One connection that is kept. Anything but a 200 is an AssertionError."""

    def __init__(self, url: str):
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self.socket = socket.create_connection((address.hostname, address.port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = bytearray()
        self._asked = 0.0

    def ask(self, asked: bytes) -> None:
        self._answer.clear()
        self._asked = time.perf_counter()
        self.socket.sendall(asked)

    def waited(self) -> float | None:
        """Reads once; the seconds that the whole answer took, None when more of it is to come."""
        received = self.socket.recv(1 << 18)
        assert received, "the server has closed the connection"
        self._answer += received
        head = self._answer.find(b"\r\n\r\n") + 4
        if head < 4:
            return None
        length = _LENGTH.search(self._answer, 0, head)
        assert self._answer.startswith(b"HTTP/1.1 200 "), bytes(self._answer)
        assert length, bytes(self._answer[:head])
        return time.perf_counter() - self._asked if len(self._answer) >= head + int(length[1]) else None

    def get(self, asked: bytes) -> float:
        self.ask(asked)
        while (waited := self.waited()) is None:
            pass
        return waited

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def waits(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> list[float]:
    """How long each answer took in that time, of so many clients that take the requests in turn."""
    upcoming, waited = cycle(requests), []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = stack.enter_context(Client(url))
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.ask(next(upcoming))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            ready = selector.select(PATIENCE_S)
            assert ready, "no answer"
            for key, _ in ready:
                took = key.data.waited()
                if took is not None:
                    waited.append(took)
                    key.data.ask(next(upcoming))
    return waited
