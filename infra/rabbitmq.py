"""The Broker port over RabbitMQ: topology on short-lived connections; the modules beside it publish and consume."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from application.ports import Consumption, Handle, Message
from domain.errors import BrokerUnreachable
from domain.topology import Queue, Topology
from infra.rabbitmq_connection import CONNECTION_ERRORS, HEARTBEAT_SECONDS, parameters
from infra.rabbitmq_consumer import RabbitConsumption
from infra.rabbitmq_publisher import Publisher

log = logging.getLogger(__name__)

_NOT_FOUND, _PRECONDITION_FAILED = 404, 406
_ADMIN_HEARTBEAT_SECONDS = 5
_NEXT_EXPIRES_MS = 60_000


class RabbitBroker:
    """`url` is an AMQP URL; a broker that is down is reported within `connect_timeout` seconds, at every call anew."""

    def __init__(
        self, url: str, *, connect_timeout: float = 3.0, heartbeat: int = HEARTBEAT_SECONDS, name: str = "wattledger"
    ) -> None:
        # pika writes a traceback of its own at every refused connection; ours is one line, with what it means to us.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._url = url
        self._connect_timeout = connect_timeout
        self._heartbeat = heartbeat
        self._name = name
        self._publisher = Publisher(self._parameters("publisher"), connect_timeout)
        self._consumptions: list[RabbitConsumption] = []

    def declare(self, topology: Topology) -> None:
        """Idempotent, and lasting: once it returns, a broker that is killed comes back with these queues. A queue that
        exists with other arguments is kept, bound and logged: its messages matter more."""
        with self._connection() as connection:
            channel = connection.channel()
            for exchange in topology.exchanges:
                channel.exchange_declare(exchange, "topic", durable=True)
            limits = _delivery_limits(connection)
            for queue in topology.queues:
                channel = _declare_queue(connection, channel, queue, queue.arguments | limits)
            if topology.queues:
                _make_lasting(channel)

    def delete(self, queues: Sequence[str]) -> None:
        with self._connection() as connection:
            channel = connection.channel()
            for queue in queues:
                channel.queue_delete(queue)

    def queue_exists(self, queue: str) -> bool:
        return queue in self.waiting([queue])

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        waiting: dict[str, int] = {}
        if not queues:
            return waiting
        with self._connection() as connection:
            channel = connection.channel()
            for queue in queues:
                try:
                    waiting[queue] = channel.queue_declare(queue, passive=True).method.message_count
                except ChannelClosedByBroker as error:
                    if error.reply_code != _NOT_FOUND:
                        raise
                    channel = connection.channel()  # the question about a queue that is missing closes its own
        return waiting

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        return self._publisher.publish(messages)

    def consumer(
        self, queues: set[str], handle: Handle, *, batch: int = 200, linger: float = 0.01, name: str = "consumer"
    ) -> Consumption:
        consumption = RabbitConsumption(
            self._parameters(name), self.publish, queues, handle, batch=batch, linger=linger, name=name
        )
        self._consumptions.append(consumption)
        consumption.start()
        return consumption

    def close(self) -> None:
        """Stops every consumer it started, then the publisher."""
        while self._consumptions:
            self._consumptions.pop().stop()
        self._publisher.close()

    def _parameters(self, purpose: str, heartbeat: int | None = None) -> pika.URLParameters:
        return parameters(self._url, self._connect_timeout, f"{self._name} {purpose}", heartbeat or self._heartbeat)

    @contextmanager
    def _connection(self) -> Iterator[pika.BlockingConnection]:
        # 4 ms to open, used a few times a day: nothing to keep alive, nothing to share between threads, nothing that
        # an error of the last call could have poisoned.
        try:
            with pika.BlockingConnection(self._parameters("topology", _ADMIN_HEARTBEAT_SECONDS)) as connection:
                yield connection
        except CONNECTION_ERRORS as error:
            log.warning("The AMQP broker did not take a topology change: %r", error)
            raise BrokerUnreachable from error


def _declare_queue(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: Queue, arguments: dict[str, str | int]
) -> BlockingChannel:
    """Returns the channel to go on with: a refusal closes the one it was asked on."""
    try:
        channel.queue_declare(queue.name, durable=True, arguments=arguments)
    except ChannelClosedByBroker as error:
        if error.reply_code != _PRECONDITION_FAILED:
            raise
        log.warning("Queue %s exists with other arguments and is kept as it is: %s", queue.name, error.reply_text)
        channel = connection.channel()
    for binding in queue.bindings:
        channel.queue_bind(queue.name, binding.exchange, binding.routing_key)
    return channel


def _make_lasting(channel: BlockingChannel) -> None:
    """Has the broker write down now where it keeps the queue that was declared last.

    Up to a second passes before it does so by itself (ra's names.dets, auto_save). Killed within it, 3.10 lists the
    queue again but starts it empty and without a leader: what it had confirmed is gone, what is published is refused,
    a consumer's connection is closed. Only the last one was ever hit, so one more is declared after it. That guards
    against a killed process; whether it does against a lost power supply has not been tried.
    """
    next_one = f"vcp.next.{uuid4().hex}"
    channel.queue_declare(next_one, durable=True, arguments={"x-queue-type": "quorum", "x-expires": _NEXT_EXPIRES_MS})
    channel.queue_delete(next_one)


def _delivery_limits(connection: pika.BlockingConnection) -> dict[str, str | int]:
    """From 4.0 on RabbitMQ drops a message after 20 deliveries unless told otherwise; a database that is down for a
    minute would be enough. 3.x has no such limit and refuses to be told."""
    # pika's blocking adapter has no public name for what the server said of itself.
    properties = connection._impl.server_properties or {}  # type: ignore[attr-defined]  # noqa: SLF001
    version = str(properties.get("version", "0"))
    return {"x-delivery-limit": -1} if int(version.split(".", 1)[0]) >= 4 else {}
