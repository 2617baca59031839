"""What is kept of an organisation beside the event log and its read models, for it to be forgotten."""

from typing import Any
from uuid import UUID

from psycopg import Connection


def forget_traces(connection: "Connection[Any]", organization_id: UUID) -> None:
    """Answers under an Idempotency-Key, turns to sync, last uses of keys, and spent budgets."""
    given = {"id": organization_id, "name": str(organization_id)}
    with connection.transaction():
        connection.execute("DELETE FROM idempotency_keys WHERE caller LIKE %(name)s || ':%%'", given)
        connection.execute("DELETE FROM sync_turns WHERE organization_id = %(id)s", given)
        connection.execute(
            "DELETE FROM api_key_uses WHERE key_id IN (SELECT id FROM api_keys WHERE organization_id = %(id)s)", given
        )
        connection.execute(
            "DELETE FROM rate_budgets WHERE key LIKE '%%/' || %(name)s OR key IN"
            " (SELECT kind || '/key:' || id FROM api_keys, unnest('{reads,writes,syncs}'::text[]) kind"
            "  WHERE organization_id = %(id)s)",
            given,
        )
