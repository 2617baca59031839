"""OpenTelemetry, an extra: spans around requests, around commands that the broker brings, and around what it is sent.

What lies between is the event log: each event keeps the trace context of what caused it. Without this, whatever
`traceparent` came in goes out again as it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from application.ports import Broker, Consumption, DeadLetter, Delivery, Handle, Message
from domain.topology import Topology

EXPORT_S = 2.0
"""A collector that is away holds up the end no longer; what it misses is lost."""
UNTRACED = ("/health/", "/metrics", "/telemetry/stream")
"""What is asked all the time, and what has no end."""
MEASUREMENTS = "ingest"
"""The consumer of measurements: thousands a second, each without a story."""


class Headed(Protocol):
    """A message or a delivery."""

    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def message_id(self) -> str | None: ...
    @property
    def headers(self) -> dict[str, Any]: ...


H = TypeVar("H", Message, Delivery)


class Tracing:
    """One per process; `close` sends what is left."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider

    @classmethod
    def to(cls, url: str) -> "Tracing":
        """By the batch, in a thread; OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER are heeded."""
        provider = TracerProvider(resource=Resource.create({"service.name": "wattledger"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=EXPORT_S)))
        return cls(provider)

    def of_app(self, app: Starlette) -> Starlette:
        app.add_middleware(_Handed)
        app.add_middleware(OpenTelemetryMiddleware, excluded_urls=UNTRACED, tracer_provider=self.provider)
        return app

    def of_broker(self, broker: Broker) -> "TracedBroker":
        return TracedBroker(broker, self.provider.get_tracer("wattledger"))

    def close(self) -> None:
        self.provider.shutdown()


@dataclass(frozen=True)
class _Handed:
    """What acts on a request finds its span in the header `traceparent`."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and trace.get_current_span().get_span_context().is_valid:
            headers = MutableHeaders(scope=scope)
            for name, value in _carrier(trace.get_current_span()).items():
                headers[name] = value
        await self.app(scope, receive, send)


@dataclass(frozen=True)
class TracedBroker:
    """A broker whose deliveries and messages each have a span; their `traceparent` is that span's."""

    broker: Broker
    tracer: trace.Tracer

    def declare(self, topology: Topology) -> None:
        self.broker.declare(topology)

    def delete(self, queues: Sequence[str]) -> None:
        self.broker.delete(queues)

    def queue_exists(self, queue: str) -> bool:
        return self.broker.queue_exists(queue)

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        return self.broker.waiting(queues)

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        """What belongs to no trace begins none."""
        traced = {number: each for number, each in enumerate(messages) if "traceparent" in each.headers}
        with self._spans([*traced.values()], SpanKind.PRODUCER, lambda each: f"send {each.exchange}") as (spans, sent):
            anew = dict(zip(traced, sent, strict=True))
            taken = self.broker.publish([anew.get(number, each) for number, each in enumerate(messages)])
            for number, span in zip(traced, spans, strict=True):
                if not taken[number]:
                    span.set_status(Status(StatusCode.ERROR, "no queue took it"))
        return taken

    def consumer(
        self, queues: set[str], handle: Handle, *, batch: int = 200, linger: float = 0.01, name: str = "consumer"
    ) -> Consumption:
        traced = handle if name == MEASUREMENTS else self._traced(handle)
        return self.broker.consumer(queues, traced, batch=batch, linger=linger, name=name)

    def close(self) -> None:
        self.broker.close()

    def _traced(self, handle: Handle) -> Handle:
        def handled(batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
            with self._spans(batch, SpanKind.CONSUMER, lambda each: f"process {each.queue}") as (_, deliveries):
                return handle(deliveries)

        return handled

    @contextmanager
    def _spans(
        self, batch: Sequence[H], kind: SpanKind, name: Callable[[H], str]
    ) -> Iterator[tuple[list[Span], list[H]]]:
        """A span of each, and each with its span's `traceparent`, until the block ends."""
        spans = [
            self.tracer.start_span(name(each), _context(each.headers), kind, attributes=_attributes(each))
            for each in batch
        ]
        try:
            yield (
                spans,
                [
                    replace(each, headers={**each.headers, **_carrier(span)})
                    for each, span in zip(batch, spans, strict=True)
                ],
            )
        except Exception as error:
            for span in spans:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            for span in spans:
                span.end()


def _context(headers: Mapping[str, Any]) -> Any:
    return propagate.extract({name: value for name, value in headers.items() if isinstance(value, str)})


def _carrier(span: Span) -> dict[str, str]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    return carrier


def _attributes(of: Headed) -> dict[str, Any]:
    """By OpenTelemetry's names; the event's position is what finds it in the log."""
    given = {
        "messaging.system": "rabbitmq",
        "messaging.destination.name": of.exchange,
        "messaging.rabbitmq.destination.routing_key": of.routing_key,
        "messaging.message.id": of.message_id,
        "wattledger.position": of.headers.get("position"),
    }
    return {name: value for name, value in given.items() if value is not None}
