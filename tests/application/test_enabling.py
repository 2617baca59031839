"""Enable declares, then records; disable records, then deletes: a crash or a broken broker anywhere is mended."""

import pytest

from domain.errors import BrokerUnreachable, TradingConfigIncomplete
from domain.topology import queues
from tests.application.world import Crash, World, crash
from tests.examples import ACME, RIVAL, credentials_set, disabled, enabled

ALL, NONE = [True] * 7, [False] * 7


def test_enabling_declares_and_records(world: World) -> None:
    world.configure()
    assert world.trading.enable(ACME).status == "ENABLED"
    assert world.queues() == ALL
    assert world.news() == [enabled()]


def test_enabling_uses_the_queue_prefix(world: World) -> None:
    world.change(queuePrefix="acme-north")
    world.enable()
    assert (world.queues("acme-north"), world.queues("acme")) == (ALL, NONE)


@pytest.mark.parametrize("missing", ["esmApiUrl", "esmClientId", "esmClientSecret"])
def test_an_incomplete_config_declares_and_records_nothing(world: World, missing: str) -> None:
    world.configure()
    world.change(**{missing: None})
    world.news()
    with pytest.raises(TradingConfigIncomplete):
        world.trading.enable(ACME)
    assert (world.queues(), world.news()) == (NONE, [])


def test_enabling_twice_records_nothing_and_mends_the_queues(world: World) -> None:
    world.enable()
    world.broker.delete([queues("acme")[0].name, queues("acme")[5].name])
    assert world.trading.enable(ACME).is_enabled
    assert (world.queues(), world.news()) == (ALL, [])


def test_enabling_without_a_broker_records_nothing_until_it_is_back(world: World) -> None:
    world.configure()
    world.broker.down = True
    with pytest.raises(BrokerUnreachable):
        world.trading.enable(ACME)
    assert (world.trading.load(ACME).status, world.news()) == ("DISABLED", [])
    world.broker.down = False
    world.trading.enable(ACME)
    assert (world.queues(), world.news()) == (ALL, [enabled()])


def test_enabling_again_without_a_broker_is_told(world: World) -> None:
    world.enable()
    world.broker.down = True
    with pytest.raises(BrokerUnreachable):
        world.trading.enable(ACME)
    assert world.trading.load(ACME).is_enabled


def test_a_crash_after_declaring_records_nothing_and_the_next_try_enables(world: World) -> None:
    world.configure()
    world.broker.crash_after = True
    with pytest.raises(Crash):
        world.trading.enable(ACME)
    assert (world.queues(), world.news()) == (ALL, [])
    world.trading.enable(ACME)
    assert (world.queues(), world.news()) == (ALL, [enabled()])


def test_a_crash_before_recording_is_mended_by_disabling_too(world: World) -> None:
    world.configure()
    world.script.before_save = [crash]
    with pytest.raises(Crash):
        world.trading.enable(ACME)
    world.trading.disable(ACME)
    assert (world.queues(), world.news()) == (NONE, [])


def test_a_crash_after_recording_has_enabled(world: World) -> None:
    world.configure()
    world.script.after_save = [crash]
    with pytest.raises(Crash):
        world.trading.enable(ACME)
    assert (world.queues(), world.news()) == (ALL, [enabled()])


def test_enabling_while_another_changes_the_config(world: World) -> None:
    world.configure()
    world.script.before_save = [lambda: world.change(esmClientSecret="another")]
    world.trading.enable(ACME)
    assert world.news() == [credentials_set(2), enabled()]


def test_a_config_that_is_emptied_meanwhile_is_not_enabled(world: World) -> None:
    world.configure()
    world.script.before_save = [lambda: world.change(esmClientSecret=None)]
    with pytest.raises(TradingConfigIncomplete):
        world.trading.enable(ACME)
    assert world.trading.load(ACME).status == "DISABLED"


# --- disable
def test_disabling_records_and_deletes(world: World) -> None:
    world.enable()
    assert world.trading.disable(ACME).status == "DISABLED"
    assert (world.queues(), world.news()) == (NONE, [disabled()])


def test_disabling_keeps_config_and_credentials(world: World) -> None:
    world.enable()
    world.trading.disable(ACME)
    assert world.trading.load(ACME).is_complete
    assert world.trading.enable(ACME).is_enabled


def test_disabling_deletes_exactly_its_own_queues(world: World) -> None:
    world.enable()
    world.configure(world.rival())
    world.trading.enable(RIVAL)
    world.trading.disable(ACME)
    assert (world.queues("acme"), world.queues("rival")) == (NONE, ALL)


def test_disabling_what_is_disabled_records_nothing_and_mends_the_queues(world: World) -> None:
    world.trading.disable(ACME)
    world.enable()
    world.broker.down = True
    with pytest.raises(BrokerUnreachable):
        world.trading.disable(ACME)
    world.broker.down = False
    assert (world.queues(), world.news()) == (ALL, [disabled()])
    world.trading.disable(ACME)
    assert (world.queues(), world.news()) == (NONE, [])


def test_a_crash_before_recording_leaves_trading_as_it_was(world: World) -> None:
    world.enable()
    world.script.before_save = [crash]
    with pytest.raises(Crash):
        world.trading.disable(ACME)
    assert (world.queues(), world.news()) == (ALL, [])


def test_a_crash_before_deleting_is_mended_by_the_next_try(world: World) -> None:
    world.enable()
    world.script.after_save = [crash]
    with pytest.raises(Crash):
        world.trading.disable(ACME)
    assert (world.queues(), world.news()) == (ALL, [disabled()])
    world.trading.disable(ACME)
    assert (world.queues(), world.news()) == (NONE, [])


def test_a_crash_after_deleting_has_disabled(world: World) -> None:
    world.enable()
    world.broker.crash_after = True
    with pytest.raises(Crash):
        world.trading.disable(ACME)
    assert (world.queues(), world.news()) == (NONE, [disabled()])
