"""The order in which the checks come, and what becomes of credentials; who may call what is in test_matrix."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from application.context import acting
from tests.http.reference import ROUTES, Route
from tests.http.world import COMMANDER, Org, World, is_envelope, token

EACH_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture(scope="module")
def owner(package_world: World) -> Org:
    return package_world.organisation()


@EACH_ROUTE
def test_order_of_checks(owner: Org, route: Route) -> None:
    """Each request has every later mistake as well; the first one is what is answered."""
    client, nobody = owner.world.client, str(uuid4())

    def ask(path: str, role: str | None, **headers: str) -> object:
        given = {"Authorization": f"Bearer {token(role, owner.id)}", **headers} if role else headers
        return client.request(route.method, path, headers=given, content=b"{broken", params={"unknown": "1"})

    bad, absent = route.at("not-a-uuid"), route.at(uuid4())
    steps = [(ask(bad, None, **{"x-org-id": nobody}), 401, "UNAUTHORIZED")]
    steps += [(ask(bad, "VIEWER"), 403, "ORG_CONTEXT_REQUIRED")]
    steps += [(ask(bad, "VIEWER", **{"x-org-id": nobody}), 403, "ORG_MEMBERSHIP_REQUIRED")]
    mine = {"x-org-id": str(owner.id)}
    steps += [(ask(bad, "JANITOR", **mine), 403, "INSUFFICIENT_ORG_PERMISSIONS")]
    if route.of_plant:
        code = "INVALID_UUID" if route.path.endswith("latest") else "BAD_REQUEST"
        steps += [(ask(bad, "ORG_ADMIN", **mine), 400, code)]
        steps += [(ask(absent, "ORG_ADMIN", **mine), 404, "PLANT_NOT_FOUND")]
    for answer, status, code in steps:
        is_envelope(answer, status, code)  # type: ignore[arg-type]


def test_bad_body_comes_before_a_plant_that_is_not_linked(world: World, org: Org) -> None:
    with acting(COMMANDER):
        plant = world.plants.register(org.id, "by-hand", "By hand")
    path = f"/trading/plants/{plant.id}/config"
    assert "errors" in is_envelope(org.post(path, json={}), 400, "BAD_REQUEST")
    body = ROUTES[8].body
    details = is_envelope(org.post(path, json=body), 400, "BAD_REQUEST")
    assert details == {"reason": "PLANT_NOT_LINKED_TO_ESM"}
    assert is_envelope(org.get(path), 400, "BAD_REQUEST") == {"reason": "PLANT_NOT_LINKED_TO_ESM"}


def test_plant_without_a_configured_esm(org: Org) -> None:
    plant_id = org.plant()
    assert org.post("/trading/config", json={"esmClientSecret": None}).status_code == 200
    for answer in (
        org.get(f"/trading/plants/{plant_id}/config"),
        org.post(f"/trading/plants/{plant_id}/config/validate", json=ROUTES[8].body),
    ):
        assert is_envelope(answer, 400, "BAD_REQUEST") == {"reason": "ESM_NOT_CONFIGURED"}
    is_envelope(org.post("/trading/plants/sync"), 400, "ESM_NOT_CONFIGURED")
    is_envelope(org.post("/trading/config/enable"), 400, "TRADING_CONFIG_INCOMPLETE")


def test_superadmin_acts_anywhere_that_exists(world: World, org: Org) -> None:
    headers = {"Authorization": f"Bearer {token(None, None, superadmin=True)}"}
    here = world.client.post("/trading/config/disable", headers={**headers, "x-org-id": str(org.id).upper()})
    assert here.status_code == 200
    nowhere = world.client.get("/trading/config", headers={**headers, "x-org-id": str(uuid4())})
    is_envelope(nowhere, 403, "ORG_MEMBERSHIP_REQUIRED")
    sham = {"Authorization": f"Bearer {token(None, None, superadmin='true')}", "x-org-id": str(org.id)}
    is_envelope(world.client.get("/trading/config", headers=sham), 403, "ORG_MEMBERSHIP_REQUIRED")


def test_member_of_an_organisation_that_does_not_exist(world: World) -> None:
    ghost = uuid4()
    headers = {"Authorization": f"Bearer {token('ORG_ADMIN', ghost)}", "x-org-id": str(ghost)}
    is_envelope(world.client.get("/trading/config", headers=headers), 403, "ORG_MEMBERSHIP_REQUIRED")


@pytest.mark.parametrize("header", ["nonsense", "{7bc05553-4b68-44e8-b7bc-37be63c6d9e9}", "1"])
def test_malformed_org_id_is_no_membership(org: Org, header: str) -> None:
    for headers in (org.jwt(), {"X-API-Key": org.key().api_key}):
        answer = org.world.client.get("/trading/config", headers={**headers, "x-org-id": header})
        is_envelope(answer, 403, "ORG_MEMBERSHIP_REQUIRED")


def test_key_implies_its_organisation_and_acts_as_itself(org: Org, world: World) -> None:
    key = org.key("trading:write")
    headers = {"X-API-Key": key.api_key}
    plant_id = org.plant()
    assert world.client.get("/trading/config", headers=headers).json()["organizationId"] == str(org.id)
    same = world.client.get("/trading/config", headers={**headers, "x-org-id": str(org.id)})
    assert same.status_code == 200
    other = world.client.get("/trading/config", headers={**headers, "x-org-id": str(world.organisation().id)})
    is_envelope(other, 403, "ORG_MEMBERSHIP_REQUIRED")
    entry = world.client.post(f"/trading/plants/{plant_id}/config", headers=headers, json=ROUTES[8].body).json()
    assert entry["requestedBy"] == str(key.id)


def test_revoked_key_is_refused_at_once(org: Org, world: World) -> None:
    key = org.key()
    headers = {"X-API-Key": key.api_key}
    assert world.client.get("/trading/config", headers=headers).status_code == 200
    with acting(COMMANDER) as task:
        world.organisations.revoke_key(org.id, key.id)
    world.caught_up(task.position)
    is_envelope(world.client.get("/trading/config", headers=headers), 401, "UNAUTHORIZED")


def test_expired_or_wrong_keys_are_refused(org: Org, world: World) -> None:
    expired = org.key(expires_at=datetime.now(UTC) - timedelta(seconds=1)).api_key
    good = org.key().api_key
    guesses = [good[:-1] + ("A" if good[-1] != "A" else "B"), f"wl_{uuid4().hex}_x", "wl_", "", "x" * 5000, "wl_é_ü"]
    for presented in (expired, *guesses):
        answer = world.client.get("/trading/config", headers=[(b"X-API-Key", presented.encode("latin-1"))])
        is_envelope(answer, 401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_two_credentials_are_none(org: Org) -> None:
    headers = {**org.jwt(), "X-API-Key": org.key().api_key}
    is_envelope(org.world.client.get("/trading/config", headers=headers), 401, "UNAUTHORIZED")
