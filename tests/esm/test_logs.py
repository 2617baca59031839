"""Libraries that log what they are given are kept from it in every process."""

import logging
import subprocess
import sys

import pytest

from application.ports import Partner
from infra.esm import Esm
from infra.sandbox.esm import TOKEN_PREFIX, SandboxEsm
from infra.sandbox.faults import Fault
from tests.esm.conftest import SECRET

RETRYING = """
import sys
import {entry}
import stamina

@stamina.retry(on=ValueError, attempts=2, wait_initial=0, wait_jitter=0)
def refuse(secret):
    raise ValueError

try:
    refuse("canary")
except ValueError:
    print("gave up")
"""


@pytest.mark.parametrize("entry", ["interfaces.cli", "tests.benchmarks.__main__", "infra.esm"])
def test_retries_are_not_logged_with_their_arguments(entry: str) -> None:
    """A process that sets up no logs: the library would print what it is given to standard output."""
    command = [sys.executable, "-c", RETRYING.format(entry=entry)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (run.stdout, run.stderr) == ("gave up\n", "")


def test_urls_headers_and_bodies_of_calls_are_not_logged(
    esm: Esm, sandbox: SandboxEsm, partner: Partner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox.faults.add(Fault(route="list", fault="500", times=1))
    esm.plants(partner)
    esm.plant_config(partner, "esm-001")
    lines = [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    ours = [line for line in lines if "uvicorn" not in line]
    assert not [line for line in lines if SECRET in line or TOKEN_PREFIX in line]
    assert not [line for line in ours if "plantId" in line or sandbox.url in line]
