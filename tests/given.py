"""given(events…).when(command).then(events…): aggregates tested by what they record, without a store."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.domain import Aggregate, AggregateEvent

from domain.catalogue import topic_of

ID = UUID("11111111-1111-4111-8111-111111111111")
START = datetime(2026, 1, 5, 12, tzinfo=UTC)
_NOISE = {"originator_id", "originator_version", "originator_topic", "timestamp"}


@dataclass(frozen=True)
class Fact:
    """What an event says, without its place in a stream and its time."""

    event_class: type[AggregateEvent]
    says: dict[str, Any]


def fact(event_class: type[AggregateEvent], **says: Any) -> Fact:
    assert set(says) == {field.name for field in fields(event_class)} - _NOISE, (
        "an example says all that its event does"
    )
    return Fact(event_class, says)


def facts_of(aggregate: Aggregate) -> list[Fact]:
    """What the aggregate is about to record."""
    return facts_in(aggregate.pending_events)


def facts_in(events: Iterable[Any]) -> list[Fact]:
    return [
        Fact(type(event), {name: value for name, value in vars(event).items() if name not in _NOISE})
        for event in events
    ]


@dataclass(frozen=True)
class Given:
    """A stream: `state()` is its aggregate, a new one each time."""

    facts: tuple[Fact, ...]

    def events(self) -> list[Any]:
        """The facts in their places, a second apart."""
        return [_event(each, number) for number, each in enumerate(self.facts)]

    def state(self) -> Any:
        aggregate: Any = None
        for event in self.events():
            aggregate = event.mutate(aggregate)
        return aggregate

    def when(self, command: Callable[..., object], *args: Any, **kwargs: Any) -> "When":
        return When(self, lambda aggregate: command(aggregate, *args, **kwargs))


@dataclass(frozen=True)
class When:
    given: Given
    command: Callable[[Any], object]

    def then(self, *expected: Fact) -> None:
        aggregate = self.given.state()
        self.command(aggregate)
        assert facts_of(aggregate) == list(expected)

    def refuses(self, error: type[Exception], message: str | None = None) -> None:
        """Says no, and records nothing."""
        aggregate = self.given.state()
        with pytest.raises(error, match=message) as caught:
            self.command(aggregate)
        assert caught.type is error
        assert facts_of(aggregate) == []


def given(*facts: Fact) -> Given:
    return Given(facts)


def _event(of: Fact, number: int) -> Any:
    event: Any = object.__new__(of.event_class)
    place = {"originator_id": ID, "originator_version": number + 1, "timestamp": START + timedelta(seconds=number)}
    topic = {} if number else {"originator_topic": topic_of(of.event_class).split(":")[0]}
    event.__dict__.update(of.says | place | topic)
    return event
