"""What callers have spent of their rate limits over all processes: a row of each budget and its running window."""

from typing import Any, NamedTuple

from psycopg import AsyncConnection


class Spent(NamedTuple):
    """Of one budget: calls by all processes in its window, and the seconds until that ends."""

    key: str
    calls: int
    left_s: float


# By the database's clock, so that the processes' own may differ. In one order, so that no two wait for each other.
_SETTLE = """
INSERT INTO rate_budgets AS b (key, spent, ends_at)
SELECT key, calls, clock_timestamp() + left_s * interval '1 second'
FROM unnest(%s::text[], %s::integer[], %s::float8[]) AS given (key, calls, left_s) ORDER BY key
ON CONFLICT (key) DO UPDATE SET
    spent = excluded.spent + CASE WHEN b.ends_at > clock_timestamp() THEN b.spent ELSE 0 END,
    ends_at = CASE WHEN b.ends_at > clock_timestamp() THEN b.ends_at ELSE excluded.ends_at END
RETURNING key, spent, extract(epoch FROM ends_at - clock_timestamp())::float8
"""
_FORGET = "DELETE FROM rate_budgets WHERE ends_at < now() - interval '1 minute'"


async def settle(connection: "AsyncConnection[Any]", fresh: list[Spent]) -> list[Spent]:
    """Adds each budget's fresh calls to its running window, or to a new one that ends in `left_s`."""
    cursor = await connection.execute(_SETTLE, [list(column) for column in zip(*fresh, strict=True)])
    return [Spent(*row) for row in await cursor.fetchall()]


async def forget_ended(connection: "AsyncConnection[Any]") -> None:
    await connection.execute(_FORGET)
