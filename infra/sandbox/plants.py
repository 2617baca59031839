"""Simulated plants at the broker: they send telemetry and meters, take the gateway's commands and answer them."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid5

import msgspec

from application.ports import Broker, Consumption, DeadLetter, Delivery, Message
from domain import vcp
from domain.errors import BrokerUnreachable
from domain.topology import PLANT_EXCHANGE, VCP_EXCHANGE, Binding, Queue, Topology
from infra.sandbox.esm_plants import SandboxPlant
from infra.sandbox.gateway import Answer, Gateway
from infra.sandbox.physics import Measurements, PlantModel, Site

log = logging.getLogger(__name__)

MINUTE = timedelta(minutes=1)
DECLARE_AGAIN_S = 30.0
QUEUE_EXPIRES_MS = 10 * 60 * 1000
BACK_FILL_MESSAGES = 30_000
PUBLISHED_AT_ONCE = 2_000


def _now() -> datetime:
    return datetime.now(UTC)


def _default_site(external_plant_id: str) -> Site:
    return SandboxPlant(external_plant_id, external_plant_id).site()


class SimulatedPlants:
    """The plants of one organisation: `plants` are (plant id, external plant id), `site_of` what stands there.

    The broker is a client of their own and stays the caller's to close. Without `back_fill` they begin now; with it
    they first tell of that much time before, as ordinary messages, coarser where that would be too many.
    """

    def __init__(
        self,
        broker: Broker,
        queue_prefix: str,
        plants: Sequence[tuple[UUID, str]],
        *,
        site_of: Callable[[str], Site] = _default_site,
        interval_s: float = 5.0,
        back_fill: timedelta = timedelta(0),
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._broker = broker
        self._prefix = queue_prefix
        self._site_of = site_of
        self._interval_s = interval_s
        self._back_fill = back_fill
        self._now = now
        self.gateways = {
            plant_id: Gateway(external_id, PlantModel(site_of(external_id))) for plant_id, external_id in plants
        }
        self._metered_until: datetime | None = None
        self._consumption: Consumption | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name="sandbox-plants", daemon=True)

    def start(self) -> Self:
        self._consumption = self._broker.consumer(
            {_queue(plant_id).name for plant_id in self.gateways}, self._take, linger=0.0, name="sandbox-plants"
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """They are offline from now on: nothing is taken for them any more."""
        self._stopping.set()
        if self._consumption is None:
            return
        self._thread.join(10)
        self._consumption.stop()
        try:
            self._broker.delete([_queue(plant_id).name for plant_id in self.gateways])
        except BrokerUnreachable:
            log.info("the simulated plants' queues are left to expire")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def measure(self, now: datetime) -> Iterator[Message]:
        """What the plants tell at a moment; their meters once a minute."""
        minute = now.replace(second=0, microsecond=0)
        metered = self._metered_until is None or minute > self._metered_until
        self._metered_until = minute
        for plant_id, gateway in self.gateways.items():
            with suppress(KeyError):  # its ESM may have forgotten it
                gateway.model.apply_plan(self._site_of(gateway.external_id).plan)
            yield from self._messages(plant_id, gateway.step(now), metered=metered)

    def history(self, now: datetime) -> Iterator[Message]:
        """What the plants would have told in the time before `now`, oldest first."""
        minutes = int(self._back_fill / MINUTE)
        step = max(1, -(-2 * minutes * len(self.gateways) // BACK_FILL_MESSAGES))
        start = now.replace(second=0, microsecond=0) - minutes * MINUTE
        for passed in range(0, minutes, step):
            for plant_id, gateway in self.gateways.items():
                yield from self._messages(plant_id, gateway.step(start + passed * MINUTE), metered=True)

    def _live(self) -> None:
        """Tells until stopped; while the broker is away the plants live on unheard."""
        declared_for, history = 0.0, self.history(self._now())
        while not self._stopping.is_set():
            try:
                if declared_for <= 0:
                    self._broker.declare(Topology(tuple(_queue(plant_id) for plant_id in self.gateways)))
                    declared_for = DECLARE_AGAIN_S
                self._publish(history)
                self._publish(self.measure(self._now()))
            except BrokerUnreachable as error:
                declared_for = 0.0
                log.info("simulated plants are unheard", extra={"error": str(error)})
            except Exception:
                log.exception("simulated plants stumbled")
            self._stopping.wait(self._interval_s)
            declared_for -= self._interval_s

    def _publish(self, messages: Iterable[Message]) -> None:
        waiting: list[Message] = []
        for message in messages:
            waiting.append(message)
            if len(waiting) == PUBLISHED_AT_ONCE:
                self._broker.publish(waiting)
                waiting = []
            if self._stopping.is_set():
                return
        self._broker.publish(waiting)

    def _take(self, batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        """Answers each command; what is none is dropped, as real gateways do."""
        answers: list[Message] = []
        for delivery in batch:
            plant_id = UUID(delivery.queue.rpartition(".")[2])
            gateway = self.gateways.get(plant_id)
            taken = gateway.take(delivery.body, self._now()) if gateway else ()
            # Whoever traces sees what came of its command.
            trace = {name: value for name, value in delivery.headers.items() if name == "traceparent"}
            answers.extend(_ack(plant_id, answer, self._now(), trace) for answer in taken)
        self._broker.publish(answers)
        return ()

    def _messages(self, plant_id: UUID, measured: Measurements, *, metered: bool) -> Iterator[Message]:
        yield self._message(plant_id, "realtime", measured.at, measured.telemetry())
        if metered:
            meters = {"readingAt": vcp.rfc3339(measured.at), "meters": measured.meters()}
            yield self._message(plant_id, "meter", measured.at, meters)

    def _message(self, plant_id: UUID, kind: str, at: datetime, payload: dict[str, Any]) -> Message:
        site = self.gateways[plant_id].external_id
        message_id = uuid5(plant_id, f"{kind}:{vcp.rfc3339(at)}")
        envelope = vcp.emit(message_id, site, payload, at) | {"source": f"plant:{site}"}
        key = f"{self._prefix}.event.telemetry.{kind}.{site}"
        return Message(VCP_EXCHANGE, key, msgspec.json.encode(envelope), str(message_id))


def _queue(plant_id: UUID) -> Queue:
    """Goes by itself when its process was killed, so that its plant counts as offline then."""
    binding = Binding(PLANT_EXCHANGE, f"plant.{plant_id}.command")
    return Queue(f"sandbox.plant.{plant_id}", (binding,), expires_ms=QUEUE_EXPIRES_MS)


def _ack(plant_id: UUID, answer: Answer, at: datetime, headers: dict[str, Any]) -> Message:
    body = {"commandId": answer.command_id, "status": answer.status, "ts": vcp.rfc3339(at)}
    if answer.detail is not None:
        body["detail"] = answer.detail
    return Message(PLANT_EXCHANGE, f"plant.{plant_id}.ack", msgspec.json.encode(body), headers=headers)
