"""The database: reached, new enough, ours to write, durable, migrated, on time, with partitions ahead and a worker."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import Connection

from infra.bootstrap import QUERY_CONNECTIONS, SYNCS, THREADS, Where
from infra.data_keys import DataKeys
from infra.doctor.finding import Finding, fault, healthy, warning
from infra.operator_keys import WeakKey
from infra.postgres import connect
from projections import partitions, schema
from projections.follower import LOCK_CLASS
from projections.slots import slot_statuses
from projections.trading_configs import queue_prefixes

OLDEST = 150000
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
CLOCK_OFF_S = 2.0
FEWEST_DAYS_AHEAD = 2
LAG_EVENTS = 10_000
CONNECTIONS = THREADS + QUERY_CONNECTIONS + SYNCS + 1
"""Of one API process; a worker takes fewer."""

Look = Callable[["Connection[Any]"], Iterator[Finding]]


def enabled_prefixes(where: Where) -> list[str]:
    """Of the organisations that trade; none where the database does not tell."""
    with suppress(psycopg.Error), connect(where.database_url, "doctor") as connection:
        return [prefix for prefix, status in queue_prefixes(connection) if status == "ENABLED"]
    return []


def database_findings(where: Where) -> Iterator[Finding]:
    try:
        connection = connect(where.database_url, "doctor")
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        yield fault("database", f"PostgreSQL can't be reached: {said}", "Start it, or correct WATTLEDGER_DATABASE_URL")
        return
    with connection:
        yield healthy("database", "PostgreSQL answers")
        for look in (_version, _durability, _connections, _clock):
            yield from look(connection)
        migrated = _migrated(connection)
        yield migrated
        if migrated.verdict != "ok":
            return
        for look in (_rights, _partitions, _slots, _worker):
            yield from look(connection)
        yield _keys(connection, where)


def _version(connection: "Connection[Any]") -> Iterator[Finding]:
    version = connection.info.server_version
    text = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if version < OLDEST:
        yield fault("database version", text, "Upgrade to PostgreSQL 15 or later")
    else:
        yield healthy("database version", text)


def _durability(connection: "Connection[Any]") -> Iterator[Finding]:
    rows = connection.execute(
        "SELECT name, setting FROM pg_settings WHERE name = ANY(%s) AND setting = 'off' ORDER BY name",
        [list(DURABLE)],
    ).fetchall()
    if rows:
        found = ", ".join(f"{name} = {setting}" for name, setting in rows)
        yield fault("durability", found, "Turn it on: a crash of the server would lose events that were confirmed")
    else:
        yield healthy("durability", "what is committed is on disk")


def _connections(connection: "Connection[Any]") -> Iterator[Finding]:
    row = connection.execute(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,"
        " count(*) FILTER (WHERE application_name NOT LIKE 'wattledger%') FROM pg_stat_activity"
        " WHERE backend_type = 'client backend'"
    ).fetchone()
    assert row is not None
    free = row[0] - row[1]
    found = f"{free} connections for us; an API process takes up to {CONNECTIONS}"
    if free < CONNECTIONS:
        yield warning("connections", found, "Raise max_connections")
    else:
        yield healthy("connections", found)


def _clock(connection: "Connection[Any]") -> Iterator[Finding]:
    """Half of the round trip is the best guess of how old the answer is."""
    before = datetime.now(UTC)
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    after = datetime.now(UTC)
    assert row is not None
    off = (row[0] - before - (after - before) / 2).total_seconds()
    found = f"the database's clock is {off:+.1f} s from this machine's"
    if abs(off) > CLOCK_OFF_S:
        yield fault("clock", found, "Keep both on time (NTP): signatures, deadlines and buckets go by it")
    else:
        yield healthy("clock", found)


def _migrated(connection: "Connection[Any]") -> Finding:
    try:
        pending = schema.pending(connection)
    except (schema.SchemaError, psycopg.errors.InsufficientPrivilege) as error:
        return fault("schema", str(error), "Run the version of Wattledger that this database belongs to, as its owner")
    if pending:
        return fault("schema", f"not applied: {', '.join(pending)}", "Run `wattledger migrate`")
    return healthy("schema", "every migration is applied")


def _rights(connection: "Connection[Any]") -> Iterator[Finding]:
    """Partitions are made and read models swapped: that takes an owner, not only a writer."""
    row = connection.execute(
        "SELECT has_schema_privilege(current_schema(), 'CREATE'), coalesce((SELECT string_agg(relname, ', ' ORDER BY"
        " relname) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition AND NOT pg_has_role(relowner, 'USAGE')), ''), current_user, current_schema()"
    ).fetchone()
    assert row is not None
    creates, foreign, user, where = row
    if not creates:
        remedy = f"GRANT CREATE ON SCHEMA {where} TO {user}"
        yield fault("database rights", f"{user} may not create tables in {where}", remedy)
    elif foreign:
        yield fault("database rights", f"{user} does not own {foreign}", f"ALTER TABLE … OWNER TO {user}")
    else:
        yield healthy("database rights", f"{user} owns its tables")


def _partitions(connection: "Connection[Any]") -> Iterator[Finding]:
    last = partitions.horizon(connection)
    ahead = (last - datetime.now(UTC).date()).days if last else -1
    found = f"measurements have tables until {last}" if last else "measurements have no tables"
    if ahead < FEWEST_DAYS_AHEAD:
        yield warning("partitions", found, "Run `wattledger work`: it makes them a week ahead")
    else:
        yield healthy("partitions", found)


def _slots(connection: "Connection[Any]") -> Iterator[Finding]:
    slots = slot_statuses(connection)
    for slot in slots:
        if slot.parked_at is not None or slot.error:
            found = f"{slot.name} stopped at event {slot.parked_at}: {slot.error}"
            yield fault("slots", found, f"Mend the cause, then `wattledger projections resume {slot.name}`")
        elif slot.lag > LAG_EVENTS:
            found = f"{slot.name} is {slot.lag} events behind"
            yield warning("slots", found, "See that `wattledger work` runs and what it waits for")
    if all(slot.parked_at is None and slot.lag <= LAG_EVENTS for slot in slots):
        yield healthy("slots", f"{len(slots)} follow the log")


def _worker(connection: "Connection[Any]") -> Iterator[Finding]:
    """Whoever follows the log holds the projector's lock."""
    row = connection.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = "
        "(hashtext('projector')::bigint & 4294967295)::oid AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
        [LOCK_CLASS],
    ).fetchone()
    if row and row[0]:
        yield healthy("worker", "one follows the log")
    else:
        yield fault("worker", "nobody follows the log", "Run `wattledger work`")


def _keys(connection: "Connection[Any]", where: Where) -> Finding:
    try:
        DataKeys(where.secret_keys).check(connection)
    except WeakKey as error:
        return fault("secret keys", str(error), "Put that key back into WATTLEDGER_SECRET_KEYS, behind the first one")
    return healthy("secret keys", "every secret can be opened")
