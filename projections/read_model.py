"""A read model: rows folded from events, a batch at a time; each key is read once and written once a batch."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, LiteralString, TypeVar
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from application.publisher import Recorded

Row = TypeVar("Row", bound=BaseModel)
Numbered = Callable[[Any], tuple[Any, ...] | None]


@dataclass(frozen=True)
class ReadModel(Generic[Row]):
    """One table. `key_of` gives the key of the row that an event concerns, None if it concerns none; `evolve` folds an
    event into that row, or makes the row from None. Neither reads anything else, so a rebuild gives the same rows.

    `numbering` numbers new rows densely, 1, 2, 3 …, within the group of columns that each names: so totals and deep
    pages cost no more than the first. A column whose group function gives None stays null.
    """

    name: LiteralString
    row: type[Row]
    key: LiteralString
    key_of: Callable[[Any], UUID | None]
    evolve: Callable[[Row | None, Recorded], Row | None]
    version: int = 1
    numbering: Mapping[str, tuple[LiteralString, ...]] = field(default_factory=dict)
    is_numbered: Callable[[Row], bool] = lambda row: True

    def apply(self, connection: Connection[Any], batch: Sequence[Recorded]) -> None:
        """Folds the events of a batch, in order, into the table that the search path names."""
        concerned = [(key, recorded) for recorded in batch if (key := self.key_of(recorded.event)) is not None]
        if not concerned:
            return
        rows: dict[UUID, Row] = self._load(connection, list({key for key, _ in concerned}))
        new: list[Row] = []
        for key, recorded in concerned:
            before = rows.get(key)
            after = self.evolve(before, recorded)
            if after is not None:
                rows[key] = after
                if before is None:
                    new.append(after)
        self._number(connection, new)
        self._store(connection, list(rows.values()))

    def concerns(self, event: Any) -> bool:
        return self.key_of(event) is not None

    @property
    def columns(self) -> list[str]:
        return list(self.row.model_fields)

    def _load(self, connection: Connection[Any], keys: list[UUID]) -> dict[UUID, Row]:
        query = sql.SQL("SELECT {columns} FROM {table} WHERE {key} = ANY(%s)").format(
            columns=sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            table=sql.Identifier(self.name),
            key=sql.Identifier(self.key),
        )
        with connection.cursor(row_factory=kwargs_row(self.row.model_construct)) as cursor:
            return {getattr(row, self.key): row for row in cursor.execute(query, [keys])}

    def _number(self, connection: Connection[Any], new: Sequence[Row]) -> None:
        numbered = [row for row in new if self.is_numbered(row)]
        for column, group in self.numbering.items():
            members: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
            for row in numbered:
                members[tuple(getattr(row, name) for name in group)].append(row)
            for values, rows in members.items():
                last = self._last_number(connection, column, group, values)
                for number, row in enumerate(rows, last + 1):
                    setattr(row, column, number)

    def _last_number(
        self, connection: Connection[Any], column: str, group: Sequence[str], values: Sequence[Any]
    ) -> int:
        query = sql.SQL("SELECT {column} FROM {table} WHERE {group} ORDER BY {column} DESC LIMIT 1").format(
            column=sql.Identifier(column),
            table=sql.Identifier(self.name),
            group=sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in group)
            + sql.SQL(" AND {} IS NOT NULL").format(sql.Identifier(column)),
        )
        row = connection.execute(query, list(values)).fetchone()
        return int(row[0]) if row else 0

    def _store(self, connection: Connection[Any], rows: Sequence[Row]) -> None:
        columns = [sql.Identifier(name) for name in self.columns]
        statement = sql.SQL(
            "INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {changes}"
        ).format(
            table=sql.Identifier(self.name),
            columns=sql.SQL(", ").join(columns),
            values=sql.SQL(", ").join(sql.Placeholder() for _ in columns),
            key=sql.Identifier(self.key),
            changes=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in self.columns if name != self.key
            ),
        )
        with connection.cursor() as cursor:
            cursor.executemany(statement, [[_value(getattr(row, name)) for name in self.columns] for row in rows])


def _value(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict) else value
