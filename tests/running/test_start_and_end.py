"""Processes start in any order with what they need, and end without losing a request."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Self

import httpx
import pytest

from infra.doctor import examine
from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from infra.settings import Settings
from tests.running.conftest import Programs
from tests.servers import rabbitmq_node
from tests.worker.site import until

PATIENCE_S = 60.0
CLIENTS = 3


@pytest.fixture(scope="module")
def rabbitmq_server() -> Iterator[PrivateRabbitmq]:
    """A node that nobody else's queues are on: it is away for a while here."""
    with rabbitmq_node() as node:
        yield node


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def ails(programs: Programs) -> set[str]:
    """The doctor's faults."""
    found = examine(programs.where(), Settings())
    # The tests' server need not survive a power cut.
    return {each.check for each in found if each.verdict == "fault"} - {"durability"}


@pytest.mark.parametrize("first", ["database", "broker"])
def test_processes_wait_for_what_comes_up_after_them(
    programs: Programs, postgres_server: EmbeddedPostgres, rabbitmq_server: PrivateRabbitmq, first: str
) -> None:
    postgres_server.kill()
    rabbitmq_server.kill()
    try:
        api, url = programs.serve()
        worker = programs.work()
        api.launch()
        worker.launch()
        until(lambda: programs.told().count("waiting for the database") > 2, "their waiting")
    finally:
        servers = (postgres_server, rabbitmq_server)
        for server in servers if first == "database" else reversed(servers):
            server.start()
    until(lambda: is_ready(url), "readiness")
    until(lambda: ails(programs) == set(), "health")
    assert (api.stop(), worker.stop()) == (0, 0)


def test_one_that_waits_for_the_database_can_be_stopped(programs_on: Callable[[str, str], Programs]) -> None:
    nowhere = programs_on("postgresql://127.0.0.1:1/x", "amqp://127.0.0.1:1")
    api, _ = nowhere.serve()
    api.launch()
    until(lambda: "waiting for the database" in nowhere.told(), "its waiting")
    assert api.stop() == 0
    assert "Traceback" not in nowhere.told()


class Balancer:
    """Clients behind a load balancer, which looks at readiness before it passes a call on."""

    def __init__(self, urls: list[str], key: str) -> None:
        self.seen: Counter[str] = Counter()
        self._urls, self._headers = urls, {"X-API-Key": key}
        self._ready = set(urls)
        self._stop = threading.Event()
        works = [self._look, *([self._call] * CLIENTS)]
        self._threads = [threading.Thread(target=work) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def has_left(self, url: str) -> bool:
        return url not in self._ready

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self._ready = {url for url in self._urls if is_ready(url)}

    def _call(self) -> None:
        with httpx.Client(headers=self._headers, trust_env=False, timeout=PATIENCE_S) as client:
            while not self._stop.wait(0.02):
                for url in self._ready.copy():
                    try:
                        answer = client.get(f"{url}/api/v1/trading/config")
                        self.seen[str(answer.status_code)] += 1
                    except httpx.TransportError as error:
                        self.seen[repr(error)] += 1


def test_an_api_that_ends_lets_go_of_its_callers_first(programs: Programs) -> None:
    """Long enough for any balancer; a process that would not say that it leaves gives connections that are reset."""
    first, url = programs.serve(drain_seconds=5)
    second, other_url = programs.serve()
    worker = programs.work()
    key = programs.organisation("acme")
    for program in (first, second, worker):
        program.start()
    until(lambda: is_ready(url) and is_ready(other_url), "readiness")
    headers = {"X-API-Key": key}
    until(lambda: httpx.get(f"{url}/api/v1/trading/config", headers=headers).status_code == 200, "rights")
    with Balancer([url, other_url], key) as balancer:
        until(lambda: balancer.seen["200"] > 50, "load")
        ending = threading.Thread(target=first.stop)
        ending.start()
        until(lambda: balancer.has_left(url), "that it leaves")
        leaving = httpx.get(f"{url}/api/v1/trading/config", headers=headers, timeout=PATIENCE_S)
        assert (leaving.status_code, leaving.headers["connection"]) == (200, "close")
        ending.join()
        calls = balancer.seen["200"]
        until(lambda: balancer.seen["200"] > calls + 50, "load on the other")
    assert set(balancer.seen) == {"200"}
    assert first.stop() == 0
