"""A stream's history: what it amounted to at each of its versions, and what each event changed, field by field."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection

from projections.audit_log import HIDDEN
from projections.loading import Decode

PAGE = 500


@dataclass(frozen=True)
class Version:
    """A stream after one of its events. `state` has plain values, and nothing secret."""

    kind: str
    version: int
    position: int
    recorded_at: datetime
    topic: str
    actor: str
    state: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What an event changed: (old, new) by the field's path."""

    version: int
    position: int
    recorded_at: datetime
    topic: str
    actor: str
    fields: dict[str, tuple[Any, Any]]


def version_at(
    connection: "Connection[Any]",
    decode: Decode,
    stream_id: UUID,
    at: datetime | None = None,
    version: int | None = None,
) -> Version | None:
    """The last one that was recorded by a moment, or that of a number; None if there was none."""
    if at is not None:
        version = _version_at(connection, stream_id, at)
    folded: tuple[Any, tuple[Any, ...]] | None = None
    for folded in _fold(connection, decode, stream_id, version):  # noqa: B007 - the last one is the answer
        pass
    if folded is None or (version is not None and folded[0].version != version):
        return None
    return _version(*folded)


def changes(
    connection: "Connection[Any]",
    decode: Decode,
    stream_id: UUID,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[Change]:
    """Recorded after one moment and by another."""
    first = _version_at(connection, stream_id, since) if since else 0
    last = _version_at(connection, stream_id, until) if until else None
    before: dict[str, Any] = {}
    for aggregate, row in _fold(connection, decode, stream_id, last):
        if aggregate.version < first:
            continue
        now = _flat(shown(aggregate))
        if aggregate.version > first:
            changed = {
                name: (before.get(name), now.get(name)) for name in before | now if before.get(name) != now.get(name)
            }
            found = _version(aggregate, row)
            yield Change(found.version, found.position, found.recorded_at, found.topic, found.actor, changed)
        before = now


def shown(aggregate: Any) -> dict[str, Any]:
    """An aggregate's own fields as plain values."""
    fields = {name: value for name, value in vars(aggregate).items() if not name.startswith("_")}
    plain: dict[str, Any] = _without_hidden(msgspec.to_builtins(fields, str_keys=True, enc_hook=_plain))
    return plain


def _version_at(connection: "Connection[Any]", stream_id: UUID, at: datetime) -> int:
    row = connection.execute(
        "SELECT coalesce(max(version), 0) FROM events WHERE stream_id = %s AND position <= position_at(%s)",
        (stream_id, at),
    ).fetchone()
    assert row is not None
    return int(row[0])


def _fold(
    connection: "Connection[Any]", decode: Decode, stream_id: UUID, last: int | None
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The aggregate after each event, which changes it in place; a page of events at a time."""
    aggregate: Any = None
    version = 0
    while True:
        rows = connection.execute(
            "SELECT topic, stream_id, version, state, position, recorded_at, metadata ->> 'actor' FROM events"
            " WHERE stream_id = %s AND version > %s AND version <= %s ORDER BY version LIMIT %s",
            (stream_id, version, 2**62 if last is None else last, PAGE),
        ).fetchall()
        for row in rows:
            event: Any = decode(row[0])(*row[1:4])
            aggregate = event.mutate(aggregate)
            yield aggregate, row
        if len(rows) < PAGE:
            return
        version = rows[-1][1]


def _version(aggregate: Any, row: tuple[Any, ...]) -> Version:
    topic, _, version, _, position, recorded_at, actor = row
    return Version(topic.partition(":")[0], version, position, recorded_at, topic, actor, shown(aggregate))


def _flat(state: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in state.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, dict) and value else {f"{path}{name}": value}
    return flat


def _without_hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_hidden(each) for name, each in value.items() if name not in HIDDEN}
    return [_without_hidden(each) for each in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(type(value).__name__)
