"""The composition root and the command line's wiring: what only shows when all parts are together."""

from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from domain.errors import BrokerUnreachable, Unavailable
from domain.organisation import Organisation
from infra import bootstrap
from infra.bootstrap import Where, assembled
from infra.secret_box import OperatorKey
from infra.settings import Settings
from interfaces.cli.wiring import _failing

URL = "postgresql://us:hunter2@db/wattledger"


def test_a_sync_that_has_its_turn_takes_none_of_the_connections_that_it_works_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "THREADS", 1)
    where = Where(database_url, None, [OperatorKey.random()], [])
    with assembled(where, Settings()) as parts, parts.turns.take(uuid4()):
        assert parts.events.find(Organisation, uuid4()) is None


def test_no_password_is_in_what_a_log_could_show() -> None:
    assert "hunter2" not in repr(Where(URL, URL, [OperatorKey.random()], []))
    assert "hunter2" not in repr(Settings(database_url=URL, amqp_url=URL, home=Path()))


@pytest.mark.parametrize("error", [Unavailable(), BrokerUnreachable(), psycopg.OperationalError()])
def test_a_check_says_what_is_wrong(error: Exception) -> None:
    def ask() -> None:
        raise error

    assert _failing(ask, "PostgreSQL can't be reached")() == "PostgreSQL can't be reached"
