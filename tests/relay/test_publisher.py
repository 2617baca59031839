"""What leaves us for each event: to the partner, to the plant, and what is recorded of it."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from application.ports import Message
from application.relay import PlantAck
from domain import topology
from domain.errors import BrokerUnreachable
from domain.relayed_command import RelayedCommand
from domain.trading_config import TradingConfig
from tests.relay.test_relay import id_of, kinds
from tests.relay.world import SETPOINT, World, later

PLANTS_TIME = datetime(2026, 3, 1, 12, 1, 2, 345000, tzinfo=UTC)


def accepted(world: World, **changes: Any) -> RelayedCommand:
    body = world.body(**changes)
    assert world.deliver(body) == []
    return world.command(id_of(body))


def acknowledge(world: World, command: RelayedCommand, status: Any, detail: str | None = None) -> bool:
    with world.acting():
        return world.relay.acknowledge(PlantAck(command.id, world.plant_id, status, PLANTS_TIME, detail))


def assert_true(holds: bool) -> None:
    assert holds


def content(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(message.body)
    return body


def test_an_accepted_command_is_answered_and_goes_to_its_plant(world: World) -> None:
    command = accepted(world, correlationId="c-1")
    ack, gateway = world.publish()
    assert (ack.exchange, ack.routing_key) == ("vcp", "acme.event.command.ack")
    envelope = content(ack)
    assert envelope["payload"] == {"messageId": str(command.message_id), "status": "ACCEPTED"}
    assert (envelope["version"], envelope["source"], envelope["siteId"]) == ("1.1", "wattledger", "esm-001")
    assert (envelope["correlationId"], envelope["messageId"]) == ("c-1", ack.message_id)
    assert (gateway.exchange, gateway.routing_key) == ("plant", f"plant.{world.plant_id}.command")
    told = content(gateway)
    assert (told["commandId"], told["type"], told["payload"]) == (str(command.id), "command.site-setpoint", SETPOINT)
    assert set(told) == {"commandId", "type", "ts", "payload"}
    assert world.command(command.message_id).status == "RELAYED"


def test_what_the_plant_says_goes_on_to_the_partner(world: World) -> None:
    done, failed, silent = (accepted(world) for _ in range(3))
    world.publish()
    assert acknowledge(world, done, "RECEIVED")
    assert acknowledge(world, done, "EXECUTED")
    assert acknowledge(world, failed, "FAILED", "no grid")
    world.now = later(world.now, minutes=11)
    with world.acting():
        world.relay.expire(silent.id)
    messages = world.publish()
    assert {message.routing_key for message in messages} == {"acme.event.execution"}
    assert [content(message)["payload"] for message in messages] == [
        {"messageId": str(done.message_id), "status": "EXECUTED", "executedAt": "2026-03-01T12:01:02.345Z"},
        {"messageId": str(failed.message_id), "status": "FAILED", "detail": "no grid"},
        {"messageId": str(silent.message_id), "status": "EXPIRED"},
    ]


def test_what_has_expired_while_the_broker_was_away_goes_to_no_plant(world: World) -> None:
    command = accepted(world)
    world.now = later(world.now, minutes=11)
    (ack,) = world.publish()
    assert content(ack)["payload"]["status"] == "ACCEPTED"
    with world.acting():
        world.publisher.relay_again(command.id)
        world.relay.expire(command.id)
    (execution,) = world.publish()
    assert content(execution)["payload"]["status"] == "EXPIRED"
    assert kinds(world) == ["Created", "Accepted", "Expired"]


def test_a_late_result_is_told_to_nobody(world: World) -> None:
    command = accepted(world)
    world.publish()
    world.now = later(world.now, minutes=11)
    with world.acting():
        world.relay.expire(command.id)
    world.publish()
    assert acknowledge(world, command, "EXECUTED")
    assert world.publish() == []
    assert kinds(world)[-1] == "ReportedLate"


def test_an_acknowledgement_of_another_plants_command_is_refused(world: World) -> None:
    command = accepted(world)
    with world.acting():
        assert not world.relay.acknowledge(PlantAck(command.id, UUID(int=7), "EXECUTED", PLANTS_TIME, None))
        assert not world.relay.acknowledge(PlantAck(UUID(int=7), world.plant_id, "EXECUTED", PLANTS_TIME, None))
    assert kinds(world) == ["Created", "Accepted"]


def test_a_command_that_no_gateway_took_stays_accepted_until_one_does(world: World) -> None:
    world.broker.offline = {world.plant_id}
    command = accepted(world)
    world.publish()
    world.publisher.relay_again(command.id)
    assert world.command(command.message_id).status == "ACCEPTED"
    world.broker.offline = set()
    world.publisher.relay_again(command.id)
    assert world.command(command.message_id).status == "RELAYED"
    sent = len(world.broker.published)
    world.publisher.relay_again(command.id)
    assert len(world.broker.published) == sent


def test_after_a_crash_the_same_is_sent_again_under_the_same_ids(world: World) -> None:
    accepted(world)
    before = world.followed
    first = world.publish()
    world.followed = before
    world.publisher._created.clear()
    again = world.publish()
    assert [(m.routing_key, m.message_id, m.body) for m in again] == [
        (m.routing_key, m.message_id, m.body) for m in first
    ]
    assert kinds(world) == ["Created", "Accepted", "Relayed"]


def test_an_unreachable_broker_records_nothing(world: World) -> None:
    command = accepted(world)
    world.broker.failure = BrokerUnreachable()
    with pytest.raises(BrokerUnreachable):
        world.publish()
    assert world.command(command.message_id).status == "ACCEPTED"


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_plants_that_answer_while_we_record_stop_nobody(world: World, *, in_one_batch: bool) -> None:
    """The save of all of them is overtaken by an answer; each by itself is not."""
    commands = [accepted(world) for _ in range(20)]
    if not in_one_batch:
        world.followed += 1  # begins between a Created and its Accepted
    world.broker.meanwhile = lambda: assert_true(acknowledge(world, commands[-1], "EXECUTED"))
    world.publish()
    statuses = [world.command(command.message_id).status for command in commands]
    assert statuses == ["RELAYED"] * 19 + ["EXECUTED"]


def test_a_partners_queue_that_is_gone_is_declared_anew_while_it_trades(world: World) -> None:
    command = accepted(world)
    world.broker.without_queue = {"acme.event.command.ack"}
    keys = [message.routing_key for message in world.publish()]
    assert keys == ["acme.event.command.ack", f"plant.{world.plant_id}.command", "acme.event.command.ack"]
    assert world.broker.declared == [topology.of_prefix("acme")]
    assert world.command(command.message_id).status == "RELAYED"


def test_one_that_refuses_is_not_passed_over(world: World) -> None:
    accepted(world)
    world.broker.refusing = {"acme.event.command.ack"}
    with pytest.raises(BrokerUnreachable):
        world.publish()


def test_one_that_trades_no_more_is_owed_nothing(world: World) -> None:
    accepted(world)
    world.change_config(TradingConfig.disable)
    world.broker.without_queue = {"acme.event.command.ack"}
    assert [message.routing_key for message in world.publish()].count("acme.event.command.ack") == 1
    assert world.broker.declared == []


def test_headers_say_where_a_message_comes_from(world: World) -> None:
    accepted(world)
    last = world.last_position
    assert [message.headers for message in world.publish()] == [{"position": last, "request-id": "r-1"}] * 2
