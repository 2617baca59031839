"""Connections to PostgreSQL: pools that agree in size with the threads that use them, and failures as our errors."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout, TooManyRequests

from domain.errors import Unavailable

CHECKOUT_TIMEOUT = 2.0
# A pool waits twice as long after each try to connect; whoever comes after this begins anew, so that a server which is
# back is found within this time, however long it was away.
RECONNECT_TIMEOUT = 1.0
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 2_500
RETRY_AFTER = 1

_KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "connect_timeout": 5,
}


def pool(url: str, size: int, name: str) -> "ConnectionPool[Connection[Any]]":
    """Of autocommit connections; opened by its `open()`. A checkout that takes longer than 2 s raises PoolTimeout."""
    return ConnectionPool(
        url,
        min_size=1,
        max_size=size,
        timeout=CHECKOUT_TIMEOUT,
        max_waiting=size * 4,
        reconnect_timeout=RECONNECT_TIMEOUT,
        open=False,
        name=name,
        kwargs={
            "autocommit": True,
            "application_name": f"wattledger {name}",
            "options": f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS}",
            **_KEEPALIVE,
        },
    )


def async_pool(
    url: str, size: int, name: str, configure: "Callable[[AsyncConnection[Any]], Awaitable[None]] | None" = None
) -> "AsyncConnectionPool[AsyncConnection[Any]]":
    """The same for queries, with a statement timeout, in UTC. The edge repeats a query whose connection was lost."""
    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=size,
        timeout=CHECKOUT_TIMEOUT,
        max_waiting=size * 4,
        reconnect_timeout=RECONNECT_TIMEOUT,
        open=False,
        name=name,
        configure=configure,
        kwargs={
            "autocommit": True,
            "application_name": f"wattledger {name}",
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC",
            **_KEEPALIVE,
        },
    )


def query_pool(url: str, size: int, name: str) -> "AsyncConnectionPool[AsyncConnection[Any]]":
    """What the API asks by: it reads JSON by msgspec, in a fraction of the time of Python's."""

    async def configure(connection: "AsyncConnection[Any]") -> None:
        set_json_loads(msgspec.json.decode, connection)

    return async_pool(url, size, name, configure)


def connect(url: str, name: str, **options: Any) -> Connection[Any]:
    """One autocommit connection of one's own."""
    return psycopg.connect(url, autocommit=True, application_name=f"wattledger {name}", **_KEEPALIVE, **options)


async def async_connect(url: str, name: str) -> "AsyncConnection[Any]":
    """The same for an event loop."""
    return await AsyncConnection.connect(url, autocommit=True, application_name=f"wattledger {name}", **_KEEPALIVE)


def is_connection_loss(error: psycopg.Error) -> bool:
    """Whether the server is gone, rather than that it said no."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


@contextmanager
def unavailable() -> Iterator[None]:
    """Turns a database that can't be reached, or a pool that runs dry, into a 503 that says when to come again."""
    try:
        yield
    except (PoolTimeout, TooManyRequests):
        raise Unavailable("The database is busy", retry_after=RETRY_AFTER) from None
    except psycopg.OperationalError as error:
        raise Unavailable("The database can't be reached", retry_after=RETRY_AFTER) from error
