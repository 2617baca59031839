"""What only a real broker can suffer: being down, killed, cut off, silent, or sent what our library cannot read."""

import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika
import pika.data
import pytest

from application.ports import Message
from domain import topology
from domain.errors import BrokerUnreachable
from infra import rabbitmq_publisher
from infra.embedded import PrivateRabbitmq
from infra.rabbitmq import RabbitBroker
from tests.amqp_client import AmqpClient
from tests.broker.inbox import Inbox, command, numbered
from tests.broker.proxy import Proxy
from tests.servers import temporary_home

COMMANDS = "vcp.acme.command"


@pytest.fixture
def proxy(amqp_url: str, rabbit: RabbitBroker) -> Iterator[Proxy]:
    """A way to the broker of `rabbit` that the test may cut."""
    with Proxy(amqp_url) as between:
        yield between


@pytest.fixture(scope="module")
def own_node() -> Iterator[PrivateRabbitmq]:
    """A node that a test may kill."""
    with temporary_home() as home:
        node = PrivateRabbitmq(Path(home))
        node.start()
        try:
            yield node
        finally:
            node.kill()


@pytest.fixture(params=["refuses", "never answers"])
def dead_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where no broker is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if request.param == "refuses":
            listener.close()
        yield f"amqp://guest:secret@127.0.0.1:{port}/%2F"


def test_a_broker_that_is_down_is_reported_by_every_method(dead_url: str) -> None:
    broker = RabbitBroker(dead_url, connect_timeout=0.3)
    for call in (
        lambda: broker.declare(topology.shared()),
        lambda: broker.delete([COMMANDS]),
        lambda: broker.queue_exists(COMMANDS),
        lambda: broker.publish([command()]),
    ):
        with pytest.raises(BrokerUnreachable) as raised:
            call()
        assert "secret" not in str(raised.value)
    consumption = broker.consumer({COMMANDS}, Inbox())
    assert not consumption.connected
    broker.close()


def test_a_cut_connection_is_mended_on_both_sides(proxy: Proxy) -> None:
    broker = RabbitBroker(proxy.url)
    inbox = Inbox()
    consumption = broker.consumer({COMMANDS}, inbox)
    assert broker.publish([command(0)]) == [True]
    inbox.wait_for(1)
    for number in (1, 2, 3):
        proxy.cut()
        publish_until_confirmed(broker, command(number))
        inbox.wait_until(lambda received, n=number: b"%d" % n in [each.body for each in received])  # type: ignore[misc]
    assert consumption.connected
    broker.close()


def test_a_connection_cut_under_a_batch_in_hand_brings_it_again(proxy: Proxy) -> None:
    broker = RabbitBroker(proxy.url)
    inbox = Inbox()
    inbox.gate.clear()
    broker.consumer({COMMANDS}, inbox, batch=10)
    publish_until_confirmed(broker, *numbered(30))
    assert inbox.entered.wait(60)
    proxy.cut()
    inbox.gate.set()
    inbox.wait_until(lambda received: any(delivery.redelivered for delivery in received))
    inbox.wait_until(lambda received: {int(delivery.body) for delivery in received} == set(range(30)))
    broker.close()


def test_a_broker_that_falls_silent_is_reported(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = RabbitBroker(proxy.url)
    assert broker.publish([command(0)]) == [True]
    proxy.hold()
    with monkeypatch.context() as impatient:
        impatient.setattr(rabbitmq_publisher, "STALLED_SECONDS", 0.5)
        with pytest.raises(BrokerUnreachable):
            broker.publish([command(1)])
    proxy.flow()
    publish_until_confirmed(broker, command(2))
    broker.close()


def test_headers_that_pika_cannot_read_stop_nobody(
    rabbit: RabbitBroker, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = pika.data.encode_value

    def encode_far_dates(pieces: list[bytes], value: Any) -> int:
        if not isinstance(value, float):
            return int(encode(pieces, value))
        pieces.append(struct.pack(">cQ", b"T", int(value)))
        return 9

    monkeypatch.setattr(pika.data, "encode_value", encode_far_dates)
    inbox = Inbox()
    rabbit.consumer({COMMANDS}, inbox)
    with AmqpClient(amqp_url) as partner:
        assert partner.publish("vcp", "acme.command.mode", b"0", headers={"at": 1.8e12})
        assert partner.publish("vcp", "acme.command.mode", b"1" * 300_000, headers={"at": 1e18})
        assert partner.publish("vcp", "acme.command.mode", b"2", headers={"at": 1})
    inbox.wait_for(3)
    assert [body[:1] for body in inbox.bodies] == [b"0", b"1", b"2"]
    assert [delivery.headers for delivery in inbox.received] == [{}, {}, {"at": 1}]


def test_a_message_that_cannot_be_encoded_is_its_senders_error_only(rabbit: RabbitBroker) -> None:
    with pytest.raises(ValueError, match="can't be published"):
        rabbit.publish([command(0), Message("vcp", "acme.command." + "x" * 300, b""), command(1)])
    assert rabbit.publish([command(2)]) == [True]


def test_a_queue_that_refuses_is_told_of_its_own_messages_only(rabbit: RabbitBroker, amqp_url: str) -> None:
    """Such as a plant's own, declared so by its gateway, and full while that is away."""
    bounded = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare("full", arguments=bounded)
        channel.queue_bind("full", topology.PLANT_EXCHANGE, "plant.full.command")
    to_the_full = Message(topology.PLANT_EXCHANGE, "plant.full.command", b"{}")
    assert rabbit.publish([to_the_full, command(0)]) == [True, True]
    assert rabbit.publish([command(1), to_the_full, command(2)]) == [True, False, True]


def test_what_we_publish_is_durable_json_for_a_plain_client(rabbit: RabbitBroker, amqp_url: str) -> None:
    rabbit.publish([Message("vcp", "acme.event.status.x", b'{"a": 1}', "m-1", {"k": "v"})])
    with AmqpClient(amqp_url) as partner:
        [received] = partner.get_until("vcp.acme.event.status", 1)
    assert (received.json(), received.message_id, received.headers) == ({"a": 1}, "m-1", {"k": "v"})


def test_a_plain_client_is_told_what_is_missing(rabbit: RabbitBroker, amqp_url: str) -> None:
    with AmqpClient(amqp_url) as partner:
        assert not partner.publish("vcp", "nobody.command.mode", {})
        with pytest.raises(TimeoutError):
            partner.get_until(COMMANDS, 1, timeout=0.05)
        assert partner.publish("vcp", "acme.command.mode", {"a": 1})
        assert partner.get_until(COMMANDS, lambda taken: any(each.json() == {"a": 1} for each in taken))


def test_a_killed_broker_loses_nothing_that_was_confirmed(own_node: PrivateRabbitmq) -> None:
    broker = RabbitBroker(own_node.url)
    broker.declare(topology.of_prefix("acme"))
    inbox = Inbox()
    consumption = broker.consumer({COMMANDS}, inbox)
    confirmed: set[int] = set()
    ending = threading.Event()

    def publish_for_ever() -> None:
        start = 0
        while not ending.is_set():
            try:
                broker.publish(numbered(50, start))
            except BrokerUnreachable:
                ending.wait(0.02)  # the same again, until it is confirmed
            else:
                confirmed.update(range(start, start + 50))
                start += 50

    publisher = threading.Thread(target=publish_for_ever)
    publisher.start()
    inbox.wait_for(2000)
    own_node.kill()
    before = max(confirmed.copy())
    own_node.start()
    inbox.wait_until(lambda received: int(received[-1].body) > before + 50)
    assert consumption.connected
    ending.set()
    publisher.join(60)
    inbox.wait_until(lambda received: confirmed <= {int(delivery.body) for delivery in received})
    broker.close()


def test_a_broker_killed_as_soon_as_queues_are_declared_keeps_them_and_their_messages(
    own_node: PrivateRabbitmq,
) -> None:
    broker = RabbitBroker(own_node.url)
    broker.declare(topology.of_prefix("fresh"))
    last = Message("vcp", "fresh.event.alarm", b"1")
    assert broker.publish([last]) == [True]
    own_node.kill()
    own_node.start()
    publish_until_confirmed(broker, replace(last, body=b"2"))
    inbox = Inbox()
    broker.consumer({topology.queues("fresh")[-1].name}, inbox)
    inbox.wait_until(lambda received: {each.body for each in received} == {b"1", b"2"})
    broker.close()


def publish_until_confirmed(broker: RabbitBroker, *messages: Message) -> None:
    for _ in range(5):
        try:
            assert all(broker.publish(messages))
        except BrokerUnreachable:
            continue
        return
    pytest.fail("the broker stayed unreachable")
