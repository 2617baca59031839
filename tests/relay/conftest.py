"""A world of each test's own."""

import pytest

from tests.relay.world import World


@pytest.fixture
def world() -> World:
    return World()
