"""A plain AMQP client for tests and demos: the partner's or the gateway's side, none of our server code in it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pika
from pika.exceptions import UnroutableError


@dataclass(frozen=True)
class Received:
    """One message as it lay in a queue."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)


class AmqpClient:
    """One connection with confirms; not for use by several threads."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | dict[str, Any],
        *,
        message_id: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> bool:
        """Persistent and confirmed; whether it was routed to a queue."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties = pika.BasicProperties(delivery_mode=2, message_id=message_id, headers=headers)
        try:
            self._channel.basic_publish(exchange, routing_key, content, properties, mandatory=True)
        except UnroutableError:
            return False
        return True

    def get_until(
        self, queue: str, until: int | Callable[[list[Received]], bool], timeout: float = 60
    ) -> list[Received]:
        """Takes messages, acked, until there are so many or the predicate on all of them holds; raises TimeoutError.

        What the broker sent ahead but was not taken goes back to the queue.
        """
        done = until if callable(until) else lambda taken: len(taken) >= until
        received: list[Received] = []
        deadline = time.monotonic() + timeout
        try:
            while not done(received):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(received)} messages from {queue} in {timeout} s were not enough")
                received += self._next(queue, left)
        finally:
            self._channel.cancel()
        return received

    def declare(self, queue: str, exchange: str, routing_key: str) -> None:
        """A queue of the client's own, bound once."""
        self._channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        self._channel.queue_bind(queue, exchange, routing_key)

    def count(self, queue: str) -> int:
        """How many messages are ready in it; quorum queues count them a moment late."""
        return int(self._channel.queue_declare(queue, passive=True).method.message_count)

    def close(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def _next(self, queue: str, timeout: float) -> list[Received]:
        method, properties, body = next(self._channel.consume(queue, inactivity_timeout=timeout))
        if method is None or properties is None or body is None:
            return []
        self._channel.basic_ack(method.delivery_tag or 0)
        headers = dict(properties.headers or {})
        return [Received(method.exchange or "", method.routing_key or "", body, properties.message_id, headers)]
