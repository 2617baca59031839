"""When each API key was last used: no event, since it proves nothing and would outnumber all that does."""

from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

# The last to come may be of the earlier use.
_NOTE = """
INSERT INTO api_key_uses AS u (key_id, last_used_at) SELECT key_id, now() FROM unnest(%s::uuid[]) AS used (key_id)
ORDER BY key_id
ON CONFLICT (key_id) DO UPDATE SET last_used_at = greatest(u.last_used_at, excluded.last_used_at)
"""


async def note_uses(connection: "AsyncConnection[Any]", key_ids: list[UUID]) -> None:
    await connection.execute(_NOTE, [key_ids])
