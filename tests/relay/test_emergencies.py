"""An emergency is delivered twice, by the queue of emergencies and by its organisation's own: it has one effect."""

from itertools import permutations

import pytest

from application.ports import DeadLetter
from tests.relay.test_relay import id_of, kinds
from tests.relay.world import World, delivery, enabled

KEY = "acme.command.emergency"
OVERTAKING, COPY = "vcp.emergency", "vcp.acme.command"


def deliver(world: World, body: bytes, queue: str, key: str = KEY) -> list[DeadLetter]:
    return world.commands([delivery(body, key, queue)])


def acks(world: World) -> list[str | None]:
    return [message.message_id for message in world.publish() if message.routing_key == "acme.event.command.ack"]


@pytest.mark.parametrize("queues", [(OVERTAKING, COPY), (COPY, OVERTAKING)])
def test_both_copies_together_are_one_command_and_one_answer(world: World, queues: tuple[str, str]) -> None:
    body = world.body("command.emergency")
    for queue in queues:
        assert deliver(world, body, queue) == []
    assert sorted(kinds(world)) == ["Accepted", "Created", "Overtook"]
    assert len(acks(world)) == 1
    assert world.command(id_of(body)).status == "RELAYED"


@pytest.mark.parametrize("queues", set(permutations([OVERTAKING, OVERTAKING, COPY, COPY])))
def test_sent_twice_it_is_answered_twice_in_whatever_order_the_four_copies_come(
    world: World, queues: tuple[str, ...]
) -> None:
    body = world.body("command.emergency")
    for queue in queues:
        assert deliver(world, body, queue) == []
    first, again = acks(world)
    assert first == again
    assert sorted(kinds(world)) == ["Accepted", "Created", "Overtook", "Relayed", "Repeated"]


def test_another_body_under_its_message_id_is_refused_once(world: World) -> None:
    body = world.body("command.emergency")
    other = world.body("command.emergency", messageId=str(id_of(body)), payload={"action": "RELEASE"})
    for each in (body, other):
        for queue in (OVERTAKING, COPY):
            assert deliver(world, each, queue) == []
    assert len(acks(world)) == 2
    assert [command.rejection for command in world.all_commands()] == [None, "DUPLICATE_MESSAGE_ID"]


def test_known_copies_among_new_emergencies_keep_nothing_from_them(world: World) -> None:
    known, new = world.body("command.emergency"), world.body("command.emergency")
    deliver(world, known, OVERTAKING)
    assert world.commands([delivery(body, KEY, COPY) for body in (known, new, new)]) == []
    assert len(acks(world)) == 2
    assert len(world.all_commands()) == 2


def test_only_one_of_the_copies_is_a_dead_letter(world: World) -> None:
    assert deliver(world, b"no json", OVERTAKING) == []
    [letter] = deliver(world, b"no json", COPY)
    assert letter.reason == "no JSON"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("acme.command.site-setpoint", "no queue for commands"),
        ("acme.command.emergency.now", "no queue for commands"),
        ("acme.rival.command.emergency", "no queue for commands"),
        ("vcp.emergency", "no queue for commands"),
        ("nobody.command.emergency", "nobody holds this queue prefix"),
    ],
)
def test_the_queue_of_emergencies_takes_no_other_keys(world: World, key: str, reason: str) -> None:
    [letter] = deliver(world, world.body("command.emergency"), OVERTAKING, key)
    assert letter.reason == reason
    assert world.all_commands() == []


def test_the_key_says_whose_it_is_also_there(world: World) -> None:
    """Acme's signed emergency under rival's prefix reaches nothing: neither site nor key are rival's."""
    with world.acting():
        rival = world.organisations.create("rival").id
    world.change_config(enabled, rival)
    body = world.body("command.emergency")
    assert deliver(world, body, OVERTAKING, "rival.command.emergency") == []
    [command] = world.all_commands()
    assert (command.organization_id, command.plant_id, command.rejection) == (rival, None, "SIGNATURE_INVALID")
    unsigned = world.unsigned("command.emergency", site_id=str(world.plant_id))
    assert deliver(world, unsigned, OVERTAKING, "rival.command.emergency") == []
    assert world.all_commands()[1].rejection == "UNKNOWN_SITE"
    assert all(message.exchange == "vcp" for message in world.publish())
