"""A follower of the event log: reads it in pages, decodes once, and moves each of its slots on, event batch by batch.

Of all processes one is active, by a session advisory lock; the others stand by and take over when it ends. A slot's
work and its new position are one transaction, so a crash at any point repeats nothing and loses nothing.
"""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from eventsourcing.domain import AggregateEvent
from eventsourcing.persistence import StoredEvent
from psycopg import Connection
from psycopg.rows import namedtuple_row

from application.publisher import Recorded
from domain.errors import Unavailable

log = logging.getLogger(__name__)

PAGE = 1000
POLL_S = 1.0
STAND_BY_S = 0.5
LOCK_CLASS = 1463899222

Connect = Callable[[], "Connection[Any]"]
Decode = Callable[[StoredEvent], AggregateEvent]


class Slot(Protocol):
    """What follows the log: `apply` may raise Unavailable to be called again with the same batch."""

    @property
    def name(self) -> str: ...

    def concerns(self, event: Any) -> bool: ...

    def apply(self, connection: "Connection[Any]", batch: Sequence[Recorded]) -> None: ...


@dataclass(frozen=True)
class _BadEvent(Exception):
    """The one event that a slot could not apply, or that could not be decoded."""

    position: int
    error: str


class Follower:
    """`name` is that of the lock; `announces` says whether readers wait for its slots' positions."""

    def __init__(
        self,
        name: str,
        slots: Sequence[Slot],
        connect: Connect,
        decode: Decode,
        *,
        announces: bool = False,
        page: int = PAGE,
    ):
        self.name = name
        self.slots = {slot.name: slot for slot in slots}
        self.active = threading.Event()
        self._connect = connect
        self._decode = decode
        self._announces = announces
        self._page = page

    def run(self, stop: threading.Event) -> None:
        """Until `stop`: through lost connections, unreachable brokers and take-overs."""
        wait = 0.1
        while not stop.is_set():
            try:
                with self._connect() as connection:
                    self._follow(connection, stop)
                wait = 0.1
            except (psycopg.OperationalError, Unavailable) as error:
                log.warning("follower interrupted: %s", error, extra={"follower": self.name})
                stop.wait(random.uniform(wait / 2, wait))
                wait = min(wait * 2, 2.0)
            finally:
                self.active.clear()

    def catch_up(self) -> None:
        """Brings the slots to the log's end now, unless an active follower is at it already."""
        with self._connect() as connection:
            if self._take_lock(connection):
                self._enter_slots(connection)
                while self.step(connection):
                    pass

    def step(self, connection: "Connection[Any]") -> bool:
        """Applies one page in one transaction; False when there was nothing left to do."""
        with connection.transaction():
            positions = self._lock_slots(connection)
            if not positions:
                return False
            batch, bad = self._read(connection, min(positions.values()))
            if not batch and bad is None:
                return False
            reached = batch[-1].position if batch else min(positions.values())
            failures = {name: bad for name in positions} if bad else {}
            for name, position in positions.items():
                failure = self._apply(connection, self.slots[name], [r for r in batch if r.position > position])
                if failure is not None:
                    failures[name] = failure
            self._move(connection, positions, reached, failures)
        return True

    def _follow(self, connection: "Connection[Any]", stop: threading.Event) -> None:
        while not self._take_lock(connection):
            if stop.wait(STAND_BY_S):
                return
        self.active.set()
        log.info("follower active", extra={"follower": self.name})
        connection.execute("LISTEN events")
        self._enter_slots(connection)
        while not stop.is_set():
            if not self.step(connection):
                for _ in connection.notifies(timeout=POLL_S, stop_after=1):
                    pass

    def _take_lock(self, connection: "Connection[Any]") -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (LOCK_CLASS, self.name)).fetchone()
        return bool(row and row[0])

    def _enter_slots(self, connection: "Connection[Any]") -> None:
        connection.execute(
            "INSERT INTO slots (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", [list(self.slots)]
        )

    def _lock_slots(self, connection: "Connection[Any]") -> dict[str, int]:
        """Our live slots' positions. The row is lock, checkpoint and duplicate guard in one."""
        rows = connection.execute(
            "SELECT name, position FROM slots WHERE name = ANY(%s) AND parked_at IS NULL ORDER BY name FOR UPDATE",
            [list(self.slots)],
        )
        return dict(rows.fetchall())

    def _read(self, connection: "Connection[Any]", after: int) -> tuple[list[Recorded], _BadEvent | None]:
        """A page of decoded events, up to the first one that can't be decoded."""
        batch: list[Recorded] = []
        for position, stored, metadata in read_page(connection, after, self._page):
            try:
                batch.append(Recorded(position, self._decode(stored), metadata))
            except ValueError as error:
                return batch, _BadEvent(position, str(error)) if not batch else None
        return batch, None

    def _apply(self, connection: "Connection[Any]", slot: Slot, batch: Sequence[Recorded]) -> _BadEvent | None:
        """Applies what concerns the slot; on an error bisects to the bad event, having applied all before it."""
        concerned = [recorded for recorded in batch if slot.concerns(recorded.event)]
        if not concerned:
            return None
        try:
            with connection.transaction():
                slot.apply(connection, concerned)
        except (psycopg.OperationalError, Unavailable):
            raise
        except Exception as error:
            if len(concerned) == 1:
                return _BadEvent(concerned[0].position, f"{type(error).__name__}: {error}")
            half = len(concerned) // 2
            failure = self._apply(connection, slot, concerned[:half])
            return failure or self._apply(connection, slot, concerned[half:])
        return None

    def _move(
        self,
        connection: "Connection[Any]",
        positions: dict[str, int],
        reached: int,
        failures: dict[str, _BadEvent],
    ) -> None:
        """Also over events that don't concern a slot. A slot with a bad event parks before it, loudly."""
        healthy = [name for name in positions if name not in failures]
        connection.execute(
            "UPDATE slots SET position = %s, updated_at = now() WHERE name = ANY(%s)", (reached, healthy)
        )
        for name, bad in failures.items():
            log.error("slot parked", extra={"slot": name, "position": bad.position, "error": bad.error})
            connection.execute(
                "UPDATE slots SET position = %s, parked_at = %s, error = %s, updated_at = now() WHERE name = %s",
                (bad.position - 1, bad.position, bad.error[:2000], name),
            )
        if self._announces and healthy:
            connection.execute("SELECT pg_notify('projected', %s)", [str(reached)])


def read_page(connection: "Connection[Any]", after: int, limit: int) -> list[tuple[int, StoredEvent, dict[str, Any]]]:
    """The next events after a position, in order."""
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(
            "SELECT position, stream_id, version, topic, state, metadata FROM events"
            " WHERE position > %s ORDER BY position LIMIT %s",
            (after, limit),
            prepare=True,
        ).fetchall()
    return [(row[0], StoredEvent(*row[1:5]), row[5]) for row in rows]


@dataclass(frozen=True)
class SlotStatus:
    """How a slot stands: `lag` in events; `parked_at` is the event that it could not apply."""

    name: str
    position: int
    lag: int
    parked_at: int | None
    error: str | None


def slot_statuses(connection: "Connection[Any]") -> list[SlotStatus]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        rows = cursor.execute(
            "SELECT name, position, greatest(coalesce((SELECT max(position) FROM events), 0) - position, 0) AS lag,"
            " parked_at, error FROM slots ORDER BY name"
        ).fetchall()
    return [SlotStatus(*row) for row in rows]


def resume(connection: "Connection[Any]", name: str) -> bool:
    """Lets a parked slot try its bad event again; False when it is not parked."""
    cursor = connection.execute(
        "UPDATE slots SET parked_at = NULL, error = NULL WHERE name = %s AND parked_at IS NOT NULL", [name]
    )
    with suppress(psycopg.Error):
        connection.execute("NOTIFY events")
    return cursor.rowcount == 1
