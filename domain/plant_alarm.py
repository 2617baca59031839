"""A plant's alarms: each is raised once when a measurement leaves its band, and cleared once when it is back."""

from datetime import datetime
from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate, event

from domain.constraints import Constraint


class PlantAlarm(Aggregate):
    """Created by a plant's first alarm. Times are the plant's own: only a later measurement changes anything."""

    TOPIC = "plant-alarm"

    class Created(Aggregate.Created):
        TOPIC = "plant-alarm:created"
        organization_id: UUID
        plant_id: UUID

    class Raised(Aggregate.Event):
        """A measurement left its band; `queue_prefix` and `site_id` say whom we tell, and of which site."""

        TOPIC = "plant-alarm:raised"
        constraint: Constraint
        measured_at: datetime
        value: float
        minimum: float
        maximum: float
        queue_prefix: str
        site_id: str

    class Cleared(Aggregate.Event):
        """It is back, or no band is in force any more; `raised_at` names the alarm."""

        TOPIC = "plant-alarm:cleared"
        constraint: Constraint
        measured_at: datetime
        value: float
        raised_at: datetime
        queue_prefix: str
        site_id: str

    @event(Created)
    def __init__(self, organization_id: UUID, plant_id: UUID):
        self.organization_id = organization_id
        self.plant_id = plant_id
        self.raised: dict[Constraint, datetime] = {}
        self.changed: dict[Constraint, datetime] = {}

    @staticmethod
    def create_id(plant_id: UUID) -> UUID:
        return uuid5(plant_id, "plant-alarm")

    def raise_alarm(
        self,
        constraint: Constraint,
        measured_at: datetime,
        value: float,
        minimum: float,
        maximum: float,
        queue_prefix: str,
        site_id: str,
    ) -> None:
        if constraint not in self.raised and self._is_news(constraint, measured_at):
            self._raised(constraint, measured_at, value, minimum, maximum, queue_prefix, site_id)

    def clear_alarm(
        self, constraint: Constraint, measured_at: datetime, value: float, queue_prefix: str, site_id: str
    ) -> None:
        if constraint in self.raised and self._is_news(constraint, measured_at):
            self._cleared(constraint, measured_at, value, self.raised[constraint], queue_prefix, site_id)

    def _is_news(self, constraint: Constraint, measured_at: datetime) -> bool:
        return constraint not in self.changed or measured_at > self.changed[constraint]

    @event(Raised)
    def _raised(
        self,
        constraint: Constraint,
        measured_at: datetime,
        value: float,
        minimum: float,
        maximum: float,
        queue_prefix: str,
        site_id: str,
    ) -> None:
        self.raised[constraint] = self.changed[constraint] = measured_at

    @event(Cleared)
    def _cleared(
        self,
        constraint: Constraint,
        measured_at: datetime,
        value: float,
        raised_at: datetime,
        queue_prefix: str,
        site_id: str,
    ) -> None:
        del self.raised[constraint]
        self.changed[constraint] = measured_at
