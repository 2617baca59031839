"""What becomes of each message: accepted, refused with its reason, recognised, or a dead letter."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from application.ports import DeadLetter
from domain.relayed_command import RelayedCommand
from domain.trading_config import TradingConfig
from interfaces.amqp import Commands
from tests.relay.world import PAYLOADS, SETPOINT, World, delivery, later


def id_of(body: bytes) -> UUID:
    return UUID(json.loads(body)["messageId"])


def judged(world: World, body: bytes, kind: str = "command.site-setpoint") -> RelayedCommand:
    assert world.deliver(body, kind=kind) == []
    return world.command(id_of(body))


# --- accepted
@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_right_message_of_each_kind_is_accepted(world: World, kind: str) -> None:
    command = judged(world, world.body(kind), kind)
    assert (command.status, command.plant_id, command.type) == ("ACCEPTED", world.plant_id, kind)


@pytest.mark.parametrize("kind", ["command.site-setpoint", "command.emergency", "config.limits"])
def test_a_signature_that_is_not_required_may_be_missing(world: World, kind: str) -> None:
    assert judged(world, world.unsigned(kind), kind).status == "ACCEPTED"


def test_a_site_may_be_named_by_the_plants_own_id(world: World) -> None:
    assert judged(world, world.body(site_id=str(world.plant_id).upper())).plant_id == world.plant_id


def test_it_ends_when_its_sender_says_or_after_fifteen_minutes(world: World) -> None:
    assert judged(world, world.body()).expires_at == later(world.now, minutes=10)
    emergency = judged(world, world.body("command.emergency"), "command.emergency")
    assert emergency.expires_at == later(world.now, minutes=15)
    schedule = judged(world, world.body("schedule.create"), "schedule.create")
    assert schedule.expires_at == later(world.now, hours=2)


def test_unknown_payload_fields_are_kept(world: World) -> None:
    payload = SETPOINT | {"futureField": {"a": [1]}}
    assert judged(world, world.body(payload=payload)).payload == payload


def test_the_partners_prefix_is_who_acted(world: World) -> None:
    world.deliver(world.body(correlationId="c-1"))
    [command] = world.all_commands()
    assert (command.correlation_id, command.queue_prefix) == ("c-1", "acme")


# --- refused
def bad_payloads() -> list[tuple[str, dict[str, Any]]]:
    setpoint, mode, schedule = SETPOINT, PAYLOADS["command.mode"], PAYLOADS["schedule.create"]
    slot = schedule["slots"][0]
    return [
        ("command.site-setpoint", setpoint | {"targetValueKw": -1}),
        ("command.site-setpoint", setpoint | {"targetValueKw": "40"}),
        ("command.site-setpoint", setpoint | {"direction": "SIDEWAYS"}),
        ("command.site-setpoint", setpoint | {"type": "ENERGY"}),
        ("command.site-setpoint", setpoint | {"type": "ENERGY", "targetValueKwh": 5, "intervalMinutes": 0}),
        ("command.site-setpoint", setpoint | {"validUntil": setpoint["validFrom"]}),
        ("command.site-setpoint", setpoint | {"validUntil": "9999-12-31T23:59:59-14:00"}),
        ("command.site-setpoint", setpoint | {"validFrom": 1772366400}),
        ("command.site-setpoint", setpoint | {"priority": "URGENT"}),
        ("command.site-setpoint", {}),
        ("command.device.inverter-1", {"deviceId": "", "action": "RESTART"}),
        ("command.device.inverter-1", {"deviceId": "i", "action": "RESTART", "params": []}),
        ("command.mode", mode | {"mode": "peak shaving"}),
        ("command.emergency", {"action": "PAUSE"}),
        ("schedule.create", schedule | {"slots": []}),
        ("schedule.create", schedule | {"slots": [slot, slot]}),
        ("schedule.create", schedule | {"slots": [slot | {"to": slot["from"]}]}),
        ("schedule.cancel", {}),
    ]


@pytest.mark.parametrize(("kind", "payload"), bad_payloads())
def test_a_payload_that_its_kind_does_not_allow_is_refused_in_one_sentence(
    world: World, kind: str, payload: dict[str, Any]
) -> None:
    command = judged(world, world.body(kind, payload=payload), kind)
    assert (command.status, command.rejection) == ("REJECTED", "INVALID_PAYLOAD")
    assert refusal(world).detail


def test_another_version_is_refused(world: World) -> None:
    assert judged(world, world.body(version="2.0")).rejection == "UNSUPPORTED_VERSION"


@pytest.mark.parametrize(("kind", "silent"), [("command.site-setpoint", False), ("command.mode", True)])
def test_another_version_is_answered_only_where_no_signature_is_missing(world: World, kind: str, silent: bool) -> None:
    command = judged(world, world.unsigned(kind, version="2.0"), kind)
    assert (command.rejection, command.silent) == ("UNSUPPORTED_VERSION", silent)


def test_an_unknown_site_is_refused_also_when_another_organisation_has_it(world: World) -> None:
    assert judged(world, world.body(site_id="esm-404")).rejection == "UNKNOWN_SITE"
    assert judged(world, world.body(site_id=str(uuid4()))).rejection == "UNKNOWN_SITE"


@pytest.mark.parametrize("kind", ["command.device.inverter-1", "command.mode", "schedule.create", "schedule.cancel"])
def test_a_required_signature_that_is_missing_is_recorded_and_not_answered(world: World, kind: str) -> None:
    command = judged(world, world.unsigned(kind), kind)
    assert (command.rejection, command.silent) == ("SIGNATURE_MISSING", True)
    assert world.publish() == []


def test_a_setting_requires_signatures_of_emergencies() -> None:
    world = World(emergency_signature_required=True)
    assert judged(world, world.unsigned("command.emergency"), "command.emergency").rejection == "SIGNATURE_MISSING"
    assert judged(world, world.body("command.emergency"), "command.emergency").status == "ACCEPTED"


@pytest.mark.parametrize(
    ("minutes", "kind", "rejection"),
    [
        (-5, "command.mode", None),
        (-5.1, "command.mode", "STALE_MESSAGE"),
        (5.1, "command.mode", "STALE_MESSAGE"),
        (-24 * 60, "config.limits", None),
        (-24 * 60 - 1, "config.limits", "STALE_MESSAGE"),
        (24 * 60 + 1, "config.limits", "STALE_MESSAGE"),
    ],
)
def test_freshness(world: World, minutes: float, kind: str, rejection: str | None) -> None:
    sent_at = later(world.now, minutes=minutes).isoformat()
    assert judged(world, world.body(kind, timestamp=sent_at), kind).rejection == rejection


def test_freshness_is_a_setting(world: World) -> None:
    world.relay = replace(world.relay, fresh_signed=timedelta(minutes=1), fresh_unsigned=timedelta(hours=1))
    world.commands = Commands(world.relay)
    for kind, minutes in (("command.mode", 2), ("config.limits", 61)):
        sent_at = later(world.now, minutes=-minutes).isoformat()
        assert judged(world, world.body(kind, timestamp=sent_at), kind).rejection == "STALE_MESSAGE"


def test_nothing_is_accepted_while_trading_is_disabled(world: World) -> None:
    world.change_config(TradingConfig.disable)
    assert judged(world, world.body()).rejection == "TRADING_DISABLED"


def test_a_command_whose_time_is_over_is_refused(world: World) -> None:
    world.now = later(world.now, minutes=10)
    assert judged(world, world.body()).rejection == "EXPIRED"


# --- batches
def test_emergencies_of_a_batch_come_first(world: World) -> None:
    batch = [
        delivery(world.body(), "acme.command.site-setpoint"),
        delivery(world.body("config.limits"), "acme.config.limits"),
        delivery(world.body("command.emergency"), "acme.command.emergency"),
    ]
    assert world.commands(batch) == []
    assert [command.command_type for command in world.all_commands()] == [
        "EMERGENCY", "SITE_SETPOINT", "CONFIG_REQUEST",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "key", "queue", "reason"),
    [
        (b"", "acme.command.mode", None, "no JSON"),
        (b"\xff\xfe", "acme.command.mode", None, "no JSON"),
        (b"[1]", "acme.command.mode", None, "no JSON object"),
        (b"{}", "acme.command.mode", None, "no envelope: version Field required"),
        (b'{"version": NaN}', "acme.command.mode", None, "no JSON"),
        (b" " * (1024 * 1024 + 1), "acme.command.mode", None, "larger than 64 KiB"),
        (None, "rival.command.mode", "vcp.acme.command", "the routing key has another prefix than the queue"),
        (None, "acme.command.dance", None, "no such command"),
        (None, "acme.command.mode\0", None, "the routing key is no text"),
        (None, "nobody.command.mode", "vcp.nobody.command", "nobody holds this queue prefix"),
        (None, "acme.command.mode", "vcp.ingest", "no queue for commands"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_with_its_reason(
    world: World, body: bytes | None, key: str, queue: str | None, reason: str
) -> None:
    sent = delivery(world.body() if body is None else body, key, queue)
    right = world.body()
    [letter] = world.commands([sent, delivery(right, "acme.command.site-setpoint")])
    assert (letter.delivery, letter.reason) == (sent, reason)
    assert str(UUID(letter.request_id)) == letter.request_id
    assert world.command(id_of(right)).status == "ACCEPTED"


def test_a_bug_that_one_message_meets_costs_only_that_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = type(world.relay).receive

    def stumble(relay: Any, messages: Any, sight: Any) -> None:
        if any(message.received.envelope.correlation_id == "bug" for message in messages):
            raise ZeroDivisionError
        receive(relay, messages, sight)

    monkeypatch.setattr(type(world.relay), "receive", stumble)
    bodies = [world.body(correlationId="bug" if number == 3 else None) for number in range(8)]
    letters = world.deliver(*bodies)
    assert [(letter.delivery.body, letter.reason) for letter in letters] == [(bodies[3], "internal error")]
    assert len(world.all_commands()) == 7


def test_what_is_only_transient_keeps_the_whole_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> list[DeadLetter]:
        raise ConnectionError

    monkeypatch.setattr(type(world.relay), "receive", away)
    with pytest.raises(ConnectionError):
        world.deliver(world.body(), b"unreadable")


def kinds(world: World) -> list[str]:
    events = [each.event for each in world.recorded(0)]
    return [type(event).__name__ for event in events if type(event).__qualname__.startswith("RelayedCommand.")]


def refusal(world: World) -> RelayedCommand.Rejected:
    [event] = [each.event for each in world.recorded(0) if isinstance(each.event, RelayedCommand.Rejected)]
    return event
