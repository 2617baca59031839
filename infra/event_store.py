"""The event store: our recorder behind eventsourcing's extension point, one round trip a save."""

import os
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any, NoReturn
from uuid import UUID, uuid4

import msgspec
import psycopg
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
    Subscription,
)
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from application.context import IdempotencyKey, Metadata
from application.event_log import EventLog
from domain.errors import RequestInProgress, Unavailable
from infra.event_mapper import EventMapper
from infra.group_commit import GroupCommit
from infra.metrics import APPEND_SECONDS, CONFLICTS
from infra.packed_arrays import bigints, byteas, jsonbs, texts, uuids
from infra.postgres import RETRY_AFTER, is_connection_loss, unavailable

APPEND = "SELECT append_to_events(%b, %b, %b, %b, %b, %b)"
APPEND_ONCE = APPEND.removesuffix(")") + ", %s, %s, %b)"
COLUMNS = "stream_id, version, topic, state"
TRANSIENT = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)
ATTEMPTS = 3

Columns = tuple[list[Any], ...]
"""Stream ids, versions, topics, states, event ids and metadata of the events of one save."""


class EventRecorder(ApplicationRecorder):
    """Appends and reads events. It has no subscriptions: followers read the log themselves."""

    def __init__(self, pool: "ConnectionPool[Connection[Any]]"):
        self.pool = pool
        self._together = GroupCommit(self._append_together)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """The positions; raises IntegrityError when another writer was first, Unavailable when nothing was stored.

        `metadata` (of all) or `metadata_of` (by stream id) go with the events.
        """
        if not stored_events:
            return []
        metadata: Metadata = kwargs["metadata"]
        owners: dict[Any, Metadata] = kwargs.get("metadata_of", {})
        event_ids = [uuid4() for _ in stored_events]
        json = _json(metadata)
        columns: Columns = (
            [event.originator_id for event in stored_events],
            [event.originator_version for event in stored_events],
            [event.topic for event in stored_events],
            [event.state for event in stored_events],
            event_ids,
            [_json(owners[event.originator_id]) if event.originator_id in owners else json for event in stored_events],
        )
        idempotency: IdempotencyKey | None = kwargs.get("idempotency")
        with APPEND_SECONDS.time():
            last = self._append(columns, idempotency)
        return range(last + 1, last + 1 + len(stored_events))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        query = (
            f"SELECT {COLUMNS} FROM events WHERE stream_id = %s AND version > %s AND version <= %s "
            f"ORDER BY version {'DESC' if desc else 'ASC'} LIMIT %s"
        )
        upper = lte if lte is not None else 2**62
        return self._select(query, (originator_id, gt if gt is not None else -1, upper, limit))

    def select_events_of(self, originator_ids: Sequence[UUID]) -> Sequence[StoredEvent]:
        """All events of many streams, each stream in order, in one round trip."""
        query = f"SELECT {COLUMNS} FROM events WHERE stream_id = ANY(%b) ORDER BY stream_id, version"
        return self._select(query, (list(originator_ids),))

    def last_metadata(self, originator_id: UUID) -> tuple[int, dict[str, Any]] | None:
        query = "SELECT position, metadata FROM events WHERE stream_id = %s ORDER BY version DESC LIMIT 1"
        rows = self._fetch(query, (originator_id,))
        return (rows[0][0], rows[0][1]) if rows else None

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = (start or 0) + (0 if inclusive_of_start or start is None else 1)
        query = (
            f"SELECT {COLUMNS}, position FROM events WHERE position >= %s AND position <= %s "
            "AND (%s::text[] IS NULL OR topic = ANY(%s)) ORDER BY position LIMIT %s"
        )
        wanted = list(topics) or None
        rows = self._fetch(query, (first, stop or 2**62, wanted, wanted, limit))
        return [Notification(*row) for row in rows]

    def max_notification_id(self) -> int | None:
        highest: int | None = self._fetch("SELECT max(position) FROM events", ())[0][0]
        return highest

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        raise TypeError("followers read the log in pages: see projections.follower")

    def _append(self, columns: Columns, idempotency: IdempotencyKey | None) -> int:
        """The position before the first new event. Tried again only when nothing was stored for sure: after what the
        server calls transient, and after a lost connection when the log has not our event."""
        alone, lost = idempotency is not None, False
        first = (columns[0][0], columns[1][0], columns[4][0])
        for _ in range(ATTEMPTS):
            try:
                # One that fails among others may fail for another's sake.
                position = None if alone else self._together.submit(columns)
                alone = True
                if isinstance(position, psycopg.Error):
                    raise position
                return self._append_alone(columns, idempotency) if position is None else int(position)
            except psycopg.errors.UniqueViolation as error:
                # The server may have gone on with the append whose connection we lost.
                stored = self._position_after_all(*first) if lost else None
                if stored is None and error.diag.table_name == "idempotency_keys":
                    raise RequestInProgress(retry_after=RETRY_AFTER) from None
                if stored is None:
                    CONFLICTS.inc()
                    raise IntegrityError(str(error)) from error
                return stored
            except TRANSIENT:
                continue
            except (PoolTimeout, TooManyRequests):
                raise Unavailable("The database is busy", retry_after=RETRY_AFTER) from None
            except psycopg.OperationalError as error:
                if not is_connection_loss(error):
                    raise
                lost = True
                stored = self._position_after_all(*first)
                if stored is not None:
                    return stored
        raise Unavailable(retry_after=RETRY_AFTER)

    def _append_alone(self, columns: Columns, idempotency: IdempotencyKey | None) -> int:
        with self.pool.connection() as connection:
            if idempotency is None:
                row = connection.execute(APPEND, _pack(columns), prepare=True).fetchone()
            else:
                key = (idempotency.caller, idempotency.key, idempotency.request_hash)
                row = connection.execute(APPEND_ONCE, (*_pack(columns), *key), prepare=True).fetchone()
        assert row is not None
        return int(row[0])

    def _append_together(self, take: Callable[[], Sequence[Columns]]) -> Sequence[int | psycopg.Error | None]:
        """For each save the position before it, the error, or None if it shall try alone. A dry pool is raised."""
        with self.pool.connection() as connection:
            saves = take()
            try:
                merged = (
                    saves[0] if len(saves) == 1 else tuple(list(chain(*column)) for column in zip(*saves, strict=True))
                )
                row = connection.execute(APPEND, _pack(merged), prepare=True).fetchone()
            except psycopg.Error as error:
                mine = len(saves) == 1 or (isinstance(error, psycopg.OperationalError) and is_connection_loss(error))
                return [error if mine else None] * len(saves)
        assert row is not None
        return list(accumulate((len(save[0]) for save in saves[:-1]), initial=int(row[0])))

    def _position_after_all(self, stream_id: UUID, version: int, event_id: UUID) -> int | None:
        """The connection was lost: whether the commit was reached, only the log knows. None if it was not."""
        self._drop_lost_connections()
        rows = self._fetch(
            "SELECT position, event_id FROM events WHERE stream_id = %s AND version = %s", (stream_id, version)
        )
        if not rows:
            return None
        if rows[0][1] != event_id:
            raise IntegrityError("another writer was first")
        return int(rows[0][0]) - 1

    def _select(self, query: str, parameters: Sequence[Any]) -> list[StoredEvent]:
        return [StoredEvent(*row) for row in self._fetch(query, parameters)]

    def _fetch(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Reads may be repeated: once, when the connection turns out to be lost."""
        with unavailable():
            try:
                with self.pool.connection() as connection:
                    return connection.execute(query, parameters, prepare=True, binary=True).fetchall()
            except psycopg.OperationalError as error:
                if isinstance(error, (PoolTimeout, TooManyRequests)) or not is_connection_loss(error):
                    raise
            self._drop_lost_connections()
            with self.pool.connection() as connection:
                return connection.execute(query, parameters, prepare=True, binary=True).fetchall()

    def _drop_lost_connections(self) -> None:
        """A server that restarted leaves a pool full of them."""
        self.pool.check()


def event_log(pool: "ConnectionPool[Connection[Any]]") -> EventLog:
    """The event log on PostgreSQL."""
    if os.environ.get("POSTGRES_ENABLE_DB_FUNCTIONS"):
        _refuse()
    return EventLog(EventRecorder(pool), EventMapper())


def _refuse() -> NoReturn:
    raise RuntimeError("POSTGRES_ENABLE_DB_FUNCTIONS makes the library lose events for readers that follow the log")


def _pack(columns: Columns) -> tuple[bytes, ...]:
    stream_ids, versions, topics, states, event_ids, metadata = columns
    return uuids(stream_ids), bigints(versions), texts(topics), byteas(states), uuids(event_ids), jsonbs(metadata)


def _json(metadata: Metadata) -> bytes:
    given = {name: value for name, value in vars(metadata).items() if value is not None}
    return msgspec.json.encode(given)
