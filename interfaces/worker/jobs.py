"""What is done again and again, by one worker at a time: syncs, ends of changes and commands, partitions, queues."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from apscheduler.executors.pool import ThreadPoolExecutor as SchedulerThreads
from apscheduler.schedulers.background import BackgroundScheduler
from eventsourcing.persistence import IntegrityError
from psycopg import Connection

from application.context import Metadata, acting
from domain.errors import WattledgerError
from interfaces.worker.leader import Leader
from interfaces.worker.parts import WorkerParts
from interfaces.worker.reconciler import Reconciler
from projections import partitions
from projections.command_log import overdue_commands, unrelayed_commands
from projections.config_log import open_changes
from projections.idempotency import forget_old_requests
from projections.read_models import READ_MODELS
from projections.rebuild import Progress, RebuildRunning
from projections.self_audit import check, is_due
from projections.slots import slot_statuses

log = logging.getLogger(__name__)

CALLS_AT_ONCE = 4
RETRY_S = 5.0
PUBLISHER_BEHIND = 1000
EXPECTED = (WattledgerError, psycopg.OperationalError, psycopg.InterfaceError, IntegrityError)


class _Stopping(Exception):
    """The worker ends: what takes long breaks off"""


class Jobs:
    """Every worker has the timetable; only the leader finds the door open."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._stopping = threading.Event()
        self._leader = Leader(parts.connect)
        self._reconciler = Reconciler(parts.broker)
        self._timetable: dict[str, tuple[float, Callable[[Connection[Any]], object]]] = {
            "reconcile": (parts.intervals.reconcile, self._reconciler.reconcile),
            "partitions": (parts.intervals.partitions, self._keep_partitions),
            "expire": (parts.intervals.expire, self._expire),
            "relay-again": (parts.intervals.relay_again, self._relay_again),
            "finish": (parts.intervals.finish, self._finish),
            "sync": (parts.intervals.sync, self._sync),
            "self-audit": (parts.intervals.self_audit, self._self_audit),
        }
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a job that outlasts its interval is no news
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": SchedulerThreads(len(self._timetable))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    @property
    def lead(self) -> bool:
        return self._leader.leads

    def start(self) -> None:
        for name, (seconds, _) in self._timetable.items():
            self._scheduler.add_job(
                self.run, "interval", [name], id=name, seconds=seconds, next_run_time=datetime.now(UTC)
            )
        self._scheduler.start()

    def stop(self) -> None:
        """What is at work ends by itself; nothing new begins, and another worker may lead."""
        self._stopping.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        self._leader.resign()

    def run(self, name: str) -> None:
        """One job, now, if this worker leads; what fails is logged and tried again soon."""
        seconds, do = self._timetable[name]
        try:
            connection = None if self._stopping.is_set() else self._leader.connection()
            if connection is not None:
                with acting(Metadata(actor="scheduler", source="scheduler")):
                    do(connection)
        except EXPECTED as error:
            self._report(name, error)
            self._try_again_soon(name, seconds)
        except Exception:
            log.exception("job failed", extra={"job": name})
            self._try_again_soon(name, seconds)

    def _sync(self, _: Connection[Any]) -> None:
        self._each("sync", self._parts.due(), self._parts.plants.sync)

    def _finish(self, connection: Connection[Any]) -> None:
        self._each("finish", open_changes(connection), self._parts.plant_configs.finish)

    def _expire(self, connection: Connection[Any]) -> None:
        self._each("expire", overdue_commands(connection), self._parts.relay.expire, at_once=1)

    def _relay_again(self, connection: Connection[Any]) -> None:
        # While the publisher is behind, its own first try is still to come.
        behind = any(slot.name == "publisher" and slot.lag > PUBLISHER_BEHIND for slot in slot_statuses(connection))
        if not behind:
            self._each("relay-again", unrelayed_commands(connection), self._parts.publisher.relay_again, at_once=1)

    def _keep_partitions(self, _: Connection[Any]) -> None:
        # On a connection of its own: a partition is dropped only when the last reader has left.
        with self._parts.connect() as connection:
            partitions.ensure(connection)
            partitions.drop_expired(connection, self._parts.retention_days)
            forget_old_requests(connection)

    def _self_audit(self, connection: Connection[Any]) -> None:
        """Once a day, however often workers start. A rebuild at the same time comes first."""
        if not is_due(connection):
            return
        with suppress(RebuildRunning, _Stopping):
            check(self._parts.connect, self._parts.decode, READ_MODELS, progress=self._go_on)

    def _go_on(self, _: Progress) -> None:
        if self._stopping.is_set():
            raise _Stopping

    def _each(self, name: str, ids: Sequence[UUID], do: Callable[[UUID], object], at_once: int = CALLS_AT_ONCE) -> None:
        """One that fails keeps no other waiting."""

        def do_one(each: UUID) -> None:
            if self._stopping.is_set():
                return
            try:
                with acting(Metadata(actor="scheduler", source="scheduler")):
                    do(each)
            except EXPECTED as error:
                self._report(name, error, each)
            except Exception:
                log.exception("job failed", extra={"job": name, "subject": str(each)})

        if at_once == 1 or len(ids) < 2:
            for each in ids:
                do_one(each)
            return
        with ThreadPoolExecutor(min(at_once, len(ids)), thread_name_prefix=f"job-{name}") as threads:
            list(threads.map(do_one, ids))

    def _try_again_soon(self, name: str, seconds: float) -> None:
        if seconds > RETRY_S and not self._stopping.is_set():
            self._scheduler.modify_job(name, next_run_time=datetime.now(UTC) + timedelta(seconds=RETRY_S))

    def _report(self, name: str, error: Exception, subject: UUID | None = None) -> None:
        if not self._stopping.is_set():  # else the ground is going away on purpose
            log.warning("job failed", extra={"job": name, "subject": str(subject or ""), "error": str(error)})
