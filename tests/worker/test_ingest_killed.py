"""kill -9 of worker, database and broker under ingest: what is stored is what was sent, each sample once."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from domain.errors import BrokerUnreachable
from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from projections.samples import COLUMNS, Sample
from tests.measurements.plant_messages import realtime, sample
from tests.measurements.recomputed import differences
from tests.worker import mortal
from tests.worker.site import Site, until

# Before a day's end, so that all kinds of buckets and partitions have samples on both sides.
START = datetime.now(UTC).replace(hour=23, minute=30, second=0, microsecond=0) - timedelta(days=7)
CHUNK = 100
PATIENCE_S = 60.0
Kill = Callable[[], object]


def test_worker_and_database_die_under_ingest(
    rabbit_site: Site, amqp_url: str, postgres_server: EmbeddedPostgres
) -> None:
    def database() -> None:
        postgres_server.kill()
        postgres_server.start()

    survive(rabbit_site, amqp_url, 4_000, lambda worker: [worker, database, worker], seed=6)


@pytest.mark.bench
@pytest.mark.parametrize("seed", range(3))
def test_all_of_them_die_again_and_again(
    rabbit_site: Site, amqp_url: str, postgres_server: EmbeddedPostgres, rabbitmq_server: PrivateRabbitmq, seed: int
) -> None:
    def database() -> None:
        postgres_server.kill()
        postgres_server.start()

    def broker() -> None:
        rabbitmq_server.kill()
        rabbitmq_server.start()

    def kills(worker: Kill) -> Sequence[Kill]:
        return random.Random(seed).sample([worker] * 4 + [database] * 3 + [broker] * 3, 10)

    survive(rabbit_site, amqp_url, 40_000, kills, seed)


def survive(site: Site, amqp_url: str, count: int, kills: Callable[[Kill], Sequence[Kill]], seed: int) -> None:
    """As rows come in, one kill after the other; in the end every table must be what the samples make of it."""
    # The tests' server forgets its last moments when it dies, which no real one does.
    site.execute(
        "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = on'; END $$"
    )
    # Two share the queue; the older one dies each time.
    workers = [mortal.start(site.url, amqp_url, site.keys) for _ in range(2)]

    def worker() -> None:
        oldest = workers.pop(0)
        oldest.kill()
        oldest.join()
        workers.append(mortal.start(site.url, amqp_url, site.keys))

    try:
        until(lambda: len(site.rows("SELECT 1 FROM plants")) == 2, "the plants")
        plants = Plants(site, count, seed)
        plants.start()
        planned = kills(worker)
        for number, kill in enumerate(planned, 1):
            reaches(site, len(plants.distinct) * number // (len(planned) + 2))
            kill()
        plants.join(PATIENCE_S)
        plants.send([plants.last])
        reaches(site, len(plants.distinct) + 1)
    finally:
        for each in workers:
            each.kill()
            each.join()
    plants.distinct.add(plants.last[1])
    rows = site.rows(f"SELECT {', '.join(COLUMNS)} FROM telemetry")
    assert {Sample(*row) for row in rows} == plants.distinct
    with site.pool.connection() as connection:
        assert differences(connection) == {"telemetry_1m": 0, "telemetry_5m": 0, "telemetry_latest": 0}
    assert site.rows("SELECT count(*) FROM measurement_conflicts") == [(0,)]


class Plants(threading.Thread):
    """They send samples late, out of order, some twice, and again what was not confirmed."""

    def __init__(self, site: Site, count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._site = site
        chance = random.Random(seed)
        plants: list[tuple[UUID, str]] = [
            (row[0], row[1]) for row in site.rows("SELECT id, external_plant_id FROM plants ORDER BY id")
        ]
        moments = [START + timedelta(seconds=10 * n) for n in range(count // len(plants))]
        sent = [(name, sample(plant, moment)) for moment in moments for plant, name in plants]
        self.distinct = {each for _, each in sent}
        # Sent when all else was: once it is stored, all else was taken.
        self.last = (plants[0][1], sample(plants[0][0], moments[-1] + timedelta(seconds=10)))
        sent += chance.sample(sent, count // 10)
        self._sent = [sent[at] for at in sorted(range(len(sent)), key=lambda at: at + chance.uniform(0, count / 10))]

    def run(self) -> None:
        for at in range(0, len(self._sent), CHUNK):
            self.send(self._sent[at : at + CHUNK])

    def send(self, samples: Sequence[tuple[str, Sample]]) -> None:
        messages = [realtime("acme", *each) for each in samples]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert all(self._site.outside.publish(messages))
            except BrokerUnreachable:
                assert time.monotonic() < deadline
                threading.Event().wait(0.2)
            else:
                return


def reaches(site: Site, count: int) -> None:
    """Also through a restart of the database."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := stored(site)) < count:
        assert time.monotonic() < deadline, f"{found} of {count} samples are stored"
        threading.Event().wait(0.02)


def stored(site: Site) -> int:
    try:
        rows: list[tuple[Any, ...]] = site.rows("SELECT count(*) FROM telemetry")
    except (psycopg.OperationalError, PoolTimeout):
        site.pool.check()
        return 0
    return int(rows[0][0])
