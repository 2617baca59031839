"""GET /trading/audit, `asOf`, and a command with the plan that was in force: what auditors see, and nobody else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from application.context import acting
from domain.relayed_command import RelayedCommand
from tests.http import reference
from tests.http.world import COMMANDER, ESM_SECRET, Org, World, is_envelope


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def plan(p_bat_max: float) -> dict[str, Any]:
    return {"timeConfigs": [{**reference.TIME_CONFIG, "pBatMax": p_bat_max, "to": "24:00"}]}


def read(org: Org, **asked: Any) -> Iterator[dict[str, Any]]:
    before: int | None = None
    while True:
        more = {} if before is None else {"before": before}
        answer = org.get("/trading/audit", params={"limit": 3, **asked, **more})
        assert answer.status_code == 200, answer.text
        yield from answer.json()["data"]
        before = answer.json()["meta"]["next"]
        if before is None:
            return


def relayed(org: Org, plant_id: UUID) -> RelayedCommand:
    command: RelayedCommand = RelayedCommand._create(
        RelayedCommand.Created,
        originator_id=uuid4(),
        organization_id=org.id,
        queue_prefix=org.slug,
        plant_id=plant_id,
        message_id=uuid4(),
        correlation_id="c-1",
        command_type="SITE_SETPOINT",
        type="command.site-setpoint",
        routing_key=f"{org.slug}.command.site-setpoint",
        site_id="esm-001",
        sent_at=datetime.now(UTC),
        payload={},
        digest="0" * 64,
        signed=False,
    )
    command.accept(datetime.now(UTC))
    command.relay()
    with acting(COMMANDER) as task:
        org.world.events.save(command)
    org.world.caught_up(task.position)
    return command


def test_an_organisation_reads_its_own_events_and_no_others(world: World, org: Org) -> None:
    other = world.organisation()
    foreign = other.plant()
    plant_id = org.plant()
    org.post("/trading/config/enable", headers={"X-Request-Id": "enabling"})
    mine = list(read(org))
    assert {each["organizationId"] for each in mine} == {str(org.id)}
    assert mine[0]["topic"] == "trading-config:enabled"
    assert [each["position"] for each in mine] == sorted((each["position"] for each in mine), reverse=True)
    assert ESM_SECRET not in str(mine)
    command = relayed(other, foreign)
    theirs = next(read(other))
    assert theirs["streamId"] == str(command.id)
    for asked in (
        {"plantId": str(foreign)},
        {"id": theirs["requestId"]},
        {"id": theirs["correlationId"]},
        {"id": theirs["streamId"]},
        {"id": str(command.message_id)},
        {"actor": theirs["actor"]},
        {"before": str(theirs["position"] + 1)},
        {"kind": theirs["topic"]},
        {"from": theirs["recordedAt"]},
        {"to": theirs["recordedAt"]},
        {"kind": "plant", "plantId": str(foreign)},
    ):
        assert {each["organizationId"] for each in read(org, **asked)} <= {str(org.id)}, asked
        assert {each["organizationId"] for each in read(other, **asked)} == {str(other.id)}, asked
    for path in (f"{foreign}/config?asOf={now()}", f"{foreign}/command-log/{command.id}"):
        is_envelope(org.get(f"/trading/plants/{path}"), 404, "PLANT_NOT_FOUND")
    is_envelope(org.get(f"/trading/plants/{plant_id}/command-log/{command.id}"), 404, "NOT_FOUND")
    assert {each["plantId"] for each in read(org, plantId=str(plant_id))} == {str(plant_id)}
    [enabled] = read(org, id="enabling")
    assert (enabled["topic"], enabled["source"]) == ("trading-config:enabled", "http")
    assert list(read(org, actor=enabled["actor"])) == [enabled]
    assert list(read(org, kind="trading-config:enabled")) == [enabled]


def test_who_may_audit(org: Org) -> None:
    for role, status in (("VIEWER", 403), ("OPERATOR", 403), ("ORG_ADMIN", 200)):
        assert org.get("/trading/audit", role).status_code == status  # type: ignore[arg-type]
    for scope, status in (
        ("trading:read", 403),
        ("trading:write", 403),
        ("trading:connect", 403),
        ("trading:audit", 200),
        ("trading:admin", 200),
    ):
        headers = {"X-API-Key": org.key(scope).api_key}
        answer = org.world.client.get("/trading/audit", headers=headers)
        assert answer.status_code == status, scope
        if scope == "trading:audit":
            assert org.world.client.get("/trading/plants", headers=headers).status_code == 200
            denied = org.world.client.post("/trading/plants/sync", headers=headers)
            is_envelope(denied, 403, "FORBIDDEN")
            assert org.world.client.get("/trading/connection-details", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "asked", [{"kind": "plan"}, {"plantId": "x"}, {"from": "yesterday"}, {"before": "0"}, {"actor": "a\0"}, {"id": ""}]
)
def test_a_filter_that_makes_no_sense(org: Org, asked: dict[str, str]) -> None:
    assert "errors" in is_envelope(org.get("/trading/audit", params=asked), 400, "BAD_REQUEST")


def test_as_of_a_moment(org: Org) -> None:
    before = now()
    org.plant()
    config, plants = org.get("/trading/config").json(), org.get("/trading/plants").json()
    then = now()
    org.post("/trading/config", json={"esmApiUrl": "https://other.example.com", "queuePrefix": f"{org.slug}-2"})
    as_of = org.get("/trading/config", params={"asOf": then})
    assert as_of.json() == {**config, "lastSyncAt": None}
    assert int(as_of.headers["x-as-of"]) > 0
    assert "etag" not in as_of.headers
    assert org.get("/trading/config").json() != config
    unseen = {"lastSeenAt": None, "lastTelemetryAt": None}
    listed = org.get("/trading/plants", params={"asOf": then}).json()
    assert listed == {"data": [{**plant, **unseen} for plant in plants["data"]], "meta": plants["meta"]}
    assert org.get("/trading/plants", params={"asOf": before}).json()["meta"]["total"] == 0
    assert "x-as-of" not in org.get("/trading/config").headers
    is_envelope(org.get("/trading/config", params={"asOf": "2020-01-01T00:00:00Z"}), 404, "NOT_FOUND")
    is_envelope(org.get("/trading/config", params={"asOf": "then"}), 400, "VALIDATION_ERROR")


def test_the_plan_as_of_a_moment_and_of_a_command(world: World, org: Org) -> None:
    plant_id = org.plant()
    path = f"/trading/plants/{plant_id}"
    is_envelope(org.get(f"{path}/config", params={"asOf": now()}), 404, "NOT_FOUND")
    early = relayed(org, plant_id)
    assert org.post(f"{path}/config", json=plan(10)).json()["isError"] is False
    first, command = now(), relayed(org, plant_id)
    assert org.post(f"{path}/config", json=plan(20)).json()["isError"] is False
    answer = org.get(f"{path}/config", params={"asOf": first})
    assert answer.json()["timeConfigs"] == [{**reference.TIME_CONFIG, "pBatMax": 10, "to": "24:00"}]
    assert (answer.json()["plantId"], "x-as-of" in answer.headers) == ("esm-001", True)
    assert org.get(f"{path}/config", params={"asOf": now()}).json()["timeConfigs"][0]["pBatMax"] == 20
    details = org.get(f"{path}/command-log/{command.id}").json()
    [listed] = [row for row in org.get(f"{path}/command-log").json()["data"] if row["id"] == str(command.id)]
    assert {name: details[name] for name in listed} == listed
    assert details["plantConfig"]["timeConfigs"][0]["pBatMax"] == 10
    assert details["relayedAt"] > details["plantConfig"]["appliedAt"]
    assert org.get(f"{path}/command-log/{early.id}").json()["plantConfig"] is None


def test_commands_that_are_not_there(world: World, org: Org) -> None:
    other = world.organisation()
    plant_id, foreign = org.plant(), other.plant()
    theirs = relayed(other, foreign)
    is_envelope(org.get(f"/trading/plants/{plant_id}/command-log/{theirs.id}"), 404, "NOT_FOUND")
    is_envelope(org.get(f"/trading/plants/{foreign}/command-log/{theirs.id}"), 404, "PLANT_NOT_FOUND")
    is_envelope(org.get(f"/trading/plants/{plant_id}/command-log/{uuid4()}"), 404, "NOT_FOUND")
    is_envelope(org.get(f"/trading/plants/{plant_id}/command-log/x"), 400, "BAD_REQUEST")
