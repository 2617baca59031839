"""A served API with everything behind it that tests look at: its log, its ESM, its broker, its callers."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Literal
from uuid import UUID, uuid4

import httpx
import jwt
from prometheus_client import CollectorRegistry
from psycopg import AsyncConnection

from application.context import Metadata, acting
from application.event_log import EventLog
from application.organisations import MintedKey, Organisations
from application.plant_configs import PlantConfigs
from application.plants import Plants
from application.trading import Trading, TradingConfigChange
from domain.plant import Plant
from infra.event_mapper import EventMapper
from infra.event_store import event_log
from infra.local_broker import LocalBroker
from infra.postgres import connect, pool, query_pool
from infra.secret_box import HmacKeyHasher, OperatorKey, PostgresSecretBox
from infra.serving import Serving
from infra.sync_turns import PostgresSyncTurns
from interfaces.http.app import build_app
from interfaces.http.services import HttpServices, IdentityProvider, Network, PartnerBroker, RateLimits, Streaming
from projections.follower import Follower
from projections.plants import linked_plants
from projections.positions import Positions
from projections.read_models import READ_MODELS
from tests.fakes import FakeEsm

JWT_SECRET = "an identity provider's shared secret of 32 bytes and more"
PROVIDER = IdentityProvider(secret=JWT_SECRET, issuer="https://id.example.com", audience="wattledger")
ESM_SECRET = "canary-esm-secret"
COMMANDER = Metadata("cli", "cli", "test")

Role = Literal["VIEWER", "OPERATOR", "ORG_ADMIN"]


def token(role: str | None, organization_id: UUID | None, *, secret: str = JWT_SECRET, **claims: Any) -> str:
    """A JWT that is valid for 5 minutes; a claim given as None is left out."""
    usual = {
        "sub": str(uuid4()),
        "iss": PROVIDER.issuer,
        "aud": PROVIDER.audience,
        "exp": int(time.time()) + 300,
        "orgs": {str(organization_id): role} if organization_id and role else {},
    }
    given = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(given, secret, algorithm="HS256")


@dataclass(frozen=True)
class World:
    url: str
    database_url: str
    events: EventLog
    esm: FakeEsm
    broker: LocalBroker
    organisations: Organisations
    trading: Trading
    plants: Plants
    services: HttpServices
    client: httpx.Client
    problems: dict[str, str] = field(default_factory=dict)

    def organisation(self, slug: str | None = None) -> "Org":
        """A new one, with its ESM configured."""
        with acting(COMMANDER) as task:
            created = self.organisations.create(slug or f"org-{uuid4().hex[:12]}")
            change = {"esmApiUrl": "https://esm.example.com", "esmClientId": "us", "esmClientSecret": ESM_SECRET}
            self.trading.change_config(created.id, TradingConfigChange.model_validate(change))
        self.caught_up(task.position)
        return Org(self, created.id, created.slug)

    def count(self) -> int:
        """How many events are recorded."""
        return self.events.recorder.max_notification_id() or 0

    def caught_up(self, position: int | None = None) -> None:
        """Waits until the API knows that the read models have reached the position."""
        positions = self.services.positions
        assert isinstance(positions, WatchedPositions)
        waiting = positions.wait_for(position or self.count(), 10)
        assert asyncio.run_coroutine_threadsafe(waiting, positions.loop).result()


class WatchedPositions(Positions):
    """Positions that another thread may wait for, too."""

    loop: asyncio.AbstractEventLoop

    async def listen(self) -> None:
        self.loop = asyncio.get_running_loop()
        await super().listen()


@dataclass(frozen=True)
class Org:
    world: World
    id: UUID
    slug: str

    def jwt(self, role: Role = "ORG_ADMIN", **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {token(role, self.id, **claims)}", "x-org-id": str(self.id)}

    def key(self, *scopes: str, **options: Any) -> MintedKey:
        with acting(COMMANDER) as task:
            minted = self.world.organisations.mint_key(self.id, "test", list(scopes or ["trading:admin"]), **options)
        self.world.caught_up(task.position)
        return minted

    def get(self, path: str, role: Role = "ORG_ADMIN", **options: Any) -> httpx.Response:
        headers = {**self.jwt(role), **options.pop("headers", {})}
        return self.world.client.get(path, headers=headers, **options)

    def post(self, path: str, role: Role = "ORG_ADMIN", **options: Any) -> httpx.Response:
        headers = {**self.jwt(role), **options.pop("headers", {})}
        return self.world.client.post(path, headers=headers, **options)

    def plant(self, external_plant_id: str = "esm-001") -> UUID:
        """Synced, so linked."""
        assert self.post("/trading/plants/sync").json()["errors"] == 0
        return Plant.create_id(self.id, external_plant_id)


@contextmanager
def served(
    database_url: str,
    limits: RateLimits,
    provider: IdentityProvider = PROVIDER,
    partner_networks: tuple[Network, ...] = (),
    streaming: Streaming = Streaming(),  # noqa: B008 - frozen
    keys: list[OperatorKey] | None = None,
) -> Iterator[World]:
    connections = pool(database_url, 10, "commands")
    connections.open()
    events, esm, broker = event_log(connections), FakeEsm(), LocalBroker()
    secrets = PostgresSecretBox(connections, keys or [OperatorKey.random()])
    turns = PostgresSyncTurns(connections, connections)
    hasher = HmacKeyHasher(secrets)
    trading = Trading(events, esm, broker, secrets)

    def linked(organization_id: UUID) -> list[UUID]:
        with connections.connection() as connection:
            return linked_plants(connection, organization_id)

    plants = Plants(events, esm, trading, turns, linked)
    problems: dict[str, str] = {}
    services = HttpServices(
        trading=trading,
        plants=plants,
        plant_configs=PlantConfigs(events, esm, trading),
        turns=turns,
        queries=query_pool(database_url, 10, "queries"),
        positions=WatchedPositions(lambda: AsyncConnection.connect(database_url, autocommit=True)),
        decode=EventMapper().decoder,
        key_hasher=hasher,
        partner_broker=PartnerBroker("broker.example.com", 5671, "/"),
        identity_provider=provider,
        rate_limits=limits,
        checks={"database": lambda: problems.get("database")},
        registry=CollectorRegistry(),
        threads=10,
        partner_networks=partner_networks,
        streaming=streaming,
    )
    with (
        following(database_url),
        Serving(build_app(services), lifespan="on") as serving,
        httpx.Client(base_url=f"{serving.url}/api/v1", timeout=30) as client,
    ):
        organisations = Organisations(events, secrets, hasher)
        yield World(
            serving.url, database_url, events, esm, broker, organisations, trading, plants, services, client, problems
        )
    connections.close()


@contextmanager
def following(database_url: str) -> Iterator[None]:
    """The read models' follower, in a thread."""
    stop = Event()
    follower = Follower(
        "projector", READ_MODELS, lambda: connect(database_url, "follower"), EventMapper().decoder, announces=True
    )
    thread = Thread(target=follower.run, args=[stop], daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def is_envelope(answer: httpx.Response, status: int, code: str) -> Mapping[str, Any]:
    """Asserts that it is the error and returns its details."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert set(body) == {"statusCode", "error", "code", "message", "details"}
    assert body["statusCode"] == status
    assert body["error"] == answer.reason_phrase
    assert isinstance(body["message"], str)
    assert answer.headers["x-request-id"]
    details: Mapping[str, Any] = body["details"]
    assert isinstance(details, dict)
    return details
