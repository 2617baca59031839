"""Given what has happened to a command, when one thing more does, then these events and no others."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.domain import AggregateEvent
from hypothesis import given as given_any
from hypothesis import strategies as st

from domain.relayed_command import RelayedCommand

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ENDS = NOON + timedelta(minutes=15)
CREATED: dict[str, Any] = {
    "organization_id": UUID(int=1),
    "queue_prefix": "acme",
    "plant_id": UUID(int=2),
    "message_id": UUID(int=3),
    "correlation_id": None,
    "command_type": "SITE_SETPOINT",
    "type": "command.site-setpoint",
    "routing_key": "acme.command.site-setpoint",
    "site_id": "esm-001",
    "sent_at": NOON,
    "payload": {"targetValueKw": 40.0},
    "digest": "d" * 64,
    "signed": True,
}

Step = Callable[[RelayedCommand], None]


def accept(command: RelayedCommand) -> None:
    command.accept(ENDS)


def reject(command: RelayedCommand) -> None:
    command.reject("UNKNOWN_SITE")


def reject_silently(command: RelayedCommand) -> None:
    command.reject("SIGNATURE_MISSING", silent=True)


def execute(command: RelayedCommand) -> None:
    command.execute(NOON, "done")


def fail(command: RelayedCommand) -> None:
    command.fail(NOON, "no grid")


def expire(command: RelayedCommand) -> None:
    command.expire(ENDS)


def expire_too_early(command: RelayedCommand) -> None:
    command.expire(ENDS - timedelta(seconds=1))


repeat, relay = RelayedCommand.repeat, RelayedCommand.relay


@dataclass(frozen=True)
class When:
    events: list[Any]
    command: RelayedCommand

    def then(self, *expected: tuple[type[AggregateEvent], dict[str, Any]]) -> RelayedCommand:
        found = [(type(event), {name: vars(event)[name] for name in _own(event)}) for event in self.events]
        assert found == list(expected)
        return self.command


@dataclass(frozen=True)
class Given:
    command: RelayedCommand

    def when(self, step: Step) -> When:
        step(self.command)
        return When(list(self.command.collect_events()), self.command)


def given(*steps: Step) -> Given:
    command = RelayedCommand(**CREATED)
    for step in steps:
        step(command)
    command.collect_events()
    return Given(command)


def _own(event: AggregateEvent) -> list[str]:
    return [name for name in vars(event) if name not in ("originator_id", "originator_version", "timestamp")]


def test_its_identity_is_what_the_sender_named() -> None:
    again = RelayedCommand(**CREATED | {"digest": "another"})
    assert again.id == RelayedCommand(**CREATED).id == RelayedCommand.create_id(UUID(int=1), UUID(int=3))
    assert again.id != RelayedCommand(**CREATED | {"organization_id": UUID(int=9)}).id


# --- accept, reject
def test_accepting() -> None:
    given().when(accept).then((RelayedCommand.Accepted, {"expires_at": ENDS}))


def test_rejecting() -> None:
    rejected = {"reason": "UNKNOWN_SITE", "detail": None, "silent": False}
    assert given().when(reject).then((RelayedCommand.Rejected, rejected)).rejection == "UNKNOWN_SITE"


@pytest.mark.parametrize("judged", [accept, reject, reject_silently])
@pytest.mark.parametrize("again", [accept, reject])
def test_it_is_judged_once(judged: Step, again: Step) -> None:
    given(judged).when(again).then()


# --- repeat
@pytest.mark.parametrize("steps", [(accept,), (reject,), (accept, relay, execute), (accept, expire)])
def test_a_repeat_is_recorded(steps: tuple[Step, ...]) -> None:
    given(*steps).when(repeat).then((RelayedCommand.Repeated, {}))


def test_a_repeat_of_a_silent_refusal_is_not() -> None:
    given(reject_silently).when(repeat).then()


# --- relay
def test_relaying() -> None:
    assert given(accept).when(relay).then((RelayedCommand.Relayed, {})).status == "RELAYED"


@pytest.mark.parametrize("steps", [(), (reject,), (accept, relay), (accept, execute), (accept, expire)])
def test_only_what_waits_for_it_is_relayed(steps: tuple[Step, ...]) -> None:
    given(*steps).when(relay).then()


# --- execute, fail
@pytest.mark.parametrize("steps", [(accept,), (accept, relay)])
def test_executing_also_before_we_know_that_it_was_relayed(steps: tuple[Step, ...]) -> None:
    given(*steps).when(execute).then((RelayedCommand.Executed, {"executed_at": NOON, "detail": "done"}))


@pytest.mark.parametrize("steps", [(accept,), (accept, relay)])
def test_failing(steps: tuple[Step, ...]) -> None:
    given(*steps).when(fail).then((RelayedCommand.Failed, {"failed_at": NOON, "detail": "no grid"}))


@pytest.mark.parametrize("ended", [(), (reject,), (accept, execute), (accept, fail)])
@pytest.mark.parametrize("result", [execute, fail])
def test_a_result_of_what_is_not_open_is_nothing(ended: tuple[Step, ...], result: Step) -> None:
    given(*ended).when(result).then()


def test_a_result_after_the_end_is_recorded_once_and_changes_no_status() -> None:
    late = {"result": "EXECUTED", "reported_at": NOON, "detail": "done"}
    command = given(accept, relay, expire).when(execute).then((RelayedCommand.ReportedLate, late))
    assert command.status == "EXPIRED"
    given(accept, expire, execute).when(execute).then()
    given(accept, expire, execute).when(fail).then()


# --- expire
@pytest.mark.parametrize("steps", [(accept,), (accept, relay)])
def test_expiring(steps: tuple[Step, ...]) -> None:
    given(*steps).when(expire).then((RelayedCommand.Expired, {}))


@pytest.mark.parametrize("steps", [(), (reject,), (accept, execute), (accept, fail), (accept, expire)])
def test_what_is_not_open_does_not_expire(steps: tuple[Step, ...]) -> None:
    given(*steps).when(expire).then()


def test_nothing_expires_before_its_time() -> None:
    given(accept, relay).when(expire_too_early).then()


# --- never back
RANK = {"RECEIVED": 0, "ACCEPTED": 1, "RELAYED": 2, "REJECTED": 3, "EXECUTED": 3, "FAILED": 3, "EXPIRED": 3}
STEPS = [accept, reject, reject_silently, repeat, relay, execute, fail, expire, expire_too_early]


@given_any(st.lists(st.sampled_from(STEPS), max_size=20))
def test_no_sequence_goes_back_and_replay_ends_where_it_ended(steps: list[Step]) -> None:
    command = RelayedCommand(**CREATED)
    for step in steps:
        before = command.status
        step(command)
        assert RANK[command.status] > RANK[before] or command.status == before
    replayed: Any = None
    for event in command.collect_events():
        replayed = event.mutate(replayed)
    assert (replayed.status, replayed.version) == (command.status, command.version)


@given_any(st.lists(st.sampled_from(STEPS), max_size=12), st.sampled_from(STEPS))
def test_doing_a_thing_twice_is_doing_it_once(steps: list[Step], step: Step) -> None:
    command = given(*steps, step).command
    before = command.status
    step(command)
    assert command.status == before
    assert {type(event) for event in command.collect_events()} <= {RelayedCommand.Repeated}
