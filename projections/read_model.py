"""A read model: rows folded from events, a batch at a time; each key is read at most once and written once a batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic, LiteralString, TypeVar
from uuid import UUID

import msgspec
from psycopg import Connection, sql
from psycopg.rows import class_row, scalar_row

from application.publisher import Recorded

Row = TypeVar("Row", bound=msgspec.Struct)

Group = tuple[LiteralString, ...]


def every_row(row: Any) -> bool:  # noqa: ARG001 - the shape of `is_numbered`
    return True


@dataclass(frozen=True)
class ReadModel(Generic[Row]):
    """One table. `row` is a struct of its columns, `events` are the event classes that concern it, `key_of` gives
    the key of the row that such an event concerns. `evolve(row, event, position)` folds the event into the row, or
    makes the row from None, which one event does for each key, its first. It reads nothing else, so a rebuild gives
    the same rows. A change of what it makes raises `version`.

    `numbering` numbers new rows densely, 1, 2, 3 …, within the group of columns that each names: so totals and deep
    pages cost no more than the first. What is not `is_numbered` keeps the number that it was made with.

    A rebuild folds in other processes, so the functions are a module's own, not lambdas.
    """

    name: LiteralString
    row: type[Row]
    events: Sequence[type[Any]]
    evolve: Callable[[Row | None, Any, int], Row | None]
    key: LiteralString = "id"
    key_of: Callable[[Any], UUID] = attrgetter("originator_id")
    version: int = 1
    numbering: Mapping[LiteralString, Group] = field(default_factory=dict)
    is_numbered: Callable[[Row], bool] = every_row

    def concerns(self, event: Any) -> bool:
        return type(event) in self._classes

    def apply(self, connection: Connection[Any], batch: Sequence[Recorded]) -> None:
        """Folds the events of a batch, in order, into the table that the search path names."""
        made: dict[UUID, Row] = {}
        of_older: list[tuple[UUID, Recorded]] = []
        for recorded in batch:
            if type(recorded.event) in self._classes:
                key = self.key_of(recorded.event)
                row = self.evolve(made.get(key), recorded.event, recorded.position)
                if row is None:
                    of_older.append((key, recorded))
                else:
                    made[key] = row
        if of_older:
            self._update(connection, self._fold_older(connection, of_older))
        if made:
            self._number(connection, [row for row in made.values() if self.is_numbered(row)])
            self._insert(connection, made.values())

    @cached_property
    def columns(self) -> list[str]:
        return list(self.row.__struct_fields__)

    @cached_property
    def _classes(self) -> frozenset[type[Any]]:
        return frozenset(self.events)

    def _fold_older(self, connection: Connection[Any], events: Sequence[tuple[UUID, Recorded]]) -> Iterable[Row]:
        with connection.cursor(row_factory=class_row(self.row), binary=True) as cursor:
            found = cursor.execute(self._select, [list({key for key, _ in events})], prepare=True).fetchall()
        rows: dict[UUID, Row] = {getattr(row, self.key): row for row in found}
        for key, recorded in events:
            before = rows.get(key)
            if before is not None:
                rows[key] = self.evolve(before, recorded.event, recorded.position) or before
        return rows.values()

    def _number(self, connection: Connection[Any], rows: Sequence[Row]) -> None:
        for column, group in self.numbering.items():
            group_of = attrgetter(*group)
            groups: dict[Any, list[Row]] = {}
            for row in rows:
                groups.setdefault(group_of(row), []).append(row)
            firsts = [{name: getattr(of_group[0], name) for name in group} for of_group in groups.values()]
            lasts = self._last_numbers(connection, column, firsts)
            for of_group, last in zip(groups.values(), lasts, strict=True):
                for number, row in enumerate(of_group, last + 1):
                    setattr(row, column, number)

    def _last_numbers(
        self, connection: Connection[Any], column: str, groups: Sequence[Mapping[LiteralString, Any]]
    ) -> list[int]:
        """Of each group, 0 where it has no row yet."""
        with connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(self._select_last[column], [_json(groups)], prepare=True).fetchall()

    def _insert(self, connection: Connection[Any], rows: Iterable[Row]) -> None:
        connection.execute(self._insert_rows, [_json(list(rows))], prepare=True)

    def _update(self, connection: Connection[Any], rows: Iterable[Row]) -> None:
        changed = list(rows)
        if changed:
            connection.execute(self._update_rows, [_json(changed)], prepare=True)

    @cached_property
    def _select(self) -> bytes:
        return self._statement("SELECT {columns} FROM {table} WHERE {key} = ANY(%b)")

    @cached_property
    def _select_last(self) -> dict[LiteralString, bytes]:
        """By numbered column."""
        return {
            column: self._statement(
                "SELECT coalesce((SELECT max({column}) FROM {table} t WHERE {is_group}), 0)"
                " FROM json_populate_recordset(NULL::{table}, %s) g",
                column=sql.Identifier(column),
                is_group=sql.SQL(" AND ").join(sql.SQL("t.{0} = g.{0}").format(sql.Identifier(name)) for name in group),
            )
            for column, group in self.numbering.items()
        }

    @cached_property
    def _insert_rows(self) -> bytes:
        return self._statement(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM json_populate_recordset(NULL::{table}, %s)"
        )

    @cached_property
    def _update_rows(self) -> bytes:
        return self._statement(
            "UPDATE {table} t SET {changes} FROM json_populate_recordset(NULL::{table}, %s) n WHERE t.{key} = n.{key}",
            changes=sql.SQL(", ").join(
                sql.SQL("{0} = n.{0}").format(sql.Identifier(name)) for name in self.columns if name != self.key
            ),
        )

    def _statement(self, text: LiteralString, **more: sql.Composable) -> bytes:
        """Composed once: psycopg would do it at every execution."""
        return sql.SQL(text).format(
            table=sql.Identifier(self.name),
            key=sql.Identifier(self.key),
            columns=sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            **more,
        ).as_bytes()  # fmt: skip


def _json(rows: Sequence[Any]) -> str:
    """The server turns JSON into rows of whatever types the table's columns have."""
    return msgspec.json.encode(rows).decode()
