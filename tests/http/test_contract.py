"""Schemathesis reads our OpenAPI document and sends what it allows and what it forbids: each answer is documented."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.conftest import PLENTY
from tests.http.test_answer_examples import Story
from tests.http.world import Org, served

# How times, aliases and a plan's blocks go together, and what may be cleared while trading is on, no schema can say.
# A position that is not reached yet costs a second each time.
CONFIG = """
[parameters]
plant_id = "{plant}"
command_id = "{command}"
x-org-id = "{org}"
X-Position-AtLeast = "0"

[checks]
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 412, 429]

[[operations]]
include-path-regex = "/(config|config/validate|meters|telemetry|export|audit)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 412, 429]
"""


@pytest.fixture
def fuzzed(database_url: str) -> Iterator[Org]:
    """In a world of its own: what it gave up waiting for may still be at work."""
    with served(database_url, PLENTY) as world:
        yield world.organisation()


@pytest.mark.parametrize(
    "bounds",
    [{"--max-examples": "5"}, pytest.param({"--max-time": "600"}, marks=pytest.mark.bench)],
    ids=["soon", "ten minutes"],
)
def test_every_answer_is_as_documented(fuzzed: Org, tmp_path: Path, bounds: dict[str, str]) -> None:
    """By a number in the suite, so that a busy machine asks no less; by the clock on request."""
    config = tmp_path / "schemathesis.toml"
    org = fuzzed
    story = Story(org, plant_id=org.plant())
    story.command()
    config.write_text(CONFIG.format(plant=story.plant_id, command=story.command_id, org=org.id))
    options = {
        "--url": org.world.url,
        "--header": f"X-API-Key: {org.key().api_key}",
        "--checks": "all",
        "--exclude-path-regex": "/stream$",  # which has no end to wait for
        **bounds,
        "--seed": "1",
        "--generation-database": "none",
    }
    given = [word for option in options.items() for word in option]
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    document = f"{org.world.url}/api/v1/openapi.json"
    run = subprocess.run([*command, document, *given], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
