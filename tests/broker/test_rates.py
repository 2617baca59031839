"""How fast the RabbitMQ adapter is beside bare pika in the same run: `pytest -m bench tests/broker -s`."""

import threading
import time
from collections.abc import Callable, Sequence

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

from application.ports import DeadLetter, Delivery, Message
from infra.rabbitmq import RabbitBroker
from tests.amqp_client import AmqpClient

COMMANDS = "vcp.acme.command"
BODY = b"x" * 280
MANY = 20_000

pytestmark = pytest.mark.bench


def test_a_window_of_confirms_beats_one_by_one(rabbit: RabbitBroker, amqp_url: str) -> None:
    messages = [Message("vcp", "acme.command.device", BODY)] * MANY
    with AmqpClient(amqp_url) as partner:
        one_by_one = rate(2000, lambda: [partner.publish("vcp", "acme.command.device", BODY) for _ in range(2000)])
    windowed = rate(MANY, lambda: rabbit.publish(messages))
    print(f"\npublish/s: window {windowed:.0f}, one by one {one_by_one:.0f}")  # noqa: T201
    assert windowed > 5 * one_by_one


def test_consuming_is_near_bare_pika(rabbit: RabbitBroker, amqp_url: str) -> None:
    rabbit.publish([Message("vcp", "acme.command.device", BODY)] * (2 * MANY))
    bare = rate(MANY, lambda: consume_bare(amqp_url))
    ours = rate(MANY, lambda: consume_ours(rabbit))
    print(f"\nconsume/s: ours {ours:.0f}, bare pika {bare:.0f}")  # noqa: T201
    assert ours > 0.6 * bare


def rate(count: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def consume_ours(broker: RabbitBroker) -> None:
    left = MANY
    done = threading.Event()

    def handle(batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        nonlocal left
        left -= len(batch)
        if left <= 0:
            done.set()
        return ()

    consumption = broker.consumer({COMMANDS}, handle, batch=500)
    assert done.wait(60)
    consumption.stop()


def consume_bare(url: str) -> None:
    left = MANY

    def take(channel: BlockingChannel, method: Basic.Deliver, _properties: BasicProperties, _body: bytes) -> None:
        nonlocal left
        left -= 1
        if left % 500 == 0:
            channel.basic_ack(method.delivery_tag or 0, multiple=True)
        if left == 0:
            channel.stop_consuming()

    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=2000)
        channel.basic_consume(COMMANDS, take)
        channel.start_consuming()
