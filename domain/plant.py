"""A plant of an organisation, as its ESM lists it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate, event

MISSES_TO_UNLINK = 3


@dataclass(frozen=True)
class PlantDescription:
    """What the ESM says of a plant; power in kW peak, capacity in kWh."""

    name: str
    description: str | None = None
    capacity_kwh: float | None = None
    fve_peak_power_kwp: float | None = None
    plant_with_load: bool | None = None
    config_enabled: bool | None = None
    esi_state: str | None = None


class Plant(Aggregate):
    """Registered by a sync or by the command line; its history stays when it is unlinked."""

    TOPIC = "plant"

    class Created(Aggregate.Created):
        TOPIC = "plant:created"
        organization_id: UUID
        external_plant_id: str
        name: str

    class Linked(Aggregate.Event):
        """The ESM lists it."""

        TOPIC = "plant:linked"

    class Described(Aggregate.Event):
        TOPIC = "plant:described"
        description: PlantDescription

    class Missed(Aggregate.Event):
        """A list came without it; it was last seen in a list at `last_seen_at`."""

        TOPIC = "plant:missed"
        last_seen_at: datetime | None

    class Unlinked(Aggregate.Event):
        TOPIC = "plant:unlinked"

    class SeenAgain(Aggregate.Event):
        """Back in the list before it was unlinked."""

        TOPIC = "plant:seen-again"

    @event(Created)
    def __init__(self, organization_id: UUID, external_plant_id: str, name: str):
        self.organization_id = organization_id
        self.external_plant_id = external_plant_id
        self.description = PlantDescription(name)
        self.linked = False
        self.misses = 0

    @staticmethod
    def create_id(organization_id: UUID, external_plant_id: str) -> UUID:
        return uuid5(organization_id, f"plant:{external_plant_id}")

    def link(self, description: PlantDescription) -> None:
        """The ESM lists it, and describes it so."""
        if not self.linked:
            self._linked()
        elif self.misses:
            self._seen_again()
        if self.description != description:
            self._described(description)

    def miss(self, last_seen_at: datetime | None) -> None:
        """A list came without it: the third in a row unlinks it."""
        if not self.linked:
            return
        self._missed(last_seen_at)
        if self.misses >= MISSES_TO_UNLINK:
            self._unlinked()

    @event(Linked)
    def _linked(self) -> None:
        self.linked = True
        self.misses = 0

    @event(Described)
    def _described(self, description: PlantDescription) -> None:
        self.description = description

    @event(Missed)
    def _missed(self, last_seen_at: datetime | None) -> None:
        self.misses += 1

    @event(Unlinked)
    def _unlinked(self) -> None:
        self.linked = False

    @event(SeenAgain)
    def _seen_again(self) -> None:
        self.misses = 0
