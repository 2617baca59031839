"""The tables of a rebuild: made beside the live ones, compared with them, put in their place, put back."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Connection, sql

from projections.read_model import ReadModel
from projections.slots import Connect

REBUILD = "rebuild"
PREVIOUS = "previous"


@dataclass(frozen=True)
class Contents:
    """`digest` is equal for equal rows, whatever their order on disk."""

    rows: int
    digest: str


def live_schema(connection: "Connection[Any]") -> str:
    row = connection.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return str(row[0])


def turn_to_shadows(connection: "Connection[Any]", live: str) -> None:
    """From here on the names of read models mean their shadows on this connection."""
    connection.execute(sql.SQL("SET search_path = {}, {}").format(sql.Identifier(REBUILD), sql.Identifier(live)))


def create(connection: "Connection[Any]", live: str, model: ReadModel[Any]) -> None:
    """Empty and without indexes, which are made faster after the load."""
    drop(connection, model)
    statement = "CREATE TABLE {shadow} (LIKE {live} INCLUDING ALL EXCLUDING INDEXES)"
    connection.execute(sql.SQL(statement).format(shadow=_table(REBUILD, model), live=_table(live, model)))


def create_indexes(connect: Connect, live: str, model: ReadModel[Any], workers: int) -> None:
    """Those of the live table under their own names, so that after a swap nothing differs; several at a time."""
    with connect() as connection:
        table = _table(live, model).as_string(connection)
        indexes = connection.execute(
            "SELECT replace(pg_get_indexdef(indexrelid), format(' ON %%I.%%I ', %(live)s::text, %(name)s::text),"
            " format(' ON %%I.%%I ', %(shadow)s::text, %(name)s::text)) FROM pg_index"
            " WHERE indrelid = %(table)s::regclass ORDER BY indexrelid",
            {"live": live, "shadow": REBUILD, "name": model.name, "table": table},
        ).fetchall()
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(lambda index: _execute(connect, index[0]), indexes))
        constraints = connection.execute(
            "SELECT conname, contype = 'p' FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u')",
            [table],
        ).fetchall()
        for name, is_primary in constraints:
            statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {} USING INDEX {}").format(
                _table(REBUILD, model),
                sql.Identifier(name),
                sql.SQL("PRIMARY KEY" if is_primary else "UNIQUE"),
                sql.Identifier(name),
            )
            connection.execute(statement)
        connection.execute(sql.SQL("ANALYZE {}").format(_table(REBUILD, model)))


def contents(connection: "Connection[Any]", schema: str, model: ReadModel[Any]) -> Contents:
    """Of the columns that the read model's code writes. A sum of hashes needs no sorting and knows no order."""
    statement = sql.SQL(
        "SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0)::text FROM {table}"
    ).format(columns=sql.SQL(", ").join(map(sql.Identifier, model.columns)), table=_table(schema, model))
    row = connection.execute(statement).fetchone()
    assert row is not None
    return Contents(*row)


def swap(connection: "Connection[Any]", live: str, model: ReadModel[Any]) -> None:
    """Inside the caller's transaction. The old table stays as the previous one."""
    _move(connection, live, PREVIOUS, model.name)
    _move(connection, REBUILD, live, model.name)


def swap_back(connection: "Connection[Any]", live: str, name: str) -> None:
    """Inside the caller's transaction: the live table and the previous one change places."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(REBUILD, name)))
    _move(connection, live, REBUILD, name)
    _move(connection, PREVIOUS, live, name)
    _move(connection, REBUILD, PREVIOUS, name)


def has_previous(connection: "Connection[Any]", name: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = %s AND tablename = %s)", (PREVIOUS, name)
    ).fetchone()
    return bool(row and row[0])


def drop(connection: "Connection[Any]", model: ReadModel[Any]) -> None:
    """What a rebuild left that was interrupted."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_table(REBUILD, model)))


def drop_previous(connection: "Connection[Any]", model: ReadModel[Any]) -> None:
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_table(PREVIOUS, model)))


def _move(connection: "Connection[Any]", source: str, target: str, name: str) -> None:
    statement = sql.SQL("ALTER TABLE {} SET SCHEMA {}")
    connection.execute(statement.format(sql.Identifier(source, name), sql.Identifier(target)))


def _table(schema: str, model: ReadModel[Any]) -> sql.Identifier:
    return sql.Identifier(schema, model.name)


def _execute(connect: Connect, statement: LiteralString) -> None:
    with connect() as connection:
        connection.execute(statement)
