"""An organisation's trading config: what changes it, and what it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from application.ports import Partner
from application.trading import CLIENT_SECRET, TradingConfigChange
from domain.errors import EsmUrlNotAllowed, Invalid, OrgMembershipRequired, PreconditionFailed
from domain.trading_config import TradingConfig
from tests.application.world import SECRET, Crash, World, crash
from tests.examples import (
    ACME,
    CLIENT,
    RIVAL,
    URL,
    credentials_cleared,
    credentials_set,
    partner_changed,
)


def test_a_config_exists_from_the_organisations_creation(world: World) -> None:
    config = world.trading.load(ACME)
    assert (config.status, config.queue_prefix, config.esm_api_url) == ("DISABLED", "acme", None)


def test_an_organisation_that_does_not_exist_has_no_member(world: World) -> None:
    for use_case in (world.trading.load, world.trading.enable, world.trading.disable):
        with pytest.raises(OrgMembershipRequired):
            use_case(RIVAL)
    with pytest.raises(OrgMembershipRequired):
        world.change(RIVAL, esmClientId=CLIENT)


# --- fields: absent, null, ""
def test_all_fields_at_once(world: World) -> None:
    world.change(esmApiUrl=URL, esmClientId=CLIENT, esmClientSecret=SECRET)
    assert world.news() == [partner_changed(), credentials_set(1)]


def test_absent_is_unchanged(world: World) -> None:
    world.configure()
    world.change()
    assert world.news() == []
    world.change(esmClientId="other")
    assert world.news() == [partner_changed(URL, "other")]


def test_the_same_again_records_nothing(world: World) -> None:
    world.configure()
    world.change(esmApiUrl=URL, esmClientId=CLIENT, esmClientSecret=SECRET, queuePrefix="acme")
    assert world.news() == []


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("esmApiUrl", partner_changed(None, CLIENT)),
        ("esmClientId", partner_changed(URL, None)),
        ("esmClientSecret", credentials_cleared()),
    ],
)
def test_null_clears(world: World, field: str, expected: object) -> None:
    world.configure()
    world.change(**{field: None})
    assert world.news() == [expected]
    world.change(**{field: None})
    assert world.news() == []


@pytest.mark.parametrize("field", ["esmApiUrl", "esmClientId", "esmClientSecret"])
def test_null_is_refused_while_enabled(world: World, field: str) -> None:
    world.enable()
    with pytest.raises(Invalid, match="can't be cleared while trading is enabled"):
        world.change(**{field: None})
    assert world.news() == []


@pytest.mark.parametrize("field", ["esmApiUrl", "esmClientId", "esmClientSecret", "queuePrefix"])
@pytest.mark.parametrize("value", ["", 5, True, ["x"], "a\nb", "a\0b"])
def test_what_no_field_may_be(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        TradingConfigChange.model_validate({field: value})


@pytest.mark.parametrize("prefix", ["a", "Acme", "acme.north", "-a", "a-", "a" * 51, "acme*", "acme#", "acmé"])
def test_a_queue_prefix_has_its_form(prefix: str) -> None:
    with pytest.raises(ValidationError):
        TradingConfigChange.model_validate({"queuePrefix": prefix})


@pytest.mark.parametrize("field", ["status", "hasEsmCredentials", "organizationId", "esm_url"])
def test_unknown_fields_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TradingConfigChange.model_validate({field: "x"})


def test_partner_and_secret_may_change_while_enabled(world: World) -> None:
    world.enable()
    world.change(esmApiUrl=f"{URL}/v2", esmClientSecret="another")
    assert world.news() == [partner_changed(f"{URL}/v2"), credentials_set(2)]


def test_a_refused_change_changes_nothing_at_all(world: World) -> None:
    world.enable()
    with pytest.raises(Invalid):
        world.change(esmClientId="other", esmClientSecret=None)
    with pytest.raises(Invalid):
        world.change(esmClientSecret="another", queuePrefix="elsewhere")
    assert world.news() == []
    assert set(world.secrets.secrets) == {(ACME, CLIENT_SECRET, 1)}


def test_a_url_that_we_would_not_call_is_refused(world: World) -> None:
    world.esm.refused_urls.add("https://169.254.169.254/")
    with pytest.raises(EsmUrlNotAllowed):
        world.change(esmApiUrl="https://169.254.169.254/", esmClientId=CLIENT)
    assert world.news() == []


def test_a_stale_version_is_refused(world: World) -> None:
    version = world.trading.load(ACME).version
    change = TradingConfigChange(esm_client_id=CLIENT)
    assert world.trading.change_config(ACME, change, if_version=version).version == version + 1
    world.news()
    with pytest.raises(PreconditionFailed):
        world.trading.change_config(ACME, TradingConfigChange(esm_client_id="other"), if_version=version)
    assert world.news() == []


def test_two_changes_at_once_are_both_made(world: World) -> None:
    world.script.before_save = [lambda: world.change(esmApiUrl=URL)]
    world.change(esmClientId=CLIENT)
    config = world.trading.load(ACME)
    assert (config.esm_api_url, config.esm_client_id) == (URL, CLIENT)


def test_of_two_changes_at_one_version_the_second_is_stale(world: World) -> None:
    world.script.before_save = [lambda: world.change(esmApiUrl=URL)]
    version = world.trading.load(ACME).version
    with pytest.raises(PreconditionFailed):
        world.trading.change_config(ACME, TradingConfigChange(esm_client_id=CLIENT), if_version=version)


# --- the secret
def test_the_secret_is_sealed_and_only_its_version_recorded(world: World) -> None:
    world.change(esmClientSecret=SECRET)
    assert world.news() == [credentials_set(1)]
    assert world.secrets.open(ACME, CLIENT_SECRET, 1) == SECRET


def test_the_same_secret_again_is_not_even_sealed(world: World) -> None:
    world.configure()
    world.change(esmClientSecret=SECRET)
    assert world.news() == []
    assert len(world.secrets.secrets) == 1


def test_the_same_secret_after_it_was_cleared_is_set_anew(world: World) -> None:
    world.configure()
    world.change(esmClientSecret=None)
    world.change(esmClientSecret=SECRET)
    assert world.news() == [credentials_cleared(), credentials_set(2)]


def test_the_secret_is_in_no_event_and_no_repr(world: World) -> None:
    world.enable()
    world.esm.down = True
    with pytest.raises(Exception, match="can't be reached"):
        world.plants.sync(ACME)
    assert SECRET.encode() not in world.stored_bytes()
    assert SECRET not in repr(TradingConfigChange(esm_client_secret=SECRET))
    assert SECRET not in repr(world.trading.load(ACME))
    assert SECRET not in repr(world.trading.partner(world.trading.load(ACME)))


def test_the_partner_is_whom_to_call_and_as_whom(world: World) -> None:
    world.configure()
    assert world.trading.partner(world.trading.load(ACME)) == Partner(ACME, URL, CLIENT, SECRET)


@pytest.mark.parametrize("missing", ["esmApiUrl", "esmClientId", "esmClientSecret"])
def test_there_is_no_partner_while_something_is_missing(world: World, missing: str) -> None:
    world.configure()
    world.change(**{missing: None})
    assert world.trading.partner(world.trading.load(ACME)) is None


def test_a_forgotten_secret_leaves_no_partner_and_can_be_set_anew(world: World) -> None:
    world.enable()
    world.secrets.secrets.clear()
    assert world.trading.partner(world.trading.load(ACME)) is None
    world.change(esmClientSecret=SECRET)
    assert world.news() == [credentials_set(2)]
    assert world.trading.partner(world.trading.load(ACME)) == Partner(ACME, URL, CLIENT, SECRET)


def test_every_change_answers_what_it_saved(world: World) -> None:
    fields: dict[str, Any] = {"esmApiUrl": URL, "esmClientId": CLIENT, "esmClientSecret": SECRET}
    changed = world.trading.change_config(ACME, TradingConfigChange.model_validate(fields))
    assert vars(changed) == vars(world.events.load(TradingConfig, changed.id))


def test_a_secret_that_was_replaced_is_forgotten(world: World) -> None:
    world.configure()
    world.change(esmClientSecret="another")
    assert world.secrets.secrets == {(ACME, CLIENT_SECRET, 2): "another"}
    world.change(esmClientId="other")
    assert world.secrets.secrets == {(ACME, CLIENT_SECRET, 2): "another"}


def test_a_secret_that_was_cleared_is_forgotten(world: World) -> None:
    world.configure()
    world.change(esmClientSecret=None)
    assert world.secrets.secrets == {}


@pytest.mark.parametrize("when", ["before_save", "after_save"])
def test_a_secret_is_forgotten_only_when_nothing_names_it(world: World, when: str) -> None:
    world.configure()
    setattr(world.script, when, [crash])
    with pytest.raises(Crash):
        world.change(esmClientSecret="another")
    partner = world.trading.partner(world.trading.load(ACME))
    assert partner is not None
    assert partner.client_secret == (SECRET if when == "before_save" else "another")


def test_a_change_that_is_overtaken_forgets_no_secret_of_the_other_one(world: World) -> None:
    world.configure()
    world.script.before_save = [lambda: world.change(esmClientSecret="the-other-one")]
    world.change(esmClientSecret="mine-after-all")
    partner = world.trading.partner(world.trading.load(ACME))
    assert partner is not None
    assert partner.client_secret == "mine-after-all"
    assert list(world.secrets.secrets.values()) == ["mine-after-all"]


def test_a_secret_that_is_replaced_under_a_readers_hands_is_no_forgotten_one(world: World) -> None:
    world.configure()
    loaded = world.trading.load(ACME)
    world.change(esmClientSecret="another")
    assert world.trading.partner(loaded) == Partner(ACME, URL, CLIENT, "another")
    loaded = world.trading.load(ACME)
    world.change(esmClientSecret=None)
    assert world.trading.partner(loaded) is None
