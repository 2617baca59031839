"""The catalogue of events for people and machines, with JSON Schemas; and a check of all that is stored against it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg import Connection

from domain.catalogue import AGGREGATES, EVENTS, events_of, topic_of
from infra.event_mapper import EventMapper, state_type
from projections.follower import read_page
from projections.rebuild import Progress

PAGE = 5_000


@dataclass(frozen=True)
class EventType:
    """`topic` is the stored name, `schema` the JSON Schema of the stored state."""

    topic: str
    aggregate: str
    version: int
    says: str
    fields: list[str]
    schema: dict[str, Any]


@dataclass(frozen=True)
class StoredTopic:
    """How many events are stored under a topic, and how many of them can't be read; `first_bad` is a position."""

    topic: str
    events: int
    unreadable: int
    first_bad: int | None
    error: str | None


def catalogue() -> list[EventType]:
    """All of them, aggregate by aggregate."""
    return [
        EventType(
            topic_of(event),
            aggregate.__name__,
            getattr(event, "class_version", 1),
            " ".join((event.__doc__ or "").split()) if "__doc__" in vars(event) else "",
            list(state_type(event).__annotations__),
            msgspec.json.schema(state_type(event)),
        )
        for aggregate in AGGREGATES
        for event in events_of(aggregate)
    ]


def check(connection: "Connection[Any]", progress: Callable[[Progress], None]) -> list[StoredTopic]:
    """Reads every stored event; a topic that is in the catalogue but not in the log has no row."""
    decode = EventMapper().decoder
    total = _last_position(connection)
    counted: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    first: dict[str, tuple[int, str]] = {}
    position = 0
    while page := read_page(connection, position, PAGE):
        for position, topic, *stored, _ in page:
            counted[topic] += 1
            try:
                decode(topic)(*stored)
            except ValueError as error:
                bad[topic] += 1
                first.setdefault(topic, (position, str(error)))
        progress(Progress("check", min(position, total), total))
    known = [topic for topic in EVENTS if topic in counted]
    return [
        StoredTopic(topic, counted[topic], bad[topic], *first.get(topic, (None, None)))
        for topic in [*known, *sorted(counted.keys() - EVENTS.keys())]
    ]


def _last_position(connection: "Connection[Any]") -> int:
    row = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    assert row is not None
    return int(row[0])
