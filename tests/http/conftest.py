"""One served world for all tests here: each test makes organisations of its own in it."""

from collections.abc import Iterator

import pytest

from infra.embedded import EmbeddedPostgres
from interfaces.http.services import RateLimits
from tests.http.world import Org, World, served
from tests.servers import database

PLENTY = RateLimits(100_000, 100_000, 100_000)


@pytest.fixture(scope="package")
def package_world(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[World]:
    with database(postgres_server, migrated_template) as url, served(url, PLENTY) as world:
        yield world


@pytest.fixture
def world(package_world: World) -> World:
    """With an ESM and checks that are well again after each test."""
    package_world.esm.__init__()  # type: ignore[misc]
    package_world.problems.clear()
    return package_world


@pytest.fixture
def org(world: World) -> Org:
    return world.organisation()
