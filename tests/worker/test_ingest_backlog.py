"""A backlog of a million messages drains while queries answer; run on request: `pytest -m bench -s` and this file."""

import asyncio
import os
import statistics
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

import msgspec
import psutil
import pytest

from application.ports import Message
from domain.plant import Plant
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
CHUNK = 1_000


@pytest.mark.bench
def test_a_million_messages_drain_in_little_memory_while_queries_answer(rabbit_site: Site, amqp_url: str) -> None:
    drain(rabbit_site, amqp_url, MESSAGES)


@pytest.mark.bench
def test_large_messages_take_no_more(rabbit_site: Site, amqp_url: str) -> None:
    """As many as are asked for at once would be 600 MB."""
    drain(rabbit_site, amqp_url, 12_000, devices=[{"id": "x" * 60_000}])


def drain(site: Site, amqp_url: str, count: int, **more: object) -> None:
    plants = a_thousand_plants(site)
    moments = (START + timedelta(seconds=10 * n) for n in range(count // PLANTS))
    samples = ((plant.external_plant_id, sample(plant.id, moment)) for moment in moments for plant in plants)
    for _ in range(count // CHUNK):
        assert all(site.outside.publish([with_more(realtime("acme", *each), more) for each in islice(samples, CHUNK)]))
    print(f"\n{count:,} wait")  # noqa: T201
    begun = time.monotonic()
    worker = mortal.start(site.url, amqp_url, site.keys)
    assert worker.pid is not None
    process, waits, most, done = psutil.Process(worker.pid), [0.0], 0, 0
    try:
        with asyncio.Runner() as runner:
            connection = runner.run(postgres.async_connect(site.url, "asking"))
            window, ask = Window.of(START, START + timedelta(days=1)), partial(telemetry, connection)
            while done < count:
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
        f"drained in {took:.0f} s: {count / took:,.0f}/s; at most {most / 1e6:.0f} MB; {len(waits)} queries, "
        f"p50 {statistics.median(waits) * 1000:.1f} ms, most {max(waits) * 1000:.0f} ms"
    )
    assert most < MOST_MB * 1e6
    assert max(waits) < 5


def a_thousand_plants(site: Site) -> list[Plant]:
    with site.acting():
        plants = [site.plants.register(site.organization_id, f"many-{n}", f"Plant {n}") for n in range(PLANTS)]
        # Its own queue of telemetry is not what is looked at.
        site.trading.disable(site.organization_id)
    with following(site.url):
        until(lambda: site.rows("SELECT count(*) FROM plants") == [(PLANTS + 2,)], "the plants")
    return plants


def with_more(message: Message, more: dict[str, object]) -> Message:
    """In its payload, such as the devices that we don't read."""
    envelope = msgspec.json.decode(message.body)
    envelope["payload"] |= more
    return replace(message, body=msgspec.json.encode(envelope))
