"""Turns events into stored JSON and back: only catalogued topics, one exact form, typed by the event's own fields."""

from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints
from uuid import UUID

import msgspec
from eventsourcing.domain import AggregateEvent, DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, Mapper, MapperDeserialisationError, StoredEvent

from domain.catalogue import EVENTS, topic_of

_encoder = msgspec.json.Encoder(order="sorted")
_IN_COLUMNS = {"originator_id", "originator_version"}


class EventMapper(Mapper[UUID]):
    """Keys sorted, times in UTC with `Z`, nothing that a column or the topic says already."""

    def __init__(self) -> None:
        super().__init__(JSONTranscoder())

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        event_class = type(domain_event)
        state = {name: value for name, value in vars(domain_event).items() if name in _shape(event_class).names}
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
        event_class = EVENTS.get(stored_event.topic)
        if event_class is None:
            raise MapperDeserialisationError(f"{stored_event.topic} is not in the catalogue of events")
        try:
            state = _shape(event_class).decode(stored_event.state)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            place = f"version {stored_event.originator_version} of stream {stored_event.originator_id}"
            raise MapperDeserialisationError(f"{stored_event.topic}, {place}: {error}") from error
        state["originator_id"] = stored_event.originator_id
        state["originator_version"] = stored_event.originator_version
        event: Any = object.__new__(event_class)
        event.__dict__.update(state)
        return event


class _Shape:
    """What of an event class is stored, and how it is read."""

    def __init__(self, event_class: type[AggregateEvent]):
        hints = get_type_hints(event_class, include_extras=True)
        stored = [field.name for field in fields(event_class) if field.name not in _IN_COLUMNS | {"originator_topic"}]
        self.names = frozenset(stored)
        self.event_class = event_class
        self.struct = msgspec.defstruct(event_class.__qualname__, [(name, hints[name]) for name in stored])
        self.decoder = msgspec.json.Decoder(self.struct)
        self.version = getattr(event_class, "class_version", 1)
        created = "originator_topic" in {field.name for field in fields(event_class)}
        topic = topic_of(event_class).split(":")[0]
        self.derived = {"originator_topic": topic} if created else {}

    def decode(self, stored: bytes) -> dict[str, Any]:
        struct = self.decoder.decode(stored) if self.version == 1 else self._decode_older(stored)
        return {name: getattr(struct, name) for name in self.names} | self.derived

    def _decode_older(self, stored: bytes) -> Any:
        """A state of any version up to ours, brought up by the event class's `upcast_vN_vN+1` in turn."""
        state = msgspec.json.decode(stored)
        for version in range(state.pop("class_version", 1), self.version):
            getattr(self.event_class, f"upcast_v{version}_v{version + 1}")(state)
        return msgspec.convert(state, self.struct)


@cache
def _shape(event_class: type[Any]) -> _Shape:
    return _Shape(event_class)
