"""What was answered to requests that may be repeated, for a day."""

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from application.context import IdempotencyKey

KEPT = "interval '24 hours'"


@dataclass(frozen=True)
class Asked:
    """An earlier request: `position` is that of the last event before its own, None if it recorded nothing, `events`
    how many it recorded there; `answer` is None while it is handled, or for ever if its process was killed; `age_s` in
    seconds."""

    request_hash: bytes
    position: int | None
    events: int | None
    answer: Any
    age_s: float


async def earlier_request(connection: "AsyncConnection[Any]", key: IdempotencyKey) -> Asked | None:
    """None when there was none within a day; an older one is forgotten."""
    await connection.execute(
        f"DELETE FROM idempotency_keys WHERE caller = %s AND key = %s AND created_at < now() - {KEPT}",
        (key.caller, key.key),
    )
    async with connection.cursor(row_factory=class_row(Asked)) as cursor:
        await cursor.execute(
            "SELECT request_hash, position, events, answer, extract(epoch FROM now() - created_at)::float8 AS age_s"
            " FROM idempotency_keys WHERE caller = %s AND key = %s",
            (key.caller, key.key),
        )
        return await cursor.fetchone()


async def remember_answer(connection: "AsyncConnection[Any]", key: IdempotencyKey, answer: bytes) -> None:
    """Beside the row that the request's events were recorded with, or in one of its own if there were none."""
    await connection.execute(
        "INSERT INTO idempotency_keys (caller, key, request_hash, answer) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (caller, key) DO UPDATE SET answer = excluded.answer"
        " WHERE idempotency_keys.request_hash = excluded.request_hash",
        (key.caller, key.key, key.request_hash, answer.decode()),
    )


async def forget_request(connection: "AsyncConnection[Any]", key: IdempotencyKey) -> None:
    """One that failed, and may be done again."""
    await connection.execute(
        "DELETE FROM idempotency_keys WHERE caller = %s AND key = %s AND answer IS NULL", (key.caller, key.key)
    )


async def age_request(connection: "AsyncConnection[Any]", key: IdempotencyKey, seconds: int) -> None:
    """One that failed is no more at work than one that is so old."""
    await connection.execute(
        "UPDATE idempotency_keys SET created_at = created_at - make_interval(secs => %s)"
        " WHERE caller = %s AND key = %s AND answer IS NULL",
        (seconds, key.caller, key.key),
    )


def forget_old_requests(connection: "Connection[Any]") -> int:
    """How many were older than a day."""
    return connection.execute(f"DELETE FROM idempotency_keys WHERE created_at < now() - {KEPT}").rowcount
