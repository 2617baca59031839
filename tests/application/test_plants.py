"""Plant syncs: what differs is recorded, nothing else."""

from typing import Any

import pytest

from domain.errors import EsmNotConfigured, EsmUnreachable, OrgMembershipRequired
from domain.plant import Plant, PlantDescription
from infra.sandbox.esm_plants import believable_plants
from tests.application.world import Crash, World, crash
from tests.examples import (
    ACME,
    RIVAL,
    described,
    linked,
    registered,
    sync_failed,
    synced,
)
from tests.fakes import FakeEsm
from tests.given import Fact

GONE = "esm-003"


def listed(world: World, external_plant_id: str = "esm-001") -> PlantDescription:
    """A plant as the ESM describes it."""
    plant = world.esm.state.get(external_plant_id).listed()
    fields: dict[str, Any] = {name: value for name, value in vars(plant).items() if name != "plant_id"}
    return PlantDescription(**fields)


def kinds(facts: list[Fact]) -> list[str]:
    return [each.event_class.__qualname__ for each in facts]


def syncs(world: World, times: int) -> None:
    for _ in range(times):
        world.plants.sync(ACME)


# --- what is listed
def test_listed_plants_are_registered_linked_and_described(world: World) -> None:
    world.configure()
    result = world.plants.sync(ACME)
    assert (result.synced, result.errors) == (3, 0)
    news = world.news()
    assert news[:3] == [registered(), linked(), described(listed(world))]
    assert kinds(news) == ["Plant.Created", "Plant.Linked", "Plant.Described"] * 3 + ["TradingConfig.Synced"]
    assert news[-1] == synced(3)
    assert world.plant().id == Plant.create_id(ACME, "esm-001")


def test_an_unchanged_list_records_nothing_at_all(world: World) -> None:
    world.sync()
    saves = world.events.saves
    assert world.plants.sync(ACME).synced == 3
    assert (world.news(), world.events.saves) == ([], saves)
    assert world.turns.last_success(ACME) is not None


def test_only_what_changed_is_recorded(world: World) -> None:
    world.sync()
    world.esm.state.change("esm-001", name="Renamed", config_enabled=False)
    world.plants.sync(ACME)
    assert world.news() == [described(listed(world))]


def test_a_plant_that_was_registered_by_hand_is_linked(world: World) -> None:
    world.configure()
    plant = world.plants.register(ACME, "esm-001", "Brno depot")
    assert world.news() == [registered()]
    assert not plant.linked
    world.plants.register(ACME, "esm-001", "Other")
    assert world.news() == []
    world.plants.sync(ACME)
    assert world.news()[:2] == [linked(), described(listed(world))]


def test_plants_are_registered_only_for_an_organisation_that_exists(world: World) -> None:
    with pytest.raises(OrgMembershipRequired):
        world.plants.register(RIVAL, "esm-001", "Brno depot")


def test_500_plants_are_recorded_in_few_saves(world: World) -> None:
    world.esm.state = FakeEsm(believable_plants(500)).state
    world.configure()
    saves = world.events.saves
    assert world.plants.sync(ACME).synced == 500
    assert world.events.saves - saves == 6
    assert len(world.linked_plants(ACME)) == 500
    world.news()
    syncs(world, 1)
    assert (world.news(), world.events.saves - saves) == ([], 6)


def test_the_same_esm_has_other_plants_for_another_organisation(world: World) -> None:
    world.sync()
    world.configure(world.rival())
    world.plants.sync(RIVAL)
    assert not set(world.linked_plants(ACME)) & set(world.linked_plants(RIVAL))
    world.news()
    syncs(world, 1)
    assert world.news() == []


# --- errors
def test_plants_that_cannot_be_read_are_counted_and_told(world: World) -> None:
    world.configure()
    world.esm.errors = (
        "Plant 4 of the list is malformed: name",
        "Plant 5 of the list repeats the id of an earlier one",
    )
    result = world.plants.sync(ACME)
    assert (result.synced, result.errors) == (3, 2)
    assert world.news()[-1] == synced(3, world.esm.errors)
    syncs(world, 1)
    assert world.news() == []
    world.esm.errors = ()
    syncs(world, 1)
    assert world.news() == [synced(3)]


def test_a_list_that_cannot_be_fetched_is_told_once(world: World) -> None:
    world.sync()
    world.esm.fail("plants", EsmUnreachable("ESM answered 500 to the plant list"), times=2)
    for _ in range(2):
        with pytest.raises(EsmUnreachable, match="ESM answered 500"):
            world.plants.sync(ACME)
    assert world.news() == [sync_failed("ESM answered 500 to the plant list")]
    assert world.trading.load(ACME).last_sync_error == "ESM answered 500 to the plant list"
    assert world.turns.failures[ACME] == 2


def test_the_first_sync_after_a_failure_clears_the_error(world: World) -> None:
    world.sync()
    world.esm.fail("plants")
    with pytest.raises(EsmUnreachable):
        world.plants.sync(ACME)
    world.news()
    world.plants.sync(ACME)
    assert world.news() == [synced(3)]
    assert world.trading.load(ACME).last_sync_error is None
    assert world.turns.failures[ACME] == 0


@pytest.mark.parametrize("missing", ["esmApiUrl", "esmClientId", "esmClientSecret"])
def test_without_a_complete_config_nothing_is_asked(world: World, missing: str) -> None:
    world.configure()
    world.change(**{missing: None})
    world.news()
    with pytest.raises(EsmNotConfigured):
        world.plants.sync(ACME)
    assert (world.news(), world.esm.calls["plants"], world.turns.failures[ACME]) == ([], 0, 0)


def test_an_organisation_that_does_not_exist_has_no_plants(world: World) -> None:
    with pytest.raises(OrgMembershipRequired):
        world.plants.sync(RIVAL)


def test_a_sync_needs_no_enabled_trading(world: World) -> None:
    world.enable()
    world.trading.disable(ACME)
    assert world.plants.sync(ACME).synced == 3


# --- turns and crashes
def test_the_turn_is_given_back_whatever_happens(world: World) -> None:
    world.configure()
    world.script.before_save = [crash]
    with pytest.raises(Crash):
        world.plants.sync(ACME)
    assert not world.turns.taken


@pytest.mark.parametrize("save", range(3))
@pytest.mark.parametrize("when", ["before_save", "after_save"])
def test_a_crash_anywhere_is_mended_by_the_next_sync(world: World, save: int, when: str) -> None:
    world.esm.state = FakeEsm(believable_plants(150)).state
    world.configure()
    setattr(world.script, when, [*[None] * save, crash])
    with pytest.raises(Crash):
        world.plants.sync(ACME)
    assert world.turns.last_success(ACME) is None
    world.plants.sync(ACME)
    assert kinds(world.news()).count("Plant.Created") == len(world.linked_plants(ACME)) == 150
    syncs(world, 1)
    assert world.news() == []


def test_a_plant_that_another_registers_meanwhile_is_linked_all_the_same(world: World) -> None:
    world.configure()
    world.script.before_save = [lambda: world.plants.register(ACME, "esm-001", "By hand")]
    assert world.plants.sync(ACME).synced == 3
    assert world.plant().linked
    assert world.plant().description == listed(world)


def test_a_config_that_changes_meanwhile_keeps_both(world: World) -> None:
    world.configure()
    world.script.before_save = [None, lambda: world.change(esmClientId="other")]
    world.plants.sync(ACME)
    config = world.trading.load(ACME)
    assert (config.esm_client_id, config.last_sync) == ("other", (3, []))


# --- a secret that was forgotten
def test_a_forgotten_secret_is_told_once_and_waits(world: World) -> None:
    world.sync()
    world.secrets.secrets.clear()
    for failures in (1, 2):
        with pytest.raises(EsmNotConfigured):
            world.plants.sync(ACME)
        assert world.turns.failures[ACME] == failures
    assert world.news() == [sync_failed("The ESM client secret was forgotten: set it anew")]
    world.change(esmClientSecret="fresh-secret")
    world.news()
    world.plants.sync(ACME)
    assert world.news() == [synced(3)]


def test_whatever_goes_wrong_waits(world: World) -> None:
    world.sync()
    world.script.before_save = [crash]
    world.esm.state.remove(GONE)
    with pytest.raises(Crash):
        world.plants.sync(ACME)
    assert (world.turns.failures[ACME], world.turns.taken) == (1, set())
