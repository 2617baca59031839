"""`organisations erase`: nothing that was secret or personal can be read any more, and the log is still proven."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import typer
from psycopg import sql

from application.partner_logins import PartnerLogins
from domain.organisation import Organisation
from infra.bootstrap import assembled, find
from infra.settings import Settings
from tests.cli.conftest import Run

CANARIES = ("canary-name", "canary-key", "canary-plant")


@pytest.fixture
def acme(run: Run) -> dict[str, Any]:
    """Its key to connect with; beside it is another organisation."""
    run("orgs", "create", "bolt", "--name", "Bolt")
    run("orgs", "create", "acme", "--name", "canary-name")
    run("plants", "register", "acme", "P1", "--name", "canary-plant")
    minted: dict[str, Any] = json.loads(
        run("keys", "mint", "acme", "--scope", "trading:connect", "--name", "canary-key", "--json")
    )
    return minted


def stored(database_url: str) -> Iterator[str]:
    """Every row of every table, bytes as text."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for table in tables:
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table))):
                yield " ".join(each.decode("latin-1") if isinstance(each, bytes) else str(each) for each in row)


def may_log_in(slug: str, api_key: str) -> bool:
    settings = Settings()
    with assembled(find(settings), settings) as parts:
        return PartnerLogins(parts.events, parts.hasher, "/").may_log_in(slug, api_key)


def test_what_is_personal_is_readable_until_it_is_erased(run: Run, database_url: str, acme: dict[str, Any]) -> None:
    def readable() -> list[bool]:
        said = "".join(
            run(*words)
            for words in (("orgs", "list"), ("keys", "list", "acme"), ("audit", "log", "--org", "acme", "--ndjson"))
        )
        return [canary in said for canary in CANARIES]

    rows = list(stored(database_url))
    assert not [row for row in rows for canary in CANARIES if canary in row]
    assert readable() == [True, True, True]
    assert may_log_in("acme", acme["apiKey"])
    run("audit", "replay", "--at", "2100-01-01", "--keep")
    told = json.loads(run("organisations", "erase", "acme", "--yes", "--json"))
    assert (told["slug"], told["id"]) == ("acme", str(Organisation.create_id("acme")))
    assert readable() == [False, False, False]
    assert not [row for row in stored(database_url) for canary in CANARIES if canary in row]
    assert not may_log_in("acme", acme["apiKey"])
    assert all(key["revokedAt"] for key in json.loads(run("keys", "list", "acme", "--json")))
    assert "Bolt" in run("orgs", "list")


def test_the_log_is_proven_and_read_models_are_its_fold_as_before(
    run: Run, tmp_path: Any, acme: dict[str, Any]
) -> None:
    run("audit", "export", str(tmp_path / "before.zip"))
    before = json.loads(run("audit", "verify", "--json"))
    run("orgs", "erase", "acme", "--yes")
    run("audit", "export", str(tmp_path / "after.zip"))
    after = json.loads(run("audit", "verify", "--json", "--anchor", before["anchor"]))
    assert (after["intact"], after["events"]) == (True, before["events"] + 4)
    assert {each["problem"] for each in json.loads(run("audit", "check", "--json"))} == {None}
    run("projections", "rebuild")
    log = [json.loads(line) for line in run("audit", "log", "--org", "acme", "--ndjson").splitlines()]
    assert [each["topic"] for each in log[:4]] == [
        "organisation:erased",
        "trading-config:closed",
        "organisation:closed",
        "organisation:key-revoked",
    ]
    assert log[0]["actor"].startswith("cli:")
    [erased] = [each for each in json.loads(run("orgs", "list", "--json")) if each["slug"] == "acme"]
    assert erased["closedAt"] < erased["erasedAt"]


def test_it_is_confirmed_by_its_slug(run: Run, monkeypatch: pytest.MonkeyPatch, acme: dict[str, Any]) -> None:
    answers = iter(["bolt", "acme"])
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(answers))
    assert "nothing was erased" in run("orgs", "erase", "acme", status=2)
    assert may_log_in("acme", acme["apiKey"])
    assert "Erased acme" in run("orgs", "erase", "acme")
    assert "Erased acme" in run("orgs", "erase", "acme", "--yes")
    assert "No organisation nobody" in run("orgs", "erase", "nobody", "--yes", status=2)
    for words in (("keys", "mint", "acme", "--scope", "trading:read"), ("plants", "register", "acme", "P2")):
        assert "Not a member" in run(*words, status=2)
