"""Events as they are stored: one exact form, pinned for ever, and nothing resolved that is not in the catalogue."""

import json
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from typing import Any, get_type_hints
from uuid import UUID

import pytest
from eventsourcing.domain import Aggregate, AggregateEvent
from eventsourcing.persistence import MapperDeserialisationError, StoredEvent
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import EVENTS, topic_of
from domain.plant import PlantDescription
from infra.event_mapper import EventMapper
from tests.event_log.store_examples import GOLDEN

MAPPER = EventMapper()
STREAM = UUID("5c7c8a30-0f0e-4ff5-9bb7-0a3c8e64f0e2")

# What hypothesis needs help with: times are in UTC, numbers are finite, payloads are JSON.
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_WHOLE = st.integers(-(2**53), 2**53)
_JSON = st.recursive(
    st.none() | st.booleans() | _WHOLE | _FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
st.register_type_strategy(float, _FINITE)
st.register_type_strategy(int, _WHOLE)
st.register_type_strategy(PlantDescription, st.builds(PlantDescription))


@st.composite
def events(draw: st.DrawFn) -> AggregateEvent:
    event_class = draw(st.sampled_from(list(EVENTS.values())))
    hints = get_type_hints(event_class)
    values: dict[str, Any] = {}
    for field in fields(event_class):
        if field.name == "originator_topic":
            values[field.name] = topic_of(event_class).split(":")[0]
        elif field.name == "originator_id":
            values[field.name] = draw(st.uuids())
        elif field.name == "payload":
            values[field.name] = draw(st.dictionaries(st.text(), _JSON, max_size=3))
        else:
            assert field.default is MISSING
            values[field.name] = draw(st.from_type(hints[field.name]))
    return event_class(**values)


@given(events())
def test_what_is_read_back_is_what_was_stored(event: AggregateEvent) -> None:
    stored = MAPPER.to_stored_event(event)
    read = MAPPER.to_domain_event(stored)
    assert type(read) is type(event)
    assert vars(read) == vars(event)
    assert MAPPER.to_stored_event(read) == stored


@given(events())
def test_there_is_one_exact_form(event: AggregateEvent) -> None:
    state = json.loads(MAPPER.to_stored_event(event).state)
    assert list(state) == sorted(state)
    assert state["timestamp"].endswith("Z")
    assert not {"originator_id", "originator_version", "originator_topic"} & set(state)


def test_every_event_that_was_ever_stored_is_still_read_and_written_alike() -> None:
    """What is in the file never changes."""
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(EVENTS), "for new events run `python -m tests.event_log.store_examples`"
    for topic, state in golden.items():
        read = MAPPER.to_domain_event(StoredEvent(STREAM, 1, topic, state.encode()))
        assert type(read) is EVENTS[topic]
        assert MAPPER.to_stored_event(read).state.decode() == state


@pytest.mark.parametrize(
    ("topic", "state"),
    [
        ("os:system", b"{}"),
        ("domain.plant:Plant.Created", b"{}"),
        ("plant:created", b"{}"),
        ("plant:created", b"not JSON"),
        ("plant:linked", b'{"timestamp":"yesterday"}'),
    ],
)
def test_what_is_not_in_the_catalogue_or_not_of_its_form_is_refused(topic: str, state: bytes) -> None:
    with pytest.raises(MapperDeserialisationError):
        MAPPER.to_domain_event(StoredEvent(STREAM, 1, topic, state))


class Meter(Aggregate):
    """An aggregate whose event has changed twice."""

    TOPIC = "test-meter"

    class Created(Aggregate.Created):
        TOPIC = "test-meter:created"

    @dataclass(frozen=True)
    class Read(Aggregate.Event):
        TOPIC = "test-meter:read"
        class_version = 3
        energy_kwh: float
        source: str

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["energy_kwh"] = state.pop("energy_wh") / 1000

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            state["source"] = "unknown"


@pytest.mark.parametrize(
    "state",
    [
        b'{"energy_wh":1500,"timestamp":"2026-01-01T00:00:00Z"}',
        b'{"class_version":2,"energy_kwh":1.5,"timestamp":"2026-01-01T00:00:00Z"}',
        b'{"class_version":3,"energy_kwh":1.5,"source":"unknown","timestamp":"2026-01-01T00:00:00Z"}',
    ],
)
def test_older_versions_are_brought_up_to_date(state: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVENTS, Meter.Read.TOPIC, Meter.Read)
    read = MAPPER.to_domain_event(StoredEvent(STREAM, 1, Meter.Read.TOPIC, state))
    assert (read.energy_kwh, read.source, read.timestamp) == (1.5, "unknown", datetime(2026, 1, 1, tzinfo=UTC))
    assert json.loads(MAPPER.to_stored_event(read).state)["class_version"] == 3
