"""The changes of a plant's configuration: each is sent to the ESM, then answered; one in flight at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict
from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate, event

from domain.errors import ChangeInFlight

ANSWER_TIMEOUT = timedelta(hours=1)

TimeConfig = TypedDict(
    "TimeConfig",
    {"from": str, "to": str, "pBatMin": float, "pBatMax": float, "socMin": float, "socMax": float},
)
"""A time block as it was sent: history keeps the partner's names and is never validated anew."""


@dataclass(frozen=True)
class Change:
    """A change that has no final answer yet; `request_code` is None until the ESM first answered."""

    id: UUID
    sent_at: datetime
    version: int | None
    validate_only: bool
    time_configs: list[TimeConfig]
    request_code: str | None = None
    answered: bool = False


@dataclass(frozen=True)
class AppliedPlan:
    """What the ESM said it has, and when it said so."""

    time_configs: list[TimeConfig]
    at: datetime


class PlantConfig(Aggregate):
    """Created by a plant's first change."""

    TOPIC = "plant-config"

    class Created(Aggregate.Created):
        TOPIC = "plant-config:created"
        organization_id: UUID
        plant_id: UUID

    class ChangeSent(Aggregate.Event):
        """About to be sent; `version` is the ESM's version it is based on, None if that could not be read. Who asked is
        veiled."""

        TOPIC = "plant-config:change-sent"
        plant_id: UUID
        change_id: UUID
        requested_by: str
        validate_only: bool
        version: int | None
        time_configs: list[TimeConfig]

    class ChangeAnswered(Aggregate.Event):
        """What the ESM said; not terminal means that it will say more under `request_code`."""

        TOPIC = "plant-config:change-answered"
        change_id: UUID
        request_code: str | None
        result_code: str | None
        message: str | None
        is_error: bool
        is_terminal: bool

    @event(Created)
    def __init__(self, organization_id: UUID, plant_id: UUID):
        self.organization_id = organization_id
        self.plant_id = plant_id
        self.in_flight: Change | None = None
        self.applied: AppliedPlan | None = None

    @staticmethod
    def create_id(plant_id: UUID) -> UUID:
        return uuid5(plant_id, "plant-config")

    def send_change(
        self,
        change_id: UUID,
        requested_by: str,
        version: int | None,
        time_configs: list[TimeConfig],
        *,
        validate_only: bool,
    ) -> None:
        if self.in_flight is not None:
            raise ChangeInFlight
        self._change_sent(self.plant_id, change_id, requested_by, validate_only, version, time_configs)

    def answer_change(
        self,
        change_id: UUID,
        *,
        request_code: str | None,
        result_code: str | None,
        message: str | None,
        is_error: bool,
        is_terminal: bool,
    ) -> None:
        """Quiet for a change that is not in flight, and for a repeated "later"."""
        change = self.in_flight
        if change is None or change.id != change_id or (change.answered and not is_terminal):
            return
        self._change_answered(
            change_id, request_code or change.request_code, result_code, message, is_error, is_terminal
        )

    @event(ChangeSent)
    def _change_sent(
        self,
        plant_id: UUID,
        change_id: UUID,
        requested_by: str,
        validate_only: bool,
        version: int | None,
        time_configs: list[TimeConfig],
        timestamp: datetime | None = None,
    ) -> None:
        assert timestamp is not None  # the library fills it in before it calls
        self.in_flight = Change(change_id, timestamp, version, validate_only, time_configs)

    @event(ChangeAnswered)
    def _change_answered(
        self,
        change_id: UUID,
        request_code: str | None,
        result_code: str | None,
        message: str | None,
        is_error: bool,
        is_terminal: bool,
        timestamp: datetime | None = None,
    ) -> None:
        assert timestamp is not None  # the library fills it in before it calls
        change = self.in_flight
        if change is not None and is_terminal and not is_error and not change.validate_only:
            self.applied = AppliedPlan(change.time_configs, timestamp)
        if is_terminal or change is None:
            self.in_flight = None
        else:
            self.in_flight = Change(
                change.id,
                change.sent_at,
                change.version,
                change.validate_only,
                change.time_configs,
                request_code,
                answered=True,
            )
