"""An organisation and its API keys."""

from datetime import timedelta
from typing import Any

import pytest

from domain.errors import Invalid, NotFound, OrgMembershipRequired
from domain.organisation import SCOPES, SLUG, Organisation
from tests.examples import EXPIRY, KEY, RIVAL, closed, erased, key_minted, key_revoked, organisation_created
from tests.given import facts_of, given

MINT: dict[str, Any] = key_minted().says
MOMENT = timedelta(microseconds=1)


def test_an_organisation_is_created() -> None:
    assert facts_of(Organisation("acme", "Acme Energy")) == [organisation_created()]


def test_its_id_follows_from_its_slug() -> None:
    assert Organisation("acme", "Acme").id == Organisation("acme", "Other").id == Organisation.create_id("acme")
    assert Organisation.create_id("acme") != Organisation.create_id("acme-2")


def test_a_key_is_minted() -> None:
    given(organisation_created()).when(Organisation.mint_key, **MINT).then(key_minted())


def test_a_keys_scopes_are_a_sorted_set() -> None:
    scopes = ["trading:write", "trading:read", "trading:write"]
    minted = key_minted(scopes=("trading:read", "trading:write"))
    given(organisation_created()).when(Organisation.mint_key, **MINT | {"scopes": scopes}).then(minted)


@pytest.mark.parametrize("scopes", [[], ["trading:root"], ["trading:read", ""], ["TRADING:READ"]])
def test_a_key_needs_scopes_that_we_know(scopes: list[str]) -> None:
    says_which = "|".join(SCOPES)
    given(organisation_created()).when(Organisation.mint_key, **MINT | {"scopes": scopes}).refuses(Invalid, says_which)


def test_minting_a_key_twice_records_nothing() -> None:
    given(organisation_created(), key_minted()).when(Organisation.mint_key, **MINT).then()
    given(organisation_created(), key_minted(), key_revoked()).when(Organisation.mint_key, **MINT).then()


def test_a_key_is_revoked() -> None:
    given(organisation_created(), key_minted()).when(Organisation.revoke_key, KEY).then(key_revoked())


def test_revoking_a_key_twice_records_nothing() -> None:
    given(organisation_created(), key_minted(), key_revoked()).when(Organisation.revoke_key, KEY).then()


def test_an_unknown_key_cannot_be_revoked() -> None:
    given(organisation_created(), key_minted()).when(Organisation.revoke_key, RIVAL).refuses(
        NotFound, "No such API key"
    )


def test_a_key_is_valid_until_it_expires() -> None:
    key = given(organisation_created(), key_minted()).state().keys[KEY]
    assert key.is_valid(EXPIRY - MOMENT)
    assert not key.is_valid(EXPIRY)


def test_a_key_without_an_expiry_stays_valid_until_it_is_revoked() -> None:
    minted = key_minted(expires_at=None)
    assert given(organisation_created(), minted).state().keys[KEY].is_valid(EXPIRY)
    assert not given(organisation_created(), minted, key_revoked()).state().keys[KEY].is_valid(EXPIRY)


def test_commands_are_signed_by_valid_keys_that_may_connect() -> None:
    other = key_minted(RIVAL, scopes=("trading:read",))
    organisation = given(organisation_created(), key_minted(), other).state()
    assert [key.id for key in organisation.signing_keys(EXPIRY - MOMENT)] == [KEY]
    assert organisation.signing_keys(EXPIRY) == []


def test_closing_revokes_its_keys_and_there_will_be_no_others() -> None:
    other, both = key_minted(RIVAL), (organisation_created(), key_minted(), key_minted(RIVAL))
    given(*both).when(Organisation.close).then(key_revoked(), key_revoked(RIVAL), closed())
    given(*both, key_revoked()).when(Organisation.close).then(key_revoked(RIVAL), closed())
    given(organisation_created(), closed()).when(Organisation.mint_key, **other.says).refuses(OrgMembershipRequired)


def test_closing_twice_records_nothing() -> None:
    given(organisation_created(), key_minted(), key_revoked(), closed()).when(Organisation.close).then()


def test_only_what_is_closed_is_erased_and_once() -> None:
    given(organisation_created(), closed()).when(Organisation.record_erased).then(erased())
    given(organisation_created(), closed(), erased()).when(Organisation.record_erased).then()
    given(organisation_created()).when(Organisation.record_erased).then()


@pytest.mark.parametrize("slug", ["ab", "a1", "acme", "acme-north", "0-0", "a" * 50, "a--b"])
def test_slugs(slug: str) -> None:
    assert SLUG.fullmatch(slug)


@pytest.mark.parametrize("slug", ["", "a", "a" * 51, "Acme", "acme.north", "-acme", "acme-", "ac me", "acmé", "acme\n"])
def test_no_slugs(slug: str) -> None:
    assert not SLUG.fullmatch(slug)
