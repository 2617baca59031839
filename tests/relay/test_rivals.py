"""Whatever two organisations send, in whatever queue it lies: none of it reaches the other's plant."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from application.ports import Delivery, Message
from domain import topology
from domain.relayed_command import RelayedCommand
from interfaces.amqp.intake import INTERNAL_ERROR
from tests.relay.messages import Rivals, deliveries
from tests.relay.world import World, delivery

RIVALS = Rivals.meet()
OWNED = {
    prefix: {(organization_id, plant_id), (organization_id, None)}
    for prefix in ("acme", "rival")
    for organization_id, plant_id in [RIVALS.owner(prefix)]
}


def take(batch: Sequence[Delivery]) -> None:
    """Each is a dead letter with a reason, or a command that is refused with one, or right."""
    world = RIVALS.world
    before = world.last_position
    letters = world.commands(batch)
    assert all(letter.reason and letter.reason != INTERNAL_ERROR for letter in letters)
    events = [recorded.event for recorded in world.recorded(before)]
    commands = [event for event in events if isinstance(event, RelayedCommand.Created)]
    for created in commands:
        assert (created.organization_id, created.plant_id) in OWNED[created.queue_prefix]
        command = world.events.load(RelayedCommand, created.originator_id)
        assert (command.status == "REJECTED") == (command.rejection is not None)
        assert command.status == "REJECTED" or command.plant_id is not None
    owed_to = {topology.sender_of(each.queue, each.routing_key) for each in batch}
    for message in world.publish():
        assert reached(message) in owed_to


def reached(message: Message) -> str:
    """The prefix of the partner, or of the plant's owner."""
    if message.exchange == "vcp":
        return message.routing_key.split(".")[0]
    plant_id = message.routing_key.split(".")[1]
    return next(prefix for prefix in OWNED if plant_id == str(RIVALS.owner(prefix)[1]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(deliveries(RIVALS), min_size=1, max_size=10))
def test_nearly_right_messages(batch: list[Delivery]) -> None:
    take(batch)


@pytest.mark.bench
@settings(
    max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], derandomize=True
)
@given(batch=st.lists(deliveries(RIVALS), min_size=20, max_size=20))
def test_ten_thousand_nearly_right_messages(batch: list[Delivery]) -> None:
    take(batch)


@pytest.mark.parametrize("kind", ["command.mode", "command.emergency", "schedule.create", "config.limits"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("queue", ["vcp.rival.command", "vcp.acme.command", "vcp.emergency"])
@pytest.mark.parametrize("prefix", ["acme", "rival"])
def test_a_valid_envelope_for_anothers_plant_never_reaches_it(
    kind: str, queue: str, prefix: str, *, signed: bool
) -> None:
    """Under the own prefix the site is unknown; under the other's the signature or the site is not right."""
    rivals = Rivals.meet()
    world: World = rivals.world
    other = world.plant_id if prefix == "rival" else rivals.rival_plant_id
    make = world.body if signed else world.unsigned
    world.commands([delivery(make(kind, site_id=str(other)), f"{prefix}.{kind}", queue)])
    assert all(message.exchange == "vcp" for message in world.publish())
    assert all(command.status == "REJECTED" for command in world.all_commands())
