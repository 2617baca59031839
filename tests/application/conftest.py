"""One world a test, in which the command line acts."""

from collections.abc import Iterator

import pytest

from application.context import Metadata, acting
from tests.application.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with acting(Metadata(actor="cli", source="cli")):
        yield World()
