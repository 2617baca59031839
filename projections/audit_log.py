"""The audit log: which events are whose. Pages go by position: new events move nothing, and depth costs nothing."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import dict_row

from application.context import with_user
from application.ports import VEILED
from domain.catalogue import EVENTS
from domain.errors import BadRequest
from domain.relayed_command import RelayedCommand
from projections.log_index import LogIndex
from projections.page import ApiModel

SCANNED = 100_000
"""Of an organisation's events, looked at for one page: a rare filter gives a short page and a `next` to go on from."""

HIDDEN = frozenset({"secret_hash"})
COMMAND = "relayed-command:"
PEOPLE = ("user:", "key:", "cli")


class AuditEntry(ApiModel):
    """One event as it was stored. `state` is what it says, `recordedAt` the database's own time in UTC."""

    position: int
    event_id: UUID
    recorded_at: datetime
    organization_id: UUID | None
    plant_id: UUID | None
    stream_id: UUID
    version: int
    topic: str
    actor: str
    source: str
    request_id: str | None
    correlation_id: str | None
    causation_id: str | None
    state: dict[str, Any]


class AuditMeta(ApiModel):
    """`next` is what `before` must be for the next page; null when there is none."""

    limit: int
    next: int | None


class AuditPage(ApiModel):
    data: list[AuditEntry]
    meta: AuditMeta


@dataclass(frozen=True)
class AuditFilter:
    """Everything that is given must hold. `topic` is an event's or an aggregate's, `id` a request's, correlation's or
    message's, `since` and `until` are moments; positions lie between `after` and `before`, both exclusive."""

    organization_id: UUID | None = None
    plant_id: UUID | None = None
    topic: str | None = None
    actor: str | None = None
    id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int = 0
    before: int | None = None


class _Row(msgspec.Struct):
    organization_id: UUID
    position: int
    plant_id: UUID | None
    topic: str
    actor: str
    request: int | None
    correlation: int | None


AUDIT_LOG = LogIndex(
    "audit_log",
    _Row,
    key="position",
    select="SELECT organization_id, position, plant_id, topic, metadata ->> 'actor',"
    " hashtext(metadata ->> 'request_id'), hashtext(metadata ->> 'correlation_id')"
    " FROM audit_events WHERE position > %s AND position <= %s",
)

_IN_METADATA = ("request_id", "correlation_id", "causation_id")

Asking = tuple[sql.SQL | sql.Composed, dict[str, Any]]
Rows = list[dict[str, Any]]


def audit_page(
    connection: "Connection[Any]", wanted: AuditFilter, limit: int, *, oldest_first: bool = False
) -> AuditPage:
    """Of all organisations if none is named. Raises BadRequest for a kind of event that there is not."""
    asking = _asking(wanted, limit, oldest_first)
    with connection.cursor(row_factory=dict_row) as cursor:
        try:
            question = next(asking)
            while True:
                question = asking.send(cursor.execute(*question).fetchall())
        except StopIteration as answer:
            return _entries(answer.value, limit)


async def audit_page_async(connection: "AsyncConnection[Any]", wanted: AuditFilter, limit: int) -> AuditPage:
    """The same, newest first, for queries."""
    asking = _asking(wanted, limit, oldest_first=False)
    async with connection.cursor(row_factory=dict_row) as cursor:
        try:
            question = next(asking)
            while True:
                await cursor.execute(*question)
                question = asking.send(await cursor.fetchall())
        except StopIteration as answer:
            return _entries(answer.value, limit)


def unveiled_page(page: AuditPage, unveil: Callable[[str], str]) -> AuditPage:
    """Of one organisation, with what it can read."""
    if not _has_veiled(page.data):
        return page
    return AuditPage(data=[unveiled(entry, unveil) for entry in page.data], meta=page.meta)


def unveiled(entry: AuditEntry, unveil: Callable[[str], str]) -> AuditEntry:
    """With what its organisation can read."""
    if not _has_veiled([entry]):
        return entry
    return entry.model_copy(update={"actor": with_user(entry.actor, unveil), "state": readable(entry.state, unveil)})


def _has_veiled(entries: Sequence[AuditEntry]) -> bool:
    """Few have, and to look at every word costs more than to write them all."""
    return VEILED.encode() in msgspec.json.encode([(entry.actor, entry.state) for entry in entries])


def readable(value: Any, unveil: Callable[[str], str]) -> Any:
    """Plain values with all their words unveiled."""
    match value:
        case str():
            return unveil(value)
        case dict():
            return {name: readable(each, unveil) for name, each in value.items()}
        case list() | tuple():
            return type(value)(readable(each, unveil) for each in value)
    return value


def _asking(wanted: AuditFilter, limit: int, oldest_first: bool) -> Generator[Asking, Rows, tuple[Rows, int | None]]:
    """The questions to the database one after the other; then the rows, and how far down was looked if not all the
    way."""
    [bounds] = yield _BOUNDS, {name: getattr(wanted, name) for name in ("after", "before", "since", "until")}
    given = {**vars(wanted), **bounds, "limit": limit, "scanned": SCANNED, "topics": _topics(wanted.topic)}
    conditions = _led_to_by_an_index(wanted, given["topics"])
    cut = None
    if not oldest_first and (wanted.topic or wanted.actor or not wanted.organization_id) and wanted.id is None:
        if wanted.organization_id is None:
            furthest = given["high"] - SCANNED
            cut = furthest if furthest > given["low"] + 1 else None
        else:
            [found] = yield _CUT.format(table=_table(wanted), conditions=_all(conditions)), given
            cut = found["cut"]
        given["low"] = max(given["low"], (cut or 1) - 1)
    if wanted.id is not None:
        organisations = [wanted.organization_id] if wanted.organization_id else None
        known = organisations or [row["id"] for row in (yield sql.SQL("SELECT id FROM organisations"), {})]
        given["commands"] = _commands(known, wanted.id)
    statement = _PAGE.format(
        columns=_COLUMNS,
        table=_table(wanted),
        conditions=_all([*conditions, *_others(wanted)]),
        order=sql.SQL("ASC" if oldest_first else "DESC"),
    )
    rows = yield statement, given
    return rows, cut


def _shown(name: str) -> sql.Composable:
    if name in _IN_METADATA:
        return sql.SQL("v.metadata ->> {} AS {}").format(sql.Literal(name), sql.Identifier(name))
    return sql.SQL("v.{}").format(sql.Identifier(name)) if name != "position" else sql.SQL("position")


# One piece: putting a dozen together for each page would take longer than anything else that Python does for it.
_COLUMNS = sql.SQL(
    sql.SQL(", ")
    .join(_shown(name) for name in AuditEntry.model_fields if name not in ("actor", "source", "state"))
    .as_string()
)
_BOUNDS = sql.SQL(
    "SELECT greatest(%(after)s::bigint, CASE WHEN %(since)s::timestamptz IS NOT NULL"
    " THEN position_at(%(since)s::timestamptz - interval '1 microsecond') END) AS low,"
    " least(%(before)s::bigint, CASE WHEN %(until)s::timestamptz IS NOT NULL"
    " THEN position_at(%(until)s) + 1 END, (SELECT max(position) + 1 FROM events), 9223372036854775807) AS high"
)
_CUT = sql.SQL(
    "SELECT (SELECT position FROM {table} WHERE {conditions} ORDER BY position DESC OFFSET %(scanned)s LIMIT 1) AS cut"
)
_PAGE = sql.SQL(
    # Not a join, which would read the whole view.
    "SELECT {columns}, v.metadata, v.state FROM audit_events v WHERE position = ANY(ARRAY(SELECT position FROM {table}"
    " WHERE {conditions} ORDER BY position {order} LIMIT %(limit)s)) ORDER BY position {order}"
)
_WITH_ID = sql.SQL(
    "position = ANY(ARRAY(SELECT e.position FROM audit_log i JOIN events e USING (position)"
    " WHERE i.request = hashtext(%(id)s) AND e.metadata ->> 'request_id' = %(id)s UNION ALL"
    " SELECT e.position FROM audit_log i JOIN events e USING (position)"
    " WHERE i.correlation = hashtext(%(id)s) AND e.metadata ->> 'correlation_id' = %(id)s UNION ALL"
    " SELECT position FROM events WHERE stream_id = ANY(%(commands)s)))"
)


def _led_to_by_an_index(wanted: AuditFilter, topics: Sequence[str] | None) -> list[sql.Composable]:
    conditions: list[sql.Composable] = [sql.SQL("position > %(low)s AND position < %(high)s")]
    if wanted.organization_id is not None:
        conditions.append(sql.SQL("organization_id = %(organization_id)s"))
    if wanted.plant_id is not None:
        conditions.append(sql.SQL("plant_id = %(plant_id)s"))
    # Said again in the words of the partial indexes, which nobody can tell from a parameter.
    if topics is not None and not any(topic.startswith(COMMAND) for topic in topics):
        conditions.append(sql.SQL("topic NOT LIKE 'relayed-command:%%'"))
    if wanted.organization_id is not None and wanted.actor is not None and wanted.actor.startswith(PEOPLE):
        conditions.append(sql.SQL("(actor LIKE 'user:%%' OR actor LIKE 'key:%%' OR actor LIKE 'cli%%')"))
        conditions.append(sql.SQL("actor = %(actor)s"))
    return conditions


def _others(wanted: AuditFilter) -> list[sql.Composable]:
    conditions: list[sql.Composable] = []
    if wanted.topic is not None:
        conditions.append(sql.SQL("topic = ANY(%(topics)s)"))
    if wanted.actor is not None:
        actor = sql.SQL("actor" if wanted.organization_id else "metadata ->> 'actor'")
        conditions.append(actor + sql.SQL(" = %(actor)s"))
    if wanted.id is not None:
        conditions.append(_WITH_ID)
    return conditions


def _table(wanted: AuditFilter) -> sql.Identifier:
    if wanted.organization_id is not None:
        return sql.Identifier("audit_log")
    return sql.Identifier("events" if wanted.plant_id is None else "audit_events")


def _all(conditions: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(conditions)


def _topics(wanted: str | None) -> list[str] | None:
    if wanted is None:
        return None
    topics = [topic for topic in EVENTS if topic == wanted or topic.startswith(f"{wanted}:")]
    if not topics:
        raise BadRequest(f"There are no events of the kind {wanted}: see `wattledger events catalogue`")
    return topics


def _commands(organisations: Sequence[UUID], id: str) -> list[UUID]:  # noqa: A002 - the filter's word
    """The streams of the commands that a message of this id would have."""
    try:
        message_id = UUID(id)
    except ValueError:
        return []
    return [message_id, *(RelayedCommand.create_id(organization_id, message_id) for organization_id in organisations)]


def _entries(found: tuple[Rows, int | None], limit: int) -> AuditPage:
    rows, cut = found
    entries = [_entry(row) for row in rows]
    following = entries[-1].position if len(entries) == limit else cut
    return AuditPage(data=entries, meta=AuditMeta(limit=limit, next=following))


def _entry(row: dict[str, Any]) -> AuditEntry:
    metadata, state = row.pop("metadata"), msgspec.json.decode(row.pop("state"))
    shown = {name: value for name, value in state.items() if name not in HIDDEN}
    return AuditEntry(**row, actor=metadata["actor"], source=metadata["source"], state=shown)
