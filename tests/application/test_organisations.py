"""Organisations and their API keys."""

import pytest

from application.organisations import parse_api_key, signing_key_field
from domain.errors import AlreadyExists, Invalid, NotFound
from domain.organisation import Organisation
from domain.queue_prefix import QueuePrefix
from tests.application.world import Crash, World, crash
from tests.examples import (
    ACME,
    EXPIRY,
    KEY,
    RIVAL,
    created,
    key_revoked,
    organisation_created,
    prefix_created,
)
from tests.given import fact

READ = ["trading:read"]


# --- create
def test_an_organisation_comes_with_its_config_and_its_slug_as_prefix(world: World) -> None:
    organisation = world.organisations.create("rival", "Rival Power")
    assert organisation.id == Organisation.create_id("rival")
    config = created("rival").says | {"organization_id": organisation.id}
    assert world.news() == [
        organisation_created("rival", "Rival Power"),
        fact(created().event_class, **config),
        prefix_created(organisation.id, "rival", is_slug=True),
    ]


def test_its_name_is_its_slug_unless_told(world: World) -> None:
    assert world.organisations.create("rival").name == "rival"


def test_the_id_may_be_given(world: World) -> None:
    """The operator's identity provider names organisations by it."""
    assert world.organisations.create("rival", organization_id=RIVAL).id == RIVAL
    assert world.events.load(Organisation, RIVAL).slug == "rival"
    assert world.trading.load(RIVAL).queue_prefix == "rival"
    assert world.events.load(QueuePrefix, QueuePrefix.create_id("rival")).holder == RIVAL


@pytest.mark.parametrize("slug", ["", "a", "Acme", "acme.north", "-acme", "acme-", "a" * 51])
def test_a_slug_has_its_form(world: World, slug: str) -> None:
    with pytest.raises(Invalid, match="A slug is 2-50"):
        world.organisations.create(slug)
    assert world.news() == []


def test_a_taken_slug_is_refused(world: World) -> None:
    with pytest.raises(AlreadyExists, match="acme is taken"):
        world.organisations.create("acme")
    with pytest.raises(AlreadyExists):
        world.organisations.create("acme", organization_id=RIVAL)
    assert world.news() == []


def test_a_taken_id_is_refused(world: World) -> None:
    with pytest.raises(AlreadyExists):
        world.organisations.create("other", organization_id=ACME)
    assert world.news() == []


def test_a_slug_that_is_anothers_queue_prefix_is_refused(world: World) -> None:
    world.change(queuePrefix="rival")
    with pytest.raises(AlreadyExists, match="rival is taken"):
        world.organisations.create("rival")


def test_of_two_at_once_one_gets_the_slug(world: World) -> None:
    world.script.before_save = [world.rival]
    with pytest.raises(AlreadyExists):
        world.organisations.create("rival")
    assert world.news() == []


# --- keys
def test_a_key_is_minted_and_shown_once(world: World) -> None:
    minted = world.organisations.mint_key(ACME, "partner", ["trading:connect"], EXPIRY)
    parsed = parse_api_key(minted.api_key)
    assert parsed is not None
    key_id, secret = parsed
    assert key_id == minted.id
    (recorded,) = world.news()
    assert recorded == fact(
        Organisation.KeyMinted,
        key_id=minted.id,
        name="partner",
        scopes=["trading:connect"],
        secret_hash=f"hash of {secret[::-1]}",
        signing_key_version=1,
        expires_at=EXPIRY,
    )
    assert len(bytes.fromhex(minted.signing_key)) == 32
    assert world.secrets.open(ACME, signing_key_field(minted.id), 1) == minted.signing_key


def test_no_event_and_no_repr_holds_a_keys_secrets(world: World) -> None:
    minted = world.organisations.mint_key(ACME, "partner", READ)
    secret = minted.api_key.split("_", 2)[2]
    for each in (secret, minted.signing_key):
        assert each.encode() not in world.stored_bytes()
        assert each not in repr(minted)


def test_every_key_differs(world: World) -> None:
    keys = [world.organisations.mint_key(ACME, "partner", READ) for _ in range(3)]
    assert len({key.id for key in keys}) == len({key.api_key for key in keys}) == 3
    assert len({key.signing_key for key in keys}) == 3


def test_unknown_scopes_mint_nothing(world: World) -> None:
    with pytest.raises(Invalid):
        world.organisations.mint_key(ACME, "partner", ["trading:root"])
    assert world.news() == []


def test_an_organisation_that_does_not_exist_has_no_keys(world: World) -> None:
    with pytest.raises(NotFound, match="No such organisation"):
        world.organisations.mint_key(RIVAL, "partner", READ)
    with pytest.raises(NotFound, match="No such organisation"):
        world.organisations.revoke_key(RIVAL, KEY)


def test_a_key_expires(world: World) -> None:
    key = world.organisations.mint_key(ACME, "partner", READ, EXPIRY).id
    kept = world.events.load(Organisation, ACME).keys[key]
    assert kept.is_valid(EXPIRY.replace(year=2026))
    assert not kept.is_valid(EXPIRY)


def test_a_key_is_revoked_once(world: World) -> None:
    key = world.organisations.mint_key(ACME, "partner", READ).id
    world.news()
    world.organisations.revoke_key(ACME, key)
    assert world.news() == [key_revoked(key)]
    world.organisations.revoke_key(ACME, key)
    assert world.news() == []


def test_another_organisations_key_cannot_be_revoked(world: World) -> None:
    world.rival()
    key = world.organisations.mint_key(ACME, "partner", READ).id
    with pytest.raises(NotFound, match="No such API key"):
        world.organisations.revoke_key(RIVAL, key)


def test_a_crash_between_sealing_and_recording_mints_nothing(world: World) -> None:
    world.script.before_save = [crash]
    with pytest.raises(Crash):
        world.organisations.mint_key(ACME, "partner", READ)
    assert world.news() == []
    assert world.organisations.mint_key(ACME, "partner", READ).id in world.events.load(Organisation, ACME).keys


def test_minting_beside_another_writer_mints_both(world: World) -> None:
    world.script.before_save = [lambda: world.organisations.mint_key(ACME, "other", READ)]
    world.organisations.mint_key(ACME, "partner", READ)
    assert len(world.events.load(Organisation, ACME).keys) == 2


@pytest.mark.parametrize("text", ["", "wl", "wl_", "wl_0_x", f"xx_{KEY.hex}_x", f"wl_{'g' * 32}_x", f"wl_{KEY.hex}"])
def test_what_is_no_api_key(text: str) -> None:
    assert parse_api_key(text) is None


def test_an_api_keys_random_part_may_hold_any_character() -> None:
    assert parse_api_key(f"wl_{KEY.hex}_a_b-c") == (KEY, "a_b-c")
