"""Puts the API and the worker together from the parts; the only place where interfaces meet adapters."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from functools import partial
from math import nan

import psycopg
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, start_http_server
from starlette.applications import Starlette

from application.alarms import Alarms
from domain import topology
from domain.errors import Unavailable
from domain.topology import DEAD_QUEUE
from infra.audit.sealer import NAME as SEALER
from infra.audit.sealer import Sealer
from infra.audit.sealing_keys import SealingKeys
from infra.bootstrap import THREADS, Parts
from infra.data_keys import DataKeys
from infra.metrics import PoolMetrics, QueueMetrics, Stats
from infra.postgres import async_connect
from infra.settings import Settings
from interfaces.http.app import build_app
from interfaces.http.audit_metrics import AuditMetrics
from interfaces.http.services import Check, HttpServices, IdentityProvider, PartnerBroker, RateLimits
from interfaces.http.slot_metrics import SlotMetrics
from interfaces.worker import Worker, WorkerParts
from projections import partitions
from projections.positions import Positions
from projections.self_audit import Finding, last_findings
from projections.slots import SlotStatus, slot_statuses


def api(parts: Parts, settings: Settings, leaving: threading.Event | None = None) -> Starlette:
    """The HTTP API: stateless, so any number of them may run. Once `leaving` is set it is not ready any more."""
    queries = parts.queries()
    app = build_app(
        HttpServices(
            trading=parts.trading,
            plants=parts.plants,
            plant_configs=parts.plant_configs,
            turns=parts.turns,
            queries=queries,
            positions=Positions(partial(async_connect, parts.where.database_url, "positions")),
            decode=parts.decode,
            key_hasher=parts.hasher,
            partner_broker=PartnerBroker(*settings.partner_broker(parts.where.amqp_url)),
            identity_provider=_identity_provider(settings),
            rate_limits=RateLimits(settings.reads_per_minute, settings.writes_per_minute, settings.syncs_per_minute),
            checks=_checks(parts) | {"process": lambda: "It is about to end" if leaving and leaving.is_set() else None},
            standing=partial(_standing, parts),
            registry=_registry(parts, queries=queries.get_stats),
            threads=THREADS,
            partner_networks=settings.auth_networks,
        )
    )
    return parts.tracing.of_app(app) if parts.tracing else app


@contextmanager
def showing_metrics(parts: Parts, settings: Settings) -> Iterator[None]:
    """A worker's own, on WATTLEDGER_METRICS_PORT, until the block ends."""
    if not settings.metrics_port:
        yield
        return
    registry = _registry(parts)
    registry.register(QueueMetrics([queue.name for queue in topology.shared().queues], parts.broker.waiting))
    server, thread = start_http_server(settings.metrics_port, settings.http_host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
            sealer=Sealer(parts.connect, SealingKeys(DataKeys(parts.where.secret_keys))),
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


def _checks(parts: Parts) -> dict[str, Check]:
    return {
        "database": _failing(parts.events.recorder.max_notification_id, "PostgreSQL can't be reached"),
        "broker": _failing(lambda: parts.broker.queue_exists(DEAD_QUEUE), "The message broker can't be reached"),
        "slots": lambda: _parked(parts),
    }


def _standing(parts: Parts) -> Mapping[str, object]:
    """How far behind the log each slot is, and until when measurements have tables."""
    with parts.pool.connection() as connection:
        slots, last = slot_statuses(connection), partitions.horizon(connection)
    return {
        "slots": {
            slot.name: {"lagEvents": slot.lag, "lagSeconds": slot.lag_s, "parked": slot.parked_at is not None}
            for slot in slots
        },
        "measurementsUntil": last and last.isoformat(),
    }


def _registry(parts: Parts, **pools: Stats) -> CollectorRegistry:
    """The API's own metrics, the slots', and those of a worker in the same process."""
    registry = CollectorRegistry()
    registry.register(SlotMetrics(lambda: _slots(parts)))
    registry.register(PoolMetrics({"commands": parts.pool.get_stats, **pools}))
    horizon = Gauge("wattledger_partition_horizon_days", "Days that measurements have tables for", registry=registry)
    horizon.set_function(lambda: _days_ahead(parts))
    registry.register(AuditMetrics(lambda: _findings(parts)))
    registry.register(REGISTRY)  # it collects, which is all that is asked
    return registry


def _days_ahead(parts: Parts) -> float:
    try:
        with parts.pool.connection() as connection:
            last = partitions.horizon(connection)
    except psycopg.Error:
        return nan
    return (last - datetime.now(UTC).date()).days if last else -1


def _findings(parts: Parts) -> list[Finding]:
    with parts.pool.connection() as connection:
        return last_findings(connection)


def _failing(ask: Callable[[], object], sentence: str) -> Check:
    def check() -> str | None:
        try:
            ask()
        except (Unavailable, psycopg.Error):
            return sentence
        return None

    return check


def _parked(parts: Parts) -> str | None:
    """But for the sealer, of which metrics and logs tell: whoever tampers with the log must not stop the service."""
    try:
        parked = [slot.name for slot in _slots(parts) if slot.parked_at is not None and slot.name != SEALER]
    except psycopg.Error:
        return "PostgreSQL can't be reached"
    return f"Parked: {', '.join(parked)}; see `wattledger projections status`" if parked else None


def _slots(parts: Parts) -> list[SlotStatus]:
    with parts.pool.connection() as connection:
        return slot_statuses(connection)
