"""A question to the database, on a connection of the queries' pool."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

T = TypeVar("T")


async def asked(
    pool: "AsyncConnectionPool[AsyncConnection[Any]]", question: "Callable[[AsyncConnection[Any]], Awaitable[T]]"
) -> T:
    """Once more when the connection turns out to be lost: a server that restarted leaves a pool full of them.

    The connections commit by themselves, so there is no transaction to end: what `pool.connection()` would do.
    """
    for attempt in (1, 2):
        connection = await pool.getconn()
        try:
            return await question(connection)
        except psycopg.OperationalError:
            if attempt == 2 or not connection.broken:
                raise
        finally:
            await pool.putconn(connection)
        await pool.check()
    raise AssertionError
