"""Both brokers behind one fixture, each fresh per test."""

from collections.abc import Iterator

import pytest

from application.ports import Broker
from domain import topology
from infra.local_broker import LocalBroker
from infra.rabbitmq import RabbitBroker


@pytest.fixture(params=["local", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker with the shared topology and that of the prefix `acme`."""
    rabbitmq = request.param == "rabbitmq"
    fresh: Broker = RabbitBroker(request.getfixturevalue("amqp_url")) if rabbitmq else LocalBroker()
    fresh.declare(topology.shared())
    fresh.declare(topology.of_prefix("acme"))
    try:
        yield fresh
    finally:
        fresh.close()


@pytest.fixture
def rabbit(amqp_url: str) -> Iterator[RabbitBroker]:
    """The same, RabbitMQ only."""
    fresh = RabbitBroker(amqp_url)
    fresh.declare(topology.shared())
    fresh.declare(topology.of_prefix("acme"))
    try:
        yield fresh
    finally:
        fresh.close()
