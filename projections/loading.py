"""The bulk load of a rebuild: folds a share of the log in memory and writes each row once, by COPY."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any

import msgspec
from eventsourcing.domain import AggregateEvent
from eventsourcing.persistence import StoredEvent
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from domain.catalogue import EVENTS
from projections import shadow
from projections.read_model import ReadModel
from projections.slots import Connect

Decode = Callable[[StoredEvent], AggregateEvent]

# A row is written when this many younger ones wait, a command's events being minutes apart.
WAITING = 40_000
RANGE = 50_000
CHUNK = 1_000


@dataclass(frozen=True)
class Share:
    """Events up to a position: all, or of those streams that fall to worker `number` of `workers`."""

    end: int
    number: int = 0
    workers: int = 1


def load(
    connect: Connect,
    decode: Decode,
    read_models: Sequence[ReadModel[Any]],
    share: Share,
    report: Callable[[int], None],
) -> dict[str, list[int]]:
    """Fills the shadows; `report` gets each position that is reached. Returns by read model the positions of events
    that came long after their row was written, to be applied one by one later.
    """
    with connect() as reader, connect() as writer:
        loads = [_Load(model, writer, staged=share.workers > 1 and bool(model.numbering)) for model in read_models]
        by_class: dict[type[Any], list[Callable[[Any, int], None]]] = {}
        for each in loads:
            for event_class in each.model.events:
                by_class.setdefault(event_class, []).append(each.take)
        skipped = irrelevant_topics(read_models)
        for begin in range(0, share.end, RANGE):
            end = min(begin + RANGE, share.end)
            for position, *stored in _read(reader, begin, end, share, skipped):
                event = decode(StoredEvent(*stored))
                for take in by_class.get(type(event), ()):
                    take(event, position)
            for each in loads:
                each.write_older()
            report(end)
        for each in loads:
            each.write(len(each.rows))
    return {each.model.name: each.postponed for each in loads}


def irrelevant_topics(read_models: Sequence[ReadModel[Any]]) -> list[str]:
    """The catalogued ones that concern none of the read models. A topic that nobody knows must not be passed over."""
    relevant = {event_class for model in read_models for event_class in model.events}
    return [topic for topic, event_class in EVENTS.items() if event_class not in relevant]


def _read(
    connection: "Connection[Any]", begin: int, end: int, share: Share, skipped: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Streamed, so that the server reads on while we fold; in ranges, so that no statement holds back a vacuum."""
    of_share = ""
    if share.workers > 1:
        of_share = f"AND get_byte(uuid_send(stream_id), 15) %% {share.workers:d} = {share.number:d} "
    query = (
        "SELECT position, stream_id, version, topic, state FROM events WHERE position > %s AND position <= %s "
        f"AND topic <> ALL(%s) {of_share}ORDER BY position"
    )
    with connection.cursor(binary=True) as cursor:
        yield from cursor.stream(query.encode(), (begin, end, list(skipped)), size=CHUNK)


class _Load:
    """One read model's rows that are not written yet, in the order they were made."""

    def __init__(self, model: ReadModel[Any], writer: "Connection[Any]", *, staged: bool):
        self.model = model
        # By the number of the UUID, which Python hashes many times faster.
        self.rows: dict[int, Any] = {}
        self.postponed: list[int] = []
        self._writer = writer
        self._staged = staged
        self._numbers = [(column, attrgetter(*group), Counter[Any]()) for column, group in model.numbering.items()]
        self._made_at: dict[int, int] = {}
        self._key_of, self._evolve = model.key_of, model.evolve

    def take(self, event: Any, position: int) -> None:
        key = self._key_of(event).int
        before = self.rows.get(key)
        after = self._evolve(before, event, position)
        if after is None:
            self.postponed.append(position)
        elif after is not before:
            self.rows[key] = after
            if before is None and self.model.numbering and self.model.is_numbered(after):
                self._number(key, after, position)

    def write_older(self) -> None:
        if len(self.rows) > 2 * WAITING:
            self.write(len(self.rows) - WAITING)

    def write(self, count: int) -> None:
        """The oldest rows."""
        if not count:
            return
        keys = list(islice(self.rows, count))
        columns = [*self.model.columns, "numbered_at"] if self._staged else self.model.columns
        types = self._types()
        values_of = attrgetter(*self.model.columns)
        documents = [place for place, name in enumerate(types) if name == "jsonb"]
        target = shadow.staging(self.model) if self._staged else sql.Identifier(shadow.REBUILD, self.model.name)
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            target, sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self._writer.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([*types, "int8"] if self._staged else types)
            for key in keys:
                values = list(values_of(self.rows.pop(key)))
                for place in documents:
                    values[place] = None if values[place] is None else Jsonb(values[place], msgspec.json.encode)
                if self._staged:
                    values.append(self._made_at.pop(key, None))
                copy.write_row(values)

    def _number(self, key: int, row: Any, position: int) -> None:
        if self._staged:
            self._made_at[key] = position
            return
        for column, group_of, numbers in self._numbers:
            group = group_of(row)
            numbers[group] = number = numbers[group] + 1
            setattr(row, column, number)

    def _types(self) -> list[str]:
        rows = self._writer.execute(
            "SELECT format_type(atttypid, NULL) FROM unnest(%s::text[]) WITH ORDINALITY AS c (name, place)"
            " JOIN pg_attribute ON attname = c.name AND attrelid = %s::regclass ORDER BY c.place",
            (self.model.columns, f"{shadow.REBUILD}.{self.model.name}"),
        ).fetchall()
        return [row[0] for row in rows]
