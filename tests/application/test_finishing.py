"""Every change comes to an end: answered later, timed out, or its answer lost with a crash."""

from datetime import timedelta
from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError

from application import plant_configs
from domain.plant_config import ANSWER_TIMEOUT, PlantConfig
from tests.application.test_plant_configs import PLANT_ID, answer, answered, change, plan
from tests.application.world import Crash, World, crash
from tests.examples import block

LOST_OTHER = answer("ANSWER_LOST", "The answer was lost; the ESM has another plan now")


@pytest.fixture(autouse=True)
def synced_world(world: World) -> World:
    world.sync()
    return world


def finish(world: World) -> None:
    world.plant_configs.finish(PLANT_ID)


def in_flight(world: World) -> object:
    return world.events.load(PlantConfig, PlantConfig.create_id(PLANT_ID)).in_flight


@pytest.fixture
def a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that sent a change can't be at it any more."""
    monkeypatch.setattr(plant_configs, "CALL_TIMEOUT", timedelta())


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch, a_minute_later: None) -> None:
    monkeypatch.setattr(plant_configs, "ANSWER_TIMEOUT", timedelta())


def crash_at(world: World, before: int | None = None, after: int | None = None, **wanted: Any) -> None:
    """A change whose process ends before or after its n-th save: 1 records it as sent, 2 its answer."""
    if before is not None:
        world.script.before_save = [*[None] * (before - 1), crash]
    if after is not None:
        world.script.after_save = [*[None] * (after - 1), crash]
    with pytest.raises(Crash):
        change(world, plan(**wanted))


# --- later answers
def test_a_later_answer_is_polled_to_its_end(world: World) -> None:
    world.esm.state.change("esm-001", late_polls=3)
    processed = answer("ACCEPTED", "The plan is being processed", "REQ-000001", is_error=False, is_terminal=False)
    assert answered(change(world)) == processed
    world.news()
    finish(world)
    finish(world)
    assert world.news() == []
    finish(world)
    assert answered(world.news()) == answer("OK", "The plan is applied", "REQ-000001", is_error=False)
    assert in_flight(world) is None


def test_a_finished_change_is_asked_for_no_more(world: World) -> None:
    finish(world)  # there is none at all
    change(world)
    world.news()
    asked = world.esm.calls.total()
    finish(world)
    assert (world.news(), world.esm.calls.total()) == ([], asked)


def test_while_the_esm_is_down_the_change_waits(world: World) -> None:
    world.esm.state.change("esm-001", late_polls=1)
    change(world)
    world.news()
    world.esm.down = True
    finish(world)
    assert world.news() == []
    world.esm.down = False
    finish(world)
    assert answered(world.news())["result_code"] == "OK"


def test_while_the_partner_is_not_configured_the_change_waits(world: World) -> None:
    world.esm.state.change("esm-001", late_polls=1)
    change(world)
    world.change(esmClientSecret=None)
    world.news()
    finish(world)
    assert world.news() == []


# --- time-out
TIMED_OUT = answer("ESM_TIMEOUT", "The ESM gave no final answer in time", "REQ-000001")


def test_after_an_hour_it_times_out(world: World, an_hour_later: None) -> None:
    world.esm.state.change("esm-001", late_polls=9)
    change(world)
    finish(world)
    assert answered(world.news()) == TIMED_OUT
    assert in_flight(world) is None


def test_after_an_hour_it_times_out_also_while_the_esm_is_down(world: World, an_hour_later: None) -> None:
    world.esm.state.change("esm-001", late_polls=9)
    change(world)
    world.esm.down = True
    finish(world)
    assert answered(world.news()) == TIMED_OUT


def test_an_answer_at_the_last_moment_counts(world: World, an_hour_later: None) -> None:
    world.esm.state.change("esm-001", late_polls=1)
    change(world)
    finish(world)
    assert answered(world.news())["result_code"] == "OK"


def test_an_hour_is_not_yet_over(world: World) -> None:
    assert timedelta(hours=1) == ANSWER_TIMEOUT
    world.esm.state.change("esm-001", late_polls=9)
    change(world)
    world.news()
    finish(world)
    assert world.news() == []


# --- answers lost in a crash
def test_a_crash_before_it_was_recorded_as_sent_sends_nothing(world: World) -> None:
    crash_at(world, before=1)
    assert (world.news(), world.esm.updates) == ([], [])
    assert answered(change(world))["result_code"] == "OK"


def test_a_request_that_may_still_be_at_it_is_left_alone(world: World) -> None:
    crash_at(world, before=2)
    world.news()
    finish(world)
    assert world.news() == []


def test_a_crash_before_sending_leaves_another_plan(world: World, an_hour_later: None) -> None:
    crash_at(world, after=1)
    assert world.esm.updates == []
    world.news()
    finish(world)
    assert answered(world.news()) == LOST_OTHER
    assert in_flight(world) is None


def test_until_the_hour_is_over_the_esm_may_still_be_at_it(world: World, a_minute_later: None) -> None:
    crash_at(world, after=1)
    world.news()
    finish(world)
    assert world.news() == []
    assert in_flight(world) is not None


def test_a_crash_after_it_was_applied(world: World, a_minute_later: None) -> None:
    crash_at(world, before=2)
    world.news()
    finish(world)
    assert answered(world.news()) == answer("APPLIED", "The answer was lost; the ESM has this plan now", is_error=False)


def test_a_crash_after_a_refusal(world: World, an_hour_later: None) -> None:
    world.script.before_save = [None, crash]
    with pytest.raises(Crash):
        change(world, plan(block(pBatMax=101)))
    world.news()
    finish(world)
    assert answered(world.news()) == LOST_OTHER


def test_a_plan_that_the_esm_had_all_along_was_not_applied(world: World, an_hour_later: None) -> None:
    change(world)
    crash_at(world, after=1)
    world.news()
    finish(world)
    assert answered(world.news()) == LOST_OTHER


def test_a_crash_of_a_dry_run(world: World, a_minute_later: None) -> None:
    crash_at(world, before=2, validate_only=True)
    world.news()
    finish(world)
    assert answered(world.news()) == answer("ANSWER_LOST", "The answer was lost; a dry run applies nothing")


def test_a_crash_while_the_esm_could_not_be_reached_sent_nothing(world: World, a_minute_later: None) -> None:
    change(world)
    world.esm.down = True
    crash_at(world, before=2)
    world.esm.down = False
    world.news()
    finish(world)
    assert answered(world.news()) == answer("ESM_UNREACHABLE", "Nothing was sent: the ESM could not be reached")


def test_a_crash_before_the_later_answer_was_recorded(world: World, an_hour_later: None) -> None:
    """No request code is known, so only the ESM's config can tell."""
    world.esm.state.change("esm-001", late_polls=9)
    crash_at(world, before=2)
    world.news()
    finish(world)
    assert answered(world.news()) == LOST_OTHER


def test_a_crash_after_the_answer_was_recorded_lost_nothing(world: World, a_minute_later: None) -> None:
    crash_at(world, after=2)
    assert answered(world.news())["result_code"] == "OK"
    finish(world)
    assert world.news() == []


def test_a_lost_answer_waits_while_the_esm_is_down_and_then_times_out(
    world: World, a_minute_later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_at(world, before=2)
    world.news()
    world.esm.down = True
    finish(world)
    assert world.news() == []
    monkeypatch.setattr(plant_configs, "ANSWER_TIMEOUT", timedelta())
    finish(world)
    assert answered(world.news())["result_code"] == "ESM_TIMEOUT"


def test_the_end_of_a_crashed_change_lets_the_next_one_in(world: World, a_minute_later: None) -> None:
    crash_at(world, before=2)
    finish(world)
    assert answered(change(world, plan(block(pBatMax=5))))["result_code"] == "OK"


def test_of_two_who_finish_at_once_one_records(world: World, a_minute_later: None) -> None:
    crash_at(world, before=2)
    world.news()
    world.script.before_save = [lambda: finish(world)]
    with pytest.raises(IntegrityError):
        finish(world)
    assert len(world.news()) == 1
