"""Everything that a partner could try at the broker and may not, each by what it is."""

from collections.abc import Callable, Iterator
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

from domain import topology

Do = Callable[[BlockingChannel], object]
Try = tuple[str, Do]

EXCHANGES = ("plant", "amq.topic", "amq.direct", "amq.fanout", "amq.headers")


def forbidden(own: str, other: str) -> list[Try]:
    """Of the partner with the queue prefix `own`, where `other` is one, too."""
    return [*_with_queues(own, other), *_publishing(own, other), *_binding(own, other), *_with_exchanges(own)]


def _try(method: str, *arguments: Any, **named: Any) -> Try:
    said = ", ".join([*map(repr, arguments), *(f"{name}={value!r}" for name, value in named.items())])
    return f"{method} {said}", lambda channel: getattr(channel, method)(*arguments, **named)


def _with_queues(own: str, other: str) -> Iterator[Try]:
    for queue in (*_names(other), *_names(own, "inbound"), *_shared()):
        yield _try("basic_get", queue)
        yield _try("basic_consume", queue, print)
        yield _try("queue_purge", queue)
    for queue in (*_names(other), *_names(own), *_shared()):
        yield _try("queue_delete", queue)
        yield _try("queue_declare", queue, durable=True, arguments={"x-queue-type": "quorum"})
        yield _try("queue_bind", queue, "vcp", f"{own}.event.telemetry.#")
        yield _try("queue_unbind", queue, "vcp", f"{own}.command.#")
    extra = f"vcp.{own}.event.telemetry"
    for name in (
        "mine",
        "",
        f"vcp.{other}.event.telemetry.x",
        f"vcp.{own}.event.status.x",
        f"{extra}.a.b",
        f"{extra}.",
    ):
        yield _try("queue_declare", name)
    for exchange in ("", "plant", "amq.topic"):
        yield _try("queue_declare", f"{extra}.dead", auto_delete=True, arguments={"x-dead-letter-exchange": exchange})


def _publishing(own: str, other: str) -> Iterator[Try]:
    keys = [
        f"{other}.command.site-setpoint", f"{other}.command.emergency", f"{other}.event.telemetry.realtime.esm-001",
        f"{own}.event.telemetry.realtime.esm-001", f"{own}.event.command.ack", f"{own}.event.execution",
        f"{own}.event.alarm", f"{own}.command", f"{own}.schedule.create.x", "#", "",
    ]  # fmt: skip
    for key in keys:
        yield _try("basic_publish", "vcp", key, b"{}")
    for queue in (*_names(other), *_names(own), *_shared()):
        yield _try("basic_publish", "", queue, b"{}")
    for exchange in EXCHANGES:
        yield _try("basic_publish", exchange, f"{own}.command.mode", b"{}")


def _binding(own: str, other: str) -> Iterator[Try]:
    extra = f"vcp.{own}.event.telemetry.x"

    def bind(exchange: str, key: str) -> Try:
        def do(channel: BlockingChannel) -> None:
            channel.queue_declare(extra, auto_delete=True)
            channel.queue_bind(extra, exchange, key)

        return f"bind {exchange} {key!r}", do

    keys = [
        "#", "", "*.event.telemetry.#", f"{other}.event.telemetry.#", f"{other}.#", f"{own}.#", f"{own}.event.#",
        f"{own}.command.#", f"{own}.event.command.#", f"{own}.*.telemetry.#", "plant.*.command",
    ]  # fmt: skip
    for key in keys:
        yield bind("vcp", key)
        yield _try("exchange_bind", "vcp", "vcp", key)
    for exchange in EXCHANGES:
        yield bind(exchange, f"{own}.event.telemetry.#")
        yield _try("exchange_bind", "vcp", exchange, "#")
        yield _try("exchange_bind", exchange, "vcp", f"{own}.event.telemetry.#")


def _with_exchanges(own: str) -> Iterator[Try]:
    for exchange in ("mine", "vcp", "plant", f"vcp.{own}.event.telemetry.x", "amq.mine"):
        yield _try("exchange_declare", exchange, "topic", durable=True)
    for exchange in ("vcp", *EXCHANGES):
        yield _try("exchange_delete", exchange)


def _names(prefix: str, direction: str | None = None) -> list[str]:
    return [queue.name for queue in topology.queues(prefix) if direction in (None, queue.direction)]


def _shared() -> list[str]:
    return [queue.name for queue in topology.shared().queues]
