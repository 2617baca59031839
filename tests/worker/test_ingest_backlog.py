"""A backlog of a million messages drains while queries answer; run on request: `pytest -m bench -s` and this file."""

import asyncio
import os
import statistics
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

import psutil
import pytest

from infra import postgres
from projections.measurements import Window
from projections.telemetry import telemetry
from tests.http.world import following
from tests.measurements.plant_messages import realtime, sample
from tests.worker import mortal
from tests.worker.site import Site, until

MESSAGES = int(os.environ.get("WATTLEDGER_TEST_BACKLOG", "1000000"))
PLANTS = 1_000
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
MOST_MB = 300
CHUNK = 5_000


@pytest.mark.bench
def test_a_million_messages_drain_in_little_memory_while_queries_answer(rabbit_site: Site, amqp_url: str) -> None:
    site = rabbit_site
    with site.acting():
        plants = [site.plants.register(site.organization_id, f"many-{n}", f"Plant {n}") for n in range(PLANTS)]
        # Its own queue of telemetry is not what is looked at.
        site.trading.disable(site.organization_id)
    with following(site.url):
        until(lambda: site.rows("SELECT count(*) FROM plants") == [(PLANTS + 2,)], "the plants")
    moments = (START + timedelta(seconds=10 * n) for n in range(MESSAGES // PLANTS))
    samples = ((plant.external_plant_id, sample(plant.id, moment)) for moment in moments for plant in plants)
    for _ in range(MESSAGES // CHUNK):
        assert all(site.outside.publish([realtime("acme", *each) for each in islice(samples, CHUNK)]))
    print(f"\n{MESSAGES:,} wait")  # noqa: T201
    begun = time.monotonic()
    worker = mortal.start(site.url, amqp_url, site.keys)
    assert worker.pid is not None
    process, waits, most, done = psutil.Process(worker.pid), [0.0], 0, 0
    try:
        with asyncio.Runner() as runner:
            connection = runner.run(postgres.async_connect(site.url, "asking"))
            window, ask = Window.of(START, START + timedelta(days=1)), partial(telemetry, connection)
            while done < MESSAGES:
                assert time.monotonic() - begun < 1200, f"{done:,} are stored"
                for plant in plants[:: PLANTS // 20]:
                    asked = time.monotonic()
                    runner.run(ask(plant.id, window))
                    waits.append(time.monotonic() - asked)
                    most = max(most, process.memory_info().rss)
                    threading.Event().wait(0.05)
                done = site.rows("SELECT count(*) FROM telemetry")[0][0]
            took = time.monotonic() - begun
            runner.run(connection.close())
    finally:
        worker.kill()
        worker.join()
    print(  # noqa: T201
        f"drained in {took:.0f} s: {MESSAGES / took:,.0f}/s; at most {most / 1e6:.0f} MB; {len(waits)} queries, "
        f"p50 {statistics.median(waits) * 1000:.1f} ms, most {max(waits) * 1000:.0f} ms"
    )
    assert most < MOST_MB * 1e6
    assert max(waits) < 5
