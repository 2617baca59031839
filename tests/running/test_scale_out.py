"""Two API processes and three workers on one database and broker: they share the work, and nobody's is done twice."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from application.context import Metadata, acting
from application.trading import TradingConfigChange
from domain.plant import Plant
from infra.bootstrap import assembled
from infra.postgres import connect
from infra.rabbitmq import RabbitBroker
from infra.sandbox.esm import CLIENT_ID, CLIENT_SECRET, SandboxEsm
from infra.sandbox.partner import SandboxPartner
from infra.settings import Settings
from projections.samples import COLUMNS, Sample
from tests.measurements.plant_messages import realtime, sample
from tests.ports import free_port
from tests.running.conftest import Programs
from tests.soak.installation import Program
from tests.worker.site import setpoint, until

SLUGS = ("acme", "bolt", "coil", "dyno")
PLANTS = 3
SAMPLES = 6_000
DRAINED = 60_000
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)


class Fleet:
    """Workers that show their metrics, organisations that trade with one ESM, and their partners outside."""

    def __init__(self, programs: Programs, esm: SandboxEsm, outside: RabbitBroker, plants: int) -> None:
        self.programs, self.esm, self.outside, self.plants_each = programs, esm, outside, plants
        self.ports: dict[Program, int] = {}
        self.plants: list[tuple[str, UUID, str]] = []

    def work(self) -> Program:
        port = free_port()
        worker = self.programs.work(metrics_port=port)
        worker.start()
        self.ports[worker] = port
        until(lambda: self.taken(worker, "measurements") is not None, "a worker")
        return worker

    def join(self) -> None:
        """All organisations trade."""
        change = {"esmApiUrl": self.esm.url, "esmClientId": CLIENT_ID, "esmClientSecret": CLIENT_SECRET}
        with assembled(self.programs.where(), Settings()) as parts, acting(Metadata(actor="cli", source="cli")):
            for slug in SLUGS:
                id_ = parts.organisations.create(slug).id
                key = parts.organisations.mint_key(id_, "esm", ["trading:connect"])
                parts.trading.change_config(id_, TradingConfigChange.model_validate(change))
                parts.trading.enable(id_)
                parts.plants.sync(id_)
                names = [f"esm-{n:03d}" for n in range(1, self.plants_each + 1)]
                self.plants += [(slug, Plant.create_id(id_, name), name) for name in names]
                self.partner = SandboxPartner(self.outside, slug, key.signing_key)
        until(lambda: self.rows("SELECT count(*) FROM plants") == [(len(self.plants),)], "the plants")

    def taken(self, worker: Program, intake: str) -> float | None:
        """How many messages it took; None while it shows no metrics."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.ports[worker]}/metrics", trust_env=False, timeout=60).text
        except httpx.TransportError:
            return None
        families = [each for each in text_string_to_metric_families(text) if each.name == "wattledger_messages"]
        return sum(s.value for each in families for s in each.samples if s.labels.get("intake") == intake)

    def send_samples(self, first: int, count: int) -> set[Sample]:
        moments = [START + timedelta(seconds=10 * n) for n in range(first, first + count // len(self.plants))]
        made = [(slug, name, sample(id_, moment)) for moment in moments for slug, id_, name in self.plants]
        assert all(self.outside.publish([realtime(slug, name, each) for slug, name, each in made]))
        return {each for _, _, each in made}

    def wait_for_samples(self, count: int) -> None:
        until(lambda: self.rows("SELECT count(*) FROM telemetry") == [(count,)], "the samples")

    def command(self) -> str:
        """The log's end of a new one, that somebody took."""
        message_id = self.partner.send("command.site-setpoint", "esm-001", setpoint())
        status = partial(self.rows, "SELECT status FROM command_log WHERE message_id = %s", message_id)
        return str(until(status, "a command")[0][0])

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with connect(self.programs.url, "test") as connection:
            return connection.execute(query.encode(), parameters).fetchall()


@pytest.fixture
def fleet(programs: Programs, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    plants = getattr(request, "param", PLANTS)
    with SandboxEsm(plants) as esm, closing(RabbitBroker(programs.amqp_url, name="outside")) as outside:
        yield Fleet(programs, esm, outside, plants)


def test_three_workers_share_the_work_and_take_over_from_one_that_is_killed(fleet: Fleet) -> None:
    workers = [fleet.work() for _ in range(3)]
    fleet.join()

    # Each turn to sync is taken once, whoever's timetable it stands in.
    asked = fleet.esm.calls["list"]
    fleet.rows("UPDATE sync_turns SET next_at = now() RETURNING 1")
    until(lambda: fleet.rows("SELECT count(*) FROM sync_turns WHERE next_at > now()") == [(len(SLUGS),)], "the syncs")
    assert fleet.esm.calls["list"] == asked + len(SLUGS)

    sent = fleet.send_samples(0, SAMPLES)
    fleet.wait_for_samples(len(sent))
    shares = [fleet.taken(worker, "measurements") or 0 for worker in workers]
    assert sum(shares) == len(sent)
    assert all(shares)

    # One after the other dies, whatever it leads, with a share of what is on its way: the last one does it all.
    for number, worker in enumerate(workers[:2], 1):
        sent |= fleet.send_samples(SAMPLES * number, SAMPLES)
        worker.kill()
        assert fleet.command() in ("RECEIVED", "ACCEPTED")
        fleet.wait_for_samples(len(sent))
    assert {Sample(*row) for row in fleet.rows(f"SELECT {', '.join(COLUMNS)} FROM telemetry")} == sent
    assert fleet.rows("SELECT count(*) FROM measurement_conflicts") == [(0,)]
    assert fleet.rows("SELECT name FROM slots WHERE parked_at IS NOT NULL") == []
    assert fleet.rows("SELECT max(position) - count(*) FROM events") == [(0,)]


def test_one_key_at_two_apis_is_one_request(programs: Programs) -> None:
    key = programs.organisation("acme")
    apis = [programs.serve(), programs.serve()]
    worker = programs.work()
    for program in (*(api for api, _ in apis), worker):
        program.start()
    urls = [f"{url}/api/v1/trading/config" for _, url in apis]
    headers = {"X-API-Key": key}
    until(lambda: all(httpx.get(url, headers=headers).status_code == 200 for url in urls), "rights")
    once = {**headers, "Idempotency-Key": str(uuid4())}
    first, second = (httpx.post(url, headers=once, json={"esmClientId": "one"}) for url in urls)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    # Whoever wrote at one reads its own write at the other.
    for number in range(10):
        changed = httpx.post(urls[0], headers=headers, json={"esmClientId": f"client-{number}"})
        after = {**headers, "X-Position-AtLeast": changed.headers["x-position"]}
        assert httpx.get(urls[1], headers=after).json()["esmClientId"] == f"client-{number}"


@pytest.mark.bench
@pytest.mark.parametrize("fleet", [250], indirect=True)
def test_how_ingest_grows_with_workers(fleet: Fleet) -> None:
    """Messages a second that 1, 2 and 3 workers drain, which wait until all have been sent; by turns. Prints what was
    seen, for cores are what they share."""
    workers = [fleet.work()]
    fleet.join()
    seen: dict[int, list[float]] = {1: [], 2: [], 3: []}
    first, expected = 0, 0
    for _ in range(4):
        for count, rates in seen.items():
            while len(workers) < count:
                workers.append(fleet.work())
            for worker in workers[count:]:
                worker.stop()
            del workers[count:]
            processes = [process for worker in workers for process in worker.processes()]
            for process in processes:
                process.suspend()
            expected += len(fleet.send_samples(first, DRAINED))
            first += DRAINED // len(fleet.plants)  # moments: no sample may lie in the future
            begun = time.time()
            for process in processes:
                process.resume()
            fleet.wait_for_samples(expected)
            [(ended,)] = fleet.rows("SELECT extract(epoch FROM max(received_at))::float8 FROM telemetry")
            rates.append(DRAINED / (ended - begun))
    print(json.dumps({count: [round(each) for each in of] for count, of in seen.items()}))  # noqa: T201
