"""Plants that the ESM lists no more, and those that come back."""

import pytest

from domain.errors import EsmUnreachable
from tests.application.test_plants import GONE, kinds, syncs
from tests.application.world import World
from tests.examples import ACME, linked, missed, seen_again, synced, unlinked


def test_a_plant_that_is_gone_from_three_lists_is_unlinked(world: World) -> None:
    world.sync()
    seen = world.turns.last_success(ACME)
    world.esm.state.remove(GONE)
    world.plants.sync(ACME)
    assert world.news() == [missed(seen), synced(2)]
    syncs(world, 1)
    assert kinds(world.news()) == ["Plant.Missed"]
    assert world.plant(GONE).linked
    syncs(world, 1)
    assert kinds(world.news()) == ["Plant.Missed", "Plant.Unlinked"]
    assert not world.plant(GONE).linked


def test_an_unlinked_plant_is_missed_no_more(world: World) -> None:
    world.sync()
    world.esm.state.remove(GONE)
    syncs(world, 3)
    world.news()
    syncs(world, 2)
    assert world.news() == []


def test_a_plant_that_comes_back_in_time_is_seen_again(world: World) -> None:
    world.sync()
    plant = world.esm.state.get(GONE)
    world.esm.state.remove(GONE)
    syncs(world, 2)
    world.esm.state.put(plant)
    world.news()
    syncs(world, 1)
    assert world.news() == [seen_again(), synced(3)]
    world.esm.state.remove(GONE)
    syncs(world, 2)
    assert world.plant(GONE).linked


def test_a_plant_that_comes_back_later_is_linked_again_and_keeps_its_history(world: World) -> None:
    world.sync()
    plant = world.esm.state.get(GONE)
    world.esm.state.remove(GONE)
    syncs(world, 3)
    before = world.plant(GONE)
    assert unlinked() in world.news()
    world.esm.state.put(plant)
    syncs(world, 1)
    assert world.news() == [linked(), synced(3)]
    assert (world.plant(GONE).id, world.plant(GONE).version) == (before.id, before.version + 1)


def test_a_list_that_cannot_be_fetched_misses_no_plant(world: World) -> None:
    world.sync()
    world.esm.down = True
    for _ in range(4):
        with pytest.raises(EsmUnreachable):
            world.plants.sync(ACME)
    assert len(world.linked_plants(ACME)) == 3


def test_a_plant_that_is_listed_but_cannot_be_read_is_not_gone(world: World) -> None:
    world.sync()
    world.esm.state.remove(GONE)
    world.esm.unread = frozenset({GONE})
    syncs(world, 3)
    assert world.plant(GONE).linked
    world.esm.unread = frozenset()
    syncs(world, 3)
    assert not world.plant(GONE).linked
