"""A rebuild beside the library's own way: a ProjectionRunner over its own recorder, one transaction an event."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import Mapper, StoredEvent, Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.conninfo import conninfo_to_dict

from infra.event_mapper import EventMapper
from infra.postgres import connect
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, rate
from tests.benchmarks.rebuilding import EVENTS, history, rebuild_all

STOCK_EVENTS = 2_000


@benchmark("rebuild_stock", Goal(15, 40), "events/s")
def rebuild_stock(bench: Bench) -> Result:
    """Its projection inserts one small row an event, which is less than our read models do."""
    with ExitStack() as stack:
        url = history(bench)
        stock_url = stack.enter_context(bench.database())
        _copy(url, stock_url)
        ours = partial(rebuild_all, url)
        return compare(lambda: rate(ours, EVENTS), lambda: rate(partial(_run, stock_url), STOCK_EVENTS))


class Stock(Application[UUID]):
    name = "stock"

    def construct_mapper(self) -> Mapper[UUID]:
        return EventMapper()


class Seen(Projection[PostgresTrackingRecorder]):
    name = "seen"
    all_seen: ClassVar[threading.Event] = threading.Event()

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        with self.view.datastore.transaction(commit=True) as cursor:
            cursor.execute("INSERT INTO seen VALUES (%s, %s)", (tracking.notification_id, domain_event.TOPIC))
            self.view._insert_tracking(cursor, tracking)
        if tracking.notification_id == STOCK_EVENTS:
            self.all_seen.set()


def _run(url: str) -> None:
    with connect(url, "stock") as connection:
        connection.execute("DROP TABLE IF EXISTS seen, seen_tracking")
        connection.execute("CREATE TABLE seen (id bigint PRIMARY KEY, topic text)")
    Seen.all_seen.clear()
    with ProjectionRunner(
        application_class=Stock,
        projection_class=Seen,
        view_class=PostgresTrackingRecorder,
        env=_environment(url),
    ):
        Seen.all_seen.wait()


def _copy(url: str, stock_url: str) -> None:
    """The first of our events into the library's own table."""
    query = "SELECT stream_id, version, topic, state FROM events ORDER BY position LIMIT %s"
    with connect(url, "stock") as connection:
        stored = [StoredEvent(*row) for row in connection.execute(query, [STOCK_EVENTS])]
    with _application(stock_url) as application:
        for begin in range(0, STOCK_EVENTS, 100):
            application.recorder.insert_events(stored[begin : begin + 100])


@contextmanager
def _application(url: str) -> Iterator[Stock]:
    application = Stock(_environment(url))
    try:
        yield application
    finally:
        application.close()


def _environment(url: str) -> dict[str, str]:
    parts = conninfo_to_dict(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(parts["dbname"]),
        "POSTGRES_HOST": str(parts["host"]),
        "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": "trusted",
    }
