"""What must be true when all is quiet again, each as a count of what is not."""

from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID

from psycopg import Connection

from domain.trading_config import TradingConfig
from infra.event_mapper import EventMapper
from infra.operator_keys import OperatorKey
from infra.postgres import connect, pool
from infra.secret_box import PostgresSecretBox
from projections.read_models import READ_MODELS
from projections.rebuild import ReadModelsDiffer, rebuild
from projections.samples import COLUMNS, Sample
from tests.measurements.recomputed import differences
from tests.soak.load import Books


def settled(url: str, books: Books) -> bool:
    """Whether all that was confirmed has had its effect, as far as counts tell."""
    with connect(url, "soak") as connection:
        stored = _one(connection, "SELECT count(*) FROM telemetry")
        open_ = _one(connection, "SELECT count(*) FROM command_log WHERE status IN ('RECEIVED','ACCEPTED','RELAYED')")
        behind = _one(connection, "SELECT coalesce(max(events.position) - min(slots.position), 1) FROM events, slots")
    return stored >= len(books.samples) and not open_ and not behind and not set(books.commands) - set(books.results)


def verdict(url: str, key: OperatorKey, books: Books) -> dict[str, int]:
    """Of each kind of untruth how much there is; all zero when nothing was lost, doubled or untrue."""
    with connect(url, "soak") as connection:
        found = {
            "wrong answers": len(books.wrong),
            "dead letters": len(books.dead),
            **_configs(connection, _changed(connection, url, key), books),
            **_commands(connection, books),
            **_measurements(connection, books),
            **_log(connection, books),
        }
    try:
        rebuilt = rebuild(partial(connect, url, "rebuild"), EventMapper().decoder, READ_MODELS)
        found["read models unlike a rebuild"] = sum(bool(each.difference) for each in rebuilt)
    except ReadModelsDiffer as error:
        books.wrong.append(str(error))
        found["read models unlike a rebuild"] = 1
    return found


def _changed(connection: "Connection[Any]", url: str, key: OperatorKey) -> Counter[str]:
    """How often the log has each config change of the organisation that changes."""
    changer = connection.execute("SELECT id FROM organisations WHERE slug = 'changer'").fetchall()[0][0]
    veiled = connection.execute(
        "SELECT convert_from(state, 'utf8')::json->>'esm_client_id' FROM events"
        " WHERE topic = 'trading-config:partner-changed' AND stream_id = %s",
        [TradingConfig.create_id(changer)],
    ).fetchall()
    with pool(url, 2, "soak") as connections:
        unveil = PostgresSecretBox(connections, [key]).unveil(changer)
        return Counter(unveil(name) for (name,) in veiled)


def _configs(connection: "Connection[Any]", recorded: Counter[str], books: Books) -> dict[str, int]:
    taken = connection.execute("SELECT id, (config_snapshot->'timeConfigs'->0->>'pBatMax')::float8 FROM config_log")
    entries = [(int(row[0]), float(row[1])) for row in taken]
    return {
        "config changes lost": sum(recorded[name] == 0 for name in books.configs),
        "config changes doubled": sum(recorded[name] > 1 for name in books.configs | books.open_configs),
        "plant changes lost": len({(id_, power) for power, id_ in books.changes.items()} - set(entries)),
        "plant changes doubled": len(entries) - len({power for _, power in entries}),
    }


def _commands(connection: "Connection[Any]", books: Books) -> dict[str, int]:
    rows = connection.execute("SELECT message_id, status FROM command_log").fetchall()
    statuses: dict[UUID, str] = dict(rows)
    doubled = connection.execute(
        "SELECT topic FROM events WHERE topic LIKE 'relayed-command:%' AND topic <> 'relayed-command:repeated'"
        " GROUP BY stream_id, topic HAVING count(*) > 1"
    ).fetchall()
    return {
        "commands lost": sum(each not in statuses for each in books.commands),
        "commands doubled": len(rows) - len(statuses) + len(doubled),
        "commands not executed": sum(status != "EXECUTED" for status in statuses.values()),
        "commands without one result": sum(
            {status for _, status in books.results[each]} != {"EXECUTED"} or len(books.results[each]) != 1
            for each in books.commands
        ),
        "commands done twice by a plant": sum(len(ids) > 1 for ids in books.told.values()),
        "commands never told": sum(str(each) not in books.told for each in books.commands),
    }


def _measurements(connection: "Connection[Any]", books: Books) -> dict[str, int]:
    rows = {Sample(*row) for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM telemetry".encode())}
    return {
        "samples lost": len(books.samples - rows),
        "conflicting samples": _one(connection, "SELECT count(*) FROM measurement_conflicts"),
        "roll-up rows untrue": sum(differences(connection).values()),
    }


def _log(connection: "Connection[Any]", books: Books) -> dict[str, int]:
    return {
        "gaps in the log": _one(connection, "SELECT max(position) - count(*) FROM events"),
        "events out of time": _one(
            connection,
            "SELECT count(*) FROM (SELECT recorded_at < lag(recorded_at) OVER (ORDER BY position) AS back FROM events)"
            " AS each WHERE back",
        ),
        "positions beyond the log": max(0, books.position - _one(connection, "SELECT max(position) FROM events")),
        "parked slots": _one(connection, "SELECT count(*) FROM slots WHERE parked_at IS NOT NULL"),
    }


def _one(connection: "Connection[Any]", query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])
