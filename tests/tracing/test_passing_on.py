"""Without OpenTelemetry what came in as `traceparent` goes out again; where to send traces is a setting."""

import gzip
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from queue import SimpleQueue
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.domain import Aggregate
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from application.context import Metadata, traceparent
from infra.bootstrap import NotConfigured, Where, assembled
from infra.operator_keys import OperatorKey
from infra.serving import Serving
from infra.settings import Settings
from infra.tracing import Tracing
from tests.relay.world import World, delivery
from tests.tracing.test_story import TRACE, TRACEPARENT

ELSEWHERE = Where("postgresql://127.0.0.1:9/x", None, [OperatorKey.random()], [])


def test_a_command_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    kept: list[str | None] = []
    save_all = world.events.save_all

    def seen(aggregates: Iterable[Aggregate], metadata_of: Mapping[UUID, Metadata]) -> Any:
        kept.extend(each.traceparent for each in metadata_of.values())
        return save_all(aggregates, metadata_of)

    monkeypatch.setattr(world.events, "save_all", seen)
    for given in (TRACEPARENT, "nonsense", b"\xff", 7, None):
        taken = delivery(world.body(), "acme.command.site-setpoint")
        assert world.commands([replace(taken, headers={"traceparent": given})]) == []
    assert kept == [TRACEPARENT, None, None, None, None]


def test_what_an_event_was_caused_by_goes_on_with_what_it_causes() -> None:
    world = World()
    assert world.deliver(world.body()) == []
    batch = world.recorded(world.followed)
    world.publisher.apply(None, [replace(each, metadata={"traceparent": TRACEPARENT}) for each in batch])
    assert [message.headers["traceparent"] for message in world.broker.published] == [TRACEPARENT] * 2


@pytest.mark.parametrize(
    "given",
    [
        TRACEPARENT.upper(), f"01{TRACEPARENT[2:]}", TRACEPARENT + "-x", TRACEPARENT.replace(TRACE, "0" * 32),
        TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16), f"{TRACEPARENT}\n", "", None,
    ],
)  # fmt: skip
def test_what_is_no_trace_context_is_not_kept(given: object) -> None:
    assert traceparent(given) is None


def test_traces_go_where_the_setting_says() -> None:
    arrived: SimpleQueue[ExportTraceServiceRequest] = SimpleQueue()

    async def collect(request: Request) -> Response:
        body = await request.body()
        plain = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
        arrived.put(ExportTraceServiceRequest.FromString(plain))
        return Response(media_type="application/x-protobuf")

    with Serving(Starlette(routes=[Route("/v1/traces", collect, methods=["POST"])])) as collector:
        tracing = Tracing.to(f"{collector.url}/v1/traces")
        with tracing.provider.get_tracer("test").start_as_current_span("a step"):
            pass
        tracing.close()
    [told] = arrived.get(timeout=10).resource_spans
    assert [(each.key, each.value.string_value) for each in told.resource.attributes if each.key == "service.name"] == [
        ("service.name", "wattledger")
    ]
    assert [span.name for span in told.scope_spans[0].spans] == ["a step"]


def test_without_the_extra_the_setting_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infra.tracing", None)
    settings = Settings(otlp_url="http://127.0.0.1:9/v1/traces")
    with pytest.raises(NotConfigured, match=r"pip install 'wattledger\[otel\]'"), assembled(ELSEWHERE, settings):
        pass
