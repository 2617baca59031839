"""Rate limits, and a database that is busy or gone."""

import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from eventsourcing.persistence import IntegrityError
from psycopg_pool import PoolTimeout

from application.context import acting
from domain.errors import TooManyRequests
from infra.embedded import EmbeddedPostgres
from infra.postgres import async_pool
from infra.secret_box import OperatorKey
from interfaces.http.credentials import Caller, Right
from interfaces.http.errors import as_error, status_of
from interfaces.http.rate_limits import Limiter
from interfaces.http.services import RateLimits
from projections.api_keys import api_keys
from tests.http.world import COMMANDER, Org, World, is_envelope, served
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
    async def ask() -> None:
        limiter = Limiter(RateLimits(reads=2))
        callers = [Caller("user", ONE, organization, Right.READ) for organization in (ONE, TWO, ONE)]
        assert [(await limiter.spend("reads", caller))["RateLimit-Remaining"] for caller in callers[:2]] == ["1", "0"]
        with pytest.raises(TooManyRequests):
            await limiter.spend("reads", callers[2])

    anyio.run(ask)


LIMIT = 200
SLICE = LIMIT // 20


def spent_by(limiters: list[Limiter], caller: Caller) -> "Callable[[], Awaitable[int]]":
    """How many of many calls the processes let through, each in its turn."""

    async def ask() -> int:
        let_through = 0
        for number in range(LIMIT * 2):
            try:
                await limiters[number % len(limiters)].spend("reads", caller)
                let_through += 1
            except TooManyRequests:
                pass
        return let_through

    return ask


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_budget_is_one_over_all_processes(database_url: str, processes: int) -> None:
    async def ask() -> int:
        pools = [async_pool(database_url, 2, "queries") for _ in range(processes)]
        for each in pools:
            await each.open()
        try:
            limiters = [Limiter(RateLimits(reads=LIMIT), each) for each in pools]
            return await spent_by(limiters, Caller("key", ONE, TWO, Right.READ))()
        finally:
            for each in pools:
                await each.close()

    assert LIMIT <= anyio.run(ask) <= LIMIT + processes * SLICE


def test_a_database_that_hangs_or_is_gone_holds_up_no_call(database_url: str) -> None:
    async def ask(url: str, lock: bool) -> tuple[int, float]:
        queries = async_pool(url, 2, "queries")
        await queries.open(wait=False)
        try:
            with psycopg.connect(database_url) as holder:
                if lock:
                    holder.execute("LOCK TABLE rate_budgets")
                began = time.monotonic()
                limiter = Limiter(RateLimits(reads=LIMIT), queries)
                through = await spent_by([limiter], Caller("key", ONE, TWO, Right.READ))()
                return through, time.monotonic() - began
        finally:
            await queries.close()

    for url, lock in ((database_url, True), ("postgresql://127.0.0.1:9/none", False)):
        through, seconds = anyio.run(ask, url, lock)
        assert through == LIMIT
        assert seconds < 2  # twenty settlements that each waited for the pool would take 40


def test_two_served_apps_share_limits_and_revocation(postgres_server: EmbeddedPostgres, migrated_template: str) -> None:
    keys, limits = [OperatorKey.random()], RateLimits(4, 3, 2)
    with (
        database(postgres_server, migrated_template) as url,
        served(url, limits, keys=keys) as one,
        served(url, limits, keys=keys) as two,
    ):
        org = one.organisation()
        key = org.key()
        headers = {"X-API-Key": key.api_key}
        statuses = [world.client.get("/trading/config", headers=headers).status_code for world in (one, two) * 3]
        assert statuses == [200] * 4 + [429] * 2
        with acting(COMMANDER) as task:
            one.organisations.revoke_key(org.id, key.id)
        for world in (one, two):
            world.caught_up(task.position)
            is_envelope(world.client.get("/trading/config", headers=headers), 401, "UNAUTHORIZED")


def test_the_last_use_of_a_key_is_listed(world: World, org: Org) -> None:
    used, idle = org.key(), org.key()
    begun = datetime.now(UTC)
    assert world.client.get("/trading/config", headers={"X-API-Key": used.api_key}).status_code == 200
    listed: dict[UUID, datetime | None] = {}
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        for _ in range(200):
            listed = {key.id: key.last_used_at for key in api_keys(connection, org.id)}
            if listed[used.id]:
                break
            time.sleep(0.02)
    at = listed[used.id]
    assert at is not None
    assert at >= begun
    assert listed[idle.id] is None


def test_busy_pool_is_unavailable_soon(world: World, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise PoolTimeout

    monkeypatch.setattr(type(world.services.queries), "getconn", exhausted)
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
