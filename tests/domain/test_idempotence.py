"""Of every aggregate, whatever was done before: a command done twice records nothing more, and state is its events."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from eventsourcing.domain import Aggregate
from hypothesis import given as for_any
from hypothesis import strategies as st

from domain.errors import WattledgerError
from domain.organisation import SCOPES, Organisation
from domain.plant import Plant
from domain.plant_alarm import PlantAlarm
from domain.plant_config import PlantConfig
from domain.queue_prefix import QueuePrefix
from domain.trading_config import TradingConfig
from infra.event_mapper import EventMapper
from tests.examples import ACME, CHANGE, EXPIRY, KEY, PLANT, RIVAL, URL, USER, block, description

Command = tuple[str, tuple[Any, ...], dict[str, Any]]


def command(
    name: str, *arguments: st.SearchStrategy[Any], **named: st.SearchStrategy[Any]
) -> st.SearchStrategy[Command]:
    return st.tuples(st.just(name), st.tuples(*arguments), st.fixed_dictionaries(named))


anyone = st.sampled_from([ACME, RIVAL])
keys = st.sampled_from([KEY, RIVAL])
changes = st.sampled_from([CHANGE, RIVAL])
words = st.sampled_from(["down", "up"])
few = st.integers(1, 2)
scopes = st.lists(st.sampled_from([*SCOPES, "trading:root"]), max_size=3)
constraints = st.sampled_from(["SOC", "BATTERY_POWER"])
moments = st.integers(0, 5).map(lambda minutes: EXPIRY + timedelta(minutes=minutes))
time_configs = st.just([block().as_json()])

LIVES: dict[str, tuple[Callable[[], Aggregate], st.SearchStrategy[Command]]] = {
    "organisation": (
        lambda: Organisation("acme", "Acme"),
        st.one_of(
            command("mint_key", keys, words, scopes, words, few, st.sampled_from([None, EXPIRY])),
            command("revoke_key", keys),
            command("close"),
            command("record_erased"),
        ),
    ),
    "queue_prefix": (
        lambda: QueuePrefix("acme", ACME, False),
        st.one_of(command("claim", anyone), command("release")),
    ),
    "trading_config": (
        lambda: TradingConfig(ACME, "acme"),
        st.one_of(
            command("change_partner", st.sampled_from([None, URL]), st.sampled_from([None, "id", "other"])),
            command("set_credentials", few),
            command("clear_credentials"),
            command("change_queue_prefix", st.sampled_from(["acme", "acme-north"])),
            command("enable"),
            command("disable"),
            command("close"),
            command("record_sync", few, st.lists(words, max_size=1)),
            command("record_sync_failure", words),
        ),
    ),
    "plant": (
        lambda: Plant(ACME, "esm-001", "Brno depot"),
        command("link", st.sampled_from([description(), description("Other")])),
    ),
    "plant_alarm": (
        lambda: PlantAlarm(ACME, PLANT),
        st.one_of(
            command("raise_alarm", constraints, moments, few, few, few, words, words),
            command("clear_alarm", constraints, moments, few, words, words),
        ),
    ),
    "plant_config": (
        lambda: PlantConfig(ACME, PLANT),
        st.one_of(
            command(
                "send_change", changes, st.just(str(USER)), st.none() | few, time_configs, validate_only=st.booleans()
            ),
            command(
                "answer_change",
                changes,
                request_code=st.none() | words,
                result_code=words,
                message=words,
                is_error=st.booleans(),
                is_terminal=st.booleans(),
            ),
        ),
    ),
}


def do(aggregate: Any, command: Command) -> bool:
    """Whether it was not refused; what is refused records nothing."""
    name, arguments, named = command
    before = len(aggregate.pending_events)
    try:
        getattr(aggregate, name)(*arguments, **named)
    except WattledgerError:
        assert len(aggregate.pending_events) == before
        return False
    return True


def replayed(aggregate: Aggregate) -> Any:
    """From its events as they are stored."""
    mapper = EventMapper()
    again: Any = None
    for event in aggregate.pending_events:
        again = mapper.to_domain_event(mapper.to_stored_event(event)).mutate(again)
    return again


def state(aggregate: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(aggregate).items() if name != "_pending_events"}


@pytest.mark.parametrize("life", LIVES)
@for_any(data=st.data())
def test_a_command_done_twice_records_nothing_more(life: str, data: st.DataObject) -> None:
    create, commands = LIVES[life]
    aggregate = create()
    for each in data.draw(st.lists(commands, max_size=12)):
        do(aggregate, each)
        recorded = len(aggregate.pending_events)
        do(aggregate, each)
        assert len(aggregate.pending_events) == recorded


@pytest.mark.parametrize("life", LIVES)
@for_any(data=st.data())
def test_state_is_the_fold_of_the_stored_events(life: str, data: st.DataObject) -> None:
    create, commands = LIVES[life]
    misses = command("miss", st.none() | st.just(EXPIRY)) if life == "plant" else st.nothing()
    aggregate = create()
    for each in data.draw(st.lists(commands | misses, max_size=12)):
        do(aggregate, each)
    assert state(replayed(aggregate)) == state(aggregate)


@for_any(st.lists(st.booleans(), max_size=20))
def test_only_three_misses_in_a_row_unlink_a_plant(lists: list[bool]) -> None:
    """A miss is no repeated command: each list that comes without the plant is one more."""
    plant = Plant(ACME, "esm-001", "Brno depot")
    plant.link(description())
    for listed in lists:
        if listed:
            plant.link(description())
        else:
            plant.miss(None)
    assert plant.linked is (lists[-3:] != [False] * 3)
