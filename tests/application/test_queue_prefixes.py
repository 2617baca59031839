"""Queue prefixes over all organisations: claimed, released, claimed again; a slug stays its organisation's."""

import pytest

from domain.errors import Invalid, QueuePrefixTaken
from domain.queue_prefix import QueuePrefix
from tests.application.world import Crash, World, crash
from tests.examples import ACME, RIVAL, prefix_claimed, prefix_created, prefix_released, queue_prefix_changed


def holder(world: World, prefix: str) -> object:
    return world.events.load(QueuePrefix, QueuePrefix.create_id(prefix)).holder


def test_a_free_prefix_is_claimed_and_the_slug_kept(world: World) -> None:
    world.change(queuePrefix="acme-north")
    assert world.news() == [queue_prefix_changed(), prefix_created()]
    assert (holder(world, "acme"), holder(world, "acme-north")) == (ACME, ACME)


def test_null_goes_back_to_the_slug_and_releases(world: World) -> None:
    world.change(queuePrefix="acme-north")
    world.news()
    world.change(queuePrefix=None)
    assert world.news() == [queue_prefix_changed("acme"), prefix_released()]
    world.change(queuePrefix=None)
    assert world.news() == []


def test_the_own_slug_is_taken_back_by_its_name(world: World) -> None:
    world.change(queuePrefix="acme-north")
    world.news()
    world.change(queuePrefix="acme")
    assert world.news() == [queue_prefix_changed("acme"), prefix_released()]


def test_from_one_prefix_to_another(world: World) -> None:
    world.change(queuePrefix="acme-north")
    world.news()
    world.change(queuePrefix="acme-south")
    assert world.news() == [queue_prefix_changed("acme-south"), prefix_created(prefix="acme-south"), prefix_released()]


def test_a_released_prefix_can_be_claimed_again(world: World) -> None:
    world.change(queuePrefix="acme-north")
    world.change(queuePrefix=None)
    world.news()
    world.change(queuePrefix="acme-north")
    assert world.news() == [queue_prefix_changed(), prefix_claimed(ACME)]


def test_a_released_prefix_can_be_claimed_by_another(world: World) -> None:
    world.change(queuePrefix="north")
    world.change(queuePrefix=None)
    world.change(world.rival(), queuePrefix="north")
    assert holder(world, "north") == RIVAL
    with pytest.raises(QueuePrefixTaken):
        world.change(queuePrefix="north")


def test_a_prefix_that_another_holds_is_refused(world: World) -> None:
    world.change(world.rival(), queuePrefix="north")
    world.news()
    with pytest.raises(QueuePrefixTaken):
        world.change(queuePrefix="north", esmClientId="other")
    assert world.news() == []


def test_another_organisations_slug_is_refused_even_if_it_uses_another_prefix(world: World) -> None:
    world.rival()
    with pytest.raises(QueuePrefixTaken):
        world.change(queuePrefix="rival")
    world.change(RIVAL, queuePrefix="elsewhere")
    with pytest.raises(QueuePrefixTaken):
        world.change(queuePrefix="rival")
    assert holder(world, "rival") == RIVAL


def test_of_two_who_claim_at_once_one_is_refused(world: World) -> None:
    world.rival()
    world.script.before_save = [lambda: world.change(RIVAL, queuePrefix="north")]
    with pytest.raises(QueuePrefixTaken):
        world.change(queuePrefix="north")
    assert holder(world, "north") == RIVAL
    assert world.trading.load(ACME).queue_prefix == "acme"


def test_it_cannot_change_while_enabled(world: World) -> None:
    world.enable()
    for prefix in ("acme-north", "acme-south"):
        with pytest.raises(Invalid, match="can't change while trading is enabled"):
            world.change(queuePrefix=prefix)
    world.change(queuePrefix="acme")
    world.change(queuePrefix=None)  # it is the slug already
    assert world.news() == []


def test_null_is_refused_while_enabled_under_another_prefix(world: World) -> None:
    world.change(queuePrefix="acme-north")
    world.enable()
    with pytest.raises(Invalid, match="can't change while trading is enabled"):
        world.change(queuePrefix=None)
    assert world.queues("acme-north") == [True] * 7


def test_a_crash_leaves_config_and_prefixes_in_step(world: World) -> None:
    world.script.before_save = [crash]
    with pytest.raises(Crash):
        world.change(queuePrefix="acme-north")
    assert world.news() == []
    world.script.after_save = [crash]
    with pytest.raises(Crash):
        world.change(queuePrefix="acme-north")
    assert (world.trading.load(ACME).queue_prefix, holder(world, "acme-north")) == ("acme-north", ACME)
    world.news()
    world.change(queuePrefix="acme-north")
    assert world.news() == []
