"""A follower of the event log: reads it in pages, decodes once, and moves each of its slots on, event batch by batch.

Of all processes one is active, by a session advisory lock; the others stand by and take over when it ends. A slot's
work and its new position are one transaction, so a crash at any point repeats nothing and loses nothing. One that meets
a kind of event that it does not know gives a newer process the chance to take over, before it parks.
"""

import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import psycopg
from psycopg import Connection
from psycopg.types.json import set_json_loads

from application.publisher import Recorded
from domain.catalogue import EVENTS
from domain.errors import Unavailable
from projections.loading import Decode
from projections.read_model import ReadModel
from projections.slots import (
    CHANGED,
    Connect,
    Filled,
    SlotStatus,
    enter,
    filled_by,
    resume,
    resume_known,
    slot_statuses,
)

__all__ = ["Connect", "Decode", "Follower", "Slot", "SlotStatus", "read_page", "resume", "slot_statuses"]

log = logging.getLogger(__name__)

PAGE = 1000
POLL_S = 1.0
STAND_BY_S = 0.5
STAND_ASIDE_S = 4 * STAND_BY_S
# Several events at once mean that writers are busy: what gathers in a moment costs them no more than one step. A single
# command is two events, and a partner waits for its answer: whoever publishes gathers later.
SEVERAL = {True: 2, False: 4}
GATHER_S = 0.02
# The busier they are, the longer, so that they have the machine for most of the time.
REST, MOST_GATHER_S = 4, 0.05
LOCK_CLASS = 1463899222


class Slot(Protocol):
    """What follows the log: `concerns` goes by an event's class alone, `apply` may raise Unavailable to be called again
    with the same batch."""

    @property
    def name(self) -> str: ...

    def concerns(self, event: Any) -> bool: ...

    def apply(self, connection: "Connection[Any]", batch: Sequence[Recorded]) -> None: ...


@dataclass(frozen=True)
class _BadEvent:
    """The one event that a slot could not apply, or that could not be decoded; or where a changed slot stopped."""

    position: int
    error: str


@dataclass(frozen=True)
class _Undecodable:
    """An event that breaks off a page. `event` is an empty one of its class, None if its topic is unknown."""

    position: int
    error: str
    event: object | None


class _OfNewerVersion(Exception):
    """An event whose topic is unknown comes first"""


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
        # Read models are made of the events alone.
        self._tells_metadata = not all(isinstance(slot, ReadModel) for slot in slots)
        self._filled: dict[str, Filled] = {}
        self._stood_aside_at = 0

    def run(self, stop: threading.Event) -> None:
        """Until `stop`: through lost connections, unreachable brokers and take-overs."""
        wait = 0.1
        while not stop.is_set():
            try:
                with self._connect() as connection:
                    set_json_loads(msgspec.json.decode, connection)
                    self._follow(connection, stop)
                wait = 0.1
            except _OfNewerVersion as error:
                log.warning("follower stands aside: %s", error, extra={"follower": self.name})
                stop.wait(STAND_ASIDE_S)
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

    def step(self, connection: "Connection[Any]", *, may_stand_aside: bool = False) -> int:
        """Applies one page to the slots that stand furthest, and one to each group of slots that is behind, each in a
        transaction of its own: a slot that has much to read holds up no other. How many positions they moved."""
        moved = 0
        stop = None
        for position in sorted(set(self._positions(connection).values()), reverse=True):
            moved += self._step(connection, position, stop, may_stand_aside)
            stop = position
        return moved

    def _follow(self, connection: "Connection[Any]", stop: threading.Event) -> None:
        while not self._take_lock(connection):
            if stop.wait(STAND_BY_S):
                return
        self.active.set()
        log.info("follower active", extra={"follower": self.name})
        self._enter_slots(connection)
        listens = False
        while not stop.is_set():
            begun = time.monotonic()
            events = self.step(connection, may_stand_aside=True)
            if SEVERAL[self._announces] <= events < self._page:
                # Whoever looks again soon need not be told: each telling interrupts the writer and our own server.
                if listens:
                    connection.execute("UNLISTEN events")
                    listens = False
                stop.wait(min(max(GATHER_S, REST * (time.monotonic() - begun)), MOST_GATHER_S))
            elif not events and not listens:
                connection.execute("LISTEN events")
                listens = True  # and what came before it, the next step finds
            elif not events:
                for _ in connection.notifies(timeout=POLL_S, stop_after=1):
                    pass

    def _take_lock(self, connection: "Connection[Any]") -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (LOCK_CLASS, self.name)).fetchone()
        return bool(row and row[0])

    def _enter_slots(self, connection: "Connection[Any]") -> None:
        models = [slot for slot in self.slots.values() if isinstance(slot, ReadModel)]
        self._filled = {model.name: filled_by(connection, model) for model in models}
        with connection.transaction():
            enter(connection, list(self.slots), self._filled)
            for name in resume_known(connection, list(self.slots), list(EVENTS)):
                log.warning("slot goes on: what it parked at is known by now", extra={"slot": name})

    def _positions(self, connection: "Connection[Any]") -> dict[str, int]:
        rows = connection.execute(
            "SELECT name, position FROM slots WHERE name = ANY(%s) AND parked_at IS NULL", [list(self.slots)]
        )
        return dict(rows.fetchall())

    def _step(self, connection: "Connection[Any]", position: int, stop: int | None, may_stand_aside: bool) -> int:
        """One page for the slots that stand at `position`, no further than `stop`, where others stand."""
        with connection.transaction():
            names, failures = self._lock_slots(connection, position)
            batch, undecodable = self._read(connection, position, stop) if names else ([], None)
            if not batch and undecodable is None and not failures:
                return 0
            reached = batch[-1].position if batch else position
            if undecodable is not None and not batch:
                if may_stand_aside and undecodable.event is None and undecodable.position > self._stood_aside_at:
                    self._stood_aside_at = undecodable.position
                    raise _OfNewerVersion(undecodable.error)
                # To pass over it is right only for those that it does not concern.
                reached = undecodable.position
                bad = _BadEvent(undecodable.position, undecodable.error)
                event = undecodable.event
                failures |= {name: bad for name in names if event is None or self.slots[name].concerns(event)}
            kinds = {type(recorded.event): recorded.event for recorded in batch}.values()
            for name in names:
                slot = self.slots[name]
                failure = self._apply(connection, slot, batch) if any(map(slot.concerns, kinds)) else None
                if failure is not None:
                    failures[name] = failure
            self._move(connection, [name for name in names if name not in failures], reached, failures)
        return max(reached - position, 1)

    def _lock_slots(self, connection: "Connection[Any]", position: int) -> tuple[list[str], dict[str, _BadEvent]]:
        """Our live slots that stand there, and those whose code is not what they were filled by. The row is lock,
        checkpoint and duplicate guard in one."""
        rows = connection.execute(
            "SELECT name, version, columns FROM slots WHERE name = ANY(%s) AND position = %s AND parked_at IS NULL"
            " ORDER BY name FOR UPDATE",
            (list(self.slots), position),
        ).fetchall()
        changed = [name for name, *filled in rows if name in self._filled and Filled(*filled) != self._filled[name]]
        names = [row[0] for row in rows if row[0] not in changed]
        return names, {name: _BadEvent(position + 1, CHANGED.format(name)) for name in changed}

    def _read(
        self, connection: "Connection[Any]", after: int, stop: int | None
    ) -> tuple[list[Recorded], _Undecodable | None]:
        """A page of decoded events, up to the first one that can't be decoded, which is told of when it comes first."""
        limit = self._page if stop is None else min(self._page, stop - after)
        batch: list[Recorded] = []
        for position, topic, *stored, metadata in read_page(connection, after, limit, metadata=self._tells_metadata):
            try:
                batch.append(Recorded(position, self._decode(topic)(*stored), metadata))
            except ValueError as error:
                known = EVENTS.get(topic)
                empty = object.__new__(known) if known else None
                return batch, None if batch else _Undecodable(position, str(error), empty)
        return batch, None

    def _apply(self, connection: "Connection[Any]", slot: Slot, batch: Sequence[Recorded]) -> _BadEvent | None:
        """Applies what concerns the slot; on an error bisects to the bad event, having applied all before it."""
        concerned = [recorded for recorded in batch if slot.concerns(recorded.event)]
        try:
            with connection.transaction():
                slot.apply(connection, concerned)
        except (psycopg.OperationalError, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the slot parks and says so
            if len(concerned) == 1:
                return _BadEvent(concerned[0].position, f"{type(error).__name__}: {error}")
            half = len(concerned) // 2
            failure = self._apply(connection, slot, concerned[:half])
            return failure or self._apply(connection, slot, concerned[half:])
        return None

    def _move(
        self, connection: "Connection[Any]", healthy: Sequence[str], reached: int, failures: dict[str, _BadEvent]
    ) -> None:
        """Also over events that don't concern a slot. A slot with a bad event parks before it, loudly."""
        connection.execute(
            "UPDATE slots SET position = %s, updated_at = now() WHERE name = ANY(%s)", (reached, list(healthy))
        )
        for name, bad in failures.items():
            log.error("slot parked", extra={"slot": name, "position": bad.position, "error": bad.error})
            connection.execute(
                "UPDATE slots SET position = %s, parked_at = %s, error = %s, updated_at = now() WHERE name = %s",
                (bad.position - 1, bad.position, bad.error.replace("\0", "")[:2000], name),
            )
        if self._announces and healthy:
            connection.execute(
                "SELECT pg_notify('projected', min(position)::text) FROM slots"
                " WHERE name = ANY(%s) AND parked_at IS NULL HAVING min(position) IS NOT NULL",
                [list(self.slots)],
            )


def read_page(connection: "Connection[Any]", after: int, limit: int, *, metadata: bool = True) -> list[Any]:
    """The next events after a position, in order: position, topic, stream id, version, state and metadata, empty where
    it is not asked for."""
    told = "metadata" if metadata else "jsonb '{}'"
    with connection.cursor(binary=True) as cursor:
        return cursor.execute(
            f"SELECT position, topic, stream_id, version, state, {told} FROM events"
            " WHERE position > %s ORDER BY position LIMIT %s".encode(),
            (after, limit),
            prepare=True,
        ).fetchall()
