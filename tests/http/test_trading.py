"""Trading over HTTP: own writes are read, ETags guard changes, what is down is a 503."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from domain.errors import BrokerUnreachable
from infra.local_broker import LocalBroker
from tests.http.reference import PLANT_CONFIG_BODY
from tests.http.world import ESM_SECRET, Org, World, is_envelope


def test_config_exists_from_the_beginning(world: World) -> None:
    org = world.organisation("a-fresh-one")
    world.client.post("/trading/config", headers=org.jwt(), json={"esmApiUrl": None, "esmClientId": None})
    config = org.post("/trading/config", json={"esmClientSecret": None}).json()
    assert (config["status"], config["queuePrefix"], config["hasEsmCredentials"]) == ("DISABLED", "a-fresh-one", False)
    assert (config["esmApiUrl"], config["lastSyncAt"], config["lastSyncError"]) == (None, None, None)


def test_own_write_is_read(org: Org) -> None:
    for number in range(10):
        wrote = org.post("/trading/config", json={"esmClientId": f"client-{number}"})
        read = org.get("/trading/config")
        assert read.json() == wrote.json()
        assert read.headers["etag"] == wrote.headers["etag"]


def test_empty_change_changes_nothing(org: Org, world: World) -> None:
    before, count = org.get("/trading/config"), world.count()
    assert org.post("/trading/config", json={}).json() == before.json()
    assert world.count() == count


def test_enable_and_disable(org: Org, world: World) -> None:
    enabled = org.post("/trading/config/enable", content=b"{}", headers={"Content-Type": "application/json"})
    assert enabled.json()["status"] == "ENABLED"
    assert world.broker.queue_exists(f"vcp.{org.slug}.command")
    count = world.count()
    assert org.post("/trading/config/enable").json() == enabled.json()
    assert world.count() == count
    for change in ({"esmApiUrl": None}, {"esmClientSecret": None}, {"queuePrefix": "elsewhere"}):
        is_envelope(org.post("/trading/config", json=change), 400, "VALIDATION_ERROR")
    assert org.post("/trading/config/disable").json()["status"] == "DISABLED"
    assert org.post("/trading/config/disable").json()["hasEsmCredentials"] is True
    assert not world.broker.queue_exists(f"vcp.{org.slug}.command")


def test_taken_prefix(org: Org, world: World) -> None:
    other = world.organisation()
    details = is_envelope(org.post("/trading/config", json={"queuePrefix": other.slug}), 400, "VALIDATION_ERROR")
    assert details == {"reason": "QUEUE_PREFIX_TAKEN"}


def test_connection_details(org: Org) -> None:
    details = org.get("/trading/connection-details", role="OPERATOR").json()
    assert (details["host"], details["port"], details["vhost"], details["exchange"]) == (
        "broker.example.com", 5671, "/", "vcp",
    )  # fmt: skip
    assert details["authMethod"] == "API_KEY"
    assert org.slug in details["authInstructions"]
    status = next(queue for queue in details["queues"] if queue["name"] == f"vcp.{org.slug}.event.status")
    assert status["routingKey"] == f"{org.slug}.event.command.#, {org.slug}.event.status.#"
    assert [queue["direction"] for queue in details["queues"]] == ["inbound"] * 3 + ["outbound"] * 4


def test_secret_is_in_no_answer(org: Org) -> None:
    answers = [org.post("/trading/config", json={"esmClientSecret": ESM_SECRET}), org.get("/trading/config")]
    answers += [org.post("/trading/config", json={"esmClientSecret": ESM_SECRET, "x": 1})]
    assert all(ESM_SECRET not in answer.text for answer in answers)
    assert answers[1].json()["hasEsmCredentials"] is True


def test_a_change_based_on_the_current_etag(org: Org) -> None:
    etag = org.get("/trading/config").headers["etag"]
    assert etag.strip('"').isdigit()
    changed = org.post("/trading/config", json={"esmClientId": "b"}, headers={"If-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] == org.get("/trading/config").headers["etag"] != etag


@pytest.mark.parametrize("given", ["*", '"1", {etag}', " {etag} , "])
def test_tags_that_match(org: Org, given: str) -> None:
    etag = org.get("/trading/config").headers["etag"]
    headers = {"If-Match": given.format(etag=etag).strip()}
    assert org.post("/trading/config", json={"esmClientId": "b"}, headers=headers).status_code == 200


@pytest.mark.parametrize("given", ['"1"', '"999"', "W/{etag}", "nonsense", '""', '"1", "2"', "5", '"-1"', ","])
def test_tags_that_do_not_match(org: Org, given: str) -> None:
    etag, count = org.get("/trading/config").headers["etag"], org.world.count()
    headers = {"If-Match": given.format(etag=etag)}
    answer = org.post("/trading/config", json={"esmClientId": "b"}, headers=headers)
    is_envelope(answer, 412, "PRECONDITION_FAILED")
    assert org.world.count() == count
    is_envelope(org.post("/trading/config", json={"x": 1}, headers=headers), 400, "VALIDATION_ERROR")


def test_of_many_changes_by_one_etag_one_wins(org: Org) -> None:
    etag = org.get("/trading/config").headers["etag"]

    def change(number: int) -> int:
        headers = {"If-Match": etag}
        return org.post("/trading/config", json={"esmClientId": f"c{number}"}, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(change, range(8))) == [200] + [412] * 7


def test_sync_tells_when(org: Org) -> None:
    assert org.get("/trading/config").json()["lastSyncAt"] is None
    assert org.post("/trading/plants/sync", role="OPERATOR").json() == {"synced": 3, "errors": 0}
    assert len(org.get("/trading/plants").json()["data"]) == 3
    assert org.get("/trading/config").json()["lastSyncAt"].endswith("Z")
    last = org.post("/trading/config/disable").json()["lastSyncAt"]
    assert last == org.get("/trading/config").json()["lastSyncAt"]


def test_esm_that_is_down(org: Org, world: World) -> None:
    plant_id = org.plant()
    world.esm.down = True
    synced = org.post("/trading/plants/sync")
    assert is_envelope(synced, 503, "SERVICE_UNAVAILABLE")["reason"] == "ESM_UNREACHABLE"
    assert int(synced.headers["retry-after"]) > 0
    # It failed and said so in the log: the position that it reached goes with the error.
    assert int(synced.headers["x-position"]) == world.count()
    assert org.get("/trading/config").json()["lastSyncError"]
    is_envelope(org.get(f"/trading/plants/{plant_id}/config"), 503, "SERVICE_UNAVAILABLE")
    entry = org.post(f"/trading/plants/{plant_id}/config", json=PLANT_CONFIG_BODY).json()
    assert (entry["isError"], entry["isTerminal"], entry["resultCode"]) == (True, True, "ESM_UNREACHABLE")
    assert org.get(f"/trading/plants/{plant_id}/config-log").json()["data"][0] == entry


def test_broker_that_is_down(org: Org, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokerUnreachable

    count = world.count()
    monkeypatch.setattr(LocalBroker, "declare", fail)
    answer = org.post("/trading/config/enable")
    assert is_envelope(answer, 503, "SERVICE_UNAVAILABLE") == {"reason": "BROKER_UNREACHABLE"}
    assert world.count() == count


def test_validate_is_a_dry_run_whatever_the_body_says(org: Org, world: World) -> None:
    plant_id = org.plant()
    version = org.get(f"/trading/plants/{plant_id}/config").json()["version"]
    body = {**PLANT_CONFIG_BODY, "validateOnly": False}
    entry = org.post(f"/trading/plants/{plant_id}/config/validate", json=body).json()
    assert entry["validateOnly"] is True
    assert entry["configSnapshot"]["version"] == version
    assert org.get(f"/trading/plants/{plant_id}/config").json()["version"] == version
    page = org.get(f"/trading/plants/{plant_id}/config-log").json()
    assert page["data"] == [entry]
    assert page["meta"] == {"page": 1, "limit": 20, "total": 1, "totalPages": 1}
    assert org.get(f"/trading/plants/{plant_id}/config-log?page=2147483648").json()["data"] == []


def test_two_changes_at_once_are_a_conflict(org: Org, world: World) -> None:
    plant_id = org.plant()
    world.esm.state.change("esm-001", late_seconds=60)
    later = org.post(f"/trading/plants/{plant_id}/config", json=PLANT_CONFIG_BODY).json()
    assert later["isTerminal"] is False
    second = org.post(f"/trading/plants/{plant_id}/config", json=PLANT_CONFIG_BODY)
    assert is_envelope(second, 409, "CONFLICT") == {"reason": "CHANGE_IN_FLIGHT"}
