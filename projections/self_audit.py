"""The self-audit: folds every stream anew, compares with what the read models say, and looks for what never ended."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from projections import shadow
from projections.loading import Decode
from projections.read_model import ReadModel
from projections.rebuild import Progress, begin, rebuilding
from projections.slots import Connect

log = logging.getLogger(__name__)

EVERY = timedelta(days=1)
STUCK_COMMANDS = "commands that never ended"
STUCK_CHANGES = "plan changes that never ended"
STUCK_ERASURES = "erasures that never ended"

_STUCK = {
    STUCK_COMMANDS: "SELECT count(*), min(id::text) FROM command_log"
    " WHERE status IN ('ACCEPTED', 'RELAYED') AND expires_at < now() - interval '15 minutes'",
    STUCK_CHANGES: "SELECT count(*), min(change_id::text) FROM config_log"
    " WHERE NOT is_terminal AND sent_at < now() - interval '75 minutes'",
    STUCK_ERASURES: "SELECT count(*), min(slug) FROM organisations"
    " WHERE erased_at IS NULL AND closed_at < now() - interval '15 minutes'",
}


@dataclass(frozen=True)
class Finding:
    """What was looked at, at which position, and what is wrong; None if nothing is."""

    name: str
    checked_at: datetime
    position: int
    problem: str | None


def check(
    connect: Connect,
    decode: Decode,
    read_models: Sequence[ReadModel[Any]],
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> list[Finding]:
    """Each read model is rebuilt beside the live one, up to where that stands, compared and dropped; what differs stays
    in the schema `rebuild` to be looked at. Findings are kept for the metrics. Raises RebuildRunning."""
    with rebuilding(connect, decode, workers, progress) as work:
        shadows = begin(work.connection, read_models)
        comparable = [each for each in shadows if each.comparable]
        work.fill(comparable)
        work.compare(comparable)
        for each in shadows:
            if each.difference is None:
                shadow.drop(work.connection, each.model)
        not_filled = "not filled by this code: start a worker, or rebuild it"
        found = [
            (each.model.name, each.position, each.difference if each.comparable or not each.position else not_filled)
            for each in shadows
        ]
    with connect() as connection:
        end = max((position for _, position, _ in found), default=0)
        _keep(connection, [*found, *((name, end, _stuck(connection, name)) for name in _STUCK)])
        findings = last_findings(connection)
    for finding in findings:
        if finding.problem is not None:
            log.error("self-audit", extra={"subject": finding.name, "problem": finding.problem})
    return findings


def last_findings(connection: "Connection[Any]") -> list[Finding]:
    """Of the last check."""
    with connection.cursor(row_factory=class_row(Finding)) as cursor:
        return cursor.execute("SELECT name, checked_at, position, problem FROM audit_checks ORDER BY name").fetchall()


def is_due(connection: "Connection[Any]") -> bool:
    """A day after the last check, or after the log began."""
    row = connection.execute(
        "SELECT coalesce((SELECT max(checked_at) FROM audit_checks),"
        " (SELECT recorded_at FROM events WHERE position = 1)) < now() - %s",
        [EVERY],
    ).fetchone()
    return bool(row and row[0])


def _stuck(connection: "Connection[Any]", what: str) -> str | None:
    row = connection.execute(_STUCK[what].encode()).fetchone()
    assert row is not None
    return f"{row[0]}, one of them {row[1]}" if row[0] else None


def _keep(connection: "Connection[Any]", findings: Sequence[tuple[str, int, str | None]]) -> None:
    with connection.transaction():
        connection.execute("DELETE FROM audit_checks")
        for finding in findings:
            connection.execute("INSERT INTO audit_checks (name, position, problem) VALUES (%s, %s, %s)", finding)
