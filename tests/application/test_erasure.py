"""Erasing an organisation: nobody acts for it any more, and a crash at any step is mended by the next try."""

from collections.abc import Callable
from uuid import UUID

import pytest

from application.erasure import Erasure
from application.plant_configs import PlantConfigChange
from domain.errors import AlreadyExists, NotFound, OrgMembershipRequired
from domain.organisation import Organisation
from domain.trading_config import TradingConfig
from tests.application.world import SECRET, Crash, World, crash
from tests.examples import ACME, RIVAL, USER, block, closed, config_closed, disabled, erased, key_revoked
from tests.given import Fact

NONE = [False] * 7

Crashes = Callable[[World, list[Callable[[], None]]], None]
CRASHES: dict[str, Crashes] = {
    "before it is closed": lambda world, _: world.script.before_save.append(crash),
    "when it is closed": lambda world, _: world.script.after_save.append(crash),
    "when its keys are destroyed": lambda _, forgetting: forgetting.append(crash),
    "when its traces are forgotten": lambda world, _: world.script.before_save.extend([None, crash]),
    "when that is recorded": lambda world, _: world.script.after_save.extend([None, crash]),
    "when its queues are deleted": lambda world, _: setattr(world.broker, "crash_after", True),
}


def erasure(world: World, forgetting: list[Callable[[], None]] | None = None) -> Erasure:
    def forget(_: UUID) -> None:
        for step in forgetting or ():
            step()

    return Erasure(world.events, world.broker, world.secrets, forget)


def trading_with_a_key(world: World) -> list[Fact]:
    """What its erasure records."""
    world.enable()
    key = world.organisations.mint_key(ACME, "partner", ["trading:connect"])
    world.news()
    return [key_revoked(key.id), closed(), disabled(), config_closed(), erased()]


def test_it_is_recorded_before_and_after_all_is_destroyed(world: World) -> None:
    expected = trading_with_a_key(world)
    assert erasure(world).erase(ACME)
    assert world.news() == expected
    assert (world.queues(), world.secrets.secrets, world.secrets.erased) == (NONE, {}, {ACME})


def test_erasing_twice_records_nothing(world: World) -> None:
    trading_with_a_key(world)
    erasure(world).erase(ACME)
    world.news()
    assert erasure(world).erase(ACME)
    assert world.news() == []


@pytest.mark.parametrize("when", CRASHES)
def test_a_crash_is_mended_by_the_next_try(world: World, when: str) -> None:
    expected = trading_with_a_key(world)
    forgetting: list[Callable[[], None]] = []
    CRASHES[when](world, forgetting)
    with pytest.raises(Crash):
        erasure(world, forgetting).erase(ACME)
    before = world.news()
    assert (erased() in before) is (when in ("when that is recorded", "when its queues are deleted"))
    assert erasure(world).erase(ACME)
    assert before + world.news() == expected
    assert (world.queues(), world.secrets.secrets, world.secrets.erased) == (NONE, {}, {ACME})


def test_without_a_broker_all_but_the_queues_is_done(world: World) -> None:
    expected = trading_with_a_key(world)
    world.broker.down = True
    assert not erasure(world).erase(ACME)
    assert (world.news(), world.secrets.erased) == (expected, {ACME})
    world.broker.down = False
    assert erasure(world).erase(ACME)
    assert world.queues() == NONE


def test_an_enable_that_comes_in_between_is_seen(world: World) -> None:
    """Whoever was first: it ends closed."""
    world.configure()
    world.script.before_save = [lambda: world.trading.enable(ACME)]
    erasure(world).erase(ACME)
    config = world.events.load(TradingConfig, TradingConfig.create_id(ACME))
    assert (config.closed, config.is_enabled) == (True, False)
    assert disabled() in world.news()


def test_nobody_acts_for_it_any_more(world: World) -> None:
    world.sync()
    world.trading.enable(ACME)
    plant = world.plant()
    erasure(world).erase(ACME)
    world.news()
    change = PlantConfigChange(time_configs=[block()])
    for act in (
        lambda: world.change(esmClientSecret=SECRET),
        lambda: world.trading.enable(ACME),
        lambda: world.trading.disable(ACME),
        lambda: world.plants.sync(ACME),
        lambda: world.plants.register(ACME, "P9", "new"),
        lambda: world.plant_configs.change(ACME, plant.id, change, USER),
        lambda: world.organisations.mint_key(ACME, "new", ["trading:read"]),
    ):
        with pytest.raises(OrgMembershipRequired):
            act()
    assert (world.news(), world.queues()) == ([], NONE)


def test_its_slug_stays_its_own_and_others_go_on(world: World) -> None:
    world.rival()
    erasure(world).erase(ACME)
    with pytest.raises(AlreadyExists):
        world.organisations.create("acme", organization_id=UUID(int=9))
    world.configure(RIVAL)
    assert world.trading.enable(RIVAL).is_enabled
    assert world.events.load(Organisation, RIVAL).closed is False


def test_who_is_unknown_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        Erasure(world.events, world.broker, world.secrets, lambda _: None).erase(RIVAL)
