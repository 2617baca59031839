"""A site over each broker, or over the in-process one where the broker makes no difference."""

from collections.abc import Iterator

import pytest

from domain import topology
from infra.local_broker import LocalBroker
from infra.rabbitmq import RabbitBroker
from tests.worker.site import Site


@pytest.fixture(params=["local", "rabbitmq"])
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[Site]:
    if request.param == "rabbitmq":
        url = request.getfixturevalue("amqp_url")
        yield from _site(database_url, RabbitBroker(url), RabbitBroker(url, name="outside"))
    else:
        broker = LocalBroker()
        yield from _site(database_url, broker, broker)


@pytest.fixture
def rabbit_site(database_url: str, amqp_url: str) -> Iterator[Site]:
    yield from _site(database_url, RabbitBroker(amqp_url), RabbitBroker(amqp_url, name="outside"))


@pytest.fixture
def local(database_url: str) -> Iterator[Site]:
    broker = LocalBroker()
    yield from _site(database_url, broker, broker)


def _site(database_url: str, broker: LocalBroker | RabbitBroker, outside: LocalBroker | RabbitBroker) -> Iterator[Site]:
    broker.declare(topology.shared())
    site = Site(database_url, broker, outside)
    try:
        yield site
    finally:
        site.close()
        outside.close()
        broker.close()
