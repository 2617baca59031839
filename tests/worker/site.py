"""A whole Wattledger in one test: database, broker, an organisation that trades, its partner and its plants."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from application.context import Metadata, acting
from application.organisations import Organisations
from application.plant_configs import PlantConfigs
from application.plants import Plants
from application.ports import Broker, Delivery, Message
from application.publisher import Publisher
from application.relay import Relay
from application.trading import Trading, TradingConfigChange
from domain import vcp
from domain.plant import Plant
from domain.topology import DEAD_QUEUE, Binding, Queue, Topology
from infra import postgres
from infra.event_mapper import EventMapper
from infra.event_store import event_log
from infra.local_broker import LocalBroker
from infra.sandbox.partner import SandboxPartner
from infra.secret_box import HmacKeyHasher, OperatorKey, PostgresSecretBox
from infra.sync_turns import PostgresSyncTurns
from interfaces.worker import Intervals, Worker, WorkerParts
from projections.plants import linked_plants
from tests.broker.inbox import Inbox
from tests.fakes import FakeEsm

QUICK = Intervals(watch=0.05, sync=0.2, finish=0.2, expire=0.1, relay_again=0.1, reconcile=60, partitions=3600)
PATIENCE_S = 60.0  # nothing here takes a second on a machine of its own; a busy one is not in the wrong


def until(holds: Callable[[], Any], what: str = "it") -> Any:
    """Waits for a condition and returns what it gave; nothing in the database rings when it comes true."""
    deadline, tick = time.monotonic() + PATIENCE_S, threading.Event()
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_S} s"
        tick.wait(0.02)
    return found


class Site:
    """`broker` is the server's own connection, `outside` that of partners and plants."""

    def __init__(self, database_url: str, broker: Broker, outside: Broker):
        self.url, self.broker, self.outside = database_url, broker, outside
        self.closing = ExitStack()
        self.pool = postgres.pool(database_url, 10, "test")
        self.pool.open()
        self.closing.callback(self.pool.close)
        self.keys = [OperatorKey.random()]
        self.events = event_log(self.pool)
        self.secrets = PostgresSecretBox(self.pool, self.keys)
        self.esm = FakeEsm(2)
        self.trading = Trading(self.events, self.esm, broker, self.secrets)
        self.organisations = Organisations(self.events, self.secrets, HmacKeyHasher(self.secrets))
        self.turns = PostgresSyncTurns(self.pool, self.pool)
        self.plants = Plants(self.events, self.esm, self.trading, self.turns, self._linked)
        self.plant_configs = PlantConfigs(self.events, self.esm, self.trading)
        self.relay = Relay(self.events, self.secrets)
        self.publisher = Publisher(self.events, broker)
        self.organization_id = self.join("acme")
        self.plant_id = Plant.create_id(self.organization_id, "esm-001")

    def join(self, slug: str) -> UUID:
        """An organisation that trades, with its two plants; `partner` speaks for the last one."""
        with self.acting():
            organization_id = self.organisations.create(slug).id
            self.key = self.organisations.mint_key(organization_id, "esm", ["trading:connect"])
            change = {"esmApiUrl": "https://esm.example.com", "esmClientId": "wl", "esmClientSecret": "s3cr3t"}
            self.trading.change_config(organization_id, TradingConfigChange.model_validate(change))
            self.trading.enable(organization_id)
            self.plants.sync(organization_id)
        self.partner = SandboxPartner(self.outside, slug, self.key.signing_key)
        return organization_id

    def acting(self) -> Any:
        return acting(Metadata(actor="cli", source="cli"))

    def worker(self, *, wait: bool = True, **changes: Any) -> Worker:
        """Started, stopped at the end of the test, and with read models that know the plants."""
        given: dict[str, Any] = {
            "relay": self.relay,
            "publisher": self.publisher,
            "plants": self.plants,
            "plant_configs": self.plant_configs,
            "broker": self.broker,
            "connect": partial(postgres.connect, self.url, "worker"),
            "decode": EventMapper().decoder,
            "due": self.turns.due,
            "intervals": QUICK,
        }
        worker = Worker(WorkerParts(**given | changes))
        worker.start()
        self.closing.callback(worker.stop)
        if wait:
            until(lambda: self.rows("SELECT 1 FROM plants WHERE id = %s", self.plant_id), "the plants")
        return worker

    def inbox(self, *queues: str) -> Inbox:
        inbox = Inbox()
        self.outside.consumer(set(queues), inbox)
        return inbox

    def gateway(self, plant_id: UUID | None = None) -> Inbox:
        """The plant listens: what its gateway is told."""
        plant_id = plant_id or self.plant_id
        queue = Queue(f"test.plant.{plant_id}", (Binding("plant", f"plant.{plant_id}.command"),))
        self.outside.declare(Topology((queue,)))
        return self.inbox(queue.name)

    def answer(self, told: Delivery, status: str, **more: Any) -> None:
        body = {"commandId": json(told)["commandId"], "status": status, "ts": vcp.rfc3339(datetime.now(UTC)), **more}
        key = told.routing_key.removesuffix("command") + "ack"
        assert self.outside.publish([Message("plant", key, msgspec.json.encode(body))]) == [True]

    def send_raw(self, routing_key: str, body: bytes) -> None:
        assert self.outside.publish([Message("vcp", routing_key, body)]) == [True]

    def dead(self, count: int) -> dict[bytes, str]:
        """The reasons of the dead letters by their bodies."""
        letters = self.inbox(DEAD_QUEUE).wait_for(count)
        assert all(letter.headers["request-id"] for letter in letters)
        return {letter.body: letter.headers["reason"] for letter in letters}

    def dead_count(self) -> int:
        """Of an in-process broker: how many dead letters wait."""
        assert isinstance(self.broker, LocalBroker)
        return len(self.broker._queues[DEAD_QUEUE].messages)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.pool.connection() as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def execute(self, statement: str) -> None:
        with self.pool.connection() as connection:
            connection.execute(statement.encode())

    def status(self, message_id: UUID) -> str | None:
        rows = self.rows("SELECT status FROM command_log WHERE message_id = %s", message_id)
        return str(rows[0][0]) if rows else None

    def reaches(self, message_id: UUID, status: str) -> None:
        until(lambda: self.status(message_id) == status, status)

    def close(self) -> None:
        self.closing.close()

    def _linked(self, organization_id: UUID) -> Sequence[UUID]:
        with self.pool.connection() as connection:
            return linked_plants(connection, organization_id)


def json(delivery: Delivery) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(delivery.body)
    return decoded


def setpoint(**changes: Any) -> dict[str, Any]:
    now = vcp.rfc3339(datetime.now(UTC))
    return {"type": "POWER", "targetValueKw": 40, "direction": "EXPORT", "validFrom": now, **changes}
