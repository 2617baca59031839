"""The broker: reached, new enough, with the rights and the queues that we need."""

import socket
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit
from uuid import uuid4

import pika
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from domain import topology
from infra.doctor.finding import Finding, fault, healthy, warning
from infra.rabbitmq_connection import CONNECTION_ERRORS, parameters

OLDEST = (3, 10)
CONNECT_S = 3.0
HEARTBEAT_S = 10
MAKE_QUEUES = "Run `wattledger work`: it makes them within a minute"


def broker_findings(url: str | None, prefixes: Sequence[str]) -> Iterator[Finding]:
    """`prefixes` are those whose queues must exist."""
    if url is None:
        yield warning("broker", "none is set: no command comes in", "Set WATTLEDGER_AMQP_URL")
        return
    try:
        with pika.BlockingConnection(parameters(url, CONNECT_S, "wattledger doctor", HEARTBEAT_S)) as connection:
            yield healthy("broker", "RabbitMQ answers")
            yield _version(connection)
            yield _rights(connection)
            yield _queues(connection, prefixes)
    except CONNECTION_ERRORS as error:
        yield fault("broker", *_unreachable(error, url))


def _unreachable(error: BaseException, url: str) -> tuple[str, str]:
    place = urlsplit(url)
    causes = [error, *getattr(error, "exceptions", ()), *error.args]
    vhost = place.path.removeprefix("/") or "/"
    for cause in causes:
        match cause:
            case ProbableAuthenticationError():
                return "RabbitMQ refuses the user or password", "Correct WATTLEDGER_AMQP_URL, or `rabbitmqctl add_user`"
            case ProbableAccessDeniedError() | ConnectionClosedByBroker(reply_code=530 | 403):
                remedy = "`rabbitmqctl add_vhost`, `rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'`"
                return f"the virtual host {vhost} does not exist or is not open to this user", remedy
            case IncompatibleProtocolError():
                return "what listens there does not speak AMQP 0-9-1", "Correct the port and amqp:// or amqps://"
            case socket.gaierror():
                return f"no such host: {place.hostname}", "Correct WATTLEDGER_AMQP_URL"
    return f"RabbitMQ can't be reached: {error!r}", "Start it, or correct WATTLEDGER_AMQP_URL"


def _version(connection: pika.BlockingConnection) -> Finding:
    properties = connection._impl.server_properties  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else tells
    told = str(properties.get("version", "0"))
    numbers = tuple(int(part) for part in told.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return fault("broker version", f"{properties.get('product', '?')} {told}", "Upgrade to RabbitMQ 3.10 or later")
    return healthy("broker version", f"{properties.get('product')} {told}")


def _rights(connection: pika.BlockingConnection) -> Finding:
    """A queue of the kind that we use goes through its whole life, under a name of its own."""
    queue = f"vcp.doctor.{uuid4().hex}"
    channel = connection.channel()
    try:
        for exchange in topology.shared().exchanges:
            channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", "x-expires": 60_000})
        channel.queue_bind(queue, topology.VCP_EXCHANGE, queue)
        channel.confirm_delivery()
        channel.basic_publish(topology.VCP_EXCHANGE, queue, b"", mandatory=True)
        taken, _, _ = channel.basic_get(queue, auto_ack=True)
        channel.queue_delete(queue)
    except ChannelClosedByBroker as error:
        remedy = "`rabbitmqctl set_permissions` for configure, write and read of `^(vcp|plant)`"
        return fault("broker rights", error.reply_text, remedy)
    except AMQPError as error:
        return fault("broker rights", f"a message was not taken: {error!r}", "See the broker's log and its alarms")
    if taken is None:
        return fault("broker rights", "a message that was confirmed did not come", "See the broker's log")
    return healthy("broker rights", "a queue can be made, written, read and deleted")


def _queues(connection: pika.BlockingConnection, prefixes: Sequence[str]) -> Finding:
    wanted = [*topology.shared().queues, *(queue for prefix in prefixes for queue in topology.queues(prefix))]
    missing: list[str] = []
    channel = connection.channel()
    for queue in wanted:
        try:
            channel.queue_declare(queue.name, passive=True)
        except ChannelClosedByBroker:
            missing.append(queue.name)
            channel = connection.channel()
    if missing:
        return fault("queues", f"missing: {', '.join(missing)}", MAKE_QUEUES)
    return healthy("queues", f"all {len(wanted)} exist")
