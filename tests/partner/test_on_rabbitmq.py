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
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ProbableAuthenticationError

from application.context import acting
from domain import topology
from domain.partner_rights import UNPROVEN
from infra.embedded import PrivateRabbitmq
from infra.rabbitmq import RabbitBroker
from interfaces.amqp import Measurements
from tests.amqp_client import AmqpClient
from tests.broker.inbox import Inbox
from tests.http.world import COMMANDER, Org, World
from tests.partner.forbidden import Do, forbidden
from tests.worker.site import until


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
                return bool(error.reply_code == 403)
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
    keys = ("telemetry.realtime.esm-001", "status.x", "execution", "alarm")
    with AmqpClient(partner.url()) as client:
        for key in keys:
            kind = key.split(".")[0]
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


def test_it_may_do_nothing_else(partner: Partner, rival: Partner) -> None:
    tries = forbidden(partner.slug, rival.slug)
    assert len(tries) > 150
    assert [name for name, do in tries if not partner.refused(do)] == []


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
    assert {letter.reason for letter in measurements(smuggled)} == {UNPROVEN}


class FarDate:
    """A date that no client of ours can read."""


def _with_far_dates(encode: Callable[[list[bytes], Any], Any]) -> Callable[[list[bytes], Any], int]:
    def encode_far_dates(pieces: list[bytes], value: Any) -> int:
        if not isinstance(value, FarDate):
            return int(encode(pieces, value))
        pieces.append(struct.pack(">cQ", b"T", 2**60))
        return 9

    return encode_far_dates
