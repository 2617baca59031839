"""Rate limits, and a database that is busy or gone."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from eventsourcing.persistence import IntegrityError
from psycopg_pool import PoolTimeout

from domain.errors import TooManyRequests
from infra.embedded import EmbeddedPostgres
from interfaces.http.credentials import Caller, Right
from interfaces.http.errors import as_error, status_of
from interfaces.http.rate_limits import Limiter
from interfaces.http.services import RateLimits
from tests.http.world import Org, World, is_envelope, served
from tests.servers import database

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.fixture(scope="module")
def strict_world(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[World]:
    """With limits that are soon reached."""
    with database(postgres_server, migrated_template) as url, served(url, RateLimits(4, 3, 2)) as world:
        yield world


@pytest.fixture
def strict(strict_world: World) -> Org:
    return strict_world.organisation()


@pytest.mark.parametrize(
    ("method", "path", "limit"), [("GET", "config", 4), ("POST", "config", 3), ("POST", "plants/sync", 2)]
)
def test_each_kind_has_its_limit(strict: Org, method: str, path: str, limit: int) -> None:
    options: dict[str, Any] = {"json": {}} if method == "POST" else {}
    remaining = []
    for _ in range(limit):
        answer = strict.world.client.request(method, f"/trading/{path}", headers=strict.jwt(), **options)
        assert answer.status_code == 200
        assert answer.headers["ratelimit-limit"] == str(limit)
        remaining.append(int(answer.headers["ratelimit-remaining"]))
    # Another user of the same organisation each time: it is the organisation's budget that runs out.
    assert remaining == list(range(limit))[::-1]
    refused = strict.world.client.request(method, f"/trading/{path}", headers=strict.jwt(), **options)
    is_envelope(refused, 429, "TOO_MANY_REQUESTS")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-remaining"] == "0"
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]


def test_who_may_not_call_uses_up_nothing(strict: Org) -> None:
    for _ in range(5):
        is_envelope(strict.post("/trading/plants/sync", role="VIEWER"), 403, "INSUFFICIENT_ORG_PERMISSIONS")
    assert strict.post("/trading/plants/sync").status_code == 200


def test_a_caller_is_limited_over_organisations() -> None:
    limiter = Limiter(RateLimits(reads=2))
    callers = [Caller("user", ONE, organization, Right.READ) for organization in (ONE, TWO, ONE)]
    assert [limiter.spend("reads", caller)["RateLimit-Remaining"] for caller in callers[:2]] == ["1", "0"]
    with pytest.raises(TooManyRequests):
        limiter.spend("reads", callers[2])


def test_busy_pool_is_unavailable_soon(world: World, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise PoolTimeout

    monkeypatch.setattr(type(world.services.queries), "connection", exhausted)
    answer = org.get("/trading/config")
    is_envelope(answer, 503, "SERVICE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


def test_command_pool_that_runs_dry(world: World, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("host canary refused")

    pool = world.events.recorder.pool  # type: ignore[attr-defined]
    monkeypatch.setattr(pool, "connection", gone)
    answer = org.post("/trading/config", json={"esmClientId": "x"})
    is_envelope(answer, 503, "SERVICE_UNAVAILABLE")
    assert "canary" not in answer.text
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("exception", "status"),
    [
        (psycopg.errors.QueryCanceled(), 503),
        (psycopg.OperationalError(), 503),
        (IntegrityError(), 409),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_libraries_raise(exception: Exception, status: int) -> None:
    error = as_error(exception)
    assert error is not None
    assert status_of(type(error)) == status


def test_what_nobody_foresaw_has_no_error() -> None:
    assert as_error(KeyError("x")) is None


def test_lost_connections_cost_nobody_a_query(world: World, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.services.queries, "_check", None)  # which would find them first
    assert org.get("/trading/config").status_code == 200
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE application_name = 'wattledger queries'"
        ).fetchone()
    assert ended is not None
    assert ended[0] > 0
    assert [org.get("/trading/plants").status_code for _ in range(3)] == [200] * 3
