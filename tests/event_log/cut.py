"""A TCP proxy before PostgreSQL's socket that cuts a connection just when its answer is due."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Cut:
    """`url` leads through it. Once `armed`, the server's next answer to a message that holds `marker` is swallowed, and
    with it the connection: the server has done what was asked, and nobody hears of it.
    """

    def __init__(self, url: str, marker: bytes):
        parts = conninfo_to_dict(url)
        self._target = f"{parts['host']}/.s.PGSQL.5432"
        self._marker = marker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.armed = threading.Event()
        self.cuts = 0
        port = self._listener.getsockname()[1]
        self.url = make_conninfo(url, host="127.0.0.1", port=port)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                asked = threading.Event()
                threading.Thread(target=self._ask, args=(near, far, asked), daemon=True).start()
                threading.Thread(target=self._answer, args=(far, near, asked), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, asked: threading.Event) -> None:
        with near, suppress(OSError):
            while data := near.recv(65536):
                if self.armed.is_set() and self._marker in data:
                    asked.set()
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)

    def _answer(self, far: socket.socket, near: socket.socket, asked: threading.Event) -> None:
        with far, suppress(OSError):
            while data := far.recv(65536):
                if asked.is_set():
                    self.armed.clear()
                    self.cuts += 1
                    break
                near.sendall(data)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
