"""Every fault of the ESM on every route, as callers of our API see it: the answer that api.md names, in bounded time,
nothing lost, and nothing of the partner told anywhere."""

import logging
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from application.context import Metadata, acting
from infra import bootstrap
from infra.embedded import EmbeddedPostgres
from infra.esm import Breaker, Esm
from infra.sandbox.esm import TOKEN_PREFIX, SandboxEsm
from infra.sandbox.faults import CANARY, RouteName
from tests.esm.certificates import self_signed
from tests.esm.conftest import HASTY, PATIENT, QUICKLY
from tests.esm.installation import Installation, Organisation, installed
from tests.http.world import is_envelope
from tests.servers import database

SECRET = "canary-secret-77ab"
PLAN = {"from": "00:00", "to": "24:00", "pBatMin": -5, "pBatMax": 5, "socMin": 10, "socMax": 90}
ALWAYS = 1000
FAULTS = {
    "401 once": ("401", 1),
    "401 always": ("401", ALWAYS),
    **{
        fault: (fault, ALWAYS)
        for fault in (
            *("403", "429", "500", "502", "503", "slow", "slow_body", "huge", "truncated", "wrong_type", "malformed"),
            *("wrong_schema", "redirect", "refused", "reset", "tls"),
        )
    },
}
# The work is done, and only its answer does not come through.
ANSWER_SPOILED = {"huge", "truncated", "wrong_type", "malformed", "wrong_schema"}
# A port that goes away does so after the answer before the one that is to find it gone; None: at once.
BEFORE: dict[RouteName, RouteName | None] = {
    "token": None, "list": "token", "config": None, "update": "config", "request": None,
}  # fmt: skip


class Said(logging.Handler):
    """All that is logged, with every field and traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {vars(record)}")


@dataclass(frozen=True)
class Scene:
    """An installation whose one partner is the sandbox, over TLS."""

    installation: Installation
    sandbox: SandboxEsm
    trust: ssl.SSLContext
    said: Said

    def spoil(self, route: RouteName, name: str) -> None:
        """Over the admin route, as anyone can."""
        fault, times = FAULTS[name]
        goes_away = fault in {"refused", "tls"}
        body = {"fault": fault, "route": BEFORE[route] if goes_away else route, "times": 1 if goes_away else times}
        httpx.post(f"{self.sandbox.url}/sandbox/faults", json=body, verify=self.trust).raise_for_status()

    def hurry(self, hasty: bool) -> None:
        esm = self.installation.parts.trading.esm
        assert isinstance(esm, Esm)
        esm._timeouts = HASTY if hasty else PATIENT

    def finish(self, organisation: Organisation) -> None:
        """What the worker does with a change that is answered later."""
        with acting(Metadata("scheduler", "scheduler", "test")):
            self.installation.parts.plant_configs.finish(organisation.plant())


@pytest.fixture(scope="module")
def scene(
    postgres_server: EmbeddedPostgres, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    certificate = self_signed(tmp_path_factory.mktemp("tls") / "sandbox.pem", "localhost", "127.0.0.1")
    trust = ssl.create_default_context(cafile=certificate)
    esm = partial(Esm, timeouts=PATIENT, retries=QUICKLY, breaker=Breaker(failures=ALWAYS, pause=60), tls=trust)
    said, root, level = Said(), logging.getLogger(), logging.getLogger().level
    with (
        pytest.MonkeyPatch.context() as patch,
        database(postgres_server, migrated_template) as url,
        SandboxEsm(client_secret=SECRET, base_path="/partner/v2", certificate=Path(certificate)) as sandbox,
    ):
        patch.setattr(bootstrap, "Esm", esm)
        root.addHandler(said)
        root.setLevel(logging.DEBUG)
        with installed(url, ["127.0.0.0/8"]) as installation:
            yield Scene(installation, sandbox, trust, said)
            stored = list(installation.stored())
            assert len(stored) > 100
            _is_discreet(stored)
        root.setLevel(level)
        root.removeHandler(said)


@pytest.fixture
def organisation(scene: Scene) -> Iterator[Organisation]:
    """Synced once, and its token is known to nobody any more: the next call has to ask for one."""
    scene.sandbox.reset()
    scene.said.lines.clear()
    scene.installation.seen.clear()
    partner = {"esmApiUrl": scene.sandbox.url, "esmClientId": scene.sandbox.client_id, "esmClientSecret": SECRET}
    with scene.installation.organisation(**partner) as organisation:
        yield organisation


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("route", BEFORE)
def test_a_fault_is_answered_as_promised(scene: Scene, organisation: Organisation, route: RouteName, name: str) -> None:
    if route in {"config", "update", "request"}:
        assert organisation.post("/plants/sync").status_code == 200
    passes = name == "401 once" and route != "token"
    scene.hurry(name.startswith("slow"))
    started = time.monotonic()
    match route:
        case "token" | "list":
            _spoiled_sync(scene, organisation, route, name, passes)
        case "config":
            _spoiled_reading(scene, organisation, name, passes)
        case "update":
            _spoiled_change(scene, organisation, name, passes)
        case "request":
            _spoiled_polling(scene, organisation, name, passes)
    assert time.monotonic() - started < 30  # a slow one takes a minute
    scene.hurry(False)
    _nothing_is_lost(scene, organisation)
    assert scene.said.lines
    assert scene.installation.seen
    _is_discreet([*scene.said.lines, *scene.installation.seen])


def _spoiled_sync(scene: Scene, organisation: Organisation, route: RouteName, name: str, passes: bool) -> None:
    scene.spoil(route, name)
    answer = organisation.post("/plants/sync")
    config = organisation.get("/config").json()
    if passes:
        assert (answer.status_code, answer.json()) == (200, {"synced": 3, "errors": 0})
    else:
        _is_unavailable(answer, name)
        assert config["lastSyncError"] == answer.json()["message"]
        assert config["lastSyncAt"] is None


def _spoiled_reading(scene: Scene, organisation: Organisation, name: str, passes: bool) -> None:
    scene.spoil("config", name)
    answer = organisation.get(f"/plants/{organisation.plant()}/config")
    if passes:
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
    else:
        _is_unavailable(answer, name)


def _spoiled_change(scene: Scene, organisation: Organisation, name: str, passes: bool) -> None:
    """An ESM that applied the plan, and could not say so, is asked what it has."""
    scene.spoil("update", name)
    entry = _changed(organisation)
    applied = scene.sandbox.plants.get("esm-001").version == 2
    told = (entry["isError"], entry["isTerminal"], entry["resultCode"])
    unreachable, found = (True, True, "ESM_UNREACHABLE"), (False, True, "APPLIED")
    if name.startswith("slow"):  # a busy machine may not even come to read the version, or the plan afterwards
        assert told == unreachable or (applied and told == found)
    elif passes:
        assert applied
        assert told == (False, True, "OK")
    else:
        assert applied == (name in ANSWER_SPOILED)
        assert told == (found if applied else unreachable)
    assert _log(organisation) == [entry]


def _spoiled_polling(scene: Scene, organisation: Organisation, name: str, passes: bool) -> None:
    """A poll that fails changes nothing: the entry stays open, until a later one brings the end."""
    scene.sandbox.plants.change("esm-001", late_polls=1)
    taken = _changed(organisation)
    assert (taken["isError"], taken["isTerminal"]) == (False, False)
    scene.spoil("request", name)
    scene.finish(organisation)
    if not passes:
        assert _log(organisation) == [taken]
        refused = organisation.post(f"/plants/{organisation.plant()}/config", json={"timeConfigs": [PLAN]})
        is_envelope(refused, 409, "CONFLICT")
    scene.sandbox.faults.clear()
    _come_back(scene)
    scene.finish(organisation)
    (done,) = _log(organisation)
    assert (done["id"], done["isError"], done["isTerminal"], done["resultCode"]) == (taken["id"], False, True, "OK")


def _nothing_is_lost(scene: Scene, organisation: Organisation) -> None:
    """Once the partner is well again, so is everything, and the log has one truthful entry for each change."""
    scene.sandbox.faults.clear()
    _come_back(scene)
    before = _log(organisation)
    assert organisation.post("/plants/sync").json() == {"synced": 3, "errors": 0}
    config = organisation.get("/config").json()
    assert config["lastSyncError"] is None
    assert config["lastSyncAt"] is not None
    plants = organisation.get("/plants").json()["data"]
    assert [plant["linked"] for plant in plants] == [True] * 3
    scene.sandbox.plants.change("esm-001", late_polls=0)
    again = _changed(organisation)
    assert (again["isError"], again["isTerminal"]) == (False, True)
    assert _log(organisation) == [again, *before]


def _is_discreet(told: list[str]) -> None:
    for canary in (SECRET, CANARY, TOKEN_PREFIX, "169.254.169.254"):
        hidden = canary.encode().hex()  # how PostgreSQL prints bytes
        assert [line for line in told if canary in line or hidden in line] == []


def _is_unavailable(answer: httpx.Response, name: str) -> None:
    assert is_envelope(answer, 503, "SERVICE_UNAVAILABLE") == {"reason": "ESM_UNREACHABLE"}
    assert answer.headers["retry-after"] == ("7" if name == "429" else "5")
    assert answer.json()["message"].startswith("ESM")


def _changed(organisation: Organisation) -> dict[str, Any]:
    answer = organisation.post(f"/plants/{organisation.plant()}/config", json={"timeConfigs": [PLAN]})
    assert answer.status_code == 200, answer.text
    entry: dict[str, Any] = answer.json()
    return entry


def _log(organisation: Organisation) -> list[dict[str, Any]]:
    answer = organisation.get(f"/plants/{organisation.plant()}/config-log")
    if answer.status_code == 404:  # of a plant that no sync has brought yet
        return []
    entries: list[dict[str, Any]] = answer.json()["data"]
    return entries


def _come_back(scene: Scene) -> None:
    assert scene.sandbox._port is not None
    scene.sandbox._port.come_back()
