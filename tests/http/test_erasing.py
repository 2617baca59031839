"""People are veiled in the log and named in answers; for an organisation that is erased nobody is let in."""

from uuid import uuid4

from application.context import acting
from application.erasure import Erasure
from application.ports import VEILED
from infra.postgres import connect
from infra.veil import key_owner
from projections.plants import plant_counts
from tests.http import reference
from tests.http.world import COMMANDER, Org, World, is_envelope
from tests.worker.site import until

PLAN = {"timeConfigs": [{**reference.TIME_CONFIG, "to": "24:00"}]}


def stored(world: World) -> str:
    """The log, its metadata and the read models that name people or plants."""
    with connect(world.database_url, "test") as connection:
        return str(
            connection.execute(
                "SELECT convert_from(state, 'UTF8'), metadata::text FROM events"
                " UNION ALL SELECT requested_by, config_snapshot::text FROM config_log"
                " UNION ALL SELECT name, external_plant_id FROM plants"
                " UNION ALL SELECT actor, topic FROM audit_log"
                " UNION ALL SELECT esm_client_id, esm_api_url FROM trading_configs"
            ).fetchall()
        )


def erase(org: Org) -> None:
    world = org.world
    with acting(COMMANDER) as task:
        assert Erasure(world.events, world.broker, world.trading.secrets, lambda _: None).erase(org.id)
    world.caught_up(task.position)


def test_who_asked_is_in_answers_and_not_in_the_log(world: World, org: Org) -> None:
    plant_id, user = org.plant(), str(uuid4())
    client = {"esmClientId": "canary-client"}
    assert org.post("/trading/config", json=client).json()["esmClientId"] == "canary-client"
    assert org.get("/trading/config").json()["esmClientId"] == "canary-client"
    headers = org.jwt("ORG_ADMIN", sub=user)
    path = f"/trading/plants/{plant_id}"
    keyed = headers | {"Idempotency-Key": "once"}
    sent = org.world.client.post(f"{path}/config", json=PLAN, headers=keyed).json()
    assert sent["requestedBy"] == user
    assert org.world.client.post(f"{path}/config", json=PLAN, headers=keyed).json() == sent
    assert org.get(f"{path}/config-log").json()["data"][0]["requestedBy"] == user
    [plant] = [each for each in org.get("/trading/plants").json()["data"] if each["id"] == str(plant_id)]
    found = org.get("/trading/audit", params={"actor": f"user:{user}"}).json()["data"]
    assert {each["topic"] for each in found} >= {"plant-config:change-sent", "plant-config:change-answered"}
    assert {each["state"].get("requested_by", user) for each in found} == {user}
    kept = stored(world)
    assert VEILED in kept
    assert user not in kept
    assert "canary-client" not in kept
    assert plant["name"] == world.esm.state.get("esm-001").name
    assert plant["name"] not in kept


def test_an_organisation_from_before_there_were_veils_reads_its_first_veiled_word(world: World) -> None:
    org = world.organisation()
    with connect(world.database_url, "test") as connection:
        connection.execute("DELETE FROM organisation_keys WHERE organization_id = %s", [key_owner(org.id)])
    assert org.get("/trading/config").status_code == 200
    assert org.post("/trading/config", json={"esmClientId": "canary-client"}).status_code == 200
    assert org.get("/trading/config").json()["esmClientId"] == "canary-client"


def test_a_sync_of_what_did_not_change_still_records_nothing(org: Org) -> None:
    org.plant()
    before = org.world.count()
    assert org.post("/trading/plants/sync").status_code == 200
    assert org.world.count() == before


def test_for_an_erased_organisation_nobody_is_let_in(world: World, org: Org) -> None:
    other = world.organisation()
    plant_id, key = org.plant(), org.key("trading:admin")
    assert org.get("/trading/config").status_code == 200
    erase(org)
    by_key = world.client.get("/trading/config", headers={"X-API-Key": key.api_key})
    is_envelope(by_key, 401, "UNAUTHORIZED")
    # What was let in a moment ago is remembered for a second.
    until(lambda: org.get("/trading/config").status_code == 403, "the organisation's end")
    for path in ("config", "plants", "audit", f"plants/{plant_id}/config-log", f"plants/{plant_id}/telemetry/latest"):
        is_envelope(org.get(f"/trading/{path}"), 403, "ORG_MEMBERSHIP_REQUIRED")
    for path in ("config/enable", "plants/sync"):
        is_envelope(org.post(f"/trading/{path}"), 403, "ORG_MEMBERSHIP_REQUIRED")
    assert other.get("/trading/config").status_code == 200
    with connect(world.database_url, "test") as connection:
        assert (org.id in plant_counts(connection), other.id in plant_counts(connection)) == (False, True)
