"""Every route × every role and scope × one's own and a foreign organisation: who is let in, by the contract's table."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest

from domain.organisation import SCOPES
from interfaces.http.endpoints import ENDPOINTS
from tests.http.test_answer_examples import Story
from tests.http.world import Org, World, is_envelope, token

PLANT = "/trading/plants/{plant_id}"
NEEDS = {
    "GET /trading/config": "read",
    "POST /trading/config": "admin",
    "POST /trading/config/enable": "admin",
    "POST /trading/config/disable": "admin",
    "GET /trading/connection-details": "write",
    "GET /trading/plants": "read",
    "POST /trading/plants/sync": "write",
    f"GET {PLANT}/command-log": "read",
    f"GET {PLANT}/command-log/{{command_id}}": "read",
    f"GET {PLANT}/config": "read",
    f"POST {PLANT}/config": "write",
    f"POST {PLANT}/config/validate": "write",
    f"GET {PLANT}/config-log": "read",
    f"GET {PLANT}/meters": "read",
    f"GET {PLANT}/meters/export": "read",
    f"GET {PLANT}/telemetry": "read",
    f"GET {PLANT}/telemetry/export": "read",
    f"GET {PLANT}/telemetry/latest": "read",
    f"GET {PLANT}/telemetry/stream": "read",
    "GET /trading/audit": "audit",
}
MAY = {
    "VIEWER": {"read"},
    "OPERATOR": {"read", "write"},
    "ORG_ADMIN": {"read", "write", "admin", "audit"},
    "superadmin": {"read", "write", "admin", "audit"},
    "JANITOR": set[str](),
    "viewer": set[str](),
    "trading:read": {"read"},
    "trading:write": {"read", "write"},
    "trading:admin": {"read", "write", "admin", "audit"},
    "trading:audit": {"read", "audit"},
    "trading:connect": set[str](),
}


@dataclass(frozen=True)
class Scene:
    """Callers of every kind that are at home in one organisation, a foreign one, and a plant of the foreign one's."""

    home: Org
    foreign: Org
    foreign_plant: UUID
    keys: dict[str, str]

    def ask(self, route: str, who: str, org: Org, plant_id: UUID) -> httpx.Response:
        method, path = route.format(plant_id=plant_id, command_id=uuid4()).split(" ")
        if who in self.keys:
            credentials = {"X-API-Key": self.keys[who]}
        elif who == "superadmin":
            credentials = {"Authorization": f"Bearer {token(None, None, superadmin=True)}"}
        else:
            credentials = {"Authorization": f"Bearer {token(who, self.home.id)}"}
        return self.home.world.client.request(method, path, headers={**credentials, "x-org-id": str(org.id)})


@pytest.fixture(scope="module")
def scene(package_world: World) -> Scene:
    home, foreign = package_world.organisation(), package_world.organisation()
    return Scene(home, foreign, foreign.plant(), {who: home.key(who).api_key for who in MAY if who in SCOPES})


def refusal(who: str) -> str:
    return "FORBIDDEN" if who in SCOPES else "INSUFFICIENT_ORG_PERMISSIONS"


def test_the_matrix_has_every_route_and_every_scope() -> None:
    assert NEEDS.keys() == {f"{endpoint.method} {endpoint.path}" for endpoint in ENDPOINTS}
    assert set(SCOPES) <= MAY.keys()


@pytest.mark.parametrize("route", NEEDS)
def test_at_home(scene: Scene, route: str) -> None:
    """Of what may not, nothing is done; what may, gets past the rights (to a 400 or 404 where nothing is set up)."""
    before = scene.home.world.count()
    refused = [who for who in MAY if NEEDS[route] not in MAY[who]]
    for who in refused:
        is_envelope(scene.ask(route, who, scene.home, uuid4()), 403, refusal(who))
    assert scene.home.world.count() == before
    for who in MAY.keys() - refused:
        assert scene.ask(route, who, scene.home, uuid4()).status_code in {200, 400, 404}, who


@pytest.mark.parametrize("route", NEEDS)
def test_in_a_foreign_organisation(scene: Scene, route: str) -> None:
    """Whatever one is at home, one is nobody there; but for the operator's own people."""
    before = scene.home.world.count()
    for who in MAY.keys() - {"superadmin"}:
        is_envelope(scene.ask(route, who, scene.foreign, scene.foreign_plant), 403, "ORG_MEMBERSHIP_REQUIRED")
    assert scene.home.world.count() == before


@pytest.fixture(scope="module")
def stories(package_world: World) -> tuple[Story, Story]:
    """Two organisations, each with all that can be asked for."""
    both = Story(package_world.organisation()), Story(package_world.organisation())
    for story in both:
        story.plant_id = story.org.plant()
        story.command()
        story.measure()
        story.tell("change_plant_config")
    return both


READS = [route for route in NEEDS if route.startswith("GET") and "/stream" not in route]
AS_OF = ["GET /trading/config", "GET /trading/plants", f"GET {PLANT}/config"]


@pytest.mark.parametrize(("route", "then"), [*((route, False) for route in READS), *((route, True) for route in AS_OF)])
def test_an_answer_tells_of_ones_own_alone(stories: tuple[Story, Story], route: str, then: bool) -> None:
    own, foreign = stories
    path = route.removeprefix("GET ").format(plant_id=own.plant_id, command_id=own.command_id)
    answer = own.org.get(path, params={"asOf": datetime.now(UTC).isoformat()} if then else {})
    assert answer.status_code == 200
    assert len(answer.content) > len('{"data":[],"meta":{"page":1,"limit":20,"total":0,"totalPages":0}}')
    theirs = (foreign.org.id, foreign.org.slug, foreign.plant_id, foreign.command_id)
    assert not [each for each in theirs if str(each) in answer.text]


@pytest.mark.parametrize("route", [route for route in NEEDS if "{plant_id}" in route])
def test_a_foreign_plant_at_home(scene: Scene, route: str) -> None:
    """It is not there, for the operator's own people too; who may not ask learns not even that."""
    before = scene.home.world.count()
    for who, may in MAY.items():
        expected = (404, "PLANT_NOT_FOUND") if NEEDS[route] in may else (403, refusal(who))
        assert is_envelope(scene.ask(route, who, scene.home, scene.foreign_plant), *expected) == {}
    assert scene.home.world.count() == before
