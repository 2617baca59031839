"""Rotating and forgetting from the command line."""

import json
from typing import Any

import psycopg
import pytest

from infra.data_keys import DataKeys
from infra.operator_keys import OperatorKey
from tests.cli.conftest import Run


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch, run: Run) -> OperatorKey:
    """The key of an installation that has an organisation with an API key."""
    key = OperatorKey.random()
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", str(key))
    run("orgs", "create", "acme")
    run("keys", "mint", "acme", "--scope", "trading:read")
    return key


def rotated(run: Run, *words: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("secrets", "rotate", "--json", *words))
    return told


def test_a_key_is_rotated_and_retired(run: Run, monkeypatch: pytest.MonkeyPatch, old: OperatorKey) -> None:
    new = OperatorKey.random()
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", f"{new},{old}")
    told = rotated(run)
    assert (told["wrapped"], told["dropped"]) == (3, 0)
    use = {"known": True, "dataKeys": 3, "neededBy": 0}
    assert told["keys"] == [{"keyId": new.id, "seals": True, **use}, {"keyId": old.id, "seals": False, **use}]
    assert rotated(run)["wrapped"] == 0
    assert rotated(run, "--retire", old.id)["dropped"] == 3
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", str(new))
    assert [use["keyId"] for use in json.loads(run("secrets", "status", "--json"))] == [new.id]
    said = run("secrets", "rotate")
    assert new.id in said
    assert "Wrapped 0, dropped 0." in said


def test_what_running_processes_need_is_not_taken_from_them(
    run: Run, monkeypatch: pytest.MonkeyPatch, old: OperatorKey
) -> None:
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", f"{OperatorKey.random()},{old}")
    assert "data keys were wrapped only now" in run("secrets", "rotate", "--retire", old.id, status=2)
    first, second = (use["dataKeys"] for use in json.loads(run("secrets", "status", "--json")))
    assert first == second > 0
    assert "There is no key 0123" in run("secrets", "rotate", "--retire", "0123", status=2)


def test_a_key_that_is_needed_is_not_retired(run: Run, old: OperatorKey) -> None:
    assert "can't be retired" in run("secrets", "rotate", "--retire", old.id, status=2)


@pytest.mark.parametrize("command", [("serve",), ("work",), ("secrets", "rotate")])
def test_nothing_starts_without_a_key_that_is_needed(
    run: Run, monkeypatch: pytest.MonkeyPatch, old: OperatorKey, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WATTLEDGER_AMQP_URL", "amqp://guest:hunter22@127.0.0.1:1")
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", str(OperatorKey.random()))
    message = run(*command, status=2)
    assert f"The key {old.id}, which 3 data keys need, is not among the secret keys" in message
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", str(OperatorKey(old.id, OperatorKey.random().key)))
    assert f"The key {old.id} is not the one" in run(*command, status=2)
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", "weak:c2hvcnQ=")
    assert "wattledger secrets generate" in run(*command, status=2)


def test_the_commands_errors_hold_no_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("postgresql://me:hunter22@127.0.0.1:1/x", "host=127.0.0.1 port=1 password=hunter22", "me:hunter22@db"):
        monkeypatch.setenv("WATTLEDGER_DATABASE_URL", url)
        assert "hunter22" not in run("orgs", "list", status=2)


def test_an_organisations_secrets_are_forgotten(run: Run, database_url: str, old: OperatorKey) -> None:
    run("secrets", "forget", "acme", "--yes")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT DISTINCT length(sealed) FROM secrets").fetchall() == [(0,)]
        assert [use.data_keys for use in DataKeys([old]).uses(connection)] == [2]  # the hashes' pepper, and names
    assert json.loads(run("keys", "list", "acme", "--json"))
    assert "No organisation nobody" in run("secrets", "forget", "nobody", "--yes", status=2)
