"""The tables of a rebuild: made beside the live ones, compared with them, put in their place, put back."""

from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql

from projections.read_model import ReadModel

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


def create_staging(connection: "Connection[Any]", model: ReadModel[Any]) -> None:
    """Where several workers load rows that only all of them together can number."""
    statement = "CREATE UNLOGGED TABLE {staging} (LIKE {shadow}, numbered_at bigint)"
    connection.execute(sql.SQL(statement).format(staging=staging(model), shadow=_table(REBUILD, model)))
    # Unnumbered rows wait here for their numbers, however strict the table is.
    for column in model.numbering:
        drop_not_null = sql.SQL("ALTER TABLE {} ALTER {} DROP NOT NULL")
        connection.execute(drop_not_null.format(staging(model), sql.Identifier(column)))


def number(connection: "Connection[Any]", model: ReadModel[Any]) -> None:
    """Moves the staged rows into the shadow, numbered in the order of the events that made them."""
    numbered = "CASE WHEN numbered_at IS NULL THEN {0} ELSE row_number() OVER (PARTITION BY numbered_at IS NULL, {1}"
    values: list[sql.Composable] = []
    for name in model.columns:
        group = model.numbering.get(name)
        column = sql.Identifier(name)
        if group is None:
            values.append(column)
        else:
            columns = sql.SQL(", ").join(map(sql.Identifier, group))
            values.append(sql.SQL(numbered + " ORDER BY numbered_at) END").format(column, columns))
    connection.execute(
        sql.SQL("INSERT INTO {shadow} ({columns}) SELECT {values} FROM {staging}").format(
            shadow=_table(REBUILD, model),
            columns=sql.SQL(", ").join(map(sql.Identifier, model.columns)),
            values=sql.SQL(", ").join(values),
            staging=staging(model),
        )
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(staging(model)))


def create_indexes(connection: "Connection[Any]", live: str, model: ReadModel[Any]) -> None:
    """Those of the live table under their own names, so that after a swap nothing differs."""
    constraints = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = %s::regclass AND contype IN ('p', 'u', 'x') ORDER BY contype, conname",
        [_text(connection, live, model)],
    ).fetchall()
    for name, definition in constraints:
        statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} ").format(_table(REBUILD, model), sql.Identifier(name))
        connection.execute(statement + sql.SQL(definition))
    indexes = connection.execute(
        "SELECT replace(pg_get_indexdef(indexrelid), format(' ON %%I.%%I ', %(live)s::text, %(name)s::text),"
        " format(' ON %%I.%%I ', %(shadow)s::text, %(name)s::text)) FROM pg_index WHERE indrelid = %(table)s::regclass"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid) ORDER BY indexrelid",
        {"live": live, "shadow": REBUILD, "name": model.name, "table": _text(connection, live, model)},
    ).fetchall()
    for (definition,) in indexes:
        connection.execute(definition)
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
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}, {}").format(_table(REBUILD, model), staging(model)))


def drop_previous(connection: "Connection[Any]", model: ReadModel[Any]) -> None:
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_table(PREVIOUS, model)))


def staging(model: ReadModel[Any]) -> sql.Identifier:
    return sql.Identifier(REBUILD, f"{model.name}_staging")


def _move(connection: "Connection[Any]", source: str, target: str, name: str) -> None:
    statement = sql.SQL("ALTER TABLE {} SET SCHEMA {}")
    connection.execute(statement.format(sql.Identifier(source, name), sql.Identifier(target)))


def _table(schema: str, model: ReadModel[Any]) -> sql.Identifier:
    return sql.Identifier(schema, model.name)


def _text(connection: "Connection[Any]", schema: str, model: ReadModel[Any]) -> str:
    return _table(schema, model).as_string(connection)
