"""The sandbox ESM over real HTTP, and an adapter that calls it."""

from collections.abc import Iterator
from ssl import SSLContext
from uuid import uuid4

import httpx
import pytest

from application.ports import Partner
from infra.esm import Breaker, Esm, Retries, Room, Timeouts
from infra.sandbox.esm import SandboxEsm

SECRET = "canary-secret-5f1d"
LOCAL = ("127.0.0.0/8",)
PATIENT = Timeouts(connect=3, total=10)
HASTY = Timeouts(connect=0.25, total=0.25)
QUICKLY = Retries(attempts=3, wait_initial=0.005, wait_max=0.01)


@pytest.fixture(scope="package")
def served() -> Iterator[SandboxEsm]:
    with SandboxEsm(client_secret=SECRET, base_path="/partner/v2") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(served: SandboxEsm) -> SandboxEsm:
    served.reset()
    return served


@pytest.fixture
def partner(sandbox: SandboxEsm) -> Partner:
    return Partner(uuid4(), sandbox.url, sandbox.client_id, sandbox.client_secret)


@pytest.fixture(scope="package")
def tls() -> SSLContext:
    """Made once, because reading all certificate authorities takes longer than most tests."""
    return httpx.create_ssl_context()


@pytest.fixture
def esm(tls: SSLContext) -> Iterator[Esm]:
    room = Room(patience=60)  # a call may last longer than a second on a busy machine
    client = Esm(LOCAL, timeouts=PATIENT, retries=QUICKLY, breaker=Breaker(failures=1000, pause=60), room=room, tls=tls)
    yield client
    client.close()


@pytest.fixture
def hasty(tls: SSLContext) -> Iterator[Esm]:
    """An adapter with very little patience."""
    client = Esm(LOCAL, timeouts=HASTY, retries=QUICKLY, breaker=Breaker(failures=1000, pause=60), tls=tls)
    yield client
    client.close()
