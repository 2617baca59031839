"""The event log as the use cases see it: load aggregates, save them, know the position that a save reached."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar, cast, runtime_checkable
from uuid import UUID

import stamina
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import ApplicationRecorder, IntegrityError, Mapper, Recording, StoredEvent

from application.context import Metadata, current_task, metadata

A = TypeVar("A", bound=Aggregate)
P = ParamSpec("P")
R = TypeVar("R")


@runtime_checkable
class ManyStreams(Protocol):
    """A recorder that reads many streams in one round trip."""

    def select_events_of(self, originator_ids: Sequence[UUID]) -> Sequence[StoredEvent]: ...


@runtime_checkable
class Remembers(Protocol):
    """A recorder that keeps metadata."""

    def last_metadata(self, originator_id: UUID) -> tuple[int, dict[str, Any]] | None:
        """The position and the metadata of a stream's last event."""


class EventLog(Application[UUID]):
    """Without a recorder and a mapper it is its own in-memory twin."""

    name = "wattledger"
    env: ClassVar[dict[str, str]] = {"AGGREGATE_CACHE_MAXSIZE": "2000"}

    def __init__(self, recorder: ApplicationRecorder | None = None, mapper: Mapper[UUID] | None = None):
        self._given_recorder = recorder
        self._given_mapper = mapper
        super().__init__()

    def construct_recorder(self) -> ApplicationRecorder:
        return self._given_recorder or super().construct_recorder()

    def construct_mapper(self) -> Mapper[UUID]:
        return self._given_mapper or super().construct_mapper()

    def load(self, aggregate: type[A], aggregate_id: UUID, version: int | None = None) -> A:
        """As it is, or as it was at a version; changing it changes nothing until it is saved. Raises
        AggregateNotFoundError."""
        loaded: Any = self.repository.get(aggregate_id, version=version)
        if not isinstance(loaded, aggregate):
            raise AggregateNotFoundError(aggregate_id)
        return loaded

    def find(self, aggregate: type[A], aggregate_id: UUID, version: int | None = None) -> A | None:
        try:
            return self.load(aggregate, aggregate_id, version)
        except AggregateNotFoundError:
            return None

    def find_all(self, aggregate: type[A], aggregate_ids: Sequence[UUID]) -> dict[UUID, A]:
        """Those that exist, by id: in one round trip where the recorder can."""
        if not isinstance(self.recorder, ManyStreams):
            found = ((aggregate_id, self.find(aggregate, aggregate_id)) for aggregate_id in aggregate_ids)
            return {aggregate_id: loaded for aggregate_id, loaded in found if loaded is not None}
        folded: dict[UUID, Any] = {}
        for stored in self.recorder.select_events_of(aggregate_ids):
            event = cast("Any", self.mapper.to_domain_event(stored))
            folded[event.originator_id] = event.mutate(folded.get(event.originator_id))
        return {key: loaded for key, loaded in folded.items() if isinstance(loaded, aggregate)}

    def save(self, *objs: Any, **kwargs: Any) -> list[Recording[UUID]]:
        """Saves in one transaction, with the current task's metadata, or with `metadata_of` each aggregate id given.
        Raises IntegrityError when another writer was first, RequestInProgress when the request itself was."""
        task = current_task.get()
        kwargs.setdefault("metadata", metadata())
        if task is not None and task.position == 0:
            kwargs["idempotency"] = task.idempotency
        # As the library saves, but for its look at the shape of each object, which takes longer than deciding.
        recordings = self.events.put([event for each in objs for event in each.collect_events()], **kwargs)
        if recordings and task is not None:
            task.position = max(task.position, recordings[-1].notification.id)
        return recordings

    def following(self, aggregate_id: UUID) -> Metadata:
        """The current task's metadata for what follows from an aggregate's last event."""
        last = self.recorder.last_metadata(aggregate_id) if isinstance(self.recorder, Remembers) else None
        if last is None:
            return metadata()
        position, before = last
        return replace(
            metadata(),
            correlation_id=before.get("correlation_id"),
            causation_id=str(position),
            traceparent=before.get("traceparent"),
        )

    def save_all(self, aggregates: Iterable[Aggregate], metadata_of: Mapping[UUID, Metadata]) -> list[Recording[UUID]]:
        """Saves aggregates that were caused by different messages in one transaction."""
        return self.save(*aggregates, metadata_of=metadata_of)


def again_if_overtaken(use_case: Callable[P, R]) -> Callable[P, R]:
    """Loads and decides anew when another writer was first; right for use cases that only load, decide and save."""
    return stamina.retry(on=IntegrityError, attempts=6, timeout=3, wait_initial=0.005, wait_max=0.1, wait_jitter=0.02)(
        use_case
    )
