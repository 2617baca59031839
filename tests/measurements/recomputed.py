"""What the derived tables must hold, computed anew from the raw rows: the roll-ups of telemetry and its last values."""

from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Composable, Identifier

from projections.samples import each

SUMS = SQL("{}, {}").format(each("coalesce(sum(@), 0)"), each("count(@)"))
EXTREMES = SQL("{}, {}").format(each("min(@)"), each("max(@)"))
STORED_SUMS = SQL("{}, {}").format(each("@_sum"), each("@_count"))
STORED_EXTREMES = SQL("{}, {}").format(each("@_min"), each("@_max"))

TELEMETRY = Identifier("telemetry")
ROLLED_UP = SQL("SELECT plant_id, date_bin({width}, time, '1970-01-01Z'), {values} FROM {table} GROUP BY 1, 2")
LAST = SQL("SELECT DISTINCT ON (plant_id) plant_id, time, {fields} FROM telemetry ORDER BY plant_id, time DESC")


def differences(connection: Connection[Any]) -> dict[str, int]:
    """Rows that are in one and not in the other, by table. Exact, so the values must be such that sums of them are."""
    fields = each("@")
    both = SQL("{}, {}")
    expected: dict[str, tuple[Composable, Composable]] = {
        "telemetry_1m": (
            SQL("plant_id, bucket, {}").format(both.format(STORED_SUMS, STORED_EXTREMES)),
            ROLLED_UP.format(table=TELEMETRY, width="1 minute", values=both.format(SUMS, EXTREMES)),
        ),
        "telemetry_5m": (
            SQL("plant_id, bucket, {}").format(STORED_SUMS),
            ROLLED_UP.format(table=TELEMETRY, width="5 minutes", values=SUMS),
        ),
        "telemetry_latest": (SQL("plant_id, time, {}").format(fields), LAST.format(fields=fields)),
    }
    return {table: _differing(connection, table, *each) for table, each in expected.items()}


def _differing(connection: Connection[Any], table: str, columns: Composable, expected: Composable) -> int:
    statement = SQL(
        "WITH stored AS (SELECT {columns} FROM {table}), expected AS ({expected})"
        " SELECT (SELECT count(*) FROM (TABLE stored EXCEPT ALL TABLE expected) a)"
        " + (SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE stored) b)"
    ).format(columns=columns, table=Identifier(table), expected=expected)
    row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])
