"""One process's share of the work: follows the log, consumes the queues, keeps the timetable."""

import gc
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection

from application.ports import Consumption
from domain import topology
from interfaces.amqp import Commands, Measurements, PlantAcks
from interfaces.amqp.alarm_watch import AlarmWatch
from interfaces.worker.jobs import Jobs
from interfaces.worker.pace import Pace
from interfaces.worker.parts import WorkerParts
from projections.follower import Follower
from projections.read_models import READ_MODELS
from projections.trading_configs import enabled_prefixes

log = logging.getLogger(__name__)

STOP_S = 5.0
RESTART_S = 1.0
GARBAGE = 50_000
"""Objects that are made before the collector looks."""


@dataclass(frozen=True)
class WorkerStatus:
    """For health: which followers are active here, which consumers are connected, whether the jobs run here."""

    followers: dict[str, bool]
    consumers: dict[str, bool]
    leads: bool
    queues: int


class Worker:
    """Starts whether or not database and broker are up, and goes on as soon as they are."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._stopping = threading.Event()
        self._followers = (
            Follower("projector", READ_MODELS, self._connect_lightly, parts.decode, announces=True),
            Follower("publisher", [parts.publisher], self._connect_lightly, parts.decode, page=500),
        )
        self._measurements = Measurements(
            parts.connect,
            retention=timedelta(days=parts.retention_days),
            alarms=AlarmWatch(parts.alarms) if parts.alarms else None,
        )
        self._pace = Pace(parts.connect, self._stopping)
        self._jobs = Jobs(parts)
        self._consumptions: dict[str, Consumption] = {}
        self._threads: list[threading.Thread] = []
        self._queues: frozenset[str] = frozenset()

    def start(self) -> None:
        # Next to nothing here is circular, and Python's own pace would look for it some hundred times a second.
        gc.freeze()
        gc.set_threshold(GARBAGE)
        for follower in self._followers:
            self._run(f"follower-{follower.name}", lambda f=follower: f.run(self._stopping))  # type: ignore[misc]
        if self._parts.sealer is not None:
            self._run("sealer", partial(self._parts.sealer.run, self._stopping))
        broker, relay = self._parts.broker, self._parts.relay
        # A command waits for no companion: while one batch is handled, the next one gathers.
        commands, emergencies = Commands(relay, pace=self._pace), Commands(relay, "emergencies")
        self._consumptions = {
            "emergencies": broker.consumer({topology.EMERGENCY_QUEUE}, emergencies, linger=0.0, name="emergencies"),
            "commands": broker.consumer(set(), commands, linger=0.0, name="commands"),
            "plant-acks": broker.consumer({topology.PLANT_ACKS_QUEUE}, PlantAcks(relay), linger=0.0, name="plant-acks"),
            # Of a backlog a batch has several samples of each plant, and rewrites its roll-ups and last value once.
            "ingest": broker.consumer(
                {topology.INGEST_QUEUE}, self._measurements, batch=4000, linger=0.02, name="ingest"
            ),
        }
        self._run("watch", self._watch)
        self._jobs.start()

    def stop(self) -> None:
        """Within a few seconds: batches in hand are finished and acked, the rest goes back."""
        self._stopping.set()
        self._jobs.stop()
        self._wake_followers()
        stops = [threading.Thread(target=each.stop, daemon=True) for each in self._consumptions.values()]
        for stopping in stops:
            stopping.start()
        for thread in [*stops, *self._threads]:
            thread.join(STOP_S)
        self._measurements.close()
        self._pace.close()

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            {follower.name: follower.active.is_set() for follower in self._followers},
            {name: consumption.connected for name, consumption in self._consumptions.items()},
            self._jobs.lead,
            len(self._queues),
        )

    def _wake_followers(self) -> None:
        """They wait for events up to a second; this one is for all processes and means nothing."""
        with suppress(psycopg.Error), self._parts.connect() as connection:
            connection.execute("NOTIFY events")

    def _connect_lightly(self) -> Connection[Any]:
        """For followers: what a crash of the server takes from them, the log gives again. What the publisher then sends
        a second time has the same ids."""
        connection = self._parts.connect()
        connection.execute("SET synchronous_commit = off")
        return connection

    def _run(self, name: str, work: Callable[[], None]) -> None:
        """In a thread of its own, begun anew should it ever fail."""

        def keep_running() -> None:
            while not self._stopping.is_set():
                try:
                    work()
                except Exception:
                    log.exception("a thread of the worker failed and begins anew", extra={"work": name})
                self._stopping.wait(RESTART_S)

        thread = threading.Thread(target=keep_running, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        """Consumes what is enabled, as soon as the read model shows it."""
        try:
            with self._parts.connect() as connection:
                while not self._stopping.is_set():
                    self._consume(connection)
                    self._stopping.wait(self._parts.intervals.watch)
        except psycopg.Error as error:
            log.warning("can't read which prefixes are enabled", extra={"error": str(error)})

    def _consume(self, connection: Connection[Any]) -> None:
        queues = frozenset(
            queue.name
            for enabled in enabled_prefixes(connection)
            for queue in topology.queues(enabled.queue_prefix)
            if queue.direction == "inbound"
        )
        if queues != self._queues:
            self._queues = queues
            self._consumptions["commands"].consume(set(queues))
            log.info("consumed queues changed", extra={"queues": len(queues)})
