"""Broker and database go away under load: no command is lost or doubled, and work goes on within seconds."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest

from domain.errors import BrokerUnreachable
from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from tests.servers import rabbitmq_node
from tests.worker import mortal
from tests.worker.site import Site, setpoint, until
from tests.worker.test_killed import Plant

BEFORE = 40
KILLS = 5


class Partner:
    """Sends without end; what was not confirmed it sends again."""

    def __init__(self, site: Site) -> None:
        self.sent: list[UUID] = []
        self.stopping = threading.Event()
        self._site = site
        self._thread = threading.Thread(target=self._send, daemon=True)

    @contextmanager
    def sending(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            self._thread.join()

    def _send(self) -> None:
        while not self.stopping.wait(0.01):
            message_id = uuid4()
            # Sent again it must be the same to the byte: another body under its id is refused.
            body = self._site.partner.body("esm-001", setpoint(), messageId=str(message_id))
            while not self.stopping.is_set():
                try:
                    self._site.send_raw("acme.command.site-setpoint", body)
                except BrokerUnreachable:
                    self.stopping.wait(0.1)
                else:
                    self.sent.append(message_id)
                    break


@pytest.fixture(scope="module")
def rabbitmq_server() -> Iterator[PrivateRabbitmq]:
    """A node that nobody else's queues are on: how long it takes to come back is what is looked at here."""
    with rabbitmq_node() as node:
        yield node


@pytest.fixture
def outage(
    request: pytest.FixtureRequest, rabbitmq_server: PrivateRabbitmq, postgres_server: EmbeddedPostgres
) -> Callable[[], None]:
    """Returns when the server listens again."""

    def broker_killed() -> None:
        rabbitmq_server.kill()
        rabbitmq_server.start()

    def broker_killed_again_and_again() -> None:
        chance = random.Random(KILLS)
        for _ in range(KILLS):
            broker_killed()
            threading.Event().wait(chance.uniform(0, 3))  # it dies while all come back, or when they are at work

    def broker_stopped() -> None:
        rabbitmq_server.stop()
        rabbitmq_server.start()

    def database_killed() -> None:
        postgres_server.kill()
        postgres_server.start()

    outages = (broker_killed, broker_killed_again_and_again, broker_stopped, database_killed)
    return {each.__name__: each for each in outages}[request.param]


@pytest.mark.parametrize(
    "outage",
    [
        "broker_killed",
        pytest.param("broker_killed_again_and_again", marks=pytest.mark.bench),
        "broker_stopped",
        "database_killed",
    ],
    indirect=True,
)
def test_an_outage_under_load(rabbit_site: Site, amqp_url: str, outage: Callable[[], None]) -> None:
    site, plant, partner = rabbit_site, Plant(rabbit_site), Partner(rabbit_site)
    # The tests' server forgets its last moments when it dies, which no real one does.
    site.execute(
        "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = on'; END $$"
    )
    worker = mortal.start(site.url, amqp_url, site.keys)
    try:
        with partner.sending():
            until(lambda: len(partner.sent) > BEFORE, "load")
            until(lambda: sum(plant.told.values()) > BEFORE, "work")
            outage()
            begun, listening = time.monotonic(), len(partner.sent)
            site.pool.check()
            until(lambda: len(partner.sent) > listening + 5, "load again")
            back = partner.sent[-1]
            until(lambda: site.status(back) == "EXECUTED", "work again")
            took = time.monotonic() - begun
        until(lambda: executed(site).keys() >= set(partner.sent), "all of them")
    finally:
        worker.kill()
        worker.join()
    print(f"back at work {took:.1f} s after it listened; {len(partner.sent)} commands")  # noqa: T201
    assert set(plant.told) == set(executed(site).values())
    assert site.rows("SELECT DISTINCT status FROM command_log") == [("EXECUTED",)]
    doubled = site.rows(
        "SELECT topic FROM events WHERE topic LIKE 'relayed-command:%%' AND topic <> 'relayed-command:repeated'"
        " GROUP BY stream_id, topic HAVING count(*) > 1"
    )
    assert doubled == []


def executed(site: Site) -> dict[UUID, str]:
    """By the partner's messageId the command's own."""
    rows = site.rows("SELECT message_id, id FROM command_log WHERE status = 'EXECUTED'")
    return {message_id: str(command_id) for message_id, command_id in rows}
