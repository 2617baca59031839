"""The dead letters of a broker, for operators: looked at without taking them, and sent again one by one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, UnroutableError
from pika.spec import BasicProperties

from domain.errors import BrokerUnreachable, NotFound
from domain.partner_rights import UNPROVEN
from domain.topology import DEAD_QUEUE
from infra.rabbitmq_connection import CONNECTION_ERRORS, parameters

CONNECT_S = 3.0
HEARTBEAT_S = 60
STORY = ("reason", "request-id", "original-exchange", "original-routing-key", "original-queue")


@dataclass(frozen=True)
class Buried:
    """A dead letter; `number` is its place in the queue now, from 1. `died_at` is None where nobody wrote it down."""

    number: int
    reason: str
    original_queue: str
    original_exchange: str
    original_routing_key: str
    request_id: str
    message_id: str | None
    died_at: datetime | None
    body: bytes = field(repr=False)
    headers: dict[str, Any] = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.body)


@dataclass(frozen=True)
class Requeued:
    """What became of one: with a problem it stays where it is."""

    letter: Buried
    problem: str | None = None


class DeadLetterQueue:
    """`url` is an AMQP URL. Every method raises BrokerUnreachable, and NotFound when there is no such queue or letter.

    What is looked at is unacked until the connection closes, then the broker puts it back in its place. Meanwhile
    nobody else sees it; an arrival of that moment may come to stand before it.
    """

    def __init__(self, url: str) -> None:
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._url = url

    def count(self) -> int:
        with self._channel() as channel:
            return _count(channel)

    def peek(self, limit: int) -> list[Buried]:
        """The oldest ones, up to `limit`."""
        with self._channel() as channel:
            return [letter for letter, _ in _letters(channel, limit)]

    def find(self, which: str) -> Buried:
        """By its number or by its request id."""
        with self._channel() as channel:
            return _find(channel, which)[0]

    def requeue(self, which: str) -> Requeued:
        with self._channel() as channel:
            return _send_again(channel, *_find(channel, which))

    def requeue_all(self) -> Iterator[Requeued]:
        """Each that is there at the beginning; those that die again stand behind them."""
        with self._channel() as channel:
            for letter, tag in _letters(channel, _count(channel)):
                yield _send_again(channel, letter, tag)

    @contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        try:
            with pika.BlockingConnection(parameters(self._url, CONNECT_S, "dead letters", HEARTBEAT_S)) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                yield channel
        except ChannelClosedByBroker as error:
            if error.reply_code == 404:
                raise NotFound(f"The broker has no queue {DEAD_QUEUE}") from None
            raise BrokerUnreachable from error
        except CONNECTION_ERRORS as error:
            raise BrokerUnreachable from error


def _count(channel: BlockingChannel) -> int:
    return int(channel.queue_declare(DEAD_QUEUE, passive=True).method.message_count)


def _letters(channel: BlockingChannel, limit: int) -> Iterator[tuple[Buried, int]]:
    """With their delivery tags, none of them acked."""
    for number in range(1, limit + 1):
        method, properties, body = channel.basic_get(DEAD_QUEUE)
        if method is None or properties is None or body is None:
            return
        yield _letter(number, properties, body), int(method.delivery_tag or 0)


def _find(channel: BlockingChannel, which: str) -> tuple[Buried, int]:
    """Takes no more than it must: those before it, which go back with the connection's end."""
    for letter, tag in _letters(channel, int(which) if which.isdecimal() else _count(channel)):
        if which in (str(letter.number), letter.request_id):
            return letter, tag
    raise NotFound(f"No dead letter {which}: see `wattledger dead-letters list`")


def _send_again(channel: BlockingChannel, letter: Buried, tag: int) -> Requeued:
    """Where it came from, confirmed before it is removed: an end in between leaves two, which receivers recognise by
    the message id."""
    properties = BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=letter.message_id,
        headers={"dead-letter": letter.request_id},
    )
    if letter.reason == UNPROVEN:
        return Requeued(letter, "whoever sent it chose the address that it would go to")
    # Through the exchange, since receivers ask the routing key whom a message speaks for.
    key = letter.original_routing_key if letter.original_exchange else letter.original_queue
    try:
        channel.basic_publish(letter.original_exchange, key, letter.body, properties, mandatory=True)
    except UnroutableError:
        return Requeued(letter, "no queue takes it")
    channel.basic_ack(tag)
    return Requeued(letter)


def _letter(number: int, properties: BasicProperties, body: bytes) -> Buried:
    headers = dict(properties.headers or {})
    reason, request_id, exchange, key, queue = (str(headers.get(name, "")) for name in STORY)
    died_at = datetime.fromtimestamp(properties.timestamp, UTC) if properties.timestamp else None
    return Buried(number, reason, queue, exchange, key, request_id, properties.message_id, died_at, body, headers)
