"""A read model that says where events are, not what they amount to: the server itself fills it from the log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection, sql

from application.publisher import Recorded
from domain.catalogue import EVENTS
from projections.read_model import ReadModel, Row


def _nothing(row: Any, event: Any, position: int) -> None:
    """No event is folded."""


@dataclass(frozen=True)
class LogIndex(ReadModel[Row]):
    """`select` gives the columns of `row` for the events after one position up to another (`%s`, `%s`)."""

    events: Sequence[type[Any]] = tuple(EVENTS.values())
    evolve: Callable[[Row | None, Any, int], Row | None] = _nothing
    key_of: Callable[[Any], UUID] = _nothing  # type: ignore[assignment]
    select: LiteralString = ""

    def apply(self, connection: Connection[Any], batch: Sequence[Recorded]) -> None:
        """A batch has no gaps: every event concerns it."""
        if batch:
            self.fill(connection, sql.Identifier(self.name), batch[0].position - 1, batch[-1].position)

    def fill(self, connection: Connection[Any], table: sql.Identifier, after: int, end: int) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        statement = sql.SQL("INSERT INTO {} ({}) " + self.select).format(table, columns)
        connection.execute(statement, (after, end))
