"""Turns events into stored JSON and back: only catalogued topics, one exact form, typed by the event's own fields."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, TypedDict, get_type_hints
from uuid import UUID

import msgspec
from eventsourcing.domain import AggregateEvent, DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, Mapper, MapperDeserialisationError, StoredEvent

from domain.catalogue import EVENTS, UNKNOWN, topic_of

_encoder = msgspec.json.Encoder(order="sorted")
Make = Callable[[Any, int, bytes], Any]
_IN_COLUMNS = {"originator_id", "originator_version"}


class EventMapper(Mapper[UUID]):
    """Keys sorted, times in UTC with `Z`, nothing that a column or the topic says already."""

    def __init__(self) -> None:
        super().__init__(JSONTranscoder())

    def __reduce__(self) -> tuple[type["EventMapper"], tuple[()]]:
        """Goes to the processes of a rebuild; the library's transcoder, which it never uses, would not."""
        return EventMapper, ()

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        event_class = type(domain_event)
        fields_of = vars(domain_event)
        state = {name: fields_of[name] for name in _shape(event_class).names}
        version = getattr(event_class, "class_version", 1)
        if version > 1:
            state["class_version"] = version
        return StoredEvent(
            domain_event.originator_id,
            domain_event.originator_version,
            topic_of(event_class),
            _encoder.encode(state),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """Raises MapperDeserialisationError for a topic that is not in the catalogue, or a state that is not its."""
        return self.decoder(stored_event.topic)(
            stored_event.originator_id, stored_event.originator_version, stored_event.state
        )

    def decoder(self, topic: str) -> Make:
        """What makes an event of its stream's id, its version and its state; raises as `to_domain_event` does."""
        event_class = EVENTS.get(topic)
        if event_class is None:
            raise MapperDeserialisationError(f"{topic}{UNKNOWN}")
        return _shape(event_class).make


class _Shape:
    """What of an event class is stored, and how it is read."""

    def __init__(self, event_class: type[AggregateEvent]):
        hints = get_type_hints(event_class, include_extras=True)
        names = [field.name for field in fields(event_class)]
        self.names = tuple(name for name in names if name not in _IN_COLUMNS and name != "originator_topic")
        self.event_class = event_class
        # msgspec fills a typed dictionary in one go, and an event keeps its fields in just such a one.
        self.typed: Any = TypedDict(event_class.__name__, {name: hints[name] for name in self.names})  # type: ignore[misc]
        self.version = getattr(event_class, "class_version", 1)
        self.decode = msgspec.json.Decoder(self.typed).decode if self.version == 1 else self._decode_older
        self.given = {"originator_topic": topic_of(event_class).split(":")[0]} if "originator_topic" in names else {}
        self.make = self._maker()

    def _maker(self) -> Make:
        """What every event of a rebuild goes through, so everything it needs is at hand."""
        event_class, decode, given = self.event_class, self.decode, self.given
        new, set_at_once = object.__new__, object.__setattr__

        def make(stream_id: UUID, version: int, state: bytes) -> Any:
            try:
                fields_of: dict[str, Any] = decode(state)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                place = f"{topic_of(event_class)}, version {version} of stream {stream_id}"
                raise MapperDeserialisationError(f"{place}: {error}") from error
            fields_of["originator_id"] = stream_id
            fields_of["originator_version"] = version
            if given:
                fields_of.update(given)
            event = new(event_class)
            # What its __init__ would do, field by field; a frozen event takes its fields at once this way only.
            set_at_once(event, "__dict__", fields_of)
            return event

        return make

    def _decode_older(self, stored: bytes) -> Any:
        """A state of any version up to ours, brought up by the event class's `upcast_vN_vN+1` in turn."""
        state = msgspec.json.decode(stored)
        for version in range(state.pop("class_version", 1), self.version):
            getattr(self.event_class, f"upcast_v{version}_v{version + 1}")(state)
        return msgspec.convert(state, self.typed)


@cache
def _shape(event_class: type[Any]) -> _Shape:
    return _Shape(event_class)


def state_type(event_class: type[AggregateEvent]) -> Any:
    """The typed dictionary that an event's state is stored as."""
    return _shape(event_class).typed
