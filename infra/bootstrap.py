"""The composition root: from settings to use cases, wired by hand."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from application.erasure import Erasure
from application.event_log import EventLog
from application.organisations import Organisations
from application.plant_configs import PlantConfigs
from application.plants import Plants
from application.ports import Broker
from application.publisher import Publisher
from application.relay import Relay
from application.trading import Trading
from infra import redaction
from infra.embedded import EmbeddedPostgres
from infra.esm import Esm
from infra.event_mapper import EventMapper, Make
from infra.event_store import event_log
from infra.metrics import REFUSALS, REPEATS
from infra.no_broker import NoBroker
from infra.postgres import connect, pool, query_pool
from infra.rabbitmq import RabbitBroker
from infra.secret_box import HmacKeyHasher, OperatorKey, PostgresSecretBox
from infra.settings import Settings
from infra.sync_turns import PostgresSyncTurns
from projections.plants import linked_plants
from projections.traces import forget_traces

if TYPE_CHECKING:
    from infra.tracing import Tracing

THREADS = 40
"""Commands that run at once: the thread limiter and the pools agree in size."""
QUERY_CONNECTIONS = 20
SYNCS = 8
"""Syncs that run or wait at once: each holds its turn on a connection while it works on one of the commands'."""


class NotConfigured(Exception):
    """A setting is missing"""


@dataclass(frozen=True)
class Where:
    """Where our database and broker are, and the keys that seal secrets; without `amqp_url` there is no broker."""

    database_url: str = field(repr=False)
    amqp_url: str | None = field(repr=False)
    secret_keys: list[OperatorKey] = field(repr=False)
    esm_allowed: list[str]


def find(settings: Settings) -> Where:
    """From the environment; without a database URL, those of the `up` that runs in WATTLEDGER_HOME."""
    if settings.jwt_secret:
        redaction.remember(settings.jwt_secret)
    if settings.database_url is not None:
        if settings.secret_keys is None:
            raise NotConfigured("WATTLEDGER_SECRET_KEYS is not set: make a key with `wattledger secrets generate`")
        keys = OperatorKey.parse_all(settings.secret_keys)
        return Where(settings.database_url, settings.amqp_url, keys, settings.allowed_partners)
    running = EmbeddedPostgres.running_at(settings.home)
    if running is None:
        raise NotConfigured(
            f"No WATTLEDGER_DATABASE_URL, and no `wattledger up` runs in {settings.home}: start one, or set the URL"
        )
    demo = json.loads((settings.home / "demo.json").read_text()) if (settings.home / "demo.json").exists() else {}
    allowed = [*settings.allowed_partners, "127.0.0.0/8"]
    return Where(running, settings.amqp_url or demo.get("amqpUrl"), embedded_keys(settings.home), allowed)


def embedded_keys(home: Path) -> list[OperatorKey]:
    """Of an embedded installation: made at its first start, readable by its owner alone."""
    path = home / "secret.keys"
    try:
        return [OperatorKey.parse(line) for line in path.read_text().split()]
    except FileNotFoundError:
        key = OperatorKey.random()
    write_private(path, f"{key}\n")
    return [key]


def write_private(path: Path, text: str) -> None:
    """Replaces a file at once, readable by its owner alone."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


@dataclass(frozen=True)
class Parts:
    """Everything that the processes are made of."""

    where: Where
    pool: "ConnectionPool[Connection[Any]]"
    events: EventLog
    broker: Broker
    hasher: HmacKeyHasher
    turns: PostgresSyncTurns
    organisations: Organisations
    erasure: Erasure
    trading: Trading
    plants: Plants
    plant_configs: PlantConfigs
    relay: Relay
    publisher: Publisher
    tracing: "Tracing | None" = None

    def connect(self) -> "Connection[Any]":
        """An autocommit connection of one's own. Never pooled: for followers, jobs and consumers."""
        return connect(self.where.database_url, "worker")

    def queries(self) -> "AsyncConnectionPool[AsyncConnection[Any]]":
        return query_pool(self.where.database_url, QUERY_CONNECTIONS, "queries")

    def decode(self, topic: str) -> Make:
        return _mapper.decoder(topic)


_mapper = EventMapper()


@contextmanager
def assembled(
    where: Where, settings: Settings, broker: Broker | None = None, tracing: "Tracing | None" = None
) -> Iterator[Parts]:
    """The parts, until the block ends. `broker` is for the in-process one, `tracing` for another than the settings'."""
    tracing = tracing or _tracing(settings)
    esm = Esm(where.esm_allowed)
    connections, turns = pool(where.database_url, THREADS, "commands"), pool(where.database_url, SYNCS, "syncs")
    connections.open()
    turns.open()
    used = broker or (RabbitBroker(where.amqp_url) if where.amqp_url else NoBroker())
    seen = tracing.of_broker(used) if tracing else used
    sync_turns = PostgresSyncTurns(connections, turns, settings.sync_minutes * 60)
    try:
        yield _assemble(where, settings, connections, sync_turns, esm, seen, tracing)
    finally:
        if used is not broker:
            used.close()
        turns.close()
        connections.close()
        esm.close()
        if tracing:
            tracing.close()


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.otlp_url is None:
        return None
    try:
        from infra.tracing import Tracing  # noqa: PLC0415 - an extra
    except ImportError:
        raise NotConfigured("WATTLEDGER_OTLP_URL needs OpenTelemetry: pip install 'wattledger[otel]'") from None
    return Tracing.to(settings.otlp_url)


def _assemble(
    where: Where,
    settings: Settings,
    connections: "ConnectionPool[Connection[Any]]",
    turns: PostgresSyncTurns,
    esm: Esm,
    broker: Broker,
    tracing: "Tracing | None",
) -> Parts:
    events = event_log(connections)
    secrets = PostgresSecretBox(connections, where.secret_keys)
    hasher = HmacKeyHasher(secrets)
    trading = Trading(events, esm, broker, secrets)

    def linked(organization_id: Any) -> Any:
        with connections.connection() as connection:
            return linked_plants(connection, organization_id)

    def forget(organization_id: UUID) -> None:
        with connections.connection() as connection:
            forget_traces(connection, organization_id)

    return Parts(
        where=where,
        pool=connections,
        events=events,
        broker=broker,
        hasher=hasher,
        turns=turns,
        organisations=Organisations(events, secrets, hasher),
        erasure=Erasure(events, broker, secrets, forget),
        trading=trading,
        plants=Plants(events, esm, trading, turns, linked),
        plant_configs=PlantConfigs(events, esm, trading),
        relay=Relay(
            events,
            secrets,
            settings.emergency_signature_required,
            timedelta(minutes=settings.fresh_signed_minutes),
            timedelta(hours=settings.fresh_unsigned_hours),
            count_refusal=lambda reason: REFUSALS.labels(reason).inc(),
            count_repeat=REPEATS.inc,
        ),
        publisher=Publisher(events, broker),
        tracing=tracing,
    )
