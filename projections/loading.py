"""The bulk load of a rebuild: folds ranges of the log in memory and writes each row once, by COPY."""

import gc
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from math import ceil
from operator import attrgetter
from typing import Any, get_args, get_type_hints
from uuid import UUID

import msgspec
from eventsourcing.domain import AggregateEvent
from psycopg import Connection, sql
from psycopg.types.json import JsonbBinaryDumper

from domain.catalogue import EVENTS
from projections import shadow
from projections.log_index import LogIndex
from projections.read_model import Group, ReadModel
from projections.slots import Connect

Decode = Callable[[str], Callable[[UUID, int, bytes], AggregateEvent]]
"""By its topic, what makes an event of its stream's id, its version and what is stored of it. Raises ValueError."""

# A row is written when this many younger ones wait, a command's events being minutes apart.
WAITING = 40_000
# At most: the rows of a whole range wait, and those that events of the next one change are read again.
RANGE = 150_000
CHUNK = 1_000

Counts = list[list["Counter[Any]"]]
"""How many rows were numbered: of each read model, of each of its numbered columns, by group."""


@dataclass(frozen=True)
class Share:
    """Which ranges of the events up to a position: all, or each `workers`-th from `number` on. All get as many."""

    end: int
    number: int = 0
    workers: int = 1

    def ranges(self) -> Iterator[tuple[int, int]]:
        turns = ceil(self.end / (self.workers * RANGE))
        size = ceil(self.end / (self.workers * turns)) if turns else RANGE
        for begin in range(self.number * size, self.end, self.workers * size):
            yield begin, min(begin + size, self.end)


def load(
    connect: Connect,
    decode: Decode,
    read_models: Sequence[ReadModel[Any]],
    share: Share,
    report: Callable[[int], None],
    numbered_before: Callable[[Counts], Counts] | None = None,
) -> "Loaded":
    """Fills the shadows; `report` gets after each range how many events are done.

    Several workers each know the rows of one range only: `numbered_before` gets how many rows a range has numbered, and
    answers how many the ranges before it have.
    """
    indexes = [model for model in read_models if isinstance(model, LogIndex)]
    folded = [model for model in read_models if not isinstance(model, LogIndex)]
    done = 0
    with (
        connect() as connection,
        connect() if indexes else nullcontext(connection) as filler,
        ThreadPoolExecutor(1) as thread,
    ):
        connection.adapters.register_dumper(None, _Document)
        loads = [_Load(model, connection) for model in folded]
        plan = {
            topic: (decode(topic), [each.take for each in loads if event_class in each.model.events])
            for topic, event_class in EVENTS.items()
        }
        skipped = irrelevant_topics(folded)
        if 2 * len(skipped) < len(EVENTS):
            skipped = []  # to compare each topic with a few costs the server more than to send those events, too
        for begin, end in share.ranges():
            for each in loads:
                each.forget()
            # The server's work, while we fold.
            filled = [
                thread.submit(index.fill, filler, sql.Identifier(shadow.REBUILD, index.name), begin, end)
                for index in indexes
            ]
            with closing(_read(connection, begin, end, skipped)) as stored:  # or a failure leaves it to hold its lock
                _fold(stored, decode, plan)
            for each in loads:
                each.choose(keep=WAITING if numbered_before is None else 0)
            if numbered_before is not None:
                before = numbered_before([each.counts() for each in loads])
                for each, counts in zip(loads, before, strict=True):
                    each.numbered = counts
            for each in loads:
                each.write()
            for future in filled:
                future.result()
            done += end - begin
            report(done)
        for each in filter(_Load.waits, loads):
            each.choose(keep=0)
            each.write()
    return Loaded({index.name: [] for index in indexes} | {each.model.name: each.postponed for each in loads}, loads)


@dataclass
class Loaded:
    """`postponed` are, by read model, the positions of the events of rows that were written before, here or by another
    worker: to be applied one by one later. To take the last rows apart is as much work as to make them: who ends at
    once keeps them."""

    postponed: dict[str, list[int]]
    last: "list[_Load]"


def _fold(stored: Iterable[tuple[Any, ...]], decode: Decode, plan: Mapping[str, tuple[Any, Sequence[Any]]]) -> None:
    for position, topic, stream_id, version, state in stored:
        make, takers = plan.get(topic) or (decode(topic), [])  # which says so of a kind that nobody knows
        if takers:
            event = make(stream_id, version, state)
            for take in takers:
                take(event, position)


def irrelevant_topics(read_models: Sequence[ReadModel[Any]]) -> list[str]:
    """The catalogued ones that concern none of the read models. A topic that nobody knows must not be passed over."""
    relevant = {event_class for model in read_models for event_class in model.events}
    return [topic for topic, event_class in EVENTS.items() if event_class not in relevant]


@contextmanager
def no_garbage() -> Iterator[None]:
    """Nothing here is circular, and searching the waiting rows for it takes as long as folding them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(
    connection: "Connection[Any]", begin: int, end: int, skipped: Sequence[str]
) -> Generator[tuple[Any, ...], None, None]:
    """Streamed, so that the server reads on while we fold; in ranges, so that no statement holds back a vacuum."""
    query = (
        "SELECT position, topic, stream_id, version, state FROM events"
        " WHERE position > %s AND position <= %s AND topic <> ALL(%s) ORDER BY position"
    )
    rows = connection.cursor(binary=True).stream(query, (begin, end, list(skipped)), size=CHUNK)
    assert isinstance(rows, Generator)
    return rows


class _Document(JsonbBinaryDumper):
    """Half as costly as psycopg's own, which first asks what it was given and how to write it."""

    def dump(self, obj: Any) -> bytes:
        return b"\1" + msgspec.json.encode(obj)


class _Load:
    """One read model's rows that are not written yet, in the order they were made; `numbered` counts those that are, of
    each numbered column, by group."""

    def __init__(self, model: ReadModel[Any], connection: "Connection[Any]"):
        self.model = model
        self.postponed: list[int] = []
        self.numbered: list[Counter[Any]] = [Counter() for _ in model.numbering]
        # By the number of the UUID, which Python hashes many times faster.
        self._rows: dict[int, Any] = {}
        self._groups = [(column, _group_of(model, group)) for column, group in model.numbering.items()]
        self._connection = connection
        self._chosen: list[Any] = []
        self._to_number: list[Any] = []
        self._group_of_each: list[list[Any]] = []
        self.take = self._taker()

    def waits(self) -> bool:
        return bool(self._rows)

    def choose(self, keep: int) -> None:
        """What to write next: all rows but the youngest; or none as long as twice as many wait."""
        ready = len(self._rows) - keep if len(self._rows) > 2 * keep else 0
        self._chosen = list(islice(self._rows.values(), ready))
        if ready == len(self._rows):
            self._rows.clear()
        for key in list(islice(self._rows, ready)):
            del self._rows[key]
        self._to_number = list(filter(self.model.is_numbered, self._chosen))
        self._group_of_each = [list(map(group_of, self._to_number)) for _, group_of in self._groups]

    def counts(self) -> list["Counter[Any]"]:
        """How many of the chosen rows will be numbered."""
        return [Counter(groups) for groups in self._group_of_each]

    def write(self) -> None:
        if not self._chosen:
            return
        self._number()
        columns = sql.SQL(", ").join(map(sql.Identifier, self.model.columns))
        target = sql.Identifier(shadow.REBUILD, self.model.name)
        types = list(shadow.column_types(self._connection, shadow.REBUILD, self.model).values())
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, columns)
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for values in map(msgspec.structs.astuple, self._chosen):
                copy.write_row(values)

    def forget(self) -> None:
        """What is written."""
        self._chosen, self._to_number, self._group_of_each = [], [], []

    def _taker(self) -> Callable[[Any, int], None]:
        """What each event goes through, so everything it needs is at hand."""
        rows, postpone = self._rows, self.postponed.append
        key_of, evolve = self.model.key_of, self.model.evolve

        def take(event: Any, position: int) -> None:
            key = key_of(event).int
            before = rows.get(key)
            after = evolve(before, event, position)
            if after is None:
                postpone(position)
            elif after is not before:
                rows[key] = after

        return take

    def _number(self) -> None:
        for (column, _), groups, numbers in zip(self._groups, self._group_of_each, self.numbered, strict=True):
            for row, group in zip(self._to_number, groups, strict=True):
                numbers[group] = number = numbers[group] + 1
                setattr(row, column, number)


def _group_of(model: ReadModel[Any], group: Group) -> Callable[[Any], Any]:
    """With the numbers of UUIDs, again."""
    hints = get_type_hints(model.row)
    return attrgetter(*(f"{name}.int" if UUID in (hints[name], *get_args(hints[name])) else name for name in group))
