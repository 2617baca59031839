"""The tables of a rebuild: made beside the live ones, compared with them, put in their place, put back."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Connection, sql

from projections.read_model import ReadModel

REBUILD = "rebuild"
PREVIOUS = "previous"

# Of a value and a seed: half as costly as making a record of it, whose hash is right for every type.
_HASH: dict[str, LiteralString] = {
    "bigint": "hashint8extended({}, {})",
    "jsonb": "hashtextextended({}::text, {})",  # as text, for 1.0 and 1.00 are equal as jsonb
    "text": "hashtextextended({}, {})",
    "uuid": "uuid_hash_extended({}, {})",
}


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


def index(connections: Sequence["Connection[Any]"], live: str, read_models: Sequence[ReadModel[Any]]) -> None:
    """As the live tables are, under the same names, so that after a swap nothing differs; with statistics. Each
    connection takes the next statement when it has done its own."""
    statements = [_analyze(connections[0], live, model) for model in read_models]
    statements += [each for model in read_models for each in _indexes(connections[0], live, model)]
    # Of the largest table, which is the last one, first; the statistics, which wait for a table's indexes, at the end.
    waiting = reversed(statements)
    with ThreadPoolExecutor(len(connections)) as threads:
        list(threads.map(lambda connection: _execute(connection, waiting), connections))
    for model in read_models:
        _constrain(connections[0], live, model)


def contents(connection: "Connection[Any]", schema: str, model: ReadModel[Any]) -> Contents:
    """Of the columns that the read model's code writes. A sum of hashes needs no sorting and knows no order."""
    hashes, others = [], []
    for place, (name, kind) in enumerate(column_types(connection, schema, model).items()):
        column = sql.Identifier(name)
        if kind in _HASH:
            # With seeds of their own, values that change places change the sum.
            hashes.append(sql.SQL("coalesce({}, 0)").format(sql.SQL(_HASH[kind]).format(column, sql.Literal(place))))
        else:
            others.append(column)
    rest = sql.SQL("hash_record_extended(ROW({}), 0)").format(sql.SQL(", ").join(others))
    statement = sql.SQL("SELECT count(*), coalesce(sum({digest}), 0)::text FROM {table}")
    row = connection.execute(
        statement.format(digest=sql.SQL(" # ").join([*hashes, rest]), table=_table(schema, model))
    ).fetchone()
    assert row is not None
    return Contents(*row)


def column_types(connection: "Connection[Any]", schema: str, model: ReadModel[Any]) -> dict[str, str]:
    """By column, in the order of the read model's code."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM unnest(%s::text[]) WITH ORDINALITY AS c (name, place)"
        " JOIN pg_attribute ON attname = c.name AND attrelid = %s::regclass ORDER BY c.place",
        (model.columns, _table(schema, model).as_string(connection)),
    ).fetchall()
    return dict(rows)


def swap(connection: "Connection[Any]", live: str, model: ReadModel[Any]) -> None:
    """Inside the caller's transaction. The old table stays as the previous one."""
    move(connection, live, PREVIOUS, model.name)
    move(connection, REBUILD, live, model.name)


def swap_back(connection: "Connection[Any]", live: str, name: str) -> None:
    """Inside the caller's transaction: the live table and the previous one change places."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(REBUILD, name)))
    move(connection, live, REBUILD, name)
    move(connection, PREVIOUS, live, name)
    move(connection, REBUILD, PREVIOUS, name)


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


def _indexes(connection: "Connection[Any]", live: str, model: ReadModel[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT replace(pg_get_indexdef(indexrelid), format(' ON %%I.%%I ', %(live)s::text, %(name)s::text),"
        " format(' ON %%I.%%I ', %(shadow)s::text, %(name)s::text)) FROM pg_index"
        " WHERE indrelid = %(table)s::regclass ORDER BY indexrelid",
        {"live": live, "shadow": REBUILD, "name": model.name, "table": _table(live, model).as_string(connection)},
    ).fetchall()
    return [row[0] for row in rows]


def _constrain(connection: "Connection[Any]", live: str, model: ReadModel[Any]) -> None:
    constraints = connection.execute(
        "SELECT conname, contype = 'p' FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u')",
        [_table(live, model).as_string(connection)],
    ).fetchall()
    for name, is_primary in constraints:
        kind = sql.SQL("PRIMARY KEY" if is_primary else "UNIQUE")
        statement = sql.SQL("ALTER TABLE {table} ADD CONSTRAINT {name} {kind} USING INDEX {name}")
        connection.execute(statement.format(table=_table(REBUILD, model), name=sql.Identifier(name), kind=kind))


def _analyze(connection: "Connection[Any]", live: str, model: ReadModel[Any]) -> str:
    """Of what the indexes are about: all else takes longer than the indexes, and autovacuum, which this does not count
    for, comes to it."""
    indexed = connection.execute(
        "SELECT DISTINCT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)"
        " WHERE indrelid = %s::regclass ORDER BY attname",
        [_table(live, model).as_string(connection)],
    ).fetchall()
    columns = sql.SQL(", ").join(sql.Identifier(row[0]) for row in indexed)
    return sql.SQL("ANALYZE {} ({})").format(_table(REBUILD, model), columns).as_string(connection)


def move(connection: "Connection[Any]", source: str, target: str, name: str) -> None:
    statement = sql.SQL("ALTER TABLE {} SET SCHEMA {}")
    connection.execute(statement.format(sql.Identifier(source, name), sql.Identifier(target)))


def _table(schema: str, model: ReadModel[Any]) -> sql.Identifier:
    return sql.Identifier(schema, model.name)


def _execute(connection: "Connection[Any]", statements: Iterator[str]) -> None:
    for statement in statements:
        connection.execute(statement.encode())
