"""A connection to the test's own database, and questions to the async side from sync tests."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import psycopg
import pytest

Answer = TypeVar("Answer")

# Ten minutes before a day and a month end, so that everything happens on both sides of a partition's edge.
START = datetime(2026, 10, 31, 23, 50, tzinfo=UTC)
NOW = datetime(2026, 11, 2, tzinfo=UTC)


class Ask(Protocol):
    """Calls `function(connection, *arguments)` on an async connection."""

    def __call__(self, function: Callable[..., Awaitable[Answer]], *arguments: object) -> Answer: ...


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def ask(database_url: str) -> Iterator[Ask]:
    with asyncio.Runner() as runner:
        # Not in UTC, since what is answered must not depend on it.
        opened = runner.run(
            psycopg.AsyncConnection.connect(database_url, autocommit=True, options="-c timezone=Asia/Kathmandu")
        )

        def question(function: Callable[..., Awaitable[Answer]], *arguments: object) -> Answer:
            async def call() -> Answer:
                return await function(opened, *arguments)

            return runner.run(call())

        yield question
        runner.run(opened.close())
