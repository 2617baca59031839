"""Fixtures every test may ask for: servers by the session, databases and virtual hosts by the test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from tests.access_log import AccessLog, watched
from tests.servers import FAST, database, make_template, rabbitmq_node, temporary_home, virtual_host

# How fast examples are made says something of the machine, and nothing of what is tried.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

NO_RABBITMQ = (
    "RabbitMQ is not installed. On Debian, as root: apt-get install rabbitmq-server (the tests run their own node, so "
    "its service may stay stopped). Or name a broker to test against: WATTLEDGER_TEST_AMQP_URL=amqp://..."
)


@pytest.fixture(scope="session", autouse=True)
def access_log() -> Iterator[AccessLog]:
    """Of the whole suite: the last test of all fails when any answer was a 500 that no test wanted."""
    with watched() as log:
        yield log
    assert log.failed == []


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """The PostgreSQL of this session, empty but for the template."""
    with temporary_home() as home, EmbeddedPostgres(home, settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """The name of the database that each test's own is a copy of."""
    return make_template(postgres_server)


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with database(postgres_server, migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database of the test's own with nothing in it."""
    with database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[PrivateRabbitmq]:
    """The RabbitMQ node of this session; a test that kills it starts it again before it ends."""
    if not PrivateRabbitmq.installed():
        pytest.fail(NO_RABBITMQ, pytrace=False)
    with rabbitmq_node() as node:
        yield node


@pytest.fixture
def amqp_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A virtual host of the test's own; where RabbitMQ is not installed, the broker that was named, shared by all."""
    named = os.environ.get("WATTLEDGER_TEST_AMQP_URL")
    if named and not PrivateRabbitmq.installed():
        yield named
        return
    with virtual_host(request.getfixturevalue("rabbitmq_server")) as url:
        yield url
