"""Tokens are cached, fetched by one caller for all, refreshed once at a 401, and dropped with their credentials."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest

from application.ports import Partner
from domain.errors import EsmUnreachable
from infra.esm import Esm
from infra.esm_schema import Malformed, TokenAnswer
from infra.esm_token import Token, Tokens
from infra.sandbox.esm import SandboxEsm
from infra.sandbox.faults import Fault
from tests.esm.test_faults import BLOCKS

PARTNER = Partner(uuid4(), "https://partner.example", "id", "secret")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def counting(expires_in: float = 100) -> Callable[[Partner], Token]:
    """A fetch whose tokens are t1, t2, …"""
    numbers = iter(range(1, 100))
    return lambda _: Token(f"t{next(numbers)}", expires_in)


def test_a_token_serves_until_80_percent_of_its_life() -> None:
    clock = Clock()
    tokens = Tokens(counting(), clock)
    assert tokens.get(PARTNER, 1) == "t1"
    clock.now += 79.9
    assert tokens.get(PARTNER, 1) == "t1"
    clock.now += 0.2
    assert tokens.get(PARTNER, 1) == "t2"


@pytest.mark.parametrize(
    "changed", [{"client_secret": "new"}, {"client_id": "new"}, {"api_url": "https://new.example"}]
)
def test_new_credentials_drop_it(changed: dict[str, str]) -> None:
    tokens = Tokens(counting())
    assert tokens.get(PARTNER, 1) == "t1"
    assert tokens.get(replace(PARTNER, **changed), 1) == "t2"  # type: ignore[arg-type]
    assert tokens.get(replace(PARTNER, **changed), 1) == "t2"  # type: ignore[arg-type]


def test_organizations_share_none() -> None:
    tokens = Tokens(counting())
    other = replace(PARTNER, organization_id=uuid4())
    assert [tokens.get(partner, 1) for partner in (PARTNER, other, PARTNER, other)] == ["t1", "t2", "t1", "t2"]


def test_a_rejected_token_is_replaced_once_for_all_who_had_it() -> None:
    tokens = Tokens(counting())
    assert tokens.get(PARTNER, 1) == "t1"
    assert tokens.get(PARTNER, 1, rejected="t1") == "t2"
    assert tokens.get(PARTNER, 1, rejected="t1") == "t2"


def test_one_fetches_for_all_who_wait() -> None:
    callers = 8
    together = threading.Barrier(callers)
    all_are_in = threading.Event()
    fetched = []

    def fetch(partner: Partner) -> Token:
        fetched.append(partner)
        assert all_are_in.wait(5)
        return Token("t1", 100)

    tokens = Tokens(fetch)

    def get() -> str:
        if together.wait(5) == 0:
            all_are_in.set()
        return tokens.get(PARTNER, 5)

    with ThreadPoolExecutor(callers) as pool:
        got = [future.result() for future in [pool.submit(get) for _ in range(callers)]]
    assert got == ["t1"] * callers
    assert len(fetched) == 1


def test_waiting_for_anothers_fetch_has_its_end() -> None:
    fetching, ending = threading.Event(), threading.Event()

    def fetch(_: Partner) -> Token:
        fetching.set()
        assert ending.wait(5)
        return Token("t1", 100)

    tokens = Tokens(fetch)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(tokens.get, PARTNER, 5)
        assert fetching.wait(5)
        with pytest.raises(TimeoutError):
            tokens.get(PARTNER, 0.01)
        ending.set()
        assert leader.result() == "t1"


def test_a_failed_fetch_is_not_kept() -> None:
    outcomes = iter([OSError("down"), None])

    def fetch(_: Partner) -> Token:
        if failure := next(outcomes):
            raise failure
        return Token("t1", 100)

    tokens = Tokens(fetch)
    with pytest.raises(OSError, match="down"):
        tokens.get(PARTNER, 1)
    assert tokens.get(PARTNER, 1) == "t1"


def test_many_calls_over_http_ask_for_one_token(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: esm.plants(partner), range(24)))
    assert sandbox.calls == {"token": 1, "list": 24}


def test_a_401_is_answered_by_one_refresh(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    esm.plants(partner)
    sandbox.revoke_tokens()
    assert len(esm.plants(partner).plants) == 3
    assert sandbox.calls == {"token": 2, "list": 3}


def test_a_second_401_is_the_answer(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    sandbox.faults.add(Fault(route="list", fault="401", times=9))
    with pytest.raises(EsmUnreachable, match=r"^ESM answered 401 to the plant list$"):
        esm.plants(partner)
    assert sandbox.calls == {"token": 2, "list": 2}


def test_an_update_that_met_a_401_is_sent_again_and_applied_once(
    esm: Esm, sandbox: SandboxEsm, partner: Partner
) -> None:
    esm.plants(partner)
    sandbox.revoke_tokens()
    answer = esm.update_config(partner, "esm-001", 1, BLOCKS, validate_only=False)
    assert not answer.is_error
    assert sandbox.calls["update"] == 2
    assert sandbox.plants.get("esm-001").version == 2


def test_new_credentials_are_used_at_once(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    esm.plants(partner)
    with pytest.raises(EsmUnreachable, match=r"^ESM refused the client id and secret$"):
        esm.plants(replace(partner, client_secret="wrong"))
    assert len(esm.plants(partner).plants) == 3
    assert sandbox.calls["token"] == 3


def test_a_token_with_a_line_break_is_malformed_and_not_quoted() -> None:
    for token in ("a\r\nX: y", "a b", "", "é", "x\n"):
        with pytest.raises(Malformed) as failed:
            TokenAnswer.read(f'{{"access_token": {token!r}, "expires_in": 5}}'.replace("'", '"').encode())
        assert str(failed.value) == ""
