"""Puts the API and the worker together from the parts; the only place where interfaces meet adapters."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import tzinfo
from functools import partial

import psycopg
from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette

from application.alarms import Alarms
from domain.errors import Unavailable
from domain.topology import DEAD_QUEUE
from infra.bootstrap import THREADS, Parts
from infra.postgres import async_connect
from infra.settings import Settings
from interfaces.http.app import build_app
from interfaces.http.services import Check, HttpServices, IdentityProvider, PartnerBroker, RateLimits
from interfaces.http.slot_metrics import SlotMetrics
from interfaces.worker import Worker, WorkerParts
from projections.positions import Positions
from projections.slots import SlotStatus, slot_statuses


def api(parts: Parts, settings: Settings) -> Starlette:
    """The HTTP API: stateless, so any number of them may run."""
    return build_app(
        HttpServices(
            trading=parts.trading,
            plants=parts.plants,
            plant_configs=parts.plant_configs,
            turns=parts.turns,
            queries=parts.queries(),
            positions=Positions(partial(async_connect, parts.where.database_url, "positions")),
            key_hasher=parts.hasher,
            partner_broker=PartnerBroker(*settings.partner_broker(parts.where.amqp_url)),
            identity_provider=_identity_provider(settings),
            rate_limits=RateLimits(settings.reads_per_minute, settings.writes_per_minute, settings.syncs_per_minute),
            checks=_checks(parts),
            registry=_registry(parts),
            threads=THREADS,
            partner_networks=settings.auth_networks,
        )
    )


@contextmanager
def working(parts: Parts, settings: Settings, plant_clock: tzinfo | None = None) -> Iterator[Worker]:
    """A worker, until the block ends; `plant_clock` is another than the settings name."""
    worker = Worker(
        WorkerParts(
            relay=parts.relay,
            publisher=parts.publisher,
            plants=parts.plants,
            plant_configs=parts.plant_configs,
            broker=parts.broker,
            connect=parts.connect,
            decode=parts.decode,
            due=parts.turns.due,
            retention_days=settings.retention_days,
            alarms=Alarms(parts.events, plant_clock or settings.plant_clock),
        )
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def _identity_provider(settings: Settings) -> IdentityProvider:
    return IdentityProvider(
        jwks_url=settings.jwt_jwks_url,
        public_key=settings.jwt_public_key,
        secret=settings.jwt_secret,
        algorithms=tuple(settings.jwt_algorithms.replace(",", " ").split()),
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        orgs_claim=settings.jwt_orgs_claim,
    )


def _checks(parts: Parts) -> Mapping[str, Check]:
    return {
        "database": _failing(parts.events.recorder.max_notification_id, "PostgreSQL can't be reached"),
        "broker": _failing(lambda: parts.broker.queue_exists(DEAD_QUEUE), "The message broker can't be reached"),
        "slots": lambda: _parked(parts),
    }


def _registry(parts: Parts) -> CollectorRegistry:
    """The API's own metrics, the slots', and those of a worker in the same process."""
    registry = CollectorRegistry()
    registry.register(SlotMetrics(lambda: _slots(parts)))
    registry.register(REGISTRY)  # it collects, which is all that is asked
    return registry


def _failing(ask: Callable[[], object], sentence: str) -> Check:
    def check() -> str | None:
        try:
            ask()
        except (Unavailable, psycopg.Error):
            return sentence
        return None

    return check


def _parked(parts: Parts) -> str | None:
    try:
        parked = [slot.name for slot in _slots(parts) if slot.parked_at is not None]
    except psycopg.Error:
        return "PostgreSQL can't be reached"
    return f"Parked: {', '.join(parked)}; see `wattledger projections status`" if parked else None


def _slots(parts: Parts) -> list[SlotStatus]:
    with parts.pool.connection() as connection:
        return slot_statuses(connection)
