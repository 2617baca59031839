"""A replay is what the read models really said at a moment; the self-audit finds what they say wrong now."""

from datetime import timedelta

import pytest
from psycopg import sql

from projections.read_models import READ_MODELS
from projections.rebuild import RebuildRunning, rebuild
from projections.replay import ask, drop, replay, replays
from projections.self_audit import STUCK_CHANGES, STUCK_COMMANDS, STUCK_ERASURES, check, is_due, last_findings
from tests.audit.histories import History
from tests.event_log.conftest import Log, Rows


def rows_in(log: Log, schema: str) -> Rows:
    with log.connect() as connection:
        return {
            model.name: connection.execute(
                sql.SQL("SELECT * FROM {} ORDER BY {}").format(
                    sql.Identifier(schema, model.name), sql.Identifier(model.key)
                )
            ).fetchall()
            for model in READ_MODELS
        }


def problems(log: Log) -> dict[str, str]:
    found = check(log.connect, log.decode, READ_MODELS)
    with log.connect() as connection:
        assert last_findings(connection) == found
    return {each.name: each.problem for each in found if each.problem is not None}


def test_a_replay_is_what_the_read_models_said(log: Log) -> None:
    history = History(log, 3).live(25)
    now = log.rows()
    schemas = set()
    for moment in history.moments[::6]:
        schema = replay(log.connect, log.decode, READ_MODELS, moment.position, workers=1)
        assert rows_in(log, schema) == moment.rows
        schemas.add(schema)
    beginning = replay(log.connect, log.decode, READ_MODELS, 0)
    assert not any(rows_in(log, beginning).values())
    again = replay(log.connect, log.decode, READ_MODELS, 0)
    assert again != beginning
    assert log.rows() == now
    with log.connect() as connection:
        assert set(replays(connection)) == {*schemas, beginning, again}
        assert ask(connection, beginning, "SELECT count(*) AS plants FROM plants") == [{"plants": 0}]
        with pytest.raises(Exception, match="read-only"):
            ask(connection, beginning, "DELETE FROM plants")
        for schema in (*schemas, beginning, again):
            drop(connection, schema)
        assert replays(connection) == []
        for name in ("public", "replay_1", "rebuild"):
            with pytest.raises(ValueError, match="no replay"):
                drop(connection, name)
    assert {each.difference for each in rebuild(log.connect, log.decode, READ_MODELS)} == {None}


def test_the_self_audit_finds_what_drifted(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    History(log, 4).live(25, watched=False)
    assert set(problems(log)) <= {STUCK_COMMANDS}
    tampered = {
        "plants": "UPDATE plants SET name = 'tampered' WHERE number = 1",
        "command_log": "DELETE FROM command_log WHERE id = (SELECT id FROM command_log LIMIT 1)",
        "audit_log": "UPDATE audit_log SET actor = 'nobody' WHERE position = 1",
        "trading_configs": "UPDATE trading_configs SET status = 'ENABLED'",
    }
    for statement in tampered.values():
        log.execute(statement)
    found = problems(log)
    assert set(found) - {STUCK_COMMANDS} == set(tampered)
    assert "rows live" in found["command_log"]
    assert {record.__dict__["subject"] for record in caplog.records if record.message == "self-audit"} == set(found)


def test_what_never_ended_is_found(log: Log) -> None:
    history = History(log, 5).live(25, watched=False)
    log.execute("UPDATE command_log SET status = 'ACCEPTED', expires_at = now() - interval '1 hour'")
    log.execute("UPDATE config_log SET is_terminal = FALSE, sent_at = now() - interval '2 hours'")
    log.execute("UPDATE organisations SET closed_at = now() - interval '1 hour' WHERE slug = 'bolt'")
    found = problems(log)
    assert found[STUCK_COMMANDS].startswith(f"{len(history.commands)}, one of them ")
    assert STUCK_CHANGES in found
    assert found[STUCK_ERASURES] == "1, one of them bolt"


def test_it_is_due_once_a_day_and_waits_for_no_rebuild(log: Log) -> None:
    with log.connect() as connection:
        assert not is_due(connection)
        History(log, 6).live(3, watched=False)
        assert not is_due(connection)
        connection.execute("UPDATE events SET recorded_at = recorded_at - %s", [timedelta(days=2)])
        assert is_due(connection)
        problems(log)
        assert not is_due(connection)
        connection.execute("UPDATE audit_checks SET checked_at = now() - interval '25 hours'")
        assert is_due(connection)
        connection.execute("SELECT pg_advisory_lock(1463899224, 1)")
        with pytest.raises(RebuildRunning):
            problems(log)
