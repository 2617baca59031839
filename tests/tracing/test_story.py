"""A command's trace, in the SDK's own memory: from the partner's message through the log to the plant and back."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from application.ports import Delivery, Message
from domain import topology
from domain.errors import BrokerUnreachable
from infra.local_broker import LocalBroker
from infra.tracing import Tracing
from tests.signing import signed
from tests.test_end_to_end import (
    System,
    configured_and_enabled,
    eventually,
    organisation_with_keys,
    running,
    setpoint,
    synced,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"


class Spans:
    """What was told to OpenTelemetry so far, by name."""

    def __init__(self) -> None:
        self._exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    def of_trace(self, name: str) -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name == name and _trace(each) == TRACE]

    def names(self) -> set[str]:
        return {each.name for each in self._exporter.get_finished_spans()}


def _trace(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def _id(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


def _parent(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def system(database_url: str, amqp_url: str, spans: Spans) -> Iterator[System]:
    with ExitStack() as stack:
        yield running(stack, database_url, amqp_url, spans.tracing)


def recorded(system: System, topic: str) -> list[tuple[int, dict[str, Any]]]:
    with psycopg.connect(system.database_url) as connection:
        query = "SELECT position, metadata FROM events WHERE topic = %s ORDER BY position"
        return connection.execute(query, [topic]).fetchall()


def test_a_command_is_followed_from_the_partner_through_the_log_to_the_plant_and_back(
    system: System, spans: Spans
) -> None:
    signing_key = organisation_with_keys(system)
    configured_and_enabled(system)
    plant_id = synced(system)
    system.gateway.declare("gateway", "plant", f"plant.{plant_id}.command")
    message = signed(setpoint("esm-001"), signing_key)
    assert system.partner.publish("vcp", "acme.command.site-setpoint", message, headers={"traceparent": TRACEPARENT})
    [command] = system.gateway.get_until("gateway", 1)
    answer = {"commandId": command.json()["commandId"], "status": "EXECUTED", "ts": "2026-11-23T08:00:00Z"}
    assert system.gateway.publish("plant", f"plant.{plant_id}.ack", answer, headers=command.headers)
    [execution] = system.partner.get_until("vcp.acme.event.execution", 1)
    # A span ends after what it is about has left.
    eventually(lambda: len(spans.of_trace("send vcp")) == 2 and len(spans.of_trace("process vcp.plant-acks")) == 1)

    [taken] = spans.of_trace("process vcp.acme.command")
    assert (taken.kind, _parent(taken)) == (SpanKind.CONSUMER, CALLER)
    [(position, metadata)] = recorded(system, "relayed-command:accepted")
    assert metadata["traceparent"] == f"00-{TRACE}-{_id(taken)}-01"
    [sent] = spans.of_trace("send plant")
    assert (sent.kind, _parent(sent)) == (SpanKind.PRODUCER, _id(taken))
    assert sent.attributes is not None
    assert sent.attributes["wattledger.position"] == command.headers["position"] == position
    assert command.headers["traceparent"] == f"00-{TRACE}-{_id(sent)}-01"
    [acknowledged] = spans.of_trace("process vcp.plant-acks")
    assert _parent(acknowledged) == _id(sent)
    told = {_parent(span): span for span in spans.of_trace("send vcp")}
    assert told.keys() == {_id(taken), _id(acknowledged)}
    assert execution.headers["traceparent"] == f"00-{TRACE}-{_id(told[_id(acknowledged)])}-01"
    for topic in ("created", "relayed", "executed"):
        assert [each["traceparent"][3:35] for _, each in recorded(system, f"relayed-command:{topic}")] == [TRACE]


def test_a_request_is_followed_into_the_log(system: System, spans: Spans) -> None:
    organisation_with_keys(system)
    headers = {"traceparent": TRACEPARENT}
    system.call("POST", "/config", json={"esmClientId": "us"}, headers=headers)
    [served] = spans.of_trace("POST /api/v1/trading/config")
    assert (served.kind, _parent(served)) == (SpanKind.SERVER, CALLER)
    [(_, metadata)] = recorded(system, "trading-config:partner-changed")
    assert metadata["traceparent"] == f"00-{TRACE}-{_id(served)}-01"
    # One that comes without a trace begins one; probes and scrapes begin none.
    system.call("POST", "/config", json={"esmClientId": "them"})
    assert recorded(system, "trading-config:partner-changed")[1][1]["traceparent"][3:35] != TRACE
    httpx.get(f"{system.http.base_url}/health/live")
    assert not any("health" in name for name in spans.names())


class Refusing(LocalBroker):
    def publish(self, messages: Any) -> list[bool]:
        raise BrokerUnreachable


def test_what_fails_is_told_and_what_belongs_to_no_trace_begins_none(spans: Spans) -> None:
    broker = LocalBroker()
    broker.declare(topology.shared())
    traced = spans.tracing.of_broker(broker)
    lost = Message("vcp", "acme.nowhere", b"{}", headers={"traceparent": TRACEPARENT})
    assert traced.publish([Message("vcp", "acme.nowhere", b"{}"), lost]) == [False, False]
    with pytest.raises(BrokerUnreachable):
        spans.tracing.of_broker(Refusing()).publish([lost])
    assert [span.status.status_code for span in spans.of_trace("send vcp")] == [StatusCode.ERROR] * 2
    assert spans.names() == {"send vcp"}

    def fail(_: Any) -> Any:
        raise KeyError("x")

    with pytest.raises(KeyError):
        traced._traced(fail)([Delivery("vcp.acme.command", "vcp", "k", b"", headers={"traceparent": b"\xff"})])
    assert "process vcp.acme.command" in spans.names()


def test_measurements_have_no_spans(spans: Spans) -> None:
    seen: list[Any] = []

    class Broker(LocalBroker):
        def consumer(self, queues: set[str], handle: Any, **_: Any) -> Any:
            seen.append(handle)

    handle = seen.append
    spans.tracing.of_broker(Broker()).consumer({"vcp.ingest"}, handle, name="ingest")  # type: ignore[arg-type]
    assert seen == [handle]
