"""The commands of the command line: what they print, what scripts read, how they fail."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import typer
from psycopg import sql

from domain.catalogue import EVENTS
from infra.operator_keys import OperatorKey
from interfaces.cli import app
from projections.read_models import READ_MODELS
from tests.cli.conftest import Run


def test_an_organisation_and_its_keys(run: Run) -> None:
    made = json.loads(run("orgs", "create", "acme", "--name", "Acme Energy", "--json"))
    assert json.loads(run("orgs", "list", "--json"))[0]["id"] == made["id"]
    key = json.loads(run("keys", "mint", "acme", "--scope", "trading:read", "--scope", "trading:write", "--json"))
    assert set(key) == {"id", "apiKey", "signingKey"}
    listed = json.loads(run("keys", "list", "acme", "--json"))[0]
    assert (listed["id"], listed["scopes"]) == (key["id"], ["trading:read", "trading:write"])
    assert key["apiKey"] not in run("keys", "list", "acme")
    run("keys", "revoke", "acme", key["id"])
    assert json.loads(run("keys", "list", "acme", "--json"))[0]["revokedAt"] is not None


def test_an_organisation_may_have_the_id_of_the_identity_provider(run: Run) -> None:
    wanted = UUID(int=7)
    assert json.loads(run("orgs", "create", "acme", "--id", str(wanted), "--json"))["id"] == str(wanted)


def test_slots_are_shown_without_lag(run: Run) -> None:
    run("orgs", "create", "acme")
    slots = json.loads(run("projections", "status", "--json"))
    assert {slot["lag"] for slot in slots} == {0}
    assert {slot["name"] for slot in slots} >= {"organisations", "trading_configs", "command_log"}


def contents(database_url: str) -> dict[str, list[Any]]:
    """Every read model, row by row."""
    with psycopg.connect(database_url) as connection:
        return {
            model.name: connection.execute(
                sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(model.name))
            ).fetchall()
            for model in READ_MODELS
        }


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_rebuild_leaves_every_read_model_byte_for_byte_as_it_was(run: Run, database_url: str, workers: str) -> None:
    for slug in ("acme", "bolt"):
        run("orgs", "create", slug)
        key = json.loads(run("keys", "mint", slug, "--scope", "trading:read", "--json"))
        run("plants", "register", slug, "plant-7")
        run("keys", "revoke", slug, key["id"])
    before = contents(database_url)
    assert all(before[name] for name in ("organisations", "api_keys", "trading_configs", "plants"))
    rebuilt = json.loads(run("projections", "rebuild", *before, "--workers", workers, "--json"))
    assert [(each["name"], each["difference"]) for each in rebuilt] == [(model.name, None) for model in READ_MODELS]
    assert contents(database_url) == before
    run("projections", "rollback", "plants")
    assert contents(database_url) == before


def test_a_rebuild_does_not_hide_a_difference(run: Run, database_url: str) -> None:
    run("orgs", "create", "acme")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE organisations SET name = 'tampered'")
    assert "organisations" in run("projections", "rebuild", "organisations", status=2)
    run("projections", "rebuild", "organisations", "--force-reason", "somebody wrote into it")
    assert "tampered" not in run("orgs", "list")


def test_the_catalogue_has_a_schema_for_each_event(run: Run) -> None:
    known = json.loads(run("events", "catalogue", "--json"))
    assert {each["topic"] for each in known} == set(EVENTS)
    for each in known:
        assert set(json.dumps(each["schema"]).split('"')) >= set(each["fields"])
    assert "trading-config:enabled" in run("events", "catalogue")


def test_every_stored_event_is_checked(run: Run, database_url: str) -> None:
    run("orgs", "create", "acme")
    checked = json.loads(run("events", "check", "--json"))
    assert {each["topic"] for each in checked} == {
        "organisation:created",
        "trading-config:created",
        "queue-prefix:created",
    }
    assert {each["unreadable"] for each in checked} == {0}
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE events SET topic = 'organisation:gone' WHERE position = 1")
        connection.execute("UPDATE events SET state = '{}' WHERE position = 2")
    found = {each["topic"]: each for each in json.loads(run("events", "check", "--json", status=1))}
    assert found["organisation:gone"]["firstBad"] == 1
    assert found["trading-config:created"]["firstBad"] == 2
    assert found["queue-prefix:created"]["unreadable"] == 0


def test_migrating_twice_does_nothing(run: Run) -> None:
    assert run("migrate") == "Nothing to do.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("orgs", "create", "Not_a_slug"), "A slug is"),
        (("orgs", "create", "x"), "A slug is"),
        (("keys", "mint", "nobody", "--scope", "trading:read"), "No organisation nobody"),
        (("keys", "mint", "acme", "--scope", "trading:everything"), "scopes must be some of"),
        (("keys", "mint", "acme"), "Missing option '--scope'"),
        (("keys", "revoke", "acme", "7"), "should be a valid UUID"),
        (("keys", "revoke", "acme", str(UUID(int=1))), "No such API key"),
        (("projections", "rebuild", "everything"), "No read model everything"),
        (("projections", "rollback", "plants"), "plants"),
        (("projections", "resume", "plants"), "No parked slot plants"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("work",), "WATTLEDGER_AMQP_URL"),
    ],
)
def test_errors_are_one_clear_line(
    run: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    run("orgs", "create", "acme")
    message = run(*words, status=2)
    assert message.startswith("wattledger: ")
    assert says in message
    assert message.count("\n") == 1


def test_a_taken_slug(run: Run) -> None:
    run("orgs", "create", "acme")
    assert run("orgs", "create", "acme", status=2) == "wattledger: The slug acme is taken\n"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WATTLEDGER_HTTP_PORT", "eighty", "WATTLEDGER_HTTP_PORT"),
        ("WATTLEDGER_SECRET_KEYS", "k:c2hvcnQ=", "secret key"),
        ("WATTLEDGER_DATABASE_URL", "postgresql://127.0.0.1:1/x", "connection"),
        ("WATTLEDGER_DATABASE_URL", "nonsense", "nonsense"),
    ],
)
def test_a_bad_setting(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    message = run("orgs", "list", status=2)
    assert says in message
    assert message.count("\n") == 1


def test_without_settings_and_without_a_running_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.delenv("WATTLEDGER_DATABASE_URL")
    monkeypatch.setenv("WATTLEDGER_HOME", str(tmp_path_factory.mktemp("home")))
    assert "wattledger up" in run("orgs", "list", status=2)


def test_a_database_without_secret_keys_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATTLEDGER_SECRET_KEYS")
    assert "wattledger secrets generate" in run("serve", status=2)


def test_a_database_that_is_not_migrated_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    monkeypatch.setenv("WATTLEDGER_DATABASE_URL", empty_database_url)
    assert "run `wattledger migrate`" in run("serve", status=2)
    assert "0001_event_log.sql" in run("migrate")


def test_a_generated_secret_key_is_one_that_is_taken(run: Run) -> None:
    printed = run("secrets", "generate").strip()
    assert str(OperatorKey.parse(printed)) == printed


def test_a_file_that_cannot_be_written_is_one_line(run: Run) -> None:
    assert run("openapi", "--out", "/nowhere/openapi.json", status=2).count("\n") == 1


def test_a_home_that_cannot_be_made_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WATTLEDGER_HOME", str(tmp_path / "file" / "home"))
    assert run("up", status=2).count("\n") == 1


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_out_of_range_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    assert run("sandbox", "--port", port, status=2).count("\n") == 1
    monkeypatch.setenv("WATTLEDGER_SANDBOX_PORT", port)
    assert "WATTLEDGER_SANDBOX_PORT" in run("up", status=2)


def test_the_openapi_document(run: Run) -> None:
    assert json.loads(run("openapi"))["openapi"].startswith("3.1")


def _commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if command.hidden:  # another name of a group
            continue
        yield from _commands(command, *path, name) if hasattr(command, "commands") else [(*path, name)]


@pytest.mark.parametrize("words", [*_commands(typer.main.get_command(app))], ids=" ".join)
def test_each_help_has_an_example(run: Run, words: tuple[str, ...]) -> None:
    said = " ".join(run(*words, "--help").split())
    assert "Example: " in said
    assert " ".join(words) in said.split("Example: ")[1].replace("wattledger ", "")
