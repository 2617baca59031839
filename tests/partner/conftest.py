"""An API that answers the broker's questions, and a RabbitMQ node that asks them."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from infra import partner_auth
from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from interfaces.http.services import RateLimits
from tests.conftest import NO_RABBITMQ
from tests.http.world import World, served
from tests.servers import database, temporary_home

CACHE_MS = 300
LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="package")
def world(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[World]:
    limits = RateLimits(100_000, 100_000, 100_000)
    with database(postgres_server, migrated_template) as url, served(url, limits, partner_networks=LOOPBACK) as world:
        yield world


@pytest.fixture(scope="package")
def node(world: World) -> Iterator[PrivateRabbitmq]:
    """Its own accounts first, then ours; it remembers an answer for a moment only."""
    if not PrivateRabbitmq.has_plugins(partner_auth.PLUGINS):
        pytest.fail(NO_RABBITMQ, pytrace=False)
    with temporary_home() as home:
        plugins = ["rabbitmq_management", *partner_auth.PLUGINS]
        node = PrivateRabbitmq(home, plugins=plugins, config=partner_auth.config(world.url, CACHE_MS))
        node.start()
        try:
            yield node
        finally:
            node.kill()
