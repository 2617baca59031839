"""Changes of a plant's config: sent, then answered, whatever happens in between."""

from itertools import pairwise
from typing import Any, NoReturn
from uuid import UUID

import pytest
from pydantic import ValidationError

from application.plant_configs import PlantConfigChange
from domain.day_plan import TimeBlock
from domain.errors import (
    ChangeInFlight,
    EsmUnreachable,
    Invalid,
    PlantEsmNotConfigured,
    PlantNotFound,
    PlantNotLinked,
    WattledgerError,
)
from domain.plant import Plant
from domain.plant_config import PlantConfig
from tests.application.world import World
from tests.examples import ACME, KEY, RIVAL, USER, block, change_answered, change_sent
from tests.given import Fact, facts_in

PLANT_ID = Plant.create_id(ACME, "esm-001")


def plan(*blocks: TimeBlock, validate_only: bool = False) -> PlantConfigChange:
    return PlantConfigChange(time_configs=list(blocks) or [block()], validate_only=validate_only)


def change(world: World, wanted: PlantConfigChange | None = None) -> list[Fact]:
    """The change's entry of the log."""
    entry = world.plant_configs.change(ACME, PLANT_ID, wanted or plan(), USER)
    return facts_in(event for _, event in entry)


def answered(facts: list[Fact]) -> dict[str, Any]:
    """What the last answer says, but for the change's own id."""
    assert facts[-1].event_class is PlantConfig.ChangeAnswered
    return {name: value for name, value in facts[-1].says.items() if name != "change_id"}


def answer(
    result_code: str, message: str, request_code: str | None = None, *, is_error: bool = True, is_terminal: bool = True
) -> dict[str, Any]:
    return {
        "request_code": request_code,
        "result_code": result_code,
        "message": message,
        "is_error": is_error,
        "is_terminal": is_terminal,
    }


@pytest.fixture(autouse=True)
def synced_world(world: World) -> World:
    world.sync()
    return world


# --- the usual way
def test_a_change_is_sent_and_answered(world: World) -> None:
    created, sent, done = change(world)
    change_id = sent.says["change_id"]
    assert created.says == {"organization_id": ACME, "plant_id": PLANT_ID}
    assert sent.says == change_sent(change_id).says | {"plant_id": PLANT_ID}
    assert done == change_answered(change_id, request_code="REQ-000001", message="The plan is applied")
    assert world.news() == [created, sent, done]
    assert world.esm.updates == [("esm-001", 1, (block(),), False)]
    assert world.esm.state.get("esm-001").time_configs == (block(),)


def test_an_entry_comes_with_its_positions(world: World) -> None:
    first = world.plant_configs.change(ACME, PLANT_ID, plan(), USER)
    second = world.plant_configs.change(ACME, PLANT_ID, plan(), KEY)
    positions = [position for position, _ in first + second]
    assert positions == list(range(positions[0], positions[0] + 5))


def test_the_next_change_is_based_on_the_next_version(world: World) -> None:
    change(world)
    sent, done = change(world)
    assert (sent.says["version"], answered([done])["result_code"]) == (2, "OK")


def test_validating_takes_the_same_road_and_applies_nothing(world: World) -> None:
    before = world.esm.state.get("esm-001")
    facts = change(world, plan(validate_only=True))
    assert facts[1].says["validate_only"] is True
    assert answered(facts) == answer("VALID", "The plan is valid", "REQ-000001", is_error=False)
    assert world.esm.state.get("esm-001") == before


def test_what_the_esm_refuses_is_an_entry(world: World) -> None:
    facts = change(world, plan(block(pBatMax=101)))
    assert answered(facts) == answer("SETPOINT_OUT_OF_RANGE", "101 kW is beyond the plant's 100 kW", "REQ-000001")


def test_the_current_config_is_the_esms_own(world: World) -> None:
    assert world.plant_configs.current(ACME, PLANT_ID) == world.esm.state.get("esm-001").config()
    change(world)
    assert world.plant_configs.current(ACME, PLANT_ID).version == 2
    world.esm.down = True
    with pytest.raises(EsmUnreachable):
        world.plant_configs.current(ACME, PLANT_ID)


# --- an ESM that can't be reached
def test_unreachable_before_sending_nothing_is_sent(world: World) -> None:
    world.esm.down = True
    facts = change(world)
    assert facts[1].says["version"] is None
    assert answered(facts) == answer("ESM_UNREACHABLE", "Nothing was sent: ESM can't be reached for the plant config")
    assert world.esm.calls["update_config"] == 0


def test_unreachable_while_sending(world: World) -> None:
    world.esm.fail("update_config", EsmUnreachable("ESM did not answer in time"))
    assert answered(change(world)) == answer("ESM_UNREACHABLE", "ESM did not answer in time")
    assert world.esm.calls["update_config"] == 1


@pytest.mark.parametrize("reads_back", [True, False])
def test_a_change_whose_answer_is_lost_on_the_way_is_looked_for(world: World, reads_back: bool) -> None:
    apply = world.esm.update_config

    def lost(*arguments: Any, **options: Any) -> NoReturn:
        apply(*arguments, **options)
        world.esm.down = not reads_back
        raise EsmUnreachable("ESM broke off its answer")

    world.esm.update_config = lost  # type: ignore[method-assign]
    found = answer("APPLIED", "The answer was lost; the ESM has this plan now", is_error=False)
    assert answered(change(world)) == (found if reads_back else answer("ESM_UNREACHABLE", "ESM broke off its answer"))


def test_a_dry_run_whose_answer_is_lost_is_not_looked_for(world: World) -> None:
    world.esm.fail("update_config", EsmUnreachable("ESM broke off its answer"))
    assert answered(change(world, plan(validate_only=True))) == answer("ESM_UNREACHABLE", "ESM broke off its answer")
    assert world.esm.calls["plant_config"] == 1


def test_the_next_change_may_follow_at_once(world: World) -> None:
    world.esm.fail("update_config")
    change(world)
    assert answered(change(world))["result_code"] == "OK"


# --- one in flight
def test_a_second_change_waits_for_the_first(world: World) -> None:
    world.esm.state.change("esm-001", late_polls=1)
    change(world)
    world.news()
    with pytest.raises(ChangeInFlight):
        change(world)
    assert world.news() == []
    world.plant_configs.finish(PLANT_ID)
    world.esm.state.change("esm-001", late_polls=0)
    assert answered(change(world))["result_code"] == "OK"


def test_of_two_changes_at_once_one_is_refused(world: World) -> None:
    world.script.before_save = [lambda: change(world, plan(block(pBatMax=5)))]
    with pytest.raises(ChangeInFlight):
        change(world)
    assert len(world.esm.updates) == 1


def test_another_plant_may_change_meanwhile(world: World) -> None:
    world.esm.state.change("esm-001", late_polls=1)
    change(world)
    other = world.plant_configs.change(ACME, Plant.create_id(ACME, "esm-002"), plan(), USER)
    assert answered(facts_in(event for _, event in other))["result_code"] == "OK"


# --- what can't be changed
@pytest.mark.parametrize("plant_id", [RIVAL, Plant.create_id(RIVAL, "esm-001")])
def test_a_plant_that_is_not_there_is_not_found(world: World, plant_id: UUID) -> None:
    refused(world, plant_id, PlantNotFound)


def test_another_organisations_plant_is_not_found(world: World) -> None:
    world.configure(world.rival())
    world.plants.sync(RIVAL)
    world.news()
    refused(world, Plant.create_id(RIVAL, "esm-001"), PlantNotFound)


def test_an_id_of_something_else_is_not_found(world: World) -> None:
    refused(world, ACME, PlantNotFound)


def test_a_plant_that_is_not_linked_is_refused(world: World) -> None:
    plant = world.plants.register(ACME, "esm-009", "By hand")
    world.news()
    refused(world, plant.id, PlantNotLinked)


def test_a_plant_of_an_organisation_without_partner_is_refused(world: World) -> None:
    world.change(esmClientSecret=None)
    world.news()
    refused(world, PLANT_ID, PlantEsmNotConfigured)


def refused(world: World, plant_id: UUID, error: type[WattledgerError]) -> None:
    """Neither read nor changed; nothing is asked, nothing recorded."""
    asked = world.esm.calls.total()
    with pytest.raises(error):
        world.plant_configs.current(ACME, plant_id)
    with pytest.raises(error):
        world.plant_configs.change(ACME, plant_id, plan(), USER)
    assert (world.news(), world.esm.calls.total()) == ([], asked)


# --- what is no plan
def body(*blocks: TimeBlock, **fields: object) -> dict[str, Any]:
    return {"timeConfigs": [each.as_json() for each in blocks], **fields}


@pytest.mark.parametrize("number", [0, 97])
def test_a_plan_has_1_to_96_blocks(number: int) -> None:
    with pytest.raises(ValidationError, match="timeConfigs"):
        PlantConfigChange.model_validate(body(*[block()] * number))


def test_a_plan_of_96_blocks() -> None:
    quarters = [f"{minute // 60:02}:{minute % 60:02}" for minute in range(0, 1441, 15)]
    blocks = [block(start, end) for start, end in pairwise(quarters)]
    assert len(PlantConfigChange.model_validate(body(*blocks)).time_configs) == 96


def test_a_plan_that_breaks_rules_says_which() -> None:
    with pytest.raises(Invalid) as refused:
        PlantConfigChange.model_validate(body(block("00:00", "06:00"), block("05:00", "24:00", socMin=95)))
    assert refused.value.details == {
        "errors": [
            "timeConfigs.1.socMin: must not exceed socMax",
            "timeConfigs.1.from: overlaps the block 00:00-06:00",
        ]
    }


@pytest.mark.parametrize("fields", [{"validateOnly": "yes"}, {"validateOnly": 1}, {"validateOnly": None}, {"force": 1}])
def test_other_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PlantConfigChange.model_validate(body(block(), **fields))
