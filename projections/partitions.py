"""The partitions of the measurement tables: made ahead of time and on demand, dropped by retention."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import LiteralString

import psycopg
from psycopg import sql

RETENTION_DAYS = 1825

DAILY: tuple[LiteralString, ...] = ("telemetry", "meter_readings")
MONTHLY: tuple[LiteralString, ...] = ("telemetry_1m", "telemetry_5m", "meter_1m")
TABLES = (*DAILY, *MONTHLY)
# A roll-up's rows are rewritten again and again: where half of a page is kept free for that, its index stays as it is.
SETTINGS: dict[str, LiteralString] = dict.fromkeys(MONTHLY, "WITH (fillfactor = 50)")
# That many are made in a transaction, which locks each of them.
MADE_AT_ONCE = 32
# Two locks, because dropping waits for open transactions, and one of those may be waiting for a new day.
CREATE_LOCK, DROP_LOCK = 0x57A77_9A27_01, 0x57A77_9A27_02


@dataclass(frozen=True, slots=True)
class Partition:
    """A day (YYYYMMDD) or a month (YYYYMM) of a table, from its first day to the day after its last."""

    table: str
    first: date

    @property
    def name(self) -> str:
        return f"{self.table}_{self.first:%Y%m%d}" if self.table in DAILY else f"{self.table}_{self.first:%Y%m}"

    @property
    def end(self) -> date:
        if self.table in DAILY:
            return self.first + timedelta(days=1)
        return (self.first + timedelta(days=31)).replace(day=1)


def ensure(connection: psycopg.Connection, days: int = 7, *, today: date | None = None) -> list[str]:
    """Make what is missing for today and the days ahead; returns the names made."""
    first = today or datetime.now(UTC).date()
    return cover(connection, [first + timedelta(days=n) for n in range(days + 1)])


def cover(connection: psycopg.Connection, dates: Iterable[date], tables: tuple[str, ...] = TABLES) -> list[str]:
    """Make what is missing for these days; returns the names made.

    They are made on a connection of their own and committed at once. Made inside the caller's transaction they
    would hold their locks for as long as it runs, and two writers that each need a new day could deadlock.
    """
    wanted = {each.name: each for day in set(dates) for each in _of_day(day, tables)}
    missing = wanted.keys() - _attached(connection, wanted)
    if not missing:
        return []
    info, in_order = connection.info, sorted(missing)
    with psycopg.connect(info.dsn, password=info.password or None, autocommit=True) as own:
        # Should the unforeseen hold the parent, then failing (and coming again) beats a queue of stuck writers.
        own.execute("SET lock_timeout = '10s'")
        pieces = [in_order[at : at + MADE_AT_ONCE] for at in range(0, len(in_order), MADE_AT_ONCE)]
        return [name for piece in pieces for name in _make_missing(own, {name: wanted[name] for name in piece})]


def horizon(connection: psycopg.Connection) -> date | None:
    """The last day that every measurement table has a partition for; None when one has none at all."""
    last: dict[str, date] = {}
    for each in _existing(connection):
        last[each.table] = max(last.get(each.table, date.min), each.end - timedelta(days=1))
    return min(last.values()) if len(last) == len(TABLES) else None


def drop_expired(
    connection: psycopg.Connection, retention_days: int = RETENTION_DAYS, *, today: date | None = None
) -> list[str]:
    """Drop the partitions that lie wholly before the retention, and return their names.

    Needs an autocommit connection: DETACH CONCURRENTLY, which lets readers and writers go on, runs in no
    transaction. A run that was interrupted anywhere is finished by the next. Another process already at it: [].
    """
    if not connection.autocommit:
        raise ValueError("drop_expired() needs an autocommit connection")
    cutoff = (today or datetime.now(UTC).date()) - timedelta(days=retention_days)
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (DROP_LOCK,)).fetchone()
    if row is None or not row[0]:
        return []
    try:
        expired = [each for each in _existing(connection) if each.end <= cutoff]
        for each in expired:
            _drop(connection, each)
        connection.execute("DELETE FROM measurement_conflicts WHERE received_at < %s", (cutoff,))
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (DROP_LOCK,))
    return [each.name for each in expired]


def _of_day(day: date, tables: tuple[str, ...]) -> list[Partition]:
    return [Partition(table, day if table in DAILY else day.replace(day=1)) for table in tables]


def _attached(connection: psycopg.Connection, names: Iterable[str]) -> set[str]:
    rows = connection.execute(
        """SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
           WHERE relname = ANY(%s) AND pg_table_is_visible(pg_class.oid) AND NOT inhdetachpending""",
        (list(names),),
    )
    return {name for (name,) in rows}


def _make_missing(connection: psycopg.Connection, wanted: dict[str, Partition]) -> list[str]:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (CREATE_LOCK,))
        made = sorted(wanted.keys() - _attached(connection, wanted))
        for name in made:
            _make(connection, wanted[name])
    return made


def _make(connection: psycopg.Connection, partition: Partition) -> None:
    # Not CREATE ... PARTITION OF: that takes ACCESS EXCLUSIVE on the parent and waits for every open insert.
    # IF NOT EXISTS: a detached partition that was not dropped yet may be wanted again.
    names = {"child": sql.Identifier(partition.name), "parent": sql.Identifier(partition.table)}
    settings = sql.SQL(SETTINGS.get(partition.table, ""))
    connection.execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {child} (LIKE {parent} INCLUDING ALL) {settings}").format(
            settings=settings, **names
        )
    )
    connection.execute(
        sql.SQL("ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ({first}) TO ({end})").format(
            first=sql.Literal(_midnight(partition.first)), end=sql.Literal(_midnight(partition.end)), **names
        )
    )


def _midnight(day: date) -> str:
    # In UTC whatever the session's time zone.
    return f"{day.isoformat()} 00:00:00+00"


def _existing(connection: psycopg.Connection) -> list[Partition]:
    """All partitions, with those that were detached and not dropped yet, oldest first."""
    rows = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)")
    found = []
    for (name,) in rows:
        match = re.fullmatch(rf"({'|'.join(TABLES)})_(\d{{6,8}})", name)
        if match and len(match[2]) == (8 if match[1] in DAILY else 6):
            found.append(Partition(match[1], datetime.strptime(f"{match[2]}01"[:8], "%Y%m%d").date()))  # noqa: DTZ007
    return sorted(found, key=lambda each: (each.first, each.table))


def _drop(connection: psycopg.Connection, partition: Partition) -> None:
    names = {"child": sql.Identifier(partition.name), "parent": sql.Identifier(partition.table)}
    row = connection.execute(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass(%s)", (partition.name,)
    ).fetchone()
    if row is not None:
        mode = sql.SQL("FINALIZE" if row[0] else "CONCURRENTLY")
        connection.execute(sql.SQL("ALTER TABLE {parent} DETACH PARTITION {child} {mode}").format(mode=mode, **names))
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {child}").format(**names))
