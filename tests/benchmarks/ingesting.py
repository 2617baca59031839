"""Telemetry from the broker to its committed rows, beside bare pika that only reads it and a bare COPY of its rows."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import wraps
from multiprocessing.connection import Connection as Pipe
from typing import Any

import msgspec
import pika
from pika.channel import Channel
from pika.spec import Basic, BasicProperties
from psycopg import Connection

from application.context import Metadata, acting
from application.ports import DeadLetter, Delivery, Message
from domain import topology
from domain.plant import Plant
from infra.bootstrap import Parts, Where, assembled
from infra.postgres import connect
from infra.rabbitmq import RabbitBroker
from infra.secret_box import OperatorKey
from infra.settings import Settings
from interfaces.amqp import Measurements
from interfaces.cli.wiring import working
from projections import partitions
from projections.samples import INCOMING, Sample
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, rate
from tests.http.world import following
from tests.measurements.plant_messages import realtime, sample

PLANTS = 1_000
MESSAGES = 32_000
BATCH = 4_000  # as the worker's
STEP = timedelta(seconds=10)
SETTINGS = Settings(sync_minutes=1e6)


@benchmark("ingest", Goal(0.50, 0.80), "messages/s")
def ingest(bench: Bench) -> Result:
    """What a worker stores, with nothing twice, roll-ups and last values."""
    with _scene(bench) as scene:
        return compare(lambda: scene.ingest(scene.fresh()), scene.consume)


@benchmark("ingest_copy", Goal(0.12, 0.20), "messages/s")
def ingest_copy(bench: Bench) -> Result:
    with _scene(bench) as scene:
        return compare(lambda: scene.ingest(scene.fresh()), scene.copy)


@benchmark("ingest_replay", Goal(1.0, 1.7), "messages/s")
def ingest_replay(bench: Bench) -> Result:
    """The very same messages again."""
    with _scene(bench) as scene:
        again: list[Message] = []

        def fresh() -> float:
            again[:] = scene.fresh()
            return scene.ingest(again)

        fresh()
        return compare(lambda: scene.ingest(again), fresh)


@dataclass
class _Scene:
    where: Where
    plants: list[Plant]
    broker: RabbitBroker
    database: Connection[Any]
    # Yesterday noon, so that the days do not depend on when it is run.
    time: datetime = field(
        default_factory=lambda: datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    )

    def fresh(self) -> list[Message]:
        """Each plant in turn, every 10 s of its time."""
        samples = [(plant, sample(plant.id, time)) for time in self.times() for plant in self.plants]
        return [realtime("acme", plant.external_plant_id, each) for plant, each in samples]

    def times(self) -> list[datetime]:
        times = [self.time + n * STEP for n in range(MESSAGES // PLANTS)]
        self.time = times[-1] + STEP
        return times

    def ingest(self, messages: Sequence[Message]) -> float:
        self.fill(messages)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self.where, len(messages), theirs))
        process.start()
        try:
            assert ours.poll(120)
            return float(ours.recv())
        finally:
            process.terminate()
            process.join()

    def consume(self) -> float:
        """Bare pika: decodes, throws away, acks a batch at once."""
        self.fill(self.fresh())
        return rate(lambda: _Reader(self.where.amqp_url or "", MESSAGES).run(), MESSAGES)

    def copy(self) -> float:
        """The same rows, of plants' other days."""
        rows = [sample(plant.id, time) for time in self.times() for plant in self.plants]
        begin = time.perf_counter()
        for at in range(0, len(rows), BATCH):
            self.copy_batch(rows[at : at + BATCH])
        return len(rows) / (time.perf_counter() - begin)

    def copy_batch(self, batch: Sequence[Sample]) -> None:
        statement = f"COPY telemetry ({', '.join(INCOMING.columns)}) FROM STDIN (FORMAT binary)"
        with self.database.transaction(), self.database.cursor().copy(statement) as copy:
            copy.set_types(list(INCOMING.columns.values()))
            for row in batch:
                copy.write_row(row)

    def fill(self, messages: Sequence[Message]) -> None:
        assert all(self.broker.publish(messages))


class _Reader:
    def __init__(self, url: str, count: int) -> None:
        self._left = count
        self._connection = pika.SelectConnection(
            pika.URLParameters(url), on_open_callback=lambda _: self._connection.channel(on_open_callback=self._on_open)
        )

    def run(self) -> None:
        self._connection.ioloop.start()

    def _on_open(self, channel: Channel) -> None:
        channel.basic_qos(prefetch_count=2 * BATCH)
        channel.basic_consume(topology.INGEST_QUEUE, self._on_message)

    def _on_message(self, channel: Channel, method: Basic.Deliver, _: BasicProperties, body: bytes) -> None:
        msgspec.json.decode(body)
        self._left -= 1
        if self._left % 100 == 0:
            channel.basic_ack(method.delivery_tag or 0, multiple=True)
        if self._left == 0:
            self._connection.add_on_close_callback(lambda *_: self._connection.ioloop.stop())
            self._connection.close()


@contextmanager
def _scene(bench: Bench) -> Iterator[_Scene]:
    with bench.database() as url, bench.virtual_host() as amqp_url, connect(url, "bench") as database:
        where = Where(url, amqp_url, [OperatorKey.random()], ["127.0.0.0/8"])
        with assembled(where, SETTINGS) as parts, following(url):
            plants = _plants(parts)
            while database.execute("SELECT count(*) FROM plants").fetchone() != (PLANTS,):
                time.sleep(0.05)
        partitions.ensure(database, 1, today=datetime.now(UTC).date() - timedelta(days=1))
        broker = RabbitBroker(amqp_url)
        broker.declare(topology.shared())
        yield _Scene(where, plants, broker, database)
        broker.close()


def _plants(parts: Parts) -> list[Plant]:
    with acting(Metadata(actor="cli", source="cli")):
        organization_id = parts.organisations.create("acme").id
        return [parts.plants.register(organization_id, f"esm-{n:04}", f"Plant {n}") for n in range(PLANTS)]


def _work(where: Where, count: int, report: Pipe) -> None:
    """What `wattledger work` runs, until SIGTERM; reports messages a second from its first batch's begin to its last
    one's, which is not counted."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    begun: list[tuple[float, int]] = []
    take = Measurements.__call__

    @wraps(take)
    def timed(measurements: Measurements, batch: Sequence[Delivery]) -> list[DeadLetter]:
        begun.append((time.perf_counter(), len(batch)))
        dead_letters = take(measurements, batch)
        assert not dead_letters
        if sum(size for _, size in begun) == count:
            report.send((count - begun[-1][1]) / (begun[-1][0] - begun[0][0]))
        return dead_letters

    Measurements.__call__ = timed  # type: ignore[assignment,method-assign]
    with assembled(where, SETTINGS) as parts, working(parts, SETTINGS):
        stop.wait()
