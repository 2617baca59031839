"""Every documented error of every operation, provoked: the server's answer is the example, word for word."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from eventsourcing.persistence import IntegrityError
from psycopg_pool import PoolTimeout

from application.context import acting
from application.event_log import EventLog
from domain.errors import BrokerUnreachable, TooManyStreams
from infra.local_broker import LocalBroker
from infra.operator_keys import OperatorKey
from interfaces.http import endpoint as edge
from interfaces.http import inputs
from interfaces.http.credentials import Credentials
from interfaces.http.endpoints import ENDPOINTS, PREFIX
from interfaces.http.openapi import openapi
from interfaces.http.services import RateLimits
from interfaces.http.streamed import Streams
from tests.access_log import WANTED
from tests.http.reference import PLANT_CONFIG_BODY
from tests.http.test_patience import opened, read_all
from tests.http.world import COMMANDER, Org, World, served, token

OPERATIONS = {
    f"{method.upper()} {path.removeprefix(PREFIX)}": operation["responses"]
    for path, item in openapi(ENDPOINTS)["paths"].items()
    for method, operation in item.items()
    if operation["tags"] == ["Trading"]
}
EXAMPLES = {
    f"{route} {name}": (route, name, example["value"])
    for route, responses in OPERATIONS.items()
    for response in responses.values()
    for name, example in response["content"].get("application/json", {}).get("examples", {}).items()
}


@dataclass
class Scene:
    """An organisation that lacks nothing, with a plant, and how it asks for one operation."""

    org: Org
    plant: UUID
    strict: World
    monkeypatch: pytest.MonkeyPatch
    route: str

    @property
    def method(self) -> str:
        return self.route.split(" ")[0]

    def path(self, plant: object = None) -> str:
        return self.route.split(" ")[1].format(plant_id=plant or self.plant, command_id=uuid4())

    def ask(
        self, org: Org | None = None, plant: object = None, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        """As an administrator unless `headers` say who asks."""
        org = org or self.org
        if "content" not in options and self.method == "POST":
            options.setdefault("json", self.body)
        who = org.jwt() if headers is None else headers
        return org.world.client.request(self.method, self.path(plant), headers=who, **options)

    @property
    def body(self) -> Any:
        return PLANT_CONFIG_BODY if "{plant_id}" in self.route else {}

    def with_header(self, name: str, value: str, **options: Any) -> httpx.Response:
        return self.ask(headers={**self.org.jwt(), name: value}, **options)

    def once(self, place: Any, name: str, error: Exception) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise error

        self.monkeypatch.setattr(place, name, fail)


def context(scene: Scene) -> httpx.Response:
    return scene.ask(headers={"Authorization": f"Bearer {token('ORG_ADMIN', scene.org.id)}"})


def busy(scene: Scene) -> httpx.Response:
    """A key that was never used has to be looked up."""
    key = scene.org.key().api_key
    scene.once(type(scene.org.world.services.queries), "getconn", PoolTimeout())
    return scene.ask(headers={"X-API-Key": key})


def unforeseen(scene: Scene) -> httpx.Response:
    scene.once(Credentials, "caller", KeyError("x"))
    return scene.with_header("X-Request-Id", WANTED)


def too_early(scene: Scene) -> httpx.Response:
    scene.monkeypatch.setattr(edge, "AT_LEAST_S", 0.01)
    return scene.with_header("X-Position-AtLeast", "999999999")


def refused_by(scene: Scene) -> httpx.Response:
    return scene.ask(org=Org(scene.strict, scene.org.id, scene.org.slug))


def too_many_streams(scene: Scene) -> httpx.Response:
    scene.once(Streams, "enter", TooManyStreams())
    return scene.ask()


def no_body_in_time(scene: Scene) -> tuple[int, Any]:
    scene.monkeypatch.setattr(inputs, "BODY_S", 0.05)
    headers = "".join(f"{name}: {value}\r\n" for name, value in scene.org.jwt().items())
    head = f"POST {PREFIX}{scene.path()} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n{headers}\r\n"
    with opened(scene.org.world.url) as connection:
        connection.sendall(head.encode())
        answer, _, body = read_all(connection).partition(b"\r\n\r\n")
    return int(answer.split()[1]), json.loads(body)


def overtaken(scene: Scene) -> httpx.Response:
    """It has to be something that would be recorded."""
    if scene.route.endswith("disable"):
        scene.org.post("/trading/config/enable")
    scene.once(EventLog, "save", IntegrityError())
    if scene.route.endswith("/config"):
        return scene.ask(json={"esmClientId": "another"})
    if scene.route.endswith("sync"):
        scene.org.world.esm.state.change("esm-001", name="Renamed")
    return scene.ask()


def same_request(scene: Scene, again: str = "") -> httpx.Response:
    key, body = str(uuid4()), json.dumps(scene.body)
    headers = {**scene.org.jwt(), "Idempotency-Key": key}
    assert scene.ask(headers=headers, content=body).status_code == 200
    with psycopg.connect(scene.org.world.database_url) as connection:
        connection.execute("UPDATE idempotency_keys SET answer = NULL WHERE key = %s", [key])
    return scene.ask(headers=headers, content=body + again)


def another_request(scene: Scene) -> httpx.Response:
    return same_request(scene, again=" ")


def without_esm(scene: Scene) -> httpx.Response:
    """Its plant was synced before."""
    assert scene.org.post("/trading/config", json={"esmClientSecret": None}).status_code == 200
    return scene.ask()


def by_hand(scene: Scene) -> httpx.Response:
    with acting(COMMANDER):
        plant = scene.org.world.plants.register(scene.org.id, "by-hand", "By hand")
    return scene.ask(plant=plant.id)


def in_flight(scene: Scene) -> httpx.Response:
    scene.org.world.esm.state.change("esm-001", late_seconds=60)
    assert scene.ask().status_code == 200
    return scene.ask()


def broker_down(scene: Scene) -> httpx.Response:
    for name in ("declare", "delete"):
        scene.once(LocalBroker, name, BrokerUnreachable())
    return scene.ask()


def esm_down(scene: Scene) -> httpx.Response:
    scene.org.world.esm.down = True
    return scene.ask()


def no_parquet(scene: Scene) -> httpx.Response:
    scene.monkeypatch.setitem(sys.modules, "pyarrow", None)
    return scene.ask(params={"format": "parquet"})


def not_found(scene: Scene) -> httpx.Response:
    return scene.ask(params={} if "{command_id}" in scene.route else {"asOf": "2020-01-01T00:00:00Z"})


PROVOKED: dict[str, Callable[[Scene], httpx.Response | tuple[int, Any]]] = {
    "UNAUTHORIZED": lambda scene: scene.ask(headers={}),
    "ORG_CONTEXT_REQUIRED": context,
    "ORG_MEMBERSHIP_REQUIRED": lambda scene: scene.with_header("x-org-id", str(uuid4())),
    "INSUFFICIENT_ORG_PERMISSIONS": lambda scene: scene.ask(headers=scene.org.jwt("JANITOR")),  # type: ignore[arg-type]
    "FORBIDDEN": lambda scene: scene.ask(headers={"X-API-Key": scene.org.key("trading:connect").api_key}),
    "TOO_EARLY": too_early,
    "TOO_MANY_REQUESTS": refused_by,
    "TOO_MANY_STREAMS": too_many_streams,
    "SERVICE_UNAVAILABLE": busy,
    "INTERNAL_SERVER_ERROR": unforeseen,
    "VALIDATION_ERROR": lambda scene: scene.ask(params={"unknown": "1"}),
    "BAD_REQUEST": lambda scene: scene.ask(params={"unknown": "1"}),
    "INVALID_UUID": lambda scene: scene.ask(plant="x"),
    "PAYLOAD_TOO_LARGE": lambda scene: scene.ask(content=b" " * (5 * 1024 * 1024 + 1)),
    "REQUEST_TIMEOUT": no_body_in_time,
    "REQUEST_IN_PROGRESS": same_request,
    "IDEMPOTENCY_KEY_REUSED": another_request,
    "CONFLICT": overtaken,
    "PRECONDITION_FAILED": lambda scene: scene.with_header("If-Match", '"999"', json={"esmClientId": "x"}),
    "ESM_URL_NOT_ALLOWED": lambda scene: scene.ask(json={"esmApiUrl": "ftp://esm.example.com"}),
    "QUEUE_PREFIX_TAKEN": lambda scene: scene.ask(json={"queuePrefix": scene.org.world.organisation().slug}),
    "TRADING_CONFIG_INCOMPLETE": without_esm,
    "ESM_NOT_CONFIGURED": without_esm,
    "ESM_UNREACHABLE": esm_down,
    "BROKER_UNREACHABLE": broker_down,
    "CHANGE_IN_FLIGHT": in_flight,
    "PLANT_NOT_FOUND": lambda scene: scene.ask(plant=uuid4()),
    "PLANT_NOT_LINKED_TO_ESM": by_hand,
    "PARQUET_NOT_INSTALLED": no_parquet,
    "NOT_FOUND": not_found,
}


CHANGING = {overtaken, same_request, another_request, without_esm, by_hand, in_flight}
"""They leave an organisation another than it was."""


@pytest.fixture(scope="module")
def strict(package_world: World) -> Iterator[World]:
    """The same organisations, where nothing may be asked."""
    with served(package_world.database_url, RateLimits(0, 0, 0), keys=[OperatorKey.random()]) as world:
        yield world


@pytest.fixture(scope="module")
def shared(package_world: World) -> tuple[Org, UUID]:
    org = package_world.organisation()
    return org, org.plant()


@pytest.mark.parametrize(("route", "name", "example"), EXAMPLES.values(), ids=EXAMPLES)
def test_the_server_answers_so(
    world: World,
    strict: World,
    shared: tuple[Org, UUID],
    monkeypatch: pytest.MonkeyPatch,
    route: str,
    name: str,
    example: dict[str, Any],
) -> None:
    org, plant = shared
    if PROVOKED[name] in CHANGING:
        org = world.organisation()
        plant = org.plant()
    answer = PROVOKED[name](Scene(org, plant, strict, monkeypatch, route))
    status, body = answer if isinstance(answer, tuple) else (answer.status_code, answer.json())
    assert (status, body) == (example["statusCode"], example)


def test_there_are_examples_of_each_status() -> None:
    with_example = {example["statusCode"] for _, _, example in EXAMPLES.values()}
    documented = {int(status) for responses in OPERATIONS.values() for status in responses}
    assert with_example == documented - {200}
