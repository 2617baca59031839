"""Our API over HTTP with its true parts, so that what a partner does is seen where our callers see it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg import sql

from application.context import Metadata, acting
from domain.plant import Plant
from infra.bootstrap import Parts, Where, assembled
from infra.local_broker import LocalBroker
from infra.secret_box import OperatorKey
from infra.serving import Serving
from infra.settings import Settings
from interfaces.cli.wiring import api
from tests.http.world import JWT_SECRET, PROVIDER, following, token

SETTINGS = Settings(
    reads_per_minute=100_000,
    writes_per_minute=100_000,
    syncs_per_minute=100_000,
    jwt_secret=JWT_SECRET,
    jwt_issuer=PROVIDER.issuer,
    jwt_audience=PROVIDER.audience,
)


@dataclass(frozen=True)
class Installation:
    """`seen` is every answer of the API, headers and body."""

    parts: Parts
    url: str
    seen: list[str] = field(default_factory=list)

    @contextmanager
    def organisation(self, **config: str) -> "Iterator[Organisation]":
        """A new one, with a caller of its own; `config` is what to post to its trading config."""
        with acting(Metadata("cli", "cli", "test")):
            created = self.parts.organisations.create(f"org-{uuid4().hex[:12]}")
        hooks = {"response": [self._look]}
        headers = {"Authorization": f"Bearer {token('ORG_ADMIN', created.id)}", "x-org-id": str(created.id)}
        base_url = f"{self.url}/api/v1/trading"
        with httpx.Client(base_url=base_url, headers=headers, event_hooks=hooks, timeout=30, trust_env=False) as client:
            organisation = Organisation(self, created.id, client)
            if config:
                answer = organisation.configure(**config)
                assert answer.status_code == 200, answer.text
            yield organisation

    def stored(self) -> Iterator[str]:
        """Every row of every table as text, and the bytes of its events in the clear."""
        with psycopg.connect(self.parts.where.database_url) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            for table in tables:
                rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(*table)))
                yield from (row[0] for row in rows)
        for notification in self.parts.events.recorder.select_notifications(1, 1_000_000):
            yield notification.state.decode()
            yield repr(vars(self.parts.events.mapper.to_domain_event(notification)))

    def _look(self, response: httpx.Response) -> None:
        self.seen.append(f"{response.read().decode()} {response.headers}")


@dataclass(frozen=True)
class Organisation:
    installation: Installation
    id: UUID
    client: httpx.Client

    def configure(self, **config: str) -> httpx.Response:
        return self.client.post("/config", json=config)

    def get(self, path: str) -> httpx.Response:
        """Of all that is recorded by now, by whomever."""
        recorded = self.installation.parts.events.recorder.max_notification_id()
        return self.client.get(path, headers={"X-Position-AtLeast": str(recorded)})

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.client.post(path, **options)

    def plant(self, external_plant_id: str = "esm-001") -> UUID:
        return Plant.create_id(self.id, external_plant_id)


@contextmanager
def installed(database_url: str, allowed: list[str]) -> Iterator[Installation]:
    """`allowed` are the partners on private networks."""
    where = Where(database_url, None, [OperatorKey.random()], allowed)
    with ExitStack() as stack:
        parts = stack.enter_context(assembled(where, SETTINGS, LocalBroker()))
        stack.enter_context(following(database_url))
        server = stack.enter_context(Serving(api(parts, SETTINGS), lifespan="on"))
        yield Installation(parts, server.url)
