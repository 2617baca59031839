"""Whatever the ESM does wrong becomes one clean sentence in bounded time, and tells no secret."""

import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from application.ports import EsmPlantList, Partner
from domain.errors import EsmUnreachable
from infra.esm import Breaker, Esm
from infra.sandbox.esm import SandboxEsm
from infra.sandbox.faults import CANARY, Fault, RouteName
from tests.esm.conftest import HASTY, LOCAL, QUICKLY, SECRET

BLOCKS = SandboxEsm().plants.get("esm-001").time_configs
NAMES: dict[RouteName, str] = {
    "token": "token request",
    "list": "plant list",
    "config": "plant config",
    "update": "config update",
    "request": "request status",
}
SENTENCES = {
    "403": "ESM answered 403 to the {}",
    "429": "ESM answered 429 to the {}",
    "500": "ESM answered 500 to the {}",
    "502": "ESM answered 502 to the {}",
    "slow": "ESM did not answer the {} in time",
    "slow_body": "ESM did not answer the {} in time",
    "huge": "ESM's answer to the {} is larger than 1 MB",
    "truncated": "ESM broke off its answer to the {}",
    "malformed": "ESM's answer to the {} is not what its API promises",
    "wrong_type": "ESM's answer to the {} is not JSON",
    "wrong_schema": "ESM's answer to the {} is not what its API promises",
    "redirect": "ESM answered 302 to the {}",
}


def call(esm: Esm, partner: Partner, route: RouteName) -> object:
    """Calls what asks that route."""
    match route:
        case "token" | "list":
            return esm.plants(partner)
        case "config":
            return esm.plant_config(partner, "esm-001")
        case "update":
            return esm.update_config(partner, "esm-001", 1, BLOCKS, validate_only=False)
        case "request":
            return esm.request_status(partner, "REQ-000001")


def hurry(esm: Esm, partner: Partner, route: RouteName) -> None:
    """From now on it has no patience; what comes before the call is done, so that this may take its time."""
    if route != "token":
        esm.plants(partner)
    esm._timeouts = HASTY


def spoil(sandbox: SandboxEsm, route: RouteName, fault: str, times: int = 1) -> None:
    sandbox.faults.add(Fault.model_validate({"route": route, "fault": fault, "times": times}))


@pytest.fixture
def taken(sandbox: SandboxEsm) -> SandboxEsm:
    """A sandbox that has one request, REQ-000001."""
    sandbox.plants.update("esm-001", 1, BLOCKS, validate_only=True)
    return sandbox


@pytest.mark.parametrize("route", NAMES)
@pytest.mark.parametrize("fault", SENTENCES)
def test_a_fault_is_one_clean_sentence_in_time(
    esm: Esm,
    taken: SandboxEsm,
    partner: Partner,
    caplog: pytest.LogCaptureFixture,
    route: RouteName,
    fault: str,
) -> None:
    if fault.startswith("slow"):
        hurry(esm, partner, route)
    spoil(taken, route, fault, times=10)
    caplog.set_level(logging.DEBUG)
    started = time.monotonic()
    with capture_logs() as logs, pytest.raises(EsmUnreachable) as failed:
        call(esm, partner, route)
    assert time.monotonic() - started < 30  # a slow one takes a minute
    refused = route == "token" and fault == "403"
    expected = "ESM refused the client id and secret" if refused else SENTENCES[fault].format(NAMES[route])
    assert str(failed.value) == expected
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    _is_discreet(taken, [str(failed.value), repr(failed.value), caplog.text, repr(logs)])


@pytest.mark.parametrize("route", ["token", "list", "config", "request"])
@pytest.mark.parametrize("fault", ["500", "502", "503", "truncated"])
def test_a_get_is_tried_again_after_a_passing_fault(
    esm: Esm, taken: SandboxEsm, partner: Partner, route: RouteName, fault: str
) -> None:
    spoil(taken, route, fault, times=2)
    with capture_logs():
        call(esm, partner, route)
    assert taken.calls[route] == 3


@pytest.mark.parametrize("fault", SENTENCES)
def test_an_update_is_sent_once(esm: Esm, taken: SandboxEsm, partner: Partner, fault: str) -> None:
    if fault.startswith("slow"):
        hurry(esm, partner, "update")
    spoil(taken, "update", fault)
    with pytest.raises(EsmUnreachable):
        call(esm, partner, "update")
    assert taken.calls["update"] == 1


def test_an_update_whose_answer_is_lost_was_applied(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    spoil(sandbox, "update", "truncated")
    with pytest.raises(EsmUnreachable):
        call(esm, partner, "update")
    assert esm.plant_config(partner, "esm-001").version == 2


def test_who_says_when_to_come_back_is_heard(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    spoil(sandbox, "list", "429")
    with pytest.raises(EsmUnreachable) as failed:
        esm.plants(partner)
    assert failed.value.retry_after == 7
    assert sandbox.calls["list"] == 1


def test_bad_plants_are_one_sentence_each_and_hide_no_good_one(esm: Esm, sandbox: SandboxEsm, partner: Partner) -> None:
    good = esm.plants(partner).plants
    spoil(sandbox, "list", "bad_plants")
    assert esm.plants(partner) == EsmPlantList(
        good,
        (
            "Plant 4 of the list is malformed: plantId",
            "Plant 5 of the list is malformed: it is no object",
            "Plant 6 of the list is malformed: name",
            "Plant 7 of the list repeats the id of an earlier one",
        ),
        frozenset({"no-name"}),
    )


def test_a_host_that_fails_repeatedly_is_left_alone(sandbox: SandboxEsm, partner: Partner) -> None:
    esm = Esm(LOCAL, retries=replace(QUICKLY, attempts=1), breaker=Breaker(failures=3, pause=60))
    spoil(sandbox, "list", "500", times=3)
    for _ in range(3):
        with pytest.raises(EsmUnreachable, match="ESM answered 500 to the plant list"):
            esm.plants(partner)
    with pytest.raises(
        EsmUnreachable, match=r"^ESM answered 500 to the plant list, repeatedly, and is left "
    ) as failed:
        esm.plants(partner)
    assert failed.value.retry_after in range(1, 61)
    assert sandbox.calls["list"] == 3
    esm.close()


def test_a_host_that_recovered_is_asked_again(sandbox: SandboxEsm, partner: Partner) -> None:
    esm = Esm(LOCAL, retries=replace(QUICKLY, attempts=1), breaker=Breaker(failures=1, pause=0))
    spoil(sandbox, "list", "500")
    with pytest.raises(EsmUnreachable):
        esm.plants(partner)
    assert len(esm.plants(partner).plants) == 3
    esm.close()


@pytest.mark.usefixtures("sandbox")
def test_a_closed_port_is_a_clean_failure(esm: Esm, partner: Partner, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs(), pytest.raises(EsmUnreachable, match=r"^ESM can't be reached for the token request$"):
        esm.plants(replace(partner, api_url="http://127.0.0.1:9999/x"))
    assert SECRET not in caplog.text


def test_a_proxy_in_the_environment_is_not_asked(esm: Esm, partner: Partner, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = Esm(LOCAL)
    assert client.plants(partner) == esm.plants(partner)
    client.close()


def _is_discreet(sandbox: SandboxEsm, texts: list[Any]) -> None:
    for text in texts:
        for secret in (SECRET, CANARY, "169.254.169.254", *sandbox.tokens):
            assert secret not in text
