"""Whatever comes: it is dead-lettered, refused with a reason or right, and it never raises."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.relayed_command import RelayedCommand
from interfaces.amqp import PlantAcks
from interfaces.amqp.intake import INTERNAL_ERROR
from tests.relay.world import PAYLOADS, World, delivery

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "", "\0", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-03-01T12:00:00Z",
            "2026-03-01T12:00:00.123456789Z", "1.1", "HMAC-SHA256", 1e308, 10**400, -0.0, 2**53 + 1,
        ]
    )
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
FIELDS = [
    "version", "messageId", "correlationId", "timestamp", "source", "siteId", "payload", "signatureAlgo", "signature",
    "signatureKid", "surprise",
]  # fmt: skip
KEYS = st.sampled_from([f"acme.{kind}" for kind in PAYLOADS]) | st.text(max_size=20).map(lambda rest: f"acme.{rest}")


@pytest.fixture(scope="module")
def shared() -> World:
    return World()


def check(world: World, body: bytes, key: str) -> None:
    before = world.last_position
    letters = world.commands([delivery(body, key, "vcp.acme.command")])
    if letters:
        assert letters[0].reason != INTERNAL_ERROR
        assert world.last_position == before
    else:
        [created, *_] = [each.event for each in world.recorded(before)]
        command = world.events.load(RelayedCommand, created.originator_id)
        assert command.status == "ACCEPTED" or command.rejection is not None
    world.publish()


@FUZZ
@given(body=st.binary(max_size=200), key=KEYS)
def test_bytes(shared: World, body: bytes, key: str) -> None:
    check(shared, body, key)


@FUZZ
@given(document=JSON, key=KEYS)
def test_documents(shared: World, document: Any, key: str) -> None:
    check(shared, json.dumps(document).encode(), key)


@FUZZ
@given(kind=st.sampled_from(sorted(PAYLOADS)), changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2))
def test_envelopes_with_a_field_gone_wrong(shared: World, kind: str, changes: dict[str, Any]) -> None:
    document = json.loads(shared.unsigned(kind)) | changes
    check(shared, json.dumps(document).encode(), f"acme.{kind}")


@FUZZ
@given(kind=st.sampled_from(sorted(PAYLOADS)), data=st.data())
def test_payloads_with_a_field_gone_wrong(shared: World, kind: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(PAYLOADS[kind])))
    payload = PAYLOADS[kind] | {field: data.draw(JSON)}
    document = json.loads(shared.unsigned(kind)) | {"payload": payload}
    check(shared, json.dumps(document).encode(), f"acme.{kind}")


def test_depth(shared: World) -> None:
    for depth in (50, 300, 1000, 100_000):
        envelope = json.loads(shared.unsigned("config.limits")) | {"messageId": str(uuid4()), "payload": {"d": "@"}}
        body = json.dumps(envelope).replace('"@"', "[" * depth + "]" * depth)
        check(shared, body.encode(), "acme.config.limits")


@FUZZ
@given(
    body=st.binary(max_size=50)
    | JSON.map(lambda document: json.dumps(document).encode())
    | st.dictionaries(st.sampled_from(["commandId", "status", "ts", "detail"]), JSON | st.just(str(UUID(int=1)))).map(
        lambda document: json.dumps(document).encode()
    ),
    key=st.sampled_from([f"plant.{UUID(int=1)}.ack", "plant.x.ack", f"plant.{'-' * 36}.ack", ""]),
)
def test_plant_acks(shared: World, body: bytes, key: str) -> None:
    [letter] = PlantAcks(shared.relay)([delivery(body, key, "vcp.plant-acks")])
    assert letter.reason != INTERNAL_ERROR
