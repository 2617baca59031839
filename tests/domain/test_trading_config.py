"""An organisation's trading configuration."""

import pytest

from domain.errors import Invalid, OrgMembershipRequired, TradingConfigIncomplete
from domain.trading_config import TradingConfig
from tests.examples import (
    ACME,
    CLIENT,
    URL,
    config_closed,
    created,
    credentials_cleared,
    credentials_set,
    disabled,
    enabled,
    partner_changed,
    queue_prefix_changed,
    sync_failed,
    synced,
)
from tests.given import Fact, facts_of, given

COMPLETE = (created(), partner_changed(), credentials_set())
ENABLED = (*COMPLETE, enabled())
CLEARED = "can't be cleared while trading is enabled"


def test_a_new_config_is_disabled_and_empty() -> None:
    assert facts_of(TradingConfig(ACME, "acme")) == [created()]
    config = given(created()).state()
    assert (config.status, config.queue_prefix) == ("DISABLED", "acme")
    assert (config.esm_api_url, config.esm_client_id, config.has_esm_credentials) == (None, None, False)
    assert config.last_sync_error is None


def test_an_organisation_has_one_config() -> None:
    assert TradingConfig(ACME, "acme").id == TradingConfig(ACME, "other").id == TradingConfig.create_id(ACME)


# --- partner
def test_the_partner_changes() -> None:
    given(created()).when(TradingConfig.change_partner, URL, CLIENT).then(partner_changed())
    given(*ENABLED).when(TradingConfig.change_partner, URL, "other").then(partner_changed(URL, "other"))


def test_the_same_partner_records_nothing() -> None:
    given(*COMPLETE).when(TradingConfig.change_partner, URL, CLIENT).then()
    given(created()).when(TradingConfig.change_partner, None, None).then()


@pytest.mark.parametrize(("url", "client_id"), [(None, CLIENT), (URL, None), (None, None)])
def test_the_partner_can_be_cleared_only_while_disabled(url: str | None, client_id: str | None) -> None:
    cleared = partner_changed(url, client_id)
    given(*COMPLETE).when(TradingConfig.change_partner, url, client_id).then(cleared)
    given(*ENABLED, disabled()).when(TradingConfig.change_partner, url, client_id).then(cleared)
    given(*ENABLED).when(TradingConfig.change_partner, url, client_id).refuses(Invalid, CLEARED)


# --- credentials
def test_credentials_are_set() -> None:
    given(created()).when(TradingConfig.set_credentials, 1).then(credentials_set(1))
    given(*ENABLED).when(TradingConfig.set_credentials, 2).then(credentials_set(2))


def test_the_same_credentials_record_nothing() -> None:
    given(*COMPLETE).when(TradingConfig.set_credentials, 1).then()


def test_credentials_are_cleared_only_while_disabled() -> None:
    given(*COMPLETE).when(TradingConfig.clear_credentials).then(credentials_cleared())
    given(*ENABLED).when(TradingConfig.clear_credentials).refuses(Invalid, CLEARED)


def test_clearing_no_credentials_records_nothing() -> None:
    given(created()).when(TradingConfig.clear_credentials).then()
    given(*COMPLETE, credentials_cleared()).when(TradingConfig.clear_credentials).then()


@pytest.mark.parametrize(
    ("facts", "has"),
    [
        ((partner_changed(),), False),
        ((credentials_set(),), False),
        ((partner_changed(None, CLIENT), credentials_set()), True),
        ((partner_changed(), credentials_set(), credentials_cleared()), False),
    ],
)
def test_credentials_are_id_and_secret(facts: tuple[Fact, ...], has: bool) -> None:
    assert given(created(), *facts).state().has_esm_credentials is has


# --- queue prefix
def test_the_queue_prefix_changes() -> None:
    given(created()).when(TradingConfig.change_queue_prefix, "acme-north").then(queue_prefix_changed())


def test_the_same_queue_prefix_records_nothing() -> None:
    given(created()).when(TradingConfig.change_queue_prefix, "acme").then()
    given(*ENABLED).when(TradingConfig.change_queue_prefix, "acme").then()


def test_the_queue_prefix_cannot_change_while_enabled() -> None:
    given(*ENABLED).when(TradingConfig.change_queue_prefix, "acme-north").refuses(Invalid, "while trading is enabled")
    given(*ENABLED, disabled()).when(TradingConfig.change_queue_prefix, "acme-north").then(queue_prefix_changed())


# --- enable, disable
def test_enabling_a_complete_config() -> None:
    given(*COMPLETE).when(TradingConfig.enable).then(enabled())
    given(*ENABLED, disabled()).when(TradingConfig.enable).then(enabled())


@pytest.mark.parametrize(
    "facts",
    [
        (),
        (partner_changed(),),
        (credentials_set(),),
        (partner_changed(None, CLIENT), credentials_set()),
        (partner_changed(URL, None), credentials_set()),
        (partner_changed(), credentials_set(), credentials_cleared()),
    ],
)
def test_enabling_needs_url_client_id_and_secret(facts: tuple[Fact, ...]) -> None:
    given(created(), *facts).when(TradingConfig.enable).refuses(TradingConfigIncomplete)


def test_enabling_twice_records_nothing() -> None:
    given(*ENABLED).when(TradingConfig.enable).then()


def test_disabling() -> None:
    given(*ENABLED).when(TradingConfig.disable).then(disabled())


def test_disabling_what_is_disabled_records_nothing() -> None:
    given(created()).when(TradingConfig.disable).then()
    given(*ENABLED, disabled()).when(TradingConfig.disable).then()


def test_disabling_keeps_config_and_credentials() -> None:
    config = given(*ENABLED, disabled()).state()
    assert (config.esm_api_url, config.esm_client_id, config.secret_version) == (URL, CLIENT, 1)


# --- syncs
def test_a_sync_is_recorded() -> None:
    given(created()).when(TradingConfig.record_sync, 3, []).then(synced())


def test_a_sync_that_went_like_the_one_before_records_nothing() -> None:
    given(created(), synced()).when(TradingConfig.record_sync, 3, []).then()


@pytest.mark.parametrize(("count", "errors"), [(4, ()), (3, ("Plant 2 of the list is malformed: name",))])
def test_a_sync_that_went_otherwise_is_recorded(count: int, errors: tuple[str, ...]) -> None:
    given(created(), synced()).when(TradingConfig.record_sync, count, list(errors)).then(synced(count, errors))


def test_the_first_sync_after_a_failure_is_recorded() -> None:
    given(created(), synced(), sync_failed()).when(TradingConfig.record_sync, 3, []).then(synced())
    assert given(created(), sync_failed(), synced()).state().last_sync_error is None


def test_a_failed_sync_is_recorded_once_for_each_cause() -> None:
    failed = given(created(), sync_failed("down"))
    assert failed.state().last_sync_error == "down"
    failed.when(TradingConfig.record_sync_failure, "down").then()
    failed.when(TradingConfig.record_sync_failure, "ESM answered 500").then(sync_failed("ESM answered 500"))
    given(created(), sync_failed("down"), synced()).when(TradingConfig.record_sync_failure, "down").then(
        sync_failed("down")
    )


# --- close
def test_closing_disables_and_takes_the_partner_away() -> None:
    given(*ENABLED).when(TradingConfig.close).then(disabled(), config_closed())
    given(created()).when(TradingConfig.close).then(config_closed())
    config = given(*ENABLED, disabled(), config_closed()).state()
    assert (config.esm_api_url, config.esm_client_id, config.secret_version) == (None, None, None)
    assert not config.is_enabled


def test_closing_twice_records_nothing() -> None:
    given(*COMPLETE, config_closed()).when(TradingConfig.close).then()


def test_what_is_closed_does_not_change() -> None:
    for command, arguments in (
        (TradingConfig.change_partner, (URL, CLIENT)),
        (TradingConfig.set_credentials, (2,)),
        (TradingConfig.change_queue_prefix, ("other",)),
        (TradingConfig.enable, ()),
    ):
        given(*COMPLETE, config_closed()).when(command, *arguments).refuses(OrgMembershipRequired)
