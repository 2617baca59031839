"""Every log line of a request carries its id, whichever library, thread or task it comes from."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from application.context import Metadata, acting, with_user
from infra import logs
from projections import plants
from tests.access_log import WANTED
from tests.http.world import Org, World

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What this process logs meanwhile, as JSON lines."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers_before, level = root.handlers, root.level
    logs._install(logging.StreamHandler(stream), "INFO", readable=False)
    yield stream
    root.handlers = handlers_before
    root.setLevel(level)


def lines(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


def speak(*_: Any, **__: Any) -> Any:
    logging.getLogger("a.library").warning("spoke")
    raise RuntimeError


def of(said: io.StringIO, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines(said) if line.get("request_id") == request_id]


def test_a_commands_lines(world: World, org: Org, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.esm, "check_url", speak)
    headers = {"X-Request-Id": WANTED, "traceparent": TRACEPARENT}
    org.post("/trading/config", json={"esmApiUrl": "https://other.example.com"}, headers=headers)
    org.get("/trading/config")
    spoke, failed, request = of(said, WANTED)
    assert (spoke["event"], failed["event"], request["event"]) == ("spoke", "request failed", "request")
    # The command has the user's id as the event log will have it.
    assert spoke["actor"] == with_user(request["actor"], world.trading.secrets.veil(org.id)) != request["actor"]
    assert (spoke["correlation_id"], spoke["traceparent"]) == (WANTED, TRACEPARENT)
    assert request["organization_id"] == str(org.id)
    assert "Traceback" in failed["exception"]


def test_a_queries_lines(org: Org, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plants, "plants", speak)
    org.get("/trading/plants", headers={"X-Request-Id": WANTED})
    org.get("/trading/config")
    assert [line["event"] for line in of(said, WANTED)] == ["spoke", "request failed", "request"]
    assert all("request_id" in line for line in lines(said) if line["event"] == "request")


def test_what_a_worker_says_names_whose_doing_it_is(said: io.StringIO) -> None:
    log = logging.getLogger("a.worker")
    with acting(Metadata("scheduler", "scheduler", "job-1")):
        log.warning("in a job")
        log.warning("of another", extra={"request_id": "r-2", "actor": None})
    log.warning("on its own")
    in_job, other, alone = lines(said)
    assert (in_job["request_id"], in_job["actor"], in_job["correlation_id"]) == ("job-1", "scheduler", "job-1")
    assert (other["request_id"], other["actor"]) == ("r-2", "scheduler")
    assert "request_id" not in alone
