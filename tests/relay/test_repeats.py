"""A message that comes again, and another one under its id."""

import json
from dataclasses import replace
from uuid import uuid4

from interfaces.amqp import Commands
from tests.relay.test_relay import id_of, kinds
from tests.relay.world import SETPOINT, World, delivery


def test_the_same_again_is_answered_again_and_changes_nothing(world: World) -> None:
    body = world.body()
    world.deliver(body)
    before = world.command(id_of(body)).version
    first = world.publish()
    assert world.deliver(body) == []
    again = world.publish()
    assert [each.routing_key for each in first] == ["acme.event.command.ack", f"plant.{world.plant_id}.command"]
    assert [(each.routing_key, each.message_id) for each in again] == [(first[0].routing_key, first[0].message_id)]
    assert json.loads(again[0].body)["payload"]["status"] == "ACCEPTED"
    assert kinds(world)[-1] == "Repeated"
    assert world.command(id_of(body)).version == before + 2  # Relayed and Repeated


def test_refusals_and_repeats_are_counted(world: World) -> None:
    refused: list[str] = []
    repeated: list[None] = []
    relay = replace(world.relay, count_refusal=refused.append, count_repeat=lambda: repeated.append(None))
    commands, message_id = Commands(relay), str(uuid4())
    body = world.body(messageId=message_id)
    other = world.body(messageId=message_id, payload=SETPOINT | {"targetValueKw": 41.0})
    nowhere = world.body(site_id="esm-404")
    for each in (body, body, other, other, nowhere):
        commands([delivery(each, "acme.command.site-setpoint")])
    assert refused == ["DUPLICATE_MESSAGE_ID", "UNKNOWN_SITE"]
    assert len(repeated) == 2


def test_the_same_twice_in_one_batch_is_recognised_too(world: World) -> None:
    body = world.body()
    world.deliver(body, body, body)
    assert kinds(world) == ["Created", "Accepted", "Repeated", "Repeated"]


def test_a_batch_with_a_known_message_takes_the_others_all_the_same(world: World) -> None:
    known, new = world.body(), world.body()
    world.deliver(known)
    world.deliver(new, known)
    assert kinds(world) == ["Created", "Accepted", "Created", "Accepted", "Repeated"]


def test_another_body_under_a_taken_message_id_is_refused_on_a_stream_of_its_own(world: World) -> None:
    message_id = str(uuid4())
    world.deliver(world.body(messageId=message_id))
    accepted = world.command(message_id)
    other = world.body(messageId=message_id, payload=SETPOINT | {"targetValueKw": 41.0})
    world.deliver(other)
    world.deliver(other)
    assert world.command(message_id).status == accepted.status == "ACCEPTED"
    _, impostor = world.all_commands()
    assert (impostor.rejection, impostor.id != accepted.id) == ("DUPLICATE_MESSAGE_ID", True)
    answers = [json.loads(each.body)["payload"] for each in world.publish() if "ack" in each.routing_key]
    assert [answer.get("reason") for answer in answers] == [None, "DUPLICATE_MESSAGE_ID", "DUPLICATE_MESSAGE_ID"]


def test_an_unsigned_body_under_a_taken_message_id_learns_nothing(world: World) -> None:
    message_id = str(uuid4())
    world.deliver(world.body("command.mode", messageId=message_id), kind="command.mode")
    world.publish()
    world.deliver(world.unsigned("command.mode", messageId=message_id), kind="command.mode")
    assert [command.rejection for command in world.all_commands()] == [None, "DUPLICATE_MESSAGE_ID"]
    assert world.publish() == []


def test_a_refused_message_that_comes_again_is_refused_again_with_its_reason(world: World) -> None:
    body = world.body(site_id="esm-404")
    world.deliver(body)
    world.deliver(body)
    answers = [json.loads(each.body)["payload"]["reason"] for each in world.publish()]
    assert answers == ["UNKNOWN_SITE", "UNKNOWN_SITE"]


def test_a_silent_refusal_that_comes_again_is_recorded_once(world: World) -> None:
    body = world.unsigned("command.mode")
    world.deliver(body, kind="command.mode")
    world.deliver(body, kind="command.mode")
    assert kinds(world) == ["Created", "Rejected"]
