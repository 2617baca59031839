"""Scheduled and forced syncs on PostgreSQL: one at a time, later after each failure, cheap while nothing changes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from application.trading import TradingConfigChange
from domain.errors import EsmNotConfigured, Unavailable
from infra import postgres, sync_turns
from infra.esm import Esm
from infra.event_mapper import EventMapper
from infra.sandbox.esm import CLIENT_ID, CLIENT_SECRET, SandboxEsm
from infra.sandbox.esm_plants import SandboxPlants, believable_plants
from interfaces.worker import WorkerParts
from interfaces.worker.jobs import Jobs
from projections.follower import Follower
from projections.read_models import READ_MODELS
from tests.worker.site import Site


def catch_up(site: Site) -> None:
    """The read models know all that is recorded."""
    parts = parts_of(site)
    Follower("projector", READ_MODELS, parts.connect, parts.decode, announces=True).catch_up()


def parts_of(site: Site) -> WorkerParts:
    return WorkerParts(
        relay=site.relay,
        publisher=site.publisher,
        plants=site.plants,
        plant_configs=site.plant_configs,
        broker=site.broker,
        connect=partial(postgres.connect, site.url, "worker"),
        decode=EventMapper().decoder,
        due=site.turns.due,
    )


@pytest.fixture
def site(local: Site) -> Site:
    catch_up(local)
    return local


@pytest.fixture
def jobs(site: Site) -> Iterator[Jobs]:
    jobs = Jobs(parts_of(site))
    yield jobs
    jobs.stop()


def turn(site: Site) -> tuple[int, float]:
    """How often it failed in a row, and in how many minutes its turn comes next."""
    ((failures, wait),) = site.rows(
        "SELECT failures, extract(epoch FROM next_at - now())::float / 60 FROM sync_turns WHERE organization_id = %s",
        site.organization_id,
    )
    return failures, wait


def make_due(site: Site) -> None:
    site.execute("UPDATE sync_turns SET next_at = now()")


def events(site: Site) -> int:
    return int(site.rows("SELECT count(*) FROM events")[0][0])


# --- when
def test_each_failure_waits_longer_up_to_four_hours(site: Site, jobs: Jobs) -> None:
    waits = []
    for _ in range(7):
        site.esm.fail("plants")
        make_due(site)
        jobs.run("sync")
        waits.append(turn(site)[1])
    for wait, expected in zip(waits, [15, 30, 60, 120, 240, 240, 240], strict=True):
        assert 0.79 * expected <= wait <= min(1.21 * expected, 240.1)
    make_due(site)
    jobs.run("sync")
    failures, wait = turn(site)
    assert failures == 0
    assert 11.9 <= wait <= 18.1


def test_a_forgotten_secret_waits_as_long_and_is_told_once(site: Site, jobs: Jobs) -> None:
    site.secrets.forget_all(site.organization_id)
    before = events(site)
    for failures in (1, 2, 3):
        make_due(site)
        jobs.run("sync")
        assert turn(site)[0] == failures
        assert site.turns.due() == []
    assert events(site) == before + 1
    assert site.trading.load(site.organization_id).last_sync_error == "The ESM client secret was forgotten: set it anew"
    with site.acting(), pytest.raises(EsmNotConfigured):
        site.plants.sync(site.organization_id)
    with site.acting():
        change = TradingConfigChange.model_validate({"esmClientSecret": "a-new-secret"})
        site.trading.change_config(site.organization_id, change)
        site.plants.sync(site.organization_id)
    assert site.trading.load(site.organization_id).last_sync_error is None
    assert turn(site)[0] == 0


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), Unavailable("The database is busy")])
def test_whatever_fails_waits(site: Site, jobs: Jobs, bug: Exception) -> None:
    site.esm.fail("plants", bug)
    make_due(site)
    jobs.run("sync")
    assert turn(site)[0] == 1


def test_only_enabled_organisations_are_due(site: Site) -> None:
    make_due(site)
    assert site.turns.due() == [site.organization_id]
    with site.acting():
        site.trading.disable(site.organization_id)
    catch_up(site)
    assert site.turns.due() == []


def test_the_interval_has_a_jitter_of_a_fifth(site: Site) -> None:
    waits = []
    for _ in range(40):
        site.turns.succeeded(site.organization_id)
        waits.append(turn(site)[1])
    assert 11.9 <= min(waits) < 14
    assert 16 < max(waits) <= 18.1


# --- single flight
def test_one_at_a_time_over_all_processes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that hold other connections, as two processes do; a turn ends with its connection."""
    with psycopg.connect(site.url) as other:
        other.execute(
            "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (sync_turns.LOCK_CLASS, str(site.organization_id))
        )
        monkeypatch.setattr(sync_turns, "PATIENCE_MS", 50)
        asked = site.esm.calls["plants"]
        with site.acting(), pytest.raises(Unavailable, match="Another sync"):
            site.plants.sync(site.organization_id)
        assert site.esm.calls["plants"] == asked
        assert turn(site)[0] == 0  # waiting in vain is no failure of the partner's
    with site.acting():
        assert site.plants.sync(site.organization_id).synced == 2


def test_a_turn_may_be_waited_for_longer_than_a_statement(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT_MS", 500)
    monkeypatch.setattr(sync_turns, "PATIENCE_MS", 700)
    with postgres.pool(site.url, 1, "one") as one, postgres.pool(site.url, 1, "other") as other:
        turns = [sync_turns.PostgresSyncTurns(site.pool, pool) for pool in (one, other)]
        with (
            turns[0].take(site.organization_id),
            pytest.raises(Unavailable, match="Another sync"),
            turns[1].take(site.organization_id),
        ):
            pass


def test_those_who_wait_sync_one_after_the_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = 0, 0
    listed = site.esm.plants

    def slow(partner: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return listed(partner)

    monkeypatch.setattr(site.esm, "plants", slow)

    def sync() -> None:
        with site.acting():
            site.plants.sync(site.organization_id)

    threads = [threading.Thread(target=sync) for _ in range(1 + sync_turns.WAITING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1


# --- what it costs
@contextmanager
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts every wait for an answer of the database's, BEGIN and COMMIT included."""
    counted = [0]
    wait = psycopg.Connection.wait

    def counting(self: Any, work: Any, *arguments: Any) -> Any:
        # A commit without a transaction asks nothing.
        idle = self.info.transaction_status == TransactionStatus.IDLE
        counted[0] += not (idle and work.__name__ == "_commit_gen")
        return wait(self, work, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.Connection, "wait", counting)
        yield counted


def first_sync(site: Site, plants: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The round trips of the first sync of so many plants."""
    site.esm.state = SandboxPlants(believable_plants(plants))
    with site.acting(), round_trips(monkeypatch) as first:
        assert site.plants.sync(site.organization_id).synced == plants
    catch_up(site)
    return first[0]


@pytest.mark.parametrize("plants", [500, 5000])
def test_unchanged_plants_cost_a_round_trip_a_hundred_and_no_event(
    site: Site, monkeypatch: pytest.MonkeyPatch, plants: int
) -> None:
    first = first_sync(site, plants, monkeypatch)
    before = events(site)
    with site.acting(), round_trips(monkeypatch) as again:
        site.plants.sync(site.organization_id)
    show = f"{plants} plants: first {first} round trips; unchanged {again[0]} round trips"
    assert events(site) == before
    assert again[0] <= plants // 100 + 20, show
    assert first <= 2 * plants // 100 + 30, show


@pytest.mark.bench
@pytest.mark.parametrize("plants", [500, 5000])
def test_unchanged_plants_cost_little_beside_the_partners_own_time(site: Site, plants: int) -> None:
    """Over HTTP; the goal is a second for 500."""
    credentials = {"esmClientId": CLIENT_ID, "esmClientSecret": CLIENT_SECRET}
    with SandboxEsm(plants) as sandbox, closing(Esm(["127.0.0.0/8"])) as esm, site.acting():
        change = TradingConfigChange.model_validate({"esmApiUrl": sandbox.url, **credentials})
        partner = site.trading.partner(site.trading.change_config(site.organization_id, change))
        assert partner is not None
        syncing = replace(site.plants, esm=esm)
        assert syncing.sync(site.organization_id).synced == plants
        catch_up(site)
        before = events(site)
        theirs, whole = [], []
        for _ in range(5):
            theirs.append(seconds(partial(esm.plants, partner)))
            whole.append(seconds(partial(syncing.sync, site.organization_id)))
        assert events(site) == before
    ours = median(whole) - median(theirs)
    print(f"\n{plants} unchanged plants: {median(whole):.3f} s, of which the list {median(theirs):.3f} s")  # noqa: T201
    assert ours <= plants / 500


def seconds(do: Callable[[], object]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began
