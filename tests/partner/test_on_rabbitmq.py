"""A partner at a real broker that asks us: all that it may do, and everything else that it may not."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pika
import pika.data
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ProbableAuthenticationError

from domain import topology
from infra.embedded import PrivateRabbitmq
from infra.rabbitmq import RabbitBroker
from interfaces.amqp import Measurements
from interfaces.amqp.intake import ROUTED_BY_A_QUEUE
from tests.amqp_client import AmqpClient
from tests.broker.inbox import Inbox
from tests.http.world import COMMANDER, Org, World, acting
from tests.worker.site import until

Do = Callable[[BlockingChannel], object]


@dataclass
class Partner:
    """An organisation's partner, as the broker knows it."""

    node: PrivateRabbitmq
    org: Org
    password: str

    @property
    def slug(self) -> str:
        return self.org.slug

    def url(self, password: str | None = None, vhost: str = "/") -> str:
        host = self.node.url.rpartition("@")[2].split("/")[0]
        return f"amqp://{self.slug}:{quote(password or self.password, safe='')}@{host}/{quote(vhost, safe='')}"

    def connect(self, **changes: str) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.URLParameters(self.url(**changes)))

    def refused(self, do: Do) -> bool:
        """Whether the broker closed the channel with 403."""
        with self.connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            try:
                do(channel)
            except ChannelClosedByBroker as error:
                assert error.reply_code == 403, error
                return True
            return False


def _partner(world: World, node: PrivateRabbitmq) -> Partner:
    org = world.organisation()
    broker = RabbitBroker(node.url)
    broker.declare(topology.needed_by(org.slug))
    broker.close()
    return Partner(node, org, org.key("trading:connect").api_key)


@pytest.fixture(scope="module")
def partner(world: World, node: PrivateRabbitmq) -> Partner:
    return _partner(world, node)


@pytest.fixture(scope="module")
def rival(world: World, node: PrivateRabbitmq) -> Partner:
    return _partner(world, node)


@pytest.fixture
def admin(node: PrivateRabbitmq) -> Iterator[AmqpClient]:
    with AmqpClient(node.url) as client:
        yield client


def test_it_reads_its_own_queues(partner: Partner, admin: AmqpClient) -> None:
    keys = {"telemetry": "telemetry.realtime.esm-001", "status": "command.ack", "execution": "execution", "alarm": "alarm"}
    with AmqpClient(partner.url()) as client:
        for kind, key in keys.items():
            assert admin.publish("vcp", f"{partner.slug}.event.{key}", kind.encode())
            queue = f"vcp.{partner.slug}.event.{kind}"
            assert [each.body for each in client.get_until(queue, 1)] == [kind.encode()]


def test_it_writes_what_its_inbound_queues_take(partner: Partner, admin: AmqpClient) -> None:
    with AmqpClient(partner.url()) as client:
        for queue, key in (
            ("command", "command.site-setpoint"),
            ("command", "command.device.inverter-1"),
            ("config", "config.limits"),
            ("schedule", "schedule.create"),
        ):
            assert client.publish("vcp", f"{partner.slug}.{key}", b"{}")
            assert [each.routing_key for each in admin.get_until(f"vcp.{partner.slug}.{queue}", 1)] == [
                f"{partner.slug}.{key}"
            ]


def test_it_has_telemetry_queues_of_its_own(partner: Partner, admin: AmqpClient) -> None:
    queue, key = f"vcp.{partner.slug}.event.telemetry.dashboard", f"{partner.slug}.event.telemetry"
    with AmqpClient(partner.url()) as client:
        client.declare(queue, "vcp", f"{key}.realtime.#")
        assert admin.publish("vcp", f"{key}.realtime.esm-001", b"mine")
        assert [each.body for each in client.get_until(queue, 1)] == [b"mine"]
        channel = client._channel
        channel.queue_unbind(queue, "vcp", f"{key}.realtime.#")
        channel.queue_purge(queue)
        channel.queue_delete(queue)


def forbidden(own: str, other: str) -> dict[str, Do]:
    """Everything that a partner could try, by what it is."""
    properties = pika.BasicProperties()
    theirs = [queue.name for queue in topology.queues(other)]
    inbound = [queue.name for queue in topology.queues(own) if queue.direction == "inbound"]
    outbound = [queue.name for queue in topology.queues(own) if queue.direction == "outbound"]
    shared = [queue.name for queue in topology.shared().queues]
    extra, foreign_extra = f"vcp.{own}.event.telemetry.x", f"vcp.{other}.event.telemetry.x"

    def publish(exchange: str, key: str) -> Do:
        return lambda channel: channel.basic_publish(exchange, key, b"{}", properties, mandatory=True)

    def bind(queue: str, exchange: str, key: str, declared: str | None = None) -> Do:
        def do(channel: BlockingChannel) -> None:
            if declared:
                channel.queue_declare(declared, auto_delete=True)
            channel.queue_bind(queue, exchange, key)

        return do

    tries: dict[str, Do] = {}
    for queue in (*theirs, *inbound, *shared):
        tries[f"get {queue}"] = lambda channel, queue=queue: channel.basic_get(queue)
        tries[f"consume {queue}"] = lambda channel, queue=queue: channel.basic_consume(queue, print)
        tries[f"purge {queue}"] = lambda channel, queue=queue: channel.queue_purge(queue)
    for queue in (*theirs, *inbound, *outbound, *shared):
        tries[f"delete {queue}"] = lambda channel, queue=queue: channel.queue_delete(queue)
        tries[f"declare {queue}"] = lambda channel, queue=queue: channel.queue_declare(
            queue, durable=True, arguments={"x-queue-type": "quorum"}
        )
        tries[f"bind {queue}"] = bind(queue, "vcp", f"{own}.event.telemetry.#")
        tries[f"unbind {queue}"] = lambda channel, queue=queue: channel.queue_unbind(queue, "vcp", f"{own}.command.#")
    for name in ("mine", "", foreign_extra, f"vcp.{own}.event.status.x", f"vcp.{own}.event.telemetry.a.b", f"vcp.{own}.x"):
        tries[f"declare {name!r}"] = lambda channel, name=name: channel.queue_declare(name)
    for key in (
        f"{other}.command.site-setpoint", f"{other}.command.emergency", f"{other}.event.telemetry.realtime.esm-001",
        f"{own}.event.telemetry.realtime.esm-001", f"{own}.event.command.ack", f"{own}.event.execution",
        f"{own}.event.alarm", f"{own}.command", f"{own}.schedule.create.x", "#", "",
    ):  # fmt: skip
        tries[f"publish vcp {key}"] = publish("vcp", key)
    for queue in (*theirs, *inbound, *shared):
        tries[f"publish default {queue}"] = publish("", queue)
    for exchange in ("plant", "amq.topic", "amq.direct", "amq.fanout", "amq.headers"):
        tries[f"publish {exchange}"] = publish(exchange, f"{own}.command.mode")
        tries[f"bind to {exchange}"] = bind(extra, exchange, f"{own}.event.telemetry.#", extra)
        tries[f"delete {exchange}"] = lambda channel, exchange=exchange: channel.exchange_delete(exchange)
        tries[f"{exchange} feeds vcp"] = lambda channel, exchange=exchange: channel.exchange_bind("vcp", exchange, "#")
        tries[f"vcp feeds {exchange}"] = lambda channel, exchange=exchange: channel.exchange_bind(
            exchange, "vcp", f"{own}.event.telemetry.#"
        )
    for key in (
        "#", "", "*.event.telemetry.#", f"{other}.event.telemetry.#", f"{other}.#", f"{own}.#", f"{own}.event.#",
        f"{own}.command.#", f"{own}.event.command.#", f"{own}.*.telemetry.#", "plant.*.command",
    ):  # fmt: skip
        tries[f"bind key {key!r}"] = bind(extra, "vcp", key, extra)
        tries[f"loop key {key!r}"] = lambda channel, key=key: channel.exchange_bind("vcp", "vcp", key)
    for exchange in ("mine", "vcp", f"vcp.{own}.event.telemetry.x", "amq.mine"):
        tries[f"declare exchange {exchange}"] = lambda channel, exchange=exchange: channel.exchange_declare(
            exchange, "topic", durable=True
        )
    tries["delete vcp"] = lambda channel: channel.exchange_delete("vcp")
    for exchange in ("", "plant", "amq.topic"):
        tries[f"dead-letter to {exchange!r}"] = lambda channel, exchange=exchange: channel.queue_declare(
            f"{extra}y", auto_delete=True, arguments={"x-dead-letter-exchange": exchange}
        )
    return tries


def test_it_may_do_nothing_else(partner: Partner, rival: Partner) -> None:
    tries = forbidden(partner.slug, rival.slug)
    assert len(tries) > 150
    assert [name for name, do in tries.items() if not partner.refused(do)] == []


@pytest.mark.parametrize("password", ["guest", "wl_0_x", "signing key", "admin key", "rival's key"])
def test_what_is_no_password(partner: Partner, rival: Partner, password: str) -> None:
    given = {"admin key": partner.org.key("trading:admin").api_key, "rival's key": rival.password}
    with pytest.raises(ProbableAuthenticationError):
        partner.connect(password=given.get(password, password))


def test_an_unknown_user(partner: Partner) -> None:
    with pytest.raises(ProbableAuthenticationError):
        pika.BlockingConnection(pika.URLParameters(partner.url().replace(partner.slug, "nobody")))


def test_another_virtual_host(partner: Partner) -> None:
    name = f"other-{uuid4().hex}"
    management = f"{partner.node.management_url}/api/vhosts/{name}"
    httpx.put(management, auth=("guest", "guest"), trust_env=False).raise_for_status()
    with pytest.raises(AMQPConnectionError):
        partner.connect(vhost=name)


def test_a_revoked_key(world: World, node: PrivateRabbitmq) -> None:
    partner = _partner(world, node)
    spare = partner.org.key("trading:connect").api_key
    with partner.connect() as connection:
        connection.channel().basic_get(f"vcp.{partner.slug}.event.status")
        with acting(COMMANDER):
            world.organisations.revoke_key(partner.org.id, _id_of(partner, partner.password))

        def is_denied() -> bool:
            try:
                partner.connect().close()
            except ProbableAuthenticationError:
                return True
            return False

        until(is_denied, "the cache's end")
    partner.connect(password=spare).close()


def _id_of(partner: Partner, api_key: str) -> Any:
    from application.organisations import parse_api_key

    parsed = parse_api_key(api_key)
    assert parsed is not None
    return parsed[0]


def test_it_manages_nothing(partner: Partner) -> None:
    for path in ("whoami", "overview", "queues", "users"):
        url = f"{partner.node.management_url}/api/{path}"
        assert httpx.get(url, auth=(partner.slug, partner.password), trust_env=False).status_code == 401


def test_the_broker_s_own_accounts_need_no_api(node: PrivateRabbitmq) -> None:
    with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
        connection.channel().queue_declare("internal", exclusive=True)


def test_what_it_smuggles_through_a_queue_of_its_own_is_refused(
    partner: Partner, rival: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker asks about neither a dead letter's new key nor CC: the message tells on itself."""
    monkeypatch.setattr(pika.data, "encode_value", _with_far_dates(pika.data.encode_value))
    queue = f"vcp.{partner.slug}.event.telemetry.smuggler"
    forged = f"{rival.slug}.event.telemetry.realtime.esm-001"
    with AmqpClient(partner.url()) as client:
        client._channel.queue_declare(
            queue,
            arguments={"x-dead-letter-exchange": "vcp", "x-dead-letter-routing-key": forged, "x-message-ttl": 0},
        )
        client._channel.queue_bind(queue, "vcp", f"{partner.slug}.event.telemetry.#")
        copied = {"CC": [f"{partner.slug}.event.telemetry.x"]}
        client.publish("vcp", f"{partner.slug}.command.mode", json.dumps({"a": 1}).encode(), headers=copied)
        unreadable = copied | {"at": FarDate()}
        client.publish("vcp", f"{partner.slug}.command.mode", json.dumps({"a": 2}).encode(), headers=unreadable)
        broker, inbox = RabbitBroker(partner.node.url), Inbox()
        broker.consumer({topology.INGEST_QUEUE}, inbox)
        inbox.wait_until(lambda received: sum(each.routing_key == forged for each in received) == 2)
        broker.close()
        client._channel.queue_delete(queue)
    smuggled = [each for each in inbox.received if each.routing_key == forged]
    measurements = Measurements(lambda: pytest.fail("it was looked at"))
    assert {letter.reason for letter in measurements(smuggled)} == {ROUTED_BY_A_QUEUE}


class FarDate:
    """A date that no client of ours can read."""


def _with_far_dates(encode: Callable[[list[bytes], Any], Any]) -> Callable[[list[bytes], Any], int]:
    def encode_far_dates(pieces: list[bytes], value: Any) -> int:
        if not isinstance(value, FarDate):
            return int(encode(pieces, value))
        pieces.append(struct.pack(">cQ", b"T", 2**60))
        return 9

    return encode_far_dates
