"""Which organisations exist and whose each plant is: by the event log, which never lags, and remembered."""

from dataclasses import dataclass, field
from uuid import UUID

import anyio

from application.event_log import EventLog
from domain.plant import Plant
from domain.trading_config import TradingConfig

REMEMBERED = 100_000


@dataclass(frozen=True)
class Known:
    """Organisations never end and a plant never changes hands, so what was found stays true; what was not is asked
    for again."""

    events: EventLog
    _organizations: set[UUID] = field(default_factory=set)
    _organization_of: dict[UUID, UUID] = field(default_factory=dict)

    async def organization_exists(self, organization_id: UUID) -> bool:
        if organization_id not in self._organizations:
            config_id = TradingConfig.create_id(organization_id)
            if await anyio.to_thread.run_sync(self.events.find, TradingConfig, config_id) is None:
                return False
            self._organizations.add(organization_id)
        return True

    async def organization_of(self, plant_id: UUID) -> UUID | None:
        if plant_id not in self._organization_of:
            plant = await anyio.to_thread.run_sync(self.events.find, Plant, plant_id)
            if plant is None:
                return None
            if len(self._organization_of) >= REMEMBERED:
                self._organization_of.clear()
            self._organization_of[plant_id] = plant.organization_id
        return self._organization_of[plant_id]
