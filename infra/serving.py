"""An ASGI application served by uvicorn in a thread of its own, on a given or a free port."""

import gc
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import uvicorn
from starlette.types import ASGIApp

from infra.patience import Connection, Patience


def settle() -> None:
    """For a process that begins to serve. What there is by now stays to its end; to look through it for garbage, as
    Python does every two seconds under load, holds all answers up for 50 ms."""
    gc.collect()
    gc.freeze()


class PortTaken(Exception):
    """The port is taken"""


class Serving:
    """Listens from construction's end until `stop`; also a context manager. `url` has the true port.

    An app whose answers may never end by themselves has `state.end_streams`, which is called before the end waits; one
    that answers what is no request has `state.unread`, from the status to headers and body."""

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        lifespan: Literal["auto", "on", "off"] = "off",
        grace_s: int = 1,
        certificate: Path | None = None,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ):
        """Raises PortTaken. `grace_s` is how long requests in hand may take at the end; `certificate`, a PEM file with
        its key, makes it https."""
        try:
            self._socket = socket.create_server((host, port), reuse_port=False)
        except OSError as error:
            raise PortTaken(f"Can't listen on {host}:{port}: {error.strerror}") from None
        # asyncio sets this only on sockets that were made with an explicit protocol, and Nagle costs 40 ms an answer.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'https' if certificate else 'http'}://{host}:{self.port}"
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan=lifespan,
            timeout_graceful_shutdown=grace_s,
            ssl_certfile=certificate, http=Connection, loop="uvloop", ws="none",
        )  # fmt: skip
        self._server = _Server(config, patience)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="serving", daemon=True)
        self._thread.start()
        if not self._server.is_up.wait(10):
            raise RuntimeError(f"the server did not come up on {self.url}")

    def refuse(self) -> None:
        """No new connection from now on, and those that there are end with their answers. To be called in its own
        event loop."""
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()

    def drain(self, seconds: float) -> None:
        """For so long it answers as before, but each answer ends its connection: whoever balances loads has time to see
        that this process is leaving, and no request is lost with a connection that had just been made."""
        if seconds:
            last, state = (b"connection", b"close"), self._server.server_state
            self._server.config.encoded_headers.append(last)  # of which the server makes these anew each second
            state.default_headers = [*(header for header in state.default_headers if header != last), last]
            self._thread.join(seconds)

    def stop(self) -> None:
        """Returns when the server has ended; idempotent."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def wait(self) -> None:
        """Blocks until the server has ended."""
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Server(uvicorn.Server):
    """Tells when it listens, and looks after its connections."""

    def __init__(self, config: uvicorn.Config, patience: Patience):
        super().__init__(config)
        self._patience = patience
        self.is_up = threading.Event()

    async def on_tick(self, counter: int) -> bool:
        # Ten ticks a second.
        for connection in list(self.server_state.connections) if counter % 10 == 0 else ():
            if isinstance(connection, Connection):
                connection.look(self._patience)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end_streams = getattr(getattr(self.config.app, "state", None), "end_streams", None)
        if end_streams is not None:
            end_streams()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()
