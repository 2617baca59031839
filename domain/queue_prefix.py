"""Who holds a queue prefix: one stream a prefix, so that the event store itself keeps prefixes unique."""

from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate, event

from domain.errors import QueuePrefixTaken
from domain.organisation import NAMESPACE


class QueuePrefix(Aggregate):
    """A prefix that was ever claimed. An organisation's slug stays its own for ever."""

    TOPIC = "queue-prefix"

    class Created(Aggregate.Created):
        TOPIC = "queue-prefix:created"
        prefix: str
        organization_id: UUID
        is_slug: bool

    class Claimed(Aggregate.Event):
        TOPIC = "queue-prefix:claimed"
        organization_id: UUID

    class Released(Aggregate.Event):
        TOPIC = "queue-prefix:released"

    @event(Created)
    def __init__(self, prefix: str, organization_id: UUID, is_slug: bool):
        self.prefix = prefix
        self.is_slug = is_slug
        self.holder: UUID | None = organization_id

    @staticmethod
    def create_id(prefix: str) -> UUID:
        return uuid5(NAMESPACE, f"queue-prefix:{prefix}")

    def claim(self, organization_id: UUID) -> None:
        if self.holder not in (None, organization_id):
            raise QueuePrefixTaken
        if self.holder is None:
            self._claimed(organization_id)

    def release(self) -> None:
        if self.holder is not None and not self.is_slug:
            self._released()

    @event(Claimed)
    def _claimed(self, organization_id: UUID) -> None:
        self.holder = organization_id

    @event(Released)
    def _released(self) -> None:
        self.holder = None
