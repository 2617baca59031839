"""Signatures: vectors that any partner can check itself against, and every way to get one wrong."""

import json
from typing import Any

import pytest
import rfc8785

from domain import vcp
from tests.relay.test_relay import judged
from tests.relay.world import World, later

KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
MESSAGE: dict[str, Any] = {
    "version": "1.1",
    "messageId": "11111111-2222-3333-4444-555555555555",
    "timestamp": "2026-03-01T12:00:00Z",
    "source": "esm",
    "siteId": "Příbram-1",
    "payload": {"mode": "PEAK_SHAVING", "validFrom": "2026-03-01T12:00:00Z", "limit": 10.0, "tiny": 1e-7},
    "signatureAlgo": "HMAC-SHA256",
}
CANONICAL = (
    '{"messageId":"11111111-2222-3333-4444-555555555555","payload":{"limit":10,"mode":"PEAK_SHAVING","tiny":1e-7,'
    '"validFrom":"2026-03-01T12:00:00Z"},"signatureAlgo":"HMAC-SHA256","siteId":"Příbram-1","source":"esm",'
    '"timestamp":"2026-03-01T12:00:00Z","version":"1.1"}'
)
# openssl dgst -sha256 -mac HMAC -macopt hexkey:$KEY -binary | basenc --base64url
SIGNATURE = "JvKjnUApy1MRs5yKaIEYCaS8yFU3K4qYyVyMI7wSIKM"


def test_the_vector() -> None:
    assert rfc8785.dumps(MESSAGE).decode() == CANONICAL
    assert vcp.sign(CANONICAL.encode(), KEY) == SIGNATURE


@pytest.mark.parametrize("padding", ["", "="])
def test_order_spaces_escapes_and_padding_do_not_matter(padding: str) -> None:
    shuffled = dict(reversed((MESSAGE | {"signature": SIGNATURE + padding}).items()))
    for body in (json.dumps(shuffled, indent=3), json.dumps(shuffled, ensure_ascii=False)):
        assert vcp.signature_matches(vcp.read(body.encode()), KEY)


@pytest.mark.parametrize(
    "change",
    [
        {"siteId": "Příbram-2"},
        {"timestamp": "2026-03-01T12:00:00.000Z"},
        {"correlationId": "c"},
        {"signature": ""},
        {"signature": SIGNATURE[:-4]},
        {"signature": "é" * 43},
        {"signature": "A" * 43},
        {"signatureAlgo": "none"},
        {"signatureAlgo": "HMAC-SHA1"},
    ],
)
def test_any_change_spoils_it(change: dict[str, str]) -> None:
    received = vcp.read(json.dumps(MESSAGE | {"signature": SIGNATURE} | change).encode())
    assert not vcp.signature_matches(received, KEY)


def test_a_wrong_signature_is_refused_also_where_none_is_required(world: World) -> None:
    body = json.loads(world.body()) | {"signature": "A" * 43}
    assert judged(world, json.dumps(body).encode()).rejection == "SIGNATURE_INVALID"


def test_any_valid_key_signs_unless_one_is_named(world: World) -> None:
    with world.acting():
        second = world.organisations.mint_key(world.organization_id, "second", ["trading:connect"])
        reader = world.organisations.mint_key(world.organization_id, "reader", ["trading:read"])
    assert judged(world, world.body("command.mode"), "command.mode").status == "ACCEPTED"
    named = world.body("command.mode", signatureKid=str(second.id))
    assert judged(world, named, "command.mode").rejection == "SIGNATURE_INVALID"
    own = world.key
    world.key = second
    named = world.body("command.mode", signatureKid=second.id.hex)
    assert judged(world, named, "command.mode").status == "ACCEPTED"
    world.key = reader
    assert judged(world, world.body("command.mode"), "command.mode").rejection == "SIGNATURE_INVALID"
    world.key = own


def test_a_revoked_an_expired_and_a_forgotten_key_sign_nothing(world: World) -> None:
    ends = later(world.now, minutes=1)
    with world.acting():
        brief = world.organisations.mint_key(world.organization_id, "brief", ["trading:connect"], ends)
        world.organisations.revoke_key(world.organization_id, world.key.id)
    assert judged(world, world.body("command.mode"), "command.mode").rejection == "SIGNATURE_INVALID"
    world.key = brief
    assert judged(world, world.body("command.mode"), "command.mode").status == "ACCEPTED"
    world.now = ends
    assert judged(world, world.body("command.mode"), "command.mode").rejection == "SIGNATURE_INVALID"
    world.now = later(ends, seconds=-1)
    world.secrets.sealed.clear()
    assert judged(world, world.body("command.mode"), "command.mode").rejection == "SIGNATURE_INVALID"


def test_another_organisations_key_signs_nothing_here(world: World) -> None:
    with world.acting():
        rival = world.organisations.create("rival")
        world.key = world.organisations.mint_key(rival.id, "esm", ["trading:connect"])
    assert judged(world, world.body("command.mode"), "command.mode").rejection == "SIGNATURE_INVALID"
