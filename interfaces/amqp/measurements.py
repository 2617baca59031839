"""The plants' telemetry and meters: decoded, resolved to their plant in memory, and recorded a batch a transaction."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import zip_longest
from typing import Any
from uuid import UUID

import psycopg
from prometheus_client import Counter
from psycopg import Connection

from application.ports import DeadLetter, Delivery
from domain.vcp import Unreadable
from interfaces.amqp import intake, telemetry_message
from interfaces.amqp.alarm_watch import AlarmWatch
from interfaces.amqp.plant_sites import PlantSites
from interfaces.amqp.telemetry_message import MeterMessage, RealtimeMessage
from projections.measurements import RETENTION, Recorded, by_days, limits
from projections.meters import MeterReading, record_meters
from projections.samples import Sample, record_telemetry

SITES_FRESH_S = 0.5
PATIENCE_S = 30

MEASUREMENTS = Counter("wattledger_measurements_total", "Samples and readings by what became of them", ["outcome"])


def _now() -> datetime:
    return datetime.now(UTC)


class Measurements:
    """A `Handle` for the queue vcp.ingest; `connect` opens the one autocommit connection that it keeps."""

    def __init__(
        self,
        connect: Callable[[], Connection[Any]],
        *,
        retention: timedelta = RETENTION,
        now: Callable[[], datetime] = _now,
        alarms: AlarmWatch | None = None,
    ) -> None:
        self._connect = connect
        self._retention = retention
        self._now = now
        self._alarms = alarms
        self._sites = PlantSites()
        self._begun_at = 0.0
        self._connection: Connection[Any] | None = None

    def __call__(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        return intake.take("measurements", batch, self._record)

    def close(self) -> None:
        """When nobody calls it any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _record(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        try:
            connection = self._open_connection()
            return self._record_on(connection, batch)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            self.close()
            raise

    def _record_on(self, connection: Connection[Any], batch: Sequence[Delivery]) -> list[DeadLetter]:
        self._begun_at = time.monotonic()
        self._sites.refresh(connection, self._begun_at - SITES_FRESH_S)
        now = self._now()
        earliest, latest = limits(now, self._retention)
        samples: list[Sample] = []
        readings: list[MeterReading] = []
        dead_letters: list[DeadLetter] = []
        for delivery in batch:
            try:
                plant_id, message = self._read(connection, delivery, earliest, latest)
            except Unreadable as error:
                dead_letters.append(DeadLetter(delivery, str(error), intake.request_id()))
                continue
            if isinstance(message, RealtimeMessage):
                samples.append(telemetry_message.sample(plant_id, message))
            else:
                readings.extend(telemetry_message.readings(plant_id, message))
        # One transaction, as a rule: only a backlog of many days is more.
        for some_samples, some_readings in zip_longest(by_days(samples), by_days(readings), fillvalue=()):
            with connection.transaction():
                # In this order, as every writer of both does: so no two batches wait for each other.
                telemetry = record_telemetry(connection, some_samples, now=now, retention=self._retention)
                meters = record_meters(connection, some_readings, now=now, retention=self._retention)
            _count(telemetry, meters)
        if self._alarms is not None and samples:
            self._alarms.look(connection, samples)
        return dead_letters

    def _read(
        self, connection: Connection[Any], delivery: Delivery, earliest: datetime, latest: datetime
    ) -> tuple[UUID, RealtimeMessage | MeterMessage]:
        prefix, kind, key_site = _parts(delivery.routing_key)
        message = telemetry_message.read(kind, delivery.body)
        measured_at = telemetry_message.measured_at(message)
        if measured_at > latest:
            raise Unreadable("measured in the future")
        if measured_at < earliest:
            raise Unreadable("measured before the retention")
        return self._plant(connection, prefix, key_site, message), message

    def _plant(
        self, connection: Connection[Any], prefix: str, key_site: str, message: RealtimeMessage | MeterMessage
    ) -> UUID:
        """The envelope's site decides; the routing key may leave it out or name the plant by its other id."""
        plant_id = self._site(connection, prefix, message.site_id)
        if key_site not in ("", message.site_id) and self._site(connection, prefix, key_site) != plant_id:
            raise Unreadable("the routing key names another site than the envelope")
        return plant_id

    def _site(self, connection: Connection[Any], prefix: str, site: str) -> UUID:
        plant_id = self._sites.find(prefix, site)
        # It may be new: worth one look a batch.
        if plant_id is None and self._sites.refresh(connection, self._begun_at):
            plant_id = self._sites.find(prefix, site)
        if plant_id is None:
            raise Unreadable("unknown site")
        return plant_id

    def _open_connection(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            # What a stuck database holds up goes back to the broker, and comes again.
            self._connection.execute(f"SET statement_timeout = '{PATIENCE_S}s'")
        return self._connection


@lru_cache(100_000)
def _parts(routing_key: str) -> tuple[str, str, str]:
    """`{prefix}.event.telemetry.{kind}[.{site}]`; a site may hold dots of its own."""
    prefix, found, rest = routing_key.partition(".event.telemetry.")
    if not found:
        raise Unreadable("no such telemetry")
    kind, _, site = rest.partition(".")
    return prefix, kind, site


def _count(*recorded: Recorded) -> None:
    for outcome in Recorded._fields:
        MEASUREMENTS.labels(outcome).inc(sum(getattr(each, outcome) for each in recorded))
