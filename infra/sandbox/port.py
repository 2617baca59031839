"""The sandbox's port, which can go away for a while: closed, or failing every TLS handshake."""

import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread

from starlette.types import ASGIApp

from infra.serving import Serving

# TLS 1.2 record of a fatal alert, handshake_failure (RFC 8446, 6).
_HANDSHAKE_FAILURE = bytes((21, 3, 3, 0, 2, 2, 40))


class Port:
    """Serves the application from construction's end until `stop`; always the same `url`."""

    def __init__(self, app: ASGIApp, host: str, port: int, certificate: Path | None):
        self._serve = partial(Serving, app, host, certificate=certificate)
        self._serving = self._serve(port)
        self._address = (host, self._serving.port)
        self.url = self._serving.url
        self._called_back = Event()
        self._away: Thread | None = None

    def go_away(self, seconds: float, *, deaf: bool) -> None:
        """No new connection from now on, the others end with their answers; `deaf` fails handshakes meanwhile. To be
        called in the server's own event loop."""
        if self._away is not None and self._away.is_alive():
            return
        self._called_back.clear()
        self._serving.refuse()
        listener = socket.create_server(self._address) if deaf else None
        self._away = Thread(target=self._stay_away, args=(seconds, listener), name="away", daemon=True)
        self._away.start()

    def come_back(self) -> None:
        """Returns when it serves; idempotent."""
        self._called_back.set()
        if self._away is not None:
            self._away.join()

    def stop(self) -> None:
        """Idempotent."""
        self.come_back()
        self._serving.stop()

    def _stay_away(self, seconds: float, listener: socket.socket | None) -> None:
        end = time.monotonic() + seconds
        self._serving.stop()
        if listener is None:
            self._called_back.wait(seconds)
        else:
            with listener:
                self._fail_handshakes(listener, end)
        self._serving = self._serve(self._address[1])

    def _fail_handshakes(self, listener: socket.socket, end: float) -> None:
        listener.settimeout(0.05)
        while time.monotonic() < end and not self._called_back.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(1)
                    connection.recv(65536)
                    connection.sendall(_HANDSHAKE_FAILURE)
