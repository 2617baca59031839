"""A log that is sealed to its end but for two events, by two keys, and what its auditor brings along."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from infra.audit.sealer import Sealer
from infra.audit.sealing_keys import SealingKeys
from infra.audit.verification import Trusted, Verified, verify
from infra.data_keys import DataKeys
from infra.operator_keys import OperatorKey
from infra.postgres import connect
from tests.event_log.conftest import Log, log_at
from tests.servers import database

IN_A_SEAL = 4
SEALED, UNSEALED = 12, 2


@dataclass
class Sealed:
    """A log with seals of four events."""

    log: Log
    operator_key: OperatorKey

    def keys(self) -> SealingKeys:
        return SealingKeys(DataKeys([self.operator_key]))

    def sealer(self, events: int = IN_A_SEAL) -> Sealer:
        return Sealer(self.log.connect, self.keys(), events=events)

    def verify(self, connection: "Connection[Any] | None" = None, **trusted: Any) -> Verified:
        if connection is None:
            with self.log.connect() as own:
                return self.verify(own, **trusted)
        given = {"pinned": None, "opens": self.keys().opens(connection), "anchors": {}} | trusted
        return verify(connection, Trusted(**given))


@pytest.fixture
def fresh(log: Log) -> Sealed:
    """A log that nothing is in yet."""
    return Sealed(log, OperatorKey.random())


@pytest.fixture(scope="module")
def sealed(postgres_server: Any, migrated_template: str) -> Iterator[Sealed]:
    """Shared by a file's tests, who roll back what they do to it."""
    with database(postgres_server, migrated_template) as url, log_at(url) as log:
        made = Sealed(log, OperatorKey.random())
        fill(made)
        yield made


def fill(made: Sealed) -> None:
    made.log.plant(renamed=6)
    made.sealer().catch_up()
    with made.log.connect() as connection:
        made.keys().rotate(connection)
    made.log.plant(renamed=2)
    made.sealer().catch_up()
    for _ in range(UNSEALED):
        made.log.plant()


@pytest.fixture
def tampering(sealed: Sealed) -> Iterator["Connection[Any]"]:
    """As a superuser, whom neither triggers nor constraints hold back; all of it is undone."""
    with connect(sealed.log.url, "attacker") as connection, connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(
            "ALTER TABLE events DROP CONSTRAINT events_pkey, DROP CONSTRAINT events_stream_id_version_key"
        )
        for table in ("seals", "sealing_keys"):
            for (name,) in connection.execute(
                "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u')", [table]
            ).fetchall():
                connection.execute(
                    psycopg.sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                        *map(psycopg.sql.Identifier, (table, name))
                    )
                )
        yield connection


@pytest.fixture
def log(database_url: str) -> Iterator[Log]:
    with log_at(database_url) as opened:
        yield opened
