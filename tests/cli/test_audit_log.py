"""The auditors' commands: log, show, diff and trace, as people and scripts see them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from domain.trading_config import TradingConfig
from infra.local_broker import LocalBroker
from tests.cli.conftest import Run
from tests.worker.conftest import _site
from tests.worker.site import Site, setpoint
from tests.worker.site import json as body_of


@pytest.fixture
def local(database_url: str) -> Iterator[Site]:
    broker = LocalBroker()
    yield from _site(database_url, broker, broker)


def entries(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


def test_the_log_by_its_filters(run: Run) -> None:
    acme = json.loads(run("orgs", "create", "acme", "--json"))["id"]
    run("orgs", "create", "bolt")
    run("keys", "mint", "acme", "--scope", "trading:audit")
    run("plants", "register", "acme", "P1")
    everything = entries(run("audit", "log", "--ndjson", "--limit", "0"))
    assert [each["position"] for each in everything] == list(range(8, 0, -1))
    assert json.loads(run("audit", "log", "--json", "--limit", "0")) == everything
    assert len(run("audit", "log").splitlines()) == 8
    mine = entries(run("audit", "log", "--org", "acme", "--ndjson"))
    assert mine == [each for each in everything if each["organizationId"] == acme]
    assert [each["topic"] for each in entries(run("audit", "log", "--kind", "plant", "--ndjson"))] == ["plant:created"]
    [minted] = entries(run("audit", "log", "--kind", "organisation:key-minted", "--ndjson"))
    assert minted["actor"].startswith("cli:")
    assert minted["source"] == "cli"
    assert minted["correlationId"] == minted["requestId"]
    assert "secret_hash" not in minted["state"]
    until = minted["recordedAt"]
    assert [each["position"] for each in entries(run("audit", "log", "--to", until, "--ndjson"))] == list(
        range(7, 0, -1)
    )
    [plant] = entries(run("audit", "log", "--from", until, "--kind", "plant", "--ndjson"))
    assert entries(run("audit", "log", "--id", plant["requestId"], "--ndjson")) == [plant]
    assert run("audit", "log", "--org", "acme", "--actor", "user:nobody") == ""
    assert run("audit", "log", "--org", "acme", "--actor", "user:nobody", "--json") == "[]\n"
    assert "Name the organisation" in run("audit", "log", "--actor", "user:nobody", status=2)
    assert "no time" in run("audit", "log", "--from", "yesterday", status=2)
    assert "kind" in run("audit", "log", "--kind", "plan", status=2)


def test_show_and_diff(run: Run) -> None:
    acme = json.loads(run("orgs", "create", "acme", "--json"))["id"]
    key = json.loads(run("keys", "mint", "acme", "--scope", "trading:read", "--json"))["id"]
    [minted] = entries(run("audit", "log", "--kind", "organisation:key-minted", "--ndjson"))
    run("keys", "revoke", "acme", key)
    now, then = (json.loads(run("audit", "show", acme, *at, "--json")) for at in ((), ("--at", minted["recordedAt"])))
    assert (now["state"]["keys"][key]["revoked"], then["state"]["keys"][key]["revoked"]) == (True, False)
    assert json.loads(run("audit", "show", acme, "--version", "1", "--json"))["state"]["keys"] == {}
    assert "secret_hash" not in json.dumps(now)
    assert 'slug: "acme"' in run("audit", "show", acme)
    [change] = json.loads(run("audit", "diff", acme, "--from", minted["recordedAt"], "--json"))
    assert change["fields"] == {f"keys.{key}.revoked": [False, True]}
    assert "false → true" in run("audit", "diff", acme)
    assert "had not begun" in run("audit", "show", acme, "--at", "2020-01-01", status=2)
    assert "had not begun" in run("audit", "show", acme, "--version", "9", status=2)
    assert "not both" in run("audit", "show", acme, "--version", "9", "--at", "2026-01-01", status=2)
    config = json.loads(run("audit", "show", str(TradingConfig.create_id(UUID(acme))), "--json"))
    assert config["kind"] == "trading-config"


def test_a_trace_tells_the_whole_story(local: Site, run: Run) -> None:
    local.worker()
    gateway = local.gateway()
    message_id = local.partner.send("command.site-setpoint", "esm-001", setpoint(), correlationId="c-1")
    [told] = gateway.wait_for(1)
    local.reaches(message_id, "RELAYED")
    local.answer(told, "EXECUTED", detail="done")
    local.reaches(message_id, "EXECUTED")
    [(request_id, command_id)] = local.rows(
        "SELECT metadata->>'request_id', stream_id FROM events WHERE topic = 'relayed-command:accepted'"
    )
    told_by = {run("audit", "trace", each) for each in (str(message_id), "c-1", request_id, str(command_id))}
    [tree] = told_by
    lines = tree.splitlines()
    assert f"amqp partner:acme, request {request_id}, message {message_id}" in lines[0]
    for said in (
        "relayed-command:created",
        "relayed-command:accepted",
        "→ acme.event.command.ack ACCEPTED",
        f"→ plant.{local.plant_id}.command",
        "follower publisher",
        "relayed-command:relayed",
        f"amqp plant:{local.plant_id}",
        "relayed-command:executed",
        "→ acme.event.execution EXECUTED",
    ):
        found = next(line for line in lines if said in line)
        lines = lines[lines.index(found) :]
    ids = {body_of(each)["messageId"] for each in local.inbox("vcp.acme.event.execution").wait_for(1)}
    assert all(each in tree for each in ids)
    assert json.loads(run("audit", "trace", "c-1", "--json"))[0]["then"]
    assert "Nothing in the log" in run("audit", "trace", "nothing", status=2)


def test_the_command_answers_queries_and_leaves_nothing(run: Run) -> None:
    run("orgs", "create", "acme")
    before = datetime.now(UTC).isoformat()
    run("orgs", "create", "bolt")
    query = "SELECT slug FROM organisations ORDER BY slug"
    lines = run("audit", "replay", "--at", before, "--query", query).splitlines()
    assert [json.loads(line) for line in lines] == [{"slug": "acme"}]
    said = run("audit", "replay", "--at", before)
    assert "schema replay_3." in said
    assert run("audit", "replay", "--at", before, "--query", query, "--keep").count("replay_3_1") == 3
    assert run("audit", "replay", "--drop", "replay_3") == ""
    run("audit", "replay", "--drop", "all")
    assert "no replay" in run("audit", "replay", "--drop", "replay_3", status=2)
    assert "Give a time" in run("audit", "replay", status=2)
    assert len(run("orgs", "list").splitlines()) == 3


def test_the_check_command_says_with_its_exit_status(run: Run) -> None:
    run("orgs", "create", "acme")
    assert {each["problem"] for each in json.loads(run("audit", "check", "--json"))} == {None}
    run("audit", "check")
