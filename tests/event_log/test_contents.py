"""What a rebuild compares read models by: equal for the same rows, however they lie, and for nothing else."""

import pytest
from psycopg import Rollback

from projections.command_log import COMMAND_LOG
from projections.shadow import contents, live_schema
from tests.benchmarks.history import fill
from tests.event_log.conftest import Log

CHANGES = {
    "a column's value": "SET status = 'FAILED' WHERE status = 'EXECUTED'",
    "nothing for something": "SET correlation_id = NULL",
    "an empty text for nothing": "SET rejection_reason = ''",
    "two columns' values": "SET status = routing_key, routing_key = status",
    "two UUIDs": "SET organization_id = plant_id, plant_id = organization_id WHERE organization_id <> plant_id",
    "two numbers": "SET number = type_number, type_number = number",
    "how a number is written": "SET payload = jsonb_set(payload, '{targetValueKw}', '12.50')",
    "a microsecond": "SET executed_at = executed_at + interval '1 microsecond'",
}


@pytest.fixture
def filled(log: Log) -> Log:
    with log.connect() as connection:
        fill(connection, 1_500, organisations=2, plants=5)
    log.follower().catch_up()
    return log


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_shows(filled: Log, change: str) -> None:
    with filled.connect() as connection:
        live = live_schema(connection)
        before = contents(connection, live, COMMAND_LOG)
        with connection.transaction():
            connection.execute(f"UPDATE command_log {change}".encode())
            changed = contents(connection, live, COMMAND_LOG)
            raise Rollback
        undone = contents(connection, live, COMMAND_LOG)

    assert changed.rows == before.rows > 0
    assert changed.digest != before.digest
    assert undone == before


def test_two_rows_that_exchange_a_value_show(filled: Log) -> None:
    with filled.connect() as connection:
        live = live_schema(connection)
        before = contents(connection, live, COMMAND_LOG)
        connection.execute("UPDATE command_log SET number = 3 - number WHERE number < 3")
        assert contents(connection, live, COMMAND_LOG).digest != before.digest


def test_where_rows_lie_does_not_show(filled: Log) -> None:
    with filled.connect() as connection:
        live = live_schema(connection)
        before = contents(connection, live, COMMAND_LOG)
        connection.execute("UPDATE command_log SET status = status WHERE number % 2 = 0")
        connection.execute("VACUUM FULL command_log")
        assert contents(connection, live, COMMAND_LOG) == before
