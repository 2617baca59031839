"""A log on a database of the test's own, the ways into it, and the read models as rows to compare."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection, Cursor, sql
from psycopg_pool import ConnectionPool

from application.context import Metadata, acting
from application.event_log import EventLog
from domain.plant import Plant, PlantDescription
from infra.event_mapper import EventMapper
from infra.event_store import EventRecorder
from infra.postgres import connect, pool
from projections.follower import Follower
from projections.read_models import READ_MODELS
from projections.slots import SlotStatus, slot_statuses
from tests.benchmarks.history import fill

ORGANISATION = UUID("5c7c8a30-0f0e-4ff5-9bb7-0a3c8e64f0e2")
SOMEBODY = Metadata(actor="test", source="cli")
EVENTS = 1_500

Rows = dict[str, list[tuple[Any, ...]]]


@dataclass
class Log:
    """`connect` opens a connection of one's own, `decode` is what followers read events by."""

    url: str
    events: EventLog
    pool: "ConnectionPool[Connection[Any]]"

    def __post_init__(self) -> None:
        self.connect = partial(connect, self.url, "test")
        self.decode = EventMapper().decoder

    def save(self, *aggregates: Any) -> int:
        """The position that the save reached, 0 if there was nothing to save."""
        with acting(SOMEBODY) as task:
            self.events.save(*aggregates)
        return task.position

    def plant(self, name: str | None = None, renamed: int = 0) -> Plant:
        """A saved plant that has events enough to be folded."""
        name = name or str(uuid4())
        plant = Plant(organization_id=ORGANISATION, external_plant_id=name, name=name)
        for number in range(renamed):
            plant.link(PlantDescription(f"{name} {number}"))
        self.save(plant)
        return plant

    def follower(self, **options: Any) -> Follower:
        return Follower("projector", READ_MODELS, self.connect, self.decode, announces=True, **options)

    def end(self) -> int:
        return self.events.recorder.max_notification_id() or 0

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def slot(self, name: str = "plants") -> SlotStatus:
        with self.connect() as connection:
            return next(slot for slot in slot_statuses(connection) if slot.name == name)

    def rows(self) -> Rows:
        """Every read model, in full, by key."""
        return {model.name: self.table(model.name, model.key) for model in READ_MODELS}

    def table(self, name: str, key: str = "id") -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            query = sql.SQL("SELECT * FROM {} ORDER BY {}").format(sql.Identifier(name), sql.Identifier(key))
            return connection.execute(query).fetchall()


@pytest.fixture
def log(database_url: str) -> Iterator[Log]:
    with log_at(database_url) as opened:
        yield opened


@pytest.fixture
def filled(log: Log) -> Log:
    """With a history, and every read model at its end."""
    with log.connect() as connection:
        fill(connection, EVENTS, organisations=2, plants=5)
    log.follower().catch_up()
    return log


class log_at:  # noqa: N801 - a context manager, named like a function
    """A log on a migrated database."""

    def __init__(self, url: str, size: int = 16):
        self._pool = pool(url, size, "test")
        self._url = url

    def __enter__(self) -> Log:
        self._pool.open(wait=True)
        return Log(self._url, EventLog(EventRecorder(self._pool), EventMapper()), self._pool)

    def __exit__(self, *_: object) -> None:
        self._pool.close()


def dying(log: Log, statements: int) -> "Connection[Any]":
    """A connection whose server process ends before the statement after so many."""
    connection = log.connect()
    execute, left = Cursor.execute, [statements]

    class Dying(Cursor[Any]):
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                log.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            return execute(self, *args, **kwargs)

    connection.cursor_factory = Dying
    return connection
