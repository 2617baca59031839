"""The command relay beside bare pika that moves the same messages, and how long a partner waits for its ACK."""

import multiprocessing
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pika
import psycopg

from application.context import Metadata, acting
from application.ports import Message
from application.trading import TradingConfigChange
from domain import topology
from domain.topology import Binding, Queue, Topology
from infra.bootstrap import Parts, Where, assembled
from infra.postgres import connect
from infra.rabbitmq import RabbitBroker
from infra.sandbox.partner import SandboxPartner
from infra.secret_box import OperatorKey
from infra.settings import Settings
from interfaces.cli.wiring import working
from tests.benchmarks.bare_relay import move, move_one_by_one
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, percentile, rate
from tests.worker.site import setpoint

COMMANDS = 4_000
ROUND_TRIPS = 300
PLANTS = 20
IN, TOLD, ACKED = "vcp.acme.command", "bench.plants", "vcp.acme.event.status"
SETTINGS = Settings(sync_minutes=1e6)
FIGURE = (
    "WITH work AS (SELECT * FROM events WHERE position > %s AND topic IN ('relayed-command:created',"
    " 'relayed-command:relayed')), first AS (SELECT min(recorded_at) + interval '1 ms' AS batch FROM work)"
    " SELECT count(*) FILTER (WHERE topic = 'relayed-command:created' AND recorded_at > batch)"
    " / extract(epoch FROM max(recorded_at) - min(batch)) FROM work, first"
)
RELAYED = "SELECT count(*) FROM events WHERE topic = 'relayed-command:relayed' AND position > %s"


@benchmark("relay", Goal(0.25, 0.5), "commands/s")
def relay(bench: Bench) -> Result:
    """Signed commands that wait in their queue: recorded, answered and told to the gateways, all of it confirmed."""
    with _scene(bench) as scene:
        outgoing = [scene.outgoing(number) for number in range(COMMANDS)]
        result = compare(scene.relay, lambda: scene.move(outgoing))
        scene.fill()
        one_by_one = rate(lambda: move_one_by_one(scene.where.amqp_url or "", IN, outgoing), COMMANDS)
        return Result(result.ours, result.baseline, f"one by one, bare pika does {one_by_one:,.0f}")


@benchmark("relay_latency", Goal(15, 6, lower=True, ms=True), "ms")
def relay_latency(bench: Bench) -> Result:
    """From a partner's publish to its ACK, one command at a time."""
    with _scene(bench) as scene, scene.worker():
        waits = [each * 1000 for each in scene.round_trips(ROUND_TRIPS)][ROUND_TRIPS // 10 :]
        return Result(statistics.median(waits), note=f"p99 {percentile(waits, 99):.1f}")


@dataclass
class _Scene:
    """An organisation that trades and whose gateways listen; the worker is a process of its own."""

    where: Where
    partner: SandboxPartner
    broker: RabbitBroker
    database: psycopg.Connection[Any]

    @contextmanager
    def worker(self) -> Iterator[None]:
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        process = context.Process(target=_work, args=(self.where, ready))
        process.start()
        try:
            assert ready.wait(30)
            yield
        finally:
            process.terminate()
            process.join()

    def relay(self) -> float:
        """Commands a second once the worker is at it: from the commit of its first batch, which is not counted, to that
        of the last command's Relayed."""
        row = self.database.execute("SELECT max(position) FROM events").fetchone()
        self.fill()
        with self.worker():
            while self.database.execute(RELAYED, row, prepare=True).fetchone() != (COMMANDS,):
                time.sleep(0.25)
        self.empty()
        figure = self.database.execute(FIGURE, row).fetchone()
        assert figure is not None
        return float(figure[0])

    def move(self, outgoing: list[list[Message]]) -> float:
        self.fill()
        figure = rate(lambda: move(self.where.amqp_url or "", IN, outgoing), COMMANDS)
        self.empty()
        return figure

    def fill(self) -> None:
        key = "acme.command.site-setpoint"
        assert all(self.broker.publish([Message("vcp", key, self.body(number)) for number in range(COMMANDS)]))

    def empty(self) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.where.amqp_url or "")) as connection:
            for queue in (TOLD, ACKED):
                connection.channel().queue_purge(queue)

    def body(self, number: int) -> bytes:
        return self.partner.body(f"esm-{number % PLANTS:03}", setpoint())

    def outgoing(self, number: int) -> list[Message]:
        """As large as what a command causes."""
        told = {"commandId": str(uuid4()), "type": "command.site-setpoint", "ts": setpoint()["validFrom"]}
        acked = SandboxPartner(self.broker, "acme").body("esm-001", {"messageId": str(uuid4()), "status": "ACCEPTED"})
        return [
            Message("vcp", "acme.event.command.ack", acked, str(uuid4())),
            Message("plant", f"plant.{UUID(int=number)}.command", msgspec.json.encode(told | {"payload": setpoint()})),
        ]

    def round_trips(self, count: int) -> Iterator[float]:
        """Seconds each, on a connection that publishes and one that consumes."""
        url = pika.URLParameters(self.where.amqp_url or "")
        with pika.BlockingConnection(url) as connection:
            channel = connection.channel()
            answers = channel.consume(ACKED, auto_ack=True, inactivity_timeout=10)
            for number in range(count):
                body = self.body(number)
                begin = time.perf_counter()
                channel.basic_publish("vcp", "acme.command.site-setpoint", body, pika.BasicProperties(delivery_mode=2))
                _, _, answer = next(answers)
                yield time.perf_counter() - begin
                assert answer is not None
                assert msgspec.json.decode(answer)["payload"]["messageId"] in body.decode()


@contextmanager
def _scene(bench: Bench) -> Iterator[_Scene]:
    with bench.database() as url, bench.virtual_host() as amqp_url, connect(url, "bench") as database:
        where = Where(url, amqp_url, [OperatorKey.random()], ["127.0.0.0/8"])
        with assembled(where, SETTINGS) as parts:
            signing_key = _organisation(parts)
            broker = RabbitBroker(amqp_url)
            broker.declare(Topology((Queue(TOLD, (Binding("plant", "plant.*.command"),)),)))
            yield _Scene(where, SandboxPartner(broker, "acme", signing_key), broker, database)
            broker.close()


def _organisation(parts: Parts) -> str:
    with acting(Metadata(actor="cli", source="cli")):
        organization_id = parts.organisations.create("acme").id
        key = parts.organisations.mint_key(organization_id, "esm", ["trading:connect"])
        change = {"esmApiUrl": "http://127.0.0.1:9999", "esmClientId": "wl", "esmClientSecret": "s3cr3t"}
        parts.trading.change_config(organization_id, TradingConfigChange.model_validate(change))
        parts.broker.declare(topology.shared())
        parts.trading.enable(organization_id)
        for number in range(PLANTS):
            parts.plants.register(organization_id, f"esm-{number:03}", f"Plant {number}")
    return key.signing_key


def _work(where: Where, ready: Any) -> None:
    """What `wattledger work` runs, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with assembled(where, SETTINGS) as parts:
        ready.set()
        with working(parts, SETTINGS):
            stop.wait()
