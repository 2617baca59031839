"""Idempotency-Key: a request that is repeated does nothing and answers what the first one answered."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from application.context import Metadata
from application.plant_configs import PlantConfigs
from domain import topology
from domain.errors import Unavailable
from domain.plant_config import PlantConfig
from infra.sync_turns import PostgresSyncTurns
from tests.http.reference import PLANT_CONFIG_BODY
from tests.http.world import Org, World, is_envelope

Post = Callable[..., httpx.Response]


@pytest.fixture
def key(org: Org) -> dict[str, str]:
    """A key of one caller's."""
    return {"X-API-Key": org.key().api_key, "Idempotency-Key": str(uuid4())}


@pytest.fixture
def post(org: Org) -> Post:
    return org.world.client.post


def execute(world: World, statement: str, *parameters: Any) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(statement, parameters)


def test_a_repeat_does_nothing(org: Org, world: World, post: Post, key: dict[str, str]) -> None:
    plant = org.plant()
    first = post(f"/trading/plants/{plant}/config", json=PLANT_CONFIG_BODY, headers=key)
    count, updates = world.count(), len(world.esm.updates)
    again = post(f"/trading/plants/{plant}/config", json=PLANT_CONFIG_BODY, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert (world.count(), len(world.esm.updates)) == (count, updates)


def test_a_repeat_of_a_command_that_recorded_nothing(org: Org, post: Post, key: dict[str, str]) -> None:
    first = post("/trading/config/disable", headers=key)
    org.post("/trading/config", json={"esmClientId": "other"})
    again = post("/trading/config/disable", headers=key)
    assert again.json() == first.json()
    assert again.headers["etag"] == first.headers["etag"]


def test_another_request_under_the_key_is_refused(org: Org, world: World, post: Post, key: dict[str, str]) -> None:
    post("/trading/config", json={"esmClientId": "one"}, headers=key)
    count = world.count()
    details = is_envelope(post("/trading/config", json={"esmClientId": "two"}, headers=key), 409, "CONFLICT")
    assert details == {"reason": "IDEMPOTENCY_KEY_REUSED"}
    is_envelope(post("/trading/config/disable", headers=key), 409, "CONFLICT")
    assert world.count() == count


def test_a_key_is_its_callers_own(org: Org, post: Post, key: dict[str, str]) -> None:
    assert post("/trading/config", json={"esmClientId": "one"}, headers=key).status_code == 200
    other = {**key, "X-API-Key": org.key().api_key}
    assert post("/trading/config", json={"esmClientId": "two"}, headers=other).status_code == 200


def test_a_refusal_is_not_remembered(org: Org, world: World, post: Post, key: dict[str, str]) -> None:
    world.esm.down = True
    is_envelope(post("/trading/plants/sync", headers=key), 503, "SERVICE_UNAVAILABLE")
    world.esm.__init__()  # type: ignore[misc]
    assert post("/trading/plants/sync", headers=key).status_code == 200


def test_what_failed_after_it_was_recorded_is_not_done_again(
    org: Org, world: World, post: Post, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away between the commit and the answer; meanwhile somebody else changes the same."""

    def gone(*_: object) -> None:
        raise Unavailable

    with monkeypatch.context() as away:
        away.setattr(PostgresSyncTurns, "last_success", gone)
        is_envelope(post("/trading/config", json={"esmClientId": "mine"}, headers=key), 503, "SERVICE_UNAVAILABLE")
    org.post("/trading/config", json={"esmClientId": "theirs"})
    count = world.count()
    again = post("/trading/config", json={"esmClientId": "mine"}, headers=key)
    assert (again.status_code, again.json()["esmClientId"]) == (200, "mine")
    assert world.count() == count
    assert org.get("/trading/config").json()["esmClientId"] == "theirs"


def test_a_plant_is_not_told_again_though_the_answer_could_not_be_recorded(
    org: Org, world: World, post: Post, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/trading/plants/{org.plant()}/config"
    save = PlantConfigs._save

    def gone(self: PlantConfigs, config: PlantConfig, who: Metadata | None = None) -> Any:
        if config.version > 2:
            raise Unavailable
        return save(self, config, who)

    with monkeypatch.context() as away:
        away.setattr(PlantConfigs, "_save", gone)
        is_envelope(post(path, json=PLANT_CONFIG_BODY, headers=key), 503, "SERVICE_UNAVAILABLE")
    updates = len(world.esm.updates)
    assert updates == 1
    again = post(path, json=PLANT_CONFIG_BODY, headers=key)
    assert (again.status_code, again.json()["isTerminal"]) == (200, False)
    assert len(world.esm.updates) == updates


def test_of_many_at_once_one_is_done(org: Org, world: World, post: Post, key: dict[str, str]) -> None:
    plant = org.plant()

    def change(_: int) -> httpx.Response:
        return post(f"/trading/plants/{plant}/config", json=PLANT_CONFIG_BODY, headers=key)

    before = len(world.esm.updates)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(change, range(8)))
    assert len(world.esm.updates) == before + 1
    done = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.text for answer in done}) == 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert change(0).json() == done[0].json()


def test_the_answer_of_a_killed_process_is_found(org: Org, world: World, post: Post, key: dict[str, str]) -> None:
    plant = org.plant()
    first = post(f"/trading/plants/{plant}/config", json=PLANT_CONFIG_BODY, headers=key)
    name = key["Idempotency-Key"]
    execute(world, "UPDATE idempotency_keys SET answer = NULL WHERE key = %s", name)
    path = f"/trading/plants/{plant}/config"
    details = is_envelope(post(path, json=PLANT_CONFIG_BODY, headers=key), 409, "CONFLICT")
    assert details == {"reason": "REQUEST_IN_PROGRESS"}
    execute(world, "UPDATE idempotency_keys SET created_at = created_at - interval '5 min' WHERE key = %s", name)
    updates = len(world.esm.updates)
    assert post(path, json=PLANT_CONFIG_BODY, headers=key).json() == first.json()
    assert len(world.esm.updates) == updates


def test_a_day_later_it_is_a_new_request(org: Org, world: World, post: Post, key: dict[str, str]) -> None:
    plant = org.plant()
    first = post(f"/trading/plants/{plant}/config", json=PLANT_CONFIG_BODY, headers=key)
    execute(
        world,
        "UPDATE idempotency_keys SET created_at = created_at - interval '25 h' WHERE key = %s",
        key["Idempotency-Key"],
    )
    second = post(f"/trading/plants/{plant}/config", json=PLANT_CONFIG_BODY, headers=key)
    assert second.json()["id"] > first.json()["id"]


@pytest.mark.parametrize("bad", ["", "a b", "x" * 256, "ключ".encode()])
def test_a_malformed_key(org: Org, world: World, bad: str | bytes) -> None:
    count = world.count()
    answer = org.post("/trading/config/disable", headers={"Idempotency-Key": bad})
    is_envelope(answer, 400, "VALIDATION_ERROR")
    assert world.count() == count


def test_a_killed_disable_is_finished(org: Org, world: World, post: Post, key: dict[str, str]) -> None:
    post("/trading/config/enable", headers={"X-API-Key": key["X-API-Key"]})
    first = post("/trading/config/disable", headers=key)
    world.broker.declare(topology.of_prefix(org.slug))
    execute(
        world,
        "UPDATE idempotency_keys SET answer = NULL, created_at = created_at - interval '5 min' WHERE key = %s",
        key["Idempotency-Key"],
    )
    post("/trading/config", json={"esmClientId": "changed since"}, headers={"X-API-Key": key["X-API-Key"]})
    assert post("/trading/config/disable", headers=key).json() == first.json()
    assert not world.broker.queue_exists(f"vcp.{org.slug}.command")
