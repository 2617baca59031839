"""Pages of an organisation's audit log, at the end of a million events and deep in them."""

import asyncio
import statistics
import time
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql

from projections.audit_log import AUDIT_LOG, AuditFilter, audit_page_async
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare

EVENTS = 1_000_000
LIMIT = 100
ORGANISATION = UUID("55555555-5555-4555-8555-555555555555")


@benchmark("audit_page", Goal(1.5, 1.1, lower=True), "ms, p50")
def audit_page(bench: Bench) -> Result:
    """The page before the organisation's 1 000th event beside its first page."""
    with bench.database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO events (position, stream_id, version, topic, state, event_id, metadata, recorded_at)"
                " SELECT n, gen_random_uuid(), 1, 'plant:created', convert_to(%s, 'UTF8'), gen_random_uuid(),"
                ' \'{"actor": "scheduler", "source": "scheduler", "request_id": "r"}\', now()'
                " FROM generate_series(1, %s) n",
                (f'{{"organization_id": "{ORGANISATION}"}}', EVENTS),
            )
            AUDIT_LOG.fill(connection, sql.Identifier(AUDIT_LOG.name), 0, EVENTS)
            connection.execute("VACUUM ANALYZE events, audit_log")
        return compare(lambda: asyncio.run(_page_ms(url, 1_000)), lambda: asyncio.run(_page_ms(url, None)))


async def _page_ms(url: str, before: int | None) -> float:
    times = []
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(100):
            begin = time.perf_counter()
            found = await audit_page_async(connection, AuditFilter(ORGANISATION, before=before), LIMIT)
            times.append((time.perf_counter() - begin) * 1000)
            assert len(found.data) == LIMIT
    return statistics.median(times)
