"""Applications in processes of their own: the API, and Starlette with a pool of psycopg and nothing else."""

import multiprocessing
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

import uvicorn
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.bootstrap import Where, assembled
from infra.serving import Serving, settle
from infra.settings import Settings
from interfaces.cli.wiring import api

SETTINGS = Settings(reads_per_minute=10**9, log_level="WARNING")

Pool = AsyncConnectionPool[AsyncConnection[Any]]


@contextmanager
def served(app: Callable[..., Any], *arguments: object) -> Iterator[str]:
    """The URL of the application that the context manager `app` makes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(app, arguments, theirs))
    process.start()
    try:
        assert ours.poll(30)
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(app: Callable[..., Any], arguments: tuple[object, ...], report: Pipe) -> None:
    with app(*arguments) as made:
        if app is our_api:
            with Serving(made, lifespan="on") as serving:
                settle()
                report.send(serving.url)
                serving.wait()
        else:
            _serve_bare(made, report)


def _serve_bare(app: Starlette, report: Pipe) -> None:
    """By uvicorn without its extras."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # As those have it that uvicorn makes.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        report.send(f"http://127.0.0.1:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            app, http="h11", loop="asyncio", ws="none", lifespan="on", log_config=None, access_log=False,
            server_header=False,
        )  # fmt: skip
        uvicorn.Server(config).run([listening])


@contextmanager
def our_api(where: Where) -> Iterator[Starlette]:
    with assembled(where, SETTINGS) as parts:
        yield api(parts, SETTINGS)


def bare(pool: Pool, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Starlette:
    """Starlette with one route, and its pool."""

    @asynccontextmanager
    async def opened(_: Starlette) -> AsyncIterator[None]:
        async with pool:
            yield

    return Starlette(routes=[Route(path, endpoint)], lifespan=opened)
