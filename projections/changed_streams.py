"""Which streams of some kinds got events lately: for what is held in memory and must notice a change."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection

MANY = 50_000


def changed_streams(
    connection: Connection[Any], after: int | None, topics: Sequence[str]
) -> tuple[int, list[UUID] | None]:
    """The log's last position, and the streams with such an event after `after`; None if it is too long to read."""
    row = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    assert row is not None
    reached: int = row[0]
    if after is None or reached - after > MANY:
        return reached, None
    if reached == after:
        return reached, []
    changed = connection.execute(
        "SELECT DISTINCT stream_id FROM events WHERE position > %s AND position <= %s AND topic = ANY(%s)",
        (after, reached, list(topics)),
    )
    return reached, [stream for (stream,) in changed.fetchall()]
