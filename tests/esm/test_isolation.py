"""One organisation's stalled partner takes none of the others' threads, connections or tokens."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ssl import SSLContext
from uuid import uuid4

import httpx
import pytest

from application.ports import Partner
from domain.errors import EsmUnreachable
from infra import bootstrap
from infra.bulkhead import Bulkhead, Overcrowded
from infra.embedded import EmbeddedPostgres
from infra.esm import Breaker, Esm, Retries, Room, Timeouts
from infra.sandbox.esm import SandboxEsm
from infra.sandbox.faults import Fault, RouteName
from tests.esm.conftest import LOCAL, QUICKLY
from tests.esm.installation import Installation, Organisation, installed
from tests.esm.test_tokens import Clock
from tests.servers import database
from tests.worker.site import until

MANY = 50
US, THEM = uuid4(), uuid4()


def stall(sandbox: SandboxEsm, route: str, times: int = 1000) -> None:
    sandbox.faults.add(Fault.model_validate({"route": route, "fault": "slow", "times": times, "seconds": 600}))


def test_a_full_room_refuses_once_a_call_has_lasted_too_long() -> None:
    clock = Clock()
    bulkhead = Bulkhead(1, 5, 9, clock)
    with bulkhead.room(US):
        clock.now += 5
        with pytest.raises(Overcrowded), bulkhead.room(US):
            pass
        with bulkhead.room(THEM):
            pass
    with bulkhead.room(US):
        pass


def test_all_together_leave_threads_to_others() -> None:
    clock = Clock()
    bulkhead = Bulkhead(8, 5, 2, clock)
    with bulkhead.room(US), bulkhead.room(THEM):
        clock.now += 5
        with pytest.raises(Overcrowded), bulkhead.room(uuid4()):
            pass
    with bulkhead.room(uuid4()):
        pass


def test_a_full_room_is_waited_for_while_it_moves() -> None:
    bulkhead = Bulkhead(2, 10, 99)
    inside, most = [0], [0]
    lock = threading.Lock()

    def call(_: int) -> None:
        with bulkhead.room(US):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            with lock:
                inside[0] -= 1

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(call, range(400)))
    assert inside == [0]
    assert most[0] <= 2


def test_a_room_is_left_also_by_a_call_that_fails() -> None:
    bulkhead = Bulkhead(1, 0, 9)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), bulkhead.room(US):
            raise ZeroDivisionError


def test_fifty_calls_at_once_ask_for_one_token(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    with ThreadPoolExecutor(MANY) as threads:
        assert all(len(listed.plants) == 3 for listed in threads.map(lambda _: esm.plants(partner), range(MANY)))
    assert sandbox.calls == {"token": 1, "list": MANY}


def test_fifty_calls_whose_token_is_refused_fetch_one_new(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    esm.plants(partner)
    sandbox.revoke_tokens()
    sandbox.calls.clear()
    with ThreadPoolExecutor(MANY) as threads:
        assert all(len(listed.plants) == 3 for listed in threads.map(lambda _: esm.plants(partner), range(MANY)))
    assert sandbox.calls["token"] == 1
    assert MANY < sandbox.calls["list"] <= 2 * MANY


def test_while_a_token_request_stalls_nobody_queues_behind_it(
    tls: SSLContext, sandbox: SandboxEsm, partner: Partner
) -> None:
    esm = Esm(LOCAL, timeouts=Timeouts(1, 1), room=Room(calls=4, patience=0.1), tls=tls)
    stall(sandbox, "token")
    told: Counter[str] = Counter()

    def call(_: int) -> None:
        with pytest.raises(EsmUnreachable) as failed:
            esm.plants(partner)
        told[str(failed.value)] += 1

    with ThreadPoolExecutor(MANY) as threads:
        list(threads.map(call, range(MANY)))
    esm.close()
    assert sandbox.calls["token"] <= 4
    assert set(told) <= {
        "ESM did not answer the token request in time",
        "ESM is not asked: too many calls wait for slow ones already",
    }
    assert told["ESM is not asked: too many calls wait for slow ones already"] >= MANY // 2


def test_a_circuit_is_of_one_host(tls: SSLContext, sandbox: SandboxEsm, partner: Partner) -> None:
    esm = Esm(LOCAL, retries=Retries(attempts=1), breaker=Breaker(failures=2, pause=60), tls=tls)
    with SandboxEsm(client_secret=sandbox.client_secret) as other:
        well = Partner(uuid4(), other.url, other.client_id, other.client_secret)
        sandbox.faults.add(Fault(route="list", fault="500", times=2))
        for _ in range(2):
            with pytest.raises(EsmUnreachable, match="answered 500"):
                esm.plants(partner)
        with pytest.raises(EsmUnreachable, match="repeatedly"):
            esm.plants(partner)
        assert len(esm.plants(well).plants) == 3
    esm.close()


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_get_is_tried_as_often_as_set(tls: SSLContext, sandbox: SandboxEsm, partner: Partner, attempts: int) -> None:
    esm = Esm(LOCAL, retries=Retries(attempts, 0.01, 0.01), tls=tls)
    sandbox.faults.add(Fault(route="list", fault="500", times=100))
    with pytest.raises(EsmUnreachable):
        esm.plants(partner)
    esm.close()
    assert sandbox.calls["list"] == attempts


def test_retries_end_with_the_deadline(tls: SSLContext, sandbox: SandboxEsm, partner: Partner) -> None:
    esm = Esm(LOCAL, timeouts=Timeouts(1, 1), retries=Retries(1000, 0.05, 0.1), breaker=Breaker(1000), tls=tls)
    sandbox.faults.add(Fault(route="list", fault="500", times=1000))
    with pytest.raises(EsmUnreachable, match=r"to the plant list$|in time$"):  # on a busy machine the last one is cut
        esm.plants(partner)
    esm.close()
    assert sandbox.calls["list"] < 30  # else it would be 1000


@pytest.fixture
def installation(
    postgres_server: EmbeddedPostgres, migrated_template: str, monkeypatch: pytest.MonkeyPatch, tls: SSLContext
) -> Iterator[Installation]:
    """As it is served, but for a breaker that would end the stall."""
    monkeypatch.setattr(
        bootstrap,
        "Esm",
        lambda allowed: Esm(allowed, timeouts=Timeouts(3, 25), retries=QUICKLY, breaker=Breaker(10_000), tls=tls),
    )
    with database(postgres_server, migrated_template) as url, installed(url, list(LOCAL)) as running:
        yield running


def configured(organisation: Organisation, sandbox: SandboxEsm) -> None:
    answer = organisation.configure(
        esmApiUrl=sandbox.url, esmClientId=sandbox.client_id, esmClientSecret=sandbox.client_secret
    )
    assert answer.status_code == 200
    assert organisation.post("/plants/sync").json() == {"synced": 3, "errors": 0}


@pytest.mark.parametrize("spoiled", ["config", "list"])
def test_others_are_answered_while_one_partner_is_stalled(
    installation: Installation, sandbox: SandboxEsm, spoiled: RouteName
) -> None:
    """More calls than the API has threads for commands, or more syncs than it lets one organisation ask for."""
    with (
        SandboxEsm(client_secret=sandbox.client_secret) as stalled,
        installation.organisation() as slow,
        installation.organisation() as quick,
        ThreadPoolExecutor(2 * bootstrap.THREADS) as threads,
    ):
        configured(slow, stalled)
        configured(quick, sandbox)
        stall(stalled, spoiled)
        calls = [threads.submit(ask, slow) for ask in asking(spoiled)]
        expected = Room().calls if spoiled == "config" else 1
        until(lambda: stalled.calls[spoiled] >= expected, "the stall")
        for _ in range(3):
            assert quick.client.get(f"/plants/{quick.plant()}/config").status_code == 200
            assert quick.post("/plants/sync").status_code == 200
            assert quick.configure(esmClientId="sandbox").status_code == 200
        # Those that hang are still there: nobody had to wait for their end.
        assert sum(not call.done() for call in calls) >= expected
        stalled.stop()
        assert {call.result().status_code for call in calls} == {503}


def test_commands_are_answered_while_many_partners_are_stalled(installation: Installation, sandbox: SandboxEsm) -> None:
    """Those of anyone, that is, which need no partner."""
    with (
        SandboxEsm(client_secret=sandbox.client_secret) as stalled,
        ExitStack() as organisations,
        ThreadPoolExecutor(4 * bootstrap.THREADS) as threads,
    ):
        quick, *slow = [organisations.enter_context(installation.organisation()) for _ in range(6)]
        for each in slow:
            configured(each, stalled)
        stalled.calls.clear()
        stall(stalled, "list")
        stall(stalled, "config")
        asked = [*asking("list"), *asking("config")[: bootstrap.THREADS // 2]]
        calls = [threads.submit(ask, each) for ask in asked for each in slow]
        until(lambda: stalled.calls["config"] + stalled.calls["list"] >= Room().total, "the stall")
        for number in range(3):
            assert quick.configure(esmClientId=f"id-{number}").status_code == 200
        # None of those that hang has ended, or another would have come.
        assert stalled.calls["config"] + stalled.calls["list"] == Room().total
        stalled.stop()
        assert {call.result().status_code for call in calls} == {503}


def asking(spoiled: str) -> list[Callable[[Organisation], httpx.Response]]:
    if spoiled == "list":
        return [lambda slow: slow.post("/plants/sync")] * 12
    return [lambda slow: slow.client.get(f"/plants/{slow.plant()}/config")] * (2 * bootstrap.THREADS)
