"""All read models as they were at a position of the log, in a schema of their own."""

from collections.abc import Callable, Sequence
from typing import Any

from psycopg import Connection, sql

from projections import shadow
from projections.loading import Decode
from projections.read_model import ReadModel
from projections.rebuild import Progress, Shadow, rebuilding
from projections.slots import Connect

PREFIX = "replay_"


def replay(
    connect: Connect,
    decode: Decode,
    read_models: Sequence[ReadModel[Any]],
    position: int,
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> str:
    """The schema's name. Made as a rebuild makes its tables, and in its turn: raises RebuildRunning. What an
    interrupted one leaves, the next rebuild removes."""
    with rebuilding(connect, decode, workers, progress) as work:
        work.fill([Shadow(model, position, comparable=False) for model in read_models])
        with work.connection.transaction():
            schema = _new_schema(work.connection, position)
            for model in read_models:
                shadow.move(work.connection, shadow.REBUILD, schema, model.name)
    return schema


def ask(connection: "Connection[Any]", schema: str, query: str) -> list[dict[str, Any]]:
    """Rows of the read models as they were then; nothing can be written."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        live = shadow.live_schema(connection)
        cursor.execute(sql.SQL("SET LOCAL search_path = {}, {}").format(sql.Identifier(schema), sql.Identifier(live)))
        cursor.execute(query.encode())
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in (cursor.fetchall() if names else ())]


def replays(connection: "Connection[Any]") -> list[str]:
    """The schemas that are kept."""
    rows = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname ~ %s ORDER BY nspname", [f"^{PREFIX}[0-9]+(_[0-9]+)?$"]
    )
    return [row[0] for row in rows]


def drop(connection: "Connection[Any]", schema: str) -> None:
    """Raises ValueError for one that is no replay."""
    if schema not in replays(connection):
        raise ValueError(f"There is no replay {schema}")
    connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def _new_schema(connection: "Connection[Any]", position: int) -> str:
    kept = replays(connection)
    numbers = (f"{PREFIX}{position}{f'_{number}' if number else ''}" for number in range(len(kept) + 1))
    schema = next(name for name in numbers if name not in kept)
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    return schema
