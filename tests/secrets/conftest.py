"""A secret box on a database of the test's own."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg_pool import ConnectionPool

from infra import postgres
from infra.operator_keys import OperatorKey
from infra.secret_box import PostgresSecretBox

Box = Callable[..., PostgresSecretBox]


@pytest.fixture
def pool(database_url: str) -> Iterator["ConnectionPool[Connection[Any]]"]:
    with postgres.pool(database_url, 4, "secrets") as opened:
        yield opened


@pytest.fixture
def box(pool: "ConnectionPool[Connection[Any]]") -> Box:
    """A process's box, by the operator keys that it knows."""
    return lambda *keys: PostgresSecretBox(pool, keys)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def old() -> OperatorKey:
    return OperatorKey.random()


@pytest.fixture
def new() -> OperatorKey:
    return OperatorKey.random()
